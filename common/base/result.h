#pragma once
// Result<T>: a value or the Status that says why there is none. g++ 12 has no std::expected.
//
//   WEFT_TRY(DoIt());                        returns the Status from the enclosing function if it
//   is not ok WEFT_TRY_ASSIGN(auto x, MakeX());        the same for a Result, else binds its value

#include <utility>
#include <variant>

#include "common/base/check.h"
#include "common/base/status.h"

namespace weft {

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value)
      : state_(std::in_place_index<0>, std::move(value)) {}  // NOLINT: implicit on purpose
  Result(Status status) : state_(std::in_place_index<1>, std::move(status)) {  // NOLINT
    WEFT_CHECK(!std::get<1>(state_).ok(), "a Result made from an ok Status has no value");
  }

  [[nodiscard]] bool ok() const { return state_.index() == 0; }
  [[nodiscard]] Status status() const { return ok() ? Status() : std::get<1>(state_); }

  /// The value; calling these on a failed Result is a bug.
  [[nodiscard]] T& value() & {
    WEFT_CHECK(ok(), std::get<1>(state_));
    return std::get<0>(state_);
  }
  [[nodiscard]] const T& value() const& {
    WEFT_CHECK(ok(), std::get<1>(state_));
    return std::get<0>(state_);
  }
  [[nodiscard]] T&& value() && {
    WEFT_CHECK(ok(), std::get<1>(state_));
    return std::get<0>(std::move(state_));
  }
  [[nodiscard]] T& operator*() & { return value(); }
  [[nodiscard]] const T& operator*() const& { return value(); }
  [[nodiscard]] T* operator->() { return &value(); }
  [[nodiscard]] const T* operator->() const { return &value(); }

 private:
  std::variant<T, Status> state_;
};

}  // namespace weft

#define WEFT_CONCAT_INNER_(a, b) a##b
#define WEFT_CONCAT_(a, b) WEFT_CONCAT_INNER_(a, b)

#define WEFT_TRY(expression)                                                                 \
  do {                                                                                       \
    if (::weft::Status weft_status_ = (expression); !weft_status_.ok()) return weft_status_; \
  } while (false)

#define WEFT_TRY_ASSIGN(declaration, expression)            \
  auto WEFT_CONCAT_(weft_result_, __LINE__) = (expression); \
  if (!WEFT_CONCAT_(weft_result_, __LINE__).ok())           \
    return WEFT_CONCAT_(weft_result_, __LINE__).status();   \
  declaration = std::move(WEFT_CONCAT_(weft_result_, __LINE__)).value()
