#include "client/trainer.h"

#include <algorithm>
#include <cmath>

#include "client/objectives/objective.h"
#include "client/schedule.h"
#include "common/adapters/adapter.h"
#include "common/base/random.h"
#include "common/base/str.h"
#include "common/data/batch.h"
#include "common/model/bind_adapter.h"
#include "common/model/bind_dense.h"
#include "common/tensor/guard.h"

namespace weft {
namespace {

// What a caller cannot fix and a retry cannot help is phrased once.
Status NotFinite(int64_t step, std::string_view what, double value) {
  return Internal(Str("[train] step ", step, ": the ", what, " is ", value,
                      "; lower the learning rate, clip gradients (grad_clip), or look for broken "
                      "rows; nothing of this step was kept"));
}

class TrainRun {
 public:
  TrainRun(const Model& model, TrainInput& input, JobControl& control)
      : model_(model), input_(input), training_(input.training), control_(control) {}

  Result<TrainOutput> Run() {
    WEFT_TRY(Prepare());
    for (int64_t step = 0; step < num_steps_; ++step) {
      if (control_.cancelled) return Cancelled("[train] stopped on request");
      WEFT_TRY(RunStep(step));
      control_.progress = static_cast<float>(step + 1) / static_cast<float>(num_steps_);
      if (input_.enough && input_.enough(output_.steps.back())) break;
    }
    return Finish();
  }

 private:
  Status Prepare() {
    WEFT_TRY(CheckTraining(training_));
    WEFT_TRY_ASSIGN(objective_, FindObjective(training_.objective));
    WEFT_TRY(PrepareParameters());
    WEFT_TRY(PrepareRows());
    optimizer_.emplace(training_, parameters_);
    if (input_.moments) WEFT_TRY(optimizer_->Restore(*input_.moments));
    WEFT_TRY(PrepareMethod());
    WEFT_TRY_ASSIGN(const AdapterBinding binding, Binding());
    WEFT_TRY(CheckHead(model_, binding));
    if (objective_->NeedsStart()) {
      for (const at::Tensor& value : parameters_.values) start_.push_back(value.clone());
    }
    PrepareMemory();
    return OkStatus();
  }

  Status PrepareParameters() {
    WEFT_TRY(BindFrozen());
    if (input_.full) {
      WEFT_TRY_ASSIGN(parameters_, WeightsOf(model_));
      return OkStatus();
    }
    WEFT_TRY_ASSIGN(method_, FindAdapter(input_.start.spec.method));
    WEFT_TRY_ASSIGN(FlatAdapter flat, Flatten(input_.start, model_.device()));
    state_ = std::move(flat.state);
    parameters_ = std::move(flat.parameters);
    if (parameters_.NumElements() == 0) return InvalidArgument("[train] the adapter has no sites");
    return OkStatus();
  }

  Status PrepareMethod() {
    if (method_ == nullptr) return OkStatus();
    prepared_ = method_->Prepare(state_, model_.device());
    rule_ = method_->NewStepRule(state_, {.steps_done = input_.restarts ? 0 : training_.steps_done,
                                          .total_steps = input_.restarts ? num_steps_ : TotalSteps(),
                                          .beta1 = training_.beta1,
                                          .beta2 = training_.beta2,
                                          .moment_steps = optimizer_->step()});
    if (rule_ == nullptr || input_.step_rule.empty()) return OkStatus();
    return rule_->Restore(input_.step_rule);
  }

  // Of all rounds together.
  int64_t TotalSteps() const {
    return training_.schedule_steps > 0 ? training_.schedule_steps : num_steps_ * input_.num_rounds;
  }

  Status BindFrozen() {
    for (const AdapterState& state : input_.frozen) {
      WEFT_TRY_ASSIGN(LowRankAdapter lowered, Lower(state));
      for (LowRankSite& site : lowered) {  // cast once, not in every pass
        site.factors.A_RI = site.factors.A_RI.to(model_.dtype());
        site.factors.B_OR = site.factors.B_OR.to(model_.dtype());
      }
      WEFT_TRY_ASSIGN(std::vector<Factors> factors, FactorsFor(model_, lowered));
      frozen_.push_back(std::move(factors));
      WEFT_TRY_ASSIGN(frozen_.back().dense, DenseFor(model_, state.dense));
    }
    return OkStatus();
  }

  Status PrepareRows() {
    if (!input_.fixed_batches.empty()) {
      num_steps_ = static_cast<int64_t>(input_.fixed_batches.size());
      return OkStatus();
    }
    WEFT_TRY_ASSIGN(batcher_, MakeBatcher());
    num_steps_ = training_.local_steps > 0 ? training_.local_steps
                                           : training_.local_epochs * batcher_->batches_per_pass();
    return OkStatus();
  }

  Result<Batcher> MakeBatcher() const {
    WEFT_TRY_ASSIGN(Batcher batcher, Batcher::Make({.num_rows = input_.rows.size(),
                                                    .batch_size = training_.batch_size,
                                                    .row_order = training_.row_order,
                                                    .seed = input_.seed,
                                                    .client = input_.client,
                                                    .round = input_.round}));
    // A shuffled round has an order of its own and begins at its start; rows in file order go on
    // where the round before ended. Epochs are whole passes.
    if (training_.row_order != "file" || training_.local_steps == 0) return batcher;
    if (input_.position && batcher.Restore(*input_.position).ok()) return batcher;
    const auto taken = static_cast<uint64_t>(training_.steps_done * training_.batch_size);
    const auto rows = static_cast<uint64_t>(input_.rows.size());
    WEFT_TRY(batcher.Restore({taken / rows, taken % rows}));
    return batcher;
  }

  void PrepareMemory() {
    size_t longest = 0;
    int64_t rows = input_.fixed_batches.empty() ? training_.batch_size : 1;
    for (const TokenRow& row : input_.rows) longest = std::max(longest, row.ids.size());
    for (const auto& batch : input_.fixed_batches) {
      rows = std::max(rows, static_cast<int64_t>(batch.size()));
      for (const TokenRow* row : batch) longest = std::max(longest, row->ids.size());
    }
    LocalTraining planned = training_;
    planned.batch_size = rows;
    output_.memory = PlanMemory(model_, planned,
                                {.trained_parameters = parameters_.NumElements(),
                                 .longest_row = static_cast<int64_t>(longest),
                                 .available_bytes = AvailableMemory(model_.device())});
    micro_rows_ = output_.memory.micro_batch_rows;
    Notice(output_.memory.Text());
  }

  void Notice(const std::string& text) const {
    if (input_.on_notice) input_.on_notice(text);
  }

  std::vector<const TokenRow*> NextRows(int64_t step) {
    if (!input_.fixed_batches.empty()) return input_.fixed_batches[static_cast<size_t>(step)];
    std::vector<const TokenRow*> rows;
    const auto chosen = training_.local_steps > 0 ? batcher_->Next() : batcher_->NextOfPass();
    for (const size_t i : chosen) rows.push_back(&input_.rows[i]);
    return rows;
  }

  Status RunStep(int64_t step) {
    const std::vector<const TokenRow*> rows = NextRows(step);
    StepReport report{.step = step + 1, .num_steps = num_steps_};
    for (const TokenRow* row : rows) {
      report.tokens += static_cast<int64_t>(row->ids.size());
      report.label_tokens += row->num_labels();
    }
    if (report.label_tokens == 0) {
      return InvalidArgument(Str("[train] step ", step + 1, ": no row has a label"));
    }
    WEFT_TRY(GradientsWithRetries(rows, report));
    WEFT_TRY(Guarded("[train]", [&] { return Update(step, report); }));
    output_.num_examples += rows.size();
    output_.label_tokens += static_cast<uint64_t>(report.label_tokens);
    loss_sum_ += report.loss * static_cast<double>(report.label_tokens);
    output_.steps.push_back(report);
    if (input_.on_step) input_.on_step(report);
    return OkStatus();
  }

  Status GradientsWithRetries(const std::vector<const TokenRow*>& rows, StepReport& report) {
    for (;;) {
      const Status status = Guarded("[train]", [&] { return Gradients(rows, report); });
      if (status.code() != Code::kResourceExhausted || micro_rows_ == 1) return status;
      const int64_t tried = std::min(micro_rows_, static_cast<int64_t>(rows.size()));
      if (tried == 1) return status;
      micro_rows_ = (tried + 1) / 2;
      ++output_.memory_retries;
      if (!model_.device().is_cpu()) at::accelerator::emptyCache();
      Notice(Str("step ", report.step, ": ", status.message(),
                 "; trying again with micro-batches "
                 "of ",
                 micro_rows_, " rows"));
    }
  }

  // The mean over the label tokens of the whole optimiser batch, however it is cut.
  Status Gradients(const std::vector<const TokenRow*>& rows, StepReport& report) {
    parameters_.ZeroGradients();
    const double labels = static_cast<double>(report.label_tokens);
    double sum = 0;
    uint64_t micro = 0;
    for (const auto piece : MicroBatches(rows, micro_rows_)) {
      if (control_.cancelled) return Cancelled("[train] stopped on request");
      const PackedBatch batch = Pack(piece, {.device = model_.device(), .pad = !training_.packing});
      if (batch.labels_L.numel() == 0) continue;
      const ForwardOptions options{.gradient_checkpointing = training_.gradient_checkpointing,
                                   .training = true,
                                   .dropout_seed = DropoutSeed(report.step, micro++)};
      WEFT_TRY_ASSIGN(const AdapterBinding binding, Binding());
      const at::Tensor loss = model_.LossSum(batch, binding, options);
      sum += loss.item<double>();
      if (!std::isfinite(sum)) break;
      (loss / labels).backward();
    }
    report.loss = sum / labels;
    if (!std::isfinite(report.loss)) return NotFinite(report.step, "loss", report.loss);
    const at::Tensor penalty = method_ == nullptr ? at::Tensor() : method_->Penalty(state_);
    if (penalty.defined()) penalty.backward();
    return OkStatus();
  }

  Status Update(int64_t step, StepReport& report) {
    const at::NoGradGuard no_grad;
    objective_->AddGradient(training_, parameters_.values, start_, parameters_.gradients);
    report.grad_norm = parameters_.GradientNorm();
    if (!std::isfinite(report.grad_norm)) {
      return NotFinite(report.step, "gradient's norm", report.grad_norm);
    }
    if (training_.grad_clip > 0) {
      // torch's clip_grad_norm_ has the same 1e-6.
      const double factor = training_.grad_clip / (report.grad_norm + 1e-6);
      if (factor < 1) parameters_.ScaleGradients(factor);
    }
    report.lr = LearningRate(training_, training_.steps_done + step, TotalSteps());
    if (rule_ != nullptr) rule_->BeforeStep(state_);
    optimizer_->Step(report.lr);
    if (rule_ != nullptr) rule_->AfterStep(state_);
    return OkStatus();
  }

  Result<AdapterBinding> Binding() const {
    AdapterBinding binding;
    if (method_ != nullptr) {
      WEFT_TRY_ASSIGN(AppliedAdapter trained, Apply(model_, state_, prepared_.get()));
      binding.push_back(std::move(trained));
    }
    binding.insert(binding.end(), frozen_.begin(), frozen_.end());
    return binding;
  }

  uint64_t DropoutSeed(int64_t step, uint64_t micro) const {
    return RandomStream::Derive(input_.seed,
                                {"dropout", input_.client, std::to_string(input_.round),
                                 std::to_string(step), std::to_string(micro)})
        .key();
  }

  TrainOutput Finish() {
    if (method_ != nullptr) output_.state = CloneTo(state_, at::kCPU, at::kFloat);
    output_.train_loss =
        loss_sum_ / static_cast<double>(std::max<uint64_t>(1, output_.label_tokens));
    output_.moments = optimizer_->Save();
    if (rule_ != nullptr) output_.step_rule = rule_->Save();
    if (batcher_) output_.position = batcher_->Save();
    output_.micro_batch_rows = micro_rows_;
    return std::move(output_);
  }

  const Model& model_;
  TrainInput& input_;
  const LocalTraining& training_;
  JobControl& control_;
  const Objective* objective_ = nullptr;
  const Adapter* method_ = nullptr;  // null: full fine-tuning
  AdapterState state_;
  ParameterSet parameters_;
  AdapterBinding frozen_;
  std::vector<at::Tensor> start_;
  std::optional<AdamW> optimizer_;
  std::shared_ptr<const Prepared> prepared_;  // of the method; may be null
  std::unique_ptr<StepRule> rule_;            // of the method; may be null
  std::optional<Batcher> batcher_;
  int64_t num_steps_ = 0;
  int64_t micro_rows_ = 1;
  double loss_sum_ = 0;
  TrainOutput output_;
};

}  // namespace

Result<TrainOutput> Train(const Model& model, TrainInput input, JobControl& control) {
  return Guarded("[train]", [&] { return TrainRun(model, input, control).Run(); });
}

}  // namespace weft
