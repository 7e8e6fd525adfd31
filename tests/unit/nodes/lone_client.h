#pragma once
// LoneClient: one real client and a hand in the place of its aggregator: a test says what the
// client hears and looks at what it says. Work waits until the test releases it.

#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "client/client_node.h"
#include "client/jobs.h"
#include "common/base/random.h"
#include "common/crypto/digest.h"
#include "common/runtime/memory_store.h"
#include "common/wire/message_codec.h"
#include "common/wire/payload.h"
#include "tests/unit/nodes/fake_world.h"

namespace weft::testing {

class LoneClient : private Transport, private Executor {
 public:
  explicit LoneClient(const std::string& name = "alpha", uint64_t seed = 7)
      : entropy_(RandomStream::Derive(seed, {name})),
        log_(
            name, log_lines, [this] { return clock.WallMicros(); }, log::Level::kDebug),
        store_({.post = [this](std::function<void()> task) { queue_.push_back(std::move(task)); },
                .wall_us = [this] { return clock.WallMicros(); },
                .fault = {}}) {
    base.hash = Sha256Hex(AsBytes("the base model"));
    base.sites = {{"layers.0.q_proj", 8, 8}};
    ClientOptions options;
    options.name = ClientId{name};
    options.base = base;
    options.offer.rank_max = 8;
    options.offer.num_examples = 10;
    options.offer.eval_examples = 5;
    options.offer.methods = {"lora"};
    options.offer.codecs = {"float32"};
    node = std::make_unique<ClientNode>(Env{clock, *this, *this, store_, entropy_, log_},
                                        std::move(options));
  }

  ~LoneClient() override { node.reset(); }
  LoneClient(const LoneClient&) = delete;
  LoneClient& operator=(const LoneClient&) = delete;

  /// Starts it and lets it say hello.
  void Start() {
    started_ = node->Start().ok();
    Settle();
  }

  // ---- what it hears ----
  void Hears(const Message& message, const Blob& chunk = {}) {
    HearsRaw(EncodeMessage(message), chunk);
  }
  void HearsRaw(const Blob& control, const Blob& chunk = {}) {
    node->OnFrames(kAggregator, {control, chunk});
    Settle();
  }
  void HearsWelcome(uint32_t version = 0) {
    Hears(Welcome{.run = RunId{"run"},
                  .version = RoundId{version},
                  .num_server_rounds = 5,
                  .heartbeat_ms = 1000,
                  .gone_after_ms = 10000});
  }
  void LosesLink(const Status& why = Unavailable("cable pulled")) {
    node->OnPeerGone(kAggregator, why);
    Settle();
  }
  /// Sends the chunks that were last asked for.
  void Serves(const Blob& payload) {
    PayloadSender sender(OfferOf(payload), payload);
    std::vector<Frames> frames;
    for (const ChunkRequest& request : Take<ChunkRequest>()) (void)sender.Ask(request).ok();
    (void)sender.Pump([&](Frames chunk) {
      frames.push_back(std::move(chunk));
      return OkStatus();
    });
    for (const Frames& chunk : frames) HearsRaw(chunk.control, chunk.chunk);
  }

  // ---- what it says ----
  /// Messages of that kind since the last Take of it, in order; they are taken away.
  template <typename M>
  std::vector<M> Take() {
    std::vector<M> taken;
    std::erase_if(said, [&](const Message& message) {
      const M* found = std::get_if<M>(&message);
      if (found != nullptr) taken.push_back(*found);
      return found != nullptr;
    });
    return taken;
  }
  /// What its newest heartbeat says it does; one is provoked by time.
  std::string Phase() {
    RunFor(1.1);
    const std::vector<Heartbeat> beats = Take<Heartbeat>();
    return beats.empty() ? "silent" : beats.back().phase;
  }

  // ---- time and work ----
  void RunFor(double seconds) {
    const Nanos limit = clock.Now() + Seconds(seconds);
    Settle();
    while (clock.Step(limit)) Settle();
    clock.At(limit, [] {});  // the clock only moves with timers
    while (clock.Step(limit)) Settle();
  }
  [[nodiscard]] size_t jobs_waiting() const { return jobs_.size(); }
  /// Does the oldest waiting job: training gives an update of that content.
  void Works(Result<std::string> update = std::string("an update")) {
    auto [job, control, done] = std::move(jobs_.front());
    jobs_.pop_front();
    if (const auto* train = std::any_cast<TrainJob>(&job)) {
      trained.push_back(*train);
      done(std::any(control->cancelled ? Result<TrainJob::Output>(Cancelled("stopped"))
                                       : Trained(*train, update)));
    } else if (const auto* evaluate = std::any_cast<ClientEvaluateJob>(&job)) {
      EvalReport report;
      report.loss = 1.5;
      report.label_tokens = evaluate->version.number + 10;
      done(std::any(Result<EvalReport>(report)));
    }
    Settle();
  }

  BaseDescription base;
  ManualClock clock;
  std::shared_ptr<log::MemorySink> log_lines = std::make_shared<log::MemorySink>();
  std::vector<Message> said;
  std::vector<TrainJob> trained;
  std::unique_ptr<ClientNode> node;
  bool link = true;  // false: what it sends is refused

 private:
  struct Job {
    std::any job;
    std::shared_ptr<JobControl> control;
    std::function<void(std::any)> done;
  };

  static Result<TrainJob::Output> Trained(const TrainJob& job, Result<std::string>& update) {
    if (!update.ok()) return update.status();
    TrainJob::Output output;
    output.payload = Blob::Adopt(std::move(update).value());
    output.header.spec = job.plan.cohort.front().adapter;
    output.header.codec = job.plan.codec;
    output.header.num_examples = 10;
    output.header.payload_bytes = output.payload.size();
    output.header.payload_sha256 = Sha256Hex(output.payload.span());
    return output;
  }
  void Settle() {
    while (!queue_.empty()) {
      const std::function<void()> task = std::move(queue_.front());
      queue_.pop_front();
      task();
    }
  }

  void SetReceiver(Receiver* /*receiver*/) override {}
  Status Send(const ClientId& /*to*/, Frames frames) override {
    if (!link) return Unavailable("no link");
    Result<Message> message = DecodeMessage(frames.control);
    WEFT_CHECK(message.ok(), message.status());
    said.push_back(std::move(*message));
    return OkStatus();
  }
  void Cut(const ClientId& /*peer*/, const Status& /*why*/) override {}
  void SubmitAny(std::any job, Nanos /*cost*/, std::shared_ptr<JobControl> control,
                 std::function<void(std::any)> done) override {
    jobs_.push_back({std::move(job), std::move(control), std::move(done)});
  }

  std::deque<std::function<void()>> queue_;
  std::deque<Job> jobs_;
  RandomStream entropy_;
  log::Logger log_;
  MemoryStore store_;
  bool started_ = false;
};

/// What an aggregator would offer `client`: that round, the bundle's name.
[[nodiscard]] inline RoundOffer OfferTo(const LoneClient& client, const Blob& bundle,
                                        uint32_t round = 1) {
  RoundOffer offer;
  offer.plan.run = RunId{"run"};
  offer.plan.round = RoundId{round};
  offer.plan.version = RoundId{round - 1};
  offer.plan.base_hash = client.base.hash;
  offer.plan.strategy = "fedavg";
  ClientPlan plan{.client = ClientId{"alpha"}, .adapter = {}};
  plan.adapter.rank = 4;
  offer.plan.cohort = {plan};
  offer.payload = OfferOf(bundle);
  return offer;
}

}  // namespace weft::testing
