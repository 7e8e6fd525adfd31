#include "common/runtime/ledger.h"

#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "common/crypto/digest.h"

namespace weft {
namespace {

std::vector<LedgerEvent> ThreeEvents() {
  LedgerTail tail;
  std::vector<LedgerEvent> events;
  events.push_back(Chain(tail, {"run-started", "{\"seed\":1}"}, 100));
  events.push_back(Chain(tail, {"round-opened", "{}"}, 200));
  events.push_back(Chain(tail, {"run-finished", "{}"}, -1));
  return events;
}

// The bytes docs/formats.md describes, spelt out: a change of the hash breaks every old run.
TEST(LedgerTest, TheHashIsOverTheDocumentedBytes) {
  LedgerEvent event{.seq = 258, .wall_us = -1, .kind = "ab", .body = "{}", .hash = ""};
  std::string bytes;
  const auto field = [&bytes](const std::string& text) {
    bytes += static_cast<char>(text.size());
    bytes += std::string(7, '\0') + text;
  };
  field(std::string(64, '0'));
  field(std::string("\x02\x01\0\0\0\0\0\0", 8));
  field(std::string(8, '\xFF'));
  field("ab");
  field("{}");
  EXPECT_EQ(ChainHash(kLedgerGenesis, event), Sha256Hex(AsBytes(bytes)));
}

TEST(LedgerTest, AnUntouchedChainVerifies) {
  EXPECT_TRUE(VerifyChain(ThreeEvents()).ok());
  EXPECT_TRUE(VerifyChain({}).ok());
}

TEST(LedgerTest, AnyChangeToAnyFieldNamesItsRow) {
  const std::vector<std::function<void(LedgerEvent&)>> changes = {
      [](LedgerEvent& e) { e.wall_us += 1; },
      [](LedgerEvent& e) { e.kind += "x"; },
      [](LedgerEvent& e) { e.body[0] = '['; },
      [](LedgerEvent& e) { e.hash[63] = e.hash[63] == '0' ? '1' : '0'; },
      [](LedgerEvent& e) { std::swap(e.kind, e.body); },
  };
  for (size_t row = 0; row < 3; ++row) {
    for (const auto& change : changes) {
      std::vector<LedgerEvent> events = ThreeEvents();
      change(events[row]);
      const Status status = VerifyChain(events);
      EXPECT_EQ(status.code(), Code::kDataLoss);
      EXPECT_NE(status.message().find("row " + std::to_string(row + 1)), std::string::npos)
          << status;
    }
  }
}

TEST(LedgerTest, DroppedSwappedAndRepeatedRowsShow) {
  std::vector<LedgerEvent> dropped = ThreeEvents();
  dropped.erase(dropped.begin() + 1);
  EXPECT_NE(VerifyChain(dropped).message().find("row 2: missing"), std::string::npos);

  std::vector<LedgerEvent> headless = ThreeEvents();
  headless.erase(headless.begin());
  EXPECT_NE(VerifyChain(headless).message().find("row 1: missing"), std::string::npos);

  std::vector<LedgerEvent> swapped = ThreeEvents();
  std::swap(swapped[1], swapped[2]);
  EXPECT_EQ(VerifyChain(swapped).code(), Code::kDataLoss);

  // Renumbering what was cut out does not help: the hash covers the predecessor.
  std::vector<LedgerEvent> renumbered = ThreeEvents();
  renumbered.erase(renumbered.begin() + 1);
  renumbered[1].seq = 2;
  EXPECT_NE(VerifyChain(renumbered).message().find("row 2"), std::string::npos);
}

TEST(LedgerTest, MovingTextBetweenKindAndBodyChangesTheHash) {
  LedgerTail a;
  LedgerTail b;
  EXPECT_NE(Chain(a, {"ab", "c"}, 0).hash, Chain(b, {"a", "bc"}, 0).hash);
}

}  // namespace
}  // namespace weft
