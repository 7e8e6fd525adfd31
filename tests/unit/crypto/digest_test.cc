#include "common/crypto/digest.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/temp_folder.h"

namespace weft {
namespace {

using ::testing::HasSubstr;

// The vectors of FIPS 180-4's examples and NIST's SHA256LongMsg (one million "a").
TEST(Sha256Test, GivesThePublishedDigests) {
  EXPECT_EQ(Sha256Hex(AsBytes("")),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Hex(AsBytes("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256Hex(AsBytes(std::string(1000000, 'a'))),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256Test, PiecesGiveTheDigestOfTheWhole) {
  const std::string text = "the quick brown fox jumps over the lazy dog, again and again and again";
  for (size_t cut = 0; cut <= text.size(); cut += 7) {
    Sha256 sha;
    sha.Update(AsBytes(text).first(cut));
    sha.Update({});
    sha.Update(AsBytes(text).subspan(cut));
    EXPECT_EQ(sha.FinishHex(), Sha256Hex(AsBytes(text))) << "cut at " << cut;
  }
}

TEST(Sha256Test, StartsAnewAfterFinishing) {
  Sha256 sha;
  sha.Update(AsBytes("one"));
  (void)sha.Finish();
  sha.Update(AsBytes("abc"));
  EXPECT_EQ(sha.FinishHex(), Sha256Hex(AsBytes("abc")));
}

TEST(Sha256Test, AFileHasTheDigestOfItsContent) {
  const testing::TempFolder folder;
  std::string content(3 * 1024 * 1024 + 17, 'x');  // more than one reading block
  content[2 * 1024 * 1024] = 'y';
  const auto digest = Sha256File(folder.Write("file.bin", content));
  ASSERT_TRUE(digest.ok()) << digest.status();
  EXPECT_EQ(digest.value(), Sha256Hex(AsBytes(content)));
}

// The padding of SHA-256 changes form around multiples of 64; file reading around its block.
TEST(Sha256Test, LengthsAroundTheBlockGiveTheDigestOfTheSamePieces) {
  for (const size_t length : {0, 1, 54, 55, 56, 57, 63, 64, 65, 119, 120, 127, 128, 129}) {
    const std::string text(length, 'z');
    Sha256 by_bytes;
    for (const char c : text) by_bytes.Update(AsBytes(std::string_view(&c, 1)));
    EXPECT_EQ(by_bytes.FinishHex(), Sha256Hex(AsBytes(text))) << length;
  }
  // NIST's one-block and two-block messages (FIPS 180-4 examples).
  EXPECT_EQ(Sha256Hex(AsBytes("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

TEST(Sha256Test, FilesOfLengthsAroundTheReadingBlockAreReadWhole) {
  const testing::TempFolder folder;
  constexpr size_t kBlock = size_t{1} << 20;
  for (const size_t length : {size_t{0}, size_t{1}, kBlock - 1, kBlock, kBlock + 1, 2 * kBlock}) {
    const std::string content(length, 'e');
    const auto digest = Sha256File(folder.Write("file.bin", content));
    ASSERT_TRUE(digest.ok()) << digest.status();
    EXPECT_EQ(*digest, Sha256Hex(AsBytes(content))) << length;
  }
}

TEST(Sha256Test, AMovedDigestGoesOnWhereItWas) {
  Sha256 first;
  first.Update(AsBytes("ab"));
  Sha256 second(std::move(first));
  second.Update(AsBytes("c"));
  Sha256 third;
  third.Update(AsBytes("forgotten"));
  third = std::move(second);
  EXPECT_EQ(third.FinishHex(), Sha256Hex(AsBytes("abc")));
}

TEST(Sha256Test, BinaryDigestAndDigitsAreTheSame) {
  const Sha256Digest digest = Sha256Of(AsBytes("abc"));
  EXPECT_EQ(digest[0], std::byte{0xBA});
  EXPECT_EQ(digest[31], std::byte{0xAD});
  EXPECT_EQ(Hex(digest), Sha256Hex(AsBytes("abc")));
}

TEST(Sha256Test, AMissingFileAndAFolderAreNamed) {
  const auto missing = Sha256File("no/such/file.bin");
  EXPECT_EQ(missing.status().code(), Code::kNotFound);
  EXPECT_THAT(missing.status().message(), HasSubstr("no/such/file.bin"));
  const testing::TempFolder folder;
  const auto digest = Sha256File(folder.path());
  EXPECT_EQ(digest.status().code(), Code::kDataLoss) << digest.status();
}

}  // namespace
}  // namespace weft
