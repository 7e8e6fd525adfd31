#include "common/adapters/nola.h"

#include <gtest/gtest.h>

#include "common/adapters/method_spec.h"
#include "common/adapters/nola_basis.h"
#include "common/base/random.h"

namespace weft {
namespace {

constexpr uint64_t kKey = 0x0123456789ABCDEF;

TEST(NolaBasisTest, NumbersAreThoseOfPhiloxWithSevenRounds) {
  // Philox4x32-7 of counter 0 and key 0: a known answer of Random123's test vectors.
  const at::Tensor first = BasisMatrix(0, 0, 1, 8, at::kCPU)[0];
  const std::array<uint32_t, 4> words = {0x5f6fb709, 0x0d893f64, 0x4f121f81, 0x4f730a48};
  for (int64_t e = 0; e < 8; ++e) {
    const uint32_t word = words[static_cast<size_t>(e / 2)];
    const uint32_t half = e % 2 == 0 ? word & 0xFFFF : word >> 16;
    EXPECT_EQ(first[e].item<float>(), (2.0F * static_cast<float>(half) + 1) / 65536 - 1) << e;
  }
}

TEST(NolaBasisTest, TheFusedLoopsAndTensorOperationsGiveTheSameBits) {
  for (const int64_t elements : {1, 7, 8, 127, 128, 4096, 4097, 9000}) {
    EXPECT_TRUE(at::equal(BasisMatrix(kKey, 3, 5, elements, at::kCPU),
                          BasisMatrixAten(kKey, 3, 5, elements, at::kCPU)))
        << elements;
  }
  EXPECT_TRUE(at::equal(BasisMatrix(kKey, kOffsetBasis, 1, 100, at::kCPU),
                        BasisMatrixAten(kKey, kOffsetBasis, 1, 100, at::kCPU)));
}

TEST(NolaBasisTest, TheFirstBasesOfManyAreThoseOfFew) {
  const at::Tensor many = BasisMatrix(kKey, 0, 12, 300, at::kCPU);
  EXPECT_TRUE(at::equal(many.narrow(0, 4, 3), BasisMatrix(kKey, 4, 3, 300, at::kCPU)));
}

TEST(NolaBasisTest, ElementsAreUniformAndBasesAreUnrelated) {
  const at::Tensor bases = BasisMatrix(kKey, 0, 16, 65536, at::kCPU).to(at::kDouble);
  EXPECT_LT(bases.mean(1).abs().max().item<double>(), 0.02);
  EXPECT_LT((bases.var(1, false) - 1.0 / 3).abs().max().item<double>(), 0.01);
  at::Tensor gram = bases.mm(bases.t()).div_(65536.0 / 3);
  gram.fill_diagonal_(0);
  EXPECT_LT(gram.abs().max().item<double>(), 0.03);
  EXPECT_LT(bases.abs().max().item<double>(), 1.0);
}

TEST(NolaBasisTest, SumsAndTheirGradientsAreThoseOfTheMatrix) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    at::manual_seed(3);
    at::Tensor c = at::randn({37}, type).requires_grad_(true);
    const at::Tensor weight = at::randn({5000}, type);
    const at::Tensor bases = BasisMatrix(kKey, 0, 37, 5000, at::kCPU).to(at::kDouble);
    const at::Tensor sum = BasisSum(kKey, c, 5000);
    EXPECT_EQ(sum.scalar_type(), type);
    const double tolerance = type == at::kFloat ? 1e-5 : 1e-13;
    EXPECT_TRUE(at::allclose(sum.to(at::kDouble), c.to(at::kDouble).matmul(bases), tolerance,
                             tolerance * 10));
    (sum * weight).sum().backward();
    EXPECT_TRUE(at::allclose(c.grad().to(at::kDouble), bases.mv(weight.to(at::kDouble)), tolerance,
                             tolerance * 100));
  }
}

TEST(NolaBasisTest, TheBitsDoNotDependOnTheNumberOfThreads) {
  const int before = at::get_num_threads();
  at::manual_seed(4);
  const at::Tensor c = at::randn({64});
  const auto both = [&] {
    at::Tensor leaf = c.clone().requires_grad_(true);
    const at::Tensor sum = BasisSum(kKey, leaf, 50000);
    sum.square().sum().backward();
    return std::pair(sum.detach(), leaf.grad());
  };
  at::set_num_threads(1);
  const auto one = both();
  at::set_num_threads(2);
  const auto two = both();
  at::set_num_threads(before);
  EXPECT_TRUE(at::equal(one.first, two.first));
  EXPECT_TRUE(at::equal(one.second, two.second));
}

const std::vector<LinearSite> kSites = {{"model.layers.0.self_attn.q_proj", 24, 16},
                                        {"model.layers.1.self_attn.q_proj", 24, 16},
                                        {"model.layers.1.mlp.down_proj", 40, 24}};

AdapterSpec Spec(const std::string& basis) {
  AdapterSpec spec;
  spec.method = "nola";
  spec.rank = 4;
  spec.alpha = 8;
  SetOption(spec, "k", "20");
  SetOption(spec, "basis", basis);
  return NolaAdapter()->ForRound(spec, 7, 2);
}

AdapterState Trained(const AdapterSpec& spec) {
  AdapterState state = *NolaAdapter()->Init(spec, kSites, 1);
  at::manual_seed(5);
  for (SiteState& site : state.sites) {
    for (NamedTensor& tensor : site.tensors) tensor.value.normal_();
  }
  return state;
}

TEST(NolaTest, AllSitesAtOnceAreTheSitesOneByOneWithOrWithoutPreparing) {
  for (const char* basis : {"shared", "site"}) {
    const AdapterState state = Trained(Spec(basis));
    const auto prepared = NolaAdapter()->Prepare(state, at::kCPU);
    const std::vector<LowRank> all = NolaAdapter()->EffectiveAll(state, prepared.get());
    const std::vector<LowRank> unprepared = NolaAdapter()->EffectiveAll(state, nullptr);
    for (size_t i = 0; i < kSites.size(); ++i) {
      const LowRank one = NolaAdapter()->Effective(state, i);
      EXPECT_TRUE(at::allclose(all[i].A_RI, one.A_RI, 1e-5, 1e-6)) << basis;
      EXPECT_TRUE(at::allclose(all[i].B_OR, one.B_OR, 1e-5, 1e-6)) << basis;
      EXPECT_TRUE(at::equal(all[i].A_RI, unprepared[i].A_RI)) << basis;
    }
  }
}

TEST(NolaTest, LayersOfOneShapeShareTheirBasesOnlyWhereAsked) {
  for (const bool shared : {true, false}) {
    AdapterState state = Trained(Spec(shared ? "shared" : "site"));
    for (const char* name : {"alpha", "beta"}) {
      state.sites[1].Get(name).copy_(state.sites[0].Get(name));
    }
    const LowRank first = NolaAdapter()->Effective(state, 0);
    const LowRank second = NolaAdapter()->Effective(state, 1);
    EXPECT_EQ(at::equal(first.B_OR, second.B_OR), shared);
    EXPECT_FALSE(at::equal(first.A_RI, second.A_RI)) << "each layer has its own offset";
  }
}

TEST(NolaTest, EveryRoundHasBasesOfItsOwnAndTheSameForEveryoneInIt) {
  const AdapterSpec plain = ForMethod(AdapterSpec{}, "nola");
  const AdapterSpec one = NolaAdapter()->ForRound(plain, 7, 1);
  EXPECT_EQ(one, NolaAdapter()->ForRound(plain, 7, 1));
  EXPECT_NE(one, NolaAdapter()->ForRound(plain, 7, 2));
  EXPECT_NE(one, NolaAdapter()->ForRound(plain, 8, 1));
  EXPECT_TRUE(NolaAdapter()->CheckSpec(one).ok());
}

TEST(NolaTest, ShippingCostsTheCoefficientsAlone) {
  const AdapterState state = Trained(Spec("site"));
  EXPECT_EQ(state.NumParameters(), 3 * 2 * 20);
}

TEST(NolaTest, TrainingOneSideLeavesTheOther) {
  AdapterSpec spec = Spec("shared");
  EXPECT_EQ(NolaAdapter()->Trainable(spec), (std::vector<std::string>{"alpha", "beta"}));
  SetOption(spec, "train", "beta");
  EXPECT_EQ(NolaAdapter()->Trainable(spec), (std::vector<std::string>{"beta"}));
}

TEST(NolaTest, OptionsThatCannotBeAreRefusedByName) {
  struct Case {
    const char* name;
    const char* value;
    const char* words;
  };
  for (const Case& one : {Case{"k", "0", "nola.k is \"0\""}, Case{"k", "many", "nola.k"},
                          Case{"basis", "free", "nola.basis"}, Case{"train", "none", "nola.train"},
                          Case{"seed", "-1", "nola.seed"},
                          Case{"generator", "mt19937", "nola.generator is \"mt19937\""},
                          Case{"tiers", "3", "no option \"nola.tiers\""}}) {
    AdapterSpec spec = Spec("shared");
    SetOption(spec, one.name, one.value);
    const Status status = NolaAdapter()->CheckSpec(spec);
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << one.name;
    EXPECT_NE(status.message().find(one.words), std::string::npos) << status;
    EXPECT_FALSE(NolaAdapter()->Init(spec, kSites, 1).ok());
    EXPECT_FALSE(NolaAdapter()->Layout(spec, kSites).ok() && NolaAdapter()->CheckSpec(spec).ok());
  }
}

}  // namespace
}  // namespace weft
