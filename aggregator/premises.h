#pragma once
// Premises: all that the process of an aggregator, or of a relay, has around its node: the loop,
// the run folder, workers, the port for members, metrics, signals and the stop request. The parts
// outlive the node, which borrows them.

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "common/base/random.h"
#include "common/base/result.h"
#include "common/config/settings.h"
#include "common/log/log.h"
#include "common/net/event_loop.h"
#include "common/net/signal_watcher.h"
#include "common/net/thread_executor.h"
#include "common/net/zmq_server.h"
#include "common/runtime/env.h"
#include "common/runtime/file_store.h"

namespace weft {

/// run.dir, or "runs/<name>".
[[nodiscard]] std::string RunFolder(const Settings& settings);

/// Seed of what decides no result: jitter and nonces.
[[nodiscard]] uint64_t SystemEntropy();

class MetricsServer;

class Premises {
 public:
  /// `name` is the process's in the log.
  Premises(Settings settings, const std::string& name);
  ~Premises();
  Premises(const Premises&) = delete;
  Premises& operator=(const Premises&) = delete;

  /// Opens the folder, starts the workers, binds the port. A signal meanwhile is not forgotten.
  [[nodiscard]] Status Open(bool evaluate_here);

  /// Runs the node until it has finished, which a signal asks it for; forgets the stop request. Not
  /// ok: the node could not start.
  template <typename N>
  [[nodiscard]] Status Run(N& node) {
    WEFT_TRY(node.Start());
    OnStop([&node](const Status& why) { node.Stop(why); });
    loop_.RunUntil([&node] { return node.Finished(); });
    OnStop({});
    if (StopRequest()) ForgetStopRequest();
    return OkStatus();
  }

  EventLoop& loop() { return loop_; }
  Executor& executor() { return *executor_; }
  [[nodiscard]] Env env() { return {loop_, *server_, *executor_, *store_, entropy_, *logger_}; }
  [[nodiscard]] const Settings& settings() const { return settings_; }
  [[nodiscard]] const std::string& folder() const { return folder_; }
  /// Where members connect.
  [[nodiscard]] const std::string& endpoint() const { return server_->endpoint(); }

  /// The reason in the run folder's stop-request file, if there is one.
  [[nodiscard]] std::optional<std::string> StopRequest() const;

 private:
  class Heart;
  /// Called on a signal; at once if one has come.
  void OnStop(std::function<void(const Status& why)> stop);
  void ForgetStopRequest() const;
  [[nodiscard]] Status OpenStore();
  [[nodiscard]] Status Listen();
  [[nodiscard]] Status RegisterWork(bool evaluate_here);

  const Settings settings_;
  const std::string folder_;
  const int threads_;
  EventLoop loop_;
  std::optional<Status> stopped_;
  std::function<void(const Status& why)> stop_;
  std::atomic<bool> paused_ = false;
  SignalWatcher signals_;
  std::unique_ptr<log::Logger> logger_;
  std::unique_ptr<FileStore> store_;
  WorkTable table_;
  std::unique_ptr<ThreadExecutor> executor_;
  std::unique_ptr<ZmqServer> server_;
  std::unique_ptr<Heart> heart_;
  std::unique_ptr<MetricsServer> metrics_;
  RandomStream entropy_;
};

}  // namespace weft
