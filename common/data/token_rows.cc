#include "common/data/token_rows.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <optional>
#include <set>
#include <unordered_map>

#include "common/base/limits.h"
#include "common/base/str.h"

namespace weft {
namespace {

constexpr std::string_view kLabelField = "label";
constexpr std::string_view kPairField = "text_pair";

std::optional<int64_t> WholeNumber(std::string_view text) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < 0) return std::nullopt;
  return number;
}

Result<std::string_view> LabelOf(const Row& row) {
  const auto label = row.kind == RowKind::kText ? row.Field(kLabelField) : std::nullopt;
  if (label) return *label;
  return InvalidArgument(Str("[data] line ", row.line,
                             ": has no class to learn; wanted text (and text_pair) and label"));
}

struct Tokenized {
  TokenRow row;
  bool cut = false;
};

class RowTokenizer {
 public:
  RowTokenizer(const Tokenizer& tokenizer, const TokenizeOptions& options)
      : tokenizer_(tokenizer), options_(options) {
    for (size_t i = 0; i < options.labels.size(); ++i) {
      classes_.emplace(options.labels[i], static_cast<int32_t>(i));
    }
  }

  // Whether the row can be written at all.
  Status Check(const Row& row) const {
    const std::string where = Str("[data] line ", row.line);
    if (!options_.labels.empty()) return ClassOf(row).status();
    if (IsConversation(row)) {
      if (row.kind == RowKind::kText) {
        return InvalidArgument(where +
                               ": a text row is no conversation; leave out --chat, or give prompt "
                               "and completion");
      }
      return options_.chat_template.status().Within(where + ": the row is a conversation");
    }
    if (tokenizer_.eos_id()) return OkStatus();
    return InvalidArgument(
        "[data] the tokenizer has no end-of-text token, which ends every row; name one as "
        "eos_token in tokenizer_config.json");
  }

  Result<Tokenized> Run(const Row& row) const {
    if (!options_.labels.empty()) return Classified(row);
    WEFT_TRY(Check(row));
    if (!IsConversation(row))
      return Tokenized{row.kind == RowKind::kText ? Text(row) : Prompted(row)};
    WEFT_TRY_ASSIGN(TokenRow tokens, Conversation(row, *MessagesOf(row)));
    return Tokenized{std::move(tokens)};
  }

 private:
  bool IsConversation(const Row& row) const {
    return row.kind == RowKind::kMessages || options_.chat;
  }

  // A label is a name, or the number of one.
  Result<int32_t> ClassOf(const Row& row) const {
    WEFT_TRY_ASSIGN(const std::string_view label, LabelOf(row));
    if (const auto named = classes_.find(label); named != classes_.end()) return named->second;
    const std::optional<int64_t> number = WholeNumber(label);
    const auto count = static_cast<int64_t>(options_.labels.size());
    if (number && *number < count) return static_cast<int32_t>(*number);
    return InvalidArgument(Str("[data] line ", row.line, ": label \"", label.substr(0, 80),
                               "\" is none of the ", count, " known ones (", options_.labels[0],
                               " … ", options_.labels.back(), ")"));
  }

  Result<Tokenized> Classified(const Row& row) const {
    Tokenized out;
    WEFT_TRY_ASSIGN(out.row.row_class, ClassOf(row));
    if (const auto second = row.Field(kPairField)) {
      WEFT_TRY(Pair(TextOf(row).completion, *second, out));
    } else {
      Single(TextOf(row).completion, out);
    }
    return out;
  }

  // How many tokens are too many. Rows that are to be dropped stay as long as they are.
  size_t Surplus(size_t tokens) const {
    const auto most = static_cast<size_t>(options_.max_len);
    return options_.long_rows == "cut" && tokens > most ? tokens - most : 0;
  }

  // Special tokens behind a text stay: what is cut is text.
  void Single(const std::string& text, Tokenized& out) const {
    std::vector<int32_t>& ids = out.row.ids;
    ids = tokenizer_.Encode(text, /*special=*/true);
    if (Surplus(ids.size()) == 0) return;
    const std::vector<int32_t> content = tokenizer_.Encode(text, /*special=*/false);
    const auto begin = std::search(ids.begin(), ids.end(), content.begin(), content.end());
    if (begin == ids.end()) return;
    const auto cut = static_cast<std::ptrdiff_t>(std::min(Surplus(ids.size()), content.size()));
    const auto end = begin + static_cast<std::ptrdiff_t>(content.size());
    ids.erase(end - cut, end);
    out.cut = true;
  }

  // The longer text loses its end first.
  Status Pair(const std::string& first_text, std::string_view second_text, Tokenized& out) const {
    std::vector<int32_t> first = tokenizer_.Encode(first_text, /*special=*/false);
    std::vector<int32_t> second = tokenizer_.Encode(second_text, /*special=*/false);
    WEFT_TRY_ASSIGN(const TypedIds frame, tokenizer_.JoinPair({}, {}));
    size_t surplus = Surplus(frame.ids.size() + first.size() + second.size());
    out.cut = surplus > 0;
    for (; surplus > 0 && !(first.empty() && second.empty()); --surplus) {
      (first.size() > second.size() ? first : second).pop_back();
    }
    WEFT_TRY_ASSIGN(TypedIds joined, tokenizer_.JoinPair(first, second));
    out.row.ids = std::move(joined.ids);
    out.row.types = std::move(joined.types);
    return OkStatus();
  }

  TokenRow Prompted(const Row& row) const {
    const RowText text = TextOf(row);
    TokenRow out;
    out.ids = tokenizer_.Encode(text.prompt, /*special=*/true);
    out.labels.assign(out.ids.size(), kNoLabel);
    std::vector<int32_t> completion = tokenizer_.Encode(text.completion, /*special=*/false);
    completion.push_back(*tokenizer_.eos_id());
    out.ids.insert(out.ids.end(), completion.begin(), completion.end());
    out.labels.insert(out.labels.end(), completion.begin(), completion.end());
    return out;
  }

  TokenRow Text(const Row& row) const {
    TokenRow out;
    out.ids = tokenizer_.Encode(TextOf(row).completion, /*special=*/true);
    if (out.ids.empty() || out.ids.back() != *tokenizer_.eos_id()) {
      out.ids.push_back(*tokenizer_.eos_id());
    }
    out.labels = out.ids;
    out.labels.front() = kNoLabel;
    return out;
  }

  // The ids are those of the whole text. Where a stretch begins among them is found by encoding the
  // text up to there: as many ids as both encodings share lie before it, and an id that reaches
  // over the border belongs to the later stretch.
  Result<TokenRow> Conversation(const Row& row, const std::vector<ChatMessage>& messages) const {
    const Result<std::vector<ChatSegment>> segments = options_.chat_template->Render(
        messages, /*add_generation_prompt=*/false,
        {.bos = tokenizer_.bos_token(), .eos = tokenizer_.eos_token()});
    if (!segments.ok()) return segments.status().Within(Str("[data] line ", row.line));
    std::string text;
    for (const ChatSegment& segment : *segments) text += segment.text;
    TokenRow out;
    out.ids = tokenizer_.Encode(text, /*special=*/false);
    out.labels.assign(out.ids.size(), kNoLabel);
    size_t end_byte = 0;
    size_t begin = 0;
    for (const ChatSegment& segment : *segments) {
      end_byte += segment.text.size();
      const size_t end =
          end_byte == text.size() ? out.ids.size() : SharedIds(text.substr(0, end_byte), out.ids);
      if (segment.assistant) {
        for (size_t i = begin; i < end; ++i) out.labels[i] = out.ids[i];
      }
      begin = std::max(begin, end);
    }
    return out;
  }

  size_t SharedIds(const std::string& beginning, const std::vector<int32_t>& ids) const {
    const std::vector<int32_t> head = tokenizer_.Encode(beginning, /*special=*/false);
    const auto [a, b] = std::mismatch(head.begin(), head.end(), ids.begin(), ids.end());
    return static_cast<size_t>(a - head.begin());
  }

  const Tokenizer& tokenizer_;
  const TokenizeOptions& options_;
  std::unordered_map<std::string_view, int32_t> classes_;
};

// Adds a row to what is used, or counts why it is not.
void Take(Tokenized tokens, const TokenizeOptions& options, TokenRows& out) {
  const auto max_len = static_cast<size_t>(options.max_len);
  TokenRow& row = tokens.row;
  if (tokens.cut) ++out.summary.rows_cut;
  if (row.ids.size() > max_len) {
    if (options.long_rows == "drop") {
      ++out.summary.rows_dropped;
      return;
    }
    row.ids.resize(max_len);
    if (!row.labels.empty()) row.labels.resize(max_len);
    if (!row.types.empty()) row.types.resize(max_len);
    if (!tokens.cut) ++out.summary.rows_cut;
  }
  const int64_t labels = row.num_labels();
  if (labels == 0) {
    ++out.summary.rows_without_label;
    return;
  }
  ++out.summary.rows_used;
  out.summary.tokens += row.ids.size();
  out.summary.label_tokens += static_cast<uint64_t>(labels);
  out.rows.push_back(std::move(row));
}

}  // namespace

int64_t TokenRow::num_labels() const {
  if (labels.empty()) return row_class == kNoLabel ? 0 : 1;
  return std::count_if(labels.begin() + 1, labels.end(),
                       [](int32_t label) { return label != kNoLabel; });
}

std::string DataSummary::Text(int64_t max_len) const {
  std::string text = Str(rows_used, " rows, ", tokens, " tokens, ", label_tokens, " with a label");
  const auto add = [&](uint64_t count, const std::string& what) {
    if (count > 0) text += Str("; ", count, " rows ", what);
  };
  add(rows_cut, Str("cut at ", max_len, " tokens"));
  add(rows_dropped, Str("dropped for being longer than ", max_len, " tokens"));
  add(rows_without_label, "left out for having no label");
  return text;
}

Status CheckLabelled(std::span<const Row> rows) {
  for (const Row& row : rows) WEFT_TRY(LabelOf(row).status());
  return OkStatus();
}

Result<std::vector<std::string>> LabelsOf(std::span<const Row> rows) {
  std::set<std::string, std::less<>> names;
  int64_t largest = 0;
  bool numbers = true;
  for (const Row& row : rows) {
    WEFT_TRY_ASSIGN(const std::string_view label, LabelOf(row));
    const std::optional<int64_t> number = WholeNumber(label);
    numbers = numbers && number.has_value();
    largest = std::max(largest, number.value_or(0));
    if (names.find(label) == names.end()) names.emplace(label);
    if (static_cast<int64_t>(names.size()) > limits::kLabelsMax ||
        (numbers && largest >= limits::kLabelsMax)) {
      return InvalidArgument(Str("[data] line ", row.line, ": more than ", limits::kLabelsMax,
                                 " classes, or a class of a number that large"));
    }
  }
  std::vector<std::string> labels(names.begin(), names.end());
  if (numbers) {
    labels.clear();
    for (int64_t i = 0; i <= largest; ++i) labels.push_back(std::to_string(i));
  }
  if (labels.size() >= 2) return labels;
  return InvalidArgument("[data] the rows' labels are all the same: nothing to learn from them");
}

Status CheckLongRows(const std::string& rule) {
  if (rule == "cut" || rule == "drop") return OkStatus();
  return InvalidArgument(Str("[data] long_rows is \"", rule, "\", wanted \"cut\" or \"drop\""));
}

ChatChoice NoChatTemplate() {
  return InvalidArgument(
      "[chat template] the model's folder has none; name one with --chat-template or "
      "model.chat-template");
}

ChatChoice ChooseChatTemplate(const std::string& name, const Tokenizer& tokenizer) {
  if (!name.empty()) return ChatTemplate::FromName(name);
  if (tokenizer.chat_template()) return ChatTemplate::Detect(*tokenizer.chat_template());
  return NoChatTemplate();
}

Status CheckRows(std::span<const Row> rows, const Tokenizer& tokenizer,
                 const TokenizeOptions& options) {
  const RowTokenizer row_tokenizer(tokenizer, options);
  for (const Row& row : rows) WEFT_TRY(row_tokenizer.Check(row));
  return OkStatus();
}

Result<TokenRows> TokenizeRows(std::span<const Row> rows, const Tokenizer& tokenizer,
                               const TokenizeOptions& options) {
  WEFT_TRY(CheckLongRows(options.long_rows));
  if (options.max_len < 2) {
    return InvalidArgument(Str("[data] max_len is ", options.max_len,
                               ", wanted at least 2: the first token of a row predicts nothing"));
  }
  const RowTokenizer row_tokenizer(tokenizer, options);
  TokenRows out;
  for (const Row& row : rows) {
    ++out.summary.rows_read;
    WEFT_TRY_ASSIGN(Tokenized tokens, row_tokenizer.Run(row));
    Take(std::move(tokens), options, out);
  }
  if (out.rows.empty()) {
    return InvalidArgument(Str("[data] no row is left to learn from: ", out.summary.rows_read,
                               " read, ", out.summary.rows_dropped, " dropped for their length, ",
                               out.summary.rows_without_label,
                               " without a label within max_len = ", options.max_len));
  }
  return out;
}

}  // namespace weft
