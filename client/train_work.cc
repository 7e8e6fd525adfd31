#include "client/train_work.h"

#include <algorithm>

#include "client/measure_work.h"
#include "client/memory_plan.h"
#include "client/trainer.h"
#include "client/training_state.h"
#include "client/update_encoding.h"
#include "common/adapters/adapter.h"
#include "common/adapters/dense.h"
#include "common/adapters/distance.h"
#include "common/adapters/match.h"
#include "common/base/str.h"
#include "common/codec/adapter_block.h"
#include "common/codec/layout.h"
#include "common/evaluate/evaluate_rows.h"
#include "common/formats/model_layout.h"
#include "common/model/bind_adapter.h"
#include "common/model/bind_dense.h"
#include "common/tensor/guard.h"

namespace weft {
namespace {

constexpr int64_t kEvalRows = 8;  // in one forward pass

// The layers an adapter may sit on, and the head's behind them, as the aggregator lists them.
std::vector<LinearSite> AllSites(const Model& model) {
  std::vector<LinearSite> all = model.sites();
  for (LinearSite& site : HeadSites(model.config())) all.push_back(std::move(site));
  return all;
}

// An encoder learns classes, a decoder text.
Status CheckLabels(const Model& model, const std::vector<std::string>& labels) {
  const ModelConfig& config = model.config();
  if (config.is_encoder() == !labels.empty()) return OkStatus();
  return InvalidArgument(config.is_encoder()
                             ? Str(config.architecture,
                                   " gives rows a class, and the plan names "
                                   "none; set adapter.labels")
                             : Str("adapter.labels: ", config.architecture,
                                   " predicts tokens, it has no classes; leave it out"));
}

class RoundTraining {
 public:
  RoundTraining(Site& site, const TrainJob& job, JobControl& control)
      : site_(site), job_(job), plan_(job.plan), control_(control) {}

  Result<TrainJob::Output> Run(std::function<void(const std::string&)> notice) {
    WEFT_TRY_ASSIGN(model_, site_.models().Get(plan_.training.dtype));
    WEFT_TRY_ASSIGN(const AdapterSpec* spec, Spec());
    WEFT_TRY(CheckLabels(*model_, spec->labels).Within("[train]"));
    WEFT_TRY_ASSIGN(rows_, site_.Tokens(Site::Split::kTrain, MaxRowTokens(plan_.training, *model_),
                                        plan_.training.long_rows, spec->labels));
    TrainInput input;
    WEFT_TRY(ReadBundle(input));
    sent_ = input.start;
    std::optional<TrainingState> before = StateBefore(notice);
    WEFT_TRY(JoinKept(*spec, before, input.start));
    layout_ = LayoutName(input.start);
    input.rows = rows_->rows;
    input.training = plan_.training;
    input.seed = plan_.seed;
    input.client = job_.client.name;
    input.round = plan_.round.number;
    input.num_rounds = std::max<int64_t>(1, plan_.num_server_rounds);
    input.restarts = !continues_;
    input.on_notice = std::move(notice);
    if (before) {
      owed_ = OwedAfter(*before);
      UseLocalState(std::move(*before), input);
    }
    WEFT_TRY_ASSIGN(const TrainOutput trained, Train(*model_, std::move(input), control_));
    return MakeOutput(*spec, trained);
  }

 private:
  Result<const AdapterSpec*> Spec() const {
    for (const ClientPlan& entry : plan_.cohort) {
      if (entry.client == job_.client) return &entry.adapter;
    }
    return InvalidArgument(
        Str("[train] round ", plan_.round, ": the plan has no entry for ", job_.client));
  }

  Status DoesNotFit() const {
    return InvalidArgument(Str("[train] round ", plan_.round,
                               ": the bundle's adapter does not fit the base model's layers; is it "
                               "the same base?"));
  }

  Status ReadBundle(TrainInput& input) {
    WEFT_TRY_ASSIGN(const AdapterSpec* spec, Spec());
    WEFT_TRY_ASSIGN(const Adapter* method, FindAdapter(spec->method));
    WEFT_TRY_ASSIGN(const std::vector<LinearSite> sites, MatchSites(*spec, model_->sites()));
    AdapterBundle bundle;
    if (!job_.bundle.empty()) {
      WEFT_TRY_ASSIGN(bundle, DecodeBundle(job_.bundle, at::kCPU));
    }
    WEFT_TRY_ASSIGN(AdapterState fresh, method->Init(*spec, sites, plan_.seed));
    WEFT_TRY_ASSIGN(fresh.dense, FreshDense(*spec, AllSites(*model_), plan_.seed));
    // A client that starts afresh beside a frozen adapter still goes on from the head.
    if (bundle.frozen && !bundle.adapter && !bundle.frozen->dense.empty()) {
      AdapterState start = fresh;
      start.dense = std::move(bundle.frozen->dense);
      bundle.frozen->dense.clear();
      if (!SameLayout(start, fresh)) return DoesNotFit();
      fresh = std::move(start);
    }
    if (bundle.adapter) {
      WEFT_TRY(CheckSameSpec(bundle.adapter->spec, *spec).Within("[train] the bundle's adapter"));
      if (!SameLayout(*bundle.adapter, fresh)) return DoesNotFit();
      input.start = std::move(*bundle.adapter);
      continues_ = true;
    } else {
      input.start = std::move(fresh);
    }
    if (bundle.frozen) input.frozen.push_back(std::move(*bundle.frozen));
    WEFT_TRY(CheckBaseChange(*spec, bundle.base_change));
    if (bundle.base_change) input.frozen.push_back(std::move(*bundle.base_change));
    return OkStatus();
  }

  // What the run takes out of the base model is one thing for every site and every round.
  Status CheckBaseChange(const AdapterSpec& spec, const std::optional<AdapterState>& change) const {
    const std::string* const planned = FindOption(spec, kBaseChangeOption);
    const std::string wanted = planned == nullptr ? "none" : *planned;
    std::string got = "none";
    if (change) {
      WEFT_TRY_ASSIGN(got, AdapterSha256(*change));
    }
    if (got == wanted) return OkStatus();
    return FailedPrecondition(Str("[train] round ", plan_.round,
                                  ": what is taken out of the base model has hash ", got,
                                  ", the plan says ", wanted));
  }

  // What was kept is a help, not a need: a damaged file costs the moments, with a notice.
  std::optional<TrainingState> StateBefore(
      const std::function<void(const std::string&)>& notice) const {
    if (job_.local_state.empty()) return std::nullopt;
    Result<TrainingState> kept = DecodeTrainingState(job_.local_state);
    if (kept.ok()) return std::move(*kept);
    if (notice) notice("starting without the kept state: " + kept.status().message());
    return std::nullopt;
  }

  // The part that stays at this site trains with the one that is shipped: as the round before left
  // it, or fresh.
  Status JoinKept(const AdapterSpec& spec, const std::optional<TrainingState>& before,
                  AdapterState& start) {
    WEFT_TRY_ASSIGN(const Adapter* method, FindAdapter(spec.method));
    const std::optional<AdapterSpec> kept_spec = method->KeptSpec(spec);
    if (!kept_spec) return OkStatus();
    WEFT_TRY_ASSIGN(const std::vector<LinearSite> sites, MatchSites(spec, model_->sites()));
    WEFT_TRY_ASSIGN(AdapterState kept, method->Init(*kept_spec, sites, plan_.seed));
    if (before && before->kept && before->kept->spec == *kept_spec &&
        SameLayout(*before->kept, kept)) {
      kept = *before->kept;
    }
    WEFT_TRY_ASSIGN(start, method->Join({std::move(start), std::move(kept)}));
    keeps_ = method;
    return OkStatus();
  }

  // What the round before left out of its update, if that was merged; else what was owed then, for
  // it still is. Where a round was merged that left no state here, nobody knows.
  std::optional<AdapterState> OwedAfter(const TrainingState& before) const {
    if (!plan_.error_feedback || !continues_ || before.layout != layout_) return std::nullopt;
    const RoundId merged = plan_.cohort.front().merged;
    if (merged > before.round) return std::nullopt;
    const std::optional<AdapterState>& owed =
        merged == before.round ? before.residual : before.residual_before;
    return owed && SameLayout(*owed, sent_) ? owed : std::nullopt;
  }

  void UseLocalState(TrainingState before, TrainInput& input) const {
    input.position = before.position;
    // A fresh adapter's numbers are not those that the rule remembers.
    if (continues_ && before.layout == layout_) input.step_rule = std::move(before.step_rule);
    if (!plan_.training.keep_optimizer || !before.moments) return;
    if (before.layout == layout_) {
      input.moments = std::move(before.moments);
    } else if (input.on_notice) {
      input.on_notice("the adapter's layout changed; the optimiser starts afresh");
    }
  }

  Result<TrainJob::Output> MakeOutput(const AdapterSpec& spec, const TrainOutput& trained) const {
    TrainJob::Output output;
    Adapter::Parts parts{trained.state, {}};
    if (keeps_ != nullptr) {
      WEFT_TRY_ASSIGN(parts, keeps_->Split(trained.state, spec));
    }
    WEFT_TRY_ASSIGN(EncodedUpdate encoded,
                    EncodeTrained(plan_, {.shipped = parts.shipped,
                                          .sent = continues_ ? &sent_ : nullptr,
                                          .owed = owed_}));
    output.payload = std::move(encoded.payload);
    WEFT_TRY_ASSIGN(output.local_state, LocalState(trained, parts.kept, encoded.residual));
    UpdateHeader& header = output.header = HeaderOf(job_, output.payload);
    header.spec = parts.shipped.spec;
    header.num_examples = trained.num_examples;
    header.label_tokens = trained.label_tokens;
    header.steps = trained.steps.size();
    header.train_loss = trained.train_loss;
    WEFT_TRY_ASSIGN(header.metrics, MetricsOf(trained, parts.shipped));
    if (encoded.residual) header.metrics.emplace_back("residual_norm", NormOf(*encoded.residual));
    return output;
  }

  Result<Metrics> MetricsOf(const TrainOutput& trained, const AdapterState& shipped) const {
    WEFT_TRY_ASSIGN(const LowRankAdapter after, Lower(shipped));
    WEFT_TRY_ASSIGN(const LowRankAdapter before, Lower(sent_));
    const DataSummary& data = rows_->summary;
    return Metrics{{"first_loss", trained.steps.front().loss},
                   {"last_loss", trained.steps.back().loss},
                   {"update_norm", DistanceBetween(after, before)},
                   {"rows_cut", static_cast<double>(data.rows_cut)},
                   {"rows_dropped", static_cast<double>(data.rows_dropped)},
                   {"rows_without_label", static_cast<double>(data.rows_without_label)},
                   {"memory_retries", static_cast<double>(trained.memory_retries)}};
  }

  Result<Blob> LocalState(const TrainOutput& trained, const AdapterState& kept,
                          const std::optional<AdapterState>& residual) const {
    TrainingState state;
    state.round = plan_.round;
    state.residual = residual;
    if (residual) state.residual_before = owed_;
    state.layout = layout_;
    state.position = trained.position;
    state.step_rule = trained.step_rule;
    if (keeps_ != nullptr) state.kept = kept;
    if (plan_.training.keep_optimizer) state.moments = trained.moments;
    return EncodeTrainingState(state);
  }

  Site& site_;
  const TrainJob& job_;
  const RoundPlan& plan_;
  JobControl& control_;
  std::shared_ptr<const Model> model_;
  std::shared_ptr<const TokenRows> rows_;
  AdapterState sent_;
  std::optional<AdapterState> owed_;  // by updates before: what they left out
  std::string layout_;
  bool continues_ = false;          // starts from an adapter it was sent
  const Adapter* keeps_ = nullptr;  // a part of the adapter at this site
};

Status Bind(const Model& model, const AdapterState& state, AdapterBinding& binding) {
  const at::NoGradGuard no_grad;
  WEFT_TRY_ASSIGN(const LowRankAdapter lowered, Lower(state));
  WEFT_TRY_ASSIGN(std::vector<Factors> factors, FactorsFor(model, lowered));
  binding.push_back(std::move(factors));
  WEFT_TRY_ASSIGN(binding.back().dense, DenseFor(model, state.dense));
  return OkStatus();
}

Result<AdapterBinding> BindBundle(const Model& model, AdapterBundle bundle) {
  AdapterBinding binding;
  for (const std::optional<AdapterState>* part :
       {&bundle.adapter, &bundle.frozen, &bundle.base_change}) {
    if (part->has_value()) WEFT_TRY(Bind(model, **part, binding));
  }
  WEFT_TRY(CheckHead(model, binding));
  return binding;
}

// What this site keeps for itself stands beside what all have.
Status BindKept(const Model& model, const Blob& local_state, AdapterBinding& binding) {
  if (local_state.empty()) return OkStatus();
  const Result<TrainingState> before = DecodeTrainingState(local_state);
  if (!before.ok() || !before->kept) return OkStatus();
  return Bind(model, *before->kept, binding);
}

Result<EvalReport> Evaluate(Site& site, const ClientEvaluateJob& job, JobControl& control) {
  if (site.num_validation() == 0) {
    return FailedPrecondition(Str("[evaluate] ", job.client, " has no validation rows"));
  }
  WEFT_TRY_ASSIGN(const std::shared_ptr<const Model> model, site.models().Any());
  AdapterBundle bundle;
  if (!job.bundle.empty()) {
    WEFT_TRY_ASSIGN(bundle, DecodeBundle(job.bundle, at::kCPU));
  }
  std::vector<std::string> labels;
  for (const std::optional<AdapterState>* part : {&bundle.adapter, &bundle.frozen}) {
    if (part->has_value() && labels.empty()) labels = (*part)->spec.labels;
  }
  WEFT_TRY(CheckLabels(*model, labels).Within("[evaluate]"));
  WEFT_TRY_ASSIGN(const auto rows, site.Tokens(Site::Split::kValidation,
                                               model->config().max_positions, "cut", labels));
  WEFT_TRY_ASSIGN(AdapterBinding binding, BindBundle(*model, std::move(bundle)));
  WEFT_TRY(BindKept(*model, job.local_state, binding));
  WEFT_TRY_ASSIGN(const RowsLoss total,
                  EvaluateRows(*model, binding, rows->rows, kEvalRows, control));
  EvalReport report;
  report.run = job.run;
  report.version = job.version;
  report.client = job.client;
  report.loss = total.loss;
  report.label_tokens = total.label_tokens;
  report.num_examples = total.num_examples;
  return report;
}

}  // namespace

Result<TrainJob::Output> TrainRound(Site& site, const TrainJob& job, JobControl& control,
                                    std::function<void(const std::string&)> notice) {
  return Guarded("[train]",
                 [&] { return RoundTraining(site, job, control).Run(std::move(notice)); });
}

Result<EvalReport> EvaluateVersion(Site& site, const ClientEvaluateJob& job, JobControl& control) {
  return Guarded("[evaluate]", [&] { return Evaluate(site, job, control); });
}

void RegisterTrainWork(WorkTable& table, TrainWorkOptions options) {
  const auto shared = std::make_shared<const TrainWorkOptions>(std::move(options));
  const auto find = [shared](const ClientId& client) -> Site& {
    for (const std::shared_ptr<Site>& site : shared->sites) {
      if (site->client() == client) return *site;
    }
    WEFT_CHECK(false, "no site for client ", client);
  };
  table.On<TrainJob>([shared, find](const TrainJob& job, JobControl& control) {
    std::function<void(const std::string&)> notice;
    if (shared->on_notice) {
      notice = [&](const std::string& text) { shared->on_notice(job.client, text); };
    }
    if (Measures(job.plan.training)) return MeasureRound(find(job.client), job, control);
    return TrainRound(find(job.client), job, control, notice);
  });
  table.On<ClientEvaluateJob>([find](const ClientEvaluateJob& job, JobControl& control) {
    return EvaluateVersion(find(job.client), job, control);
  });
}

}  // namespace weft
