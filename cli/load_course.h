#pragma once
// What `weft bench load` does while the aggregator's loop runs: lets members join, measures with
// nothing else going on and under silent connections in turn, lets the rounds begin, watches
// memory, processes and the time. Owned by the command; lives on the aggregator's loop.

#include <string>
#include <vector>

#include "cli/bench_federation.h"

namespace weft::cli {

struct LoadOptions {
  int64_t members = 10000;
  int64_t cohort = 100;
  double payload_mb = 0.25;
  int64_t rounds = 3;
  int64_t at_once = 8;
  int64_t silent = 0;
  double measure_s = 10;
  double limit_s = 600;
  std::string strategy = "fedavg";
  std::string dir;
  std::string log_level = "error";
  bool bare = false;
  bool json = false;
};

/// The processes, in the order they were started.
struct LoadCast {
  size_t probe = 0;
  size_t newcomer = 0;
  size_t gate = 0;
  size_t silent = 0;  // if any
  size_t members_from = 0;
  size_t count = 0;
};

/// From when to when something was so, on LoadClock().
struct LoadSpan {
  std::string what;  // "idle", "silent", "rounds"
  double from_s = 0;
  double to_s = 0;
};

struct LoadMeasured {
  double join_s = 0;
  double rss_before_mb = 0;  // nobody has come yet
  double rss_idle_mb = 0;    // everybody is here
  double anon_idle_mb = 0;
  double anon_peak_mb = 0;  // of the rounds
  double rss_peak_mb = 0;
  uint64_t silent_opened = 0;
  std::vector<LoadSpan> spans;
};

class LoadCourse {
 public:
  LoadCourse(EventLoop& loop, const LoadOptions& options, const LoadCast& cast,
             BenchProcesses& processes, BenchAggregator& aggregator);
  ~LoadCourse();
  LoadCourse(const LoadCourse&) = delete;
  LoadCourse& operator=(const LoadCourse&) = delete;

  /// Runs the loop until the aggregator is done.
  [[nodiscard]] Status Run();
  [[nodiscard]] const LoadMeasured& measured() const { return measured_; }

 private:
  enum class Stage { kJoining, kSettling, kMeasuring, kRounds };
  void SetTurn();
  [[nodiscard]] Status Turn();
  [[nodiscard]] Status NextSpan();
  [[nodiscard]] Status EndSpan();
  [[nodiscard]] Status HearSilent();
  [[nodiscard]] Status BeginRounds();
  [[nodiscard]] Status OverTime() const;

  EventLoop& loop_;
  const LoadOptions& options_;
  const LoadCast cast_;
  BenchProcesses& processes_;
  BenchAggregator& aggregator_;
  Stage stage_ = Stage::kJoining;
  double began_s_;
  double stage_until_s_ = 0;
  size_t spans_left_ = 0;
  TimerId timer_;
  Status outcome_;
  LoadMeasured measured_;
};

}  // namespace weft::cli
