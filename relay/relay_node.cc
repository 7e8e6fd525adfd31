#include "relay/relay_node.h"

#include <optional>
#include <utility>

#include "aggregator/aggregator_node.h"
#include "aggregator/relay_course.h"
#include "client/client_node.h"
#include "client/jobs.h"
#include "common/base/check.h"
#include "common/base/str.h"

namespace weft {
namespace {

constexpr Nanos kLookAt = std::chrono::milliseconds(200);

// Has the members do what the client above is asked to compute.
class MembersExecutor final : public Executor {
 public:
  MembersExecutor(Clock& clock, RelayCourse& members) : clock_(clock), members_(members) {}

  void SubmitAny(std::any job, Nanos, std::shared_ptr<JobControl> control,
                 std::function<void(std::any)> done) override {
    if (TrainJob* train = std::any_cast<TrainJob>(&job)) {
      return members_.Train({.plan = std::move(train->plan),
                             .bundle = std::move(train->bundle),
                             .bundle_sha256 = std::move(train->bundle_sha256),
                             .control = std::move(control)},
                            [this, done = std::move(done)](const Result<RelayedUpdate>& update) {
                              Deliver(done, AsTrained(update));
                            });
    }
    ClientEvaluateJob* evaluate = std::any_cast<ClientEvaluateJob>(&job);
    WEFT_CHECK(evaluate != nullptr, "a client asks for ", job.type().name());
    members_.Evaluate({.version = evaluate->version,
                       .bundle = std::move(evaluate->bundle),
                       .control = std::move(control)},
                      [this, done = std::move(done)](Result<EvalReport> report) {
                        Deliver(done, std::move(report));
                      });
  }

 private:
  static Result<TrainJob::Output> AsTrained(Result<RelayedUpdate> update) {
    if (!update.ok()) return update.status();
    return TrainJob::Output{.header = std::move(update->header),
                            .payload = std::move(update->payload),
                            .local_state = {}};
  }
  // A result comes from the loop, never from within the call that asked for it.
  template <typename T>
  void Deliver(const std::function<void(std::any)>& done, Result<T> result) {
    clock_.At(clock_.Now(), [done, result = std::move(result), alive = std::weak_ptr(alive_)] {
      if (!alive.expired()) done(std::any(result));
    });
  }

  Clock& clock_;
  RelayCourse& members_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// How the run ends below when it has ended above.
std::string StateOf(const Status& outcome) {
  if (outcome.ok()) return kRunCompleted;
  return outcome.code() == Code::kCancelled ? kRunStopped : kRunFailed;
}

}  // namespace

struct RelayNode::Impl {
  Impl(Env below_in, std::function<Result<Env>()> link_in, RelayOptions options)
      : clock(below_in.clock),
        log(below_in.log),
        link(std::move(link_in)),
        above_options(std::move(options.above)),
        below(below_in, std::move(options.below), [this](Office& office) {
          auto made = std::make_unique<RelayCourse>(
              office, RelayCourse::Hooks{.gathered = [this] { JoinAbove(); },
                                         .ended = [this] { ended_below = true; }});
          course = made.get();
          return made;
        }) {}

  void JoinAbove();
  void Look();
  void SetLook() {
    timer = clock.At(clock.Now() + kLookAt, [this] { Look(); });
  }
  [[nodiscard]] bool Over() const { return below.Finished() && (!above || above->Finished()); }

  Clock& clock;
  log::Logger& log;
  std::function<Result<Env>()> link;
  ClientOptions above_options;
  RelayCourse* course = nullptr;  // owned by `below`
  AggregatorNode below;
  std::optional<MembersExecutor> executor;
  std::unique_ptr<ClientNode> above;
  TimerId timer;
  bool ended_below = false;
  Status link_failed;
};

void RelayNode::Impl::JoinAbove() {
  above_options.offer = course->Offer();
  log.Info("joining the aggregator above", {{"members", above_options.offer.members},
                                            {"rank", above_options.offer.rank_max},
                                            {"examples", above_options.offer.num_examples}});
  executor.emplace(clock, *course);
  Result<Env> env = link();
  link_failed = env.status();
  if (env.ok()) {
    above = std::make_unique<ClientNode>(
        Env{env->clock, env->transport, *executor, env->store, env->entropy, env->log},
        above_options);
    link_failed = above->Start();
  }
  if (!link_failed.ok()) below.Stop(link_failed);
}

// Whichever of the two ends first, the other follows.
void RelayNode::Impl::Look() {
  if (above && above->Finished() && !course->ended()) {
    const Status outcome = above->Outcome();
    course->End(StateOf(outcome), outcome.ok() ? "the run above is completed" : outcome.message());
  }
  if (ended_below && above && !above->Finished()) {
    above->Stop(below.Outcome().ok() ? Cancelled("the relay has ended") : below.Outcome());
  }
  if (!Over()) SetLook();
}

RelayNode::RelayNode(Env below, std::function<Result<Env>()> link, RelayOptions options)
    : impl_(std::make_unique<Impl>(below, std::move(link), std::move(options))) {}

RelayNode::~RelayNode() { impl_->clock.Cancel(impl_->timer); }

Status RelayNode::Start() {
  impl_->SetLook();
  return impl_->below.Start();
}

void RelayNode::Stop(const Status& why) {
  if (impl_->above) impl_->above->Stop(why);
  impl_->below.Stop(why);
}

bool RelayNode::Finished() const { return impl_->Over(); }

Status RelayNode::Outcome() const {
  if (!impl_->link_failed.ok()) return impl_->link_failed;
  if (!impl_->below.Outcome().ok()) return impl_->below.Outcome();
  return impl_->above ? impl_->above->Outcome() : OkStatus();
}

bool RelayNode::Refused() const { return impl_->above && impl_->above->Refused(); }

}  // namespace weft
