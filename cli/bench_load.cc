// `weft bench load`: what thousands of members cost an aggregator: memory of an idle one, how long
// control messages take while nothing goes on, under connections that never authenticate, and while
// a cohort uploads; time and memory of such rounds. The aggregator is this process; members, probes
// and silent peers are others.

#include <algorithm>
#include <charconv>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "aggregator/strategies/strategy.h"
#include "cli/bench_federation.h"
#include "cli/load_course.h"
#include "cli/load_members.h"
#include "cli/load_probe.h"
#include "cli/set_up.h"
#include "cli/silent_connections.h"
#include "cli/whole_number.h"
#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/net/descriptors.h"

namespace weft::cli {
namespace {

constexpr size_t kMembersPerProcess = 4000;
// Beside the members: the probe, the newcomer, and two who come last. The run waits for one more
// than members, probe and newcomer together, so none of it begins before the last two are here.
constexpr int64_t kGateMembers = 2;
constexpr int64_t kVisitors = 2 + kGateMembers;
constexpr uint64_t kDescriptorsBeside = 512;  // files, sockets without a connection, newcomers

struct Latency {
  size_t samples = 0;
  double p50_ms = 0;
  double p99_ms = 0;
  double max_ms = 0;
};

struct Found {
  LoadMeasured load;
  std::vector<double> round_s;
  double bare_kib = 0;  // of a connection that libzmq alone holds
  std::vector<LoadSample> beats;
  std::vector<LoadSample> joins;
};

Latency LatencyOf(const std::vector<LoadSample>& samples, const LoadMeasured& load,
                  const std::string& what) {
  std::vector<double> took_ms;
  for (const LoadSample& sample : samples) {
    for (const LoadSpan& span : load.spans) {
      if (span.what != what || sample.at_s < span.from_s || sample.at_s >= span.to_s) continue;
      took_ms.push_back(sample.took_s * 1e3);
    }
  }
  return {.samples = took_ms.size(),
          .p50_ms = Quantile(took_ms, 0.5),
          .p99_ms = Quantile(took_ms, 0.99),
          .max_ms = Quantile(took_ms, 1)};
}

std::vector<LoadShare> Shares(size_t members) {
  const size_t processes = (members + kMembersPerProcess - 1) / kMembersPerProcess;
  std::vector<LoadShare> shares;
  for (size_t i = 0; i < processes; ++i) {
    const size_t first = members * i / processes;
    shares.push_back({.first = first, .count = members * (i + 1) / processes - first});
  }
  return shares;
}

double KibEach(double mb, int64_t count) { return mb * 1024 / static_cast<double>(count); }

// ---- libzmq alone ----

Result<double> MeasureBare(const LoadOptions& options, const BenchPlan& plan) {
  constexpr size_t kServer = 0;
  BenchProcesses processes;
  WEFT_TRY(processes.Start("bare server",
                           [&](const Pipes& pipes) { return RunBareServer(plan, pipes); }));
  const std::vector<LoadShare> shares = Shares(static_cast<size_t>(options.members));
  for (const LoadShare& share : shares) {
    WEFT_TRY(processes.Start("bare connections", [&](const Pipes& pipes) {
      return RunBareConnections(plan, share, pipes);
    }));
  }
  const auto hear_mb = [&]() -> Result<double> {
    WEFT_TRY_ASSIGN(const std::string text, processes.Hear(kServer, options.limit_s));
    double mb = 0;
    (void)std::from_chars(text.data(), text.data() + text.size(), mb);
    return mb;
  };
  WEFT_TRY_ASSIGN(const std::string endpoint, processes.Hear(kServer, options.limit_s));
  WEFT_TRY_ASSIGN(const double before_mb, hear_mb());
  for (size_t i = 1; i <= shares.size(); ++i) WEFT_TRY(processes.Tell(i, endpoint));
  for (size_t i = 1; i <= shares.size(); ++i) {
    WEFT_TRY(processes.Hear(i, options.limit_s).status());
  }
  WEFT_TRY(processes.Tell(kServer, "memory"));
  WEFT_TRY_ASSIGN(const double after_mb, hear_mb());
  return KibEach(after_mb - before_mb, options.members);
}

// ---- the aggregator and its members ----

Result<LoadCast> StartCast(const LoadOptions& options, const BenchPlan& plan,
                           BenchProcesses& processes) {
  LoadCast cast;
  const auto members = static_cast<size_t>(options.members);
  const auto start = [&](const std::string& name, size_t& place, const BenchProcesses::Main& main) {
    place = cast.count++;
    return processes.Start(name, main);
  };
  WEFT_TRY(start("probe", cast.probe,
                 [&](const Pipes& pipes) { return RunLoadProbe(plan, members, pipes); }));
  WEFT_TRY(start("newcomer", cast.newcomer,
                 [&](const Pipes& pipes) { return RunLoadNewcomer(plan, members + 1, pipes); }));
  WEFT_TRY(start("gate", cast.gate, [&](const Pipes& pipes) {
    return RunLoadGate(plan, members + 2, kGateMembers, pipes);
  }));
  if (options.silent > 0) {
    WEFT_TRY(start("silent connections", cast.silent, [&](const Pipes& pipes) {
      return RunSilentConnections(static_cast<size_t>(options.silent), pipes);
    }));
  }
  cast.members_from = cast.count;
  for (const LoadShare& share : Shares(members)) {
    size_t place = 0;
    WEFT_TRY(start(Str("members from ", BenchName(share.first)), place,
                   [&](const Pipes& pipes) { return RunLoadMembers(plan, share, pipes); }));
  }
  return cast;
}

Result<Found> Measure(const LoadOptions& options, BenchPlan plan) {
  Found found;
  if (options.bare) {
    WEFT_TRY_ASSIGN(found.bare_kib, MeasureBare(options, plan));
  }
  WEFT_TRY_ASSIGN(const std::unique_ptr<BenchFolder> folder, BenchFolder::Make(options.dir));
  BenchProcesses processes;
  WEFT_TRY_ASSIGN(const LoadCast cast, StartCast(options, plan, processes));
  EventLoop loop;
  WEFT_TRY_ASSIGN(const std::unique_ptr<BenchAggregator> aggregator,
                  BenchAggregator::Start(loop, std::move(plan), folder->path(), options.log_level));
  LoadCourse course(loop, options, cast, processes, *aggregator);
  WEFT_TRY(course.Run());
  WEFT_TRY_ASSIGN(const std::vector<std::string> reports, processes.Wait(options.limit_s));
  found.load = course.measured();
  found.round_s = aggregator->RoundTimes();
  found.beats = ReadSamples(reports[cast.probe]);
  found.joins = ReadSamples(reports[cast.newcomer]);
  if (found.round_s.empty()) return Internal("[bench] no round was timed");
  return found;
}

// ---- what came out ----

nlohmann::ordered_json ToJson(const Latency& latency) {
  return {{"samples", latency.samples},
          {"p50_ms", latency.p50_ms},
          {"p99_ms", latency.p99_ms},
          {"max_ms", latency.max_ms}};
}

void PrintJson(const LoadOptions& options, const Found& found, double payload_mb) {
  const LoadMeasured& load = found.load;
  nlohmann::ordered_json json = {
      {"what", "weft bench load"},
      {"members", options.members},
      {"cohort", options.cohort},
      {"strategy", options.strategy},
      {"mb", payload_mb},
      {"rounds", found.round_s.size()},
      {"round_s", Median(found.round_s)},
      {"join_s", load.join_s},
      {"server_rss_before_mb", load.rss_before_mb},
      {"server_rss_idle_mb", load.rss_idle_mb},
      {"server_peak_rss_mb", load.rss_peak_mb},
      {"rounds_take_mb", load.anon_peak_mb - load.anon_idle_mb},
      {"kib_per_member", KibEach(load.rss_idle_mb - load.rss_before_mb, options.members)}};
  if (options.bare) json["kib_per_bare_connection"] = found.bare_kib;
  for (const auto& [name, samples] :
       {std::pair("heartbeat", &found.beats), std::pair("join", &found.joins)}) {
    for (const char* what : {"idle", "silent", "rounds"}) {
      const Latency latency = LatencyOf(*samples, load, what);
      if (latency.samples > 0) json[name][what] = ToJson(latency);
    }
  }
  if (options.silent > 0) {
    json["silent"] = options.silent;
    json["silent_opened"] = load.silent_opened;
    json["p99_silent_to_idle"] =
        LatencyOf(found.beats, load, "silent").p99_ms / LatencyOf(found.beats, load, "idle").p99_ms;
  }
  std::cout << json.dump() << "\n";
}

void PrintLatency(const std::string& what, const Latency& latency) {
  if (latency.samples == 0) return;
  std::cout << "  " << what << ": p50 " << latency.p50_ms << " ms, p99 " << latency.p99_ms
            << " ms, at most " << latency.max_ms << " ms (" << latency.samples << ")\n";
}

void PrintText(const LoadOptions& options, const Found& found, double payload_mb) {
  const LoadMeasured& load = found.load;
  const double kib = KibEach(load.rss_idle_mb - load.rss_before_mb, options.members);
  std::cout << options.members << " members joined in " << load.join_s << " s and take " << kib
            << " KiB each of the aggregator's memory";
  if (options.bare) {
    std::cout << "; libzmq alone " << found.bare_kib << ", ours " << kib - found.bare_kib;
  }
  std::cout << "\nheartbeat, there and back:\n";
  const Latency idle = LatencyOf(found.beats, load, "idle");
  const Latency silent = LatencyOf(found.beats, load, "silent");
  PrintLatency("nothing else", idle);
  PrintLatency(Str(options.silent, " silent connections"), silent);
  if (options.silent > 0) {
    std::cout << "    p99 " << silent.p99_ms / idle.p99_ms << " times that of nothing else; "
              << load.silent_opened << " were opened\n";
  }
  PrintLatency("rounds", LatencyOf(found.beats, load, "rounds"));
  std::cout << "a newcomer, from connect to welcome:\n";
  PrintLatency("nothing else", LatencyOf(found.joins, load, "idle"));
  PrintLatency(Str(options.silent, " silent connections"), LatencyOf(found.joins, load, "silent"));
  std::cout << options.cohort << " uploads of " << payload_mb << " MB by " << options.strategy
            << ": " << Median(found.round_s) << " s a round; the rounds take "
            << load.anon_peak_mb - load.anon_idle_mb << " MB of memory at their peak, in all "
            << load.rss_peak_mb << " MB with mapped files\n";
}

Status Run(const LoadOptions& options) {
  if (options.cohort > options.members) {
    return InvalidArgument(Str("[bench] --cohort: got ", options.cohort, ", wanted at most the ",
                               options.members, " of --members"));
  }
  StrategySettings strategy;
  strategy.name = options.strategy;
  WEFT_TRY(CheckStrategySettings(strategy, LocalTraining{}));
  WEFT_TRY(NeedDescriptors(
      Str("an aggregator with ", options.members, " members"),
      static_cast<uint64_t>(options.members + options.silent) + kDescriptorsBeside));
  WEFT_TRY_ASSIGN(BenchPlan plan, MakeBenchPlan({.what = "weft bench load",
                                                 .clients = options.members + kVisitors,
                                                 .payload_mb = options.payload_mb,
                                                 .rounds = options.rounds,
                                                 .uploads_at_once = options.at_once,
                                                 .strategy = options.strategy}));
  CohortSettings& cohort = plan.settings.cohort;
  cohort.min_available_nodes = options.members + 1 + kGateMembers;
  cohort.min_train_nodes = options.cohort;
  cohort.fraction_train = 0;
  cohort.join_deadline_s = cohort.deadline_s = options.limit_s;
  const double payload_mb = plan.payload_mb;
  WEFT_TRY_ASSIGN(const Found found, Measure(options, std::move(plan)));
  if (options.json) {
    PrintJson(options, found, payload_mb);
  } else {
    PrintText(options, found, payload_mb);
  }
  return OkStatus();
}

}  // namespace

Action SetUpBenchLoad(CLI::App& app) {
  auto options = std::make_shared<LoadOptions>();
  const auto whole = [&](const char* name, int64_t& value, int64_t least, int64_t most,
                         const char* help) {
    app.add_option(name, value, help)->check(WholeNumber(least, most))->capture_default_str();
  };
  const auto seconds = [&](const char* name, double& value, const char* help) {
    constexpr double kDay_s = 86400;
    app.add_option(name, value, help)->check(CLI::Range(0.1, kDay_s))->capture_default_str();
  };
  constexpr double kMegabytesMax = 4096;
  constexpr auto kMembersMax = static_cast<int64_t>(limits::kPeersMax) - kVisitors;
  whole("--members", options->members, 1, kMembersMax, "members, each with its own connection");
  whole("--cohort", options->cohort, 1, kMembersMax, "of them train and upload in each round");
  app.add_option("--payload-mb", options->payload_mb, "size of an update")
      ->check(CLI::Range(0.0, kMegabytesMax))
      ->capture_default_str();
  whole("--rounds", options->rounds, 1, 1000, "rounds timed, after one that warms up");
  whole("--uploads-at-once", options->at_once, 1, 4096, "updates pulled at the same time");
  app.add_option("--strategy", options->strategy, "the rule that merges")->capture_default_str();
  whole("--silent", options->silent, 0, kMembersMax,
        "connections that never authenticate, beside the members for half of the measuring");
  app.add_flag("--bare", options->bare,
               "measure as many connections to a ROUTER that does nothing as well");
  seconds("--measure-s", options->measure_s, "how long latencies are measured without rounds");
  seconds("--limit-s", options->limit_s, "fail when it has not ended by then");
  app.add_option("--dir", options->dir, "where the run folder is made; default: temporary files");
  app.add_option("--log-level", options->log_level, "of the aggregator")
      ->check(CLI::IsMember({"debug", "info", "warn", "error", "off"}))
      ->capture_default_str();
  app.add_flag("--json", options->json, "one JSON object on stdout");
  return [options] { return Run(*options); };
}

}  // namespace weft::cli
