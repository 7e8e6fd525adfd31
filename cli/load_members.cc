#include "cli/load_members.h"

#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <utility>

#include "client/client_node.h"
#include "common/base/str.h"
#include "common/net/descriptors.h"
#include "common/net/zmq_links.h"
#include "common/runtime/memory_store.h"

namespace weft::cli {
namespace {

// Connections of one process that are under way at the same time.
constexpr size_t kJoiningMax = 64;
constexpr double kLookEvery_s = 0.01;
constexpr double kSayEvery_s = 5;
constexpr size_t kSaidBytes = 64;

/// Calls `turn` every so often, until it returns false.
class Every {
 public:
  Every(EventLoop& loop, double seconds, std::function<bool()> turn)
      : loop_(loop), seconds_(seconds), turn_(std::move(turn)) {
    Set();
  }
  ~Every() { loop_.Cancel(timer_); }
  Every(const Every&) = delete;
  Every& operator=(const Every&) = delete;

 private:
  void Set() {
    timer_ = loop_.At(loop_.Now() + Seconds(seconds_), [this] {
      if (turn_()) Set();
    });
  }

  EventLoop& loop_;
  const double seconds_;
  std::function<bool()> turn_;
  TimerId timer_;
};

/// A member with what of its world is its own.
class Member {
 public:
  Member(EventLoop& loop, ZmqLink& link, Executor& executor, log::Logger& logger,
         ClientOptions options)
      : link_(link),
        store_({.post = [&loop](std::function<void()> done) { loop.Post(std::move(done)); },
                .wall_us = [&loop] { return loop.WallMicros(); },
                .fault = {}}),
        entropy_(RandomStream::Derive(1, {"bench", options.name.name})),
        node_(Env{loop, link, executor, store_, entropy_, logger}, std::move(options)) {}

  [[nodiscard]] ClientNode& node() { return node_; }
  [[nodiscard]] bool answered() const { return link_.heard() > 0; }

 private:
  ZmqLink& link_;
  MemoryStore store_;
  RandomStream entropy_;
  ClientNode node_;
};

class Crowd {
 public:
  Crowd(EventLoop& loop, const BenchPlan& plan, const LoadShare& share, ZmqLinks& links,
        Executor& executor, log::Logger& logger)
      : loop_(loop),
        plan_(plan),
        share_(share),
        links_(links),
        executor_(executor),
        logger_(logger),
        look_(loop, kLookEvery_s, [this] { return Look(); }) {}

  [[nodiscard]] bool done() const { return done_; }
  [[nodiscard]] const Status& outcome() const { return outcome_; }

 private:
  bool Look() {
    while (outcome_.ok() && answered_ < members_.size() && members_[answered_]->answered()) {
      ++answered_;
    }
    while (outcome_.ok() && members_.size() < share_.count &&
           members_.size() < answered_ + kJoiningMax) {
      outcome_ = AddOne();
    }
    while (outcome_.ok() && finished_ < members_.size() && members_[finished_]->node().Finished()) {
      outcome_ = members_[finished_]->node().Outcome();
      ++finished_;
    }
    done_ = !outcome_.ok() || finished_ == share_.count;
    return !done_;
  }

  Status AddOne() {
    const size_t index = share_.first + members_.size();
    WEFT_TRY_ASSIGN(ZmqLink* const link, links_.Add(plan_.clients[index]));
    members_.push_back(std::make_unique<Member>(loop_, *link, executor_, logger_,
                                                BenchClientOptions(plan_, index)));
    return members_.back()->node().Start();
  }

  EventLoop& loop_;
  const BenchPlan& plan_;
  const LoadShare share_;
  ZmqLinks& links_;
  Executor& executor_;
  log::Logger& logger_;
  std::deque<std::unique_ptr<Member>> members_;
  size_t answered_ = 0;  // so many from the first on
  size_t finished_ = 0;
  bool done_ = false;
  Status outcome_;
  Every look_;
};

// To the endpoint that comes as a line.
Result<std::unique_ptr<ZmqLinks>> OpenLinks(EventLoop& loop, const BenchPlan& plan,
                                            const LoadShare& share, const Pipes& pipes) {
  const std::string endpoint = pipes.ReadLine();
  if (endpoint.empty()) return Cancelled("[bench] there is no aggregator to connect to");
  return ZmqLinks::Open(
      loop, {.endpoint = endpoint, .server_key = plan.server.public_key, .links_max = share.count});
}

}  // namespace

Status RunLoadMembers(const BenchPlan& plan, const LoadShare& share, const Pipes& pipes) {
  EventLoop loop;
  WEFT_TRY_ASSIGN(const std::unique_ptr<ZmqLinks> links, OpenLinks(loop, plan, share, pipes));
  WorkTable table;
  RegisterBenchTraining(table);
  ThreadExecutor executor(loop, table, 1);
  log::Logger logger(
      "members", log::StderrSink(), [&loop] { return loop.WallMicros(); }, log::Level::kError);
  Crowd crowd(loop, plan, share, *links, executor, logger);
  loop.RunUntil([&] { return crowd.done(); });
  // The goodbyes leave before the connections end.
  const Nanos until = loop.Now() + Seconds(1);
  const Every wake(loop, kLookEvery_s, [] { return true; });
  if (crowd.outcome().ok()) loop.RunUntil([&] { return loop.Now() >= until; });
  return crowd.outcome();
}

Status RunBareConnections(const BenchPlan& plan, const LoadShare& share, const Pipes& pipes) {
  EventLoop loop;
  WEFT_TRY_ASSIGN(const std::unique_ptr<ZmqLinks> links, OpenLinks(loop, plan, share, pipes));
  std::deque<std::pair<ZmqLink*, Nanos>> all;  // and when it spoke last
  size_t answered = 0;
  bool told = false;
  Status outcome;
  const Blob word = Blob::Copy(std::string(kSaidBytes, 'x'));
  const Every look(loop, kLookEvery_s, [&] {
    while (answered < all.size() && all[answered].first->heard() > 0) ++answered;
    while (outcome.ok() && all.size() < share.count && all.size() < answered + kJoiningMax) {
      Result<ZmqLink*> link = links->Add(plan.clients[share.first + all.size()]);
      outcome = link.status();
      if (link.ok()) all.emplace_back(*link, Nanos(0));
    }
    for (auto& [link, spoke] : all) {
      if (spoke != Nanos(0) && loop.Now() - spoke < Seconds(kSayEvery_s)) continue;
      if (link->Send(kAggregator, {.control = word, .chunk = {}}).ok()) spoke = loop.Now();
    }
    if (answered == share.count && !std::exchange(told, true)) pipes.Write("connected\n");
    return outcome.ok();
  });
  loop.RunUntil([&] { return !outcome.ok(); });
  return outcome;
}

Status RunBareServer(const BenchPlan& plan, const Pipes& pipes) {
  WEFT_TRY(NeedDescriptors("a bare ROUTER", plan.clients.size() + 256));
  EventLoop loop;
  WEFT_TRY_ASSIGN(const std::unique_ptr<ZmqEcho> echo, ZmqEcho::Bind(loop, plan.server));
  pipes.Write(echo->endpoint() + "\n" + Str(MemoryMb("VmRSS")) + "\n");
  // Blocks for its commands beside the loop: a turn is short, and what is asked is only memory.
  std::thread commands([pipes] {
    while (!pipes.ReadLine().empty()) pipes.Write(Str(MemoryMb("VmRSS")) + "\n");
  });
  commands.detach();
  loop.RunUntil([] { return false; });
  return OkStatus();
}

}  // namespace weft::cli
