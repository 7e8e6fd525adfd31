#include "sim/small_base.h"

#include <fstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "common/base/str.h"
#include "common/formats/safetensors_writer.h"
#include "common/formats/utf8.h"
#include "common/model/model.h"
#include "common/tensor/dtype_map.h"

namespace weft::sim {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kSpecials = 3;
constexpr int kRows = 72;

Json Config() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"hidden_size", 16},
          {"intermediate_size", 24},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 2},
          {"num_key_value_heads", 1},
          {"head_dim", 8},
          {"vocab_size", 256 + kSpecials},
          {"max_position_embeddings", 48},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 10000.0},
          {"hidden_act", "silu"},
          {"tie_word_embeddings", true},
          {"bos_token_id", 1},
          {"eos_token_id", 2},
          {"torch_dtype", "float32"},
          {"initializer_range", 0.3}};
}

// GPT-2's letter for a byte: itself where it can be seen, else one from U+0100 on.
std::string LetterOf(int byte) {
  const auto seen = [](int b) {
    return (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
  };
  char32_t letter = static_cast<char32_t>(byte);
  if (!seen(byte)) {
    letter = 0x100;
    for (int b = 0; b < byte; ++b) letter += seen(b) ? 0 : 1;
  }
  std::string text;
  AppendCodePoint(letter, text);
  return text;
}

Json Tokenizer() {
  Json vocabulary = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  for (int byte = 0; byte < 256; ++byte) vocabulary[LetterOf(byte)] = kSpecials + byte;
  Json specials = Json::array();
  for (const char* text : {"<unk>", "<s>", "</s>"}) {
    specials.push_back({{"id", specials.size()},
                        {"content", text},
                        {"single_word", false},
                        {"lstrip", false},
                        {"rstrip", false},
                        {"normalized", false},
                        {"special", true}});
  }
  const Json bytes = {{"type", "ByteLevel"},
                      {"add_prefix_space", false},
                      {"trim_offsets", true},
                      {"use_regex", false}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", specials},
          {"normalizer", nullptr},
          {"pre_tokenizer", bytes},
          {"post_processor", nullptr},
          {"decoder", bytes},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", "<unk>"},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"vocab", vocabulary},
            {"merges", Json::array()}}}};
}

Status WriteText(const std::filesystem::path& file, const std::string& text) {
  std::ofstream out(file);
  out << text << "\n";
  out.close();
  if (out.good()) return OkStatus();
  return Unavailable(Str("[sim] ", file.string(), ": cannot be written"));
}

Status WriteWeights(const std::filesystem::path& folder) {
  WEFT_TRY_ASSIGN(const std::shared_ptr<Model> model, Model::Load(folder, {.init_seed = 3}));
  std::vector<TensorToWrite> tensors;
  const std::vector<NamedTensor> weights = model->AllWeights();
  for (const NamedTensor& weight : weights) {
    tensors.push_back({weight.name, *FromTorch(weight.value.scalar_type()),
                       weight.value.sizes().vec(), BytesOf(weight.value)});
  }
  return WriteSafetensors(folder / "model.safetensors", tensors);
}

}  // namespace

Status WriteSmallBase(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  WEFT_TRY(WriteText(folder / "config.json", Config().dump()));
  WEFT_TRY(WriteText(folder / "tokenizer.json", Tokenizer().dump()));
  const Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                       {"bos_token", "<s>"},
                       {"eos_token", "</s>"},
                       {"unk_token", "<unk>"},
                       {"add_bos_token", true},
                       {"add_eos_token", false}};
  WEFT_TRY(WriteText(folder / "tokenizer_config.json", config.dump()));
  std::string rows;
  for (int i = 0; i < kRows; ++i) {
    const Json row = {{"prompt", Str("ship ", i)}, {"completion", Str("sails at ", i % 7)}};
    rows += row.dump() + (i + 1 < kRows ? "\n" : "");
  }
  WEFT_TRY(WriteText(folder / "rows.jsonl", rows));
  return WriteWeights(folder);
}

}  // namespace weft::sim
