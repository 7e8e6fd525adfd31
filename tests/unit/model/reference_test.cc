// The decoders against decoders written down plainly (reference_decoder.h): loss, logits and every
// gradient, of adapters and of the model's own weights, for every family and what its configuration
// can change, then for configurations drawn at random.

#include <algorithm>

#include <gtest/gtest.h>

#include "common/base/str.h"
#include "tests/support/paths.h"
#include "tests/unit/model/reference_decoder.h"
#include "tests/unit/model/tiny_model.h"

namespace weft {
namespace {

using testing::ReferenceDecoder;
using testing::Scramble;
using testing::TinyAdapters;
using testing::TinyBatch;
using testing::TinyModelFrom;

struct Case {
  std::string name;
  std::string config;
};

// A Llama-like config.json; `more` is appended and may not repeat these keys.
std::string LlamaLike(const std::string& architecture, const std::string& type,
                      const std::string& more) {
  return Str(R"({"architectures": [")", architecture, R"("], "model_type": ")", type,
             R"(", "vocab_size": 31, "hidden_size": 16, "intermediate_size": 20,)",
             R"("num_hidden_layers": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,)",
             R"("initializer_range": 0.3, )", more, "}");
}
std::string Llama(const std::string& more) { return LlamaLike("LlamaForCausalLM", "llama", more); }
std::string Qwen2(const std::string& more) { return LlamaLike("Qwen2ForCausalLM", "qwen2", more); }
std::string Qwen3(const std::string& more) { return LlamaLike("Qwen3ForCausalLM", "qwen3", more); }
std::string Mistral(const std::string& more) {
  return LlamaLike("MistralForCausalLM", "mistral", more);
}
std::string Gpt2(const std::string& more) {
  return Str(R"({"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": 31,
    "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.3)",
             more.empty() ? "" : ", ", more, "}");
}

constexpr char kFourHeads[] = R"("num_attention_heads": 4, "num_key_value_heads": 4)";
constexpr char kGrouped[] = R"("num_attention_heads": 4, "num_key_value_heads": 2)";

std::vector<Case> Cases() {
  const std::string four = kFourHeads, grouped = kGrouped;
  return {
      {"llama", Llama(four)},
      {"llama_old_theta", Llama(four + R"(, "rope_theta": 50.0)")},
      {"llama_grouped_tied", Llama(grouped + R"(, "tie_word_embeddings": true)")},
      {"llama_one_key_head", Llama(R"("num_attention_heads": 4, "num_key_value_heads": 1)")},
      {"llama_wide_heads", Llama(grouped + R"(, "head_dim": 10)")},
      {"llama_biases", Llama(grouped + R"(, "attention_bias": true, "mlp_bias": true)")},
      // Waves on both sides of the band and inside it: original context 16, theta 100.
      {"llama3_rope", Llama(grouped + R"(, "head_dim": 8, "rope_parameters": {"rope_type":
        "llama3", "rope_theta": 100.0, "factor": 4.0, "low_freq_factor": 0.5,
        "high_freq_factor": 2.0, "original_max_position_embeddings": 16})")},
      {"llama_linear_rope", Llama(four + R"(, "rope_scaling": {"type": "linear", "factor": 3.0})")},
      {"llama_gelu_gate", Llama(four + R"(, "hidden_act": "gelu")")},
      {"mistral_window", Mistral(grouped + R"(, "sliding_window": 5)")},
      {"mistral_no_window", Mistral(grouped + R"(, "sliding_window": null)")},
      {"qwen2", Qwen2(grouped)},
      {"qwen2_one_sliding_layer",
       Qwen2(grouped + R"(, "use_sliding_window": true, "sliding_window": 4, "layer_types":
        ["full_attention", "sliding_attention"])")},
      {"qwen3", Qwen3(grouped + R"(, "head_dim": 6, "tie_word_embeddings": true)")},
      {"qwen3_biases", Qwen3(four + R"(, "head_dim": 4, "attention_bias": true)")},
      {"gpt2", Gpt2("")},
      {"gpt2_inner_relu_untied",
       Gpt2(R"("n_inner": 12, "activation_function": "relu", "tie_word_embeddings": false)")},
      {"gpt2_exact_gelu_scaled_by_layer",
       Gpt2(R"("activation_function": "gelu", "scale_attn_by_inverse_layer_idx": true)")},
      {"gpt2_unscaled", Gpt2(R"("scale_attn_weights": false)")},
  };
}

// ‖got − wanted‖ relative to ‖wanted‖, or to `floor` where that is larger.
double Relative(const at::Tensor& got, const at::Tensor& wanted, double floor = 1e-9) {
  const double distance = (got.to(at::kDouble) - wanted).norm().item<double>();
  return distance / std::max(wanted.norm().item<double>(), floor);
}

// Loss and all gradients. The rotation's cosines are float32 in both dtypes, which bounds what
// float64 can show.
void ExpectEqualsReference(const std::string& config, at::ScalarType dtype,
                           const std::vector<int64_t>& lengths, uint64_t seed) {
  const auto model = TinyModelFrom(config, {.dtype = dtype, .trainable = true});
  ASSERT_NE(model, nullptr);
  Scramble(*model, seed);
  const ReferenceDecoder reference(*model);
  const PackedBatch batch = TinyBatch(lengths, seed);
  const AdapterBinding adapters = TinyAdapters(*model, dtype);
  AdapterBinding exact = adapters;
  for (std::vector<Factors>& adapter : exact) {
    for (Factors& factors : adapter) {
      if (!factors.low_rank.A_RI.defined()) continue;
      factors.low_rank.A_RI =
          factors.low_rank.A_RI.detach().to(at::kDouble).clone().requires_grad_(true);
      factors.low_rank.B_OR =
          factors.low_rank.B_OR.detach().to(at::kDouble).clone().requires_grad_(true);
    }
  }
  const double tolerance = dtype == at::kDouble ? 1e-5 : 2e-4;
  const at::Tensor loss = model->LossSum(batch, adapters, {});
  const at::Tensor wanted = reference.LossSum(batch, exact);
  EXPECT_NEAR(loss.item<double>(), wanted.item<double>(), 0.1 * tolerance * wanted.item<double>());
  loss.backward();
  wanted.backward();
  // Some gradients are zero: of q and k where a row has one token.
  double largest = 0;
  for (const NamedTensor& weight : model->AllWeights()) {
    largest = std::max(largest, reference.weight(weight.name).grad().norm().item<double>());
  }
  const double floor = 1e-2 * largest;
  for (size_t i = 0; i < model->sites().size(); ++i) {
    for (const auto& [got, other] :
         {std::pair(adapters[0][i].low_rank.A_RI, exact[0][i].low_rank.A_RI),
          std::pair(adapters[0][i].low_rank.B_OR, exact[0][i].low_rank.B_OR)}) {
      EXPECT_LT(Relative(got.grad(), other.grad(), floor), tolerance) << model->sites()[i].path;
    }
  }
  for (const NamedTensor& weight : model->TrainableWeights()) {
    ASSERT_TRUE(weight.value.grad().defined()) << weight.name;
    EXPECT_LT(Relative(weight.value.grad(), reference.weight(weight.name).grad(), floor), tolerance)
        << weight.name;
  }
}

class ReferenceTest : public ::testing::TestWithParam<Case> {};

TEST_P(ReferenceTest, LossAndAllGradientsEqualThePlainDecoders) {
  ExpectEqualsReference(GetParam().config, at::kDouble, {9, 1, 14, 2}, 40);
  ExpectEqualsReference(GetParam().config, at::kFloat, {9, 1, 14, 2}, 40);
}

TEST_P(ReferenceTest, LogitsOfEveryPositionEqualThePlainDecoders) {
  const auto model = TinyModelFrom(GetParam().config);
  Scramble(*model, 7);
  const ReferenceDecoder reference(*model);
  PackedBatch batch = TinyBatch({23});
  batch.label_at_L = at::arange(23, at::kLong);
  batch.labels_L = at::zeros({23}, at::kLong);
  const AdapterBinding adapters = TinyAdapters(*model, at::kFloat);
  const at::Tensor wanted_TV = reference.Logits(batch.ids_N, adapters).detach();
  EXPECT_LT(Relative(model->Logits(batch, adapters), wanted_TV), 1e-5);
  // The same one token at a time, from the cache.
  const auto cache = model->NewCache();
  for (int64_t t = 0; t < 23; ++t) {
    const at::Tensor step_V = model->Step(batch.ids_N.narrow(0, t, 1), *cache, adapters);
    EXPECT_LT(Relative(step_V, wanted_TV[t]), 1e-4) << "token " << t;
  }
}

INSTANTIATE_TEST_SUITE_P(All, ReferenceTest, ::testing::ValuesIn(Cases()),
                         [](const auto& param) { return param.param.name; });

// A configuration with sizes that no kernel's lanes divide.
std::string RandomConfig(RandomStream& draw) {
  const auto pick = [&](std::initializer_list<int> from) {
    return from.begin()[draw.Below(from.size())];
  };
  const auto coin = [&] { return draw.Below(2) == 0 ? "true" : "false"; };
  const int kv_heads = pick({1, 2, 3}), heads = kv_heads * pick({1, 2, 3});
  const int dim = pick({2, 4, 6, 8, 14, 18});
  if (draw.Below(5) == 0) {
    return Str(R"({"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": )",
               pick({31, 33, 48}), R"(, "n_embd": )", heads * dim, R"(, "n_head": )", heads,
               R"(, "n_layer": )", pick({1, 3}), R"(, "n_inner": )", pick({5, 17, 40}),
               R"(, "n_positions": 80, "tie_word_embeddings": )", coin(), "}");
  }
  const int family = pick({0, 1, 2, 3});
  const char* const names[][2] = {{"LlamaForCausalLM", "llama"},
                                  {"MistralForCausalLM", "mistral"},
                                  {"Qwen2ForCausalLM", "qwen2"},
                                  {"Qwen3ForCausalLM", "qwen3"}};
  std::string config =
      Str(R"({"architectures": [")", names[family][0], R"("], "model_type": ")", names[family][1],
          R"(", "vocab_size": )", pick({31, 33, 48}), R"(, "hidden_size": )", pick({6, 15, 32, 37}),
          R"(, "intermediate_size": )", pick({3, 16, 21}), R"(, "num_hidden_layers": )",
          pick({1, 2, 3}), R"(, "num_attention_heads": )", heads, R"(, "num_key_value_heads": )",
          kv_heads, R"(, "head_dim": )", dim, R"(, "max_position_embeddings": 80,)",
          R"("rms_norm_eps": 1e-5, "rope_theta": )", pick({20, 1000, 500000}),
          R"(, "tie_word_embeddings": )", coin());
  if (family == 0) config += Str(R"(, "attention_bias": )", coin(), R"(, "mlp_bias": )", coin());
  if (family == 1) config += Str(R"(, "sliding_window": )", pick({1, 2, 7, 16, 33}));
  return config + "}";
}

TEST(ReferenceTest, DrawnConfigurationsAndRowsAgreeToo) {
  for (uint64_t seed = 1; seed <= 24; ++seed) {
    RandomStream draw = RandomStream::Derive(seed, {"reference-test"});
    const std::string config = RandomConfig(draw);
    std::vector<int64_t> lengths;
    for (uint64_t rows = 1 + draw.Below(4); rows > 0; --rows) {
      lengths.push_back(1 + static_cast<int64_t>(draw.Below(40)));
    }
    SCOPED_TRACE(Str("seed ", seed, " ", config));
    ExpectEqualsReference(config, seed % 3 == 0 ? at::kDouble : at::kFloat, lengths, seed);
  }
}

// The folders that transformers wrote (sharded, bfloat16, both config dialects): the plain decoder
// over their weights says what every position's logits are, where their own numbers are of greedy
// text alone.
TEST(ReferenceTest, GoldenFoldersOfEveryFamilyAgree) {
  for (const char* name : {"llama3_untied", "llama_linear_rope_bias", "mistral_window", "qwen2",
                           "qwen3_headdim", "gpt2"}) {
    SCOPED_TRACE(name);
    const auto loaded = Model::Load(testing::GoldenDir() / "families" / name, {});
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    const Model& model = **loaded;
    const ReferenceDecoder reference(model);
    // Longer than Mistral's window of 32 and Llama 3's original context of 64.
    RandomStream draw(3);
    std::vector<int64_t> ids;
    for (int i = 0; i < 90; ++i) ids.push_back(static_cast<int64_t>(draw.Below(512)));
    const PackedBatch batch{at::tensor(ids, at::kLong),
                            at::arange(90, at::kLong),
                            {0, 90},
                            at::arange(90, at::kLong),
                            at::zeros({90}, at::kLong)};
    const at::Tensor wanted_TV = reference.Logits(batch.ids_N, {}).detach();
    EXPECT_LT(Relative(model.Logits(batch, {}), wanted_TV), 1e-4);
  }
}

// Labels at every token of the rows.
PackedBatch AllLabelled(const std::vector<int64_t>& lengths, int64_t vocabulary) {
  PackedBatch batch = TinyBatch(lengths);
  batch.label_at_L = at::arange(batch.ids_N.size(0), at::kLong);
  batch.labels_L = (batch.label_at_L * 977).remainder(vocabulary);
  return batch;
}

TEST(ReferenceTest, LabelsBeyondOneBlockOfLogitsAddUp) {
  // A block of logits holds 25 million elements: 419 labels of this vocabulary.
  const std::string config = R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
    "vocab_size": 60000, "hidden_size": 6, "intermediate_size": 4, "num_hidden_layers": 1,
    "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 4,
    "max_position_embeddings": 64, "initializer_range": 0.3, "tie_word_embeddings": true})";
  const auto model = TinyModelFrom(config, {.trainable = true});
  Scramble(*model, 3);
  const PackedBatch all = AllLabelled({60, 60, 60, 60, 60, 60, 60, 60}, 60000);
  const at::Tensor whole_loss = model->LossSum(all, {}, {});
  whole_loss.backward();
  std::vector<at::Tensor> whole;
  for (const NamedTensor& weight : model->TrainableWeights()) {
    whole.push_back(weight.value.grad().clone());
    at::Tensor(weight.value).mutable_grad() = at::Tensor();
  }
  double sum = 0;
  for (int64_t half = 0; half < 2; ++half) {
    PackedBatch batch = AllLabelled({60, 60, 60, 60}, 60000);
    batch.ids_N = all.ids_N.narrow(0, 240 * half, 240);
    batch.labels_L = all.labels_L.narrow(0, 240 * half, 240);
    const at::Tensor loss = model->LossSum(batch, {}, {});
    sum += loss.item<double>();
    loss.backward();  // adds to what the first half left
  }
  EXPECT_NEAR(whole_loss.item<double>(), sum, 1e-5 * sum);
  for (size_t i = 0; i < whole.size(); ++i) {
    const NamedTensor& weight = model->TrainableWeights()[i];
    EXPECT_LT(Relative(whole[i], weight.value.grad().to(at::kDouble)), 1e-4) << weight.name;
  }
}

}  // namespace
}  // namespace weft
