// `weft runs repair RUN`: cut a damaged ledger before its first bad row.

#include <iostream>
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "cli/set_up.h"
#include "common/runtime/run_repair.h"

namespace weft::cli {
namespace {

struct Options {
  std::string folder;
  bool json = false;
};

Status Run(const Options& options) {
  WEFT_TRY_ASSIGN(const RepairReport report, RepairLedger(options.folder));
  if (options.json) {
    const nlohmann::ordered_json json = {
        {"rows", report.rows}, {"damage", report.damage}, {"kept", report.kept}};
    std::cout << json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace)
              << "\n";
  } else if (report.damage.empty()) {
    std::cout << "nothing to repair: all " << report.rows << " rows are whole\n";
  } else {
    std::cout << report.damage << "\ncut before it: " << report.rows
              << " rows are left; the damaged ledger is kept as " << report.kept
              << "\ngo on with: weft runs resume " << options.folder << "\n";
  }
  return OkStatus();
}

}  // namespace

Action SetUpRunsRepair(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("RUN", options->folder, "run folder")->required();
  app.add_flag("--json", options->json, "one JSON object");
  return [options] { return Run(*options); };
}

}  // namespace weft::cli
