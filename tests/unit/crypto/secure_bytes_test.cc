#include "common/crypto/secure_bytes.h"

#include <array>
#include <cstddef>
#include <new>
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

}  // namespace
}  // namespace weft
