#include "cli/table.h"

#include <cmath>
#include <limits>
#include <sstream>
#include <string>

#include <gtest/gtest.h>

#include "cli/progress.h"
#include "common/base/check.h"

namespace weft::cli {
namespace {

Table Sample() {
  Table table({{"CLIENT"}, {"BYTES", true}, {"REASON"}});
  table.Add({"müller", Cell::Bytes(9'437'184), "-"});
  table.Add({"b", Cell::Bytes(7), "line\nbreak\tand \x1b[2J"});
  return table;
}

TEST(TableTest, ATerminalGetsAlignedColumns) {
  std::ostringstream out;
  Sample().Print(out, true);
  EXPECT_EQ(out.str(),
            "CLIENT   BYTES  REASON\n"
            "müller  9.4 MB  -\n"
            "b          7 B  line break and  [2J\n");
}

TEST(TableTest, APipeGetsTabsAndFullPrecision) {
  std::ostringstream out;
  Sample().Print(out, false);
  EXPECT_EQ(out.str(),
            "CLIENT\tBYTES\tREASON\n"
            "müller\t9437184\t-\n"
            "b\t7\tline break and  [2J\n");
}

TEST(TableTest, ARowOfAnotherLengthIsABug) {
  Table table({{"A"}, {"B"}});
  EXPECT_THROW(table.Add({"only one"}), CheckFailure);
}

TEST(CellTest, NumbersKeepAllBitsInAPipe) {
  const Cell third = Cell::Number(1.0 / 3.0, 4);
  EXPECT_EQ(third.terminal, "0.3333");
  EXPECT_EQ(std::stod(third.pipe), 1.0 / 3.0);
  EXPECT_EQ(Cell::Number(std::nullopt, 4).terminal, "-");
  EXPECT_EQ(Cell::Number(std::nan(""), 4).terminal, "nan");
  EXPECT_FALSE(Cell::Number(std::numeric_limits<double>::max(), 4).terminal.empty());
  EXPECT_EQ(Cell::Small(1.234e-9).terminal, "1.2e-09");
  EXPECT_EQ(Cell::Small(0).terminal, "0");
}

TEST(CellTest, BytesSecondsAndTimesReadWell) {
  EXPECT_EQ(Cell::Bytes(0).terminal, "0 B");
  EXPECT_EQ(Cell::Bytes(999).terminal, "999 B");
  EXPECT_EQ(Cell::Bytes(1000).terminal, "1.0 kB");
  EXPECT_EQ(Cell::Bytes(999'960).terminal, "1.0 MB");
  EXPECT_EQ(Cell::Bytes(~uint64_t{0}).terminal, "18446744.1 TB");
  EXPECT_EQ(Cell::Seconds(0).terminal, "0 s");
  EXPECT_EQ(Cell::Seconds(0.25).terminal, "250 ms");
  EXPECT_EQ(Cell::Seconds(1.25).terminal, "1.25 s");
  EXPECT_EQ(Cell::Seconds(200).terminal, "3 min 20 s");
  EXPECT_EQ(Cell::Seconds(7260).terminal, "2 h 1 min");
  EXPECT_EQ(Cell::Time(0).terminal, "-");
  EXPECT_EQ(Cell::Time(1'700'000'000'000'000).terminal, "2023-11-14 22:13:20");
}

TEST(ProgressTest, TheBarFillsTheWidthGivenAndNeverMore) {
  for (const size_t columns : {10u, 20u, 30u, 40u, 80u, 200u}) {
    for (const uint64_t done : {0u, 1u, 12u, 24u, 99u}) {
      const std::string line = ProgressLine("round 3 ü", done, 24, "loss 1.5", columns);
      EXPECT_LE(TextWidth(line), columns) << line;
    }
  }
  EXPECT_EQ(ProgressLine("x", 5, 10, "", 28), "x  [=====>    ]   50 %  5/10");
  EXPECT_EQ(ProgressLine("x", 10, 10, "", 29), "x  [==========]  100 %  10/10");
  EXPECT_EQ(ProgressLine("x", 7, 0, "of unknown", 80), "x  7  of unknown");
}

}  // namespace
}  // namespace weft::cli
