// protocols/README.md says what the code does: its table of limits is that of the header, its table
// of messages names all.

#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include <gtest/gtest.h>

#include "common/base/limits.h"
#include "common/base/str.h"
#include "tests/unit/wire/random_messages.h"

namespace weft {
namespace {

std::string ReadText(const std::string& path) {
  std::ifstream in(std::string(WEFT_SOURCE_DIR) + "/" + path);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

// The second column of rows that begin "| `name` | value |".
std::map<std::string, std::string> Rows(const std::string& document) {
  std::map<std::string, std::string> rows;
  std::istringstream in(document);
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with("| `")) continue;
    const size_t name_end = line.find('`', 3);
    const size_t value = line.find("| ", name_end) + 2;
    rows[line.substr(3, name_end - 3)] = line.substr(value, line.find(" |", value) - value);
  }
  return rows;
}

#define LIMIT(name) \
  { #name, Str(limits::name) }
const std::map<std::string, std::string> kLimits = {
    LIMIT(kControlBytesMax),
    LIMIT(kChunkBytes),
    LIMIT(kFrameBytesMax),
    LIMIT(kFramesPerMessageMax),
    LIMIT(kPayloadBytesMax),
    LIMIT(kChunksMax),
    LIMIT(kChunksInFlightMax),
    LIMIT(kManifestBytesMax),
    LIMIT(kPeersMax),
    LIMIT(kCapnpWordsMax),
    LIMIT(kCapnpNestingMax),
    LIMIT(kNameBytesMax),
    LIMIT(kPlainNameBytesMax),
    LIMIT(kTextBytesMax),
    LIMIT(kSitesMax),
    LIMIT(kTensorsPerSiteMax),
    LIMIT(kMetricsMax),
    LIMIT(kOptionsMax),
    LIMIT(kSectionsMax),
    LIMIT(kDenseTensorsMax),
    LIMIT(kTensorDimensionsMax),
    LIMIT(kRankMax),
    LIMIT(kDimensionMax),
    LIMIT(kLabelsMax),
    LIMIT(kExamplesMax),
    LIMIT(kSafetensorsHeaderMax),
    LIMIT(kJsonBytesMax),
    LIMIT(kJsonNestingMax),
    LIMIT(kTokenIdMax),
    LIMIT(kJsonlLineBytesMax),
};
#undef LIMIT

TEST(ProtocolDocumentTest, ItsTableOfLimitsIsTheHeaders) {
  const auto rows = Rows(ReadText("protocols/README.md"));
  for (const auto& [name, value] : kLimits) {
    ASSERT_TRUE(rows.contains(name)) << name << " is missing";
    EXPECT_EQ(rows.at(name), value) << name;
  }
}

TEST(ProtocolDocumentTest, EveryLimitOfTheHeaderIsInTheTableAndTheOtherWayRound) {
  std::set<std::string> in_header, in_document;
  std::istringstream words(ReadText("common/base/limits.h"));
  for (std::string word, type; words >> word;) {
    if (word == "constexpr" && words >> type >> word) in_header.insert(word);
  }
  for (const auto& [name, value] : Rows(ReadText("protocols/README.md"))) {
    if (name.starts_with('k')) in_document.insert(name);
  }
  EXPECT_GT(in_header.size(), 20u);
  EXPECT_EQ(in_header, in_document);
}

TEST(ProtocolDocumentTest, EveryMessageHasItsRow) {
  const auto rows = Rows(ReadText("protocols/README.md"));
  RandomStream random(31);
  for (size_t kind = 0; kind < kMessageKinds; ++kind) {
    const std::string name(MessageName(RandomMessage(random, kind)));
    EXPECT_TRUE(rows.contains(name)) << name;
  }
}

TEST(ProtocolDocumentTest, WhatFitsTheLimitsFitsAFrame) {
  // CURVE adds 33 bytes to a frame; a whole control frame and a whole chunk must both pass.
  EXPECT_LE(std::max(limits::kControlBytesMax, limits::kChunkBytes) + 64, limits::kFrameBytesMax);
  EXPECT_EQ(limits::kPayloadBytesMax % limits::kChunkBytes, 0u);
}

}  // namespace
}  // namespace weft
