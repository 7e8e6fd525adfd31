// Rows of a ledger (kind, a blank, body): what is read as an event writes itself the same way
// again, and any sequence of events folds.

#include <algorithm>
#include <set>

#include "common/base/check.h"
#include "common/runtime/run_events.h"
#include "common/runtime/run_view.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/support/run_samples.h"

namespace weft::fuzz {
namespace {

void Run(std::string_view input) {
  RunFold fold;
  uint64_t seq = 0;
  while (!input.empty()) {
    const size_t end = std::min(input.find('\n'), input.size());
    const std::string_view line = input.substr(0, end);
    input.remove_prefix(std::min(end + 1, input.size()));
    const size_t blank = std::min(line.find(' '), line.size());
    LedgerEvent row{.seq = ++seq,
                    .wall_us = static_cast<int64_t>(seq),
                    .kind = std::string(line.substr(0, blank)),
                    .body = std::string(line.substr(std::min(blank + 1, line.size()))),
                    .hash = {}};
    const Result<RunEvent> event = FromEvent(row);
    WEFT_CHECK(event.ok() == fold.Add(row).ok());
    if (!event.ok() || std::holds_alternative<std::monostate>(*event)) continue;
    const EventDraft draft = ToDraft(*event);
    WEFT_CHECK(draft.kind == row.kind);
    row.body = draft.body;
    const Result<RunEvent> again = FromEvent(row);
    WEFT_CHECK(again.ok(), again.status(), "\n", draft.body);
    WEFT_CHECK(ToDraft(*again).body == draft.body, draft.body);
  }
  const RunView& view = fold.view();
  for (size_t i = 1; i < view.rounds.size(); ++i) {
    WEFT_CHECK(view.rounds[i - 1].round < view.rounds[i].round);
  }
  for (const RoundRow& round : view.rounds) {
    const uint64_t counted = round.accepted + round.late + round.dropped + round.refused;
    WEFT_CHECK(counted <= round.clients.size(), counted, " of ", round.clients.size());
  }
}

Seeds MakeSeeds() {
  std::string run;
  std::set<std::string> each;
  for (const RunEvent& event : testing::SampleRun()) {
    const EventDraft draft = ToDraft(event);
    each.insert(draft.kind + " " + draft.body + "\n");
    run += draft.kind + " " + draft.body + "\n";
  }
  Seeds seeds(each.begin(), each.end());
  seeds.push_back(run);
  return seeds;
}

}  // namespace

Target LedgerEvents() {
  return {"ledger_events", Run, MakeSeeds, {"\"nan\"", "\"-inf\"", "4294967296", "[[]]", "1e999"}};
}

}  // namespace weft::fuzz
