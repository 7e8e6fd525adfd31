// `weft eval`: how well a model (and adapter) does on a data file: loss and perplexity of text,
// which of a few answers it chooses, or the classes it gives to rows.

#include <algorithm>
#include <cmath>
#include <iostream>
#include <memory>

#include <nlohmann/json.hpp>

#include "cli/model_options.h"
#include "cli/set_up.h"
#include "cli/whole_number.h"
#include "common/base/str.h"
#include "common/data/batch.h"
#include "common/data/token_rows.h"
#include "common/evaluate/evaluate_choices.h"
#include "common/evaluate/evaluate_classes.h"
#include "common/plan/round_plan.h"
#include "common/tensor/guard.h"

namespace weft::cli {
namespace {

struct EvalOptions {
  ModelOptions model;
  std::string data;
  uint64_t max_rows = 0;
  int64_t max_len = 0;
  int64_t batch = 8;
  ChatOptions chat;
  std::vector<std::string> choices;
  bool json = false;
};

struct Score {
  double loss_sum = 0;
  int64_t labels = 0;
  [[nodiscard]] double loss() const { return loss_sum / static_cast<double>(labels); }
};

Result<Score> ScoreRows(const LoadedModel& loaded, const TokenRows& rows, int64_t batch_size) {
  return weft::Guarded("[eval]", [&]() -> Result<Score> {
    const at::NoGradGuard no_grad;
    std::vector<const TokenRow*> all;
    for (const TokenRow& row : rows.rows) all.push_back(&row);
    Score score;
    for (const auto& piece : MicroBatches(all, batch_size)) {
      const PackedBatch batch = Pack(piece, {.device = loaded.model->device()});
      score.loss_sum += loaded.model->LossSum(batch, loaded.adapters, {}).item<double>();
      score.labels += batch.labels_L.size(0);
    }
    if (!std::isfinite(score.loss_sum)) {
      return Internal("[eval] the loss is not finite; check the weights and the adapter");
    }
    return score;
  });
}

void Print(const EvalOptions& options, const DataSummary& summary, const Score& score,
           int64_t max_len) {
  if (!options.json) {
    std::cout << "loss " << score.loss() << ", perplexity " << std::exp(score.loss()) << " on "
              << score.labels << " label tokens\n"
              << summary.Text(max_len) << "\n";
    return;
  }
  std::cout << nlohmann::json{{"loss", score.loss()},
                              {"perplexity", std::exp(score.loss())},
                              {"label_tokens", score.labels},
                              {"tokens", summary.tokens},
                              {"rows", summary.rows_used},
                              {"rows_cut", summary.rows_cut},
                              {"rows_without_label", summary.rows_without_label}}
                   .dump()
            << "\n";
}

nlohmann::json ScoresJson(const ClassScores& scores, const Calibration& calibration) {
  nlohmann::json json = {{"accuracy", scores.accuracy}, {"f1", scores.f1},
                         {"matthews", scores.matthews}, {"nll", calibration.nll},
                         {"ece", calibration.ece},      {"brier", calibration.brier},
                         {"bins", calibration.bins}};
  if (scores.pearson) json["pearson"] = *scores.pearson;
  return json;
}

std::string ScoresText(const ClassScores& scores, const Calibration& calibration) {
  return Str("accuracy ", scores.accuracy, ", F1 ", scores.f1, ", Matthews ", scores.matthews,
             scores.pearson ? Str(", Pearson ", *scores.pearson) : "", ", NLL ", calibration.nll,
             ", ECE ", calibration.ece, " (", calibration.bins, " bins), Brier ",
             calibration.brier);
}

Status ScoreClassesOf(const EvalOptions& options, const LoadedModel& loaded,
                      const TokenRows& tokens, int64_t max_len) {
  JobControl control;
  WEFT_TRY_ASSIGN(const ClassesResult result,
                  EvaluateClasses(*loaded.model, loaded.adapters, tokens.rows, loaded.labels,
                                  options.batch, control));
  if (!options.json) {
    std::cout << "loss " << result.loss << ", " << ScoresText(result.scores, result.calibration)
              << "\n"
              << tokens.summary.Text(max_len) << "\n";
    return OkStatus();
  }
  nlohmann::json json = ScoresJson(result.scores, result.calibration);
  json.update({{"loss", result.loss},
               {"tokens", tokens.summary.tokens},
               {"rows", tokens.summary.rows_used},
               {"rows_cut", tokens.summary.rows_cut}});
  std::cout << json.dump() << "\n";
  return OkStatus();
}

Status ScoreChoicesOf(const EvalOptions& options, const LoadedModel& loaded,
                      const std::vector<Row>& rows, int64_t max_len) {
  const Result<std::vector<ChoiceRow>> made =
      TokenizeChoices(rows, options.choices, *loaded.tokenizer, max_len);
  WEFT_TRY(made.status().Within(options.data));
  JobControl control;
  WEFT_TRY_ASSIGN(const ChoicesResult result,
                  EvaluateChoices(*loaded.model, loaded.adapters, *made, options.batch, control));
  if (!options.json) {
    std::cout << ScoresText(result.scores, result.calibration) << " of " << rows.size()
              << " answers\n";
    return OkStatus();
  }
  nlohmann::json json = ScoresJson(result.scores, result.calibration);
  json["rows"] = rows.size();
  std::cout << json.dump() << "\n";
  return OkStatus();
}

bool AreChoices(const EvalOptions& options, const std::vector<Row>& rows) {
  return !options.choices.empty() ||
         std::any_of(rows.begin(), rows.end(), [](const Row& row) { return !row.choices.empty(); });
}

Status Run(const EvalOptions& options) {
  WEFT_TRY_ASSIGN(const LoadedModel loaded, LoadForCommand(options.model));
  WEFT_TRY_ASSIGN(const std::vector<Row> rows, ReadRows(options.data, options.max_rows));
  TokenizeOptions tokenize;
  tokenize.max_len = options.max_len > 0 ? options.max_len : loaded.model->config().max_positions;
  if (tokenize.max_len > loaded.model->config().max_positions) {
    return InvalidArgument(Str("[eval] max-len: got ", tokenize.max_len,
                               ", the model's context is ", loaded.model->config().max_positions));
  }
  const bool classifies = loaded.model->config().is_encoder();
  if (AreChoices(options, rows)) {
    if (!classifies) return ScoreChoicesOf(options, loaded, rows, tokenize.max_len);
    return InvalidArgument(
        "[eval] choices: an encoder chooses among its classes; give rows of text "
        "and label");
  }
  if (classifies) tokenize.labels = loaded.labels;
  tokenize.chat = options.chat.use;
  tokenize.chat_template = ChooseChatTemplate(options.chat.name, *loaded.tokenizer);
  const Result<TokenRows> made = TokenizeRows(rows, *loaded.tokenizer, tokenize);
  WEFT_TRY(made.status().Within(options.data));
  const TokenRows& tokens = *made;
  if (classifies) return ScoreClassesOf(options, loaded, tokens, tokenize.max_len);
  WEFT_TRY_ASSIGN(const Score score, ScoreRows(loaded, tokens, options.batch));
  Print(options, tokens.summary, score, tokenize.max_len);
  return OkStatus();
}

}  // namespace

Action SetUpEval(CLI::App& app) {
  const auto options = std::make_shared<EvalOptions>();
  AddModelOptions(app, options->model, true);
  app.add_option("--data", options->data, "JSONL file")->required();
  app.add_option("--max-rows", options->max_rows, "rows from the beginning (0: all)")
      ->check(WholeNumber(uint64_t{0}));
  app.add_option("--max-len", options->max_len, "tokens of a row (default: the model's context)")
      ->check(WholeNumber(int64_t{1}));
  app.add_option("--batch", options->batch, "rows in one pass")
      ->check(WholeNumber(int64_t{1}, kBatchRowsMax))
      ->capture_default_str();
  AddChatOptions(app, options->chat);
  app.add_option("--choices", options->choices,
                 "multiple choice: answers that every row's completion ends in one of")
      ->delimiter(',');
  app.add_flag("--json", options->json, "one JSON object");
  return [options] { return Run(*options); };
}

}  // namespace weft::cli
