#include "cli/table.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <ctime>

#include <unistd.h>

#include "common/base/check.h"

namespace weft::cli {
namespace {

std::string Formatted(const char* format, double value) {
  std::array<char, 64> text{};
  const int size = std::snprintf(text.data(), text.size(), format, value);
  return {text.data(), static_cast<size_t>(std::clamp(size, 0, 63))};
}

std::string Fixed(double value, int digits) {
  std::array<char, 64> text{};
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value,
                                 std::chars_format::fixed, digits);
  return end.ec == std::errc() ? std::string(text.data(), end.ptr) : Formatted("%.6g", value);
}

std::string Pad(const std::string& text, size_t width, bool right) {
  const size_t have = TextWidth(text);
  const std::string space(width > have ? width - have : 0, ' ');
  return right ? space + text : text + space;
}

}  // namespace

bool OnTerminal() { return ::isatty(STDOUT_FILENO) == 1; }

std::string OneLine(const std::string& text) {
  std::string line;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto next = static_cast<unsigned char>(i + 1 < text.size() ? text[i + 1] : 0);
    // U+0080 to U+009F in UTF-8: U+009B opens a terminal's escape sequences as ESC [ does.
    const bool c1 = byte == 0xC2 && next >= 0x80 && next < 0xA0;
    line += byte < 0x20 || byte == 0x7F || c1 ? ' ' : text[i];
    if (c1) ++i;
  }
  return line;
}

size_t TextWidth(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;  // not a continuation byte
  }));
}

std::string ExactNumber(double value) {
  std::array<char, 32> text{};
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
  return {text.data(), end};
}

Cell::Cell(std::string text) : terminal(OneLine(text)) { pipe = terminal; }

Cell Cell::Integer(int64_t value) { return {std::to_string(value)}; }

Cell Cell::Number(std::optional<double> value, int digits) {
  if (!value) return "-";
  return {Fixed(*value, digits), ExactNumber(*value)};
}

Cell Cell::Small(double value) {
  return {value == 0 ? "0" : Formatted("%.1e", value), ExactNumber(value)};
}

Cell Cell::Bytes(uint64_t bytes) {
  constexpr std::array kUnits = {"B", "kB", "MB", "GB", "TB"};
  auto amount = static_cast<double>(bytes);
  size_t unit = 0;
  while (amount >= 999.95 && unit + 1 < kUnits.size()) {
    amount /= 1000;
    ++unit;
  }
  return {Fixed(amount, unit == 0 ? 0 : 1) + " " + kUnits.at(unit), std::to_string(bytes)};
}

Cell Cell::Seconds(double seconds) {
  const std::string exact = ExactNumber(seconds);
  if (seconds < 0.0005) return {"0 s", exact};
  if (seconds < 1) return {Fixed(seconds * 1000, 0) + " ms", exact};
  if (seconds < 119.5) return {Fixed(seconds, seconds < 10 ? 2 : 1) + " s", exact};
  const auto whole = std::llround(seconds);
  if (whole < 7200) {
    return {std::to_string(whole / 60) + " min " + std::to_string(whole % 60) + " s", exact};
  }
  return {std::to_string(whole / 3600) + " h " + std::to_string(whole % 3600 / 60) + " min", exact};
}

Cell Cell::Time(int64_t wall_us) {
  if (wall_us == 0) return "-";
  const std::time_t seconds = static_cast<std::time_t>(wall_us / 1'000'000);
  std::tm parts{};
  std::array<char, 32> text{};
  if (::gmtime_r(&seconds, &parts) == nullptr) return std::to_string(wall_us);
  const size_t size = std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S", &parts);
  return std::string(text.data(), size);
}

void Table::Add(std::vector<Cell> cells) {
  WEFT_CHECK(cells.size() == columns_.size(), cells.size(), " cells, ", columns_.size(),
             " columns");
  rows_.push_back(std::move(cells));
}

void Table::Print(std::ostream& out, bool terminal) const {
  if (!terminal) {
    for (size_t c = 0; c < columns_.size(); ++c) out << (c > 0 ? "\t" : "") << columns_[c].name;
    out << "\n";
    for (const auto& row : rows_) {
      for (size_t c = 0; c < row.size(); ++c) out << (c > 0 ? "\t" : "") << row[c].pipe;
      out << "\n";
    }
    return;
  }
  std::vector<size_t> widths;
  for (size_t c = 0; c < columns_.size(); ++c) {
    size_t width = TextWidth(columns_[c].name);
    for (const auto& row : rows_) width = std::max(width, TextWidth(row[c].terminal));
    widths.push_back(width);
  }
  const auto print = [&](size_t c, const std::string& text) {
    const bool last = c + 1 == columns_.size();
    // Nothing is padded behind the last column: lines do not end in spaces.
    out << (c > 0 ? "  " : "")
        << (last && !columns_[c].right ? text : Pad(text, widths[c], columns_[c].right));
    if (last) out << "\n";
  };
  for (size_t c = 0; c < columns_.size(); ++c) print(c, columns_[c].name);
  for (const auto& row : rows_) {
    for (size_t c = 0; c < row.size(); ++c) print(c, row[c].terminal);
  }
}

}  // namespace weft::cli
