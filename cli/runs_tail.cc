// `weft runs tail RUN [-f]`: the newest events, and those that follow.

#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "cli/run_rows.h"
#include "cli/set_up.h"
#include "cli/table.h"
#include "cli/whole_number.h"
#include "common/runtime/run_view.h"

namespace weft::cli {
namespace {

struct TailOptions {
  std::string folder;
  uint64_t lines = 20;
  bool follow = false;
  bool json = false;
};

void Print(const LedgerEvent& event, bool json) {
  if (json) {
    std::cout << EventJson(event) << "\n";
  } else if (OnTerminal()) {
    std::cout << Cell::Time(event.wall_us).terminal << "  " << EventText(event) << "\n";
  } else {
    std::cout << event.seq << "\t" << Cell::Time(event.wall_us).pipe << "\t" << event.kind << "\t"
              << EventText(event) << "\n";
  }
}

// A quiet run is looked at less often, but never less than once a second.
constexpr std::chrono::milliseconds kPollMin{100};
constexpr std::chrono::milliseconds kPollMax{1000};

Status Tail(const TailOptions& options) {
  WEFT_TRY_ASSIGN(RunReader reader, RunReader::Open(options.folder));
  WEFT_TRY_ASSIGN(std::vector<LedgerEvent> events, reader.Poll());
  const size_t skip = events.size() - std::min<size_t>(events.size(), options.lines);
  for (size_t i = skip; i < events.size(); ++i) Print(events[i], options.json);
  std::cout.flush();
  std::chrono::milliseconds wait = kPollMin;
  while (options.follow && !reader.view().Finished() && std::cout.good()) {
    std::this_thread::sleep_for(wait);
    WEFT_TRY_ASSIGN(events, reader.Poll());
    for (const LedgerEvent& event : events) Print(event, options.json);
    std::cout.flush();
    wait = events.empty() ? std::min(wait * 2, kPollMax) : kPollMin;
  }
  return OkStatus();
}

}  // namespace

Action SetUpRunsTail(CLI::App& app) {
  auto options = std::make_shared<TailOptions>();
  app.add_option("RUN", options->folder, "run folder")->required();
  app.add_option("-n,--lines", options->lines, "events shown at first")
      ->check(WholeNumber(uint64_t{0}))
      ->capture_default_str();
  app.add_flag("-f,--follow", options->follow, "go on until the run finishes");
  app.add_flag("--json", options->json, "one JSON object per event");
  return [options] { return Tail(*options); };
}

}  // namespace weft::cli
