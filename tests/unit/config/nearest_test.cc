#include "common/config/nearest.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "common/base/random.h"

namespace weft {
namespace {

TEST(NearestTest, DistancesOfKnownPairs) {
  EXPECT_EQ(EditDistance("", ""), 0u);
  EXPECT_EQ(EditDistance("", "abc"), 3u);
  EXPECT_EQ(EditDistance("abc", ""), 3u);
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3u);
  EXPECT_EQ(EditDistance("trian", "train"), 1u) << "a swap of neighbours is one edit";
  EXPECT_EQ(EditDistance("flaw", "lawn"), 2u);
}

TEST(NearestTest, TheFirstOfTheNearestIsTaken) {
  EXPECT_EQ(Nearest("rnak", {"alpha", "rank", "bank"}), "rank");
  EXPECT_EQ(Nearest("x", {"a", "b"}), "a");
  EXPECT_EQ(Nearest("x", {}), "");
}

std::string RandomWord(RandomStream& random) {
  std::string word;
  for (uint64_t n = random.Below(9); n > 0; --n) word += static_cast<char>('a' + random.Below(3));
  return word;
}

TEST(NearestTest, TheDistanceIsSymmetricZeroOnlyForTheSameAndAtMostTheLongerWord) {
  RandomStream random(12);
  for (int turn = 0; turn < 2000; ++turn) {
    const std::string a = RandomWord(random), b = RandomWord(random);
    const size_t distance = EditDistance(a, b);
    EXPECT_EQ(distance, EditDistance(b, a)) << a << " " << b;
    EXPECT_EQ(distance == 0, a == b);
    EXPECT_LE(distance, std::max(a.size(), b.size()));
    EXPECT_GE(distance, std::max(a.size(), b.size()) - std::min(a.size(), b.size()));
  }
}

TEST(NearestTest, OneEditIsADistanceOfOne) {
  RandomStream random(13);
  for (int turn = 0; turn < 500; ++turn) {
    const std::string word = "x" + RandomWord(random) + "yz";
    const size_t at = random.Below(word.size());
    std::string shorter = word, longer = word, other = word, swapped = word;
    shorter.erase(at, 1);
    longer.insert(at, 1, 'Q');
    other[at] = 'Q';
    EXPECT_EQ(EditDistance(word, shorter), 1u);
    EXPECT_EQ(EditDistance(word, longer), 1u);
    EXPECT_EQ(EditDistance(word, other), 1u);
    if (at + 1 < word.size() && word[at] != word[at + 1]) {
      std::swap(swapped[at], swapped[at + 1]);
      EXPECT_EQ(EditDistance(word, swapped), 1u) << word << " " << swapped;
    }
  }
}

}  // namespace
}  // namespace weft
