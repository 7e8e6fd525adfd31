#pragma once
// Checks of numbers on the command line. CLI11's own take "-1" for 2^64 - 1, let numbers that are
// too large become the largest there is, and print bounds with three hundred digits.

#include <charconv>
#include <cmath>
#include <concepts>
#include <limits>
#include <string>

#include <CLI/CLI.hpp>

#include "common/base/str.h"

namespace weft::cli {

/// Digits only, from `min` to `max`.
template <std::integral T>
[[nodiscard]] CLI::Validator WholeNumber(T min, T max = std::numeric_limits<T>::max()) {
  const auto check = [min, max](const std::string& text) -> std::string {
    T value{};
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    if (error == std::errc() && stop == end && value >= min && value <= max) return {};
    return Str("got ", text, ", wanted a whole number ",
               max == std::numeric_limits<T>::max() ? Str("of ", min, " or more")
                                                    : Str("from ", min, " to ", max));
  };
  return CLI::Validator(check, "", "WHOLE");
}

/// A finite number above 0.
[[nodiscard]] inline CLI::Validator AboveZero() {
  const auto check = [](const std::string& text) -> std::string {
    double value = 0;
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    const bool number = error == std::errc() && stop == end && std::isfinite(value);
    return number && value > 0 ? "" : Str("got ", text, ", wanted a number above 0");
  };
  return CLI::Validator(check, "", "NUMBER");
}

}  // namespace weft::cli
