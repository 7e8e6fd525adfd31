#pragma once
// ChatTemplate: a conversation → the text a model was trained on, for the common families. A
// folder's Jinja template is not run but recognised by what it writes. A value type; any thread.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"

namespace weft {

struct ChatMessage {
  std::string role;  // "system", "user" or "assistant"
  std::string content;
};

/// A stretch of the rendered text. `assistant` marks what the model is to learn: an assistant's
/// answer and what ends it.
struct ChatSegment {
  std::string text;
  bool assistant = false;
  friend bool operator==(const ChatSegment&, const ChatSegment&) = default;
};

/// Named, because they are two strings of one kind: the tokenizer's bos_token() and eos_token().
struct ChatTokens {
  std::string bos;
  std::string eos;
};

class ChatTemplate {
 public:
  /// The names there are.
  [[nodiscard]] static std::vector<std::string> Names();
  /// One of Names(); the error for another name lists them.
  [[nodiscard]] static Result<ChatTemplate> FromName(std::string_view name);
  /// Recognises a family by its Jinja text (Tokenizer::chat_template). The error for an unknown one
  /// says how to name a template instead.
  [[nodiscard]] static Result<ChatTemplate> Detect(std::string_view jinja);

  /// The text holds its special tokens, begin of text included: encode it without the
  /// post-processor. Adjoining segments alternate. `add_generation_prompt` ends it with what stands
  /// before an answer. A conversation that the family cannot write (roles out of turn, unknown
  /// roles) is an error that says which message.
  [[nodiscard]] Result<std::vector<ChatSegment>> Render(const std::vector<ChatMessage>& messages,
                                                        bool add_generation_prompt,
                                                        const ChatTokens& tokens) const;

  /// The family's name, as FromName takes it.
  [[nodiscard]] const std::string& name() const { return style_.name; }

 private:
  enum class Family : uint8_t { kChatMl, kLlama2, kLlama3, kMistral };
  struct Style {
    Family family = Family::kChatMl;
    std::string name = "chatml";
    std::string default_system;  // ChatML: said where a conversation starts with no system message
    bool begins_with_bos = false;  // ChatML: some models' templates write it
    bool thinks = false;           // ChatML of Qwen3: the last answer opens with its thoughts
    std::string preamble;          // Llama 3.1: opens the system block, which is then always there
    std::string answer_before;     // Mistral: between [/INST] and an answer
    std::string answer_after;      // Mistral: behind eos
  };
  class Writer;

  ChatTemplate() = default;
  [[nodiscard]] static Result<ChatTemplate> DetectChatMl(std::string_view jinja);
  [[nodiscard]] static Result<ChatTemplate> DetectInst(std::string_view jinja);
  [[nodiscard]] static Result<ChatTemplate> DetectLlama3(std::string_view jinja);
  void RenderChatMl(const std::vector<ChatMessage>& messages, Writer& out) const;
  void RenderLlama3(const std::vector<ChatMessage>& messages, Writer& out) const;
  [[nodiscard]] Status RenderInst(const std::vector<ChatMessage>& messages, Writer& out) const;

  Style style_;
};

}  // namespace weft
