// `weft eval`: loss and perplexity of a model (and adapter) on a data file.

#include <cmath>
#include <iostream>
#include <memory>

#include <nlohmann/json.hpp>

#include "cli/model_options.h"
#include "cli/set_up.h"
#include "cli/whole_number.h"
#include "common/data/batch.h"
#include "common/data/token_rows.h"
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

Status Run(const EvalOptions& options) {
  WEFT_TRY_ASSIGN(const LoadedModel loaded, LoadForCommand(options.model));
  WEFT_TRY_ASSIGN(const std::vector<Row> rows, ReadRows(options.data, options.max_rows));
  TokenizeOptions tokenize;
  tokenize.max_len = options.max_len > 0 ? options.max_len : loaded.model->config().max_positions;
  if (tokenize.max_len > loaded.model->config().max_positions) {
    return InvalidArgument(Str("[eval] max-len: got ", tokenize.max_len,
                               ", the model's context is ", loaded.model->config().max_positions));
  }
  tokenize.chat = options.chat.use;
  tokenize.chat_template = ChooseChatTemplate(options.chat.name, *loaded.tokenizer);
  const Result<TokenRows> made = TokenizeRows(rows, *loaded.tokenizer, tokenize);
  WEFT_TRY(made.status().Within(options.data));
  const TokenRows& tokens = *made;
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
  app.add_flag("--json", options->json, "one JSON object");
  return [options] { return Run(*options); };
}

}  // namespace weft::cli
