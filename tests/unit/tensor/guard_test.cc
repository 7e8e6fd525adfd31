// What LibTorch and the allocator throw comes out as the Status a caller can branch on.

#include "common/tensor/guard.h"

#include <new>

#include <gtest/gtest.h>

#include "common/base/check.h"
#include "common/tensor/torch.h"

namespace weft {
namespace {

TEST(GuardTest, AResultPassesThrough) {
  const Result<int> result = Guarded("[t]", []() -> Result<int> { return 7; });
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(*result, 7);
}

TEST(GuardTest, AShapeErrorOfTorchIsInternalAndNamesThePlace) {
  const Status status = Guarded("[trainer] client c1", [] {
    (void)at::mm(at::zeros({2, 3}), at::zeros({4, 5}));
    return OkStatus();
  });
  EXPECT_EQ(status.code(), Code::kInternal);
  EXPECT_EQ(status.message().rfind("[trainer] client c1 ", 0), 0u) << status;
  EXPECT_EQ(status.message().find('\n'), std::string::npos) << status;
}

TEST(GuardTest, AnAllocationThatCannotFitIsResourceExhausted) {
  const Result<at::Tensor> result = Guarded(
      "[t]", []() -> Result<at::Tensor> { return at::empty({int64_t{1} << 50}, at::kFloat); });
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), Code::kResourceExhausted) << result.status();
}

TEST(GuardTest, BadAllocIsResourceExhausted) {
  const Status status = Guarded("[t]", []() -> Status { throw std::bad_alloc(); });
  EXPECT_EQ(status.code(), Code::kResourceExhausted);
}

TEST(GuardTest, OurOwnBugsAreNotHidden) {
  EXPECT_THROW((void)Guarded("[t]",
                             [] {
                               WEFT_CHECK(1 == 2);
                               return OkStatus();
                             }),
               CheckFailure);
}

}  // namespace
}  // namespace weft
