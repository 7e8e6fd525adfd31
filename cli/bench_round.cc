// `weft bench round`: how long a round takes when nobody trains: one aggregator with its ledger and
// spool on disk, N client processes, CURVE over loopback, the whole protocol. Clients send back the
// adapter they were sent, after a first round in which they fill it with values.

#include <algorithm>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "aggregator/aggregator_node.h"
#include "aggregator/merge_work.h"
#include "aggregator/node_jobs.h"
#include "cli/set_up.h"
#include "cli/whole_number.h"
#include "client/client_node.h"
#include "client/jobs.h"
#include "common/base/random.h"
#include "common/base/str.h"
#include "common/codec/adapter_block.h"
#include "common/config/load.h"
#include "common/crypto/digest.h"
#include "common/net/event_loop.h"
#include "common/net/thread_executor.h"
#include "common/net/zmq_client.h"
#include "common/net/zmq_server.h"
#include "common/runtime/file_store.h"
#include "common/runtime/memory_store.h"
#include "common/runtime/run_events.h"
#include "common/tensor/torch.h"

namespace weft::cli {
namespace {

constexpr int64_t kRank = 8;
constexpr int64_t kSide = 1024;
constexpr double kSiteBytes = kRank * 2 * kSide * 4;

struct Options {
  int64_t clients = 4;
  double payload_mb = 9;
  int64_t rounds = 5;
  int64_t at_once = 8;
  std::string dir;
  std::string log_level = "warn";
  bool json = false;
};

struct Plan {
  Settings settings;
  BaseDescription base;
  KeyPair server;
  std::vector<KeyPair> clients;
};

std::string NameOf(size_t index) {
  const std::string digits = Str(index);
  return "c" + std::string(5 - std::min<size_t>(5, digits.size()), '0') + digits;
}

Result<Plan> MakePlan(const Options& options) {
  if (!(options.payload_mb > 0)) {  // not a number either
    return InvalidArgument(
        Str("[bench] --payload-mb: got ", options.payload_mb, ", wanted a number above 0"));
  }
  Plan plan;
  plan.base.hash = Sha256Hex(AsBytes("weft bench round"));
  const auto sites = std::max<int64_t>(1, std::llround(options.payload_mb * 1e6 / kSiteBytes));
  for (int64_t i = 0; i < sites; ++i) {
    plan.base.sites.push_back({Str("model.layers.", i, ".mlp.up_proj"), kSide, kSide});
  }
  Settings& settings = plan.settings;
  settings.run.name = "bench-round";
  settings.run.num_server_rounds = options.rounds + 1;  // the first one warms up
  settings.adapter.rank = kRank;
  settings.adapter.alpha = 2 * kRank;
  settings.adapter.target_modules = {"up_proj"};
  settings.strategy.name = "fedavg";
  settings.cohort.min_available_nodes = settings.cohort.min_train_nodes = options.clients;
  settings.cohort.fraction_evaluate = 0;
  settings.server.uploads_at_once = options.at_once;
  WEFT_TRY_ASSIGN(plan.server, NewKeyPair());
  for (int64_t i = 0; i < options.clients; ++i) {
    ClientSettings client;
    client.name = NameOf(static_cast<size_t>(i));
    client.rank = Str(kRank);
    settings.clients.push_back(client);
    WEFT_TRY_ASSIGN(KeyPair keys, NewKeyPair());
    plan.clients.push_back(std::move(keys));
  }
  return plan;
}

// ---- a client process ----

// Values without zeros or repetitions in place of the initial adapter's, whose B = 0 would cross
// the wire as nothing.
Result<Blob> Filled(const TrainJob& job) {
  WEFT_TRY_ASSIGN(AdapterBundle bundle, DecodeBundle(job.bundle, at::kCPU));
  if (!bundle.adapter) return Internal("[bench] round 1 came without an adapter");
  RandomStream stream = RandomStream::Derive(1, {"bench", "values", job.client.name});
  for (SiteState& site : bundle.adapter->sites) {
    for (NamedTensor& tensor : site.tensors) {
      auto* const values = tensor.value.mutable_data_ptr<float>();
      std::generate_n(values, tensor.value.numel(),
                      [&] { return static_cast<float>(stream.Uniform() - 0.5); });
    }
  }
  WEFT_TRY_ASSIGN(const Codec* codec, FindCodec(job.plan.codec));
  return EncodeBundle(bundle, *codec);
}

Result<TrainJob::Output> SendBack(const TrainJob& job, JobControl&) {
  TrainJob::Output output;
  output.payload = job.bundle;
  UpdateHeader& header = output.header;
  header.spec = job.plan.cohort.front().adapter;
  header.codec = job.plan.codec;
  header.num_examples = 1;
  header.label_tokens = 1;
  header.payload_sha256 = job.bundle_sha256;
  if (job.plan.round == RoundId{1}) {
    WEFT_TRY_ASSIGN(output.payload, Filled(job));
    header.payload_sha256 = Sha256Hex(output.payload.span());
  }
  header.payload_bytes = output.payload.size();
  return output;
}

Status RunBenchClient(Plan& plan, size_t index, const std::string& endpoint) {
  EventLoop loop;
  WorkTable table;
  table.On<TrainJob>(SendBack);
  const std::string name = NameOf(index);
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
  ClientOptions options;
  options.name = ClientId{name};
  options.base = plan.base;
  options.offer.software = "weft bench";
  options.offer.device = "cpu";
  options.offer.rank_max = kRank;
  options.offer.num_examples = 1;
  options.offer.methods = {"lora"};
  options.offer.codecs = {"float32"};
  options.backoff_first = Seconds(0.05);
  ClientNode node(Env{loop, *link, executor, store, entropy, logger}, std::move(options));
  WEFT_TRY(node.Start());
  loop.RunUntil([&] { return node.Finished(); });
  return node.Outcome();
}

/// Child processes that wait for the endpoint on a pipe; killed if they are not waited for.
class BenchClients {
 public:
  BenchClients() = default;
  BenchClients(const BenchClients&) = delete;
  BenchClients& operator=(const BenchClients&) = delete;
  ~BenchClients() {
    for (const Child& child : children_) {
      ::kill(child.pid, SIGKILL);
      ::waitpid(child.pid, nullptr, 0);
    }
    for (const Child& child : children_) ::close(child.pipe);
  }

  /// Forks; must run before this process has any thread.
  Status Start(Plan& plan) {
    for (size_t i = 0; i < plan.clients.size(); ++i) {
      int ends[2];
      if (::pipe(ends) != 0) return ResourceExhausted("[bench] no pipe for another client");
      const pid_t pid = ::fork();
      if (pid < 0) return ResourceExhausted("[bench] no process for another client");
      if (pid == 0) {
        ::close(ends[1]);
        Child::Run(plan, i, ends[0]);
      }
      ::close(ends[0]);
      children_.push_back({pid, ends[1]});
    }
    return OkStatus();
  }

  Status Release(const std::string& endpoint) {
    const std::string line = endpoint + "\n";
    for (const Child& child : children_) {
      if (::write(child.pipe, line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
        return Unavailable("[bench] a client process is gone");
      }
    }
    return OkStatus();
  }

  Status Wait() {
    Status outcome;
    for (const Child& child : children_) {
      int state = 0;
      ::waitpid(child.pid, &state, 0);
      ::close(child.pipe);
      if (!WIFEXITED(state) || WEXITSTATUS(state) != 0) {
        outcome = Internal("[bench] a client process failed");
      }
    }
    children_.clear();
    return outcome;
  }

 private:
  struct Child {
    pid_t pid;
    int pipe;

    [[noreturn]] static void Run(Plan& plan, size_t index, int pipe) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      std::string endpoint;
      char letter = 0;
      while (::read(pipe, &letter, 1) == 1 && letter != '\n') endpoint += letter;
      if (letter != '\n') ::_exit(1);
      const Status status = RunBenchClient(plan, index, endpoint);
      if (!status.ok()) std::cerr << NameOf(index) << ": " << status.message() << "\n";
      ::_exit(status.ok() ? 0 : 1);
    }
  };
  std::vector<Child> children_;
};

// ---- the aggregator ----

/// A line of /proc/self/status in megabytes.
double MemoryMb(const std::string& key) {
  std::ifstream status("/proc/self/status");
  std::string word;
  double kilobytes = 0;
  while (status >> word) {
    if (word == key + ":" && status >> kilobytes) return kilobytes / 1024;
  }
  return 0;
}

struct Measured {
  std::vector<double> round_s;
  double rss_before_mb = 0;
  double rss_peak_mb = 0;
};

class Folder {
 public:
  explicit Folder(const std::string& parent) {
    std::string name =
        (parent.empty() ? std::filesystem::temp_directory_path() : std::filesystem::path(parent)) /
        "weft-bench-XXXXXX";
    if (::mkdtemp(name.data()) != nullptr) path_ = name;
  }
  ~Folder() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

std::vector<double> RoundTimes(const Store& store) {
  std::vector<double> times;
  std::optional<int64_t> before;
  const Result<std::vector<LedgerEvent>> ledger = store.ReadLedger();
  if (!ledger.ok()) return times;
  uint32_t versions = 0;
  for (const LedgerEvent& row : *ledger) {
    if (row.kind != RoundPublished::kKind) continue;
    // Version 0 waits for members and version 1 warms up: neither is a round's time.
    if (versions++ >= 2) times.push_back(static_cast<double>(row.wall_us - *before) * 1e-6);
    before = row.wall_us;
  }
  return times;
}

Result<Measured> RunServer(const Options& options, Plan plan, BenchClients& clients,
                           const std::filesystem::path& folder) {
  EventLoop loop;
  log::Logger logger(
      "aggregator", log::StderrSink(), [&loop] { return loop.WallMicros(); },
      log::LevelFromName(options.log_level));
  for (size_t i = 0; i < plan.clients.size(); ++i) {
    WEFT_TRY(AllowKey(folder / "allow.txt", plan.clients[i].public_key, ClientId{NameOf(i)}));
  }
  WEFT_TRY_ASSIGN(
      const std::unique_ptr<FileStore> store,
      FileStore::Open({.folder = folder / "run",
                       .post = [&loop](std::function<void()> done) { loop.Post(std::move(done)); },
                       .wall_us = [&loop] { return loop.WallMicros(); }}));
  WorkTable table;
  RegisterMergeWork(table);
  RegisterNodeJobs(table);
  ThreadExecutor executor(loop, table, 1, [] { at::set_num_threads(1); });
  WEFT_TRY_ASSIGN(const std::unique_ptr<ZmqServer> server,
                  ZmqServer::Bind(loop, {.endpoint = "tcp://127.0.0.1:*",
                                         .keys = std::move(plan.server),
                                         .allow_list = folder / "allow.txt"}));
  RandomStream entropy = RandomStream::Derive(1, {"bench", "aggregator"});
  AggregatorOptions node_options;
  node_options.settings = plan.settings;
  node_options.settings_toml = ToToml(plan.settings, true);
  node_options.base = plan.base;
  AggregatorNode node(Env{loop, *server, executor, *store, entropy, logger},
                      std::move(node_options));
  WEFT_TRY(node.Start());
  // The initial adapter is there before anybody joins, so that what it takes is not counted as
  // what members take.
  bool published = false;
  loop.RunUntil([&] {
    published = published || !store->ListBlobs("state/").empty();
    return published || node.Finished();
  });
  Measured measured;
  measured.rss_before_mb = MemoryMb("VmRSS");
  WEFT_TRY(clients.Release(server->endpoint()));
  loop.RunUntil([&] { return node.Finished(); });
  WEFT_TRY(node.Outcome());
  measured.rss_peak_mb = MemoryMb("VmHWM");
  measured.round_s = RoundTimes(*store);
  return measured;
}

void Print(const Options& options, const Measured& measured, double payload_mb) {
  std::vector<double> sorted = measured.round_s;
  std::sort(sorted.begin(), sorted.end());
  const size_t half = sorted.size() / 2;
  const double median =
      sorted.size() % 2 == 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
  const double rate = 2 * payload_mb * static_cast<double>(options.clients) / median;
  if (options.json) {
    const nlohmann::ordered_json json = {{"what", "weft bench round"},
                                         {"clients", options.clients},
                                         {"mb", payload_mb},
                                         {"rounds", measured.round_s.size()},
                                         {"round_s", median},
                                         {"round_s_max", sorted.back()},
                                         {"mb_per_s", rate},
                                         {"server_rss_before_mb", measured.rss_before_mb},
                                         {"server_peak_rss_mb", measured.rss_peak_mb}};
    std::cout << json.dump() << "\n";
    return;
  }
  std::cout << options.clients << " clients, " << payload_mb << " MB each way: " << median
            << " s a round (slowest " << sorted.back() << " s), " << rate
            << " MB/s; aggregator's memory " << measured.rss_before_mb << " MB before, "
            << measured.rss_peak_mb << " MB at its peak\n";
}

Status Run(const Options& options) {
  WEFT_TRY_ASSIGN(Plan plan, MakePlan(options));
  const Folder folder(options.dir);
  if (folder.path().empty()) {
    return NotFound(
        Str("[bench] no folder can be made in ",
            options.dir.empty() ? "the system's folder of temporary files" : options.dir));
  }
  const double payload_mb = static_cast<double>(plan.base.sites.size()) * kSiteBytes / 1e6;
  BenchClients clients;
  WEFT_TRY(clients.Start(plan));
  WEFT_TRY_ASSIGN(const Measured measured,
                  RunServer(options, std::move(plan), clients, folder.path()));
  WEFT_TRY(clients.Wait());
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
