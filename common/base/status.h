#pragma once
// Status: what the outside world (a peer, a file, a deadline, a setting) did to a call. Never for
// bugs: those are WEFT_CHECK. Messages say where, whose, got, wanted and what to do.

#include <string>
#include <string_view>
#include <utility>

namespace weft {

enum class Code {
  kOk,
  kInvalidArgument,     // malformed input; trying again cannot help
  kNotFound,            // a file, tensor, name or round that should exist does not
  kAlreadyExists,       // duplicate update, port or run folder in use
  kFailedPrecondition,  // right request at the wrong time or against another state (stale version,
                        // other base)
  kPermissionDenied,    // key unknown or revoked
  kResourceExhausted,   // a limit of base/limits.h, memory or disk
  kDeadlineExceeded,    // a wait ended without the event
  kUnavailable,         // peer gone; trying again may help
  kDataLoss,            // bytes do not match their digest
  kCancelled,           // stopped on request
  kInternal,            // a library failed in a way we have no better word for
};

/// Stable lower-case name of a code, e.g. "invalid-argument"; used on the wire, in logs and in
/// JSON.
[[nodiscard]] std::string_view CodeName(Code code);

/// The code with that name; kInternal for a name we do not know (a newer peer's).
[[nodiscard]] Code CodeFromName(std::string_view name);

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}

  [[nodiscard]] bool ok() const { return code_ == Code::kOk; }
  [[nodiscard]] Code code() const { return code_; }
  [[nodiscard]] const std::string& message() const { return message_; }

  /// The same status with "context: " before its message; an ok status is returned as it is.
  [[nodiscard]] Status Within(std::string_view context) const;

  /// "invalid-argument: message", or "ok".
  [[nodiscard]] std::string ToString() const;

  friend bool operator==(const Status&, const Status&) = default;

 private:
  Code code_ = Code::kOk;
  std::string message_;
};

[[nodiscard]] inline Status OkStatus() { return {}; }
[[nodiscard]] Status InvalidArgument(std::string message);
[[nodiscard]] Status NotFound(std::string message);
[[nodiscard]] Status AlreadyExists(std::string message);
[[nodiscard]] Status FailedPrecondition(std::string message);
[[nodiscard]] Status PermissionDenied(std::string message);
[[nodiscard]] Status ResourceExhausted(std::string message);
[[nodiscard]] Status DeadlineExceeded(std::string message);
[[nodiscard]] Status Unavailable(std::string message);
[[nodiscard]] Status DataLoss(std::string message);
[[nodiscard]] Status Cancelled(std::string message);
[[nodiscard]] Status Internal(std::string message);

std::ostream& operator<<(std::ostream& out, const Status& status);

}  // namespace weft
