#include "common/base/result.h"

#include <gtest/gtest.h>

#include "common/base/bytes.h"

namespace weft {
namespace {

Result<int> Half(int x) {
  if (x % 2 != 0) return InvalidArgument(Str("[half] got ", x, ", wanted an even number"));
  return x / 2;
}

Result<int> Quarter(int x) {
  WEFT_TRY_ASSIGN(const int half, Half(x));
  return Half(half);
}

TEST(ResultTest, TryPassesTheFirstFailureOn) {
  EXPECT_EQ(*Quarter(8), 2);
  EXPECT_EQ(Quarter(6).status().message(), "[half] got 3, wanted an even number");
}

TEST(ResultTest, TakingTheValueOfAFailureIsABug) {
  EXPECT_THROW((void)Half(3).value(), CheckFailure);
  EXPECT_THROW(Result<int>{OkStatus()}, CheckFailure);
}

TEST(StatusTest, EveryCodeHasANameThatReadsBack) {
  for (int i = 0; i <= static_cast<int>(Code::kInternal); ++i) {
    const auto code = static_cast<Code>(i);
    EXPECT_EQ(CodeFromName(CodeName(code)), code);
  }
  EXPECT_EQ(CodeFromName("from-the-future"), Code::kInternal);
}

TEST(BlobTest, SlicesShareAndStayInside) {
  const Blob blob = Blob::Copy(std::string_view("federation"));
  EXPECT_EQ(blob.Slice(3, 3).view(), "era");
  EXPECT_EQ(blob.Slice(3, 3).data(), blob.data() + 3);
  EXPECT_THROW((void)blob.Slice(8, 3), CheckFailure);
  EXPECT_EQ(Hex(blob.Slice(0, 2).span()), "6665");
}

}  // namespace
}  // namespace weft
