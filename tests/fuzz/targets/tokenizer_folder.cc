// The small files around a vocabulary (tokenizer_config.json, special_tokens_map.json,
// added_tokens.json, chat_template.jinja): any of them may be wrong, none ends the process.

#include "common/base/check.h"
#include "common/formats/tokenizer.h"
#include "common/formats/utf8.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/support/temp_folder.h"

namespace weft::fuzz {
namespace {

constexpr std::string_view kVocabulary =
    R"({"model":{"type":"BPE","vocab":{"a":0,"b":1,"<s>":2},"merges":[]}})";

void Run(std::string_view input) {
  const std::vector<std::string_view> parts = Parts(input, 5);
  const testing::TempFolder folder;
  (void)folder.Write("tokenizer.json", kVocabulary);
  constexpr std::string_view kNames[] = {"tokenizer_config.json", "special_tokens_map.json",
                                         "added_tokens.json", "chat_template.jinja",
                                         "generation_config.json"};
  for (size_t i = 0; i < parts.size(); ++i) {
    if (!parts[i].empty()) (void)folder.Write(std::string(kNames[i]), parts[i]);
  }
  const auto tokenizer = Tokenizer::Load(folder.path());
  if (!tokenizer.ok()) return;
  const auto& chat = (*tokenizer)->chat_template();
  WEFT_CHECK(!chat || IsValidUtf8(*chat));
  for (const auto& id : {(*tokenizer)->bos_id(), (*tokenizer)->eos_id()}) {
    WEFT_CHECK(!id || (*id >= 0 && *id < (*tokenizer)->vocab_size()));
  }
  for (const int32_t id : (*tokenizer)->Encode("ab<s><|x|>", true)) {
    WEFT_CHECK(id >= 0 && id < (*tokenizer)->vocab_size(), id);
  }
  WEFT_CHECK((*tokenizer)->fingerprint().size() == 64);
}

Seeds MakeSeeds() {
  return {
      Joined({R"({"bos_token":"<s>","eos_token":{"content":"<|x|>"},"add_bos_token":true,)"
              R"("added_tokens_decoder":{"3":{"content":"<|x|>","special":true,"rstrip":true}}})",
              R"({"pad_token":"<|x|>","additional_special_tokens":["b"]})", R"({"<|y|>":4})",
              "{{ bos_token }}", R"({"bos_token_id":2,"eos_token_id":[3,2]})"}),
      Joined({R"({"chat_template":[{"name":"default","template":"{{ x }}"}]})", "", "", "", ""}),
      Joined({"", R"({"eos_token":"a"})", R"({"b":1})", "\xE6\x97", R"({"eos_token_id":-1})"})};
}

}  // namespace

Target TokenizerFolder() {
  return {"tokenizer_folder", Run, MakeSeeds, {"\"content\"", "4194303", "\"unk_token\"", "<s>"}};
}

}  // namespace weft::fuzz
