#define PCRE2_CODE_UNIT_WIDTH 8
#include "common/formats/tokenizer/regex.h"

#include <array>
#include <cstdint>

#include <pcre2.h>

#include "common/base/str.h"

namespace weft {
namespace {

constexpr size_t kPatternBytesMax = 64 * 1024;
constexpr uint32_t kMatchStepsMax = 10'000'000;
constexpr uint32_t kMatchHeapKiBMax = 64 * 1024;

// Rewrites one pattern, left to right. Oniguruma's Ruby syntax differs from PCRE2's in:
//   \s  White_Space                           PCRE2's takes U+180E in as well
//   \w  letters, marks, decimal digits, connectors   PCRE2 before 10.43 has no marks and all
//   numbers \h  hexadecimal digit                     horizontal space
//   (?m) dot matches newline                  anchors match at lines (always so in Ruby)
//   [a[b]] and [a&&b]  nested sets            literals
//   x{1,2}+  repeated again                   possessive
class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  Result<std::string> Run() {
    while (at_ < in_.size()) {
      const bool was_interval = interval_;
      interval_ = false;
      const char c = in_[at_];
      if (c == '\\') {
        WEFT_TRY(Escape());
      } else if (in_set_) {
        WEFT_TRY(InSet(c));
      } else if (c == '[') {
        OpenSet();
      } else if (c == '(' && in_.substr(at_, 2) == "(?") {
        Group();
      } else if (c == '(' && in_.substr(at_, 2) == "(*") {
        return Refuse("\"(*\" verbs");
      } else if (c == '{') {
        Interval();
      } else if (c == '+' && was_interval) {
        return Refuse("\"{n,m}+\"");
      } else {
        out_ += c;
        ++at_;
      }
    }
    return std::move(out_);
  }

 private:
  static Status Refuse(std::string_view what) {
    return InvalidArgument(Str("the regular expression uses ", what,
                               ", which is not supported here; write it in another way"));
  }

  Status Escape() {
    if (at_ + 1 >= in_.size()) return Refuse("a lone backslash at its end");
    const char c = in_[at_ + 1];
    at_ += 2;
    constexpr std::string_view kWord =
        "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\xB2\\xB3\\xB9\\xBC\\xBD\\xBE";
    switch (c) {
      case 's':
        out_ += "\\p{White_Space}";
        return OkStatus();
      case 'S':
        out_ += "\\P{White_Space}";
        return OkStatus();
      case 'w':
        out_ += in_set_ ? std::string(kWord) : Str("[", kWord, "]");
        return OkStatus();
      case 'W':
        if (in_set_) return Refuse("\\W inside a set");
        out_ += Str("[^", kWord, "]");
        return OkStatus();
      case 'h':
        out_ += in_set_ ? "0-9a-fA-F" : "[0-9a-fA-F]";
        return OkStatus();
      case 'H':
        if (in_set_) return Refuse("\\H inside a set");
        out_ += "[^0-9a-fA-F]";
        return OkStatus();
      default:
        out_ += '\\';
        out_ += c;
        if ((c == 'p' || c == 'P') && at_ < in_.size() && in_[at_] == '{') CopyThrough('}');
        return OkStatus();
    }
  }

  Status InSet(char c) {
    if (c == '[') {
      if (in_.substr(at_, 2) != "[:") return Refuse("a set within a set");
      const size_t end = in_.find(":]", at_);
      if (end == in_.npos) return Refuse("an unfinished [: :]");
      out_ += in_.substr(at_, end + 2 - at_);
      at_ = end + 2;
      return OkStatus();
    }
    if (in_.substr(at_, 2) == "&&") return Refuse("&& within a set");
    if (c == ']') in_set_ = false;
    out_ += c;
    ++at_;
    return OkStatus();
  }

  void OpenSet() {
    in_set_ = true;
    out_ += '[';
    ++at_;
    if (at_ < in_.size() && in_[at_] == '^') out_ += in_[at_++];
    if (at_ < in_.size() && in_[at_] == ']') {  // a first ] is a literal
      out_ += "\\]";
      ++at_;
    }
  }

  // "(?imx-imx:" or "(?imx)": Ruby's m is PCRE2's s. Everything else that starts with "(?" is the
  // same in both.
  void Group() {
    size_t end = at_ + 2;
    while (end < in_.size() && std::string_view("imx-").find(in_[end]) != std::string_view::npos) {
      ++end;
    }
    const bool flags = end < in_.size() && (in_[end] == ':' || in_[end] == ')');
    if (!flags) {
      out_ += "(?";
      at_ += 2;
      return;
    }
    for (; at_ <= end; ++at_) out_ += in_[at_] == 'm' ? 's' : in_[at_];
  }

  void Interval() {
    size_t end = at_ + 1;
    while (end < in_.size() && (in_[end] == ',' || (in_[end] >= '0' && in_[end] <= '9'))) ++end;
    interval_ = end < in_.size() && in_[end] == '}' && end > at_ + 1;
    out_ += in_[at_++];
    if (interval_) CopyThrough('}');
  }

  void CopyThrough(char last) {
    while (at_ < in_.size()) {
      out_ += in_[at_];
      if (in_[at_++] == last) return;
    }
  }

  std::string_view in_;
  std::string out_;
  size_t at_ = 0;
  bool in_set_ = false;
  bool interval_ = false;  // the last thing copied was {n}, {n,} or {n,m}
};

PCRE2_SPTR Subject(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

}  // namespace

void Regex::Free::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }
void Regex::Free::operator()(pcre2_real_match_context_8* context) const {
  pcre2_match_context_free(context);
}

Result<std::string> FromOniguruma(std::string_view pattern) { return Translator(pattern).Run(); }

Result<Regex> Regex::Compile(std::string_view oniguruma_pattern) {
  if (oniguruma_pattern.size() > kPatternBytesMax) {
    return ResourceExhausted(Str("the regular expression has ", oniguruma_pattern.size(),
                                 " bytes, at most ", kPatternBytesMax, " are taken"));
  }
  WEFT_TRY_ASSIGN(const std::string pattern, FromOniguruma(oniguruma_pattern));
  int error = 0;
  PCRE2_SIZE where = 0;
  Regex regex;
  regex.code_.reset(pcre2_compile(Subject(pattern), pattern.size(),
                                  PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                                  &error, &where, nullptr));
  if (!regex.code_) {
    std::array<PCRE2_UCHAR, 256> text{};
    pcre2_get_error_message(error, text.data(), text.size());
    return InvalidArgument(Str("bad regular expression \"", oniguruma_pattern, "\": ",
                               reinterpret_cast<const char*>(text.data()), " at byte ", where));
  }
  // Where the system forbids making code at run time, matching goes on without it, only slower.
  pcre2_jit_compile(regex.code_.get(), PCRE2_JIT_COMPLETE);
  regex.limits_.reset(pcre2_match_context_create(nullptr));
  if (!regex.limits_) return ResourceExhausted("no memory for a regular expression");
  pcre2_set_match_limit(regex.limits_.get(), kMatchStepsMax);
  pcre2_set_heap_limit(regex.limits_.get(), kMatchHeapKiBMax);
  return regex;
}

void Regex::FindAll(std::string_view text, std::vector<TextRange>& matches) const {
  struct FreeData {
    void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  };
  const std::unique_ptr<pcre2_match_data, FreeData> data(pcre2_match_data_create(1, nullptr));
  if (!data) return;
  for (size_t from = 0; from <= text.size();) {
    int found = pcre2_match(code_.get(), Subject(text), text.size(), from, PCRE2_NO_UTF_CHECK,
                            data.get(), limits_.get());
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) {  // the interpreter backtracks on the heap
      found = pcre2_match(code_.get(), Subject(text), text.size(), from,
                          PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data.get(), limits_.get());
    }
    if (found < 0) return;
    const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(data.get());
    const TextRange match{offsets[0], offsets[1]};
    if (match.begin < from || match.end < match.begin) return;  // \K can turn a match round
    if (match.end > match.begin) {
      matches.push_back(match);
      from = match.end;
    } else {
      from = match.end + 1;
      while (from < text.size() && (static_cast<uint8_t>(text[from]) & 0xC0) == 0x80) ++from;
    }
  }
}

}  // namespace weft
