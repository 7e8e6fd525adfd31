#include "cli/load_course.h"

#include <algorithm>
#include <charconv>

#include "cli/load_probe.h"
#include "common/base/str.h"

namespace weft::cli {
namespace {

constexpr double kTurnEvery_s = 0.1;
// Everybody has sent a heartbeat and been answered by then: what a link takes at most when nothing
// goes on is taken.
constexpr double kSettle_s = 7;
// Idle and silent spans in turn, so that what else this machine does falls on both.
constexpr size_t kSpansOfEach = 3;
// What the dead connections of a silent span leave behind is cleared up before the next one.
constexpr double kPause_s = 1;
constexpr double kHearSilent_s = 10;

}  // namespace

LoadCourse::LoadCourse(EventLoop& loop, const LoadOptions& options, const LoadCast& cast,
                       BenchProcesses& processes, BenchAggregator& aggregator)
    : loop_(loop),
      options_(options),
      cast_(cast),
      processes_(processes),
      aggregator_(aggregator),
      began_s_(LoadClock()) {
  measured_.rss_before_mb = MemoryMb("VmRSS");
  spans_left_ = options.silent > 0 ? 2 * kSpansOfEach : 1;
  SetTurn();
}

LoadCourse::~LoadCourse() { loop_.Cancel(timer_); }

Status LoadCourse::Run() {
  WEFT_TRY(processes_.TellAll(aggregator_.server().endpoint()));
  loop_.RunUntil([this] { return !outcome_.ok() || aggregator_.node().Finished(); });
  WEFT_TRY(outcome_);
  if (stage_ == Stage::kRounds) measured_.spans.back().to_s = LoadClock();
  measured_.rss_peak_mb = MemoryMb("VmHWM");
  return aggregator_.node().Outcome();
}

void LoadCourse::SetTurn() {
  timer_ = loop_.At(loop_.Now() + Seconds(kTurnEvery_s), [this] {
    outcome_ = Turn();
    if (outcome_.ok()) SetTurn();
  });
}

Status LoadCourse::Turn() {
  WEFT_TRY(processes_.Check());
  const double now = LoadClock();
  if (now - began_s_ > options_.limit_s) return OverTime();
  switch (stage_) {
    case Stage::kJoining:
      if (aggregator_.server().peers() <= static_cast<size_t>(options_.members)) break;
      measured_.join_s = now - began_s_;
      stage_ = Stage::kSettling;
      stage_until_s_ = now + kSettle_s;
      break;
    case Stage::kSettling:
      if (now < stage_until_s_) break;
      measured_.rss_idle_mb = MemoryMb("VmRSS");
      measured_.anon_idle_mb = MemoryMb("RssAnon");
      stage_ = Stage::kMeasuring;
      return NextSpan();
    case Stage::kMeasuring:
      if (now < stage_until_s_) break;
      if (measured_.spans.back().to_s == 0) return EndSpan();
      return spans_left_ > 0 ? NextSpan() : BeginRounds();
    case Stage::kRounds:
      measured_.anon_peak_mb = std::max(measured_.anon_peak_mb, MemoryMb("RssAnon"));
      break;
  }
  return OkStatus();
}

Status LoadCourse::NextSpan() {
  WEFT_TRY(HearSilent());
  --spans_left_;
  const bool silent = options_.silent > 0 && spans_left_ % 2 == 0;
  if (silent) WEFT_TRY(processes_.Tell(cast_.silent, "open"));
  measured_.spans.push_back({.what = silent ? "silent" : "idle", .from_s = LoadClock()});
  const double spans = options_.silent > 0 ? static_cast<double>(kSpansOfEach) : 1;
  stage_until_s_ = LoadClock() + options_.measure_s / spans;
  return OkStatus();
}

Status LoadCourse::EndSpan() {
  LoadSpan& span = measured_.spans.back();
  span.to_s = LoadClock();
  stage_until_s_ = span.to_s + kPause_s;
  return span.what == "silent" ? processes_.Tell(cast_.silent, "close") : OkStatus();
}

// Its answer is here by now: the aggregator's loop does not wait for it.
Status LoadCourse::HearSilent() {
  if (measured_.spans.empty() || measured_.spans.back().what != "silent") return OkStatus();
  WEFT_TRY_ASSIGN(const std::string opened, processes_.Hear(cast_.silent, kHearSilent_s));
  (void)std::from_chars(opened.data(), opened.data() + opened.size(), measured_.silent_opened);
  return OkStatus();
}

Status LoadCourse::BeginRounds() {
  WEFT_TRY(HearSilent());
  stage_ = Stage::kRounds;
  measured_.spans.push_back({.what = "rounds", .from_s = LoadClock()});
  WEFT_TRY(processes_.Tell(cast_.newcomer, "enough"));
  return processes_.Tell(cast_.gate, "begin");
}

Status LoadCourse::OverTime() const {
  const size_t here = aggregator_.server().peers();
  const char* const doing = stage_ == Stage::kJoining  ? "members joined"
                            : stage_ == Stage::kRounds ? "the rounds ran"
                                                       : "latencies were measured";
  return DeadlineExceeded(Str("[bench] --limit-s: ", options_.limit_s, " s are over while ", doing,
                              " (version ", aggregator_.node().version(), ", ", here,
                              " connected, wanted ", options_.members + 1,
                              "); ask for less, or give it longer"));
}

}  // namespace weft::cli
