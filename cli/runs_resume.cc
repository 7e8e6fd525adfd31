// `weft runs resume RUN`: go on with a run from its folder alone, as its aggregator would that is
// started again on the run's TOML file.

#include <memory>
#include <string>
#include <vector>

#include "aggregator/daemon.h"
#include "cli/check_run.h"
#include "cli/set_up.h"
#include "common/base/str.h"
#include "common/config/load.h"
#include "common/runtime/run_lock.h"
#include "common/runtime/run_view.h"

namespace weft::cli {
namespace {

struct Options {
  std::string folder;
  std::vector<std::string> overrides;
  bool keep_running = false;
};

Result<Settings> RecordedSettings(const Options& options) {
  WEFT_TRY_ASSIGN(const RunView view, ReadRunView(options.folder));
  if (view.settings_toml.empty()) {
    return FailedPrecondition(
        Str(options.folder,
            ": its ledger holds no settings yet; start weft-aggregator on the "
            "run's TOML file"));
  }
  WEFT_TRY_ASSIGN(Settings settings,
                  SettingsFromToml(view.settings_toml, "the settings in the ledger"));
  ClientSettings none;
  for (const std::string& text : options.overrides) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos) {
      return InvalidArgument(Str("--set: got \"", text, "\", wanted section.key=value"));
    }
    WEFT_TRY(SetFromFlag(settings, none, "--set", text.substr(0, equals), text.substr(equals + 1)));
  }
  settings.run.dir = options.folder;
  return settings;
}

Status Run(const Options& options) {
  if (const std::optional<int64_t> owner = RunLockOwner(options.folder)) {
    return FailedPrecondition(
        Str(options.folder, ": process ", *owner, " is at work on it already"));
  }
  AggregatorDaemon daemon;
  WEFT_TRY_ASSIGN(daemon.settings, RecordedSettings(options));
  WEFT_TRY(CheckRun(daemon.settings));
  daemon.keep_running = options.keep_running;
  return RunAggregatorDaemon(std::move(daemon));
}

}  // namespace

Action SetUpRunsResume(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("RUN", options->folder, "run folder")->required();
  app.add_option("--set", options->overrides,
                 "section.key=value, over the recorded settings; may be repeated")
      ->allow_extra_args(false);
  app.add_flag("--keep-running", options->keep_running,
               "stay up after the run, to tell late clients that it is over");
  app.footer("Stays in the foreground, as weft-aggregator does; exit code 4: stopped");
  return [options] { return Run(*options); };
}

}  // namespace weft::cli
