#pragma once
// What `weft bench round` and `weft bench load` share: a federation of clients that send back what
// they were sent, its aggregator with ledger and spool on disk, child processes that end with their
// parent, and the memory of this process.

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <sys/types.h>

#include "aggregator/aggregator_node.h"
#include "client/options.h"
#include "common/config/settings.h"
#include "common/log/log.h"
#include "common/net/event_loop.h"
#include "common/net/thread_executor.h"
#include "common/net/zmq_server.h"
#include "common/plan/base_description.h"
#include "common/runtime/file_store.h"

namespace weft::cli {

struct BenchShape {
  std::string what;  // the command, which names the run
  int64_t clients = 0;
  double payload_mb = 0;
  int64_t rounds = 0;  // after one that warms up
  int64_t uploads_at_once = 8;
  std::string strategy = "fedavg";
};

struct BenchPlan {
  Settings settings;  // no [[client]] tables
  BaseDescription base;
  KeyPair server;
  std::vector<KeyPair> clients;
  double payload_mb = 0;  // of a whole adapter, a little beside what was asked for
};

/// "c00012".
[[nodiscard]] std::string BenchName(size_t index);
[[nodiscard]] Result<BenchPlan> MakeBenchPlan(const BenchShape& shape);
/// Of a client that trains on one example and evaluates nothing.
[[nodiscard]] ClientOptions BenchClientOptions(const BenchPlan& plan, size_t index);
/// Training that sends back the adapter it was sent, after a first round in which it fills it with
/// values: the initial one's B = 0 would cross the wire as nothing.
void RegisterBenchTraining(WorkTable& table);

/// A line of /proc/self/status ("VmRSS", "RssAnon", "VmHWM") in megabytes.
[[nodiscard]] double MemoryMb(const std::string& key);
[[nodiscard]] double Median(std::vector<double> values);
/// The value that a share of them is no larger than; 0 of none.
[[nodiscard]] double Quantile(std::vector<double> values, double share);

/// A temporary folder, removed with what is in it.
class BenchFolder {
 public:
  [[nodiscard]] static Result<std::unique_ptr<BenchFolder>> Make(const std::string& parent);
  ~BenchFolder();
  BenchFolder(const BenchFolder&) = delete;
  BenchFolder& operator=(const BenchFolder&) = delete;
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  explicit BenchFolder(std::filesystem::path path) : path_(std::move(path)) {}
  std::filesystem::path path_;
};

/// The other end of a child process: it reads lines and writes what it found out.
struct Pipes {
  int commands = -1;
  int report = -1;

  /// The next line without its end; empty when the parent has closed the pipe.
  [[nodiscard]] std::string ReadLine() const;
  void Write(std::string_view bytes) const;
};

/// Child processes; killed if they are not waited for, and when this process dies.
class BenchProcesses {
 public:
  using Main = std::function<Status(const Pipes& pipes)>;

  BenchProcesses() = default;
  BenchProcesses(const BenchProcesses&) = delete;
  BenchProcesses& operator=(const BenchProcesses&) = delete;
  ~BenchProcesses();

  /// Forks; must run before this process has any thread.
  [[nodiscard]] Status Start(const std::string& name, const Main& main);
  /// To one process (its number in the order of Start) or to all.
  [[nodiscard]] Status Tell(size_t process, const std::string& line);
  [[nodiscard]] Status TellAll(const std::string& line);
  /// A line of the report of a process, waited for at most so long.
  [[nodiscard]] Result<std::string> Hear(size_t process, double limit_s);
  /// Not ok if one has ended with a failure.
  [[nodiscard]] Status Check();
  /// No more lines are sent. Waits until all have ended; their reports (what of each was not
  /// heard), in the order of Start. That one goes on for longer than so long is a failure.
  [[nodiscard]] Result<std::vector<std::string>> Wait(double limit_s);

 private:
  struct Child {
    std::string name;
    pid_t pid;
    Pipes pipes;
    bool ended = false;
    int state = 0;  // of waitpid
  };
  [[noreturn]] void RunChild(const std::string& name, const Main& main, const Pipes& pipes);
  [[nodiscard]] static Status OutcomeOf(const Child& child);

  std::vector<Child> children_;
};

/// An aggregator with all its parts, on a loop of whoever owns it.
class BenchAggregator {
 public:
  /// Starts it in the folder, on a free port of 127.0.0.1, and waits for its initial adapter, so
  /// that what that takes is not counted as what members take.
  [[nodiscard]] static Result<std::unique_ptr<BenchAggregator>> Start(
      EventLoop& loop, BenchPlan plan, const std::filesystem::path& folder,
      const std::string& log_level);
  BenchAggregator(const BenchAggregator&) = delete;
  BenchAggregator& operator=(const BenchAggregator&) = delete;

  [[nodiscard]] AggregatorNode& node() { return *node_; }
  [[nodiscard]] const ZmqServer& server() const { return *server_; }
  /// Seconds from version to version, without the first two: version 0 waits for members and
  /// version 1 warms up.
  [[nodiscard]] std::vector<double> RoundTimes() const;

 private:
  BenchAggregator(EventLoop& loop, const std::string& log_level);
  [[nodiscard]] Status Open(EventLoop& loop, BenchPlan plan, const std::filesystem::path& folder);

  log::Logger logger_;
  std::unique_ptr<FileStore> store_;
  WorkTable table_;
  std::unique_ptr<ThreadExecutor> executor_;
  std::unique_ptr<ZmqServer> server_;
  RandomStream entropy_;
  std::unique_ptr<AggregatorNode> node_;
};

}  // namespace weft::cli
