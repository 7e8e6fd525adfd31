// A Jinja text and a conversation: what is recognised renders as UTF-8 whose segments alternate,
// every answer is learnt, and nothing else is.

#include "common/formats/chat_template.h"

#include <algorithm>

#include "common/base/check.h"
#include "common/formats/utf8.h"
#include "tests/fuzz/fuzz_target.h"

namespace weft::fuzz {
namespace {

void Run(std::string_view input) {
  const std::vector<std::string_view> parts = Parts(input, 5);
  Result<ChatTemplate> chat = ChatTemplate::Detect(parts[0]);
  if (!chat.ok()) {
    WEFT_CHECK(chat.status().message().find("--chat") != std::string::npos, chat.status());
    chat = ChatTemplate::FromName(parts[0].substr(0, 16));
    if (!chat.ok()) return;
  }
  const std::vector<ChatMessage> talk = {{"system", std::string(parts[1])},
                                         {"user", std::string(parts[2])},
                                         {"assistant", std::string(parts[3])},
                                         {"user", std::string(parts[4])}};
  for (size_t first = 0; first < 2; ++first) {
    const std::vector<ChatMessage> messages(talk.begin() + static_cast<std::ptrdiff_t>(first),
                                            talk.end());
    const auto segments = chat->Render(messages, true, {"<s>", "</s>"});
    if (!segments.ok()) {
      WEFT_CHECK(first == 0 && chat->name() == "mistral", segments.status());
      continue;
    }
    for (size_t i = 0; i < segments->size(); ++i) {
      WEFT_CHECK(IsValidUtf8((*segments)[i].text) && !(*segments)[i].text.empty());
      WEFT_CHECK(i == 0 || (*segments)[i].assistant != (*segments)[i - 1].assistant);
    }
    const auto answers = std::count_if(segments->begin(), segments->end(),
                                       [](const ChatSegment& s) { return s.assistant; });
    WEFT_CHECK(answers == 1, answers, " answers");
    WEFT_CHECK(!segments->back().assistant, "the last word is the question's");
  }
}

Seeds MakeSeeds() {
  const std::string chatml =
      "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
      "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}";
  const std::string llama3 =
      "{{ bos_token }}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ "
      "message['content'] | trim + '<|eot_id|>' }}";
  Seeds seeds;
  for (const std::string& jinja : {chatml, llama3, std::string("llama2"), std::string("mistral"),
                                   std::string("qwen3"), std::string("smollm2")}) {
    seeds.push_back(Joined({jinja, "Be brief.", "Hi \xE6", "<think>\nhm\n</think>\n\nHo", "?"}));
  }
  return seeds;
}

}  // namespace

Target ChatTemplates() {
  return {"chat_template",
          Run,
          MakeSeeds,
          {"</think>", "<think>", "last_query_index", "enable_thinking", "date_string='",
           "Cutting Knowledge Date", "system\\n", "{{bos_token}}", "<|im_end|>", "\\", "'", "\""}};
}

}  // namespace weft::fuzz
