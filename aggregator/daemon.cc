#include "aggregator/daemon.h"

#include <atomic>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <utility>

#include "aggregator/aggregator_node.h"
#include "aggregator/evaluate_work.h"
#include "aggregator/merge_work.h"
#include "aggregator/metrics_server.h"
#include "aggregator/node_jobs.h"
#include "aggregator/strategies/strategy.h"
#include "common/base/str.h"
#include "common/config/load.h"
#include "common/formats/base_hash.h"
#include "common/model/base_weights.h"
#include "common/net/descriptors.h"
#include "common/net/event_loop.h"
#include "common/net/signal_watcher.h"
#include "common/net/thread_executor.h"
#include "common/net/zmq_server.h"
#include "common/runtime/file_store.h"
#include "common/runtime/run_events.h"
#include "common/tensor/torch.h"

namespace weft {
namespace {

/// The reason in the run folder's stop-request file, if there is one.
std::optional<std::string> StopRequest(const std::filesystem::path& folder) {
  std::ifstream file(folder / kStopRequestFile, std::ios::binary);
  if (!file) return std::nullopt;
  std::string reason((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  reason.resize(std::min<size_t>(reason.size(), 200));
  while (!reason.empty() && (reason.back() == '\n' || reason.back() == ' ')) reason.pop_back();
  return reason.empty() ? "asked to stop" : reason;
}

Result<std::unique_ptr<ZmqServer>> Listen(EventLoop& loop, const ServerSettings& server,
                                          const log::Logger& logger) {
  if (server.secret_key.empty()) {
    return InvalidArgument(
        "[server] secret-key: got none, wanted the server's .secret file; make one with `weft "
        "keys new` or a whole federation with `weft init`");
  }
  if (server.allow_list.empty()) {
    return InvalidArgument(
        "[server] allow-list: got none, wanted a file of \"public-key name\" lines; add clients "
        "with `weft keys allow`");
  }
  ZmqServer::Options options;
  options.endpoint = server.bind;
  options.allow_list = server.allow_list;
  options.log = &logger;
  WEFT_TRY_ASSIGN(options.keys, LoadSecretKey(server.secret_key));
  return ZmqServer::Bind(loop, std::move(options));
}

Status RegisterWork(const Settings& settings, bool evaluate_here, WorkTable& table) {
  RegisterMergeWork(
      table, settings.model.path.empty() ? NoBaseWeights() : BaseWeights(settings.model.path));
  RegisterNodeJobs(table);
  if (!evaluate_here) return OkStatus();
  WEFT_TRY_ASSIGN(ServerEvaluation evaluation, LoadServerEvaluation(settings));
  RegisterServerEvaluation(table, std::move(evaluation));
  return OkStatus();
}

// A run is worth waiting for whoever makes room.
constexpr std::chrono::hours kFullDiskPatience{24};

// Beats in the loop; others hear how long ago it did.
class Heart {
 public:
  explicit Heart(EventLoop& loop) : loop_(loop) { Beat(); }
  ~Heart() { loop_.Cancel(timer_); }
  Heart(const Heart&) = delete;
  Heart& operator=(const Heart&) = delete;

  [[nodiscard]] double AgeSeconds() const {
    return std::chrono::duration<double>(Steady::now().time_since_epoch() - beat_.load()).count();
  }

 private:
  void Beat() {
    beat_ = Steady::now().time_since_epoch();
    timer_ = loop_.At(loop_.Now() + std::chrono::seconds(1), [this] { Beat(); });
  }

  using Steady = std::chrono::steady_clock;

  EventLoop& loop_;
  std::atomic<Steady::duration> beat_{};
  TimerId timer_;
};

void TellOfDisk(log::Logger& logger, const Status& why) {
  if (why.ok()) {
    logger.Info("there is space again: the run goes on");
  } else {
    logger.Error("the run is paused: its folder takes no more, and it goes on when there is space",
                 {{"why", why}, {"at_most_h", static_cast<int64_t>(kFullDiskPatience.count())}});
  }
}

}  // namespace

std::string RunFolder(const Settings& settings) {
  return settings.run.dir.empty() ? "runs/" + settings.run.name : settings.run.dir;
}

Result<BaseDescription> DescribeBaseOf(const ModelSettings& model) {
  if (!model.base.empty()) return ReadBaseDescription(model.base);
  if (!model.path.empty()) return DescribeBase(model.path);
  return InvalidArgument(
      "[model] got neither path nor base, wanted the model's folder or its base.json");
}

Result<AggregatorOptions> MakeAggregatorOptions(const Settings& settings,
                                                const std::string& run_dir) {
  AggregatorOptions options;
  options.settings = settings;
  options.settings_toml = ToToml(settings, true);
  WEFT_TRY_ASSIGN(options.base, DescribeBaseOf(settings.model));
  options.base_model = settings.model.path;
  options.run_dir = run_dir;
  options.evaluate_here = !settings.evaluate.data.empty();
  WEFT_TRY(FindStrategy(settings.strategy.name).status());
  return options;
}

Status RunAggregatorDaemon(AggregatorDaemon daemon) {
  const Settings& settings = daemon.settings;
  const std::string folder = RunFolder(settings);
  // The bits of a merge must not depend on how many cores this machine has. Torch counts threads
  // per thread, so the worker needs to be told as well.
  const int threads = settings.model.threads > 0 ? static_cast<int>(settings.model.threads) : 1;
  at::set_num_threads(threads);
  const uint64_t descriptors = RaiseDescriptorLimit();

  EventLoop loop;
  AggregatorNode* running = nullptr;
  FileStore* waiting = nullptr;
  std::atomic<bool> paused = false;
  bool stop_early = false;
  SignalWatcher signals(loop, [&](int number) {
    stop_early = true;
    if (waiting != nullptr) waiting->StopWaiting();
    if (running != nullptr) running->Stop(Cancelled(Str("signal ", number)));
  });
  WEFT_TRY_ASSIGN(AggregatorOptions options, MakeAggregatorOptions(settings, folder));
  options.keep_running = daemon.keep_running;
  options.stop_requested = [folder] { return StopRequest(folder); };

  log::Logger logger(
      "aggregator", log::StderrSink(), [&loop] { return loop.WallMicros(); },
      log::LevelFromName(settings.run.log_level));
  WEFT_TRY_ASSIGN(
      const std::unique_ptr<FileStore> store,
      FileStore::Open({.folder = folder,
                       .post = [&loop](std::function<void()> done) { loop.Post(std::move(done)); },
                       .wall_us = [&loop] { return loop.WallMicros(); },
                       .full_disk_patience = kFullDiskPatience,
                       .on_waiting =
                           [&logger, &paused](const Status& why) {
                             paused = !why.ok();
                             TellOfDisk(logger, why);
                           }}));
  waiting = store.get();
  WorkTable table;
  WEFT_TRY(RegisterWork(settings, options.evaluate_here, table));
  ThreadExecutor executor(loop, table, 1, [threads] { at::set_num_threads(threads); });
  WEFT_TRY_ASSIGN(const std::unique_ptr<ZmqServer> server, Listen(loop, settings.server, logger));
  logger.Info(
      "listening",
      {{"endpoint", server->endpoint()}, {"run_folder", folder}, {"descriptors", descriptors}});
  if (daemon.on_bound) daemon.on_bound(server->endpoint());
  Heart heart(loop);
  std::unique_ptr<MetricsServer> metrics;
  if (!settings.server.metrics_bind.empty()) {
    WEFT_TRY_ASSIGN(metrics, MetricsServer::Start(settings.server.metrics_bind, folder, [&] {
                      return Pulse{heart.AgeSeconds(), paused};
                    }));
    logger.Info("metrics", {{"address", metrics->address()}});
  }

  std::random_device device;
  RandomStream entropy((uint64_t{device()} << 32) | device());
  AggregatorNode node(Env{loop, *server, executor, *store, entropy, logger}, std::move(options));
  running = &node;
  if (const Status started = node.Start(); !started.ok()) return started;
  if (stop_early) node.Stop(Cancelled("signal before the start"));
  loop.RunUntil([&] { return node.Finished(); });
  running = nullptr;
  const Status outcome = node.Outcome();
  if (StopRequest(folder)) {
    std::error_code ignored;  // one that stays would only stop the next start at once, visibly
    std::filesystem::remove(std::filesystem::path(folder) / kStopRequestFile, ignored);
  }
  return outcome;
}

}  // namespace weft
