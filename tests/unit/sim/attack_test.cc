// The formulas of hostile updates against the plain matrices they stand for.

#include "sim/attack.h"

#include <cmath>

#include <gtest/gtest.h>

#include "common/adapters/adapter.h"
#include "common/adapters/distance.h"

// Shape legend: R rank, I in, O out.

namespace weft::sim {
namespace {

constexpr double kClose = 1e-5;  // float32 factors, relative to the wanted norm

AdapterSpec Spec(int64_t rank) {
  AdapterSpec spec;
  spec.method = "lora";
  spec.rank = rank;
  spec.alpha = 2.0 * static_cast<double>(rank);
  spec.target_modules = {"all-linear"};
  return spec;
}

std::vector<LinearSite> Sites() {
  LinearSite wide, tall;
  wide.path = "layers.0.q_proj";
  wide.out = 6;
  wide.in = 9;
  tall.path = "layers.0.down_proj";
  tall.out = 11;
  tall.in = 5;
  return {wide, tall};
}

// A LoRA whose B is not zero; numbers of `seed`.
AdapterState Trained(uint64_t seed, int64_t rank = 2) {
  AdapterState state = *(*FindAdapter("lora"))->Init(Spec(rank), Sites(), seed);
  for (SiteState& site : state.sites) {
    RandomStream stream = RandomStream::Derive(seed, {"test", site.site.path});
    std::vector<float> values(static_cast<size_t>(site.Get("B").numel()));
    for (float& value : values) value = static_cast<float>(0.1 * stream.Normal());
    site.Get("B").copy_(at::tensor(values).view_as(site.Get("B")));
  }
  return state;
}

at::Tensor Delta(const LowRank& factors) {
  return factors.B_OR.to(at::kDouble).mm(factors.A_RI.to(at::kDouble));
}
at::Tensor Delta(const AdapterState& state, size_t site) {
  return Delta((*Lower(state))[site].factors);
}

double Relative(const at::Tensor& got, const at::Tensor& wanted) {
  return ((got - wanted).norm() / wanted.norm()).item<double>();
}

// The best there is in that rank, by the dense matrix.
at::Tensor CutTo(const at::Tensor& dW_OI, int64_t rank) {
  const auto [u, s, vh] = at::linalg_svd(dW_OI, false);
  return (u.narrow(1, 0, rank) * s.narrow(0, 0, rank)).mm(vh.narrow(0, 0, rank));
}

TEST(AttackTest, EveryNameThatSettingsKnowIsFoundAndOthersAreNot) {
  for (const char* name : {"none", "sign-flip", "gaussian", "alie", "inner-product", "gauge-bomb",
                           "overflow", "rank-inflation", "sybil"}) {
    EXPECT_TRUE(FindAttack(name).ok()) << name;
  }
  const Result<AttackKind> unknown = FindAttack("sign_flip");
  ASSERT_FALSE(unknown.ok());
  EXPECT_NE(unknown.status().message().find("sign-flip"), std::string::npos);
}

TEST(AttackTest, SignFlipIsExactWhereNothingWasSent) {
  const AdapterState own = Trained(1);
  const Result<AdapterState> shipped = SignFlip(own, {}, 10);
  ASSERT_TRUE(shipped.ok()) << shipped.status();
  EXPECT_EQ(shipped->spec, own.spec);
  EXPECT_TRUE(SameLayout(*shipped, own));
  for (size_t i = 0; i < own.sites.size(); ++i) {
    EXPECT_LT(Relative(Delta(*shipped, i), -10 * Delta(own, i)), kClose);
  }
}

TEST(AttackTest, SignFlipIsTheNearestOfItsRankToTheMirroredChange) {
  const AdapterState own = Trained(1), before = Trained(2);
  const Result<AdapterState> shipped = SignFlip(own, *Lower(before), 3);
  ASSERT_TRUE(shipped.ok()) << shipped.status();
  for (size_t i = 0; i < own.sites.size(); ++i) {
    const at::Tensor wanted = Delta(before, i) - 3 * (Delta(own, i) - Delta(before, i));
    EXPECT_LT(Relative(Delta(*shipped, i), CutTo(wanted, 2)), kClose);
  }
}

TEST(AttackTest, SignFlipDoesNotDependOnTheGauge) {
  const AdapterState own = Trained(1), before = Trained(2);
  const AdapterState turned = GaugeBomb(own, 8);
  const Result<AdapterState> plain = SignFlip(own, *Lower(before), 10);
  const Result<AdapterState> other = SignFlip(turned, *Lower(before), 10);
  ASSERT_TRUE(plain.ok() && other.ok());
  EXPECT_LT(DistanceBetween(*Lower(*plain), *Lower(*other)),
            kClose * DistanceBetween(*Lower(*plain), {}));
}

TEST(AttackTest, SignFlipRefusesWhatWasSentForOtherLayers) {
  LowRankAdapter sent = *Lower(Trained(2));
  sent.pop_back();
  EXPECT_EQ(SignFlip(Trained(1), sent, 10).status().code(), Code::kInvalidArgument);
}

TEST(AttackTest, GaussianNoiseHasTheNormOfTheChangeTimesItsScale) {
  const AdapterState own = Trained(1);
  for (const double scale : {1.0, 5.0}) {
    const Result<AdapterState> shipped = Gaussian(own, {}, scale, 7, "c/1");
    ASSERT_TRUE(shipped.ok()) << shipped.status();
    for (size_t i = 0; i < own.sites.size(); ++i) {
      const double wanted = scale * Delta(own, i).norm().item<double>();
      EXPECT_NEAR(Delta(*shipped, i).norm().item<double>(), wanted, kClose * wanted);
    }
  }
}

TEST(AttackTest, GaussianNoiseIsAddedToWhatWasSent) {
  // A change that is nothing has noise of nothing: the rank-2 adapter that was sent comes back.
  const AdapterState own = Trained(1);
  const Result<AdapterState> shipped = Gaussian(own, *Lower(own), 10, 7, "c/1");
  ASSERT_TRUE(shipped.ok()) << shipped.status();
  for (size_t i = 0; i < own.sites.size(); ++i) {
    EXPECT_LT(Relative(Delta(*shipped, i), Delta(own, i)), kClose);
  }
}

TEST(AttackTest, GaussianNoiseComesFromSeedAndLabelAlone) {
  const AdapterState own = Trained(1);
  const auto shipped = [&](uint64_t seed, const char* label) {
    return Delta(*Gaussian(own, {}, 1, seed, label), 0);
  };
  EXPECT_TRUE(at::equal(shipped(7, "c/1"), shipped(7, "c/1")));
  EXPECT_FALSE(at::equal(shipped(7, "c/1"), shipped(8, "c/1")));
  EXPECT_FALSE(at::equal(shipped(7, "c/1"), shipped(7, "c/2")));
}

TEST(AttackTest, InnerProductPointsAgainstTheMeanOfTheColluders) {
  const std::vector<AdapterState> colluders = {Trained(1), Trained(2), Trained(3)};
  const AdapterState before = Trained(4);
  const Result<AdapterState> shipped = InnerProduct(colluders, *Lower(before), 0.5);
  ASSERT_TRUE(shipped.ok()) << shipped.status();
  for (size_t i = 0; i < before.sites.size(); ++i) {
    const at::Tensor mean =
        (Delta(colluders[0], i) + Delta(colluders[1], i) + Delta(colluders[2], i)) / 3;
    const at::Tensor wanted = Delta(before, i) - 0.5 * (mean - Delta(before, i));
    EXPECT_LT(Relative(Delta(*shipped, i), CutTo(wanted, 2)), kClose);
  }
}

TEST(AttackTest, InnerProductOfOneIsItsSignFlip) {
  const std::vector<AdapterState> alone = {Trained(1)};
  const LowRankAdapter before = *Lower(Trained(2));
  const Result<AdapterState> product = InnerProduct(alone, before, 4);
  const Result<AdapterState> flipped = SignFlip(alone[0], before, 4);
  ASSERT_TRUE(product.ok() && flipped.ok());
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_LT(Relative(Delta(*product, i), Delta(*flipped, i)), kClose);
  }
}

TEST(AttackTest, AlieIsMeanLessDeviationsEntryByEntry) {
  const std::vector<AdapterState> colluders = {Trained(1), Trained(2), Trained(3)};
  const AdapterState shipped = Alie(colluders, 1.5);
  for (size_t i = 0; i < 2; ++i) {
    for (const char* name : {"A", "B"}) {
      for (int64_t k = 0; k < shipped.sites[i].Get(name).numel(); ++k) {
        double sum = 0, squares = 0;
        for (const AdapterState& each : colluders) {
          const double value = each.sites[i].Get(name).view(-1)[k].item<double>();
          sum += value;
          squares += value * value;
        }
        const double mean = sum / 3;
        const double wanted = mean - 1.5 * std::sqrt(std::max(0.0, squares / 3 - mean * mean));
        EXPECT_NEAR(shipped.sites[i].Get(name).view(-1)[k].item<double>(), wanted, 1e-6);
      }
    }
  }
}

TEST(AttackTest, AlieOfEqualColludersIsTheirUpdate) {
  const std::vector<AdapterState> colluders(4, Trained(1));
  const AdapterState shipped = Alie(colluders, 3);
  EXPECT_TRUE(at::allclose(shipped.sites[0].Get("B"), colluders[0].sites[0].Get("B")));
}

// 50 clients and 12 attackers: 14 supporters, 24 of 38 honest ones below; quantiles of tables of Φ.
TEST(AttackTest, AlieTakesItsDeviationsFromTheCounts) {
  EXPECT_NEAR(AlieZ(50, 12), 0.3360, 1e-3);  // Φ⁻¹(24/38)
  EXPECT_NEAR(AlieZ(20, 8), 0.6745, 1e-4);   // Φ⁻¹(9/12)
  EXPECT_NEAR(AlieZ(20, 6), 0.3661, 1e-4);   // Φ⁻¹(9/14)
  EXPECT_NEAR(AlieZ(20, 2), 0, 1e-12);       // Φ⁻¹(9/18)
  EXPECT_EQ(AlieZ(20, 1), 0) << "never towards the honest side";
}

TEST(AttackTest, AGaugeBombKeepsTheBitsOfTheProduct) {
  const AdapterState own = Trained(1);
  for (const double g : {1e6, 1e12}) {
    const AdapterState shipped = GaugeBomb(own, g);
    const double grown =
        (shipped.sites[0].Get("B").norm() / own.sites[0].Get("B").norm()).item<double>();
    EXPECT_GT(grown, g / 2);
    EXPECT_LT(grown, g * 2);
    for (size_t i = 0; i < 2; ++i) {
      const auto product = [i](const AdapterState& state) {
        return state.sites[i].Get("B").mm(state.sites[i].Get("A"));
      };
      EXPECT_TRUE(at::equal(product(shipped), product(own))) << g;
    }
  }
}

TEST(AttackTest, OverflowIsFiniteUntilItIsMultiplied) {
  const AdapterState shipped = Overflow(Trained(1), 1e20);
  const at::Tensor& A_RI = shipped.sites[0].Get("A");
  const at::Tensor& B_OR = shipped.sites[0].Get("B");
  EXPECT_TRUE(at::isfinite(A_RI).all().item<bool>());
  EXPECT_TRUE(at::isfinite(B_OR).all().item<bool>());
  EXPECT_FALSE(at::isfinite(B_OR.mm(A_RI)).all().item<bool>());
}

TEST(AttackTest, AnInflatedRankIsTheSameUpdateWhetherItSaysSoOrNot) {
  const AdapterState own = Trained(1);
  const AdapterState quiet = InflateRank(own, 3, false), loud = InflateRank(own, 3, true);
  EXPECT_EQ(quiet.spec, own.spec);
  EXPECT_EQ(loud.spec.rank, 6);
  EXPECT_EQ(quiet.sites[0].Get("A").size(0), 6);
  EXPECT_EQ(quiet.sites[0].Get("B").size(1), 6);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_LT(Relative(Delta(quiet, i), Delta(own, i)), kClose);
    EXPECT_LT(Relative(Delta(loud, i), Delta(own, i)), kClose);
  }
}

TEST(AttackTest, WholeModulesAreLeftAsTheyWereTrained) {
  AdapterState own = Trained(1);
  own.dense.push_back({"classifier.weight", at::ones({2, 3})});
  const Result<AdapterState> shipped = SignFlip(own, {}, 10);
  ASSERT_TRUE(shipped.ok());
  ASSERT_EQ(shipped->dense.size(), 1u);
  EXPECT_TRUE(at::equal(shipped->dense[0].value, own.dense[0].value));
}

}  // namespace
}  // namespace weft::sim
