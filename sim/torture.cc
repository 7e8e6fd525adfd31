#include "sim/torture.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <deque>
#include <memory>
#include <utility>

#include "aggregator/forward_work.h"
#include "aggregator/jobs.h"
#include "aggregator/merge_work.h"
#include "aggregator/node_jobs.h"
#include "aggregator/strategies/strategy.h"
#include "client/jobs.h"
#include "common/base/str.h"
#include "sim/small_base.h"

namespace weft::sim {
namespace {

constexpr size_t kLastEvents = 20;
// Seeds share that many federations, so that the run without faults is made that often.
constexpr uint64_t kFederations = 4;
constexpr double kForGood_s = 1e7;

// The last of a round's updates is left out of its merge.
void DropAnUpdate(WorkTable& work) {
  work.On<MergeJob>([](const MergeJob& job, JobControl& control) {
    MergeJob wrong = job;
    if (wrong.updates.size() > 1) wrong.updates.pop_back();
    return RunMerge(wrong, control);
  });
}

// A relay forgets one of its members.
void ForwardWithoutOne(WorkTable& work) {
  work.On<ForwardJob>([](const ForwardJob& job, JobControl& control) {
    ForwardJob wrong = job;
    if (wrong.round.updates.size() > 1) wrong.round.updates.pop_back();
    return RunForward(wrong, control);
  });
}

void CountLateInFull(WorkTable& work) {
  work.On<MergeJob>([](const MergeJob& job, JobControl& control) {
    MergeJob wrong = job;
    wrong.plan.staleness_exponent = 0;
    return RunMerge(wrong, control);
  });
}

// What is merged depends on how often this process has merged before.
void Drift(WorkTable& work) {
  work.On<MergeJob>([count = std::make_shared<std::atomic<uint64_t>>(0)](
                        const MergeJob& job, JobControl& control) -> Result<MergeJob::Output> {
    MergeJob wrong = job;
    wrong.updates.front().header.num_examples += (*count)++;
    return RunMerge(wrong, control);
  });
}

// Damaged files are taken as they are.
void TrustTheDisk(WorkTable& work) {
  work.On<CheckSpoolJob>(
      [](const CheckSpoolJob&, JobControl&) { return Result(CheckSpoolJob::Output()); });
}

struct Bug {
  const char* name;
  void (*spoil)(WorkTable& work) = nullptr;
  DiskBug disk = DiskBug::kNone;
};

constexpr std::array kBugs = {
    Bug{"merge-drops-an-update", DropAnUpdate},
    Bug{"merge-drifts", Drift},
    Bug{"relay-drops-an-update", ForwardWithoutOne},
    Bug{"late-counts-in-full", CountLateInFull},
    Bug{"damage-not-looked-for", TrustTheDisk},
    Bug{"disk-acknowledges-early", nullptr, DiskBug::kAcknowledgesEarly},
    Bug{"disk-forgets", nullptr, DiskBug::kForgets},
};

const Bug* FindBug(const std::string& name) {
  const auto found =
      std::find_if(kBugs.begin(), kBugs.end(), [&](const Bug& bug) { return bug.name == name; });
  return found == kBugs.end() ? nullptr : &*found;
}

std::vector<ClientId> NamesOf(const Settings& settings) {
  std::vector<ClientId> names;
  for (int64_t i = 0; i < settings.sim.clients; ++i) names.push_back({Str("client-", i)});
  for (size_t i = 0; i < RelayCount(settings, names.size()); ++i) names.push_back(RelayName(i));
  return names;
}

FaultPlan PlanOf(const Scenario& scenario, const Settings& settings, uint64_t seed) {
  const std::vector<ClientId> names = NamesOf(settings);
  FaultPlan plan = DrawFaultPlan(seed, names, scenario.bounds);
  RandomStream stream = RandomStream::Derive(seed, {"torture", scenario.name});
  for (uint64_t i = 0; i < scenario.lost_clients && i < names.size(); ++i) {
    const Crash last{names[(stream.Below(names.size()) + i) % names.size()],
                     Seconds(stream.Uniform() * scenario.bounds.span_s), Seconds(kForGood_s)};
    std::erase_if(plan.crashes, [&](const Crash& crash) { return crash.node == last.node; });
    plan.crashes.push_back(last);
  }
  return plan;
}

}  // namespace

std::vector<std::string> TortureBugs() {
  std::vector<std::string> names;
  for (const Bug& bug : kBugs) names.emplace_back(bug.name);
  return names;
}

Result<Torture> Torture::Open(const std::filesystem::path& folder, const std::string& bug) {
  if (!bug.empty() && FindBug(bug) == nullptr) {
    return NotFound(Str("[torture] no bug is called \"", bug, "\""));
  }
  if (!std::filesystem::exists(folder / "model.safetensors")) WEFT_TRY(WriteSmallBase(folder));
  Torture torture(folder);
  torture.bug_ = bug;
  return torture;
}

Settings Torture::SettingsOf(const Scenario& scenario, uint64_t seed) const {
  Settings s;
  s.run.name = "torture";
  s.run.seed = 1 + seed % kFederations;
  s.run.num_server_rounds = 3;
  s.run.log_level = "error";
  s.model.path = folder_.string();
  s.model.device = "cpu";
  s.model.threads = 1;
  s.adapter.rank = 4;
  s.adapter.alpha = 8;
  s.adapter.target_modules = {"q_proj", "down_proj"};
  s.train.local_steps = 2;
  s.train.batch_size = 2;
  s.train.lr = 5e-3;
  s.cohort.deadline_s = 120;
  s.cohort.round_retries = 20;
  s.cohort.join_deadline_s = 0;
  s.cohort.evaluate_deadline_s = 60;
  s.server.heartbeat_s = 1;
  s.server.gone_after_s = 15;
  s.sim.clients = 4;
  s.sim.data = (folder_ / "rows.jsonl").string();
  s.sim.eval_rows = 4;
  s.sim.ranks = {2, 4, 6};
  s.sim.workers = 1;
  s.sim.step_cost_ms = 1500;
  s.cohort.min_available_nodes = 0;
  if (scenario.set != nullptr) scenario.set(s);
  if (s.cohort.min_available_nodes == 0) s.cohort.min_available_nodes = s.sim.clients;
  return s;
}

SimulationOptions Torture::OptionsOf(const Scenario& scenario, uint64_t seed) const {
  SimulationOptions options;
  options.settings = SettingsOf(scenario, seed);
  options.write_time = scenario.write_time;
  if (const Bug* bug = FindBug(bug_)) {
    options.spoil = bug->spoil;
    options.disk_bug = bug->disk;
  }
  return options;
}

Result<std::vector<std::string>> Torture::Calm(const Scenario& scenario, uint64_t seed) {
  std::vector<std::string>& hashes = calm_[{std::string(scenario.name), seed % kFederations}];
  if (hashes.empty()) {
    SimulationOptions options = OptionsOf(scenario, seed);
    options.faults = FaultPlan{};  // none, and the checker all the same
    if (!out_.empty()) options.out_dir = Str(out_, "/", scenario.name, "-", seed, "-calm");
    Result<SimulationReport> report = Simulate(std::move(options));
    if (!report.ok()) return report.status().Within("[torture] without faults");
    hashes = std::move(report->adapter_sha256);
  }
  return hashes;
}

TortureOutcome Torture::Run(const Scenario& scenario, uint64_t seed,
                            const std::function<void(const std::string&)>& on_event) {
  TortureOutcome outcome{.scenario = std::string(scenario.name), .seed = seed};
  std::deque<std::string> events;
  SimulationOptions options = OptionsOf(scenario, seed);
  const FaultPlan plan = PlanOf(scenario, options.settings, seed);
  outcome.faults = plan.Text();
  options.faults = plan;
  if (!out_.empty()) options.out_dir = Str(out_, "/", scenario.name, "-", seed);
  options.on_event = [&](const std::string& line) {
    if (on_event) on_event(line);
    events.push_back(line);
    if (events.size() > kLastEvents) events.pop_front();
  };
  const auto run = [&]() -> Status {
    WEFT_TRY_ASSIGN(const SimulationReport report, Simulate(std::move(options)));
    outcome.virtual_s = report.virtual_s;
    outcome.crashes = report.crashes;
    outcome.bit_flips = report.bit_flips;
    outcome.messages = report.messages;
    outcome.looks = report.looks;
    if (!scenario.same_bits) return OkStatus();
    WEFT_TRY_ASSIGN(const std::vector<std::string> calm, Calm(scenario, seed));
    for (size_t i = 0; i < std::max(calm.size(), report.adapter_sha256.size()); ++i) {
      const std::string got = i < report.adapter_sha256.size() ? report.adapter_sha256[i] : "none";
      const std::string wanted = i < calm.size() ? calm[i] : "none";
      if (got == wanted) continue;
      return Internal(Str("[torture] version ", i, " has the hash ", got.substr(0, 16),
                          ", without faults ", wanted.substr(0, 16)));
    }
    return OkStatus();
  };
  outcome.status = run();
  if (!outcome.status.ok()) outcome.last_events.assign(events.begin(), events.end());
  return outcome;
}

}  // namespace weft::sim
