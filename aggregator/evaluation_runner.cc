#include "aggregator/evaluation_runner.h"

#include <cmath>
#include <utility>

#include "aggregator/admission.h"
#include "aggregator/jobs.h"
#include "common/base/failpoint.h"
#include "common/base/str.h"

namespace weft {
namespace {

constexpr Nanos kAskAgainAfter = std::chrono::seconds(2);
constexpr Nanos kReportEvery = std::chrono::seconds(30);

}  // namespace

EvaluationRunner::EvaluationRunner(Office& office, Downloads& downloads, std::function<void()> done)
    : office_(office), downloads_(downloads), done_(std::move(done)) {}

void EvaluationRunner::Run(EvaluationStart start) {
  at_ = std::move(start);
  running_ = true;
  asked_all_ = false;
  waiting_here_ = false;
  awaited_.clear();
  began_ = reported_ = office_.env.clock.Now();
  for (const ClientId& client : at_.evaluators) {
    if (!at_.reports.contains(client)) awaited_[client] = Asked{};
  }
  if (office_.options.evaluate_here && !at_.here) EvaluateHere();
  if (awaited_.empty()) {
    asked_all_ = true;
    at_.state = Blob();
    return FinishIfDone();
  }
  std::vector<ClientPlan> receivers;
  for (const auto& [client, asked] : awaited_) receivers.push_back({client, office_.global});
  bundles_ = std::make_unique<Bundles>(office_, "float32", office_.options.settings.wire.compress);
  bundles_->Cut(at_.state, receivers, true, [this](const Status& status) {
    if (!status.ok()) {
      return office_.GiveUp(status.Within(Str("[evaluation] version ", at_.version)));
    }
    at_.state = Blob();
    AskAll();
  });
}

void EvaluationRunner::AskAll() {
  asked_all_ = true;
  began_ = office_.env.clock.Now();
  office_.env.log.Info("evaluation asked for",
                       {{"version", at_.version}, {"evaluators", awaited_.size()}});
  for (auto& [client, asked] : awaited_) {
    if (office_.members.Present(client)) {
      Ask(client);
    } else {
      asked.away_since = began_;
    }
  }
}

void EvaluationRunner::Ask(const ClientId& client) {
  const Bundle& bundle = bundles_->For(client);
  downloads_.Allow(client, Downloads::Use::kEvaluate, bundle);
  awaited_.at(client).sent = office_.env.clock.Now();
  const double left = office_.options.settings.cohort.evaluate_deadline_s -
                      ToSeconds(office_.env.clock.Now() - began_);
  office_.Send(
      client,
      EvalRequest{
          .run = office_.run, .version = at_.version, .deadline_s = left, .payload = bundle.offer});
}

void EvaluationRunner::EvaluateHere() {
  waiting_here_ = true;
  const Nanos began = office_.env.clock.Now();
  Submit<ServerEvaluateJob>(
      office_.env.executor, ServerEvaluateJob{.state = at_.state, .version = at_.version}, Nanos{0},
      std::make_shared<JobControl>(),
      [this, began, version = at_.version](Result<ServerEvaluateJob::Output> evaluated) {
        if (office_.over() || !running_ || at_.version != version) return;
        waiting_here_ = false;
        if (!evaluated.ok()) {
          return office_.GiveUp(evaluated.status().Within(Str("[evaluate] version ", at_.version)));
        }
        at_.here = ServerEvaluated{.version = version,
                                   .loss = evaluated->loss,
                                   .label_tokens = evaluated->label_tokens,
                                   .metrics = std::move(evaluated->metrics),
                                   .evaluate_s = ToSeconds(office_.env.clock.Now() - began)};
        office_.env.log.Info("evaluated here", {{"version", version}, {"loss", evaluated->loss}});
        office_.Record({*at_.here});
        FinishIfDone();
      });
}

void EvaluationRunner::Abandon() {
  running_ = false;
  awaited_.clear();
  bundles_.reset();
  downloads_.ForbidAll(Downloads::Use::kEvaluate);
}

void EvaluationRunner::OnJoined(const ClientId& client) {
  const auto it = awaited_.find(client);
  if (!running_ || !asked_all_ || it == awaited_.end()) return;
  it->second.away_since.reset();
  Ask(client);
}

void EvaluationRunner::OnGone(const ClientId& client) {
  const auto it = awaited_.find(client);
  if (!running_ || it == awaited_.end()) return;
  it->second.away_since = office_.env.clock.Now();
  downloads_.Gone(client);
}

void EvaluationRunner::OnHeartbeat(const ClientId& client, const Heartbeat& heartbeat) {
  const auto it = awaited_.find(client);
  if (!running_ || !asked_all_ || it == awaited_.end() || heartbeat.phase != "wait") return;
  if (office_.env.clock.Now() - it->second.sent > kAskAgainAfter) Ask(client);
}

Status EvaluationRunner::OnReport(const ClientId& from, const EvalReport& report) {
  const auto it = awaited_.find(from);
  if (!running_ || it == awaited_.end() || report.version != at_.version) return OkStatus();
  const Status status = CheckEvalReport(from, report, office_.run, at_.version);
  awaited_.erase(it);
  if (status.ok()) {
    at_.reports[from] = report;
    office_.Record({EvalReported{.report = report}}, [] { Pass(Failpoint::kEvaluationRecorded); });
    office_.env.log.Info("evaluated",
                         {{"version", at_.version}, {"client", from}, {"loss", report.loss}});
  }
  FinishIfDone();
  return status;
}

void EvaluationRunner::Tick() {
  if (!running_ || !asked_all_) return;
  const Nanos now = office_.env.clock.Now();
  const Nanos patience = Seconds(office_.options.settings.server.gone_after_s);
  const bool overdue = now - began_ >= Seconds(office_.options.settings.cohort.evaluate_deadline_s);
  const size_t before = awaited_.size();
  std::erase_if(awaited_, [&](const auto& entry) {
    const bool gone = entry.second.away_since && now - *entry.second.away_since > patience;
    if (gone || overdue) {
      office_.env.log.Warn("evaluation goes on without a client",
                           {{"version", at_.version},
                            {"client", entry.first},
                            {"why", gone ? "it is gone" : "its time is over"}});
    }
    return gone || overdue;
  });
  if (!awaited_.empty() && now - reported_ >= kReportEvery) {
    reported_ = now;
    std::vector<ClientId> names;
    for (const auto& [client, asked] : awaited_) names.push_back(client);
    office_.env.log.Info("evaluation waits", {{"version", at_.version}, {"for", Names(names)}});
  }
  if (awaited_.size() != before) FinishIfDone();
}

void EvaluationRunner::FinishIfDone() {
  if (!running_ || !asked_all_ || !awaited_.empty() || waiting_here_) return;
  Conclude();
}

std::optional<BestRound> EvaluationRunner::Judge() const {
  double sum = 0;
  double tokens = 0;
  for (const auto& [client, report] : at_.reports) {
    sum += report.loss * static_cast<double>(report.label_tokens);
    tokens += static_cast<double>(report.label_tokens);
  }
  BestRound result;
  result.version = at_.version;
  if (tokens > 0) {
    result.loss = sum / tokens;
    result.by = "clients";
  } else if (at_.here) {
    result.loss = at_.here->loss;
    result.by = "server";
  } else {
    return std::nullopt;
  }
  // A NaN loss is never the best one.
  return std::isfinite(result.loss) ? std::optional(result) : std::nullopt;
}

void EvaluationRunner::Conclude() {
  running_ = false;
  bundles_.reset();
  downloads_.ForbidAll(Downloads::Use::kEvaluate);
  const std::optional<BestRound> result = Judge();
  std::vector<RunEvent> events;
  if (result) {
    office_.env.log.Info("version evaluated", {{"version", at_.version},
                                               {"eval_loss", result->loss},
                                               {"sites", at_.reports.size()},
                                               {"by", result->by}});
    // Losses of other rows cannot be compared; then the newer judge starts anew.
    if (!best_ || best_->by != result->by || result->loss < best_->loss) {
      if (!best_ || best_->version != result->version) events.emplace_back(*result);
      best_ = result;
    }
  }
  if (events.empty()) return done_();
  office_.Record(std::move(events), [this] {
    if (!office_.over()) done_();
  });
}

}  // namespace weft
