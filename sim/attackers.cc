#include "sim/attackers.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/adapters/adapter.h"
#include "common/base/check.h"
#include "common/base/str.h"
#include "common/codec/adapter_block.h"
#include "common/crypto/digest.h"
#include "common/tensor/guard.h"

namespace weft::sim {
namespace {

constexpr char kAttackedMethod[] = "lora";

Status CheckFits(const AttackPlan& plan, const Settings& settings, const Population& population) {
  const auto clients = population.clients.size();
  const size_t honest = clients - plan.attackers.size();
  for (size_t i = honest; i < clients; ++i) {
    const VirtualClient& client = population.clients[i];
    const std::string& method = client.method.empty() ? settings.adapter.method : client.method;
    if (method == kAttackedMethod) continue;
    return InvalidArgument(Str("[sim] attack ", settings.sim.attack, ": ", client.site->client(),
                               " trains ", method, ", attacks are of ", kAttackedMethod, " only"));
  }
  if (plan.kind != AttackKind::kRankInflation) return OkStatus();
  if (plan.scale < 2 || plan.scale != std::floor(plan.scale)) {
    return InvalidArgument(Str("[sim] attack-scale: got ", plan.scale,
                               ", wanted a whole number of at least 2: times the planned rank"));
  }
  const double most = static_cast<double>(honest) / static_cast<double>(clients);
  if (settings.cohort.quorum > most + 1e-9) {
    return InvalidArgument(Str("[sim] attack ", settings.sim.attack, ": every update of the ",
                               plan.attackers.size(),
                               " attackers is refused, and no round would "
                               "reach its quorum; set cohort.quorum to ",
                               most, " or less"));
  }
  return OkStatus();
}

// What the client goes on from; a fresh adapter changes nothing.
Result<Sent> SentWith(const TrainJob& job) {
  if (job.bundle.empty()) return Sent{};
  WEFT_TRY_ASSIGN(const AdapterBundle bundle, DecodeBundle(job.bundle, at::kCPU));
  if (!bundle.adapter) return Sent{};
  return Lower(*bundle.adapter);
}

// The same update with another adapter in it. What the header says of sizes and hashes is true.
Result<TrainJob::Output> Reship(TrainJob::Output output, const TrainJob& job,
                                const AdapterState& state) {
  AdapterBundle update;
  update.adapter = state;
  WEFT_TRY_ASSIGN(const Codec* codec, FindCodec(job.plan.codec));
  WEFT_TRY_ASSIGN(output.payload, EncodeBundle(update, *codec));
  output.header.spec = state.spec;
  output.header.payload_bytes = output.payload.size();
  output.header.payload_sha256 = Sha256Hex(output.payload.span());
  return output;
}

Result<AdapterState> Alone(const AttackPlan& plan, const TrainJob& job, const AdapterState& own,
                           size_t index) {
  WEFT_TRY_ASSIGN(const Sent sent, SentWith(job));
  switch (plan.kind) {
    case AttackKind::kSignFlip:
      return SignFlip(own, sent, plan.scale);
    case AttackKind::kGaussian:
      return Gaussian(own, sent, plan.scale, job.plan.seed, Str(job.client, "/", job.plan.round));
    case AttackKind::kGaugeBomb:
      return GaugeBomb(own, plan.scale);
    case AttackKind::kOverflow:
      return Overflow(own, plan.scale);
    case AttackKind::kRankInflation:
      // Every second one says so in its header; the others leave that to be found in the payload.
      return InflateRank(own, static_cast<int64_t>(plan.scale), index % 2 == 0);
    default:
      break;
  }
  WEFT_CHECK(false, "not an attack of one client alone");
}

Result<AdapterState> Together(const AttackPlan& plan, const TrainJob& job,
                              const std::vector<std::shared_ptr<const HonestUpdate>>& updates) {
  if (plan.kind == AttackKind::kSybil) {
    WEFT_TRY_ASSIGN(const Sent sent, SentWith(job));
    return SignFlip(updates.front()->adapter, sent, plan.scale);
  }
  std::vector<AdapterState> colluders;
  for (const auto& update : updates) colluders.push_back(update->adapter);
  if (plan.kind == AttackKind::kAlie) return Alie(colluders, plan.scale);
  WEFT_CHECK(plan.kind == AttackKind::kInnerProduct, "not an attack of several clients");
  WEFT_TRY_ASSIGN(const Sent sent, SentWith(job));
  return InnerProduct(colluders, sent, plan.scale);
}

}  // namespace

Result<AttackPlan> PlanAttack(const Settings& settings, const Population& population) {
  const SimSettings& sim = settings.sim;
  const auto clients = static_cast<int64_t>(population.clients.size());
  AttackPlan plan;
  WEFT_TRY_ASSIGN(plan.kind, FindAttack(sim.attack));
  if (sim.attackers == 0) return plan;
  if (plan.kind == AttackKind::kNone) {
    return InvalidArgument(
        Str("[sim] attackers: got ", sim.attackers, " and no attack to make; set sim.attack"));
  }
  if (sim.attackers >= clients) {
    return InvalidArgument(Str("[sim] attackers: got ", sim.attackers, ", wanted fewer than the ",
                               clients, " clients"));
  }
  if (plan.kind == AttackKind::kAlie && sim.attack_scale == 0 && 2 * sim.attackers > clients) {
    return InvalidArgument(Str("[sim] attackers: got ", sim.attackers, " of ", clients,
                               ", and alie has no z of its own above one half; set "
                               "sim.attack-scale"));
  }
  plan.scale =
      sim.attack_scale > 0 ? sim.attack_scale : UsualScale(plan.kind, clients, sim.attackers);
  for (auto i = static_cast<size_t>(clients - sim.attackers); i < population.clients.size(); ++i) {
    plan.attackers.push_back(population.clients[i].site->client());
  }
  WEFT_TRY(CheckFits(plan, settings, population));
  return plan;
}

Attackers::Attackers(AttackPlan plan, Training honest)
    : plan_(std::move(plan)), honest_(std::move(honest)), colluders_(plan_.attackers, honest_) {}

Result<TrainJob::Output> Attackers::Train(const TrainJob& job, JobControl& control) {
  const auto at = std::find(plan_.attackers.begin(), plan_.attackers.end(), job.client);
  if (at == plan_.attackers.end() || Measures(job.plan.training)) return honest_(job, control);
  const auto index = static_cast<size_t>(at - plan_.attackers.begin());
  return Guarded("[attack]", [&] { return Attack(job, index, control); });
}

Result<TrainJob::Output> Attackers::Attack(const TrainJob& job, size_t index, JobControl& control) {
  if (Colludes(plan_.kind)) {
    WEFT_TRY_ASSIGN(const auto updates, colluders_.Updates(job, control));
    WEFT_TRY_ASSIGN(const AdapterState shipped, Together(plan_, job, updates));
    return Reship(updates.at(index)->output, job, shipped);
  }
  WEFT_TRY_ASSIGN(TrainJob::Output output, honest_(job, control));
  WEFT_TRY_ASSIGN(HonestUpdate own, ReadBack(std::move(output)));
  WEFT_TRY_ASSIGN(const AdapterState shipped, Alone(plan_, job, own.adapter, index));
  return Reship(std::move(own.output), job, shipped);
}

void RegisterAttack(WorkTable& table, AttackPlan plan) {
  const auto honest = std::make_shared<const WorkTable>(table);
  const auto attackers = std::make_shared<Attackers>(
      std::move(plan), [honest](const TrainJob& job, JobControl& control) {
        const std::any done = honest->Run(std::any(job), control);
        return *std::any_cast<Result<TrainJob::Output>>(&done);
      });
  table.On<TrainJob>([attackers](const TrainJob& job, JobControl& control) {
    return attackers->Train(job, control);
  });
}

}  // namespace weft::sim
