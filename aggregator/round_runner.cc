#include "aggregator/round_runner.h"

#include <algorithm>
#include <utility>

#include "aggregator/admission.h"
#include "aggregator/cohort.h"
#include "aggregator/node_jobs.h"
#include "aggregator/posterior_work.h"
#include "common/base/check.h"
#include "common/base/failpoint.h"
#include "common/base/str.h"

namespace weft {
namespace {

// A member that says it is idle although it was offered a round has not got the offer.
constexpr Nanos kOfferAgainAfter = std::chrono::seconds(2);
constexpr Nanos kReportEvery = std::chrono::seconds(30);

}  // namespace

RoundRunner::RoundRunner(Office& office, Uploads& uploads, Downloads& downloads,
                         Publisher& publisher, Outcomes outcomes)
    : office_(office),
      uploads_(uploads),
      downloads_(downloads),
      publisher_(publisher),
      outcomes_(std::move(outcomes)) {}

// ---- opening ----

void RoundRunner::Run(RoundStart start) {
  WEFT_CHECK(stage_ == Stage::kIdle, "round ", start.plan.round, " while another is open");
  stage_ = Stage::kCutting;
  start_ = std::move(start);
  desks_.clear();
  damaged_.clear();
  round_.emplace(start_.plan, start_.attempt, office_.env.clock.Now());
  if (start_.accepted.empty()) return Cut();
  // Whatever happened to the disk meanwhile, a merge sees the bytes that were accepted.
  CheckSpoolJob check{.updates = {}, .store = &office_.env.store};
  for (const auto& [client, event] : start_.accepted) {
    check.updates.push_back({.header = event.header, .blob = event.blob});
  }
  Submit<CheckSpoolJob>(office_.env.executor, std::move(check), Nanos{0},
                        std::make_shared<JobControl>(),
                        [this](Result<CheckSpoolJob::Output> damaged) {
                          if (office_.over() || stage_ != Stage::kCutting) return;
                          if (!damaged.ok()) return office_.GiveUp(damaged.status());
                          damaged_.insert(damaged->begin(), damaged->end());
                          Cut();
                        });
}

void RoundRunner::Cut() {
  // What is measured is the adapter as it was published.
  const bool measures = Measures(start_.plan.training);
  bundles_ = std::make_unique<Bundles>(office_, measures ? "float32" : start_.plan.down_codec,
                                       start_.plan.compress);
  bundles_->Cut(
      start_.state, start_.plan.cohort, measures,
      [this](const Status& status) {
        if (!status.ok()) {
          office_.GiveUp(status.Within(Str("[round ", start_.plan.round, "] cutting bundles")));
        } else {
          // Offers do not wait for the disk: the ledger keeps its order, so an update of this round
          // can only be on disk behind the round's opening, and an opening that is lost is planned
          // again.
          if (!start_.recorded) RecordOpening();
          StartCollecting();
        }
      },
      start_.older);
}

void RoundRunner::RecordOpening() {
  RoundOpened event;
  event.plan = start_.plan;
  event.attempt = start_.attempt;
  for (const ClientPlan& client : start_.plan.cohort) {
    const PayloadOffer& offer = bundles_->For(client.client).offer;
    event.bundles.push_back(
        {.client = client.client, .sha256 = offer.sha256, .bytes = offer.bytes});
  }
  office_.Record({std::move(event)}, [] { Pass(Failpoint::kRoundRecorded); });
}

void RoundRunner::StartCollecting() {
  stage_ = Stage::kCollecting;
  counted_late_.clear();
  carried_.clear();
  start_.older.clear();
  const Nanos now = office_.env.clock.Now();
  // After a restart everybody has to notice it first.
  const Nanos patience = Seconds(office_.options.settings.server.gone_after_s);
  const Nanos away_since = start_.recorded ? now + 2 * patience : now;
  reported_ = now;
  round_.emplace(start_.plan, start_.attempt, now);  // its time runs from here
  SeatAccepted();
  office_.env.log.Info("round opened", {{"round", start_.plan.round},
                                        {"attempt", start_.attempt},
                                        {"cohort", start_.plan.cohort.size()},
                                        {"accepted", round_->CountOf(Standing::kAccepted)},
                                        {"deadline_s", start_.plan.deadline_s}});
  for (const ClientPlan& client : start_.plan.cohort) {
    const Seat* seat = round_->Find(client.client);
    if (!office_.members.Present(client.client)) {
      round_->Away(client.client, away_since);
    } else if (seat->standing != Standing::kAccepted) {
      Offer(client.client);
    }
  }
  Judge();
}

void RoundRunner::SeatAccepted() {
  std::vector<RunEvent> lost;
  for (const auto& [client, event] : start_.accepted) {
    WEFT_CHECK(event.CountsIn() == start_.plan.round, "an update of round ", event.CountsIn(),
               " is counted in round ", start_.plan.round);
    Seat* seat = round_->Find(client);
    if (seat == nullptr || seat->plan.adapter != event.header.spec ||
        Asked(*seat) != event.header.round) {
      continue;
    }
    if (damaged_.contains(client)) {
      office_.env.log.Warn(
          "an accepted update is gone from the spool, or damaged; it is asked for "
          "again",
          {{"client", client}, {"blob", event.blob}});
      lost.emplace_back(
          UpdateLost{.round = event.CountsIn(), .client = client, .blob = event.blob});
      continue;
    }
    round_->Accept(client,
                   {.header = event.header, .blob = event.blob, .update_norm = event.update_norm},
                   office_.env.clock.Now());
    desks_[client].recorded = true;
  }
  if (lost.empty()) return;
  for (const RunEvent& event : lost) start_.accepted.erase(std::get<UpdateLost>(event).client);
  // Asking again does not wait for the disk: the ledger keeps its order, so it can accept the
  // update again only behind its loss, and a loss that it does not get to hold is found again.
  office_.Record(std::move(lost));
}

void RoundRunner::Offer(const ClientId& client) {
  const Seat* seat = round_->Find(client);
  const Bundle& bundle = bundles_->For(client);
  downloads_.Allow(client, Downloads::Use::kTrain, bundle);
  desks_[client].offered = office_.env.clock.Now();
  office_.Send(client,
               RoundOffer{.plan = PlanFor(round_->common(), seat->plan), .payload = bundle.offer});
  Pass(Failpoint::kOfferSent);
}

void RoundRunner::SetNorms(std::vector<double> norms) {
  std::sort(norms.begin(), norms.end());
  const size_t count = norms.size();
  median_norm_ = count == 0 ? 0 : (norms[(count - 1) / 2] + norms[count / 2]) / 2;
}

void RoundRunner::Abandon() {
  stage_ = Stage::kIdle;
  round_.reset();
  bundles_.reset();
  uploads_.CancelAll();
  downloads_.ForbidAll(Downloads::Use::kTrain);
}

// ---- members come and go ----

void RoundRunner::OnJoined(const ClientId& client) {
  if (stage_ != Stage::kCollecting) return;
  const Seat* seat = round_->Find(client);
  if (seat == nullptr) return;
  round_->Back(client);
  if (seat->standing == Standing::kAccepted) {
    TellAccepted(client, Asked(*seat));
  } else if (seat->standing == Standing::kRefused) {
    Verdict(client, Asked(*seat), FailedPrecondition(seat->reason));
  } else {
    // Also one that failed: it was started again, perhaps with what it lacked.
    round_->Settle(client, Standing::kWorking, "");
    Offer(client);
  }
}

void RoundRunner::OnGone(const ClientId& client, const std::string& why) {
  if (stage_ != Stage::kCollecting || round_->Find(client) == nullptr) return;
  round_->Away(client, office_.env.clock.Now());
  desks_[client].gone_because = why;
  uploads_.Pause(client);
  downloads_.Gone(client);
}

void RoundRunner::OnHeartbeat(const ClientId& client, const Heartbeat& heartbeat) {
  if (stage_ != Stage::kCollecting) return;
  const Seat* seat = round_->Find(client);
  if (seat == nullptr) return;
  Desk& desk = desks_[client];
  if (heartbeat.round == Asked(*seat)) {
    if (heartbeat.phase == "train" || heartbeat.phase == "upload") NoteBundleSent(client);
  } else if (seat->standing == Standing::kWorking &&
             office_.env.clock.Now() - desk.offered > kOfferAgainAfter) {
    Offer(client);
  }
}

void RoundRunner::NoteBundleSent(const ClientId& client) {
  Desk& desk = desks_[client];
  if (std::exchange(desk.got_bundle, true)) return;
  const Seat* seat = round_->Find(client);
  const uint64_t bytes = downloads_.SentBytes(client, Downloads::Use::kTrain);
  if (seat->plan.asked.number > 0 && bytes == 0) return;  // an earlier round told of it
  office_.Record({BundleSent{.round = round_->plan().round,
                             .client = client,
                             .bytes = bytes,
                             .download_s = ToSeconds(office_.env.clock.Now() - desk.offered)}});
}

void RoundRunner::OnRoundFailed(const ClientId& from, const RoundFailed& failed) {
  if (stage_ != Stage::kCollecting) return;
  Seat* seat = round_->Find(from);
  if (seat == nullptr || failed.round != Asked(*seat) || seat->standing != Standing::kWorking) {
    return;
  }
  Drop(from, Standing::kFailed, Str(CodeName(failed.code), ": ", failed.reason));
  Judge();
}

void RoundRunner::Drop(const ClientId& client, Standing standing, const std::string& reason) {
  round_->Settle(client, standing, reason);
  office_.env.log.Warn("client dropped out of the round",
                       {{"round", round_->plan().round}, {"client", client}, {"reason", reason}});
  office_.Record({ClientDropped{.round = round_->plan().round,
                                .client = client,
                                .reason = reason,
                                .phase = PhaseOf(client)}});
}

std::string RoundRunner::PhaseOf(const ClientId& client) const {
  const Member* member = office_.members.Find(client);
  return member == nullptr || member->phase.empty() ? "wait" : member->phase;
}

// ---- updates ----

void RoundRunner::OnUpdateOffer(const ClientId& from, const UpdateOffer& offer) {
  if (stage_ != Stage::kCollecting) return AnswerStray(from, offer);
  Seat* seat = round_->Find(from);
  if (seat == nullptr && offer.header.round == round_->plan().round) {
    return Verdict(from, offer.header.round,
                   FailedPrecondition(Str("[admission] client ", from,
                                          " is not in the cohort of round ", offer.header.round)));
  }
  if (seat == nullptr || offer.header.round != Asked(*seat)) return AnswerStray(from, offer);
  const RoundPlan plan = PlanFor(round_->common(), seat->plan);
  NoteBundleSent(from);
  if (seat->standing == Standing::kAccepted) {
    const bool same = seat->update.header.payload_sha256 == offer.payload.sha256;
    if (same) return TellAccepted(from, plan.round);
    return Verdict(from, plan.round,
                   AlreadyExists(Str("[admission] client ", from, " round ", plan.round,
                                     ": another update was accepted before")));
  }
  if (seat->standing == Standing::kRefused) {
    return Verdict(from, plan.round, FailedPrecondition(seat->reason));
  }
  if (desks_[from].checking) return;
  const Status status = CheckUpdateOffer(
      from, offer, plan, seat->plan,
      Measures(plan.training)
          ? StatisticsBytesMax(office_.sites)
          : UpdateBytesMax(seat->plan.adapter, office_.sites, office_.options.base.sites));
  if (!status.ok()) return Refuse(from, status);
  round_->Settle(from, Standing::kUploading, "");
  seat->update.header = offer.header;
  Pass(Failpoint::kUpdateOffered);
  uploads_.Take(from, SpoolName(plan.round, from), offer.payload);
}

void RoundRunner::AnswerStray(const ClientId& from, const UpdateOffer& offer) {
  const RoundId round = offer.header.round;
  if (stage_ == Stage::kCutting && round == start_.plan.round) return;  // it will offer again
  if (const auto carried = carried_.find(from);
      carried != carried_.end() && carried->second.asked == round) {
    return;  // likewise, once the next round is open
  }
  const Seat* seat = stage_ == Stage::kMerging ? round_->Find(from) : nullptr;
  if (seat != nullptr && seat->standing == Standing::kAccepted && Asked(*seat) == round &&
      seat->update.header.payload_sha256 == offer.payload.sha256) {
    return TellAccepted(from, round);
  }
  if (const auto taken = taken_last_.find(from); taken != taken_last_.end() &&
                                                 taken->second.asked == round &&
                                                 taken->second.sha256 == offer.payload.sha256) {
    return Verdict(from, round, OkStatus());  // the verdict was lost on the way
  }
  const bool past = round <= std::max(office_.version, merged_last_) ||
                    (stage_ == Stage::kMerging && round == round_->plan().round);
  if (offer.header.run != office_.run || !past || round.number == 0) {
    return Verdict(from, round,
                   FailedPrecondition(Str("[admission] client ", from, ": got an update for run ",
                                          offer.header.run, " round ", round, ", wanted run ",
                                          office_.run, " round ", office_.version.number + 1)));
  }
  if (counted_late_.insert(from).second) {
    office_.Record({UpdateLate{.round = round, .client = from}});
    office_.env.log.Info("update came late", {{"round", round}, {"client", from}});
  }
  Verdict(from, round,
          DeadlineExceeded(Str("[admission] client ", from, ": round ", round,
                               " had closed before its update came")));
}

// Where its acceptance is not yet on disk it is told once that is.
void RoundRunner::TellAccepted(const ClientId& to, RoundId asked) {
  if (desks_[to].recorded) Verdict(to, asked, OkStatus());
}

void RoundRunner::Verdict(const ClientId& to, RoundId round, const Status& status) {
  office_.Send(to,
               UpdateVerdict{.round = round, .code = status.code(), .reason = status.message()});
}

void RoundRunner::OnUploaded(const ClientId& client, Result<Upload> upload) {
  if (stage_ != Stage::kCollecting) return;
  if (!upload.ok()) return Refuse(client, upload.status());
  Admit(client, *upload);
}

void RoundRunner::Admit(const ClientId& client, const Upload& upload) {
  Seat* seat = round_->Find(client);
  if (seat == nullptr) return;
  desks_[client].checking = true;
  AdmitJob job{.client = seat->plan,
               .header = seat->update.header,
               .sites = office_.sites,
               .blob = upload.blob,
               .bundle = bundles_->For(client).bytes,
               .measured = Measures(round_->plan().training),
               .norm_max = office_.options.settings.cohort.update_norm_max,
               .norm_ratio_max = office_.options.settings.cohort.update_norm_ratio_max,
               .norm_median = median_norm_,
               .store = &office_.env.store,
               .delta = round_->plan().delta};
  const Nanos began = office_.env.clock.Now();
  Submit<AdmitJob>(office_.env.executor, std::move(job), Nanos{0}, std::make_shared<JobControl>(),
                   [this, client, upload, began,
                    alive = std::weak_ptr(bundles_->alive())](Result<AdmitJob::Output> admitted) {
                     if (alive.expired() || office_.over()) return;
                     desks_[client].checking = false;
                     if (stage_ != Stage::kCollecting) return;
                     const Status verdict = admitted.ok() ? admitted->verdict : admitted.status();
                     if (!verdict.ok()) return Refuse(client, verdict);
                     Pass(Failpoint::kUpdateAdmitted);
                     Accept(client, upload, admitted->update_norm,
                            ToSeconds(office_.env.clock.Now() - began));
                   });
}

void RoundRunner::Accept(const ClientId& client, const Upload& upload, double update_norm,
                         double admit_s) {
  // From here on it counts, so the ledger can never hold an update that the round did not merge;
  // the client hears of it when it is durable.
  const RoundId round = round_->plan().round;
  const RoundId asked = Asked(*round_->Find(client));
  const SpooledUpdate update{.header = round_->Find(client)->update.header,
                             .blob = upload.blob,
                             .update_norm = update_norm};
  round_->Accept(client, update, office_.env.clock.Now());
  const UpdateAccepted event{
      .header = update.header,
      .blob = update.blob,
      .update_norm = update_norm,
      .admit_s = admit_s,
      .upload_s = upload.upload_s,
      .bytes = upload.wire_bytes,
      .lora_bytes =
          Measures(round_->plan().training)
              ? 0
              : PlainLoraUpdateBytes(update.header.spec, office_.sites, office_.options.base.sites),
      .round = round};
  start_.accepted[client] = event;
  office_.Record({event}, [this, client, asked] {
    Pass(Failpoint::kUpdateRecorded);
    if (office_.over()) return;
    desks_[client].recorded = true;
    TellAccepted(client, asked);
    Pass(Failpoint::kVerdictSent);
  });
  office_.env.log.Info("update accepted", {{"round", round},
                                           {"client", client},
                                           {"asked_in", asked},
                                           {"rank", update.header.spec.rank},
                                           {"examples", update.header.num_examples},
                                           {"train_loss", update.header.train_loss},
                                           {"bytes", upload.payload.bytes}});
  Judge();
}

void RoundRunner::Refuse(const ClientId& client, const Status& why) {
  const RoundId round = round_->plan().round;
  const RoundId asked = Asked(*round_->Find(client));
  round_->Settle(client, Standing::kRefused, why.message());
  office_.env.log.Warn("update refused", {{"round", round}, {"client", client}, {"why", why}});
  office_.Record({UpdateRefused{.round = round,
                                .client = client,
                                .code = std::string(CodeName(why.code())),
                                .reason = why.message()}});
  office_.env.store.RemoveBlob(SpoolName(asked, client), [](const Status&) {});
  Verdict(client, asked, why);
  Judge();
}

// ---- closing ----

void RoundRunner::Tick() {
  if (stage_ != Stage::kCollecting) return;
  const Nanos now = office_.env.clock.Now();
  const Nanos patience = Seconds(office_.options.settings.server.gone_after_s);
  for (const ClientId& client : round_->LongAway(now, patience)) {
    const std::string& why = desks_[client].gone_because;
    Drop(client, Standing::kDropped, why.empty() ? "it did not join again in time" : why);
  }
  if (now - reported_ >= kReportEvery) {
    reported_ = now;
    office_.env.log.Info(
        "round waits for updates",
        {{"round", round_->plan().round},
         {"for", Names(round_->Awaited())},
         {"accepted", round_->CountOf(Standing::kAccepted)},
         {"left_s", round_->plan().deadline_s - ToSeconds(now - round_->opened())}});
  }
  Judge();
}

void RoundRunner::Judge() {
  if (stage_ != Stage::kCollecting) return;
  switch (round_->Judge(office_.options.settings.cohort, office_.env.clock.Now())) {
    case OpenRound::Decision::kWait:
      return;
    case OpenRound::Decision::kClose:
      return Close();
    case OpenRound::Decision::kMiss:
      return Miss();
  }
}

// Will its update count in the next round?
bool RoundRunner::MayComeLate(const Seat& seat) const {
  const RoundPlan& plan = round_->plan();
  const uint32_t late = plan.round.number + 1 - Asked(seat).number;
  return !Measures(plan.training) && late <= plan.max_staleness &&
         plan.round.number < plan.num_server_rounds;
}

void RoundRunner::SendHome(const std::string& reason) {
  for (const ClientId& client : round_->Awaited()) {
    const Seat& seat = *round_->Find(client);
    const RoundId asked = Asked(seat);
    if (MayComeLate(seat)) {
      carried_[client] = seat.plan;
      carried_[client].asked = asked;
      continue;
    }
    Drop(client, Standing::kDropped, reason);
    office_.Send(client, RoundClosed{.round = asked, .reason = reason});
  }
  uploads_.CancelAll();
  downloads_.ForbidAll(Downloads::Use::kTrain);
}

void RoundRunner::Miss() {
  const std::string reason =
      Str("round ", round_->plan().round, " missed its quorum of ",
          round_->QuorumSize(office_.options.settings.cohort), ": ", round_->Describe());
  office_.env.log.Warn(
      "round missed its quorum",
      {{"round", round_->plan().round}, {"attempt", round_->attempt()}, {"why", reason}});
  EndMissed("the round closed without its quorum", reason, [this, reason] {
    if (!office_.over()) outcomes_.missed(reason);
  });
}

void RoundRunner::CallOff(const std::string& reason) {
  if (stage_ == Stage::kCutting) return Abandon();
  if (stage_ != Stage::kCollecting) return;
  office_.env.log.Warn("round called off", {{"round", round_->plan().round}, {"why", reason}});
  EndMissed(reason, reason, [] {});
}

void RoundRunner::EndMissed(const std::string& told, const std::string& reason,
                            std::function<void()> then) {
  SendHome(told);
  stage_ = Stage::kIdle;
  const RoundMissed event{
      .round = round_->plan().round, .attempt = round_->attempt(), .reason = reason};
  round_.reset();
  bundles_.reset();
  office_.Record({event}, std::move(then));
}

void RoundRunner::Close() {
  SendHome("the round closed before the update came");
  stage_ = Stage::kMerging;
  bundles_.reset();
  Pass(Failpoint::kRoundClosed);
  office_.env.log.Info("round closed", {{"round", round_->plan().round},
                                        {"accepted", round_->CountOf(Standing::kAccepted)},
                                        {"go_on", carried_.size()},
                                        {"of", round_->seats().size()}});
  if (Measures(round_->plan().training)) return Fit();
  if (start_.forward) return Forward();
  Merge();
}

void RoundRunner::Merge() {
  const Settings& settings = office_.options.settings;
  MergeJob job = MakeMergeJob(settings, round_->plan(), office_.state_blob, round_->Updates(),
                              office_.env.store);
  start_.state = Blob();  // the merge maps it from the store
  Submit<MergeJob>(office_.env.executor, std::move(job), Nanos{0}, std::make_shared<JobControl>(),
                   [this](Result<MergeJob::Output> merged) {
                     if (office_.over() || stage_ != Stage::kMerging) return;
                     Pass(Failpoint::kRoundMerged);
                     const RoundId round = round_->plan().round;
                     if (!merged.ok()) {
                       return office_.GiveUp(merged.status().Within(Str("[merge] round ", round)));
                     }
                     NewVersion version{.version = round,
                                        .state = std::move(merged->state),
                                        .adapter_sha256 = std::move(merged->adapter_sha256),
                                        .certificate = std::move(merged->certificate),
                                        .kernels = std::move(merged->kernels),
                                        .merge_s = merged->merge_s,
                                        .updates_kept = office_.options.settings.run.keep_updates};
                     publisher_.Publish(std::move(version), {}, [this] {
                       NoteTaken();
                       ForgetMerged();
                       RemoveSpool(/*keep_merged=*/true);
                       if (!office_.options.settings.run.keep_updates) {
                         for (const SpooledUpdate& update : round_->Updates()) {
                           merged_blobs_.push_back(update.blob);
                         }
                       }
                       Pass(Failpoint::kSpoolRemoved);
                       start_.accepted.clear();  // they are in this version, never in the next
                       stage_ = Stage::kIdle;
                       round_.reset();
                       outcomes_.published();
                     });
                   });
}

// Whose updates the merge took.
void RoundRunner::NoteTaken() {
  merged_last_ = round_->plan().round;
  taken_last_.clear();
  std::vector<double> norms;
  for (const SpooledUpdate& update : round_->Updates()) {
    taken_last_[update.header.client] = {update.header.round, update.header.payload_sha256};
    norms.push_back(update.update_norm);
  }
  SetNorms(std::move(norms));
}

void RoundRunner::Forward() {
  ForwardJob job{.round = MakeMergeJob(office_.options.settings, round_->plan(), office_.state_blob,
                                       round_->Updates(), office_.env.store),
                 .spec = *start_.forward,
                 .rank = office_.options.settings.relay.rank};
  start_.state = Blob();
  Submit<ForwardJob>(office_.env.executor, std::move(job), Nanos{0}, std::make_shared<JobControl>(),
                     [this](const Result<ForwardJob::Output>& update) {
                       if (office_.over() || stage_ != Stage::kMerging) return;
                       Pass(Failpoint::kRoundMerged);
                       NoteTaken();
                       stage_ = Stage::kIdle;
                       round_.reset();
                       outcomes_.forwarded(update);
                     });
}

void RoundRunner::Fit() {
  FitJob job{.strategy = office_.options.settings.strategy.name,
             .precision = office_.options.settings.laplace.precision,
             .state_blob = office_.state_blob,
             .updates = round_->Updates(),
             .store = &office_.env.store};
  start_.state = Blob();
  Submit<FitJob>(
      office_.env.executor, std::move(job), Nanos{0}, std::make_shared<JobControl>(),
      [this](Result<FitJob::Output> fitted) {
        if (office_.over() || stage_ != Stage::kMerging) return;
        if (!fitted.ok()) {
          return office_.GiveUp(fitted.status().Within(Str("[laplace] version ", office_.version)));
        }
        RecordPosterior(std::move(*fitted));
      });
}

void RoundRunner::RecordPosterior(FitJob::Output fitted) {
  const PosteriorFitted event{.round = round_->plan().round,
                              .version = office_.version,
                              .file = {.name = PosteriorBlobName(office_.version),
                                       .bytes = fitted.file.size(),
                                       .sha256 = std::move(fitted.sha256)},
                              .precision = fitted.precision,
                              .log_marginal = fitted.log_marginal,
                              .log_likelihood = fitted.log_likelihood,
                              .examples = fitted.examples,
                              .clients = std::move(fitted.clients),
                              .fit_s = fitted.fit_s};
  office_.env.store.WriteBlob(
      event.file.name, std::move(fitted.file), [this, event](const Status& status) {
        if (office_.over()) return;
        if (!status.ok()) return office_.GiveUp(status.Within("[laplace] the posterior"));
        office_.env.log.Info("posterior fitted", {{"version", event.version},
                                                  {"precision", event.precision},
                                                  {"log_marginal", event.log_marginal},
                                                  {"examples", event.examples},
                                                  {"sites", event.clients.size()}});
        office_.Record({event}, [this] {
          if (office_.over()) return;
          RemoveSpool(false);  // the posterior's file has their sum
          start_.accepted.clear();
          stage_ = Stage::kIdle;
          round_.reset();
          outcomes_.measured();
        });
      });
}

void RoundRunner::ForgetMerged() {
  for (const std::string& blob : std::exchange(merged_blobs_, {})) {
    office_.env.store.RemoveBlob(blob, [](const Status&) {});
  }
}

void RoundRunner::RemoveSpool(bool keep_merged) {
  for (const auto& [client, seat] : round_->seats()) {
    if (keep_merged && seat.standing == Standing::kAccepted) continue;
    if (carried_.contains(client)) continue;  // part of it may be here already
    office_.env.store.RemoveBlob(SpoolName(Asked(seat), client), [](const Status&) {});
  }
}

}  // namespace weft
