// weft-aggregator run.toml [--set section.key=value]... [--keep-running]

#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "aggregator/daemon.h"
#include "cli/check_run.h"
#include "cli/command.h"
#include "cli/exit_code.h"
#include "cli/failpoint_flags.h"
#include "common/config/load.h"

namespace {

weft::Status Run(const weft::SettingsSource& source, bool keep_running) {
  weft::AggregatorDaemon daemon;
  WEFT_TRY_ASSIGN(daemon.settings, weft::LoadSettings(source));
  WEFT_TRY(weft::cli::CheckRun(daemon.settings));
  daemon.keep_running = keep_running;
  return weft::RunAggregatorDaemon(std::move(daemon));
}

}  // namespace

int main(int argc, char** argv) {
  if (weft::cli::ListFailpoints(argc, argv, "aggregator")) return weft::cli::kExitCompleted;
  CLI::App app{"Runs one federated fine-tuning run; started again on its folder, it goes on"};
  app.footer(
      "Exit codes: 0 completed, 1 failed, 2 usage, 4 stopped (SIGTERM, weft runs stop), 70 a bug "
      "of ours");
  weft::SettingsSource source;
  bool keep_running = false;
  std::string file;
  app.add_option("config", file, "the run's TOML file, e.g. from `weft init`")->required();
  app.add_option("--set", source.overrides, "section.key=value, over the file; may be repeated")
      ->allow_extra_args(false);
  app.add_flag("--keep-running", keep_running,
               "stay up after the run, to tell late clients that it is over");
  weft::cli::AddFailpointFlags(app, "aggregator");
  app.set_version_flag("--version", "weft-aggregator 0.1.0");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return weft::cli::ExitOfParseError(app, error, "weft-aggregator");
  }
  source.file = file;
  return weft::cli::RunDaemon("weft-aggregator", [&](bool*) { return Run(source, keep_running); });
}
