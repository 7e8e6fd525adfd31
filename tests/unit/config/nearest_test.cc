#include "common/config/nearest.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace weft
