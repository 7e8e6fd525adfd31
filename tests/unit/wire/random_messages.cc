#include "tests/unit/wire/random_messages.h"

#include <cmath>

#include "common/base/check.h"

namespace weft {
namespace {

int64_t Int(RandomStream& random, int64_t low, int64_t high) {
  return low + static_cast<int64_t>(random.Below(static_cast<uint64_t>(high - low) + 1));
}
uint32_t U32(RandomStream& random) { return random.NextU32(); }
bool Flip(RandomStream& random) { return random.Below(2) == 1; }
double Real(RandomStream& random) { return random.Normal() * std::exp(random.Normal() * 10); }

Code RandomCode(RandomStream& random) {
  return static_cast<Code>(random.Below(static_cast<uint64_t>(Code::kInternal) + 1));
}

std::string Digest(RandomStream& random) {
  std::string digest;
  for (int i = 0; i < 64; ++i) digest += "0123456789abcdef"[random.Below(16)];
  return digest;
}

std::vector<std::string> Names(RandomStream& random, uint64_t most) {
  std::vector<std::string> names(random.Below(most + 1));
  for (std::string& name : names) name = RandomName(random);
  return names;
}

PayloadOffer RandomPayload(RandomStream& random) {
  return {Digest(random), 1 + random.Below(uint64_t{1} << 33)};
}

LocalTraining RandomTraining(RandomStream& random) {
  LocalTraining out;
  out.objective = RandomName(random);
  out.fedprox_mu = Real(random);
  out.local_steps = Int(random, 0, 1 << 20);
  out.local_epochs = Int(random, 0, 100);
  out.batch_size = Int(random, 1, 4096);
  out.micro_batch_size = Int(random, 0, 4096);
  out.max_len = Int(random, 0, 1 << 20);
  out.packing = Flip(random);
  out.row_order = RandomName(random);
  out.long_rows = RandomName(random);
  out.dtype = RandomName(random);
  out.gradient_checkpointing = Flip(random);
  out.optimizer = RandomName(random);
  out.lr = Real(random);
  out.beta1 = Real(random);
  out.beta2 = Real(random);
  out.eps = Real(random);
  out.weight_decay = Real(random);
  out.grad_clip = Real(random);
  out.schedule = RandomName(random);
  out.warmup_steps = Int(random, 0, 1 << 20);
  out.schedule_steps = Int(random, 0, 1 << 20);
  out.steps_done = Int(random, 0, 1 << 20);
  out.keep_optimizer = Flip(random);
  return out;
}

Hello RandomHello(RandomStream& random) {
  Hello out;
  out.protocol = static_cast<uint16_t>(random.Below(65536));
  out.base_hash = Digest(random);
  out.sites.resize(random.Below(40));
  for (LinearSite& site : out.sites) {
    site = {RandomName(random), Int(random, 1, 1 << 24), Int(random, 1, 1 << 24)};
  }
  out.capabilities = {.software = RandomName(random),
                      .device = RandomName(random),
                      .memory_mb = random.NextU64(),
                      .rank_max = Int(random, 0, 65536),
                      .num_examples = random.Below(1 << 30),
                      .eval_examples = random.Below(1 << 30),
                      .methods = Names(random, 8),
                      .codecs = Names(random, 8)};
  return out;
}

UpdateOffer RandomUpdateOffer(RandomStream& random) {
  UpdateOffer out;
  out.payload = RandomPayload(random);
  UpdateHeader& header = out.header;
  header.run.name = RandomName(random);
  header.round.number = U32(random);
  header.client.name = RandomName(random);
  header.version.number = U32(random);
  header.base_hash = Digest(random);
  header.spec = RandomSpec(random);
  header.codec = RandomName(random);
  header.num_examples = random.Below(1 << 30);
  header.label_tokens = random.Below(1 << 30);
  header.steps = random.Below(1 << 30);
  header.train_loss = Real(random);
  header.metrics.resize(random.Below(20));
  for (auto& [name, value] : header.metrics) {
    name = RandomName(random);
    value = Real(random);
  }
  header.times = {Real(random), Real(random), Real(random), Real(random), Real(random)};
  header.payload_bytes = out.payload.bytes;
  header.payload_sha256 = out.payload.sha256;
  return out;
}

RoundOffer RandomRoundOffer(RandomStream& random) {
  RoundOffer out;
  out.payload = RandomPayload(random);
  RoundPlan& plan = out.plan;
  plan.run.name = RandomName(random);
  plan.round.number = U32(random);
  plan.version.number = U32(random);
  plan.num_server_rounds = U32(random);
  plan.base_hash = Digest(random);
  plan.seed = random.NextU64();
  plan.strategy = RandomName(random);
  plan.codec = RandomName(random);
  plan.training = RandomTraining(random);
  plan.cohort.resize(random.Below(4));
  for (ClientPlan& client : plan.cohort) {
    client = {ClientId{RandomName(random)}, RandomSpec(random), RoundId{U32(random)}};
  }
  for (const std::string& name : Names(random, 5)) plan.evaluators.push_back(ClientId{name});
  plan.deadline_s = Real(random);
  plan.delta = random.Below(2) == 1;
  plan.top_k = Real(random);
  plan.error_feedback = random.Below(2) == 1;
  plan.compress = random.Below(2) == 1;
  plan.down_codec = RandomName(random);
  return out;
}

EvalReply RandomEvalReply(RandomStream& random) {
  return {{.run = RunId{RandomName(random)},
           .version = RoundId{U32(random)},
           .client = ClientId{RandomName(random)},
           .loss = Real(random),
           .label_tokens = random.Below(1 << 30),
           .num_examples = random.Below(1 << 30),
           .evaluate_s = Real(random)}};
}

Welcome RandomWelcome(RandomStream& random) {
  return {.protocol = static_cast<uint16_t>(random.Below(65536)),
          .run = RunId{RandomName(random)},
          .version = RoundId{U32(random)},
          .num_server_rounds = U32(random),
          .heartbeat_ms = 1 + U32(random) % 60000,
          .gone_after_ms = 1 + U32(random) % 60000};
}

Message RandomSmallMessage(RandomStream& random, size_t kind) {
  const RoundId round{U32(random)};
  switch (kind) {
    case 1:
      return Heartbeat{round, RandomName(random), static_cast<float>(random.Uniform())};
    case 3:
      return RoundFailed{round, RandomCode(random), RandomName(random)};
    case 6:
      return Refusal{RandomCode(random), RandomName(random), Flip(random)};
    case 8:
      return RoundClosed{round, RandomName(random)};
    case 9:
      return UpdateVerdict{round, RandomCode(random), RandomName(random)};
    case 10:
      return EvalRequest{RunId{RandomName(random)}, round, Real(random), RandomPayload(random)};
    case 11:
      return RunEnded{RandomName(random), RandomName(random)};
    case 12:
      return ChunkRequest{Digest(random), random.Below(8192),
                          static_cast<uint32_t>(random.Below(17))};
    case 13:
      return Chunk{Digest(random), random.Below(8192), random.NextU64()};
    case 14:
      return Goodbye{RandomName(random)};
    default:
      WEFT_CHECK(false, "no such kind: ", kind);
  }
  return Goodbye{};
}

}  // namespace

std::string RandomName(RandomStream& random) {
  constexpr std::string_view kLetters =
      "abcXYZ019._- é漢";  // Ends in two sequences longer than a byte.
  std::string name = "n";
  const uint64_t length = random.Below(30);
  for (uint64_t i = 0; i < length; ++i) name += kLetters[random.Below(13)];
  if (random.Below(4) == 0) name += kLetters.substr(13);
  return name;
}

AdapterSpec RandomSpec(RandomStream& random) {
  AdapterSpec out;
  out.method = RandomName(random);
  out.rank = Int(random, 0, 65536);
  out.alpha = Real(random);
  out.rslora = Flip(random);
  out.dropout = random.Uniform();
  out.target_modules = Names(random, 8);
  out.target_regex = RandomName(random);
  out.exclude_modules = Names(random, 3);
  out.layers_to_transform.resize(random.Below(10));
  for (int64_t& layer : out.layers_to_transform) layer = Int(random, 0, 200);
  out.layers_pattern = RandomName(random);
  out.rank_pattern.resize(random.Below(5));
  for (auto& [pattern, rank] : out.rank_pattern) {
    pattern = RandomName(random);
    rank = Int(random, 0, 65536);
  }
  out.alpha_pattern.resize(random.Below(5));
  for (auto& [pattern, alpha] : out.alpha_pattern) {
    pattern = RandomName(random);
    alpha = Real(random);
  }
  out.modules_to_save = Names(random, 3);
  out.labels = Names(random, 3);
  out.options.resize(random.Below(5));
  for (auto& [key, value] : out.options) {
    key = RandomName(random);
    value = RandomName(random);
  }
  return out;
}

Message RandomMessage(RandomStream& random, size_t kind) {
  switch (kind) {
    case 0:
      return RandomHello(random);
    case 2:
      return RandomUpdateOffer(random);
    case 4:
      return RandomEvalReply(random);
    case 5:
      return RandomWelcome(random);
    case 7:
      return RandomRoundOffer(random);
    default:
      return RandomSmallMessage(random, kind);
  }
}

}  // namespace weft
