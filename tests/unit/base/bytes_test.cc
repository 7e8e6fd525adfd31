// Blob's promise: bytes stay where they are and alive for as long as anybody holds them.

#include "common/base/bytes.h"

#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "common/base/check.h"
#include "common/base/random.h"

namespace weft {
namespace {

std::vector<std::byte> Counting(size_t count) {
  std::vector<std::byte> bytes(count);
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::byte>(i);
  return bytes;
}

// A string of up to 15 bytes keeps them inside itself: a Blob that took their address before the
// move would point into the caller's dead string.
TEST(BlobTest, AdoptedTextOfEveryLengthSurvivesItsSource) {
  for (size_t length = 0; length < 40; ++length) {
    const std::string wanted(length, static_cast<char>('a' + length % 26));
    auto source = std::make_unique<std::string>(wanted);
    const Blob blob = Blob::Adopt(std::move(*source));
    source.reset();
    EXPECT_EQ(blob.view(), wanted);
    EXPECT_EQ(blob.empty(), length == 0);
  }
}

TEST(BlobTest, AdoptingAVectorCopiesNothing) {
  std::vector<std::byte> bytes = Counting(1000);
  const std::byte* const where = bytes.data();
  const Blob blob = Blob::Adopt(std::move(bytes));
  EXPECT_EQ(blob.data(), where);
  EXPECT_EQ(blob.size(), 1000u);
}

TEST(BlobTest, ACopyDoesNotFollowItsSource) {
  std::vector<std::byte> bytes = Counting(8);
  const Blob blob = Blob::Copy(bytes);
  bytes.assign(8, std::byte{0xFF});
  EXPECT_EQ(blob.data()[3], std::byte{3});
  std::string text = "federation";
  const Blob of_text = Blob::Copy(std::string_view(text));
  text.assign("xxxxxxxxxx");
  EXPECT_EQ(of_text.view(), "federation");
}

TEST(BlobTest, TheOwnerLivesAsLongAsTheLastSlice) {
  auto owner = std::make_shared<std::vector<std::byte>>(Counting(64));
  const std::weak_ptr<std::vector<std::byte>> watch = owner;
  const ByteSpan span(owner->data(), owner->size());
  Blob slice;
  {
    const Blob whole = Blob::Share(span, std::move(owner));
    slice = whole.Slice(16, 8).Slice(2, 4);
  }
  ASSERT_FALSE(watch.expired());
  EXPECT_EQ(slice.data()[0], std::byte{18});
  slice = Blob();
  EXPECT_TRUE(watch.expired()) << "nobody holds the bytes any more";
}

TEST(BlobTest, CopiesOfABlobShareItsBytes) {
  const Blob a = Blob::Adopt(Counting(100));
  const Blob b = a;  // NOLINT(performance-unnecessary-copy-initialization): the copy is the test
  EXPECT_EQ(a.data(), b.data());
  EXPECT_EQ(a.owner(), b.owner());
}

TEST(BlobTest, SharingOnWithSpanAndOwnerKeepsTheBytesAlive) {
  Blob outer;
  {
    const Blob inner = Blob::Adopt(Counting(32));
    outer = Blob::Share(inner.span().subspan(4, 4), inner.owner());
  }
  EXPECT_EQ(outer.data()[0], std::byte{4});
}

TEST(BlobTest, AnEmptyBlobBehavesLikeAnyOther) {
  const Blob none;
  EXPECT_TRUE(none.empty());
  EXPECT_EQ(none.view(), "");
  EXPECT_EQ(none.Slice(0, 0).size(), 0u);
  EXPECT_THROW((void)none.Slice(0, 1), CheckFailure);
  EXPECT_EQ(Blob::Copy(std::string_view()).size(), 0u);
  EXPECT_EQ(Blob::Adopt(std::vector<std::byte>()).size(), 0u);
}

TEST(BlobTest, SlicesMayTouchTheEndButNotPassIt) {
  const Blob blob = Blob::Adopt(Counting(10));
  EXPECT_EQ(blob.Slice(10, 0).size(), 0u);
  EXPECT_EQ(blob.Slice(0, 10).size(), 10u);
  EXPECT_THROW((void)blob.Slice(11, 0), CheckFailure);
  EXPECT_THROW((void)blob.Slice(10, 1), CheckFailure);
  // offset + length wraps round to something small.
  EXPECT_THROW((void)blob.Slice(5, ~size_t{0} - 2), CheckFailure);
  EXPECT_THROW((void)blob.Slice(~size_t{0}, 2), CheckFailure);
}

TEST(BlobTest, SlicesOfSlicesAgreeWithSubstrings) {
  RandomStream random(5);
  const std::string text = "The quick brown fox jumps over the lazy dog and starts again.";
  for (int turn = 0; turn < 500; ++turn) {
    Blob blob = Blob::Copy(std::string_view(text));
    std::string_view wanted = text;
    for (int cut = 0; cut < 4; ++cut) {
      const size_t offset = random.Below(wanted.size() + 1);
      const size_t length = random.Below(wanted.size() - offset + 1);
      blob = blob.Slice(offset, length);
      wanted = wanted.substr(offset, length);
      ASSERT_EQ(blob.view(), wanted);
    }
  }
}

TEST(BytesTest, EveryByteHasItsTwoDigits) {
  const std::string hex = Hex(Counting(256));
  ASSERT_EQ(hex.size(), 512u);
  for (size_t i = 0; i < 256; ++i) {
    EXPECT_EQ(std::stoul(hex.substr(2 * i, 2), nullptr, 16), i);
  }
  EXPECT_EQ(hex.find_first_not_of("0123456789abcdef"), std::string::npos) << "lower case";
  EXPECT_EQ(Hex({}), "");
  EXPECT_EQ(Hex(AsBytes("\x0F\xF0")), "0ff0") << "a leading zero is a digit, too";
}

TEST(BytesTest, TextAndBytesAreViewsOfEachOther) {
  const std::string text("a\0b\xFF", 4);
  EXPECT_EQ(AsText(AsBytes(text)), text);
  EXPECT_EQ(AsText(AsBytes(text)).data(), text.data());
  EXPECT_EQ(AsBytes(text).size(), 4u);
  EXPECT_EQ(AsText({}), "");
}

}  // namespace
}  // namespace weft
