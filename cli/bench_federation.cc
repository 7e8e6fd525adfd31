#include "cli/bench_federation.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <fstream>
#include <iostream>
#include <optional>

#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "aggregator/merge_work.h"
#include "aggregator/node_jobs.h"
#include "client/jobs.h"
#include "common/base/str.h"
#include "common/codec/adapter_block.h"
#include "common/config/load.h"
#include "common/crypto/digest.h"
#include "common/runtime/run_events.h"
#include "common/tensor/torch.h"

namespace weft::cli {
namespace {

constexpr int64_t kRank = 8;
constexpr int64_t kSide = 1024;
constexpr double kSiteBytes = kRank * 2 * kSide * 4;

// Values without zeros or repetitions.
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

// Waiting for what others write, together at most so long.
class Deadline {
 public:
  explicit Deadline(double limit_s) : end_(Steady::now() + Seconds(limit_s)) {}

  /// False when the time is over first. True too when the other end is closed.
  [[nodiscard]] bool Readable(int fd) const {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end_ - Steady::now());
    pollfd polled{fd, POLLIN, 0};
    return ::poll(&polled, 1, static_cast<int>(std::max<int64_t>(left.count(), 0))) > 0;
  }

 private:
  using Steady = std::chrono::steady_clock;
  Steady::time_point end_;
};

Status TooLong(const std::string& process, double limit_s) {
  return DeadlineExceeded(
      Str("[bench] process ", process, ": nothing came for ", limit_s, " s, it stands still"));
}

}  // namespace

std::string BenchName(size_t index) {
  const std::string digits = Str(index);
  return "c" + std::string(5 - std::min<size_t>(5, digits.size()), '0') + digits;
}

Result<BenchPlan> MakeBenchPlan(const BenchShape& shape) {
  if (!(shape.payload_mb > 0)) {  // not a number either
    return InvalidArgument(
        Str("[bench] --payload-mb: got ", shape.payload_mb, ", wanted a number above 0"));
  }
  BenchPlan plan;
  plan.base.hash = Sha256Hex(AsBytes(shape.what));
  const auto sites = std::max<int64_t>(1, std::llround(shape.payload_mb * 1e6 / kSiteBytes));
  for (int64_t i = 0; i < sites; ++i) {
    plan.base.sites.push_back({Str("model.layers.", i, ".mlp.up_proj"), kSide, kSide});
  }
  plan.payload_mb = static_cast<double>(sites) * kSiteBytes / 1e6;
  Settings& settings = plan.settings;
  settings.run.name = "bench";
  settings.run.num_server_rounds = shape.rounds + 1;
  settings.adapter.rank = kRank;
  settings.adapter.alpha = 2 * kRank;
  settings.adapter.target_modules = {"up_proj"};
  settings.strategy.name = shape.strategy;
  settings.strategy.global_rank = kRank;
  settings.cohort.min_available_nodes = settings.cohort.min_train_nodes = shape.clients;
  settings.cohort.fraction_evaluate = 0;
  settings.server.uploads_at_once = shape.uploads_at_once;
  WEFT_TRY_ASSIGN(plan.server, NewKeyPair());
  for (int64_t i = 0; i < shape.clients; ++i) {
    WEFT_TRY_ASSIGN(KeyPair keys, NewKeyPair());
    plan.clients.push_back(std::move(keys));
  }
  return plan;
}

ClientOptions BenchClientOptions(const BenchPlan& plan, size_t index) {
  ClientOptions options;
  options.name = ClientId{BenchName(index)};
  options.base = plan.base;
  options.offer.software = "weft bench";
  options.offer.device = "cpu";
  options.offer.rank_max = kRank;
  options.offer.num_examples = 1;
  options.offer.methods = {"lora"};
  options.offer.codecs = {"float32"};
  options.backoff_first = Seconds(0.05);
  return options;
}

void RegisterBenchTraining(WorkTable& table) { table.On<TrainJob>(SendBack); }

double MemoryMb(const std::string& key) {
  std::ifstream status("/proc/self/status");
  std::string word;
  double kilobytes = 0;
  while (status >> word) {
    if (word == key + ":" && status >> kilobytes) return kilobytes / 1024;
  }
  return 0;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  if (values.empty()) return 0;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

double Quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  const double rank = std::ceil(share * static_cast<double>(values.size()));
  const auto at = static_cast<std::ptrdiff_t>(std::max(rank, 1.0)) - 1;
  std::nth_element(values.begin(), values.begin() + at, values.end());
  return values[static_cast<size_t>(at)];
}

// ---- the folder ----

Result<std::unique_ptr<BenchFolder>> BenchFolder::Make(const std::string& parent) {
  std::string name =
      (parent.empty() ? std::filesystem::temp_directory_path() : std::filesystem::path(parent)) /
      "weft-bench-XXXXXX";
  if (::mkdtemp(name.data()) != nullptr) {
    return std::unique_ptr<BenchFolder>(new BenchFolder(name));
  }
  return NotFound(Str("[bench] no folder can be made in ",
                      parent.empty() ? "the system's folder of temporary files" : parent));
}

BenchFolder::~BenchFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

// ---- child processes ----

std::string Pipes::ReadLine() const {
  std::string line;
  char letter = 0;
  while (::read(commands, &letter, 1) == 1 && letter != '\n') line += letter;
  return letter == '\n' ? line : "";
}

void Pipes::Write(std::string_view bytes) const {
  while (!bytes.empty()) {
    const ssize_t written = ::write(report, bytes.data(), bytes.size());
    if (written <= 0) return;  // the parent is gone, and this process with it
    bytes.remove_prefix(static_cast<size_t>(written));
  }
}

BenchProcesses::~BenchProcesses() {
  for (const Child& child : children_) {
    if (!child.ended) {
      ::kill(child.pid, SIGKILL);
      ::waitpid(child.pid, nullptr, 0);
    }
    if (child.pipes.commands >= 0) ::close(child.pipes.commands);
    ::close(child.pipes.report);
  }
}

void BenchProcesses::RunChild(const std::string& name, const Main& main, const Pipes& pipes) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  for (const Child& other : children_) {
    ::close(other.pipes.commands);
    ::close(other.pipes.report);
  }
  const Status status = main(pipes);
  if (!status.ok()) std::cerr << name << ": " << status.message() << "\n";
  ::_exit(status.ok() ? 0 : 1);
}

Status BenchProcesses::Start(const std::string& name, const Main& main) {
  int commands[2];
  int report[2];
  const Status no_pipe = ResourceExhausted(Str("[bench] no pipe for another process, ", name));
  if (::pipe(commands) != 0) return no_pipe;
  if (::pipe(report) != 0) {
    ::close(commands[0]);
    ::close(commands[1]);
    return no_pipe;
  }
  ::signal(SIGPIPE, SIG_IGN);  // a process that is gone shows when it is written to
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::close(commands[1]);
    ::close(report[0]);
    RunChild(name, main, {.commands = commands[0], .report = report[1]});
  }
  ::close(commands[0]);
  ::close(report[1]);
  if (pid > 0) {
    children_.push_back(
        {.name = name, .pid = pid, .pipes = {.commands = commands[1], .report = report[0]}});
    return OkStatus();
  }
  ::close(commands[1]);
  ::close(report[0]);
  return ResourceExhausted(Str("[bench] the system starts no other process, ", name));
}

Status BenchProcesses::Tell(size_t process, const std::string& line) {
  const Child& child = children_.at(process);
  const std::string whole = line + "\n";
  const ssize_t written = ::write(child.pipes.commands, whole.data(), whole.size());
  if (written == static_cast<ssize_t>(whole.size())) return OkStatus();
  return Unavailable(Str("[bench] process ", child.name, " is gone"));
}

Status BenchProcesses::TellAll(const std::string& line) {
  for (size_t i = 0; i < children_.size(); ++i) WEFT_TRY(Tell(i, line));
  return OkStatus();
}

Result<std::string> BenchProcesses::Hear(size_t process, double limit_s) {
  const Child& child = children_.at(process);
  const Deadline deadline(limit_s);
  std::string line;
  char letter = 0;
  while (deadline.Readable(child.pipes.report)) {
    if (::read(child.pipes.report, &letter, 1) != 1) {
      return Unavailable(Str("[bench] process ", child.name, " is gone"));
    }
    if (letter == '\n') return line;
    line += letter;
  }
  return TooLong(child.name, limit_s);
}

Status BenchProcesses::OutcomeOf(const Child& child) {
  if (WIFEXITED(child.state) && WEXITSTATUS(child.state) == 0) return OkStatus();
  return Internal(Str("[bench] process ", child.name,
                      WIFEXITED(child.state) ? " failed" : " was ended by a signal"));
}

Status BenchProcesses::Check() {
  for (Child& child : children_) {
    if (!child.ended) child.ended = ::waitpid(child.pid, &child.state, WNOHANG) == child.pid;
    if (child.ended) WEFT_TRY(OutcomeOf(child));
  }
  return OkStatus();
}

Result<std::vector<std::string>> BenchProcesses::Wait(double limit_s) {
  const Deadline deadline(limit_s);
  std::vector<std::string> reports;
  Status outcome;
  for (Child& child : children_) {
    ::close(child.pipes.commands);
    child.pipes.commands = -1;
  }
  for (Child& child : children_) {
    std::string report;
    char buffer[4096];
    for (ssize_t got = 1; got > 0;) {
      if (!deadline.Readable(child.pipes.report)) return TooLong(child.name, limit_s);
      got = ::read(child.pipes.report, buffer, sizeof(buffer));
      if (got > 0) report.append(buffer, static_cast<size_t>(got));
    }
    reports.push_back(std::move(report));
    if (!child.ended) ::waitpid(child.pid, &child.state, 0);
    child.ended = true;
    if (outcome.ok()) outcome = OutcomeOf(child);
  }
  if (!outcome.ok()) return outcome;
  return reports;
}

// ---- the aggregator ----

BenchAggregator::BenchAggregator(EventLoop& loop, const std::string& log_level)
    : logger_(
          "aggregator", log::StderrSink(), [&loop] { return loop.WallMicros(); },
          log::LevelFromName(log_level)),
      entropy_(RandomStream::Derive(1, {"bench", "aggregator"})) {}

Status BenchAggregator::Open(EventLoop& loop, BenchPlan plan, const std::filesystem::path& folder) {
  std::ofstream allowed(folder / "allow.txt");
  for (size_t i = 0; i < plan.clients.size(); ++i) {
    allowed << plan.clients[i].public_key << " " << BenchName(i) << "\n";
  }
  allowed.close();
  if (!allowed) return ResourceExhausted("[bench] the allow-list cannot be written");
  WEFT_TRY_ASSIGN(
      store_,
      FileStore::Open({.folder = folder / "run",
                       .post = [&loop](std::function<void()> done) { loop.Post(std::move(done)); },
                       .wall_us = [&loop] { return loop.WallMicros(); }}));
  RegisterMergeWork(table_);
  RegisterNodeJobs(table_);
  executor_ = std::make_unique<ThreadExecutor>(loop, table_, 1, [] { at::set_num_threads(1); });
  WEFT_TRY_ASSIGN(server_, ZmqServer::Bind(loop, {.endpoint = "tcp://127.0.0.1:*",
                                                  .keys = std::move(plan.server),
                                                  .allow_list = folder / "allow.txt",
                                                  .log = &logger_}));
  AggregatorOptions options;
  options.settings = plan.settings;
  options.settings_toml = ToToml(plan.settings, true);
  options.base = plan.base;
  node_ = std::make_unique<AggregatorNode>(
      Env{loop, *server_, *executor_, *store_, entropy_, logger_}, std::move(options));
  WEFT_TRY(node_->Start());
  bool published = false;
  loop.RunUntil([&] {
    published = published || !store_->ListBlobs("state/").empty();
    return published || node_->Finished();
  });
  return published ? OkStatus() : node_->Outcome();
}

Result<std::unique_ptr<BenchAggregator>> BenchAggregator::Start(EventLoop& loop, BenchPlan plan,
                                                                const std::filesystem::path& folder,
                                                                const std::string& log_level) {
  std::unique_ptr<BenchAggregator> aggregator(new BenchAggregator(loop, log_level));
  WEFT_TRY(aggregator->Open(loop, std::move(plan), folder));
  return aggregator;
}

std::vector<double> BenchAggregator::RoundTimes() const {
  std::vector<double> times;
  std::optional<int64_t> before;
  const Result<std::vector<LedgerEvent>> ledger = store_->ReadLedger();
  if (!ledger.ok()) return times;
  uint32_t versions = 0;
  for (const LedgerEvent& row : *ledger) {
    if (row.kind != RoundPublished::kKind) continue;
    if (versions++ >= 2) times.push_back(static_cast<double>(row.wall_us - *before) * 1e-6);
    before = row.wall_us;
  }
  return times;
}

}  // namespace weft::cli
