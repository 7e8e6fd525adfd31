#pragma once
// A run's view as tables for people and as JSON for machines; shared by the `weft runs` commands.
// docs/formats.md lists the JSON keys.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "cli/table.h"
#include "common/runtime/run_view.h"

namespace weft::cli {

/// A run folder and what was read of it.
struct ListedRun {
  std::filesystem::path folder;
  RunView view;
  std::optional<int64_t> aggregator;  // pid of the aggregator at work, 0: of an unknown one
};

[[nodiscard]] Table RunsTable(const std::vector<ListedRun>& runs);
[[nodiscard]] Table RoundsTable(const RunView& view);
/// `round`: only that one.
[[nodiscard]] Table ClientsTable(const RunView& view, std::optional<uint32_t> round);
[[nodiscard]] Table MembersTable(const RunView& view);
/// What clients' updates cost on the wire, beside a plain LoRA of the same rank.
[[nodiscard]] Table ShippedTable(const RunView& view);

/// One line each.
[[nodiscard]] std::string RunsJson(const std::vector<ListedRun>& runs);
[[nodiscard]] std::string ShippedJson(const RunView& view);
/// The posterior of the final adapter as an object, or null.
[[nodiscard]] std::string PosteriorJson(const RunView& view);
[[nodiscard]] std::string RunJson(const ListedRun& run);
[[nodiscard]] std::string RoundsJson(const RunView& view, std::optional<uint32_t> round);
[[nodiscard]] std::string RoundJson(const RoundRow& round);
[[nodiscard]] std::string ClientJson(const RoundRow& round, const ClientRow& client);
/// The ledger's row as it is, its body as an object.
[[nodiscard]] std::string EventJson(const LedgerEvent& event);

/// "round 3 opened: 4 clients, attempt 1": an event for people.
[[nodiscard]] std::string EventText(const LedgerEvent& event);

}  // namespace weft::cli
