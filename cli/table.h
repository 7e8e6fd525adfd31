#pragma once
// Tables as every command prints them: aligned columns on a terminal, tab-separated lines with full
// precision in a pipe.

#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

namespace weft::cli {

/// Is this stream the process's standard output on a terminal?
[[nodiscard]] bool OnTerminal();

/// A value in the two forms it is printed in.
struct Cell {
  std::string terminal;
  std::string pipe;

  Cell(std::string text);  // NOLINT: implicit on purpose
  Cell(const char* text) : Cell(std::string(text)) {}
  Cell(std::string on_terminal, std::string in_pipe)
      : terminal(std::move(on_terminal)), pipe(std::move(in_pipe)) {}

  [[nodiscard]] static Cell Integer(int64_t value);
  /// `digits` behind the point on a terminal, all bits in a pipe; "-" for none.
  [[nodiscard]] static Cell Number(std::optional<double> value, int digits);
  /// "1.2e-09" on a terminal.
  [[nodiscard]] static Cell Small(double value);
  /// "9.0 MB" on a terminal, bytes in a pipe.
  [[nodiscard]] static Cell Bytes(uint64_t bytes);
  /// "1.25 s", "3 min 20 s" on a terminal, seconds in a pipe.
  [[nodiscard]] static Cell Seconds(double seconds);
  /// "2026-01-31 12:00:00" (UTC); "-" for 0.
  [[nodiscard]] static Cell Time(int64_t wall_us);
};

class Table {
 public:
  struct Column {
    std::string name;
    bool right = false;  // aligned to the right, as numbers are
  };
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  /// As many cells as columns (checked).
  void Add(std::vector<Cell> cells);
  [[nodiscard]] bool empty() const { return rows_.empty(); }

  /// The header and one line a row.
  void Print(std::ostream& out, bool terminal) const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<Cell>> rows_;
};

/// Text that is safe on a terminal and in one field of a line: control characters become spaces.
[[nodiscard]] std::string OneLine(const std::string& text);

/// Columns that UTF-8 text takes on a terminal, each code point counted as one.
[[nodiscard]] size_t TextWidth(const std::string& text);

/// The shortest text that reads back to the same double.
[[nodiscard]] std::string ExactNumber(double value);

}  // namespace weft::cli
