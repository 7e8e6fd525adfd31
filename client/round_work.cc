#include "client/round_work.h"

#include <algorithm>
#include <utility>

#include "client/client_events.h"
#include "common/base/failpoint.h"
#include "common/base/limits.h"
#include "common/base/str.h"

namespace weft {
namespace {

// An offer or its answer can be lost with a link; the aggregator takes a repeated one as one.
constexpr Nanos kOfferAgainAfter = std::chrono::seconds(10);
constexpr Nanos kPumpAgainAfter = std::chrono::milliseconds(20);

}  // namespace

RoundWork::RoundWork(ClientContext& context)
    : context_(context), disk_(context), download_(context) {}

RoundWork::~RoundWork() { context_.env.clock.Cancel(pump_timer_); }

// ---- the offer ----

Status RoundWork::CheckOffer(const RoundOffer& offer) const {
  const RoundPlan& plan = offer.plan;
  const auto check = [&]() -> Status {
    if (plan.run != context_.welcome.run) {
      return FailedPrecondition(
          Str("run: got ", plan.run, ", wanted ", context_.welcome.run, " as welcomed"));
    }
    if (plan.base_hash != context_.options.base.hash) {
      return FailedPrecondition(Str("base model: got ", plan.base_hash.substr(0, 16), "…, wanted ",
                                    context_.options.base.hash.substr(0, 16), "…"));
    }
    if (plan.cohort.size() != 1 || plan.cohort.front().client != context_.options.name) {
      return InvalidArgument("cohort: wanted this client's entry alone");
    }
    const int64_t rank = plan.cohort.front().adapter.rank;
    const int64_t most =
        context_.options.offer.rank_max > 0 ? context_.options.offer.rank_max : limits::kRankMax;
    if (rank < 1 || rank > most) {
      return InvalidArgument(Str("rank: got ", rank, ", wanted 1 to ", most, " as offered"));
    }
    return OkStatus();
  };
  const Status status = check();
  return status.ok() ? status : status.Within(Str("[round ", plan.round, "] plan"));
}

bool RoundWork::SameWork(const RoundOffer& offer) const {
  return offer.plan.run == offer_.plan.run && offer.plan.round == offer_.plan.round &&
         offer.plan.version == offer_.plan.version && offer.plan.cohort == offer_.plan.cohort &&
         offer.payload == offer_.payload;
}

void RoundWork::OnOffer(const RoundOffer& offer) {
  // Rounds only go up while a session lasts; an aggregator that goes back (its folder was restored)
  // welcomes everybody anew.
  if (offer.plan.round < newest_offer_) {
    context_.env.log.Debug("an offer that came late is ignored",
                           {{"round", offer.plan.round}, {"newest", newest_offer_}});
    return;
  }
  if (stage_ != Stage::kIdle && SameWork(offer)) {
    if (stage_ == Stage::kPulling) download_.OfferedAgain();
    if (stage_ == Stage::kOffering) SendOffer();
    return;
  }
  Drop();
  offer_ = offer;
  Pass(Failpoint::kOfferHeard);
  if (const Status status = CheckOffer(offer); !status.ok()) return Fail(status);
  Begin(offer);
}

void RoundWork::Begin(const RoundOffer& offer) {
  ++work_;
  newest_offer_ = offer.plan.round;
  began_ = context_.env.clock.Now();
  times_ = PhaseTimes{.wait_s = ToSeconds(began_ - idle_since_)};
  context_.env.log.Info("round offered", {{"round", offer.plan.round},
                                          {"rank", offer.plan.cohort.front().adapter.rank},
                                          {"bytes", offer.payload.bytes}});
  if (TakeKept()) return OfferUpdate();
  stage_ = Stage::kPulling;
  context_.SetPhase(offer.plan.round, "download", nullptr);
  download_.Start(offer.payload, [this](Result<Blob> bundle) {
    if (!bundle.ok()) return Fail(bundle.status());
    times_.download_s = ToSeconds(context_.env.clock.Now() - began_);
    Pass(Failpoint::kBundlePulled);
    Train(std::move(*bundle));
  });
}

bool RoundWork::TakeKept() {
  std::optional<KeptUpdate> kept = disk_.Load();
  if (!kept) return false;
  const RoundPlan& plan = offer_.plan;
  const UpdateHeader& header = kept->header;
  if (header.run != plan.run || header.round != plan.round || header.version != plan.version ||
      header.base_hash != plan.base_hash || header.codec != plan.codec ||
      header.spec != plan.cohort.front().adapter || kept->bundle_sha256 != offer_.payload.sha256) {
    disk_.Forget();
    return false;
  }
  context_.env.log.Info("update of before is offered again", {{"round", plan.round}});
  update_ = std::move(kept);
  return true;
}

// ---- training ----

Nanos RoundWork::ModelledCost() const {
  const LocalTraining& training = offer_.plan.training;
  const int64_t batch = std::max<int64_t>(training.batch_size, 1);
  const auto rows = static_cast<int64_t>(context_.options.offer.num_examples);
  const int64_t steps = training.local_steps > 0
                            ? training.local_steps
                            : training.local_epochs * ((rows + batch - 1) / batch);
  return context_.options.step_cost * steps;
}

void RoundWork::Train(Blob bundle) {
  stage_ = Stage::kTraining;
  control_ = std::make_shared<JobControl>();
  context_.SetPhase(offer_.plan.round, "train", control_);
  TrainJob job{.plan = offer_.plan,
               .client = context_.options.name,
               .bundle = std::move(bundle),
               .bundle_sha256 = offer_.payload.sha256,
               .local_state = disk_.LocalStateBefore(offer_.plan.run, offer_.plan.round)};
  const Nanos began = context_.env.clock.Now();
  Submit<TrainJob>(context_.env.executor, std::move(job), ModelledCost(), control_,
                   [this, began, work = work_](Result<TrainJob::Output> trained) {
                     if (context_.over() || work != work_) return;
                     OnTrained(std::move(trained), began);
                   });
}

void RoundWork::OnTrained(Result<TrainJob::Output> trained, Nanos began) {
  control_.reset();
  if (!trained.ok()) return Fail(trained.status());
  Pass(Failpoint::kUpdateTrained);
  const RoundPlan& plan = offer_.plan;
  times_.train_s = ToSeconds(context_.env.clock.Now() - began);
  UpdateHeader& header = trained->header;
  header.run = plan.run;
  header.round = plan.round;
  header.version = plan.version;
  header.client = context_.options.name;
  header.base_hash = plan.base_hash;
  header.times = times_;
  update_ = KeptUpdate{.header = header,
                       .bundle_sha256 = offer_.payload.sha256,
                       .payload = std::move(trained->payload)};
  stage_ = Stage::kKeeping;
  context_.env.log.Info("trained", {{"round", plan.round},
                                    {"steps", header.steps},
                                    {"examples", header.num_examples},
                                    {"train_loss", header.train_loss},
                                    {"train_s", times_.train_s}});
  context_.Record(ClientTrainedEvent(header));
  disk_.Keep(*update_, trained->local_state, [this, work = work_](const Status& status) {
    if (work != work_) return;
    if (!status.ok()) return Fail(status.Within("[client] the update cannot be kept"));
    Pass(Failpoint::kUpdateKept);
    OfferUpdate();
  });
}

// ---- the update ----

void RoundWork::OfferUpdate() {
  stage_ = Stage::kOffering;
  sender_.emplace(PayloadOffer{.sha256 = update_->header.payload_sha256,
                               .bytes = update_->header.payload_bytes},
                  update_->payload);
  context_.SetPhase(offer_.plan.round, "upload", nullptr);
  SendOffer();
}

void RoundWork::SendOffer() {
  offered_ = context_.env.clock.Now();
  if (!context_.joined) return;
  context_.Send(UpdateOffer{.header = update_->header, .payload = sender_->offer()});
  Pass(Failpoint::kUpdateOfferSent);
}

Status RoundWork::OnChunkRequest(const ChunkRequest& request) {
  if (!sender_ || sender_->offer().sha256 != request.sha256) return OkStatus();  // of a past round
  offered_ = context_.env.clock.Now();
  if (!sender_->Ask(request).ok()) {
    sender_->Reset();  // the newest request counts: the others were lost with a link
    WEFT_TRY(sender_->Ask(request));
  }
  Pump();
  return OkStatus();
}

void RoundWork::Pump() {
  if (!sender_) return;
  const Status status = sender_->Pump([this](Frames frames) {
    return context_.env.transport.Send(kAggregator, std::move(frames));
  });
  if (!status.ok()) context_.env.log.Debug("chunks not sent", {{"why", status}});
  Pass(Failpoint::kChunksSent);
  context_.env.clock.Cancel(pump_timer_);
  if (sender_->idle()) return;
  pump_timer_ =
      context_.env.clock.At(context_.env.clock.Now() + kPumpAgainAfter, [this] { Pump(); });
}

void RoundWork::OnVerdict(const UpdateVerdict& verdict) {
  if (stage_ != Stage::kOffering || verdict.round != offer_.plan.round) return;
  const bool accepted = verdict.code == Code::kOk;
  Pass(Failpoint::kVerdictHeard);
  if (accepted) {
    context_.env.log.Info("update accepted", {{"round", verdict.round}});
  } else {
    context_.env.log.Warn(
        "update refused",
        {{"round", verdict.round}, {"code", CodeName(verdict.code)}, {"why", verdict.reason}});
  }
  context_.Record(
      ClientRoundEvent(verdict.round, accepted ? "accepted" : "refused", verdict.reason));
  disk_.Forget();
  Pass(Failpoint::kUpdateForgotten);
  Drop();
}

void RoundWork::OnClosed(const RoundClosed& closed) {
  if (stage_ == Stage::kIdle || closed.round != offer_.plan.round) return;
  context_.env.log.Warn("round closed without this client",
                        {{"round", closed.round}, {"why", closed.reason}});
  context_.Record(ClientRoundEvent(closed.round, "closed", closed.reason));
  // The update stays on disk: if the round missed its quorum it is offered again in the next try.
  Drop();
}

void RoundWork::Fail(const Status& why) {
  const RoundId round = offer_.plan.round;
  Drop();
  if (why.code() == Code::kCancelled) return;
  context_.env.log.Error("round failed here", {{"round", round}, {"why", why}});
  context_.Record(ClientRoundEvent(round, "failed", why.ToString()));
  context_.Send(RoundFailed{.round = round, .code = why.code(), .reason = why.message()});
}

void RoundWork::Drop() {
  if (control_) control_->cancelled = true;
  control_.reset();
  download_.Stop();
  sender_.reset();
  update_.reset();
  context_.env.clock.Cancel(pump_timer_);
  if (stage_ == Stage::kIdle) return;
  ++work_;
  stage_ = Stage::kIdle;
  idle_since_ = context_.env.clock.Now();
  context_.SetPhase(RoundId{}, "wait", nullptr);
}

// ---- the link ----

void RoundWork::OnJoined() {
  newest_offer_ = {};
  if (stage_ == Stage::kIdle) return;
  if (context_.welcome.run != offer_.plan.run ||
      context_.welcome.version.number >= offer_.plan.round.number + offer_.plan.max_staleness) {
    context_.env.log.Warn("the round went on without this client",
                          {{"round", offer_.plan.round}, {"version", context_.welcome.version}});
    Drop();
  } else if (stage_ == Stage::kPulling) {
    download_.AskAgain();
  } else if (stage_ == Stage::kOffering) {
    SendOffer();
  }
}

void RoundWork::OnLost() {
  if (sender_) sender_->Reset();
}

void RoundWork::Tick() {
  download_.Tick();
  if (stage_ == Stage::kOffering && sender_->idle() &&
      context_.env.clock.Now() - offered_ > kOfferAgainAfter) {
    SendOffer();
  }
}

void RoundWork::Stop() {
  if (control_) control_->cancelled = true;
  download_.Stop();
  context_.env.clock.Cancel(pump_timer_);
}

}  // namespace weft
