// `weft bench round`: how long a round takes when nobody trains: one aggregator with its ledger and
// spool on disk, N client processes, CURVE over loopback, the whole protocol. Clients send back the
// adapter they were sent, after a first round in which they fill it with values.

#include <algorithm>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "cli/bench_federation.h"
#include "cli/set_up.h"
#include "cli/whole_number.h"
#include "client/client_node.h"
#include "common/base/str.h"
#include "common/net/event_loop.h"
#include "common/net/thread_executor.h"
#include "common/net/zmq_client.h"
#include "common/runtime/memory_store.h"

namespace weft::cli {
namespace {

// Everybody has been told that the run is over.
constexpr double kEndPatience_s = 60;

struct Options {
  int64_t clients = 4;
  double payload_mb = 9;
  int64_t rounds = 5;
  int64_t at_once = 8;
  std::string dir;
  std::string log_level = "warn";
  bool json = false;
};

// ---- a client process ----

Status RunBenchClient(BenchPlan& plan, size_t index, const std::string& endpoint) {
  EventLoop loop;
  WorkTable table;
  RegisterBenchTraining(table);
  const std::string name = BenchName(index);
  MemoryStore store({.post = [&loop](std::function<void()> done) { loop.Post(std::move(done)); },
                     .wall_us = [&loop] { return loop.WallMicros(); },
                     .fault = {}});
  log::Logger logger(
      name, log::StderrSink(), [&loop] { return loop.WallMicros(); }, log::Level::kError);
  ThreadExecutor executor(loop, table, 1);
  ZmqClient::Options link_options;
  link_options.endpoint = endpoint;
  link_options.keys = std::move(plan.clients[index]);
  link_options.server_key = plan.server.public_key;
  WEFT_TRY_ASSIGN(const std::unique_ptr<ZmqClient> link,
                  ZmqClient::Connect(loop, std::move(link_options)));
  RandomStream entropy = RandomStream::Derive(1, {"bench", name});
  ClientNode node(Env{loop, *link, executor, store, entropy, logger},
                  BenchClientOptions(plan, index));
  WEFT_TRY(node.Start());
  loop.RunUntil([&] { return node.Finished(); });
  return node.Outcome();
}

// ---- the aggregator ----

struct Measured {
  std::vector<double> round_s;
  double rss_before_mb = 0;
  double rss_peak_mb = 0;
};

Result<Measured> RunServer(const Options& options, BenchPlan plan, BenchProcesses& clients,
                           const std::filesystem::path& folder) {
  EventLoop loop;
  WEFT_TRY_ASSIGN(const std::unique_ptr<BenchAggregator> aggregator,
                  BenchAggregator::Start(loop, std::move(plan), folder, options.log_level));
  Measured measured;
  measured.rss_before_mb = MemoryMb("VmRSS");
  WEFT_TRY(clients.TellAll(aggregator->server().endpoint()));
  loop.RunUntil([&] { return aggregator->node().Finished(); });
  WEFT_TRY(aggregator->node().Outcome());
  measured.rss_peak_mb = MemoryMb("VmHWM");
  measured.round_s = aggregator->RoundTimes();
  return measured;
}

void Print(const Options& options, const Measured& measured, double payload_mb) {
  const double median = Median(measured.round_s);
  const double slowest = *std::max_element(measured.round_s.begin(), measured.round_s.end());
  const double rate = 2 * payload_mb * static_cast<double>(options.clients) / median;
  if (options.json) {
    const nlohmann::ordered_json json = {{"what", "weft bench round"},
                                         {"clients", options.clients},
                                         {"mb", payload_mb},
                                         {"rounds", measured.round_s.size()},
                                         {"round_s", median},
                                         {"round_s_max", slowest},
                                         {"mb_per_s", rate},
                                         {"server_rss_before_mb", measured.rss_before_mb},
                                         {"server_peak_rss_mb", measured.rss_peak_mb}};
    std::cout << json.dump() << "\n";
    return;
  }
  std::cout << options.clients << " clients, " << payload_mb << " MB each way: " << median
            << " s a round (slowest " << slowest << " s), " << rate << " MB/s; aggregator's memory "
            << measured.rss_before_mb << " MB before, " << measured.rss_peak_mb
            << " MB at its peak\n";
}

Status Run(const Options& options) {
  WEFT_TRY_ASSIGN(BenchPlan plan, MakeBenchPlan({.what = "weft bench round",
                                                 .clients = options.clients,
                                                 .payload_mb = options.payload_mb,
                                                 .rounds = options.rounds,
                                                 .uploads_at_once = options.at_once}));
  WEFT_TRY_ASSIGN(const std::unique_ptr<BenchFolder> folder, BenchFolder::Make(options.dir));
  const double payload_mb = plan.payload_mb;
  BenchProcesses clients;
  for (size_t i = 0; i < plan.clients.size(); ++i) {
    WEFT_TRY(clients.Start(BenchName(i), [&plan, i](const Pipes& pipes) {
      const std::string endpoint = pipes.ReadLine();
      if (endpoint.empty()) return Cancelled("[bench] the aggregator did not start");
      return RunBenchClient(plan, i, endpoint);
    }));
  }
  WEFT_TRY_ASSIGN(const Measured measured,
                  RunServer(options, std::move(plan), clients, folder->path()));
  WEFT_TRY(clients.Wait(kEndPatience_s).status());
  if (measured.round_s.empty()) return Internal("[bench] no round was timed");
  Print(options, measured, payload_mb);
  return OkStatus();
}

}  // namespace

Action SetUpBenchRound(CLI::App& app) {
  auto options = std::make_shared<Options>();
  const auto number = [&](const char* name, int64_t& value, int64_t most, const char* help) {
    app.add_option(name, value, help)->check(WholeNumber(int64_t{1}, most))->capture_default_str();
  };
  constexpr double kMegabytesMax = 4096;
  number("--clients", options->clients, 4096, "client processes");
  app.add_option("--payload-mb", options->payload_mb, "size of an adapter")
      ->check(CLI::Range(0.0, kMegabytesMax))
      ->capture_default_str();
  number("--rounds", options->rounds, 1'000'000, "rounds timed, after one that warms up");
  number("--at-once", options->at_once, 4096, "updates pulled at the same time");
  app.add_option("--dir", options->dir, "where the run folder is made; default: temporary files");
  app.add_option("--log-level", options->log_level, "of the aggregator")
      ->check(CLI::IsMember({"debug", "info", "warn", "error", "off"}))
      ->capture_default_str();
  app.add_flag("--json", options->json, "one JSON object on stdout");
  return [options] { return Run(*options); };
}

}  // namespace weft::cli
