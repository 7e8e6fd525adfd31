#include "cli/exit_code.h"

#include <csignal>
#include <iostream>

#include "cli/command.h"
#include "cli/table.h"

namespace weft::cli {

int ExitCodeOf(const Status& outcome, bool refused) {
  if (outcome.ok()) return kExitCompleted;
  if (refused) return kExitRefused;
  return outcome.code() == Code::kCancelled ? kExitStopped : kExitFailed;
}

int RunDaemon(const char* program, const std::function<Status(bool* refused)>& body) {
  // A file over the shell's size limit (ulimit -f) is then a failed write, which says where and
  // why; the signal would end the daemon without a word.
  std::signal(SIGXFSZ, SIG_IGN);
  Status outcome;
  bool refused = false;
  // Guarded turns what escapes (a bug) into its own exit code.
  const int bug = Guarded(program, [&] {
    outcome = body(&refused);
    return OkStatus();
  });
  if (bug != 0) return bug;
  if (!outcome.ok()) {
    const bool stopped = outcome.code() == Code::kCancelled && !refused;
    std::cerr << program << ": " << (stopped ? "stopped: " : "error: ")
              << OneLine(outcome.message()) << "\n";
  }
  return ExitCodeOf(outcome, refused);
}

}  // namespace weft::cli
