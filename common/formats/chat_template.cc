#include "common/formats/chat_template.h"

#include <algorithm>
#include <array>
#include <optional>

#include "common/base/str.h"
#include "common/formats/tokenizer/unicode.h"
#include "common/formats/utf8.h"

namespace weft {
namespace {

constexpr std::array kNames = {"chatml", "llama2", "llama3", "mistral", "qwen3", "smollm2"};
constexpr std::string_view kSmolLm2System =
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face";

std::string HowToName() {
  std::string names;
  for (const char* name : kNames) names += Str(names.empty() ? "" : ", ", name);
  return Str("name one with --chat-template or model.chat-template: ", names);
}

Status Unknown(std::string_view why) {
  return InvalidArgument(Str("[chat template] the model's Jinja template is of no known family (",
                             why, "); ", HowToName()));
}

// Jinja text in one spelling: no white space outside quotes, single quotes, members with dots, \n
// for a line feed within quotes. So that one search finds what templates write in many ways.
std::string Canonical(std::string_view jinja) {
  std::string text;
  char quote = '\0';
  for (size_t i = 0; i < jinja.size(); ++i) {
    const char c = jinja[i];
    if (quote != '\0') {
      if (c == '\\' && i + 1 < jinja.size()) {
        text += c;
        text += jinja[++i];
      } else if (c == '\n') {
        text += "\\n";
      } else if (c == quote) {
        quote = '\0';
        text += '\'';
      } else if (c == '\'') {
        text += "\\'";
      } else {
        text += c;
      }
    } else if (c == '\'' || c == '"') {
      quote = c;
      text += '\'';
    } else if (c != ' ' && c != '\n' && c != '\t' && c != '\r') {
      text += c;
    }
  }
  for (const char* member : {"role", "content"}) {
    const std::string subscript = Str("['", member, "']");
    for (size_t at = text.find(subscript); at != text.npos; at = text.find(subscript, at)) {
      text.replace(at, subscript.size(), Str(".", member));
    }
  }
  return text;
}

bool Has(std::string_view text, std::string_view part) { return text.find(part) != text.npos; }

// The literal's text: \n, \t, \\, \' and \" stand for one character each.
std::string Unescape(std::string_view literal) {
  std::string text;
  for (size_t i = 0; i < literal.size(); ++i) {
    if (literal[i] != '\\' || i + 1 == literal.size()) {
      text += literal[i];
      continue;
    }
    const char c = literal[++i];
    text += c == 'n' ? '\n' : c == 't' ? '\t' : c;
  }
  return text;
}

// The system message that a ChatML template has as a literal; nothing where it only writes the
// conversation's own.
std::optional<std::string> LiteralSystem(std::string_view canonical) {
  constexpr std::string_view kOpen = "<|im_start|>system\\n";
  for (size_t at = canonical.find(kOpen); at != canonical.npos; at = canonical.find(kOpen, at)) {
    at += kOpen.size();
    const std::string_view rest = canonical.substr(at, canonical.find("<|im_end|>", at) - at);
    size_t end = 0;
    while (end < rest.size() && rest[end] != '\'') end += rest[end] == '\\' ? 2 : 1;
    if (end >= rest.size()) return Unescape(rest);  // no quote ends the literal before <|im_end|>
  }
  return std::nullopt;
}

// Python's str.strip(): White_Space, and the four separators of ASCII.
std::string Trim(std::string_view text) {
  size_t begin = text.size(), end = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t here = at;
    const char32_t c = NextCodePoint(text, at);
    if (IsWhitespace(c) || (c >= 0x1C && c <= 0x1F)) continue;
    begin = std::min(begin, here);
    end = at;
  }
  return begin < end ? std::string(text.substr(begin, end - begin)) : "";
}

std::string_view TrimLineFeeds(std::string_view text) {
  while (text.starts_with('\n')) text.remove_prefix(1);
  while (text.ends_with('\n')) text.remove_suffix(1);
  return text;
}

}  // namespace

// Collects segments; neighbours of one kind become one.
class ChatTemplate::Writer {
 public:
  explicit Writer(const ChatTokens& tokens) : tokens_(tokens) {}

  void Context(std::string_view text) { Append(text, false); }
  void Answer(std::string_view text) { Append(text, true); }
  [[nodiscard]] const ChatTokens& tokens() const { return tokens_; }
  [[nodiscard]] std::vector<ChatSegment> Take() { return std::move(segments_); }

 private:
  void Append(std::string_view text, bool assistant) {
    if (text.empty()) return;
    if (segments_.empty() || segments_.back().assistant != assistant) {
      segments_.push_back({"", assistant});
    }
    segments_.back().text += text;
  }

  const ChatTokens& tokens_;
  std::vector<ChatSegment> segments_;
};

std::vector<std::string> ChatTemplate::Names() { return {kNames.begin(), kNames.end()}; }

Result<ChatTemplate> ChatTemplate::FromName(std::string_view name) {
  ChatTemplate chat;
  chat.style_.name = name;
  if (name == "chatml") return chat;
  if (name == "smollm2") {
    chat.style_.default_system = kSmolLm2System;
    return chat;
  }
  if (name == "qwen3") {
    chat.style_.thinks = true;
    return chat;
  }
  if (name == "llama2") {
    chat.style_.family = Family::kLlama2;
    return chat;
  }
  if (name == "llama3") {
    chat.style_.family = Family::kLlama3;
    return chat;
  }
  if (name == "mistral") {
    chat.style_.family = Family::kMistral;
    chat.style_.answer_before = " ";  // as Mistral's own tokenizer puts it
    return chat;
  }
  return InvalidArgument(Str("[chat template] unknown name \"", name, "\"; ", HowToName()));
}

Result<ChatTemplate> ChatTemplate::Detect(std::string_view jinja) {
  const std::string canonical = Canonical(jinja);
  if (Has(canonical, "<|im_start|>")) return DetectChatMl(canonical);
  if (Has(canonical, "<|start_header_id|>")) return DetectLlama3(canonical);
  if (Has(canonical, "[INST]")) return DetectInst(canonical);
  return Unknown("it has no <|im_start|>, <|start_header_id|> or [INST]");
}

Result<ChatTemplate> ChatTemplate::DetectChatMl(std::string_view jinja) {
  const bool writes_messages = Has(jinja, "'<|im_start|>'+message.role+'\\n'+message.content") ||
                               Has(jinja, "'<|im_start|>'+message.role+'\\n'+content");
  const bool ends_lines = Has(jinja, "'<|im_end|>'+'\\n'") || Has(jinja, "<|im_end|>\\n'");
  if (!writes_messages || !ends_lines) {
    return Unknown("it has <|im_start|>, but does not write messages as ChatML does");
  }
  const bool thinks = Has(jinja, "</think>");
  if (thinks && !(Has(jinja, "last_query_index") && Has(jinja, "enable_thinking"))) {
    return Unknown("it has <think>, but is not Qwen3's");
  }
  if (Has(jinja, "system_message='")) {
    return Unknown("it sets a system message of its own in a way we do not read");
  }
  ChatTemplate chat;
  const std::string_view opening = jinja.substr(0, jinja.find("<|im_start|>"));
  chat.style_.begins_with_bos = Has(opening, "{{bos_token}}") || Has(opening, "{{-bos_token}}") ||
                                Has(opening, "bos_token+'");
  chat.style_.default_system = LiteralSystem(jinja).value_or("");
  chat.style_.thinks = thinks;
  if (thinks) chat.style_.name = "qwen3";
  if (chat.style_.default_system == kSmolLm2System) chat.style_.name = "smollm2";
  return chat;
}

Result<ChatTemplate> ChatTemplate::DetectLlama3(std::string_view jinja) {
  constexpr std::string_view kMessage =
      "+'<|end_header_id|>\\n\\n'+message.content|trim+'<|eot_id|>'";
  if (!Has(jinja, kMessage) || !Has(jinja, "bos_token")) {
    return Unknown("it has <|start_header_id|>, but does not write messages as Llama 3 does");
  }
  ChatTemplate chat;
  chat.style_.family = Family::kLlama3;
  chat.style_.name = "llama3";
  if (!Has(jinja, "Cutting Knowledge Date")) return chat;
  // Llama 3.1 and later. Where the template would write today's date, we write the date it has for
  // readers without a clock: the same rows give the same tokens on every day.
  constexpr std::string_view kDate = "date_string='";
  const size_t date = jinja.find(kDate);
  if (!Has(jinja, "'Cutting Knowledge Date: December 2023\\n'") || date == jinja.npos ||
      !Has(jinja, "'Today Date: '+date_string+'\\n\\n'")) {
    return Unknown("its system block is not Llama 3.1's");
  }
  const size_t begin = date + kDate.size();
  chat.style_.preamble = Str("Cutting Knowledge Date: December 2023\nToday Date: ",
                             jinja.substr(begin, jinja.find('\'', begin) - begin), "\n\n");
  return chat;
}

Result<ChatTemplate> ChatTemplate::DetectInst(std::string_view jinja) {
  ChatTemplate chat;
  if (Has(jinja, "<<SYS>>")) {
    const bool question = Has(jinja, "bos_token+'[INST] '+content.strip()+' [/INST]'") ||
                          Has(jinja, "bos_token+'[INST] '+content|trim+' [/INST]'");
    const bool answer = Has(jinja, "' '+content.strip()+' '+eos_token") ||
                        Has(jinja, "' '+content|trim+' '+eos_token");
    if (!question || !answer || !Has(jinja, "'<<SYS>>\\n'+system_message+'\\n<</SYS>>\\n\\n'")) {
      return Unknown("it has [INST] and <<SYS>>, but does not write messages as Llama 2 does");
    }
    chat.style_.family = Family::kLlama2;
    chat.style_.name = "llama2";
    return chat;
  }
  if (!Has(jinja, "{{bos_token}}") || !Has(jinja, "'[INST] '+message.content+' [/INST]'") ||
      !Has(jinja, "message.content+eos_token") || Has(jinja, "system_message")) {
    return Unknown("it has [INST], but does not write messages as Mistral 7B does");
  }
  chat.style_.family = Family::kMistral;
  chat.style_.name = "mistral";
  if (Has(jinja, "' '+message.content+eos_token")) chat.style_.answer_before = " ";
  if (Has(jinja, "message.content+eos_token+' '")) chat.style_.answer_after = " ";
  return chat;
}

namespace {

Status CheckMessages(const std::vector<ChatMessage>& messages, std::string_view name) {
  if (messages.empty()) return InvalidArgument("[chat template] the conversation has no messages");
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string& role = messages[i].role;
    if (role != "system" && role != "user" && role != "assistant") {
      return InvalidArgument(Str("[chat template] ", name, ": message ", i, " has role \"", role,
                                 "\", wanted system, user or assistant"));
    }
  }
  return OkStatus();
}

// Qwen3: an assistant's text as thoughts and answer, at its <think> and </think>.
struct Thought {
  std::string_view thoughts;
  std::string_view answer;
};

Thought SplitThought(std::string_view content) {
  constexpr std::string_view kOpen = "<think>", kClose = "</think>";
  const size_t first_close = content.find(kClose);
  if (first_close == content.npos) return {"", content};
  std::string_view thoughts = content.substr(0, first_close);
  if (const size_t open = thoughts.rfind(kOpen); open != thoughts.npos) {
    thoughts.remove_prefix(open + kOpen.size());
  }
  std::string_view answer = content.substr(content.rfind(kClose) + kClose.size());
  while (answer.starts_with('\n')) answer.remove_prefix(1);
  return {TrimLineFeeds(thoughts), answer};
}

// The index of the last question that is no tool's response: answers after it keep their thoughts.
size_t LastQuestion(const std::vector<ChatMessage>& messages) {
  for (size_t i = messages.size(); i-- > 0;) {
    const std::string& content = messages[i].content;
    const bool tool =
        content.starts_with("<tool_response>") && content.ends_with("</tool_response>");
    if (messages[i].role == "user" && !tool) return i;
  }
  return messages.size() - 1;
}

}  // namespace

void ChatTemplate::RenderChatMl(const std::vector<ChatMessage>& messages, Writer& out) const {
  if (style_.begins_with_bos) out.Context(out.tokens().bos);
  if (messages.front().role != "system" && !style_.default_system.empty()) {
    out.Context(Str("<|im_start|>system\n", style_.default_system, "<|im_end|>\n"));
  }
  const size_t last_question = LastQuestion(messages);
  for (size_t i = 0; i < messages.size(); ++i) {
    const auto& [role, content] = messages[i];
    out.Context(Str("<|im_start|>", role, "\n"));
    if (role != "assistant") {
      out.Context(Str(content, "<|im_end|>\n"));
      continue;
    }
    std::string answer = content;
    if (style_.thinks) {
      const Thought thought = SplitThought(content);
      answer = thought.answer;
      if (i > last_question && (i + 1 == messages.size() || !thought.thoughts.empty())) {
        while (answer.starts_with('\n')) answer.erase(0, 1);
        answer = Str("<think>\n", thought.thoughts, "\n</think>\n\n", answer);
      }
    }
    out.Answer(Str(answer, "<|im_end|>"));
    out.Context("\n");
  }
}

void ChatTemplate::RenderLlama3(const std::vector<ChatMessage>& messages, Writer& out) const {
  const auto header = [](std::string_view role) {
    return Str("<|start_header_id|>", role, "<|end_header_id|>\n\n");
  };
  out.Context(out.tokens().bos);
  size_t next = 0;
  if (!style_.preamble.empty()) {
    const bool has_system = messages.front().role == "system";
    if (has_system) next = 1;
    out.Context(Str(header("system"), style_.preamble,
                    has_system ? Trim(messages.front().content) : "", "<|eot_id|>"));
  }
  for (; next < messages.size(); ++next) {
    const auto& [role, content] = messages[next];
    out.Context(header(role));
    const std::string text = Str(Trim(content), "<|eot_id|>");
    role == "assistant" ? out.Answer(text) : out.Context(text);
  }
}

// Llama 2 and Mistral: questions and answers in turn. Llama 2 puts a first system message into the
// first question.
Status ChatTemplate::RenderInst(const std::vector<ChatMessage>& messages, Writer& out) const {
  const bool llama = style_.family == Family::kLlama2;
  const bool has_system = messages.front().role == "system";
  if (has_system && !llama) {
    return InvalidArgument(Str("[chat template] ", style_.name,
                               " has no system role; put message 0 into the first user message"));
  }
  const size_t first = has_system ? 1 : 0;
  if (!llama) out.Context(out.tokens().bos);
  for (size_t i = first; i < messages.size(); ++i) {
    const auto& [role, content] = messages[i];
    const std::string_view wanted = (i - first) % 2 == 0 ? "user" : "assistant";
    if (role != wanted) {
      return InvalidArgument(Str("[chat template] ", style_.name, ": message ", i, " is the ", role,
                                 "'s, wanted the ", wanted, "'s: they must alternate"));
    }
    if (role == "assistant") {
      if (llama) {
        out.Answer(Str(" ", Trim(content), " ", out.tokens().eos));
      } else {
        out.Answer(Str(style_.answer_before, content, out.tokens().eos));
        out.Context(style_.answer_after);
      }
    } else if (llama) {
      const bool with_system = has_system && i == first;
      const std::string question =
          with_system ? Str("<<SYS>>\n", messages[0].content, "\n<</SYS>>\n\n", content) : content;
      out.Context(Str(out.tokens().bos, "[INST] ", Trim(question), " [/INST]"));
    } else {
      out.Context(Str("[INST] ", content, " [/INST]"));
    }
  }
  return OkStatus();
}

Result<std::vector<ChatSegment>> ChatTemplate::Render(const std::vector<ChatMessage>& messages,
                                                      bool add_generation_prompt,
                                                      const ChatTokens& tokens) const {
  WEFT_TRY(CheckMessages(messages, style_.name));
  // Contents come from data files and templates work on characters.
  std::vector<ChatMessage> valid = messages;
  for (ChatMessage& message : valid) message.content = ReplaceBadUtf8(message.content);
  Writer out(tokens);
  switch (style_.family) {
    case Family::kChatMl:
      RenderChatMl(valid, out);
      if (add_generation_prompt) out.Context("<|im_start|>assistant\n");
      break;
    case Family::kLlama3:
      RenderLlama3(valid, out);
      if (add_generation_prompt) out.Context("<|start_header_id|>assistant<|end_header_id|>\n\n");
      break;
    case Family::kLlama2:
    case Family::kMistral:  // the answer follows [/INST] with nothing between
      WEFT_TRY(RenderInst(valid, out));
      break;
  }
  return out.Take();
}

}  // namespace weft
