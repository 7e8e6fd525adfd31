// `weft-sim torture --seeds A..B [--scenario S]`: every seed in every scenario, in as many
// processes as there are cores, so that one that crashes is a failure like any other and costs
// nobody else his run.

#include "cli/torture.h"

#include <array>
#include <chrono>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <set>
#include <sstream>
#include <thread>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/whole_number.h"
#include "common/base/check.h"
#include "common/base/str.h"
#include "sim/torture.h"

#ifndef WEFT_COMMIT
#define WEFT_COMMIT "unknown"
#endif

namespace weft::cli {
namespace {

using Json = nlohmann::ordered_json;

// Of real time, for one case; the longest takes about a second.
constexpr unsigned kCaseMax_s = 300;

struct Options {
  std::string seeds;
  std::vector<std::string> scenarios;
  int64_t workers = 0;
  std::string folder;
  std::string log;
  std::string bug;
  std::string out;
  bool json = false;
  bool list = false;
  bool trace = false;
};

struct Case {
  const sim::Scenario* scenario;
  uint64_t seed;
};

std::string KeyOf(std::string_view scenario, uint64_t seed) { return Str(scenario, " ", seed); }

Result<std::pair<uint64_t, uint64_t>> ReadSeeds(const std::string& text) {
  const size_t dots = text.find("..");
  const auto number = [](const std::string& digits) -> std::optional<uint64_t> {
    uint64_t value = 0;
    const char* const end = digits.data() + digits.size();
    const auto [stop, error] = std::from_chars(digits.data(), end, value);
    if (digits.empty() || error != std::errc() || stop != end) return std::nullopt;
    return value;
  };
  const auto first = number(text.substr(0, dots));
  const auto last = dots == std::string::npos ? first : number(text.substr(dots + 2));
  if (first && last && *first <= *last && *last - *first < 10'000'000) {
    return std::pair(*first, *last);
  }
  return InvalidArgument(Str("--seeds: got \"", text, "\", wanted A..B, both included, A ≤ B"));
}

Json ToJson(const sim::TortureOutcome& outcome) {
  Json out{{"scenario", outcome.scenario}, {"seed", outcome.seed},
           {"ok", outcome.status.ok()},    {"virtual_s", outcome.virtual_s},
           {"crashes", outcome.crashes},   {"bit_flips", outcome.bit_flips},
           {"messages", outcome.messages}, {"looks", outcome.looks}};
  if (outcome.status.ok()) return out;
  out["error"] = outcome.status.message();
  out["faults"] = outcome.faults;
  out["last_events"] = outcome.last_events;
  return out;
}

// One process's share of the cases: a line when one begins and a line with what came of it.
[[noreturn]] void WorkInChild(const Options& options, const std::vector<Case>& cases, size_t first,
                              size_t step, int out) {
  const auto tell = [out](const Json& line) {
    const std::string text = line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
    for (size_t sent = 0; sent < text.size();) {
      const ssize_t count = ::write(out, text.data() + sent, text.size() - sent);
      if (count <= 0) ::_exit(3);
      sent += static_cast<size_t>(count);
    }
  };
  // What its nodes log of the trouble they are in would drown what matters.
  const int nowhere = ::open("/dev/null", O_WRONLY);
  if (nowhere >= 0) ::dup2(nowhere, STDERR_FILENO);
  Result<sim::Torture> torture = sim::Torture::Open(options.folder, options.bug);
  if (!torture.ok()) {
    tell({{"fatal", torture.status().ToString()}});
    ::_exit(2);
  }
  if (!options.out.empty()) torture->WriteRunsTo(options.out);
  for (size_t i = first; i < cases.size(); i += step) {
    ::alarm(kCaseMax_s);
    tell({{"begins", cases[i].scenario->name}, {"seed", cases[i].seed}});
    try {
      const auto trace = [&](const std::string& event) {
        if (options.trace) tell({{"event", event}});
      };
      tell(ToJson(torture->Run(*cases[i].scenario, cases[i].seed, trace)));
    } catch (const std::exception& error) {
      tell({{"scenario", cases[i].scenario->name},
            {"seed", cases[i].seed},
            {"ok", false},
            {"error", error.what()}});
    }
  }
  ::_exit(0);
}

struct Child {
  pid_t pid = 0;
  int in = -1;
  std::string buffer;
  Json running;  // the case it is at
};

class Campaign {
 public:
  Campaign(const Options& options, std::vector<Case> cases)
      : options_(options), cases_(std::move(cases)) {}

  Status Run() {
    WEFT_TRY(ReadLog());
    const auto began = std::chrono::steady_clock::now();
    const size_t cores = std::max(1U, std::thread::hardware_concurrency());
    const size_t workers = std::min(
        options_.workers > 0 ? static_cast<size_t>(options_.workers) : cores, cases_.size());
    for (size_t i = 0; i < workers; ++i) WEFT_TRY(Start(i, workers));
    while (!children_.empty()) WEFT_TRY(Read());
    wall_s_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    Report(workers);
    if (failed_.empty()) return OkStatus();
    return Internal(Str("[torture] ", failed_.size(), " of ", done_, " cases broke a rule"));
  }

 private:
  // Cases of an earlier sitting are not run again.
  Status ReadLog() {
    if (options_.log.empty()) return OkStatus();
    std::ifstream lines(options_.log);
    std::set<std::string> known;
    for (std::string line; std::getline(lines, line);) {
      const Json outcome = Json::parse(line, nullptr, false);
      if (!outcome.is_object() || !outcome.contains("ok")) continue;  // cut off in the middle
      if (known.insert(KeyOf(outcome["scenario"].get<std::string>(), outcome["seed"])).second) {
        Count(outcome);
      }
    }
    std::erase_if(cases_, [&](const Case& each) {
      return known.contains(KeyOf(each.scenario->name, each.seed));
    });
    log_.open(options_.log, std::ios::app);
    if (log_.good()) return OkStatus();
    return Unavailable(Str("[torture] ", options_.log, ": cannot be written"));
  }

  Status Start(size_t index, size_t workers) {
    int ends[2];
    if (::pipe(ends) != 0) return Unavailable("[torture] no pipe to another process");
    std::cout.flush();
    const pid_t pid = ::fork();
    if (pid < 0) return Unavailable("[torture] no further process");
    if (pid == 0) {
      ::close(ends[0]);
      WorkInChild(options_, cases_, index, workers, ends[1]);
    }
    ::close(ends[1]);
    children_.push_back({.pid = pid, .in = ends[0]});
    return OkStatus();
  }

  Status Read() {
    std::vector<pollfd> wanted;
    for (const Child& child : children_) wanted.push_back({child.in, POLLIN, 0});
    if (::poll(wanted.data(), wanted.size(), -1) < 0) return OkStatus();
    for (size_t i = wanted.size(); i-- > 0;) {
      if (wanted[i].revents == 0) continue;
      Child& child = children_[i];
      std::array<char, 65536> bytes;
      const ssize_t count = ::read(child.in, bytes.data(), bytes.size());
      if (count <= 0) {
        WEFT_TRY(End(child));
        children_.erase(children_.begin() + static_cast<std::ptrdiff_t>(i));
        continue;
      }
      child.buffer.append(bytes.data(), static_cast<size_t>(count));
      WEFT_TRY(TakeLines(child));
    }
    return OkStatus();
  }

  Status TakeLines(Child& child) {
    for (size_t end = child.buffer.find('\n'); end != std::string::npos;
         end = child.buffer.find('\n')) {
      Json line = Json::parse(child.buffer.substr(0, end));
      child.buffer.erase(0, end + 1);
      if (line.contains("fatal")) return Unavailable(line["fatal"].get<std::string>());
      if (line.contains("begins")) {
        child.running = line;
        continue;
      }
      if (line.contains("event")) {
        std::cerr << line["event"].get<std::string>() << "\n";
        continue;
      }
      child.running = nullptr;
      Take(line);
    }
    return OkStatus();
  }

  Status End(Child& child) {
    ::close(child.in);
    int how = 0;
    ::waitpid(child.pid, &how, 0);
    if (child.running.is_null()) return OkStatus();
    const std::string died = WIFSIGNALED(how) ? Str("died of signal ", WTERMSIG(how))
                                              : Str("ended with code ", WEXITSTATUS(how));
    Take({{"scenario", child.running["begins"]},
          {"seed", child.running["seed"]},
          {"ok", false},
          {"error", Str("[torture] its process ", died, ", and its other cases were not run")}});
    return OkStatus();
  }

  void Take(const Json& outcome) {
    if (log_.is_open()) log_ << outcome.dump() << std::endl;
    Count(outcome);
    if (outcome["ok"].get<bool>()) return;
    Json shown = outcome;
    std::cerr << "weft-sim torture: " << DescribeFailure(shown);
  }

  std::string DescribeFailure(const Json& outcome) const {
    const auto scenario = outcome["scenario"].get<std::string>();
    std::string text = Str("scenario ", scenario, ", seed ", outcome["seed"].get<uint64_t>(),
                           ", commit ", WEFT_COMMIT, ": ", outcome["error"].get<std::string>(),
                           "\n", outcome.value("faults", std::string()));
    for (const Json& event : outcome.value("last_events", Json::array())) {
      text += Str("    ", event.get<std::string>(), "\n");
    }
    return text + Str("  again: weft-sim torture --seeds ", outcome["seed"].get<uint64_t>(), "..",
                      outcome["seed"].get<uint64_t>(), " --scenario ", scenario, "\n");
  }

  void Count(const Json& outcome) {
    ++done_;
    virtual_s_ += outcome.value("virtual_s", 0.0);
    crashes_ += outcome.value("crashes", uint64_t{0});
    bit_flips_ += outcome.value("bit_flips", uint64_t{0});
    messages_ += outcome.value("messages", uint64_t{0});
    looks_ += outcome.value("looks", uint64_t{0});
    if (!outcome["ok"].get<bool>()) failed_.push_back(outcome);
  }

  void Report(size_t workers) const {
    const double hours = virtual_s_ / 3600;
    if (options_.json) {
      Json names = Json::array();
      for (const std::string& name : options_.scenarios) names.push_back(name);
      std::cout << Json{{"seeds", options_.seeds}, {"scenarios", names},
                        {"cases", done_},          {"passed", done_ - failed_.size()},
                        {"failed", failed_},       {"virtual_hours", hours},
                        {"crashes", crashes_},     {"bit_flips", bit_flips_},
                        {"messages", messages_},   {"checks", looks_},
                        {"wall_s", wall_s_},       {"workers", workers},
                        {"commit", WEFT_COMMIT}}
                       .dump(-1, ' ', false, Json::error_handler_t::replace)
                << "\n";
      return;
    }
    std::cout << done_ << " cases, " << failed_.size() << " failed: " << hours << " virtual hours, "
              << crashes_ << " processes killed, " << bit_flips_ << " files damaged, " << messages_
              << " messages, " << looks_ << " looks of the checker, in " << wall_s_ << " s on "
              << workers << " processes\n";
  }

  const Options& options_;
  std::vector<Case> cases_;
  std::vector<Child> children_;
  std::ofstream log_;
  uint64_t done_ = 0;
  double virtual_s_ = 0;
  uint64_t crashes_ = 0;
  uint64_t bit_flips_ = 0;
  uint64_t messages_ = 0;
  uint64_t looks_ = 0;
  double wall_s_ = 0;
  std::vector<Json> failed_;
};

// The base model's folder, removed at the end unless the user named it.
class Folder {
 public:
  explicit Folder(std::string named) : path_(std::move(named)), own_(path_.empty()) {
    if (!own_) return;
    std::string pattern = (std::filesystem::temp_directory_path() / "weft-torture-XXXXXX").string();
    if (::mkdtemp(pattern.data()) != nullptr) path_ = pattern;
  }
  ~Folder() {
    std::error_code ignored;
    if (own_ && !path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
  bool own_;
};

// In a process of its own: this one is to fork, and has not started torch's threads.
Status WriteBase(const Options& options) {
  const pid_t pid = ::fork();
  if (pid < 0) return Unavailable("[torture] no further process");
  if (pid == 0) ::_exit(sim::Torture::Open(options.folder, options.bug).ok() ? 0 : 1);
  int how = 0;
  ::waitpid(pid, &how, 0);
  if (WIFEXITED(how) && WEXITSTATUS(how) == 0) return OkStatus();
  return Unavailable(Str("[torture] the base model could not be written to ", options.folder));
}

Status Run(Options options) {
  if (options.list) {
    for (const sim::Scenario& scenario : sim::Scenarios()) {
      std::cout << scenario.name << "  " << scenario.what << "\n";
    }
    return OkStatus();
  }
  WEFT_TRY_ASSIGN(const auto seeds, ReadSeeds(options.seeds));
  std::vector<const sim::Scenario*> scenarios;
  if (options.scenarios.empty()) {
    for (const sim::Scenario& each : sim::Scenarios()) options.scenarios.emplace_back(each.name);
  }
  for (const std::string& name : options.scenarios) {
    WEFT_TRY_ASSIGN(const sim::Scenario* scenario, sim::FindScenario(name));
    scenarios.push_back(scenario);
  }
  const Folder folder(options.folder);
  options.folder = folder.path();
  if (options.folder.empty()) return Unavailable("[torture] no temporary folder could be made");
  WEFT_TRY(WriteBase(options));
  std::vector<Case> cases;
  for (uint64_t seed = seeds.first; seed <= seeds.second; ++seed) {
    for (const sim::Scenario* scenario : scenarios) cases.push_back({scenario, seed});
  }
  return Campaign(options, std::move(cases)).Run();
}

}  // namespace

Action SetUpTorture(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.description(
      "Puts small federations through faults drawn from seeds and checks all along that "
      "nothing accepted is lost or counted twice, that everything ends, and that the "
      "adapters have the bits they have without faults");
  app.add_option("--seeds", options->seeds, "A..B, both included; one number: that seed");
  app.add_option("--scenario", options->scenarios, "of --list; may be repeated (default: all)")
      ->allow_extra_args(false);
  app.add_option("--workers", options->workers, "processes (default: cores)")
      ->check(WholeNumber(int64_t{1}, int64_t{1024}));
  app.add_option("--folder", options->folder,
                 "keep the base model here (default: a temporary folder)");
  app.add_option(
      "--log", options->log,
      "append what came of each case, a JSON line; cases that are there are not run again");
  app.add_option(
      "--bug", options->bug, "break the system on purpose, to see that it is noticed: " + [] {
        std::string names;
        for (const std::string& name : sim::TortureBugs()) {
          names += Str(names.empty() ? "" : ", ", name);
        }
        return names;
      }());
  app.add_option("--out", options->out,
                 "write a run folder of each case, and of the same run without faults");
  app.add_flag("--trace", options->trace, "every event on stderr, a line each");
  app.add_flag("--list", options->list, "the scenarios, a line each");
  app.add_flag("--json", options->json, "one JSON object on stdout");
  return [options]() -> Status {
    if (!options->list && options->seeds.empty()) {
      return InvalidArgument("--seeds: got none, wanted A..B");
    }
    return Run(*options);
  };
}

}  // namespace weft::cli
