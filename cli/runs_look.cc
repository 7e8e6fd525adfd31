// `weft runs list ROOT`, `weft runs show RUN`, `weft runs rounds RUN`: what has happened so far.

#include <algorithm>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "cli/run_rows.h"
#include "cli/set_up.h"
#include "cli/table.h"
#include "cli/whole_number.h"
#include "common/base/str.h"
#include "common/runtime/ledger_db.h"
#include "common/runtime/run_lock.h"
#include "common/runtime/run_view.h"

namespace weft::cli {
namespace {

namespace fs = std::filesystem;

constexpr int kListDepthMax = 3;

// Run folders at or below `root`; a run folder's own subfolders are not searched.
void FindRuns(const fs::path& root, int depth, std::vector<fs::path>& found) {
  std::error_code error;
  if (fs::is_regular_file(root / kLedgerFile, error)) {
    found.push_back(root);
    return;
  }
  if (depth == 0) return;
  for (fs::directory_iterator it(root, error), end; !error && it != end; it.increment(error)) {
    std::error_code ignored;
    if (it->is_directory(ignored)) FindRuns(it->path(), depth - 1, found);
  }
}

Status List(const fs::path& root, bool json) {
  std::error_code error;
  if (!fs::is_directory(root, error)) {
    return NotFound(Str(root.string(), ": no such folder; name the one that holds run folders"));
  }
  std::vector<fs::path> folders;
  FindRuns(root, kListDepthMax, folders);
  std::sort(folders.begin(), folders.end());
  std::vector<ListedRun> runs;
  for (const fs::path& folder : folders) {
    ListedRun run{folder, {}, RunLockOwner(folder)};
    Result<RunView> view = ReadRunView(folder);
    // A client's own state is a ledger too, but no run.
    if (view.ok() && view->run.empty() && view->events > 0) continue;
    // One damaged run must not hide the others.
    if (view.ok()) {
      run.view = std::move(view).value();
    } else {
      run.view.state = "unreadable";
      run.view.reason = view.status().message();
      std::cerr << "weft runs list: " << OneLine(view.status().message()) << "\n";
    }
    runs.push_back(std::move(run));
  }
  if (json) {
    std::cout << RunsJson(runs) << "\n";
  } else if (runs.empty()) {
    std::cerr << "no runs at or below " << root.string() << "\n";
  } else {
    RunsTable(runs).Print(std::cout, OnTerminal());
  }
  return OkStatus();
}

void PrintHead(const ListedRun& run) {
  const RunView& v = run.view;
  const auto line = [](const char* name, const std::string& value) {
    if (OnTerminal()) {
      std::cout << name << std::string(12 - std::string(name).size(), ' ') << OneLine(value)
                << "\n";
    } else {
      std::cout << name << "\t" << OneLine(value) << "\n";
    }
  };
  line("run", v.run);
  line("state", v.state + (v.reason.empty() ? "" : ": " + v.reason));
  line("aggregator", run.aggregator ? Str("process ", *run.aggregator) : "not at work");
  line("round", Str(v.published, " of ", v.num_server_rounds));
  if (v.best_round) {
    line("best", Str("round ", *v.best_round, ", loss ", Cell::Number(v.best_loss, 4).terminal,
                     v.best_by.empty() ? "" : " by " + v.best_by));
  }
  line("strategy", v.strategy);
  line("seed", Str(v.seed));
  line("adapter", Str(v.adapter.method, ", rank ", v.adapter.rank, ", ", v.sites, " sites"));
  line("base", v.base_hash);
  line("software", v.software);
  line("started", Cell::Time(v.started_us).terminal);
  line("finished", Cell::Time(v.finished_us).terminal);
  if (v.resumed > 0) line("resumed", Str(v.resumed, " times"));
  for (const RoundRow& round : v.rounds) {
    if (round.round == v.published && !round.peft_folder.empty()) {
      line("adapter in", (run.folder / round.peft_folder).string());
    }
  }
  if (v.posterior) {
    line("posterior", Str("precision ", Cell::Number(v.posterior->precision, 4).terminal, ", of ",
                          v.posterior->examples, " examples, in ",
                          (run.folder / v.posterior->file.name).string()));
  }
}

Status Show(const fs::path& folder, bool json) {
  WEFT_TRY_ASSIGN(RunView view, ReadRunView(folder));
  const ListedRun run{folder, std::move(view), RunLockOwner(folder)};
  if (json) {
    std::cout << RunJson(run) << "\n";
    return OkStatus();
  }
  PrintHead(run);
  if (!run.view.members.empty()) {
    std::cout << "\n";
    MembersTable(run.view).Print(std::cout, OnTerminal());
  }
  if (!Shipped(run.view).empty()) {
    std::cout << "\n";
    ShippedTable(run.view).Print(std::cout, OnTerminal());
  }
  return OkStatus();
}

struct RoundsOptions {
  std::string folder;
  bool json = false;
  bool clients = false;
  int64_t round = -1;
};

Status Rounds(const RoundsOptions& options) {
  WEFT_TRY_ASSIGN(const RunView view, ReadRunView(options.folder));
  std::optional<uint32_t> only;
  if (options.round >= 0) {
    only = static_cast<uint32_t>(options.round);
    const bool there = std::any_of(view.rounds.begin(), view.rounds.end(),
                                   [&](const RoundRow& row) { return row.round == *only; });
    if (!there) {
      return NotFound(Str(options.folder, ": no round ", *only, "; the newest is ",
                          view.rounds.empty() ? 0 : view.rounds.back().round));
    }
  }
  if (options.json) {
    std::cout << RoundsJson(view, only) << "\n";
  } else if (options.clients || only) {
    ClientsTable(view, only).Print(std::cout, OnTerminal());
  } else {
    RoundsTable(view).Print(std::cout, OnTerminal());
  }
  return OkStatus();
}

struct FolderOptions {
  std::string folder;
  bool json = false;
};

}  // namespace

Action SetUpRunsList(CLI::App& app) {
  auto options = std::make_shared<FolderOptions>();
  options->folder = ".";
  app.add_option("ROOT", options->folder, "folder that holds run folders (default: this one)");
  app.add_flag("--json", options->json, "one JSON object");
  return [options] { return List(options->folder, options->json); };
}

Action SetUpRunsShow(CLI::App& app) {
  auto options = std::make_shared<FolderOptions>();
  app.add_option("RUN", options->folder, "run folder")->required();
  app.add_flag("--json", options->json, "one JSON object");
  return [options] { return Show(options->folder, options->json); };
}

Action SetUpRunsRounds(CLI::App& app) {
  auto options = std::make_shared<RoundsOptions>();
  app.add_option("RUN", options->folder, "run folder")->required();
  app.add_flag("--clients", options->clients, "one line per round and client");
  app.add_option("--round", options->round, "the clients of this round only")
      ->check(WholeNumber(int64_t{0}, int64_t{UINT32_MAX}));
  app.add_flag("--json", options->json, "one JSON object, clients included");
  return [options] { return Rounds(*options); };
}

}  // namespace weft::cli
