#include "common/formats/tokenizer/pattern.h"

namespace weft {

Result<Pattern> Pattern::Read(const JsonView& json) {
  Pattern pattern;
  if (json.is_string()) {
    WEFT_TRY_ASSIGN(pattern.literal_, json.String());
    return pattern;
  }
  if (const auto literal = json.Find("String")) {
    WEFT_TRY_ASSIGN(pattern.literal_, literal->String());
    return pattern;
  }
  WEFT_TRY_ASSIGN(const JsonView source, json.At("Regex"));
  WEFT_TRY_ASSIGN(const std::string text, source.String());
  Result<Regex> regex = Regex::Compile(text);
  if (!regex.ok()) return source.Error(regex.status().message());
  pattern.regex_ = std::move(regex).value();
  return pattern;
}

void Pattern::FindAll(std::string_view text, std::vector<TextRange>& matches) const {
  if (regex_) return regex_->FindAll(text, matches);
  if (literal_.empty()) return;
  for (size_t at = text.find(literal_); at != text.npos; at = text.find(literal_, at)) {
    matches.push_back({at, at + literal_.size()});
    at += literal_.size();
  }
}

std::string Pattern::ReplaceAll(std::string_view text, std::string_view content) const {
  std::vector<TextRange> matches;
  FindAll(text, matches);
  std::string out;
  out.reserve(text.size());
  size_t done = 0;
  for (const TextRange& match : matches) {
    out += text.substr(done, match.begin - done);
    out += content;
    done = match.end;
  }
  out += text.substr(done);
  return out;
}

}  // namespace weft
