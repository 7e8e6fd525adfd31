#include "common/evaluate/evaluate_choices.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <set>

#include "common/base/str.h"
#include "common/data/batch.h"
#include "common/tensor/guard.h"

// Shape legend: L rows, V vocabulary.

namespace weft {
namespace {

// The longest of the choices that the text ends in, so that "answer12" is not "2".
std::optional<size_t> ChoiceAtEnd(std::string_view text, const std::vector<std::string>& choices) {
  std::optional<size_t> best;
  for (size_t i = 0; i < choices.size(); ++i) {
    if (choices[i].empty() || !text.ends_with(choices[i])) continue;
    if (!best || choices[i].size() > choices[*best].size()) best = i;
  }
  return best;
}

Result<ChoiceRow> TokenizeOne(const Row& row, const std::vector<std::string>& given,
                              const Tokenizer& tokenizer, size_t max_len) {
  const std::string where = Str("[data] line ", row.line, ": ");
  const std::vector<std::string>& choices = row.choices.empty() ? given : row.choices;
  if (row.kind == RowKind::kMessages || row.kind == RowKind::kText) {
    return InvalidArgument(where + "wanted a prompt and a completion that ends in a choice");
  }
  const RowText text = TextOf(row);
  const std::optional<size_t> right = ChoiceAtEnd(text.completion, choices);
  if (!right) {
    return InvalidArgument(Str(where, "\"", text.completion.substr(0, 80),
                               "\" ends in none of the ", choices.size(), " choices"));
  }
  const std::string stem =
      text.completion.substr(0, text.completion.size() - choices[*right].size());
  ChoiceRow out;
  out.right = static_cast<int32_t>(*right);
  out.shared = tokenizer.Encode(text.prompt, /*special=*/true);
  for (const std::string& choice : choices) {
    out.answers.push_back(tokenizer.Encode(stem + choice, /*special=*/false));
  }
  if (std::set(out.answers.begin(), out.answers.end()).size() != out.answers.size() ||
      out.answers.size() < 2) {
    return InvalidArgument(where + "wanted at least two choices, all different in their tokens");
  }
  // What all begin with goes to the shared part, but every answer keeps a token.
  while (std::all_of(out.answers.begin(), out.answers.end(), [&](const auto& answer) {
    return answer.size() > 1 && answer[0] == out.answers[0][0];
  })) {
    out.shared.push_back(out.answers[0][0]);
    for (auto& answer : out.answers) answer.erase(answer.begin());
  }
  size_t longest = 0;
  for (const auto& answer : out.answers) longest = std::max(longest, answer.size());
  if (longest >= max_len || std::any_of(out.answers.begin(), out.answers.end(),
                                        [](const auto& answer) { return answer.empty(); })) {
    return InvalidArgument(Str(where, "an answer is empty, or longer than ", max_len, " tokens"));
  }
  if (out.shared.size() + longest > max_len) {
    out.shared.erase(out.shared.begin(),
                     out.shared.end() - static_cast<std::ptrdiff_t>(max_len - longest));
  }
  return out;
}

bool FirstTokensDiffer(const ChoiceRow& row) {
  std::set<int32_t> first;
  for (const auto& answer : row.answers) first.insert(answer[0]);
  return first.size() == row.answers.size();
}

// The shared part with one answer; loss on the answer, or on its first token alone.
TokenRow RowOf(const ChoiceRow& row, size_t answer, bool first_only) {
  TokenRow out;
  out.ids = row.shared;
  out.labels.assign(row.shared.size(), kNoLabel);
  const auto& ids = row.answers[answer];
  const auto end = first_only ? ids.begin() + 1 : ids.end();
  out.ids.insert(out.ids.end(), ids.begin(), end);
  out.labels.insert(out.labels.end(), ids.begin(), end);
  return out;
}

// How the model rates each answer: first tokens by their logits, whole answers by their
// likelihoods. softmax over a row's answers makes probabilities of both.
std::vector<double> FirstTokens(const at::Tensor& logits_V, const ChoiceRow& row) {
  std::vector<double> scores;
  for (const auto& answer : row.answers) scores.push_back(logits_V[answer[0]].item<double>());
  return scores;
}

std::vector<double> WholeAnswers(const Model& model, const AdapterBinding& adapters,
                                 const ChoiceRow& row) {
  const at::NoGradGuard no_grad;
  std::vector<double> scores;
  for (size_t k = 0; k < row.answers.size(); ++k) {
    const TokenRow tokens = RowOf(row, k, false);
    const TokenRow* const one = &tokens;
    const PackedBatch batch = Pack({&one, 1}, {.device = model.device()});
    scores.push_back(-model.LossSum(batch, adapters, {}).item<double>());
  }
  return scores;
}

void Rate(const Model& model, const AdapterBinding& adapters, std::span<const ChoiceRow> rows,
          std::vector<std::vector<double>>& scores) {
  std::vector<TokenRow> tokens;
  for (const ChoiceRow& row : rows) tokens.push_back(RowOf(row, 0, true));
  std::vector<const TokenRow*> pointers;
  for (const TokenRow& row : tokens) pointers.push_back(&row);
  const PackedBatch batch = Pack(pointers, {.device = model.device()});
  const at::Tensor logits_LV = model.Logits(batch, adapters).to(at::kCPU);
  for (size_t i = 0; i < rows.size(); ++i) {
    scores.push_back(FirstTokensDiffer(rows[i])
                         ? FirstTokens(logits_LV[static_cast<int64_t>(i)], rows[i])
                         : WholeAnswers(model, adapters, rows[i]));
  }
}

// [rows × most answers]; a row with fewer holds the others impossible.
at::Tensor ProbabilitiesOf(const std::vector<std::vector<double>>& scores, size_t most) {
  at::Tensor padded = at::full({static_cast<int64_t>(scores.size()), static_cast<int64_t>(most)},
                               -std::numeric_limits<double>::infinity(), at::kDouble);
  auto* row = padded.mutable_data_ptr<double>();
  for (const std::vector<double>& own : scores) {
    std::copy(own.begin(), own.end(), row);
    row += most;
  }
  return at::softmax(padded, 1);
}

}  // namespace

Result<std::vector<ChoiceRow>> TokenizeChoices(std::span<const Row> rows,
                                               const std::vector<std::string>& choices,
                                               const Tokenizer& tokenizer, int64_t max_len) {
  std::vector<ChoiceRow> out;
  for (const Row& row : rows) {
    WEFT_TRY_ASSIGN(ChoiceRow one,
                    TokenizeOne(row, choices, tokenizer, static_cast<size_t>(max_len)));
    out.push_back(std::move(one));
  }
  return out;
}

Result<ChoiceClasses> AsClasses(std::span<const ChoiceRow> rows) {
  ChoiceClasses classes;
  for (const ChoiceRow& row : rows) {
    std::vector<int32_t> first;
    for (const auto& answer : row.answers) first.push_back(answer[0]);
    if (classes.rows.empty()) classes.answers = first;
    if (first != classes.answers || !FirstTokensDiffer(row)) {
      return InvalidArgument(Str("[data] row ", classes.rows.size() + 1,
                                 ": its choices are not told apart by one token, or by another "
                                 "than in the rows before; give rows with the same short choices"));
    }
    classes.rows.push_back({.ids = row.shared, .labels = {}, .row_class = row.right});
  }
  return classes;
}

Result<ChoicesResult> EvaluateChoices(const Model& model, const AdapterBinding& adapters,
                                      std::span<const ChoiceRow> rows, int64_t batch_rows,
                                      JobControl& control) {
  std::vector<int32_t> truth;
  size_t most = 0;
  for (const ChoiceRow& row : rows) {
    truth.push_back(row.right);
    most = std::max(most, row.answers.size());
  }
  std::vector<std::vector<double>> scores;
  for (size_t begin = 0; begin < rows.size(); begin += static_cast<size_t>(batch_rows)) {
    if (control.cancelled) return Cancelled("[evaluate] stopped on request");
    const auto batch =
        rows.subspan(begin, std::min(static_cast<size_t>(batch_rows), rows.size() - begin));
    WEFT_TRY(Guarded("[evaluate]", [&] {
      Rate(model, adapters, batch, scores);
      return OkStatus();
    }));
    control.progress = static_cast<float>(scores.size()) / static_cast<float>(rows.size());
  }
  ChoicesResult result;
  for (const std::vector<double>& own : scores) {
    result.predicted.push_back(
        static_cast<int32_t>(std::max_element(own.begin(), own.end()) - own.begin()));
  }
  WEFT_TRY_ASSIGN(result.calibration, MeasureCalibration(ProbabilitiesOf(scores, most),
                                                         at::tensor(truth).to(at::kLong)));
  std::vector<std::string> names;  // no numbers: the order of answers has no meaning
  for (size_t k = 0; k < most; ++k) names.push_back(Str("choice ", k));
  result.scores = ScoreClasses(result.predicted, truth, names);
  return result;
}

}  // namespace weft
