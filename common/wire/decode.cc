#include "common/wire/decode.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include <capnp/serialize.h>
#include <kj/exception.h>

#include "common/base/limits.h"
#include "common/base/str.h"

namespace weft::wire {
namespace {

constexpr size_t kWord = sizeof(capnp::word);

// Length of the UTF-8 sequence at the front of `text`, 0 if it is malformed (overlong, surrogate,
// beyond U+10FFFF, cut).
size_t SequenceLength(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto continues = [&](size_t i, unsigned low, unsigned high) {
    return i < text.size() && byte(i) >= low && byte(i) <= high;
  };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return continues(1, 0x80, 0xBF) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    const unsigned low = first == 0xE0 ? 0xA0 : 0x80;
    const unsigned high = first == 0xED ? 0x9F : 0xBF;
    return continues(1, low, high) && continues(2, 0x80, 0xBF) ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    const unsigned low = first == 0xF0 ? 0x90 : 0x80;
    const unsigned high = first == 0xF4 ? 0x8F : 0xBF;
    return continues(1, low, high) && continues(2, 0x80, 0xBF) && continues(3, 0x80, 0xBF) ? 4 : 0;
  }
  return 0;
}

// A control character at the front of `text`: of ASCII, or U+0080 to U+009F, of which U+009B opens
// a terminal's escape sequences as ESC [ does.
bool StartsWithControl(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  if (byte(0) < 0x20 || byte(0) == 0x7F) return true;
  return byte(0) == 0xC2 && text.size() > 1 && byte(1) < 0xA0;
}

bool IsCleanText(std::string_view text) {
  while (!text.empty()) {
    const size_t length = SequenceLength(text);
    if (length == 0 || StartsWithControl(text)) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string Cleaned(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const size_t length = SequenceLength(text);
    const bool keep = length > 0 && (!StartsWithControl(text) || text.front() == '\n');
    if (keep) out += text.substr(0, length);
    if (!keep) out += '?';
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  return out;
}

Status ReadAligned(kj::ArrayPtr<const capnp::word> words, const DoorLimits& limits,
                   const std::function<Status(capnp::MessageReader&)>& read) {
  capnp::ReaderOptions options;
  options.traversalLimitInWords = limits.words_max;
  options.nestingLimit = limits.nesting_max;
  try {
    capnp::FlatArrayMessageReader reader(words, options);
    return read(reader);
  } catch (const kj::Exception& error) {
    return InvalidArgument(
        Str("[wire] malformed message: ", std::string_view(error.getDescription().cStr())));
  }
}

}  // namespace

Status ReadAtDoor(ByteSpan bytes, const DoorLimits& limits,
                  const std::function<Status(capnp::MessageReader&)>& read) {
  if (bytes.empty() || bytes.size() % kWord != 0) {
    return InvalidArgument(Str("[wire] malformed message: got ", bytes.size(),
                               " bytes, wanted a positive multiple of 8"));
  }
  const size_t words = bytes.size() / kWord;
  if (reinterpret_cast<uintptr_t>(bytes.data()) % kWord == 0) {
    return ReadAligned({reinterpret_cast<const capnp::word*>(bytes.data()), words}, limits, read);
  }
  kj::Array<capnp::word> aligned = kj::heapArray<capnp::word>(words);
  std::memcpy(aligned.asBytes().begin(), bytes.data(), bytes.size());
  return ReadAligned(aligned, limits, read);
}

void FieldReader::Fail(const char* field, std::string_view got_and_wanted) {
  if (status_.ok())
    status_ = InvalidArgument(Str("[wire] ", where_, ": ", field, ": ", got_and_wanted));
}

std::string FieldReader::Bounded(capnp::Text::Reader text, size_t bytes_max, const char* field) {
  if (text.size() > bytes_max) {
    Fail(field, Str("got ", text.size(), " bytes, wanted at most ", bytes_max));
    return {};
  }
  return {text.begin(), text.size()};
}

std::string FieldReader::Name(capnp::Text::Reader text, const char* field) {
  std::string name = Bounded(text, limits::kNameBytesMax, field);
  if (!IsCleanText(name)) Fail(field, "got control characters or bytes that are not UTF-8");
  return name;
}

std::string FieldReader::Pattern(capnp::Text::Reader text, const char* field) {
  std::string pattern = Bounded(text, limits::kTextBytesMax, field);
  if (!IsCleanText(pattern)) Fail(field, "got control characters or bytes that are not UTF-8");
  return pattern;
}

std::string FieldReader::Key(capnp::Text::Reader text, const char* field) {
  std::string key = Name(text, field);
  if (key.empty()) Fail(field, "got nothing, wanted a name");
  if (key == "." || key == ".." || key.find_first_of("/\\") != std::string::npos) {
    Fail(field, "got a name with a slash or of dots alone");
  }
  return key;
}

std::string FieldReader::FreeText(capnp::Text::Reader text, const char* field) {
  return Cleaned(Bounded(text, limits::kTextBytesMax, field));
}

std::string FieldReader::Digest(capnp::Text::Reader text, const char* field) {
  constexpr size_t kDigits = 64;
  std::string digest = Bounded(text, kDigits, field);
  const bool hex = std::all_of(digest.begin(), digest.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
  });
  if (digest.size() != kDigits || !hex) {
    Fail(field, Str("wanted 64 lower-case hexadecimal digits, got ", text.size(), " bytes",
                    hex ? "" : " with others"));
  }
  return digest;
}

double FieldReader::Finite(double value, const char* field) {
  if (!std::isfinite(value)) Fail(field, "got NaN or an infinity, wanted a finite number");
  return value;
}

int64_t FieldReader::Within(int64_t value, int64_t low, int64_t high, const char* field) {
  if (value < low || value > high) Fail(field, Str("got ", value, ", wanted ", low, " to ", high));
  return value;
}

uint64_t FieldReader::AtMost(uint64_t value, uint64_t high, const char* field) {
  if (value > high) Fail(field, Str("got ", value, ", wanted at most ", high));
  return value;
}

bool FieldReader::Count(uint64_t got, uint64_t most, const char* field) {
  if (got > most) Fail(field, Str("got ", got, " elements, wanted at most ", most));
  return ok();
}

}  // namespace weft::wire
