#include "cli/load_probe.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <utility>

#include <poll.h>

#include "common/base/str.h"
#include "common/net/zmq_client.h"
#include "common/wire/message_codec.h"

namespace weft::cli {
namespace {

constexpr double kBeatEvery_s = 0.02;
constexpr double kJoinEvery_s = 0.25;
constexpr double kTryEvery_s = 0.001;
// A newcomer that is not welcomed within this counts as having taken as long.
constexpr double kJoinPatience_s = 10;

Result<std::unique_ptr<ZmqClient>> Connect(EventLoop& loop, const BenchPlan& plan, size_t index,
                                           const std::string& endpoint) {
  ZmqClient::Options options;
  options.endpoint = endpoint;
  const KeyPair& keys = plan.clients[index];
  options.keys = {keys.public_key, SecureBytes(AsBytes(keys.secret_key.view()))};
  options.server_key = plan.server.public_key;
  options.linger = Seconds(0.5);
  return ZmqClient::Connect(loop, std::move(options));
}

void Report(const Pipes& pipes, const std::vector<LoadSample>& samples) {
  for (const LoadSample& sample : samples) {
    char bytes[sizeof(LoadSample)];
    std::memcpy(bytes, &sample, sizeof(sample));
    pipes.Write({bytes, sizeof(bytes)});
  }
}

bool HasLine(const Pipes& pipes) {
  pollfd fd{pipes.commands, POLLIN, 0};
  return ::poll(&fd, 1, 0) > 0;
}

/// A member that takes no part in rounds: hello until it is welcomed, and whatever it is told to
/// say.
class Visitor : public Transport::Receiver {
 public:
  Visitor(const BenchPlan& plan, size_t index) : options_(BenchClientOptions(plan, index)) {
    options_.offer.num_examples = 0;
  }

  void Attach(std::unique_ptr<ZmqClient> link) {
    link_ = std::move(link);
    link_->SetReceiver(this);
  }
  void Leave() {
    Say(Goodbye{.reason = "seen enough"});
    link_.reset();
    welcomed_ = false;
  }

  bool Say(const Message& message) {
    return link_->Send(kAggregator, {.control = EncodeMessage(message), .chunk = {}}).ok();
  }
  bool SayHello() {
    return Say(Hello{.base_hash = options_.base.hash,
                     .sites = options_.base.sites,
                     .capabilities = options_.offer});
  }

  [[nodiscard]] bool welcomed() const { return welcomed_; }
  [[nodiscard]] bool over() const { return over_; }
  std::function<void(const Heartbeat& echo)> on_echo;

  void OnFrames(const ClientId& /*from*/, Frames frames) override {
    const Result<Message> message = DecodeMessage(frames.control);
    if (!message.ok()) return;
    if (std::holds_alternative<Welcome>(*message)) welcomed_ = true;
    if (std::holds_alternative<Refusal>(*message)) welcomed_ = false;
    if (const auto* echo = std::get_if<Heartbeat>(&*message); echo != nullptr && on_echo) {
      on_echo(*echo);
    }
    if (std::holds_alternative<RunEnded>(*message)) over_ = true;
  }
  void OnPeerGone(const ClientId& /*peer*/, const Status& /*why*/) override { welcomed_ = false; }

 private:
  ClientOptions options_;
  std::unique_ptr<ZmqClient> link_;
  bool welcomed_ = false;
  bool over_ = false;
};

/// Beats at fixed times, whether or not the last one was answered: a server that stands still is
/// then seen by every beat of that time, not by one.
class Probe {
 public:
  Probe(EventLoop& loop, Visitor& visitor) : loop_(loop), visitor_(visitor), next_(loop.Now()) {
    visitor_.on_echo = [this](const Heartbeat& echo) { OnEcho(echo); };
    Turn();
  }
  ~Probe() { loop_.Cancel(timer_); }
  Probe(const Probe&) = delete;
  Probe& operator=(const Probe&) = delete;

  [[nodiscard]] const std::vector<LoadSample>& samples() const { return samples_; }

 private:
  void Turn() {
    next_ += Seconds(kBeatEvery_s);
    timer_ = loop_.At(next_, [this] { Turn(); });
    if (!visitor_.welcomed()) {
      if (turns_++ % kHelloTurns == 0) (void)visitor_.SayHello();
      return;
    }
    // The number fits a float's 24 bits for days.
    const float number = static_cast<float>(++number_);
    asked_[number] = LoadClock();
    (void)visitor_.Say(Heartbeat{.round = {}, .phase = "wait", .progress = number});
  }

  void OnEcho(const Heartbeat& echo) {
    const auto asked = asked_.find(echo.progress);
    if (asked == asked_.end()) return;
    samples_.push_back({.at_s = asked->second, .took_s = LoadClock() - asked->second});
    asked_.erase(asked);
  }

  static constexpr int kHelloTurns = 50;

  EventLoop& loop_;
  Visitor& visitor_;
  Nanos next_;
  TimerId timer_;
  int turns_ = 0;
  uint32_t number_ = 0;
  std::map<float, double> asked_;
  std::vector<LoadSample> samples_;
};

Result<LoadSample> Visit(EventLoop& loop, const BenchPlan& plan, size_t index,
                         const std::string& endpoint) {
  Visitor visitor(plan, index);
  const double began = LoadClock();
  WEFT_TRY_ASSIGN(std::unique_ptr<ZmqClient> link, Connect(loop, plan, index, endpoint));
  visitor.Attach(std::move(link));
  for (bool said = false; !visitor.welcomed() && !visitor.over();) {
    if (LoadClock() - began > kJoinPatience_s) break;
    if (!said) said = visitor.SayHello();
    loop.RunOnce(Seconds(kTryEvery_s));
  }
  const LoadSample sample{.at_s = began, .took_s = LoadClock() - began};
  visitor.Leave();
  return sample;
}

}  // namespace

double LoadClock() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

Status RunLoadProbe(const BenchPlan& plan, size_t index, const Pipes& pipes) {
  const std::string endpoint = pipes.ReadLine();
  if (endpoint.empty()) return Cancelled("[bench] there is no aggregator to connect to");
  EventLoop loop;
  Visitor visitor(plan, index);
  WEFT_TRY_ASSIGN(std::unique_ptr<ZmqClient> link, Connect(loop, plan, index, endpoint));
  visitor.Attach(std::move(link));
  const Probe probe(loop, visitor);
  loop.RunUntil([&] { return visitor.over(); });
  visitor.Leave();
  Report(pipes, probe.samples());
  return OkStatus();
}

Status RunLoadNewcomer(const BenchPlan& plan, size_t index, const Pipes& pipes) {
  const std::string endpoint = pipes.ReadLine();
  if (endpoint.empty()) return Cancelled("[bench] there is no aggregator to connect to");
  EventLoop loop;
  std::vector<LoadSample> samples;
  while (!HasLine(pipes)) {
    const double next = LoadClock() + kJoinEvery_s;
    WEFT_TRY_ASSIGN(const LoadSample sample, Visit(loop, plan, index, endpoint));
    samples.push_back(sample);
    while (LoadClock() < next) loop.RunOnce(Seconds(next - LoadClock()));
  }
  Report(pipes, samples);
  return OkStatus();
}

Status RunLoadGate(const BenchPlan& plan, size_t first, size_t count, const Pipes& pipes) {
  const std::string endpoint = pipes.ReadLine();
  if (endpoint.empty() || pipes.ReadLine().empty()) {
    return Cancelled("[bench] there is no aggregator to connect to");
  }
  EventLoop loop;
  std::vector<std::unique_ptr<Visitor>> visitors;
  std::vector<std::unique_ptr<Probe>> beats;
  for (size_t i = 0; i < count; ++i) {
    visitors.push_back(std::make_unique<Visitor>(plan, first + i));
    WEFT_TRY_ASSIGN(std::unique_ptr<ZmqClient> link, Connect(loop, plan, first + i, endpoint));
    visitors.back()->Attach(std::move(link));
    beats.push_back(std::make_unique<Probe>(loop, *visitors.back()));
  }
  loop.RunUntil([&] {
    return std::all_of(visitors.begin(), visitors.end(),
                       [](const auto& visitor) { return visitor->over(); });
  });
  for (const auto& visitor : visitors) visitor->Leave();
  return OkStatus();
}

std::vector<LoadSample> ReadSamples(std::string_view report) {
  std::vector<LoadSample> samples(report.size() / sizeof(LoadSample));
  if (!samples.empty()) {
    std::memcpy(samples.data(), report.data(), samples.size() * sizeof(LoadSample));
  }
  return samples;
}

}  // namespace weft::cli
