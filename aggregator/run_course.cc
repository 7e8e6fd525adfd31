#include "aggregator/run_course.h"

#include <algorithm>
#include <utility>

#include "aggregator/cohort.h"
#include "aggregator/jobs.h"
#include "aggregator/strategies/strategy.h"
#include "common/adapters/adapter.h"
#include "common/adapters/match.h"
#include "common/adapters/method_spec.h"
#include "common/base/str.h"
#include "common/crypto/digest.h"

namespace weft {

RunCourse::RunCourse(Office& office)
    : Course(office,
             {.published = [this] { OnPublished(); },
              .measured =
                  [this] {
                    measured_ = true;
                    attempts_ = misses_ = 0;
                    Next();
                  },
              .missed = [this](const std::string& reason) { OnMissed(reason); }},
             [this] {
               evaluated_ = true;
               RemoveOldStates();
               Next();
             }),
      repair_(office) {}

void RunCourse::OnPublished() {
  if (office_.options.settings.run.keep_updates) KeepLastState();
  states_[office_.version] = office_.state_blob;
  for (const auto& [client, taken] : rounds_.taken_last()) merged_[client] = taken.asked;
  attempts_ = misses_ = 0;
  evaluated_ = false;
  Next();
}

// ---- start ----

bool RunCourse::Trained() const {
  return published_ && office_.version.number >= office_.options.settings.run.num_server_rounds;
}

bool RunCourse::Unmeasured() const { return office_.options.settings.laplace.fit && !measured_; }

Status RunCourse::CheckLaplace() const {
  if (!Unmeasured()) return OkStatus();
  if (office_.options.settings.adapter.labels.empty()) {
    return InvalidArgument(
        "[laplace] fit: a posterior is over an adapter that classifies; set adapter.labels");
  }
  const Strategy& strategy = office_.strategy();
  if (strategy.traits().own_coordinates) {
    return InvalidArgument(
        Str("[laplace] fit: a posterior is over LoRA's matrices, which strategy ", strategy.name(),
            " does not publish; use exact-svd or flora"));
  }
  if (FindOption(office_.global, kBaseChangeOption) != nullptr) {
    return InvalidArgument(
        "[laplace] fit: a method of the run takes something out of the base model (kasa), which a "
        "posterior over the adapter does not know of; use other methods");
  }
  return OkStatus();
}

Status RunCourse::Start(RunPosition position) {
  const Settings& settings = office_.options.settings;
  WEFT_TRY(TakeUp(std::move(position)));
  if (!at_.started) {
    const int64_t rank = office_.strategy().traits().mixed_ranks ? GlobalRankFromSettings(settings)
                                                                 : settings.adapter.rank;
    if (rank > 0) SetGlobalRank(rank);
  }
  Recover();
  WEFT_TRY(CheckLaplace());
  if (at_.finished && at_.finished->state == kRunCompleted && Trained() && !Unmeasured()) {
    StayCompleted();
    return OkStatus();
  }
  if (at_.started) RecordResumed();
  if (at_.published && !repair_.Whole(at_)) {
    repair_.Run(at_, [this] { Next(); });
    return OkStatus();
  }
  Next();
  return OkStatus();
}

// What only a run of its own has in its ledger.
void RunCourse::Recover() {
  measured_ = at_.posterior.has_value();
  states_ = at_.states;
  merged_ = at_.merged;
  std::vector<std::string> merged;
  if (at_.merged_from && !at_.published->updates_kept) {
    for (const UpdateAccepted& update : at_.merged_from->updates) merged.push_back(update.blob);
  }
  rounds_.SetMerged(std::move(merged));
  if (office_.options.settings.cohort.max_staleness > 0) rounds_.SetCarried(at_.working);
  evaluated_ = attempts_ > 0;  // a round is opened only after that
}

// ---- the order of steps ----

void RunCourse::Next() {
  if (ended_) return;
  const auto rounds = static_cast<uint32_t>(office_.options.settings.run.num_server_rounds);
  if (!published_) {
    if (office_.global.rank > 0 || gathered_) return Initialise();
    return Gather("the initial adapter, whose rank their offers decide", MembersNeeded());
  }
  if (at_.open) return ResumeRound();
  const bool last = Trained();
  if (!evaluated_) {
    // The last version is published whether or not anybody is left to evaluate it.
    const size_t needed = last ? 0 : MembersNeeded();
    return gathered_ ? Evaluate()
                     : Gather(Str("the evaluation of version ", office_.version), needed);
  }
  if (last && !Unmeasured()) return End(kRunCompleted, Str("all ", rounds, " rounds are done"));
  if (!gathered_) {
    return Gather(last ? Str("the measuring of version ", office_.version)
                       : Str("round ", office_.version.number + 1),
                  MembersNeeded());
  }
  OpenRound();
}

// ---- version 0 ----

void RunCourse::Initialise() {
  if (office_.global.rank == 0) {
    int64_t largest = 1;
    for (const ClientId& client : office_.members.PresentNames()) {
      largest = std::max(largest, RankOfClient(office_.members.Find(client)->offer,
                                               office_.options.settings.adapter, 0));
    }
    SetGlobalRank(largest);
  }
  office_.env.log.Info(
      "run starts",
      {{"run", office_.run}, {"rank", office_.global.rank}, {"layers", office_.sites.size()}});
  InitJob job{.strategy = office_.options.settings.strategy,
              .adapter = office_.global,
              .methods = MethodsOfRun(office_.options.settings),
              .sites = office_.sites,
              .base_sites = office_.options.base.sites,
              .seed = office_.options.settings.run.seed};
  Submit<InitJob>(office_.env.executor, std::move(job), Nanos{0}, std::make_shared<JobControl>(),
                  [this](Result<InitJob::Output> made) {
                    if (office_.over()) return;
                    if (!made.ok()) {
                      return office_.GiveUp(made.status().Within("[run] the initial adapter"));
                    }
                    if (!made->base_change_sha256.empty()) {
                      office_.global.options.emplace_back(kBaseChangeOption,
                                                          made->base_change_sha256);
                    }
                    if (const Status status = CheckLaplace(); !status.ok()) {
                      return office_.GiveUp(status);
                    }
                    OnInitialised(std::move(made->state), std::move(made->adapter_sha256));
                  });
}

void RunCourse::OnInitialised(Blob state, std::string adapter_sha256) {
  std::vector<RunEvent> before;
  if (!at_.started) before.emplace_back(MakeRunStarted());
  NewVersion version{.version = RoundId{0},
                     .state = std::move(state),
                     .adapter_sha256 = std::move(adapter_sha256)};
  publisher_.Publish(std::move(version), std::move(before), [this] {
    published_ = true;
    states_[RoundId{0}] = office_.state_blob;
    if (!unrecorded_.empty()) office_.Record(std::exchange(unrecorded_, {}));
    Next();
  });
}

// ---- evaluation ----

void RunCourse::Evaluate() {
  gathered_ = false;
  EvaluationStart start{.version = office_.version};
  if (!ReadState(office_.version, &start.state)) return;
  start.evaluators =
      SampleEvaluators(office_.options.settings.cohort, office_.options.settings.run.seed,
                       office_.version, AbleToEvaluate());
  start.reports = std::exchange(at_.reports, {});
  start.here = std::exchange(at_.server_evaluated, std::nullopt);
  evaluations_.Run(std::move(start));
}

// The newest version was merged from the one before it, which stays as its updates do.
void RunCourse::KeepLastState() { states_.erase(RoundId{office_.version.number - 1}); }

void RunCourse::RemoveOldStates() {
  std::vector<std::string> old;
  for (const auto& [version, blob] : states_) {
    const bool best = evaluations_.best() && evaluations_.best()->version == version;
    const auto& carried = rounds_.carried();
    const bool awaited = std::any_of(carried.begin(), carried.end(), [&](const auto& entry) {
      return StartOf(entry.second.asked) == version;
    });
    if (version.number + 1 < office_.version.number && !best && !awaited) old.push_back(blob);
  }
  std::erase_if(states_, [&](const auto& entry) {
    return std::find(old.begin(), old.end(), entry.second) != old.end();
  });
  RemoveStates(old, "older than the last two versions");
}

// ---- rounds ----

RoundPlan RunCourse::PlanNextRound(uint32_t attempt,
                                   const std::map<ClientId, UpdateAccepted>& accepted) {
  const Settings& settings = office_.options.settings;
  RoundPlan plan = PlanRound(settings, office_.run, RoundId{office_.version.number + 1},
                             office_.options.base.hash);
  CohortSettings cohort = settings.cohort;
  if (Trained()) {
    plan.training.objective = kMeasureObjective;
    plan.training.local_steps = 0;  // one pass over the rows
    plan.training.local_epochs = 1;
    cohort.fraction_train = 1;
  }
  FillCohort(cohort, attempt, accepted, plan);
  if (!Trained()) {
    plan.evaluators = SampleEvaluators(cohort, settings.run.seed, plan.round, AbleToEvaluate());
  }
  return plan;
}

void RunCourse::OpenRound() {
  gathered_ = false;
  const std::map<ClientId, UpdateAccepted> accepted =
      at_.accepted.empty() ? rounds_.accepted() : std::exchange(at_.accepted, {});
  RoundStart start{.attempt = ++attempts_, .accepted = accepted};
  start.plan = PlanNextRound(start.attempt, start.accepted);
  if (const Status status = CheckCohort(start.plan); !status.ok()) return office_.GiveUp(status);
  RunTraining(std::move(start));
}

void RunCourse::RunTraining(RoundStart start) {
  if (!ReadState(office_.version, &start.state)) return;
  for (const ClientPlan& client : start.plan.cohort) {
    if (client.asked.number == 0) continue;
    const RoundId version = StartOf(client.asked);
    if (!start.older.contains(version) && !ReadState(version, &start.older[version])) return;
  }
  rounds_.Run(std::move(start));
}

void RunCourse::ResumeRound() {
  RoundStart start{.plan = at_.open->plan,
                   .attempt = at_.open->attempt,
                   .accepted = std::exchange(at_.accepted, {}),
                   .recorded = true};
  at_.open.reset();
  // Of the version that the round starts from; nobody is to take them for those of the next.
  at_.reports.clear();
  at_.server_evaluated.reset();
  evaluated_ = true;
  RunTraining(std::move(start));
}

void RunCourse::OnMissed(const std::string& reason) {
  ++misses_;
  const auto retries =
      static_cast<uint32_t>(std::max<int64_t>(office_.options.settings.cohort.round_retries, 0));
  if (misses_ > retries) {
    return office_.GiveUp(DeadlineExceeded(Str("[round] ", reason, "; tried ", misses_,
                                               " times (cohort.round-retries = ", retries, ")")));
  }
  Next();
}

}  // namespace weft
