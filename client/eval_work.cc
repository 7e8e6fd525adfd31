#include "client/eval_work.h"

#include <utility>

#include "client/client_events.h"

namespace weft {

void EvalWork::OnRequest(const EvalRequest& request) {
  if (answered_ && answered_->run == request.run && answered_->version == request.version) {
    context_.Send(EvalReply{.report = *answered_});
    return;
  }
  if (request_ && request_->run == request.run && request_->version == request.version &&
      request_->payload == request.payload) {
    download_.OfferedAgain();
    return;
  }
  Stop();
  request_ = request;
  ++work_;
  context_.env.log.Info("evaluation asked for", {{"version", request.version}});
  context_.SetPhase(RoundId{}, "evaluate", nullptr);
  download_.Start(request.payload, [this](Result<Blob> bundle) {
    if (!bundle.ok()) return CannotAnswer(bundle.status());
    Evaluate(std::move(*bundle));
  });
}

void EvalWork::Evaluate(Blob bundle) {
  control_ = std::make_shared<JobControl>();
  context_.SetPhase(RoundId{}, "evaluate", control_);
  ClientEvaluateJob job{
      .run = request_->run,
      .version = request_->version,
      .client = context_.options.name,
      .bundle = std::move(bundle),
      .local_state = disk_.LocalStateBefore(request_->run, RoundId{request_->version.number + 1})};
  const auto rows = static_cast<int64_t>(context_.options.offer.eval_examples);
  const Nanos began = context_.env.clock.Now();
  // A forward pass costs about a third of a training step.
  Submit<ClientEvaluateJob>(context_.env.executor, std::move(job),
                            context_.options.step_cost * ((rows + 23) / 24), control_,
                            [this, began, work = work_](Result<EvalReport> report) {
                              if (context_.over() || work != work_) return;
                              if (!report.ok()) return CannotAnswer(report.status());
                              report->evaluate_s = ToSeconds(context_.env.clock.Now() - began);
                              Answer(std::move(*report));
                            });
}

void EvalWork::Answer(EvalReport report) {
  report.run = request_->run;
  report.version = request_->version;
  report.client = context_.options.name;
  request_.reset();
  control_.reset();
  context_.SetPhase(RoundId{}, "wait", nullptr);
  context_.env.log.Info("evaluated", {{"version", report.version}, {"loss", report.loss}});
  context_.Record(ClientEvaluatedEvent(report));
  context_.Send(EvalReply{.report = report});
  answered_ = std::move(report);
}

void EvalWork::CannotAnswer(const Status& why) {
  if (why.code() == Code::kCancelled) return Stop();
  context_.env.log.Error("evaluation failed here", {{"version", request_->version}, {"why", why}});
  // No label token: the aggregator leaves this site out and does not wait for it.
  Answer(EvalReport{});
}

void EvalWork::Stop() {
  if (control_) control_->cancelled = true;
  control_.reset();
  download_.Stop();
  if (request_) context_.SetPhase(RoundId{}, "wait", nullptr);
  request_.reset();
  ++work_;
}

}  // namespace weft
