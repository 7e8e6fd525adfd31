// `weft runs diff A B`: two runs round by round.

#include <algorithm>
#include <iostream>
#include <memory>
#include <string>

#include "cli/run_diff.h"
#include "cli/set_up.h"
#include "common/base/str.h"
#include "common/runtime/run_lock.h"

namespace weft::cli {
namespace {

struct DiffOptions {
  std::string a;
  std::string b;
  bool clients = false;
  bool json = false;
};

Result<ListedRun> ReadRun(const std::string& folder) {
  WEFT_TRY_ASSIGN(RunView view, ReadRunView(folder));
  // A client's own state is a ledger too.
  if (view.run.empty()) {
    return FailedPrecondition(
        Str(folder, ": ", view.events == 0 ? "no run has started in it" : "its ledger is no run's",
            "; name a run folder of an aggregator or of weft-sim --out"));
  }
  return ListedRun{folder, std::move(view), RunLockOwner(folder)};
}

std::string Outcome(const RunDiff& diff) {
  const auto compared =
      std::count_if(diff.rounds.begin(), diff.rounds.end(),
                    [](const RoundDiff& round) { return round.adapter_equal.has_value(); });
  if (diff.first_different_round) {
    return Str("adapters differ first in round ", *diff.first_different_round);
  }
  if (compared == 0) return "no round was published by both";
  return Str("adapters are equal in all ", compared, " versions that both published");
}

void Print(const RunDiff& diff, bool clients) {
  const bool terminal = OnTerminal();
  for (const auto& [name, run] : {std::pair("A", diff.a), std::pair("B", diff.b)}) {
    std::cout << name << (terminal ? "  " : "\t")
              << OneLine(Str(run->folder.string(), ": run ", run->view.run, ", ", run->view.state,
                             ", round ", run->view.published, " of ", run->view.num_server_rounds))
              << "\n";
  }
  std::cout << Outcome(diff) << "\n";
  const auto print = [&](const Table& table) {
    if (table.empty()) return;
    std::cout << "\n";
    table.Print(std::cout, terminal);
  };
  print(SettingsDiffTable(diff));
  print(RoundsDiffTable(diff));
  print(ClientsDiffTable(diff, clients));
}

Status Diff(const DiffOptions& options) {
  WEFT_TRY_ASSIGN(const ListedRun a, ReadRun(options.a));
  WEFT_TRY_ASSIGN(const ListedRun b, ReadRun(options.b));
  WEFT_TRY_ASSIGN(const RunDiff diff, DiffRuns(a, b));
  if (options.json) {
    std::cout << RunDiffJson(diff) << "\n";
  } else {
    Print(diff, options.clients);
  }
  return OkStatus();
}

}  // namespace

Action SetUpRunsDiff(CLI::App& app) {
  auto options = std::make_shared<DiffOptions>();
  app.add_option("A", options->a, "run folder")->required();
  app.add_option("B", options->b, "run folder")->required();
  app.add_flag("--clients", options->clients,
               "every client that differs, also in losses, norms and bytes; otherwise only those "
               "that are missing or differ in state, method or rank");
  app.add_flag("--json", options->json, "one JSON object");
  return [options] { return Diff(*options); };
}

}  // namespace weft::cli
