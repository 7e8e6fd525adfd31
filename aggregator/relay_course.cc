#include "aggregator/relay_course.h"

#include <algorithm>
#include <utility>

#include "aggregator/cohort.h"
#include "aggregator/strategies/strategy.h"
#include "common/adapters/change.h"
#include "common/adapters/match.h"
#include "common/base/failpoint.h"
#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/crypto/digest.h"

namespace weft {
namespace {

// Of the time that the aggregator above gives a round: the rest is for the way up.
constexpr double kShareOfDeadline = 0.8;

// What the members work by: the plan above, but for what is between them and this relay.
RoundPlan MemberPlan(const RoundPlan& above, const CohortSettings& cohort) {
  RoundPlan plan = above;
  plan.cohort.clear();
  plan.evaluators.clear();
  plan.deadline_s = std::min(cohort.deadline_s, kShareOfDeadline * above.deadline_s);
  plan.max_staleness = 0;
  plan.error_feedback = false;
  return plan;
}

RoundPlan WithoutCohort(RoundPlan plan) {
  plan.cohort.clear();
  return plan;
}

}  // namespace

RelayCourse::RelayCourse(Office& office, Hooks hooks)
    : Course(
          office,
          {.published = [] {},
           .measured = [] {},
           .missed = [this](const std::string& reason) { OnMissed(reason); },
           .forwarded = [this](const Result<ForwardJob::Output>& update) { OnForwarded(update); }},
          [this] { OnEvaluated(); }),
      hooks_(std::move(hooks)) {}

// ---- start ----

Status RelayCourse::Start(RunPosition position) {
  const Settings& settings = office_.options.settings;
  if (!office_.strategy().traits().mixed_methods) {
    return InvalidArgument(
        Str("[relay] strategy ", settings.strategy.name,
            " merges adapters of one method only, and a relay's is a sum of many; use exact-svd, "
            "flora or another rule on lowered factors"));
  }
  WEFT_TRY(TakeUp(std::move(position)));
  if (at_.finished && at_.finished->state == kRunCompleted) {
    StayCompleted();
    return OkStatus();
  }
  if (at_.started) RecordResumed();
  Gather("the aggregator above", MembersNeeded());
  return OkStatus();
}

std::string RelayCourse::NoRelays() const {
  return "";  // a sum of sums is a sum
}

void RelayCourse::Next() {
  if (ended_) return;
  if (!std::exchange(announced_, true)) return hooks_.gathered();
  if (asked_ && asked_->ready && rounds_.idle()) OpenRound();
}

Capabilities RelayCourse::Offer() const {
  const Settings& settings = office_.options.settings;
  Capabilities offer;
  offer.software = "weft 0.1.0";
  offer.device = "relay";
  offer.methods = {kChangeMethod};
  int64_t rank = 0;
  for (const ClientId& client : office_.members.PresentNames()) {
    const Capabilities& own = office_.members.Find(client)->offer;
    // A client's change is the difference of two adapters: what came back and what was sent.
    rank += own.members > 0 ? own.rank_max : 2 * RankOfClient(own, settings.adapter, 0);
    offer.num_examples = std::min(offer.num_examples + own.num_examples, limits::kExamplesMax);
    offer.eval_examples = std::min(offer.eval_examples + own.eval_examples, limits::kExamplesMax);
    const bool first = offer.members == 0;
    offer.members += std::max<uint32_t>(own.members, 1);
    if (first) {
      offer.codecs = own.codecs;
    } else {
      std::erase_if(offer.codecs, [&](const std::string& codec) {
        return std::find(own.codecs.begin(), own.codecs.end(), codec) == own.codecs.end();
      });
    }
  }
  offer.rank_max = std::min(rank, limits::kRankMax);
  return offer;
}

// ---- what is asked from above ----

void RelayCourse::Train(RelayedRound round,
                        std::function<void(const Result<RelayedUpdate>&)> done) {
  if (ended_) return done(Cancelled("the run is over here"));
  if (evaluation_) {
    evaluations_.Abandon();
    Report(Cancelled("a round is asked for"));
  }
  if (asked_) {
    rounds_.CallOff("the aggregator above asks for another round");
    Answer(Cancelled("another round is asked for"));
  }
  asked_ = Asked{.round = std::move(round), .done = std::move(done)};
  if (const Status status = CheckAsked(asked_->round); !status.ok()) {
    return Answer(status.Within(Str("[relay] round ", asked_->round.plan.round)));
  }
  if (rounds_.idle()) Adopt();
}

Status RelayCourse::CheckAsked(const RelayedRound& round) {
  const Settings& settings = office_.options.settings;
  const RoundPlan& plan = round.plan;
  if (plan.run != office_.run) {
    return FailedPrecondition(Str("the run above is ", plan.run, ", run.name here is ", office_.run,
                                  "; set it to the same"));
  }
  if (plan.strategy != settings.strategy.name) {
    return FailedPrecondition(Str("the strategy above is ", plan.strategy, ", here it is ",
                                  settings.strategy.name, "; set it to the same"));
  }
  if (Measures(plan.training)) {
    return InvalidArgument("clients are to send statistics, which a relay does not forward");
  }
  if (published_ && plan.version < office_.version) {
    return FailedPrecondition(Str("it starts from version ", plan.version, ", this folder is at ",
                                  office_.version, "; use another run.dir"));
  }
  const AdapterSpec& asked = plan.cohort.front().adapter;
  if (asked.method != kChangeMethod) {
    return InvalidArgument(
        Str("asked for a ", asked.method, " adapter, a relay forwards ", kChangeMethod));
  }
  WEFT_TRY_ASSIGN(const RelayTerms terms, TermsOf(asked));
  if (terms.global_rank < 1) return InvalidArgument("the plan does not say the global rank");
  std::vector<std::string> capped;
  AdapterSpec global = SpecAtRank(settings.adapter, terms.global_rank, office_.sites, &capped);
  if (const std::string* base = FindOption(asked, kBaseChangeOption)) {
    global.options.emplace_back(kBaseChangeOption, *base);
  }
  if (ChangeSpec(global, asked.rank, terms.weighting, terms.members) != asked) {
    return FailedPrecondition(
        "[adapter] here is not that of the run above: rank, alpha, layers and options must be the "
        "same; copy it from the run's file");
  }
  if (published_ && office_.global != global) {
    return FailedPrecondition("the run above has another global adapter than this folder's run");
  }
  office_.global = global;
  return OkStatus();
}

void RelayCourse::Adopt() {
  const RelayedRound& round = asked_->round;
  asked_->spec = round.plan.cohort.front().adapter;
  AdoptJob job{.strategy = office_.options.settings.strategy.name,
               .adapter = office_.global,
               .sites = office_.sites,
               .bundle = round.bundle};
  Submit<AdoptJob>(office_.env.executor, std::move(job), Nanos{0}, std::make_shared<JobControl>(),
                   [this, work = ++work_](Result<AdoptJob::Output> adopted) {
                     if (office_.over() || work != work_ || !asked_) return;
                     if (!adopted.ok()) return Answer(adopted.status().Within("[relay]"));
                     OnAdopted(std::move(*adopted));
                   });
}

void RelayCourse::OnAdopted(AdoptJob::Output adopted) {
  const RoundId version = asked_->round.plan.version;
  if (published_ && version == office_.version &&
      adopted.adapter_sha256 == at_.published->adapter_sha256) {
    // Known. Written again all the same, for the file may have been damaged.
    office_.env.store.WriteBlob(office_.state_blob, std::move(adopted.state),
                                [this, work = work_](const Status& status) {
                                  if (office_.over() || work != work_ || !asked_) return;
                                  if (!status.ok())
                                    return office_.GiveUp(status.Within("[relay] the state"));
                                  Begin();
                                });
    return;
  }
  std::vector<RunEvent> before;
  if (!at_.started) before.emplace_back(MakeRunStarted());
  NewVersion next{.version = version,
                  .state = std::move(adopted.state),
                  .adapter_sha256 = adopted.adapter_sha256,
                  .adopted = true};
  publisher_.Publish(std::move(next), std::move(before),
                     [this, version, sha256 = adopted.adapter_sha256, work = work_] {
                       published_ = true;
                       if (!at_.started) at_.started = MakeRunStarted();
                       at_.published.emplace();
                       at_.published->version = version;
                       at_.published->adapter_sha256 = sha256;
                       if (!unrecorded_.empty()) office_.Record(std::exchange(unrecorded_, {}));
                       RemoveOld(version);
                       if (work == work_ && asked_) Begin();
                     });
}

// What was forwarded, and what it was made of: the aggregator above has it.
void RelayCourse::RemoveSpent() {
  for (const char* spent : {"spool/", "forwarded/"}) {
    for (const std::string& blob : office_.env.store.ListBlobs(spent)) {
      office_.env.store.RemoveBlob(blob, [](const Status&) {});
    }
  }
}

// All of what led to the version that has just been adopted.
void RelayCourse::RemoveOld(RoundId version) {
  attempts_ = misses_ = 0;
  at_.open.reset();
  at_.forwarded.reset();
  at_.accepted.clear();
  rounds_.ForgetAccepted();
  RemoveSpent();
  Pass(Failpoint::kSpoolRemoved);
  std::vector<std::string> old;
  for (const auto& [earlier, blob] : at_.states) {
    if (earlier != version) old.push_back(blob);
  }
  at_.states = {{version, office_.state_blob}};
  RemoveStates(old, "older than the last version");
}

// ---- the members' round ----

void RelayCourse::Begin() {
  asked_->ready = true;
  if (AnswerFromBefore()) return;
  Gather(Str("round ", asked_->round.plan.round), MembersNeeded());
}

// The round was merged already, and the answer did not arrive.
bool RelayCourse::AnswerFromBefore() {
  if (!at_.forwarded || at_.forwarded->round != asked_->round.plan.round ||
      at_.forwarded->bundle_sha256 != asked_->round.bundle_sha256 ||
      at_.forwarded->header.spec != asked_->spec) {
    return false;
  }
  Result<Blob> payload = office_.env.store.ReadBlob(at_.forwarded->file.name);
  if (!payload.ok() || Sha256Hex(payload->span()) != at_.forwarded->file.sha256) {
    office_.env.log.Warn("the forwarded update is gone or damaged; it is merged again",
                         {{"blob", at_.forwarded->file.name}});
    return false;
  }
  office_.env.log.Info("update of before is forwarded again",
                       {{"round", asked_->round.plan.round}});
  Answer(RelayedUpdate{at_.forwarded->header, std::move(*payload)});
  return true;
}

void RelayCourse::OpenRound() {
  const CohortSettings& cohort = office_.options.settings.cohort;
  RoundPlan plan = MemberPlan(asked_->round.plan, cohort);
  gathered_ = false;
  if (at_.open && WithoutCohort(at_.open->plan) == plan) {
    const RoundOpened open = *std::exchange(at_.open, std::nullopt);
    attempts_ = open.attempt;
    return RunRound(open.plan, /*recorded=*/true);
  }
  at_.open.reset();
  ++attempts_;
  FillCohort(cohort, attempts_, at_.accepted.empty() ? rounds_.accepted() : at_.accepted, plan);
  if (const Status status = CheckCohort(plan); !status.ok()) return Answer(status);
  RunRound(std::move(plan), /*recorded=*/false);
}

void RelayCourse::RunRound(RoundPlan plan, bool recorded) {
  RoundStart start{
      .plan = std::move(plan),
      .attempt = attempts_,
      .accepted = at_.accepted.empty() ? rounds_.accepted() : std::exchange(at_.accepted, {}),
      .recorded = recorded,
      .forward = asked_->spec};
  bundle_sha256_ = asked_->round.bundle_sha256;
  if (ReadState(office_.version, &start.state)) rounds_.Run(std::move(start));
}

void RelayCourse::OnMissed(const std::string& reason) {
  if (!asked_ || !asked_->ready) return;
  ++misses_;
  const auto retries =
      static_cast<uint32_t>(std::max<int64_t>(office_.options.settings.cohort.round_retries, 0));
  if (misses_ <= retries) return Begin();
  misses_ = 0;
  Answer(DeadlineExceeded(Str("[relay] ", reason, "; tried ", retries + 1,
                              " times (cohort.round-retries = ", retries, ")")));
}

void RelayCourse::TooFew(const Status& why) {
  if (!asked_) return office_.GiveUp(why);
  Answer(why);
}

void RelayCourse::OnForwarded(const Result<ForwardJob::Output>& update) {
  const RoundId round = rounds_.merged_last();
  if (!update.ok()) {
    if (asked_ && !asked_->ready) return Adopt();  // it was of an earlier question
    return Answer(update.status().Within(Str("[relay] round ", round)));
  }
  UpdateForwarded event{.round = round,
                        .file = {.name = ForwardedBlobName(round),
                                 .bytes = update->payload.size(),
                                 .sha256 = update->header.payload_sha256},
                        .header = update->header,
                        .bundle_sha256 = bundle_sha256_,
                        .error = update->error,
                        .merge_s = update->merge_s};
  office_.env.log.Info("update merged to be forwarded", {{"round", round},
                                                         {"rank", event.header.spec.rank},
                                                         {"error", event.error},
                                                         {"bytes", event.file.bytes},
                                                         {"merge_s", event.merge_s}});
  office_.env.store.WriteBlob(event.file.name, update->payload,
                              [this, event, payload = update->payload](const Status& status) {
                                if (office_.over()) return;
                                if (!status.ok())
                                  return office_.GiveUp(status.Within("[relay] the update"));
                                office_.Record({event}, [this, event, payload] {
                                  if (!office_.over()) OnForwardRecorded(event, payload);
                                });
                              });
}

void RelayCourse::OnForwardRecorded(const UpdateForwarded& event, const Blob& payload) {
  Pass(Failpoint::kUpdateForwarded);
  at_.forwarded = event;
  if (!asked_) return;
  if (!asked_->ready) return Adopt();  // of a later question
  if (asked_->round.bundle_sha256 != event.bundle_sha256) return Begin();
  Answer(RelayedUpdate{event.header, payload});
}

void RelayCourse::Answer(const Result<RelayedUpdate>& update) {
  if (!asked_) return;
  const auto done = std::move(asked_->done);
  asked_.reset();
  ++work_;
  done(update);
}

// ---- evaluation ----

void RelayCourse::Evaluate(RelayedEvaluation evaluation,
                           std::function<void(Result<EvalReport>)> done) {
  if (ended_) return done(Cancelled("the run is over here"));
  if (asked_) return done(Unavailable("[relay] a round is under way"));
  if (evaluation_) {
    evaluations_.Abandon();
    Report(Cancelled("another version is to be evaluated"));
  }
  evaluation_ = Evaluation{std::move(evaluation), std::move(done)};
  AdoptJob job{.strategy = office_.options.settings.strategy.name,
               .adapter = office_.global,
               .sites = office_.sites,
               .bundle = evaluation_->asked.bundle};
  Submit<AdoptJob>(office_.env.executor, std::move(job), Nanos{0}, std::make_shared<JobControl>(),
                   [this, work = ++work_](Result<AdoptJob::Output> adopted) {
                     if (office_.over() || work != work_ || !evaluation_) return;
                     if (!adopted.ok()) return Report(adopted.status().Within("[relay]"));
                     StartEvaluation(std::move(adopted->state));
                   });
}

void RelayCourse::StartEvaluation(Blob state) {
  const RoundId version = evaluation_->asked.version;
  evaluations_.Run({.version = version,
                    .state = std::move(state),
                    .evaluators = SampleEvaluators(office_.options.settings.cohort,
                                                   office_.options.settings.run.seed, version,
                                                   AbleToEvaluate())});
}

void RelayCourse::OnEvaluated() {
  if (!evaluation_) return;
  EvalReport sum;
  for (const auto& [client, report] : evaluations_.reports()) {
    sum.loss += report.loss * static_cast<double>(report.label_tokens);
    sum.label_tokens += report.label_tokens;
    sum.num_examples += report.num_examples;
  }
  if (sum.label_tokens > 0) sum.loss /= static_cast<double>(sum.label_tokens);
  Report(sum);
}

void RelayCourse::Report(Result<EvalReport> report) {
  if (!evaluation_) return;
  const auto done = std::move(evaluation_->done);
  evaluation_.reset();
  ++work_;
  done(std::move(report));
}

// ---- time, and the end ----

void RelayCourse::Tick() {
  Course::Tick();
  if (asked_ && asked_->round.control->cancelled) {
    rounds_.CallOff("the aggregator above has closed the round");
    Answer(Cancelled("called off"));
  }
  if (evaluation_ && evaluation_->asked.control->cancelled) {
    evaluations_.Abandon();
    Report(Cancelled("called off"));
  }
}

void RelayCourse::End(const std::string& state, const std::string& reason) {
  if (ended_) return;
  Course::End(state, reason);
  if (state == kRunCompleted) RemoveSpent();
  Answer(Cancelled("the run is over here"));
  Report(Cancelled("the run is over here"));
  hooks_.ended();
}

}  // namespace weft
