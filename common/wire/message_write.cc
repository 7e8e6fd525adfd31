#include <memory>

#include <capnp/serialize.h>
#include <protocols/weft.capnp.h>

#include "common/base/limits.h"
#include "common/wire/message_codec.h"
#include "common/wire/spec_codec.h"

namespace weft {
namespace {

using wire::AsCapnp;
using wire::ListSize;

// A reason is for people: what is beyond the limit is cut, at the start of a UTF-8 sequence, rather
// than the message lost.
std::string FreeText(const std::string& text) {
  if (text.size() <= limits::kTextBytesMax) return text;
  size_t end = limits::kTextBytesMax;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end);
}

std::string CodeText(Code code) { return std::string(CodeName(code)); }

void Write(proto::PayloadOffer::Builder out, const PayloadOffer& payload) {
  out.setSha256(AsCapnp(payload.sha256));
  out.setBytes(payload.bytes);
}

void Write(proto::Capabilities::Builder out, const Capabilities& capabilities) {
  out.setSoftware(AsCapnp(capabilities.software));
  out.setDevice(AsCapnp(capabilities.device));
  out.setMemoryMb(capabilities.memory_mb);
  out.setRankMax(capabilities.rank_max);
  out.setNumExamples(capabilities.num_examples);
  out.setEvalExamples(capabilities.eval_examples);
  wire::WriteTexts(out.initMethods(ListSize(capabilities.methods.size())), capabilities.methods);
  wire::WriteTexts(out.initCodecs(ListSize(capabilities.codecs.size())), capabilities.codecs);
  out.setMembers(capabilities.members);
}

void Write(proto::UpdateHeader::Builder out, const UpdateHeader& header) {
  out.setRun(AsCapnp(header.run.name));
  out.setRound(header.round.number);
  out.setClient(AsCapnp(header.client.name));
  out.setVersion(header.version.number);
  out.setBaseHash(AsCapnp(header.base_hash));
  wire::WriteSpec(out.initSpec(), header.spec);
  out.setCodec(AsCapnp(header.codec));
  out.setNumExamples(header.num_examples);
  out.setLabelTokens(header.label_tokens);
  out.setSteps(header.steps);
  out.setTrainLoss(header.train_loss);
  auto metrics = out.initMetrics(ListSize(header.metrics.size()));
  for (unsigned i = 0; i < metrics.size(); ++i) {
    metrics[i].setName(AsCapnp(header.metrics[i].first));
    metrics[i].setValue(header.metrics[i].second);
  }
  auto times = out.initTimes();
  times.setWaitS(header.times.wait_s);
  times.setDownloadS(header.times.download_s);
  times.setTrainS(header.times.train_s);
  times.setUploadS(header.times.upload_s);
  times.setEvaluateS(header.times.evaluate_s);
  out.setPayloadBytes(header.payload_bytes);
  out.setPayloadSha256(AsCapnp(header.payload_sha256));
}

void Write(proto::LocalTraining::Builder out, const LocalTraining& training) {
  out.setObjective(AsCapnp(training.objective));
  out.setFedproxMu(training.fedprox_mu);
  out.setLocalSteps(training.local_steps);
  out.setLocalEpochs(training.local_epochs);
  out.setBatchSize(training.batch_size);
  out.setMicroBatchSize(training.micro_batch_size);
  out.setMaxLen(training.max_len);
  out.setPacking(training.packing);
  out.setRowOrder(AsCapnp(training.row_order));
  out.setLongRows(AsCapnp(training.long_rows));
  out.setDtype(AsCapnp(training.dtype));
  out.setGradientCheckpointing(training.gradient_checkpointing);
  out.setOptimizer(AsCapnp(training.optimizer));
  out.setLr(training.lr);
  out.setBeta1(training.beta1);
  out.setBeta2(training.beta2);
  out.setEps(training.eps);
  out.setWeightDecay(training.weight_decay);
  out.setGradClip(training.grad_clip);
  out.setSchedule(AsCapnp(training.schedule));
  out.setWarmupSteps(training.warmup_steps);
  out.setScheduleSteps(training.schedule_steps);
  out.setStepsDone(training.steps_done);
  out.setKeepOptimizer(training.keep_optimizer);
}

void Write(proto::RoundPlan::Builder out, const RoundPlan& plan) {
  out.setRun(AsCapnp(plan.run.name));
  out.setRound(plan.round.number);
  out.setVersion(plan.version.number);
  out.setNumServerRounds(plan.num_server_rounds);
  out.setBaseHash(AsCapnp(plan.base_hash));
  out.setSeed(plan.seed);
  out.setStrategy(AsCapnp(plan.strategy));
  out.setCodec(AsCapnp(plan.codec));
  Write(out.initTraining(), plan.training);
  auto cohort = out.initCohort(ListSize(plan.cohort.size()));
  for (unsigned i = 0; i < cohort.size(); ++i) {
    cohort[i].setClient(AsCapnp(plan.cohort[i].client.name));
    wire::WriteSpec(cohort[i].initAdapter(), plan.cohort[i].adapter);
    cohort[i].setMerged(plan.cohort[i].merged.number);
    cohort[i].setAsked(plan.cohort[i].asked.number);
  }
  auto evaluators = out.initEvaluators(ListSize(plan.evaluators.size()));
  for (unsigned i = 0; i < evaluators.size(); ++i) {
    evaluators.set(i, AsCapnp(plan.evaluators[i].name));
  }
  out.setDeadlineS(plan.deadline_s);
  out.setDelta(plan.delta);
  out.setTopK(plan.top_k);
  out.setErrorFeedback(plan.error_feedback);
  out.setCompress(plan.compress);
  out.setDownCodec(AsCapnp(plan.down_codec));
  out.setMaxStaleness(plan.max_staleness);
  out.setStalenessExponent(plan.staleness_exponent);
}

// One overload per message: which member of the union it is, and its fields.
struct BodyWriter {
  proto::Envelope::Body::Builder body;

  void operator()(const Hello& message) {
    auto out = body.initHello();
    out.setProtocol(message.protocol);
    out.setBaseHash(AsCapnp(message.base_hash));
    auto sites = out.initSites(ListSize(message.sites.size()));
    for (unsigned i = 0; i < sites.size(); ++i) wire::WriteSite(sites[i], message.sites[i]);
    Write(out.initCapabilities(), message.capabilities);
  }
  void operator()(const Heartbeat& message) {
    auto out = body.initHeartbeat();
    out.setRound(message.round.number);
    out.setPhase(AsCapnp(message.phase));
    out.setProgress(message.progress);
  }
  void operator()(const UpdateOffer& message) {
    auto out = body.initUpdateOffer();
    Write(out.initHeader(), message.header);
    Write(out.initPayload(), message.payload);
  }
  void operator()(const RoundFailed& message) {
    auto out = body.initRoundFailed();
    out.setRound(message.round.number);
    out.setCode(AsCapnp(CodeText(message.code)));
    out.setReason(AsCapnp(FreeText(message.reason)));
  }
  void operator()(const EvalReply& message) {
    auto out = body.initEvalReply();
    out.setRun(AsCapnp(message.report.run.name));
    out.setVersion(message.report.version.number);
    out.setClient(AsCapnp(message.report.client.name));
    out.setLoss(message.report.loss);
    out.setLabelTokens(message.report.label_tokens);
    out.setNumExamples(message.report.num_examples);
    out.setEvaluateS(message.report.evaluate_s);
  }
  void operator()(const Welcome& message) {
    auto out = body.initWelcome();
    out.setProtocol(message.protocol);
    out.setRun(AsCapnp(message.run.name));
    out.setVersion(message.version.number);
    out.setNumServerRounds(message.num_server_rounds);
    out.setHeartbeatMs(message.heartbeat_ms);
    out.setGoneAfterMs(message.gone_after_ms);
  }
  void operator()(const Refusal& message) {
    auto out = body.initRefusal();
    out.setCode(AsCapnp(CodeText(message.code)));
    out.setReason(AsCapnp(FreeText(message.reason)));
    out.setRetry(message.retry);
  }
  void operator()(const RoundOffer& message) {
    auto out = body.initRoundOffer();
    Write(out.initPlan(), message.plan);
    Write(out.initPayload(), message.payload);
  }
  void operator()(const RoundClosed& message) {
    auto out = body.initRoundClosed();
    out.setRound(message.round.number);
    out.setReason(AsCapnp(FreeText(message.reason)));
  }
  void operator()(const UpdateVerdict& message) {
    auto out = body.initUpdateVerdict();
    out.setRound(message.round.number);
    out.setCode(AsCapnp(CodeText(message.code)));
    out.setReason(AsCapnp(FreeText(message.reason)));
  }
  void operator()(const EvalRequest& message) {
    auto out = body.initEvalRequest();
    out.setRun(AsCapnp(message.run.name));
    out.setVersion(message.version.number);
    out.setDeadlineS(message.deadline_s);
    Write(out.initPayload(), message.payload);
  }
  void operator()(const RunEnded& message) {
    auto out = body.initRunEnded();
    out.setState(AsCapnp(message.state));
    out.setReason(AsCapnp(FreeText(message.reason)));
  }
  void operator()(const ChunkRequest& message) {
    auto out = body.initChunkRequest();
    out.setSha256(AsCapnp(message.sha256));
    out.setFirst(message.first);
    out.setCount(message.count);
  }
  void operator()(const Chunk& message) {
    auto out = body.initChunk();
    out.setSha256(AsCapnp(message.sha256));
    out.setIndex(message.index);
    out.setXxh3(message.xxh3);
  }
  void operator()(const Goodbye& message) {
    body.initGoodbye().setReason(AsCapnp(FreeText(message.reason)));
  }
};

}  // namespace

Blob EncodeMessage(const Message& message) {
  capnp::MallocMessageBuilder builder;
  auto envelope = builder.initRoot<proto::Envelope>();
  envelope.setProtocol(kProtocolVersion);
  std::visit(BodyWriter{envelope.initBody()}, message);
  auto words = std::make_shared<const kj::Array<capnp::word>>(capnp::messageToFlatArray(builder));
  const auto bytes = words->asBytes();
  return Blob::Share(std::as_bytes(std::span(bytes.begin(), bytes.size())), words);
}

}  // namespace weft
