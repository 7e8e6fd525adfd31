#include "aggregator/metrics_page.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include <nlohmann/json.hpp>

#include "common/base/str.h"

namespace weft {
namespace {

// The loop's own timer is a second's; whoever is late by this does not move.
constexpr double kLoopAgeMax_s = 10;

std::string Number(double value) {
  const bool whole = value == std::floor(value) && std::abs(value) < 1e15;
  return whole ? std::to_string(static_cast<int64_t>(value)) : nlohmann::json(value).dump();
}

std::string Label(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '\\' || c == '"') escaped += '\\';
    escaped += c == '\n' ? ' ' : c;
  }
  return escaped;
}

class Page {
 public:
  void Add(std::string_view kind, std::string_view name, std::string_view help,
           const std::string& value, const std::string& labels = "") {
    text_ +=
        Str("# HELP weft_", name, " ", help, "\n# TYPE weft_", name, " ", kind, "\nweft_", name,
            labels.empty() ? "" : "{", labels, labels.empty() ? "" : "}", " ", value, "\n");
  }
  void Gauge(std::string_view name, std::string_view help, double value) {
    Add("gauge", name, help, Number(value));
  }
  void Gauge(std::string_view name, std::string_view help, const std::optional<double>& value) {
    if (value) Gauge(name, help, *value);
  }
  void Counter(std::string_view name, std::string_view help, uint64_t value) {
    Add("counter", name, help, std::to_string(value));
  }
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  std::string text_;
};

void AddNewest(const RunView& view, Page& page) {
  const auto published =
      std::find_if(view.rounds.rbegin(), view.rounds.rend(),
                   [](const RoundRow& round) { return round.state == "published"; });
  if (published == view.rounds.rend()) return;
  page.Gauge("train_loss", "Mean loss of the updates in the newest version.",
             published->train_loss);
  page.Gauge("clients_loss", "Loss of the newest version on the sites' own rows.",
             published->clients_loss);
  page.Gauge("server_loss", "Loss of the newest version on the aggregator's rows.",
             published->server_loss);
  page.Gauge("merge_seconds", "Seconds that the newest version's merge took.", published->merge_s);
  page.Gauge("merge_error_to_ideal", "Relative distance of the newest version to the exact mean.",
             published->certificate.error_to_ideal);
  page.Gauge("published_timestamp_seconds", "When the newest version was published.",
             static_cast<double>(published->published_us) * 1e-6);
}

}  // namespace

void RunTotals::Add(const RoundRow& round) {
  accepted += round.accepted;
  refused += round.refused;
  late += round.late;
  dropped += round.dropped;
  missed += round.attempts > 1 ? round.attempts - 1 : 0;
  bytes_up += round.BytesUp();
  bytes_down += round.BytesDown();
}

std::string MetricsPage(const RunView& view, const RunTotals& older, const Pulse& pulse) {
  Page page;
  page.Add("gauge", "run_info", "The run.", "1",
           Str("run=\"", Label(view.run), "\",strategy=\"", Label(view.strategy), "\",state=\"",
               Label(view.state), "\""));
  page.Gauge("loop_age_seconds", "Seconds since the aggregator's loop last moved.",
             pulse.loop_age_s);
  page.Gauge("paused", "1 while a full disk is waited for.", pulse.paused ? 1 : 0);
  page.Gauge("version", "The newest published version.", static_cast<double>(view.published));
  page.Gauge("rounds_planned", "Rounds the run is to have.",
             static_cast<double>(view.num_server_rounds));
  page.Gauge(
      "members", "Clients that are here.",
      static_cast<double>(std::count_if(view.members.begin(), view.members.end(),
                                        [](const MemberRow& member) { return member.present; })));
  const bool open = !view.rounds.empty() && view.rounds.back().state == "open";
  page.Gauge("round_open", "1 while a round takes updates.", open ? 1 : 0);
  page.Gauge("round_cohort", "Clients asked in the open round.",
             open ? static_cast<double>(view.rounds.back().cohort) : 0);
  page.Gauge("round_accepted", "Updates accepted in the open round.",
             open ? static_cast<double>(view.rounds.back().accepted) : 0);
  RunTotals totals = older;
  for (const RoundRow& round : view.rounds) totals.Add(round);
  page.Counter("updates_accepted_total", "Updates accepted.", totals.accepted);
  page.Counter("updates_refused_total", "Updates refused by admission.", totals.refused);
  page.Counter("updates_late_total", "Updates that came after their round.", totals.late);
  page.Counter("clients_dropped_total", "Clients that dropped out of a round.", totals.dropped);
  page.Counter("rounds_missed_total", "Tries at a round that missed their quorum.", totals.missed);
  page.Counter("bytes_up_total", "Bytes of updates, sent again included.", totals.bytes_up);
  page.Counter("bytes_down_total", "Bytes of bundles, sent again included.", totals.bytes_down);
  page.Counter("restarts_total", "Times the run was gone on with.", view.resumed);
  AddNewest(view, page);
  return page.text();
}

Status Health(const Pulse& pulse) {
  if (pulse.paused) return Unavailable("the run is paused: its folder takes no more");
  if (pulse.loop_age_s > kLoopAgeMax_s) {
    return Unavailable(Str("the loop has not moved for ", pulse.loop_age_s, " s"));
  }
  return OkStatus();
}

}  // namespace weft
