// What every result of the system rests on: streams that are the same everywhere and draw what they
// say they draw.

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>

#include <gtest/gtest.h>

#include "common/base/check.h"
#include "common/base/random.h"

namespace weft {
namespace {

// Runs in the wild depend on these: a change here changes every shuffle, cohort and initial
// adapter.
TEST(RandomStreamTest, ItsNumbersAreTheSameInEveryVersion) {
  RandomStream stream = RandomStream::Derive(7, {"shuffle", "harbour", "3"});
  RandomStream again = RandomStream::Derive(7, {"shuffle", "harbour", "3"});
  std::array<uint32_t, 6> first{};
  for (uint32_t& number : first) number = stream.NextU32();
  // The stream is Philox over its block number under its key, four numbers a block.
  const uint64_t key = again.key();
  for (uint32_t block = 0; block < 2; ++block) {
    const auto wanted =
        Philox({block, 0, 0, 0}, {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)});
    for (size_t i = 0; i < 4 && 4 * block + i < first.size(); ++i) {
      EXPECT_EQ(first[4 * block + i], wanted[i]) << block << " " << i;
    }
  }
}

TEST(RandomStreamTest, ACopyGoesOnFromTheSamePlace) {
  RandomStream stream(11);
  for (int drawn = 0; drawn < 7; ++drawn) {
    RandomStream copy = stream;
    EXPECT_EQ(copy.NextU64(), RandomStream(stream).NextU64());
    EXPECT_EQ(copy.Uniform(), [&] {
      RandomStream other = stream;
      (void)other.NextU64();
      return other.Uniform();
    }());
    (void)stream.NextU32();
  }
}

TEST(RandomStreamTest, WideNumbersAreTwoNarrowOnesHighFirst) {
  RandomStream wide(3), narrow(3);
  for (int i = 0; i < 10; ++i) {
    const uint64_t high = narrow.NextU32();
    EXPECT_EQ(wide.NextU64(), (high << 32) | narrow.NextU32());
  }
}

TEST(RandomStreamTest, DifferentPurposesGiveStreamsWithoutACommonNumber) {
  std::set<uint64_t> keys;
  std::set<uint64_t> numbers;
  size_t streams = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    for (const char* purpose : {"shuffle", "cohort", "init"}) {
      for (const char* client : {"a", "b", "aa", ""}) {
        for (const char* round : {"1", "2", "11"}) {
          RandomStream stream = RandomStream::Derive(seed, {purpose, client, round});
          keys.insert(stream.key());
          for (int i = 0; i < 4; ++i) numbers.insert(stream.NextU64());
          ++streams;
        }
      }
    }
  }
  EXPECT_EQ(keys.size(), streams);
  EXPECT_EQ(numbers.size(), 4 * streams) << "64-bit numbers of 720 streams do not meet by chance";
}

TEST(RandomStreamTest, LabelsOfTheSameLettersInOtherPlacesAreOtherLabels) {
  const auto key = [](std::initializer_list<std::string_view> labels) {
    return RandomStream::Derive(1, labels).key();
  };
  const std::set<uint64_t> keys = {
      key({}),         key({""}),       key({"", ""}),
      key({"ab"}),     key({"a", "b"}), key({"b", "a"}),
      key({"ab", ""}), key({"", "ab"}), key({std::string_view("a\0", 2), "b"})};
  EXPECT_EQ(keys.size(), 9u);
}

TEST(BelowTest, StaysBelowAndReachesBothEnds) {
  RandomStream stream(5);
  for (const uint64_t bound : {uint64_t{1}, uint64_t{2}, uint64_t{3}, uint64_t{7}, uint64_t{64}}) {
    std::set<uint64_t> seen;
    for (int i = 0; i < 2000; ++i) seen.insert(stream.Below(bound));
    EXPECT_EQ(*seen.begin(), 0u) << bound;
    EXPECT_EQ(*seen.rbegin(), bound - 1) << bound;
    EXPECT_EQ(seen.size(), bound);
  }
  for (int i = 0; i < 100; ++i)
    EXPECT_LT(stream.Below((uint64_t{1} << 63) + 1), (uint64_t{1} << 63) + 1);
  EXPECT_EQ(stream.Below(1), 0u);
  EXPECT_THROW((void)stream.Below(0), CheckFailure);
}

// Without the rejection a bound just above 2⁶³ would give its lower half twice as often.
TEST(BelowTest, HasNoModuloBiasWhereItWouldBeLargest) {
  RandomStream stream(9);
  const uint64_t bound = (uint64_t{3} << 62);  // ¾ of 2⁶⁴: modulo would double the first third
  int low = 0;
  constexpr int kDraws = 30000;
  for (int i = 0; i < kDraws; ++i) low += stream.Below(bound) < bound / 3 ? 1 : 0;
  // A third, standard error √(kDraws·⅓·⅔) = 82; five of them.
  EXPECT_NEAR(low, kDraws / 3, 410);
}

TEST(BelowTest, EachFaceOfADieComesAsOften) {
  RandomStream stream(21);
  std::array<int, 6> faces{};
  constexpr int kDraws = 60000;
  for (int i = 0; i < kDraws; ++i) ++faces[stream.Below(6)];
  double chi_square = 0;
  for (const int count : faces) chi_square += std::pow(count - kDraws / 6.0, 2) / (kDraws / 6.0);
  EXPECT_LT(chi_square, 25.7) << "5 degrees of freedom, probability 1e-4";
}

TEST(UniformTest, IsInTheHalfOpenIntervalAndFillsIt) {
  RandomStream stream(2);
  std::array<int, 10> tenths{};
  constexpr int kDraws = 50000;
  for (int i = 0; i < kDraws; ++i) {
    const double x = stream.Uniform();
    ASSERT_GE(x, 0);
    ASSERT_LT(x, 1);
    ++tenths[static_cast<size_t>(x * 10)];
  }
  // Standard error √(kDraws·0.1·0.9) = 67; five of them.
  for (const int count : tenths) EXPECT_NEAR(count, kDraws / 10, 335);
}

TEST(NormalTest, TailsAreThoseOfTheBell) {
  RandomStream stream(8);
  constexpr int kDraws = 100000;
  int beyond_one = 0, beyond_two = 0, positive = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double x = stream.Normal();
    ASSERT_TRUE(std::isfinite(x));
    beyond_one += std::abs(x) > 1 ? 1 : 0;
    beyond_two += std::abs(x) > 2 ? 1 : 0;
    positive += x > 0 ? 1 : 0;
  }
  // 31.73 %, 4.55 %, 50 %; standard errors 147, 66, 158; five of each.
  EXPECT_NEAR(beyond_one, 31731, 736);
  EXPECT_NEAR(beyond_two, 4550, 330);
  EXPECT_NEAR(positive, 50000, 790);
}

TEST(GammaTest, MeanAndVarianceAreTheShapeOnBothSidesOfOne) {
  for (const double shape : {0.1, 0.5, 1.0, 2.5, 20.0}) {
    RandomStream stream = RandomStream::Derive(4, {std::to_string(shape)});
    constexpr int kDraws = 60000;
    double sum = 0, square = 0;
    for (int i = 0; i < kDraws; ++i) {
      const double x = stream.Gamma(shape);
      ASSERT_GE(x, 0);
      sum += x;
      square += x * x;
    }
    const double mean = sum / kDraws;
    // The mean's standard error is √(shape/n); the variance's √((2·shape² + 6·shape)/n). Six each.
    EXPECT_NEAR(mean, shape, 6 * std::sqrt(shape / kDraws)) << shape;
    EXPECT_NEAR(square / kDraws - mean * mean, shape,
                6 * std::sqrt((2 * shape * shape + 6 * shape) / kDraws))
        << shape;
  }
  RandomStream stream(1);
  EXPECT_THROW((void)stream.Gamma(0), CheckFailure);
  EXPECT_THROW((void)stream.Gamma(-1), CheckFailure);
}

TEST(PermutationTest, EveryOrderOfThreeComesAsOften) {
  std::map<std::vector<size_t>, int> orders;
  RandomStream stream(6);
  constexpr int kDraws = 12000;
  for (int i = 0; i < kDraws; ++i) ++orders[stream.Permutation(3)];
  ASSERT_EQ(orders.size(), 6u);
  for (const auto& [order, count] : orders)
    EXPECT_NEAR(count, kDraws / 6, 205);  // five errors of 41
}

TEST(PermutationTest, NothingAndOneThingHaveOneOrder) {
  RandomStream stream(1);
  EXPECT_TRUE(stream.Permutation(0).empty());
  EXPECT_EQ(stream.Permutation(1), std::vector<size_t>{0});
}

}  // namespace
}  // namespace weft
