#pragma once
// The one door through which bytes become Cap'n Proto readers, and the checks that every field
// passes on its way in. Internal to common/wire: only its .cc files include this.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include <capnp/message.h>

#include "common/base/bytes.h"
#include "common/base/status.h"

namespace weft::wire {

struct DoorLimits {
  uint64_t words_max = 0;  // traversal limit; every visit of a pointer counts
  int nesting_max = 0;
};

/// Reads `bytes` as one flat message and hands its reader to `read`. Any kj::Exception, from here
/// or from `read`, ends as kInvalidArgument. The bytes are copied only if they are not aligned
/// to 8.
[[nodiscard]] Status ReadAtDoor(ByteSpan bytes, const DoorLimits& limits,
                                const std::function<Status(capnp::MessageReader&)>& read);

/// Checks fields one after the other and keeps the first failure; what a failed field returns is
/// harmless and unused.
class FieldReader {
 public:
  explicit FieldReader(std::string where) : where_(std::move(where)) {}

  [[nodiscard]] bool ok() const { return status_.ok(); }
  [[nodiscard]] const Status& status() const { return status_; }

  /// UTF-8 without control characters, at most kNameBytesMax long; may be empty.
  std::string Name(capnp::Text::Reader text, const char* field);
  /// The same up to kTextBytesMax: regular expressions.
  std::string Pattern(capnp::Text::Reader text, const char* field);
  /// A Name that is not empty and can never climb out of a folder: no slash, not "." or "..".
  std::string Key(capnp::Text::Reader text, const char* field);
  /// Free text for people, at most kTextBytesMax; control characters and bad UTF-8 become '?'.
  std::string FreeText(capnp::Text::Reader text, const char* field);
  /// A SHA-256 as 64 lower-case hexadecimal digits.
  std::string Digest(capnp::Text::Reader text, const char* field);
  /// A setting: neither NaN nor infinite.
  double Finite(double value, const char* field);
  int64_t Within(int64_t value, int64_t low, int64_t high, const char* field);
  uint64_t AtMost(uint64_t value, uint64_t high, const char* field);
  /// True if a list of that many elements may be read.
  bool Count(uint64_t got, uint64_t most, const char* field);
  void Fail(const char* field, std::string_view got_and_wanted);

 private:
  std::string Bounded(capnp::Text::Reader text, size_t bytes_max, const char* field);

  std::string where_;
  Status status_;
};

}  // namespace weft::wire
