#include "aggregator/course.h"

#include <algorithm>
#include <utility>

#include "aggregator/cohort.h"
#include "aggregator/strategies/strategy.h"
#include "common/adapters/adapter.h"
#include "common/adapters/change.h"
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

Course::Course(Office& office, RoundRunner::Outcomes outcomes, std::function<void()> evaluated)
    : office_(office),
      uploads_(office),
      downloads_(office),
      publisher_(office),
      rounds_(office, uploads_, downloads_, publisher_, std::move(outcomes)),
      evaluations_(office, downloads_, std::move(evaluated)) {
  uploads_.SetDone([this](const ClientId& client, Result<Upload> upload) {
    rounds_.OnUploaded(client, std::move(upload));
  });
}

// ---- start ----

Status Course::MatchLayers() {
  const AdapterSpec& adapter = office_.options.settings.adapter;
  if (adapter.rank < 1) {
    return InvalidArgument(Str("[adapter] rank: got ", adapter.rank, ", wanted 1 or more"));
  }
  WEFT_TRY_ASSIGN(office_.sites, MatchSites(adapter, office_.options.base.sites));
  for (const LinearSite& site : office_.sites) {
    if (site.path != "lm_head") continue;
    return InvalidArgument(
        "[adapter] target lm_head: an adapter on the output head is not trained; name other "
        "layers");
  }
  return OkStatus();
}

Status Course::TakeUp(RunPosition position) {
  const Settings& settings = office_.options.settings;
  WEFT_TRY(MatchLayers());
  at_ = std::move(position);
  office_.global = settings.adapter;
  office_.global.rank = 0;
  if (at_.started) {
    WEFT_TRY(CheckSameRun(*at_.started));
    office_.global = at_.started->adapter;
  } else {
    WEFT_TRY(CheckNothingWasLost());
  }
  for (const ClientSettings& client : settings.clients) {
    office_.members.Expect(ClientId{client.name});
  }
  for (const ClientId& client : at_.members) office_.members.Expect(client);
  rounds_.SetNorms(at_.norms);
  evaluations_.SetBest(at_.best);
  attempts_ = at_.attempts;
  misses_ = at_.misses;
  if (at_.published) {
    published_ = true;
    office_.version = at_.published->version;
    office_.state_blob = at_.published->state.name;
  }
  return OkStatus();
}

void Course::StayCompleted() {
  office_.env.log.Info("the run has already been completed", {{"rounds", office_.version}});
  ending_ = RunEnded{.state = kRunCompleted, .reason = at_.finished->reason};
  ended_ = true;
  office_.SetOver();
}

void Course::RecordResumed() {
  resumed_ = true;
  const bool changed = office_.options.settings_toml != at_.settings_toml;
  office_.Record({RunResumed{.round = RoundId{office_.version.number + (published_ ? 1U : 0U)},
                             .software = kSoftware,
                             .settings_toml = changed ? office_.options.settings_toml : ""}});
  office_.env.log.Info("the run goes on", {{"version", office_.version},
                                           {"open_round", at_.open.has_value()},
                                           {"accepted", at_.accepted.size()}});
}

Status Course::CheckSameRun(const RunStarted& started) const {
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
Status Course::CheckNothingWasLost() const {
  for (const std::string& blob : office_.env.store.ListBlobs("state/")) {
    if (blob == StateBlobName(RoundId{})) continue;
    return DataLoss(Str("[run] the ledger has no events, but the folder holds ", blob,
                        "; put the run's ledger back, or use another run.dir"));
  }
  return OkStatus();
}

void Course::SetGlobalRank(int64_t rank) {
  std::vector<std::string> capped;
  office_.global = SpecAtRank(office_.options.settings.adapter, rank, office_.sites, &capped);
  Notice(rank, capped);
}

void Course::Notice(int64_t rank, const std::vector<std::string>& capped) {
  if (capped.empty() || !noticed_ranks_.insert(rank).second) return;
  office_.env.log.Info("layers smaller than the rank get what fits",
                       {{"rank", rank}, {"layers", capped.size()}, {"first", capped.front()}});
}

size_t Course::MembersNeeded() const {
  const CohortSettings& cohort = office_.options.settings.cohort;
  return static_cast<size_t>(
      std::max<int64_t>({cohort.min_available_nodes, cohort.min_train_nodes, 1}));
}

void Course::Gather(std::string purpose, size_t needed) {
  gathering_ = true;
  purpose_ = std::move(purpose);
  needed_ = needed;
  gathering_since_ = reported_ = office_.env.clock.Now();
  TryGathered();
}

void Course::TryGathered() {
  if (!gathering_) return;
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
    gathering_ = false;
    return Next();
  }
  if (present < needed_ && cohort.join_deadline_s > 0 && waited >= cohort.join_deadline_s) {
    gathering_ = false;
    return TooFew(DeadlineExceeded(Str("[join] after ", waited, " s ", present, " of the ", needed_,
                                       " members needed for ", purpose_,
                                       " are here; missing: ", Names(office_.members.Away()),
                                       ". Start more clients, or lower "
                                       "cohort.min-available-nodes and cohort.min-train-nodes")));
  }
  if (office_.env.clock.Now() - reported_ >= kReportEvery) {
    reported_ = office_.env.clock.Now();
    office_.env.log.Info("waiting for members", {{"for", purpose_},
                                                 {"here", present},
                                                 {"needed", needed_},
                                                 {"missing", Names(office_.members.Away())}});
  }
}

RunStarted Course::MakeRunStarted() const {
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

Status Course::CheckCohort(const RoundPlan& plan) const {
  const auto needed =
      static_cast<size_t>(std::max<int64_t>(office_.options.settings.cohort.min_train_nodes, 1));
  if (plan.cohort.size() >= needed) return OkStatus();
  return FailedPrecondition(Str("[cohort] round ", plan.round, ": ", plan.cohort.size(),
                                " members hold training rows, cohort.min-train-nodes wants ",
                                needed));
}

void Course::RemoveStates(const std::vector<std::string>& blobs, const std::string& reason) {
  if (blobs.empty()) return;
  office_.Record({BlobsRemoved{.blobs = blobs, .reason = reason}}, [this, blobs] {
    for (const std::string& blob : blobs) {
      office_.env.store.RemoveBlob(blob, [](const Status&) {});
    }
  });
}

bool Course::ReadState(RoundId version, Blob* state) {
  Result<Blob> read = office_.env.store.ReadBlob(StateBlobName(version));
  if (!read.ok()) {
    office_.GiveUp(read.status().Within(Str("[run] state of version ", version)));
    return false;
  }
  *state = std::move(*read);
  return true;
}

std::vector<ClientId> Course::AbleToEvaluate() const {
  std::vector<ClientId> able;
  for (const ClientId& client : office_.members.PresentNames()) {
    if (rounds_.carried().contains(client)) continue;  // busy, and nobody is to wait for it
    if (office_.members.Find(client)->offer.eval_examples > 0) able.push_back(client);
  }
  return able;
}

std::vector<ClientId> Course::AbleToTrain() const {
  std::vector<ClientId> able;
  for (const ClientId& client : office_.members.PresentNames()) {
    if (office_.members.Find(client)->offer.num_examples > 0) able.push_back(client);
  }
  return able;
}

AdapterSpec Course::PlanAdapter(const Capabilities& offer, const RoundPlan& plan) {
  const Settings& settings = office_.options.settings;
  const int64_t rank = RankOfClient(offer, settings.adapter, office_.global.rank);
  const std::string name = MethodOfClient(offer, settings.adapter.method);
  AdapterSpec spec;
  if (offer.members > 0) {
    spec = ChangeSpec(office_.global, rank, settings.cohort.weighting, offer.members);
  } else {
    std::vector<std::string> capped;
    spec = SpecAtRank(ForMethod(settings.adapter, name), rank, office_.sites, &capped);
    Notice(rank, capped);
    CopyBaseChange(office_.global, spec);
  }
  const Result<const Adapter*> method = FindAdapter(name);
  WEFT_CHECK(method.ok(), "a member of method ", name);  // joining checked it
  spec = (*method)->ForRound(spec, plan.seed, plan.round.number);
  return office_.strategy().ForRound(settings.strategy, office_.global.rank, spec, plan.seed,
                                     plan.round.number);
}

void Course::FillCohort(const CohortSettings& cohort, uint32_t attempt,
                        const std::map<ClientId, UpdateAccepted>& accepted, RoundPlan& plan) {
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
       SampleCohort(cohort, plan.seed, plan.round, attempt, available,
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
      own.adapter = PlanAdapter(office_.members.Find(client)->offer, plan);
    }
    if (const auto merged = merged_.find(client);
        plan.error_feedback && merged != merged_.end() && own.asked.number == 0) {
      own.merged = merged->second;
    }
    plan.cohort.push_back(std::move(own));
  }
}

// ---- members ----

std::string Course::NoRelays() const {
  const Settings& settings = office_.options.settings;
  if (settings.cohort.weighting == "uniform") {
    return "cohort.weighting is \"uniform\", and how many clients an update is made of is not "
           "known; weigh by examples or tokens";
  }
  if (settings.laplace.fit) return "[laplace] fit asks clients for statistics, which none forwards";
  return "";
}

void Course::OnJoined(const ClientId& client, bool again) {
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

void Course::OnGone(const ClientId& client, const std::string& why) {
  if (ended_) return;
  MemberGone event{.client = client, .reason = why};
  if (published_) {
    office_.Record({std::move(event)});
  } else {
    unrecorded_.emplace_back(std::move(event));
  }
  rounds_.OnGone(client, why);
  evaluations_.OnGone(client);
}

void Course::Tick() {
  if (ended_) return;
  uploads_.Tick();
  downloads_.Tick();
  rounds_.Tick();
  evaluations_.Tick();
  TryGathered();
}

// ---- the end ----

void Course::End(const std::string& state, const std::string& reason) {
  if (ended_) return;
  ended_ = true;
  gathering_ = false;
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

}  // namespace weft
