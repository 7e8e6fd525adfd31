#pragma once
// Str("rank ", 8, " of ", name): concatenates anything an ostream can print. g++ 12 has no
// <format>.

#include <sstream>
#include <string>

namespace weft {

template <typename T>
concept Printable = requires(std::ostream& out, const T& value) {
  out << value;
};

template <Printable... Parts>
[[nodiscard]] std::string Str(const Parts&... parts) {
  std::ostringstream out;
  out.precision(9);
  (out << ... << parts);
  return std::move(out).str();
}

}  // namespace weft
