// Every supported decoder family against transformers: loss per label token and greedy text.

#include <gtest/gtest.h>

#include "common/model/model.h"
#include "tests/support/paths.h"
#include "tests/support/rows.h"

namespace weft {
namespace {

nlohmann::json ReadJson(const std::filesystem::path& file) {
  std::ifstream in(file);
  return nlohmann::json::parse(in);
}

class FamiliesTest : public ::testing::TestWithParam<const char*> {
 protected:
  static std::filesystem::path Folder() { return testing::GoldenDir() / "families"; }
  static nlohmann::json Expected() { return ReadJson(Folder() / "expect.json"); }
};

TEST_P(FamiliesTest, GreedyContinuationEqualsTransformers) {
  auto model = Model::Load(Folder() / GetParam(), {});
  ASSERT_TRUE(model.ok()) << model.status();
  const auto expected = Expected()["cases"][GetParam()]["greedy_ids"].get<std::vector<int64_t>>();
  // "Once upon a time there was a little" in the tokenizer of stories260k.
  const std::vector<int64_t> prompt = {1, 403, 407, 261, 378, 383, 286, 261, 376};
  const auto cache = (*model)->NewCache();
  at::Tensor logits_V = (*model)->Step(at::tensor(prompt, at::kLong), *cache, {});
  std::vector<int64_t> got;
  while (got.size() < expected.size()) {
    got.push_back(logits_V.argmax().item<int64_t>());
    logits_V = (*model)->Step(at::tensor({got.back()}, at::kLong), *cache, {});
  }
  EXPECT_EQ(got, expected);
}

TEST_P(FamiliesTest, LossEqualsTransformers) {
  WEFT_NEEDS_SHARED();
  auto model = Model::Load(Folder() / GetParam(), {});
  ASSERT_TRUE(model.ok()) << model.status();
  const nlohmann::json all = Expected();
  const auto tokenizer = Tokenizer::Load(testing::SharedDir() / "models/stories260k");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const auto rows =
      testing::ReadRows(**tokenizer, testing::SharedDir() / "data" / all["data"].get<std::string>(),
                        all["from"], all["to"], all["max_len"]);
  const PackedBatch batch = testing::Pack(rows);
  const nlohmann::json& expected = all["cases"][GetParam()];
  ASSERT_EQ(batch.labels_L.size(0), expected["label_tokens"].get<int64_t>());
  const double loss =
      (*model)->LossSum(batch, {}, {}).item<double>() / static_cast<double>(batch.labels_L.size(0));
  EXPECT_NEAR(loss, expected["loss"].get<double>(), 1e-4 * expected["loss"].get<double>());
}

INSTANTIATE_TEST_SUITE_P(All, FamiliesTest,
                         ::testing::Values("llama3_untied", "llama_linear_rope_bias",
                                           "mistral_window", "qwen2", "qwen3_headdim", "gpt2"),
                         [](const auto& param) { return std::string(param.param); });

}  // namespace
}  // namespace weft
