#include "common/crypto/secure_bytes.h"

#include <array>
#include <cstddef>
#include <set>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "common/crypto/checksum.h"

namespace weft {
namespace {

// Values from xxHash's own sanity checks for XXH3_64bits with seed 0.
TEST(ChecksumTest, GivesThePublishedValues) { EXPECT_EQ(Xxh3({}), 0x2D06800538D394C2u); }

TEST(ChecksumTest, OneFlippedBitAnywhereChangesIt) {
  std::string chunk(1000, 'q');
  const uint64_t intact = Xxh3(AsBytes(chunk));
  for (size_t bit = 0; bit < chunk.size() * 8; bit += 13) {
    const char mask = static_cast<char>(1 << (bit % 8));
    chunk[bit / 8] = static_cast<char>(chunk[bit / 8] ^ mask);
    EXPECT_NE(Xxh3(AsBytes(chunk)), intact) << "bit " << bit;
    chunk[bit / 8] = static_cast<char>(chunk[bit / 8] ^ mask);
  }
  EXPECT_EQ(Xxh3(AsBytes(chunk)), intact);
}

TEST(SecureBytesTest, MovingLeavesTheSourceEmpty) {
  SecureBytes a(AsBytes("secret"));
  SecureBytes b(std::move(a));
  EXPECT_TRUE(a.empty());  // NOLINT(bugprone-use-after-move): the contract under test
  EXPECT_EQ(b.view(), "secret");
  SecureBytes c(AsBytes("other"));
  c = std::move(b);
  EXPECT_TRUE(b.empty());  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(c.view(), "secret");
}

TEST(SecureBytesTest, ClearLetsGoAndANewOneIsZero) {
  SecureBytes a(AsBytes("secret"));
  a.Clear();
  EXPECT_TRUE(a.empty());
  const SecureBytes zeros(4);
  EXPECT_EQ(zeros.view(), std::string_view("\0\0\0\0", 4));
}

TEST(SecureBytesTest, WipingOverwritesEveryByte) {
  std::array<std::byte, 33> bytes;
  bytes.fill(std::byte{0xA5});
  WipeBytes(bytes);
  for (const std::byte byte : bytes) EXPECT_EQ(byte, std::byte{0});
}

TEST(SecureBytesTest, ComparesContentAndLength) {
  EXPECT_TRUE(EqualInConstantTime(AsBytes("abc"), AsBytes("abc")));
  EXPECT_FALSE(EqualInConstantTime(AsBytes("abc"), AsBytes("abd")));
  EXPECT_FALSE(EqualInConstantTime(AsBytes("abc"), AsBytes("ab")));
  EXPECT_TRUE(EqualInConstantTime({}, {}));
}

TEST(SecureBytesTest, MovingOntoItselfLosesNothing) {
  SecureBytes a(AsBytes("secret"));
  SecureBytes& same = a;
  a = std::move(same);
  EXPECT_EQ(a.view(), "secret");
}

TEST(SecureBytesTest, ItsBytesCanBeWrittenInPlaceAndNothingIsAlwaysEmpty) {
  SecureBytes a(3);
  a.span()[1] = std::byte{'x'};
  EXPECT_EQ(a.view(), std::string_view("\0x\0", 3));
  EXPECT_TRUE(SecureBytes().empty());
  EXPECT_EQ(SecureBytes(size_t{0}).view(), "");
  EXPECT_EQ(SecureBytes(ByteSpan()).size(), 0u);
}

TEST(ChecksumTest, ItDependsOnTheLengthOfZerosAndOnTheirOrder) {
  std::set<uint64_t> seen;
  for (size_t length = 0; length < 300; ++length) {
    seen.insert(Xxh3(AsBytes(std::string(length, '\0'))));
  }
  EXPECT_EQ(seen.size(), 300u);
  EXPECT_NE(Xxh3(AsBytes("ab")), Xxh3(AsBytes("ba")));
}

TEST(ChecksumTest, BytesThatAreNotAlignedGiveTheSame) {
  const std::string text(5000, 'k');
  for (size_t shift = 1; shift < 9; ++shift) {
    const std::string moved = std::string(shift, '?') + text;
    EXPECT_EQ(Xxh3(AsBytes(moved).subspan(shift)), Xxh3(AsBytes(text))) << shift;
  }
}

}  // namespace
}  // namespace weft
