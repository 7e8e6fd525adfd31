// Pretrained models against transformers' numbers (golden.json beside each).

#include <gtest/gtest.h>

#include "common/model/encoder.h"
#include "common/model/model.h"
#include "tests/support/paths.h"
#include "tests/support/rows.h"

namespace weft {
namespace {

nlohmann::json Golden(const std::string& name) {
  std::ifstream in(testing::SharedDir() / "models" / name / "golden.json");
  return nlohmann::json::parse(in);
}

// SmolLM2's weights are made, not shared: $WEFT_SMOLLM2_DIR or beside its golden numbers.
std::filesystem::path FolderOf(const std::string& name) {
  if (name == "smollm2-135m-instruct") {
    if (const char* dir = std::getenv("WEFT_SMOLLM2_DIR"); dir != nullptr && *dir != '\0')
      return dir;
  }
  return testing::SharedDir() / "models" / name;
}

class PretrainedTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    WEFT_NEEDS_SHARED();
    if (!std::filesystem::exists(FolderOf(GetParam()) / "model.safetensors")) {
      GTEST_SKIP() << "no weights in " << FolderOf(GetParam()) << " (set WEFT_SMOLLM2_DIR)";
    }
    auto loaded = Model::Load(FolderOf(GetParam()), {});
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    model_ = *loaded;
    golden_ = Golden(GetParam());
  }

  double MeanLoss(const PackedBatch& batch) const {
    return model_->LossSum(batch, {}, {}).item<double>() /
           static_cast<double>(batch.labels_L.size(0));
  }

  std::shared_ptr<Model> model_;
  nlohmann::json golden_;
};

TEST_P(PretrainedTest, GreedyTokensEqualTransformers) {
  const auto prompt = golden_["prompt_ids"].get<std::vector<int64_t>>();
  const auto expected = golden_["greedy_ids"].get<std::vector<int64_t>>();
  const auto cache = model_->NewCache();
  at::Tensor logits_V = model_->Step(at::tensor(prompt, at::kLong), *cache, {});
  std::vector<int64_t> got = prompt;
  while (got.size() < expected.size()) {
    got.push_back(logits_V.argmax().item<int64_t>());
    logits_V = model_->Step(at::tensor({got.back()}, at::kLong), *cache, {});
  }
  EXPECT_EQ(got, expected);
}

TEST_P(PretrainedTest, LogitsOfEveryPositionAgree) {
  testing::Row row{golden_["prompt_ids"].get<std::vector<int64_t>>(), 1};
  row.ids.push_back(0);  // so that the prompt's last position is labelled too
  const PackedBatch batch = testing::Pack({row});
  const at::Tensor logits_LV = model_->Logits(batch, {});
  const auto best = golden_["argmax_per_position"].get<std::vector<int64_t>>();
  const at::Tensor got_L = logits_LV.argmax(1);
  EXPECT_TRUE(at::equal(got_L, at::tensor(best, at::kLong))) << got_L;
  const bool whole = golden_.contains("last_logits");
  const auto last =
      golden_[whole ? "last_logits" : "last_logits_first_64"].get<std::vector<double>>();
  for (size_t i = 0; i < last.size(); ++i) {
    EXPECT_NEAR(logits_LV[-1][static_cast<int64_t>(i)].item<double>(), last[i],
                1e-3 + 1e-4 * std::abs(last[i]));
  }
}

TEST_P(PretrainedTest, LossOfOneRowAgrees) {
  const PackedBatch batch = testing::Pack({{golden_["row0_ids"].get<std::vector<int64_t>>(), 1}});
  const double expected = golden_["row0_loss"];
  EXPECT_NEAR(MeanLoss(batch), expected, 1e-4 * expected);
}

TEST_P(PretrainedTest, LossOverTinyStoriesAgrees) {
  const auto tokenizer = Tokenizer::Load(
      testing::SharedDir() /
      (std::string(GetParam()) == "stories260k" ? "models/stories260k" : "tokenizers/smollm2"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const nlohmann::json& sample = golden_["tinystories_sample"];
  // Each row begins with the begin-of-text token, which only one of the tokenizers adds by itself.
  auto rows =
      testing::ReadRows(**tokenizer, testing::SharedDir() / "data/tinystories-sample/train.jsonl",
                        0, sample["rows"], 512);
  for (testing::Row& row : rows) {
    if (row.ids[0] != *model_->config().bos_id)
      row.ids.insert(row.ids.begin(), *model_->config().bos_id);
  }
  double sum = 0, labels = 0;
  for (size_t at = 0; at < rows.size(); at += 4) {
    const PackedBatch batch =
        testing::Pack(rows, static_cast<int64_t>(at),
                      static_cast<int64_t>(std::min<size_t>(4, rows.size() - at)));
    sum += model_->LossSum(batch, {}, {}).item<double>();
    labels += static_cast<double>(batch.labels_L.size(0));
  }
  const double expected = sample["loss"];
  EXPECT_NEAR(sum / labels, expected, 1e-4 * expected);
  // The golden counts predicted tokens.
  EXPECT_EQ(labels, sample["tokens"].get<double>());
}

TEST_P(PretrainedTest, GradientOfAQueryWeightAgrees) {
  auto loaded = Model::Load(FolderOf(GetParam()), {.trainable = true});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const PackedBatch batch = testing::Pack({{golden_["row0_ids"].get<std::vector<int64_t>>(), 1}});
  ((*loaded)->LossSum(batch, {}, {}) / static_cast<double>(batch.labels_L.size(0))).backward();
  for (const NamedTensor& weight : (*loaded)->TrainableWeights()) {
    if (weight.name != "model.layers.0.self_attn.q_proj.weight") continue;
    const at::Tensor gradient = weight.value.grad();
    const double norm = golden_["row0_grad_norm_layer0_q"];
    EXPECT_NEAR(gradient.norm().item<double>(), norm, 1e-4 * norm);
    const auto first = golden_["row0_grad_layer0_q_first_8"].get<std::vector<double>>();
    for (size_t i = 0; i < first.size(); ++i) {
      EXPECT_NEAR(gradient.flatten()[static_cast<int64_t>(i)].item<double>(), first[i],
                  1e-4 * norm);
    }
    return;
  }
  FAIL() << "no gradient of the query weight";
}

INSTANTIATE_TEST_SUITE_P(All, PretrainedTest,
                         ::testing::Values("stories260k", "smollm2-135m-instruct"),
                         [](const auto& param) { return std::string(param.param).substr(0, 7); });

// RoBERTa's layout, positions behind the padding's, both directions; rows packed where the golden
// numbers' are padded.
TEST(PretrainedEncoderTest, HiddenStatesEqualTransformers) {
  WEFT_NEEDS_SHARED();
  const nlohmann::json golden = Golden("roberta-minilm-l6");
  const auto loaded = Model::Load(testing::SharedDir() / "models/roberta-minilm-l6", {});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const auto& model = dynamic_cast<const Encoder&>(**loaded);
  EXPECT_FALSE(model.has_head());
  std::vector<testing::Row> rows;
  for (size_t r = 0; r < golden["input_ids"].size(); ++r) {
    const auto mask = golden["attention_mask"][r].get<std::vector<int64_t>>();
    auto ids = golden["input_ids"][r].get<std::vector<int64_t>>();
    ids.resize(static_cast<size_t>(std::accumulate(mask.begin(), mask.end(), int64_t{0})));
    rows.push_back({ids});
  }
  const PackedBatch batch = testing::Pack(rows);
  const at::Tensor h_NE = model.HiddenStates(batch, {});
  const auto first = golden["first_token_row_0"].get<std::vector<float>>();
  EXPECT_LT((h_NE[0] - at::tensor(first)).abs().max().item<double>(), 2e-5);
  std::vector<at::Tensor> means;
  for (size_t r = 0; r < rows.size(); ++r) {
    const at::Tensor mean_E =
        h_NE.narrow(0, batch.row_starts[r], batch.row_starts[r + 1] - batch.row_starts[r]).mean(0);
    means.push_back(mean_E / at::linalg_vector_norm(mean_E));
  }
  const at::Tensor unit_RE = at::stack(means);
  const auto cosines = golden["mean_pooled_cosines"].get<std::vector<float>>();
  EXPECT_LT(
      (at::matmul(unit_RE, unit_RE.t()).view(-1) - at::tensor(cosines)).abs().max().item<double>(),
      1e-5);
}

}  // namespace
}  // namespace weft
