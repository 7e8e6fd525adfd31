// What a user may write for --device and --dtype.

#include "common/tensor/device.h"

#include <gtest/gtest.h>

namespace weft {
namespace {

TEST(DeviceTest, CpuAndAutoAreAlwaysThere) {
  EXPECT_TRUE(ParseDevice("cpu")->is_cpu());
  EXPECT_TRUE(ParseDevice("auto").ok());
}

TEST(DeviceTest, ADeviceThatIsNotThereIsRefusedByItsName) {
  const auto device = ParseDevice("cuda:4711");
  ASSERT_FALSE(device.ok());
  EXPECT_EQ(device.status().code(), Code::kFailedPrecondition);
  EXPECT_NE(device.status().message().find("cuda:4711"), std::string::npos);
}

TEST(DeviceTest, OtherWordsAreRefused) {
  for (const char* text : {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "CPU"}) {
    EXPECT_EQ(ParseDevice(text).status().code(), Code::kInvalidArgument) << text;
  }
}

TEST(DeviceTest, ComputationIsInFloat32OrBfloat16) {
  EXPECT_EQ(*ParseComputeType("float32"), at::kFloat);
  EXPECT_EQ(*ParseComputeType("bfloat16"), at::kBFloat16);
  EXPECT_EQ(ParseComputeType("float16").status().code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace weft
