// Generation: greedy and sampled, its limits and its refusals.

#include "common/model/generate.h"

#include <limits>

#include <gtest/gtest.h>

#include "common/model/bind_adapter.h"
#include "tests/unit/model/tiny_model.h"

namespace weft {
namespace {

using testing::TinyModel;

TEST(GenerateTest, GreedyTakesTheLargestLogitEachTime) {
  const auto model = TinyModel("llama");
  const auto made = Generate(*model, {}, {1, 5}, {.max_new_tokens = 6});
  ASSERT_TRUE(made.ok()) << made.status();
  std::vector<int64_t> ids = {1, 5};
  for (int64_t id : *made) {
    const auto cache = model->NewCache();
    EXPECT_EQ(model->Step(at::tensor(ids, at::kLong), *cache, {}).argmax().item<int64_t>(), id);
    ids.push_back(id);
  }
  EXPECT_EQ(made->size(), 6u);
}

TEST(GenerateTest, AStopTokenEndsItAndIsPartOfTheResult) {
  const auto model = TinyModel("llama");
  const auto free = Generate(*model, {}, {1, 5}, {.max_new_tokens = 6});
  const auto made = Generate(*model, {}, {1, 5}, {.max_new_tokens = 6, .stop_ids = {(*free)[0]}});
  EXPECT_EQ(*made, std::vector<int64_t>{(*free)[0]});
}

TEST(GenerateTest, TheCallbackSeesEachTokenAndMayEndIt) {
  const auto model = TinyModel("gpt2");
  std::vector<int64_t> seen;
  const auto made = Generate(*model, {}, {1}, {.max_new_tokens = 9}, [&](int64_t id) {
    seen.push_back(id);
    return seen.size() < 3;
  });
  EXPECT_EQ(seen.size(), 3u);
  EXPECT_EQ(*made, seen);
}

TEST(GenerateTest, ItEndsAtTheContext) {
  const auto model = TinyModel("llama");
  const std::vector<int64_t> prompt(62, 3);
  const auto made = Generate(*model, {}, prompt, {.max_new_tokens = 50});
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(made->size(), 3u);
}

TEST(GenerateTest, TheSeedDecidesASample) {
  const auto model = TinyModel("llama");
  const auto sample = [&](uint64_t seed) {
    return *Generate(*model, {}, {1, 5}, {.max_new_tokens = 12, .temperature = 1.5, .seed = seed});
  };
  EXPECT_EQ(sample(1), sample(1));
  EXPECT_NE(sample(1), sample(2));
}

TEST(GenerateTest, SamplesFollowTheDistribution) {
  const at::Tensor logits = at::tensor({0.5, 0.3, 0.2}).log();
  RandomStream random(4);
  std::vector<int> counts(3);
  for (int i = 0; i < 4000; ++i) {
    ++counts[static_cast<size_t>(SampleToken(logits, 1.0, 1.0, random))];
  }
  EXPECT_NEAR(counts[0] / 4000.0, 0.5, 0.03);
  EXPECT_NEAR(counts[2] / 4000.0, 0.2, 0.03);
}

TEST(GenerateTest, TopPLeavesOnlyTheMostLikely) {
  const at::Tensor logits = at::tensor({0.2, 0.5, 0.3}).log();
  RandomStream random(4);
  for (int i = 0; i < 200; ++i) {
    EXPECT_NE(SampleToken(logits, 1.0, 0.75, random), 0);
    EXPECT_EQ(SampleToken(logits, 1.0, 0.4, random), 1);
  }
}

TEST(GenerateTest, BadRequestsAreRefused) {
  const auto model = TinyModel("llama");
  EXPECT_EQ(Generate(*model, {}, {}, {}).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(Generate(*model, {}, {31}, {}).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(Generate(*model, {}, {-1}, {}).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(Generate(*model, {}, {1}, {.temperature = -1}).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(Generate(*model, {}, {1}, {.top_p = 0}).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(Generate(*model, {}, std::vector<int64_t>(65, 1), {}).status().code(),
            Code::kInvalidArgument);
}

class GenerateFamiliesTest : public ::testing::TestWithParam<const char*> {};

TEST_P(GenerateFamiliesTest, TokensFromTheCacheAreThoseOfTheWholeForwardPass) {
  // With adapters, and past Mistral's window of 3; the cache grows by doubling on the way.
  const auto model = TinyModel(GetParam());
  testing::Scramble(*model, 12);
  const AdapterBinding adapters = testing::TinyAdapters(*model, at::kFloat);
  std::vector<int64_t> ids = {1, 5, 9, 2};
  const auto made = Generate(*model, adapters, ids, {.max_new_tokens = 30});
  ASSERT_TRUE(made.ok()) << made.status();
  ASSERT_EQ(made->size(), 30u);
  for (const int64_t id : *made) {
    const auto count = static_cast<int64_t>(ids.size());
    const PackedBatch batch{at::tensor(ids, at::kLong),
                            at::arange(count, at::kLong),
                            {0, count},
                            at::tensor({count - 1}, at::kLong),
                            at::tensor({int64_t{0}}, at::kLong)};
    ASSERT_EQ(model->Logits(batch, adapters)[0].argmax().item<int64_t>(), id) << count;
    ids.push_back(id);
  }
}

INSTANTIATE_TEST_SUITE_P(All, GenerateFamiliesTest,
                         ::testing::Values("llama", "llama_bias", "mistral", "qwen3", "gpt2"),
                         [](const auto& param) { return std::string(param.param); });

TEST(GenerateTest, ALowTemperatureIsNearlyGreedyAndAHighOneNearlyUniform) {
  const at::Tensor logits = at::tensor({1.0, 1.5, 0.5, 1.4});
  RandomStream random(11);
  std::vector<int> counts(4);
  for (int i = 0; i < 2000; ++i) {
    EXPECT_EQ(SampleToken(logits, 1e-3, 1.0, random), 1);
    ++counts[static_cast<size_t>(SampleToken(logits, 1e4, 1.0, random))];
  }
  // A share of 1/4 in 2000 draws has a deviation of 0.0097.
  for (const int count : counts) EXPECT_NEAR(count / 2000.0, 0.25, 0.05);
}

TEST(GenerateTest, TopPKeepsTheTokenThatCrossesItAndDividesAmongThoseKept) {
  const at::Tensor logits = at::tensor({0.5, 0.25, 0.15, 0.1}).log();
  RandomStream random(3);
  std::vector<int> counts(4);
  for (int i = 0; i < 3000; ++i) {
    ++counts[static_cast<size_t>(SampleToken(logits, 1.0, 0.6, random))];
  }
  EXPECT_NEAR(counts[0] / 3000.0, 2.0 / 3, 0.04);
  EXPECT_NEAR(counts[1] / 3000.0, 1.0 / 3, 0.04);
  EXPECT_EQ(counts[2] + counts[3], 0);
}

TEST(GenerateTest, EqualLogitsAtTemperatureZeroTakeTheFirst) {
  RandomStream random(1);
  EXPECT_EQ(SampleToken(at::tensor({0.5, 2.0, 2.0}), 0, 1, random), 1);
}

TEST(GenerateTest, LogitsThatAreNotFiniteEndItWithAStatus) {
  const auto model = TinyModel("llama");
  {
    const at::NoGradGuard no_grad;
    model->AllWeights().back().value.fill_(std::numeric_limits<double>::quiet_NaN());
  }
  const auto made = Generate(*model, {}, {1, 2}, {.max_new_tokens = 3});
  EXPECT_EQ(made.status().code(), Code::kInternal);
}

TEST(GenerateTest, NoTokenIsMadeWhereNoneIsWanted) {
  const auto model = TinyModel("llama");
  int calls = 0;
  const auto made = Generate(*model, {}, {1, 2}, {.max_new_tokens = 0}, [&](int64_t) {
    ++calls;
    return true;
  });
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_TRUE(made->empty());
  EXPECT_EQ(calls, 0);
}

TEST(BindAdapterTest, AFactorOfAnotherShapeIsRefusedByItsSite) {
  const auto model = TinyModel("llama");
  LowRankAdapter adapter(1);
  adapter[0].site = model->sites()[2];
  adapter[0].factors = {at::zeros({2, 16}), at::zeros({adapter[0].site.out, 2})};
  const auto good = FactorsFor(*model, adapter);
  ASSERT_TRUE(good.ok()) << good.status();
  EXPECT_TRUE((*good)[2].low_rank.A_RI.defined());
  EXPECT_FALSE((*good)[0].low_rank.A_RI.defined());
  adapter[0].site.in = 17;
  EXPECT_NE(FactorsFor(*model, adapter).status().message().find("v_proj"), std::string::npos);
  adapter[0].site.path = "model.layers.9.self_attn.v_proj";
  EXPECT_NE(FactorsFor(*model, adapter).status().message().find("layers.9"), std::string::npos);
}

}  // namespace
}  // namespace weft
