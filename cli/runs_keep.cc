// `weft runs verify RUN`: is the folder what its ledger says, and do its rounds' merges give what
// they published? `weft runs stop RUN`: ask its aggregator to end the run.

#include <iostream>
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "aggregator/certificate_check.h"
#include "cli/set_up.h"
#include "common/base/str.h"
#include "common/runtime/durable_file.h"
#include "common/runtime/run_events.h"
#include "common/runtime/run_lock.h"
#include "common/runtime/run_verify.h"
#include "common/runtime/run_view.h"

namespace weft::cli {
namespace {

struct VerifyOptions {
  std::string folder;
  std::string hash;
  bool json = false;
};

Status Verify(const VerifyOptions& options) {
  const Result<VerifyReport> report = VerifyRun(options.folder, options.hash, CheckKeptRound);
  if (options.json) {
    nlohmann::ordered_json json = {{"ok", report.ok()}};
    if (report.ok()) {
      json.update({{"events", report->events},
                   {"files", report->files},
                   {"files_spent", report->files_spent},
                   {"certificates_recomputed", report->certificates_recomputed},
                   {"rounds_without_updates", report->rounds_without_updates},
                   {"rounds_measured", report->rounds_measured},
                   {"hash", report->hash}});
    } else {
      json["error"] = report.status().message();
    }
    std::cout << json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace)
              << "\n";
  } else if (report.ok()) {
    std::cout << "ok: " << report->events << " events, " << report->files << " files, "
              << report->certificates_recomputed << " rounds merged again"
              << (report->rounds_without_updates > 0
                      ? Str(" (", report->rounds_without_updates, " kept no updates)")
                      : "")
              << ", newest hash " << report->hash << "\n";
  }
  return report.status();
}

struct StopOptions {
  std::string folder;
  std::string reason = "asked by weft runs stop";
  bool json = false;
};

Status Stop(const StopOptions& options) {
  const std::filesystem::path folder = options.folder;
  WEFT_TRY_ASSIGN(const RunView view, ReadRunView(folder));
  if (view.Finished()) {
    return FailedPrecondition(Str(options.folder, ": the run has ended already: ", view.state));
  }
  const std::optional<int64_t> owner = RunLockOwner(folder);
  if (!owner) {
    return FailedPrecondition(
        Str(options.folder, ": no aggregator is at work on it, so there is nothing to stop"));
  }
  const std::filesystem::path request = folder / kStopRequestFile;
  const std::string temp = request.string() + ".new";
  WEFT_TRY(ReplaceFile(request, temp, AsBytes(options.reason)));
  // The aggregator may be another user's, whatever this one's umask is.
  using std::filesystem::perms;
  std::error_code ignored;
  std::filesystem::permissions(
      request, perms::owner_read | perms::owner_write | perms::group_read | perms::others_read,
      ignored);
  if (options.json) {
    std::cout << nlohmann::ordered_json{{"asked", *owner}, {"run", options.folder}}.dump() << "\n";
  } else {
    std::cout << "asked process " << *owner << " to stop; follow it with: weft runs tail -f "
              << options.folder << "\n";
  }
  return OkStatus();
}

}  // namespace

Action SetUpRunsVerify(CLI::App& app) {
  auto options = std::make_shared<VerifyOptions>();
  app.add_option("RUN", options->folder, "run folder")->required();
  app.add_option("--hash", options->hash,
                 "a newest hash noted earlier, which must still be some row's: only it shows rows "
                 "that were cut off at the end");
  app.add_flag("--json", options->json, "one JSON object");
  return [options] { return Verify(*options); };
}

Action SetUpRunsStop(CLI::App& app) {
  auto options = std::make_shared<StopOptions>();
  app.add_option("RUN", options->folder, "run folder")->required();
  app.add_option("--reason", options->reason, "kept in the ledger")->capture_default_str();
  app.add_flag("--json", options->json, "one JSON object");
  return [options] { return Stop(*options); };
}

}  // namespace weft::cli
