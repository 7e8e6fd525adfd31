#include "aggregator/evaluate_work.h"

#include <algorithm>
#include <utility>

#include "aggregator/strategies/state_block.h"
#include "common/adapters/beside.h"
#include "common/base/str.h"
#include "common/evaluate/evaluate_classes.h"
#include "common/evaluate/evaluate_rows.h"
#include "common/formats/jsonl_rows.h"
#include "common/model/bind_adapter.h"
#include "common/model/bind_dense.h"
#include "common/tensor/device.h"
#include "common/tensor/guard.h"

namespace weft {
namespace {

Result<ServerEvaluateJob::Output> Evaluate(const ServerEvaluation& evaluation,
                                           const ServerEvaluateJob& job, JobControl& control) {
  const at::NoGradGuard no_grad;
  WEFT_TRY_ASSIGN(const GlobalState global, DecodeState(job.state, ""));
  WEFT_TRY_ASSIGN(const AdapterState whole, WithBaseChange(global.adapter, global.base_change));
  WEFT_TRY_ASSIGN(const LowRankAdapter lowered, Lower(whole));
  WEFT_TRY_ASSIGN(std::vector<Factors> factors, FactorsFor(*evaluation.model, lowered));
  AdapterBinding binding;
  binding.push_back(std::move(factors));
  WEFT_TRY_ASSIGN(binding.back().dense, DenseFor(*evaluation.model, global.adapter.dense));
  WEFT_TRY(CheckHead(*evaluation.model, binding));
  if (!evaluation.labels.empty()) {
    WEFT_TRY_ASSIGN(const ClassesResult result,
                    EvaluateClasses(*evaluation.model, binding, evaluation.rows->rows,
                                    evaluation.labels, evaluation.batch_size, control));
    ServerEvaluateJob::Output output{result.loss, evaluation.rows->rows.size(), {}};
    output.metrics = {{"accuracy", result.scores.accuracy},
                      {"f1", result.scores.f1},
                      {"matthews", result.scores.matthews},
                      {"ece", result.calibration.ece},
                      {"brier", result.calibration.brier}};
    if (result.scores.pearson) output.metrics.emplace_back("pearson", *result.scores.pearson);
    return output;
  }
  WEFT_TRY_ASSIGN(const RowsLoss total,
                  EvaluateRows(*evaluation.model, binding, evaluation.rows->rows,
                               evaluation.batch_size, control));
  return ServerEvaluateJob::Output{total.loss, total.label_tokens, {}};
}

}  // namespace

Result<ServerEvaluation> LoadServerEvaluation(const Settings& settings) {
  if (settings.model.path.empty()) {
    return InvalidArgument(
        "[evaluate] data is set, but [model] path is not: the aggregator needs the base model's "
        "weights to evaluate; give the folder, or leave [evaluate] data out");
  }
  ServerEvaluation evaluation;
  evaluation.batch_size = settings.evaluate.batch_size;
  evaluation.labels = settings.adapter.labels;
  LoadOptions load;
  WEFT_TRY_ASSIGN(load.dtype, ParseComputeType(settings.train.dtype));
  WEFT_TRY_ASSIGN(load.device, ParseDevice(settings.model.device));
  WEFT_TRY_ASSIGN(evaluation.model, Model::Load(settings.model.path, load));
  WEFT_TRY_ASSIGN(const std::unique_ptr<Tokenizer> tokenizer,
                  Tokenizer::LoadFor(settings.model.path, evaluation.model->config().vocab_size));
  WEFT_TRY_ASSIGN(
      const std::vector<Row> rows,
      ReadRows(settings.evaluate.data, static_cast<uint64_t>(settings.evaluate.max_rows)));
  TokenizeOptions options;
  const int64_t context = evaluation.model->config().max_positions;
  options.max_len =
      settings.train.max_len > 0 ? std::min(settings.train.max_len, context) : context;
  options.labels = settings.adapter.labels;
  options.chat_template = ChooseChatTemplate(settings.model.chat_template, *tokenizer);
  Result<TokenRows> tokens = TokenizeRows(rows, *tokenizer, options);
  WEFT_TRY(tokens.status().Within(Str("[evaluate] ", settings.evaluate.data)));
  evaluation.rows = std::make_shared<const TokenRows>(std::move(*tokens));
  return evaluation;
}

void RegisterServerEvaluation(WorkTable& table, ServerEvaluation evaluation) {
  table.On<ServerEvaluateJob>(
      [evaluation = std::move(evaluation)](const ServerEvaluateJob& job, JobControl& control) {
        return Guarded("[evaluate]", [&] { return Evaluate(evaluation, job, control); });
      });
}

}  // namespace weft
