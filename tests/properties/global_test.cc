// What happens to the global adapter: nothing where nobody trained, the best approximation of the
// target however it was computed, no overflow at any scale.
//
// Shape legend: O out, I in, R all ranks together.

#include <algorithm>
#include <cmath>

#include "common/adapters/singular_form.h"
#include "tests/properties/random_round.h"

namespace weft::testing {
namespace {

// The clients of the round return exactly what they are sent.
std::vector<MemoryClient> Idle(const RandomRound& round) {
  std::vector<MemoryClient> idle;
  for (const MemoryClient& client : round.clients) {
    const ClientPlan plan =
        PlanFor(*round.strategy, round.settings, client.plan.client.name, client.plan.adapter.rank,
                client.plan.adapter.alpha, round.number);
    Result<MemoryClient> own = IdleClient(*round.strategy, round.global, plan, client.weight);
    WEFT_CHECK(own.ok(), own.status());
    idle.push_back(std::move(own).value());
  }
  return idle;
}

TEST(IdleProperty, ARoundInWhichNobodyTrainsChangesNothingUnderExactRules) {
  CheckProperty(
      [] {
        const StrategySettings settings =
            DrawStrategy([](const StrategyTraits& traits) { return traits.exact; });
        RC_TAG(settings.name);
        const RandomRound round = DrawRound(settings);
        const MergedRound merged = Merged(round, Idle(round));
        RC_ASSERT(Distance(merged.global.adapter, round.global.adapter) < 1e-6);
      },
      kManyCases);
}

TEST(IdleProperty, FiftyIdleRoundsOfMixedRanksDriftLessThanAMillionth) {
  CheckProperty(
      [] {
        StrategySettings settings{.name = "exact-svd"};
        settings.slots = *rc::gen::element<std::string>("top", "random").as("slots");
        settings.tail_on_client = *rc::gen::arbitrary<bool>().as("tail on client");
        settings.split = *rc::gen::element<std::string>("left", "balanced").as("split");
        RandomRound round = DrawRound(settings, {.clients_max = 4});
        const GlobalState before = round.global;
        for (int i = 0; i < 50; ++i, ++round.number)
          round.global = Merged(round, Idle(round)).global;
        RC_ASSERT(Distance(round.global.adapter, before.adapter) < 1e-6);
      },
      kCases);
}

// A sum of blocks, its rank below or above min(out, in), and the matrix that it is.
struct RandomSum {
  LowRankSum sum;
  LowRank stack;
  at::Tensor matrix_OI;
};

RandomSum DrawSum() {
  const int64_t out = Draw("out", 1, 16);
  const int64_t in = Draw("in", 1, 16);
  const int64_t blocks = Draw("blocks", 1, 6);
  const auto seed =
      static_cast<uint64_t>(*rc::gen::noShrink(rc::gen::arbitrary<uint32_t>()).as("seed"));
  RandomSum drawn{LowRankSum(out, in), {}, at::zeros({out, in}, at::kDouble)};
  std::vector<at::Tensor> A_blocks;
  std::vector<at::Tensor> B_blocks;
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t rank = Draw("rank", 1, 6);
    const std::string label = std::to_string(b);
    A_blocks.push_back(RandomMatrix(rank, in, label + "A", seed));
    B_blocks.push_back(RandomMatrix(out, rank, label + "B", seed));
    drawn.sum.Add({A_blocks.back(), B_blocks.back()});
    drawn.matrix_OI += at::matmul(B_blocks.back(), A_blocks.back());
  }
  drawn.stack = {at::cat(A_blocks, 0), at::cat(B_blocks, 1)};
  return drawn;
}

TEST(DensePathProperty, FactoredAndDenseRecompressionAgree) {
  CheckProperty([] {
    const RandomSum drawn = DrawSum();
    RC_CLASSIFY(drawn.sum.dense());
    const int64_t kept = Draw("kept", 1, 6);
    const Recompressed ours = Recompress(drawn.sum, [&](const at::Tensor&) { return kept; });
    LowRankSum dense(drawn.sum.out(), drawn.sum.in());
    dense.AddMatrix(drawn.matrix_OI);
    const Recompressed other = Recompress(dense, [&](const at::Tensor&) { return kept; });
    const SingularForm factored = SingularFormOf(drawn.stack).Leading(kept);
    const double scale = drawn.matrix_OI.norm().item<double>();
    const auto product = [](const at::Tensor& U, const at::Tensor& S, const at::Tensor& V) {
      return at::matmul(U * S, V.t());
    };
    const at::Tensor wanted = product(other.U_OQ, other.S_Q, other.V_IQ);
    // The cut is as exact as the distance of the values on its two sides lets it be.
    const int64_t count = other.spectrum.size(0);
    const double gap =
        kept >= count ? scale : (other.spectrum[kept - 1] - other.spectrum[kept]).item<double>();
    const double tolerance = 1e-12 * scale * std::max(1.0, scale / std::max(gap, 1e-300));
    RC_ASSERT(MaxAbs(product(ours.U_OQ, ours.S_Q, ours.V_IQ) - wanted) < tolerance);
    RC_ASSERT(MaxAbs(product(factored.U_OQ, factored.S_Q, factored.V_IQ) - wanted) < tolerance);
    const int64_t shared = std::min(count, ours.spectrum.size(0));
    RC_ASSERT(MaxAbs(ours.spectrum.narrow(0, 0, shared) - other.spectrum.narrow(0, 0, shared)) <
              1e-12 * scale);
  });
}

TEST(DensePathProperty, ExactSvdPublishesTheBestApproximationOfTheTarget) {
  CheckProperty([] {
    const RandomRound round = DrawRound({.name = "exact-svd"});
    const MergedRound merged = Merged(round, round.clients);
    const MemoryUpdates updates(round.clients);
    AdapterState wanted = merged.global.adapter;
    int64_t stacked = 0;
    for (size_t i = 0; i < round.sites.size(); ++i) {
      at::Tensor target_OI = Product(round.global.adapter, i);
      for (size_t k = 0; k < updates.size(); ++k) {
        const LowRank own = *updates.Factors(k, i);
        const std::optional<LowRank> sent = *round.strategy->Sent(round.global, i, updates.plan(k));
        target_OI = target_OI + (Product(own) - Product(*sent)) * updates.weight(k);
        stacked += own.A_RI.size(0);
      }
      const auto [U, S, Vh] = at::linalg_svd(target_OI, /*full_matrices=*/false);
      const int64_t kept = std::min(SiteRank(round.global.init, round.sites[i]), S.size(0));
      wanted.sites[i].tensors = {{"A", Vh.narrow(0, 0, kept)},
                                 {"B", U.narrow(1, 0, kept) * S.narrow(0, 0, kept)}};
    }
    RC_CLASSIFY(stacked > std::min(round.sites[0].in, round.sites[0].out));
    RC_ASSERT(Distance(merged.global.adapter, wanted) < kPublished);
  });
}

bool AllFinite(const AdapterState& state) {
  return std::all_of(state.sites.begin(), state.sites.end(), [](const SiteState& site) {
    return site.Get("A").isfinite().all().item<bool>() &&
           site.Get("B").isfinite().all().item<bool>();
  });
}

// B, or A where B is frozen.
void Scale(MemoryClient& client, double factor) {
  const std::vector<std::string> trained = (*FindAdapter("lora"))->Trainable(client.plan.adapter);
  const bool on_B = std::find(trained.begin(), trained.end(), "B") != trained.end();
  for (LowRank& factors : client.factors) {
    at::Tensor& scaled = on_B ? factors.B_OR : factors.A_RI;
    scaled = scaled.to(at::kDouble) * factor;
  }
}

TEST(MagnitudeProperty, AllUpdatesScaledScaleWhatIsPublished) {
  CheckProperty(
      [] {
        StrategySettings settings = DrawStrategy();
        RC_TAG(settings.name);
        if ((*FindStrategy(settings.name))->traits().any_weights) settings.robust = DrawRobust();
        const RandomRound round = DrawRound(settings, {.rounds_before = 0});
        const double factor = std::pow(10.0, static_cast<double>(Draw("exponent", -15, 15)));
        AdapterState wanted = Merged(round, round.clients).global.adapter;
        for (SiteState& site : wanted.sites) {
          for (NamedTensor& tensor : site.tensors) {
            if (tensor.name == "B") tensor.value = tensor.value.to(at::kDouble) * factor;
          }
        }
        std::vector<MemoryClient> clients = round.clients;
        for (MemoryClient& client : clients) Scale(client, factor);
        const MergedRound merged = Merged(round, clients);
        RC_ASSERT(AllFinite(merged.global.adapter));
        RC_ASSERT(Distance(merged.global.adapter, wanted) < kPublished);
      },
      kManyCases);
}

TEST(MagnitudeProperty, UpdatesThirtyOrdersApartNeitherOverflowNorBreakTheCertificate) {
  CheckProperty(
      [] {
        const StrategySettings settings = DrawStrategy();
        RC_TAG(settings.name);
        const RandomRound round = DrawRound(settings, {.rounds_before = 1});
        std::vector<MemoryClient> clients = round.clients;
        for (MemoryClient& client : clients) {
          Scale(client, std::pow(10.0, static_cast<double>(Draw("exponent", -15, 15))));
        }
        const MergedRound merged = Merged(round, clients);
        RC_ASSERT(AllFinite(merged.global.adapter));
        // Rules that move the old global adapter keep 1e-16 of it, which may be all there is to a
        // new one.
        if (round.number == 1) RC_ASSERT(merged.certificate.error_before_truncation <= 1e-6);
        RC_ASSERT(std::isfinite(merged.certificate.error_published));
        RC_ASSERT(std::isfinite(merged.certificate.error_to_ideal));
      },
      kManyCases);
}

}  // namespace
}  // namespace weft::testing
