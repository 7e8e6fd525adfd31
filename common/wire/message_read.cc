#include <protocols/weft.capnp.h>

#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/wire/message_codec.h"
#include "common/wire/spec_codec.h"

namespace weft {
namespace {

using wire::FieldReader;

constexpr int64_t kStepsMax =
    int64_t{1} << 40;  // optimiser steps, rows, tokens: far above any run, safe to add up
constexpr uint32_t kMillisMax = 24 * 3600 * 1000;

Code ReadCode(FieldReader& fields, capnp::Text::Reader text) {
  return CodeFromName(fields.Name(text, "code"));
}

PayloadOffer ReadPayload(FieldReader& fields, proto::PayloadOffer::Reader in) {
  PayloadOffer payload;
  payload.sha256 = fields.Digest(in.getSha256(), "payload sha256");
  payload.bytes = fields.AtMost(in.getBytes(), limits::kPayloadBytesMax, "payload bytes");
  if (payload.bytes == 0) fields.Fail("payload bytes", "got 0, wanted at least 1");
  return payload;
}

Capabilities ReadCapabilities(FieldReader& fields, proto::Capabilities::Reader in) {
  Capabilities out;
  out.software = fields.Name(in.getSoftware(), "software");
  out.device = fields.Name(in.getDevice(), "device");
  out.memory_mb = in.getMemoryMb();
  out.rank_max = fields.Within(in.getRankMax(), 0, limits::kRankMax, "rank max");
  out.num_examples = fields.AtMost(in.getNumExamples(), limits::kExamplesMax, "num examples");
  out.eval_examples = fields.AtMost(in.getEvalExamples(), limits::kExamplesMax, "eval examples");
  out.methods = wire::ReadNames(fields, in.getMethods(), limits::kOptionsMax, "methods");
  out.codecs = wire::ReadNames(fields, in.getCodecs(), limits::kOptionsMax, "codecs");
  out.members = static_cast<uint32_t>(fields.AtMost(in.getMembers(), limits::kPeersMax, "members"));
  return out;
}

Message Read(FieldReader& fields, proto::Hello::Reader in) {
  Hello hello;
  hello.protocol = in.getProtocol();
  hello.base_hash = fields.Name(in.getBaseHash(), "base hash");
  const auto sites = in.getSites();
  if (fields.Count(sites.size(), limits::kSitesMax, "sites")) hello.sites.reserve(sites.size());
  for (const auto site : sites) {
    if (!fields.ok()) return hello;
    hello.sites.push_back(wire::ReadSite(fields, site));
  }
  hello.capabilities = ReadCapabilities(fields, in.getCapabilities());
  return hello;
}

Message Read(FieldReader& fields, proto::Heartbeat::Reader in) {
  Heartbeat heartbeat;
  heartbeat.round.number = in.getRound();
  heartbeat.phase = fields.Name(in.getPhase(), "phase");
  heartbeat.progress = static_cast<float>(fields.Finite(in.getProgress(), "progress"));
  return heartbeat;
}

void ReadMeasurements(FieldReader& fields, proto::UpdateHeader::Reader in, UpdateHeader& header) {
  const auto metrics = in.getMetrics();
  if (!fields.Count(metrics.size(), limits::kMetricsMax, "metrics")) return;
  for (const auto metric : metrics) {
    header.metrics.emplace_back(fields.Name(metric.getName(), "metric"), metric.getValue());
  }
  const auto times = in.getTimes();
  header.times.wait_s = fields.Finite(times.getWaitS(), "wait seconds");
  header.times.download_s = fields.Finite(times.getDownloadS(), "download seconds");
  header.times.train_s = fields.Finite(times.getTrainS(), "train seconds");
  header.times.upload_s = fields.Finite(times.getUploadS(), "upload seconds");
  header.times.evaluate_s = fields.Finite(times.getEvaluateS(), "evaluate seconds");
}

Message Read(FieldReader& fields, proto::UpdateOffer::Reader in) {
  UpdateOffer offer;
  UpdateHeader& header = offer.header;
  const auto from = in.getHeader();
  header.run.name = fields.Key(from.getRun(), "run");
  header.round.number = from.getRound();
  header.client.name = fields.Key(from.getClient(), "client");
  header.version.number = from.getVersion();
  header.base_hash = fields.Name(from.getBaseHash(), "base hash");
  header.spec = wire::ReadSpec(fields, from.getSpec());
  header.codec = fields.Name(from.getCodec(), "codec");
  header.num_examples = fields.AtMost(from.getNumExamples(), limits::kExamplesMax, "num examples");
  header.label_tokens = fields.AtMost(from.getLabelTokens(), kStepsMax, "label tokens");
  header.steps = fields.AtMost(from.getSteps(), kStepsMax, "steps");
  header.train_loss = from.getTrainLoss();
  if (fields.ok()) ReadMeasurements(fields, from, header);
  header.payload_bytes =
      fields.AtMost(from.getPayloadBytes(), limits::kPayloadBytesMax, "header payload bytes");
  header.payload_sha256 = fields.Digest(from.getPayloadSha256(), "header payload sha256");
  offer.payload = ReadPayload(fields, in.getPayload());
  if (offer.payload.sha256 != header.payload_sha256 ||
      offer.payload.bytes != header.payload_bytes) {
    fields.Fail("payload", "the offer and the update's header name different payloads");
  }
  return offer;
}

Message Read(FieldReader& fields, proto::RoundFailed::Reader in) {
  RoundFailed failed;
  failed.round.number = in.getRound();
  failed.code = ReadCode(fields, in.getCode());
  failed.reason = fields.FreeText(in.getReason(), "reason");
  return failed;
}

Message Read(FieldReader& fields, proto::EvalReport::Reader in) {
  EvalReport report;
  report.run.name = fields.Key(in.getRun(), "run");
  report.version.number = in.getVersion();
  report.client.name = fields.Key(in.getClient(), "client");
  report.loss = in.getLoss();
  report.label_tokens = fields.AtMost(in.getLabelTokens(), kStepsMax, "label tokens");
  report.num_examples = fields.AtMost(in.getNumExamples(), limits::kExamplesMax, "num examples");
  report.evaluate_s = fields.Finite(in.getEvaluateS(), "evaluate seconds");
  return EvalReply{std::move(report)};
}

Message Read(FieldReader& fields, proto::Welcome::Reader in) {
  Welcome welcome;
  welcome.protocol = in.getProtocol();
  welcome.run.name = fields.Key(in.getRun(), "run");
  welcome.version.number = in.getVersion();
  welcome.num_server_rounds = in.getNumServerRounds();
  welcome.heartbeat_ms = in.getHeartbeatMs();
  welcome.gone_after_ms = in.getGoneAfterMs();
  fields.Within(welcome.heartbeat_ms, 1, kMillisMax, "heartbeat ms");
  fields.Within(welcome.gone_after_ms, 1, kMillisMax, "gone after ms");
  return welcome;
}

Message Read(FieldReader& fields, proto::Refusal::Reader in) {
  Refusal refusal;
  refusal.code = ReadCode(fields, in.getCode());
  refusal.reason = fields.FreeText(in.getReason(), "reason");
  refusal.retry = in.getRetry();
  return refusal;
}

LocalTraining ReadTraining(FieldReader& fields, proto::LocalTraining::Reader in) {
  LocalTraining out;
  const auto count = [&](int64_t value, const char* field) {
    return fields.Within(value, 0, kStepsMax, field);
  };
  out.objective = fields.Name(in.getObjective(), "objective");
  out.fedprox_mu = fields.Finite(in.getFedproxMu(), "fedprox mu");
  out.local_steps = count(in.getLocalSteps(), "local steps");
  out.local_epochs = count(in.getLocalEpochs(), "local epochs");
  out.batch_size = fields.Within(in.getBatchSize(), 1, kStepsMax, "batch size");
  out.micro_batch_size = count(in.getMicroBatchSize(), "micro batch size");
  out.max_len = count(in.getMaxLen(), "max len");
  out.packing = in.getPacking();
  out.row_order = fields.Name(in.getRowOrder(), "row order");
  out.long_rows = fields.Name(in.getLongRows(), "long rows");
  out.dtype = fields.Name(in.getDtype(), "dtype");
  out.gradient_checkpointing = in.getGradientCheckpointing();
  out.optimizer = fields.Name(in.getOptimizer(), "optimizer");
  out.lr = fields.Finite(in.getLr(), "lr");
  out.beta1 = fields.Finite(in.getBeta1(), "beta1");
  out.beta2 = fields.Finite(in.getBeta2(), "beta2");
  out.eps = fields.Finite(in.getEps(), "eps");
  out.weight_decay = fields.Finite(in.getWeightDecay(), "weight decay");
  out.grad_clip = fields.Finite(in.getGradClip(), "grad clip");
  out.schedule = fields.Name(in.getSchedule(), "schedule");
  out.warmup_steps = count(in.getWarmupSteps(), "warmup steps");
  out.schedule_steps = count(in.getScheduleSteps(), "schedule steps");
  out.steps_done = count(in.getStepsDone(), "steps done");
  out.keep_optimizer = in.getKeepOptimizer();
  return out;
}

void ReadCohort(FieldReader& fields, proto::RoundPlan::Reader in, RoundPlan& plan) {
  const auto cohort = in.getCohort();
  if (!fields.Count(cohort.size(), limits::kPeersMax, "cohort")) return;
  for (const auto entry : cohort) {
    ClientPlan client;
    client.client.name = fields.Key(entry.getClient(), "cohort client");
    client.adapter = wire::ReadSpec(fields, entry.getAdapter());
    client.merged.number = entry.getMerged();
    client.asked.number = entry.getAsked();
    if (!fields.ok()) return;
    plan.cohort.push_back(std::move(client));
  }
  const auto evaluators = in.getEvaluators();
  if (!fields.Count(evaluators.size(), limits::kPeersMax, "evaluators")) return;
  for (const capnp::Text::Reader name : evaluators) {
    plan.evaluators.push_back(ClientId{fields.Key(name, "evaluator")});
    if (!fields.ok()) return;
  }
}

Message Read(FieldReader& fields, proto::RoundOffer::Reader in) {
  RoundOffer offer;
  const auto from = in.getPlan();
  RoundPlan& plan = offer.plan;
  plan.run.name = fields.Key(from.getRun(), "run");
  plan.round.number = from.getRound();
  plan.version.number = from.getVersion();
  plan.num_server_rounds = from.getNumServerRounds();
  plan.base_hash = fields.Name(from.getBaseHash(), "base hash");
  plan.seed = from.getSeed();
  plan.strategy = fields.Name(from.getStrategy(), "strategy");
  plan.codec = fields.Name(from.getCodec(), "codec");
  plan.training = ReadTraining(fields, from.getTraining());
  if (fields.ok()) ReadCohort(fields, from, plan);
  plan.deadline_s = fields.Finite(from.getDeadlineS(), "deadline");
  plan.delta = from.getDelta();
  plan.top_k = fields.Finite(from.getTopK(), "top-k");
  plan.error_feedback = from.getErrorFeedback();
  plan.compress = from.getCompress();
  plan.down_codec = fields.Name(from.getDownCodec(), "down codec");
  plan.max_staleness = from.getMaxStaleness();
  plan.staleness_exponent = fields.Finite(from.getStalenessExponent(), "staleness exponent");
  offer.payload = ReadPayload(fields, in.getPayload());
  return offer;
}

Message Read(FieldReader& fields, proto::RoundClosed::Reader in) {
  RoundClosed closed;
  closed.round.number = in.getRound();
  closed.reason = fields.FreeText(in.getReason(), "reason");
  return closed;
}

Message Read(FieldReader& fields, proto::UpdateVerdict::Reader in) {
  UpdateVerdict verdict;
  verdict.round.number = in.getRound();
  verdict.code = ReadCode(fields, in.getCode());
  verdict.reason = fields.FreeText(in.getReason(), "reason");
  return verdict;
}

Message Read(FieldReader& fields, proto::EvalRequest::Reader in) {
  EvalRequest request;
  request.run.name = fields.Key(in.getRun(), "run");
  request.version.number = in.getVersion();
  request.deadline_s = fields.Finite(in.getDeadlineS(), "deadline");
  request.payload = ReadPayload(fields, in.getPayload());
  return request;
}

Message Read(FieldReader& fields, proto::RunEnded::Reader in) {
  RunEnded ended;
  ended.state = fields.Name(in.getState(), "state");
  ended.reason = fields.FreeText(in.getReason(), "reason");
  return ended;
}

Message Read(FieldReader& fields, proto::ChunkRequest::Reader in) {
  ChunkRequest request;
  request.sha256 = fields.Digest(in.getSha256(), "sha256");
  request.first = fields.AtMost(in.getFirst(), limits::kChunksMax, "first chunk");
  request.count = static_cast<uint32_t>(
      fields.AtMost(in.getCount(), limits::kChunksInFlightMax, "chunks requested"));
  return request;
}

Message Read(FieldReader& fields, proto::Chunk::Reader in) {
  Chunk chunk;
  chunk.sha256 = fields.Digest(in.getSha256(), "sha256");
  chunk.index = fields.AtMost(in.getIndex(), limits::kChunksMax, "chunk index");
  chunk.xxh3 = in.getXxh3();
  return chunk;
}

Message Read(FieldReader& fields, proto::Goodbye::Reader in) {
  return Goodbye{fields.FreeText(in.getReason(), "reason")};
}

Result<Message> ReadBody(proto::Envelope::Reader envelope) {
  const auto body = envelope.getBody();
  const auto as = [](const char* name, auto in) -> Result<Message> {
    FieldReader fields(name);
    Message message = Read(fields, in);
    WEFT_TRY(fields.status());
    return message;
  };
  switch (body.which()) {
    case proto::Envelope::Body::NONE:
      return InvalidArgument("[wire] empty envelope: got no message in it");
    case proto::Envelope::Body::HELLO:
      return as("hello", body.getHello());
    case proto::Envelope::Body::HEARTBEAT:
      return as("heartbeat", body.getHeartbeat());
    case proto::Envelope::Body::UPDATE_OFFER:
      return as("update-offer", body.getUpdateOffer());
    case proto::Envelope::Body::ROUND_FAILED:
      return as("round-failed", body.getRoundFailed());
    case proto::Envelope::Body::EVAL_REPLY:
      return as("eval-reply", body.getEvalReply());
    case proto::Envelope::Body::WELCOME:
      return as("welcome", body.getWelcome());
    case proto::Envelope::Body::REFUSAL:
      return as("refusal", body.getRefusal());
    case proto::Envelope::Body::ROUND_OFFER:
      return as("round-offer", body.getRoundOffer());
    case proto::Envelope::Body::ROUND_CLOSED:
      return as("round-closed", body.getRoundClosed());
    case proto::Envelope::Body::UPDATE_VERDICT:
      return as("update-verdict", body.getUpdateVerdict());
    case proto::Envelope::Body::EVAL_REQUEST:
      return as("eval-request", body.getEvalRequest());
    case proto::Envelope::Body::RUN_ENDED:
      return as("run-ended", body.getRunEnded());
    case proto::Envelope::Body::CHUNK_REQUEST:
      return as("chunk-request", body.getChunkRequest());
    case proto::Envelope::Body::CHUNK:
      return as("chunk", body.getChunk());
    case proto::Envelope::Body::GOODBYE:
      return as("goodbye", body.getGoodbye());
  }
  return FailedPrecondition(Str("[wire] message of kind ", static_cast<unsigned>(body.which()),
                                " from a peer of protocol ", envelope.getProtocol(), ": protocol ",
                                kProtocolVersion, " does not know it"));
}

}  // namespace

Result<Message> DecodeMessage(const Blob& control) {
  if (control.size() > limits::kControlBytesMax) {
    return InvalidArgument(Str("[wire] control frame: got ", control.size(),
                               " bytes, wanted at most ", limits::kControlBytesMax));
  }
  Result<Message> message = Internal("[wire] nothing was read");
  const wire::DoorLimits limits{.words_max = limits::kCapnpWordsMax,
                                .nesting_max = limits::kCapnpNestingMax};
  WEFT_TRY(wire::ReadAtDoor(control.span(), limits, [&](capnp::MessageReader& reader) {
    message = ReadBody(reader.getRoot<proto::Envelope>());
    return message.status();
  }));
  return message;
}

}  // namespace weft
