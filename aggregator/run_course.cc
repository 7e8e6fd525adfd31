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
namespace {

constexpr Nanos kReportEvery = std::chrono::seconds(30);
// How long members of before a restart, or named clients where there is no join deadline, are
// waited for although enough others are here.
constexpr double kRejoinInGoneAfters = 3;
constexpr double kNamedClientsPatience_s = 600;

constexpr const char* kSoftware = "weft 0.1.0";

// What was taken out of the base model is known once it is computed, not from the settings.
void CopyBaseChange(const AdapterSpec& from, AdapterSpec& to) {
  const std::string* const hash = FindOption(from, kBaseChangeOption);
  if (hash != nullptr) to.options.emplace_back(kBaseChangeOption, *hash);
}

}  // namespace

RunCourse::RunCourse(Office& office)
    : office_(office),
      uploads_(office),
      downloads_(office),
      publisher_(office),
      repair_(office),
      rounds_(office, uploads_, downloads_, publisher_,
              {.published =
                   [this] {
                     if (office_.options.settings.run.keep_updates) KeepLastState();
                     states_[office_.version] = office_.state_blob;
                     for (const auto& [client, taken] : rounds_.taken_last()) {
                       merged_[client] = taken.asked;
                     }
                     attempts_ = misses_ = 0;
                     evaluated_ = false;
                     Next();
                   },
               .measured =
                   [this] {
                     measured_ = true;
                     attempts_ = misses_ = 0;
                     Next();
                   },
               .missed = [this](const std::string& reason) { OnMissed(reason); }}),
      evaluations_(office, downloads_, [this] {
        evaluated_ = true;
        RemoveOldStates();
        Next();
      }) {
  uploads_.SetDone([this](const ClientId& client, Result<Upload> upload) {
    rounds_.OnUploaded(client, std::move(upload));
  });
}

// ---- start ----

Status RunCourse::CheckSameRun(const RunStarted& started) const {
  const Settings& settings = office_.options.settings;
  const auto differs = [&](std::string_view what, const auto& got, const auto& wanted) {
    return FailedPrecondition(Str("[run] the folder holds run ", started.run, " with ", what, " ",
                                  wanted, ", the settings say ", got,
                                  "; use another run.dir, or the settings it was started with"));
  };
  if (started.run != office_.run) return differs("name", office_.run, started.run);
  if (started.seed != settings.run.seed) return differs("seed", settings.run.seed, started.seed);
  if (started.base_hash != office_.options.base.hash) {
    return differs("base model", office_.options.base.hash, started.base_hash);
  }
  if (started.strategy != settings.strategy.name) {
    return differs("strategy", settings.strategy.name, started.strategy);
  }
  std::vector<std::string> capped;
  AdapterSpec wanted = SpecAtRank(settings.adapter, started.adapter.rank, office_.sites, &capped);
  CopyBaseChange(started.adapter, wanted);
  if (wanted != started.adapter) {
    return differs("adapter", "another one", started.adapter.method);
  }
  return OkStatus();
}

// A ledger that was emptied among the files of a run: going on would start anew over them. The
// initial adapter may lie there before the first event does.
Status RunCourse::CheckNothingWasLost() const {
  for (const std::string& blob : office_.env.store.ListBlobs("state/")) {
    if (blob == StateBlobName(RoundId{})) continue;
    return DataLoss(Str("[run] the ledger has no events, but the folder holds ", blob,
                        "; put the run's ledger back, or use another run.dir"));
  }
  return OkStatus();
}

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
  if (settings.adapter.rank < 1) {
    return InvalidArgument(
        Str("[adapter] rank: got ", settings.adapter.rank, ", wanted 1 or more"));
  }
  WEFT_TRY_ASSIGN(office_.sites, MatchSites(settings.adapter, office_.options.base.sites));
  for (const LinearSite& site : office_.sites) {
    if (site.path != "lm_head") continue;
    return InvalidArgument(
        "[adapter] target lm_head: an adapter on the output head is not trained; name other "
        "layers");
  }
  at_ = std::move(position);
  office_.global = settings.adapter;
  office_.global.rank = 0;
  if (at_.started) {
    WEFT_TRY(CheckSameRun(*at_.started));
    office_.global = at_.started->adapter;
  } else {
    WEFT_TRY(CheckNothingWasLost());
    const int64_t rank = office_.strategy().traits().mixed_ranks ? GlobalRankFromSettings(settings)
                                                                 : settings.adapter.rank;
    if (rank > 0) SetGlobalRank(rank);
  }
  for (const ClientSettings& client : settings.clients) {
    office_.members.Expect(ClientId{client.name});
  }
  for (const ClientId& client : at_.members) office_.members.Expect(client);
  Recover();
  WEFT_TRY(CheckLaplace());
  if (at_.finished && at_.finished->state == kRunCompleted && Trained() && !Unmeasured()) {
    office_.env.log.Info("the run has already been completed", {{"rounds", office_.version}});
    ending_ = RunEnded{.state = kRunCompleted, .reason = at_.finished->reason};
    stage_ = Stage::kEnded;
    office_.SetOver();
    return OkStatus();
  }
  if (at_.started) {
    resumed_ = true;
    const bool changed = office_.options.settings_toml != at_.settings_toml;
    office_.Record({RunResumed{.round = RoundId{office_.version.number + (published_ ? 1U : 0U)},
                               .software = kSoftware,
                               .settings_toml = changed ? office_.options.settings_toml : ""}});
    office_.env.log.Info("the run goes on", {{"version", office_.version},
                                             {"open_round", at_.open.has_value()},
                                             {"accepted", at_.accepted.size()}});
  }
  if (at_.published && !repair_.Whole(at_)) {
    stage_ = Stage::kRepairing;
    repair_.Run(at_, [this] { Next(); });
    return OkStatus();
  }
  Next();
  return OkStatus();
}

// Where the ledger says that the run stands.
void RunCourse::Recover() {
  measured_ = at_.posterior.has_value();
  evaluations_.SetBest(at_.best);
  states_ = at_.states;
  merged_ = at_.merged;
  std::vector<std::string> merged;
  rounds_.SetNorms(at_.norms);
  if (at_.merged_from && !at_.published->updates_kept) {
    for (const UpdateAccepted& update : at_.merged_from->updates) merged.push_back(update.blob);
  }
  rounds_.SetMerged(std::move(merged));
  if (office_.options.settings.cohort.max_staleness > 0) rounds_.SetCarried(at_.working);
  attempts_ = at_.attempts;
  misses_ = at_.misses;
  evaluated_ = attempts_ > 0;  // a round is opened only after that
  if (at_.published) {
    published_ = true;
    office_.version = at_.published->version;
    office_.state_blob = at_.published->state.name;
  }
}

void RunCourse::SetGlobalRank(int64_t rank) {
  std::vector<std::string> capped;
  office_.global = SpecAtRank(office_.options.settings.adapter, rank, office_.sites, &capped);
  Notice(rank, capped);
}

void RunCourse::Notice(int64_t rank, const std::vector<std::string>& capped) {
  if (capped.empty() || !noticed_ranks_.insert(rank).second) return;
  office_.env.log.Info("layers smaller than the rank get what fits",
                       {{"rank", rank}, {"layers", capped.size()}, {"first", capped.front()}});
}

// ---- the order of steps ----

void RunCourse::Next() {
  if (stage_ == Stage::kEnded) return;
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

size_t RunCourse::MembersNeeded() const {
  const CohortSettings& cohort = office_.options.settings.cohort;
  return static_cast<size_t>(
      std::max<int64_t>({cohort.min_available_nodes, cohort.min_train_nodes, 1}));
}

void RunCourse::Gather(std::string purpose, size_t needed) {
  stage_ = Stage::kGathering;
  purpose_ = std::move(purpose);
  needed_ = needed;
  gathering_since_ = reported_ = office_.env.clock.Now();
  TryGathered();
}

void RunCourse::TryGathered() {
  if (stage_ != Stage::kGathering) return;
  const Settings& settings = office_.options.settings;
  const CohortSettings& cohort = settings.cohort;
  const double waited = ToSeconds(office_.env.clock.Now() - gathering_since_);
  const size_t present = office_.members.CountPresent();
  double patience = cohort.join_deadline_s > 0 ? cohort.join_deadline_s : kNamedClientsPatience_s;
  if (resumed_) patience = std::min(patience, kRejoinInGoneAfters * settings.server.gone_after_s);
  if (present >= needed_ && (office_.members.Missing().empty() || waited >= patience)) {
    if (!office_.members.Missing().empty()) {
      office_.env.log.Warn("the run goes on without clients that did not join",
                           {{"missing", Names(office_.members.Missing())}, {"for", purpose_}});
      office_.members.ExpectNobody();
    }
    gathered_ = true;
    return Next();
  }
  if (present < needed_ && cohort.join_deadline_s > 0 && waited >= cohort.join_deadline_s) {
    return office_.GiveUp(DeadlineExceeded(
        Str("[join] after ", waited, " s ", present, " of the ", needed_, " members needed for ",
            purpose_, " are here; missing: ", Names(office_.members.Away()),
            ". Start more clients, or lower "
            "cohort.min-available-nodes")));
  }
  if (office_.env.clock.Now() - reported_ >= kReportEvery) {
    reported_ = office_.env.clock.Now();
    office_.env.log.Info("waiting for members", {{"for", purpose_},
                                                 {"here", present},
                                                 {"needed", needed_},
                                                 {"missing", Names(office_.members.Away())}});
  }
}

// ---- version 0 ----

RunStarted RunCourse::MakeRunStarted() const {
  const Settings& settings = office_.options.settings;
  return RunStarted{.run = office_.run,
                    .settings_sha256 = Sha256Hex(AsBytes(office_.options.settings_toml)),
                    .base_hash = office_.options.base.hash,
                    .seed = settings.run.seed,
                    .num_server_rounds = static_cast<uint32_t>(settings.run.num_server_rounds),
                    .strategy = settings.strategy.name,
                    .adapter = office_.global,
                    .sites = office_.sites.size(),
                    .software = kSoftware,
                    .protocol = kProtocolVersion,
                    .settings_toml = office_.options.settings_toml};
}

void RunCourse::Initialise() {
  if (office_.global.rank == 0) {
    int64_t largest = 1;
    for (const ClientId& client : office_.members.PresentNames()) {
      largest = std::max(largest, RankOfClient(office_.members.Find(client)->offer,
                                               office_.options.settings.adapter, 0));
    }
    SetGlobalRank(largest);
  }
  stage_ = Stage::kInitialising;
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

std::vector<ClientId> RunCourse::AbleToEvaluate() const {
  std::vector<ClientId> able;
  for (const ClientId& client : office_.members.PresentNames()) {
    if (rounds_.carried().contains(client)) continue;  // busy, and nobody is to wait for it
    if (office_.members.Find(client)->offer.eval_examples > 0) able.push_back(client);
  }
  return able;
}

bool RunCourse::ReadState(RoundId version, Blob* state) {
  Result<Blob> read = office_.env.store.ReadBlob(StateBlobName(version));
  if (!read.ok()) {
    office_.GiveUp(read.status().Within(Str("[run] state of version ", version)));
    return false;
  }
  *state = std::move(*read);
  return true;
}

void RunCourse::Evaluate() {
  stage_ = Stage::kEvaluating;
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
  if (old.empty()) return;
  std::erase_if(states_, [&](const auto& entry) {
    return std::find(old.begin(), old.end(), entry.second) != old.end();
  });
  office_.Record({BlobsRemoved{.blobs = old, .reason = "older than the last two versions"}},
                 [this, old] {
                   for (const std::string& blob : old) {
                     office_.env.store.RemoveBlob(blob, [](const Status&) {});
                   }
                 });
}

// ---- rounds ----

std::vector<ClientId> RunCourse::AbleToTrain() const {
  std::vector<ClientId> able;
  for (const ClientId& client : office_.members.PresentNames()) {
    if (office_.members.Find(client)->offer.num_examples > 0) able.push_back(client);
  }
  return able;
}

AdapterSpec RunCourse::PlanAdapter(const Capabilities& offer, RoundId round) {
  const Settings& settings = office_.options.settings;
  const int64_t rank = RankOfClient(offer, settings.adapter, office_.global.rank);
  const std::string name = MethodOfClient(offer, settings.adapter.method);
  std::vector<std::string> capped;
  AdapterSpec spec = SpecAtRank(ForMethod(settings.adapter, name), rank, office_.sites, &capped);
  Notice(rank, capped);
  CopyBaseChange(office_.global, spec);
  const Result<const Adapter*> method = FindAdapter(name);
  WEFT_CHECK(method.ok(), "a member of method ", name);  // joining checked it
  spec = (*method)->ForRound(spec, settings.run.seed, round.number);
  return office_.strategy().ForRound(settings.strategy, office_.global.rank, spec,
                                     settings.run.seed, round.number);
}

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
  std::vector<ClientId> available = AbleToTrain();
  std::set<ClientId> already;
  for (const auto& [client, event] : accepted) already.insert(client);
  for (const auto& [client, own] : rounds_.carried()) already.insert(client);
  for (const ClientId& client : already) {
    if (!std::binary_search(available.begin(), available.end(), client)) {
      available.insert(std::lower_bound(available.begin(), available.end(), client), client);
    }
  }
  for (const ClientId& client :
       SampleCohort(cohort, settings.run.seed, plan.round, attempt, available,
                    std::vector<ClientId>(already.begin(), already.end()))) {
    ClientPlan own;
    own.client = client;
    if (const auto taken = accepted.find(client); taken != accepted.end()) {
      own.adapter = taken->second.header.spec;
      const RoundId asked = taken->second.header.round;
      if (asked != plan.round) own.asked = asked;
    } else if (const auto carried = rounds_.carried().find(client);
               carried != rounds_.carried().end()) {
      own = carried->second;
      if (own.asked == plan.round) own.asked = {};  // of an earlier try at this round
    } else {
      own.adapter = PlanAdapter(office_.members.Find(client)->offer, plan.round);
    }
    if (const auto merged = merged_.find(client);
        plan.error_feedback && merged != merged_.end() && own.asked.number == 0) {
      own.merged = merged->second;
    }
    plan.cohort.push_back(std::move(own));
  }
  if (!Trained()) {
    plan.evaluators = SampleEvaluators(cohort, settings.run.seed, plan.round, AbleToEvaluate());
  }
  return plan;
}

void RunCourse::OpenRound() {
  const auto needed =
      static_cast<size_t>(std::max<int64_t>(office_.options.settings.cohort.min_train_nodes, 1));
  gathered_ = false;
  const std::map<ClientId, UpdateAccepted> accepted =
      at_.accepted.empty() ? rounds_.accepted() : std::exchange(at_.accepted, {});
  RoundStart start{.attempt = ++attempts_, .accepted = accepted};
  start.plan = PlanNextRound(start.attempt, start.accepted);
  if (start.plan.cohort.size() < needed) {
    return office_.GiveUp(FailedPrecondition(
        Str("[cohort] round ", start.plan.round, ": ", start.plan.cohort.size(),
            " members hold training rows, cohort.min-train-nodes wants ", needed)));
  }
  RunTraining(std::move(start));
}

void RunCourse::RunTraining(RoundStart start) {
  if (!ReadState(office_.version, &start.state)) return;
  for (const ClientPlan& client : start.plan.cohort) {
    if (client.asked.number == 0) continue;
    const RoundId version = StartOf(client.asked);
    if (!start.older.contains(version) && !ReadState(version, &start.older[version])) return;
  }
  stage_ = Stage::kTraining;
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

// ---- members ----

void RunCourse::OnJoined(const ClientId& client, bool again) {
  const Member& member = *office_.members.Find(client);
  const int64_t rank =
      RankOfClient(member.offer, office_.options.settings.adapter, office_.global.rank);
  if (!again) {
    MemberJoined event{.client = client, .capabilities = member.offer, .rank = rank};
    if (published_) {
      office_.Record({std::move(event)});
    } else {
      unrecorded_.emplace_back(std::move(event));
    }
  }
  rounds_.OnJoined(client);
  evaluations_.OnJoined(client);
  TryGathered();
}

void RunCourse::OnGone(const ClientId& client, const std::string& why) {
  if (stage_ == Stage::kEnded) return;
  MemberGone event{.client = client, .reason = why};
  if (published_) {
    office_.Record({std::move(event)});
  } else {
    unrecorded_.emplace_back(std::move(event));
  }
  rounds_.OnGone(client, why);
  evaluations_.OnGone(client);
}

void RunCourse::Tick() {
  if (stage_ == Stage::kEnded) return;
  uploads_.Tick();
  downloads_.Tick();
  rounds_.Tick();
  evaluations_.Tick();
  TryGathered();
}

// ---- the end ----

void RunCourse::End(const std::string& state, const std::string& reason) {
  if (stage_ == Stage::kEnded) return;
  stage_ = Stage::kEnded;
  ended_at_ = office_.env.clock.Now();
  ending_ = RunEnded{.state = state, .reason = reason};
  rounds_.Abandon();
  evaluations_.Abandon();
  office_.SetOver();
  std::vector<RunEvent> events;
  if (!published_ && !at_.started) events.emplace_back(MakeRunStarted());
  events.emplace_back(RunFinished{.state = state, .reason = reason});
  office_.Record(std::move(events));
  if (state == kRunCompleted) rounds_.ForgetMerged();
  for (const ClientId& client : office_.members.PresentNames()) office_.Send(client, ending_);
}

RunEnded RunCourse::Ending() const { return ending_; }

}  // namespace weft
