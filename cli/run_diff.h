#pragma once
// Two runs compared round by round: settings, cohorts, losses, bytes, certificates, adapters, and
// each client's part. `weft runs diff` prints it; docs/formats.md lists the JSON keys.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/run_rows.h"
#include "cli/table.h"
#include "common/plan/certificate_diff.h"

namespace weft::cli {

struct SettingDiff {
  std::string key;  // "strategy.name", "client.harbour.rank"
  std::string a;    // as in TOML; "none" where the run does not record it
  std::string b;
};

/// A client whose part in a round is not the same in both runs.
struct ClientDiff {
  const ClientRow* a = nullptr;  // null: not in the round
  const ClientRow* b = nullptr;
  std::vector<std::string> fields;  // that differ, as in the client's JSON; seconds are left out
};

struct RoundDiff {
  const RoundRow* a = nullptr;  // null: the run has no such round
  const RoundRow* b = nullptr;
  std::optional<bool> adapter_equal;  // none where one of them published nothing
  std::vector<CertificateDifference> certificate;
  std::vector<ClientDiff> clients;  // by name

  [[nodiscard]] uint32_t round() const { return a != nullptr ? a->round : b->round; }
};

struct RunDiff {
  const ListedRun* a = nullptr;
  const ListedRun* b = nullptr;
  std::vector<SettingDiff> settings;
  std::vector<RoundDiff> rounds;                  // of either, by number
  std::optional<uint32_t> first_different_round;  // whose adapters have different hashes
};

/// Points into `a` and `b`, which must outlive it. kDataLoss for settings that are no TOML.
[[nodiscard]] Result<RunDiff> DiffRuns(const ListedRun& a, const ListedRun& b);

[[nodiscard]] Table SettingsDiffTable(const RunDiff& diff);
/// A line per round; a cell is one value where both have it, else "A → B".
[[nodiscard]] Table RoundsDiffTable(const RunDiff& diff);
/// `all`: every client that differs in anything; else those that are missing, or differ in state,
/// method or rank.
[[nodiscard]] Table ClientsDiffTable(const RunDiff& diff, bool all);
[[nodiscard]] std::string RunDiffJson(const RunDiff& diff);

}  // namespace weft::cli
