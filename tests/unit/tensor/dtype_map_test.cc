// Tensors over stored bytes: which share memory, which are copied, and who keeps what alive.

#include "common/tensor/dtype_map.h"

#include <cstring>

#include <gtest/gtest.h>

#include "common/base/check.h"

namespace weft {
namespace {

Blob Floats(const std::vector<float>& values) {
  return Blob::Copy(
      ByteSpan(reinterpret_cast<const std::byte*>(values.data()), values.size() * sizeof(float)));
}

TEST(DTypeMapTest, EveryTypeGoesToTorchAndBackWithItsSize) {
  for (const auto& info : kDTypes) {
    const at::ScalarType type = ToTorch(info.dtype);
    EXPECT_EQ(FromTorch(type), info.dtype) << info.name;
    EXPECT_EQ(c10::elementSize(type), DTypeBytes(info.dtype)) << info.name;
    EXPECT_EQ(c10::isFloatingType(type), IsFloating(info.dtype)) << info.name;
  }
}

TEST(DTypeMapTest, TypesThatFilesDoNotCarryHaveNone) {
  for (const at::ScalarType type : {at::kComplexFloat, at::kQInt8, at::ScalarType::Undefined}) {
    EXPECT_FALSE(FromTorch(type).has_value()) << c10::toString(type);
  }
}

TEST(TensorOverTest, AlignedBytesAreSharedAndKeptAlive) {
  at::Tensor tensor;
  const std::byte* data = nullptr;
  {
    const Blob bytes = Floats({1, 2, 3, 4, 5, 6});
    data = bytes.data();
    tensor = TensorOver(bytes, DType::kFloat32, std::vector<int64_t>{2, 3});
  }
  EXPECT_EQ(tensor.const_data_ptr(), static_cast<const void*>(data));
  EXPECT_TRUE(at::equal(tensor, at::tensor({1.F, 2.F, 3.F, 4.F, 5.F, 6.F}).view({2, 3})));
}

TEST(TensorOverTest, BytesThatAreNotAlignedAreCopied) {
  const Blob floats = Floats({1, 2, 3});
  for (size_t offset = 1; offset < 4; ++offset) {
    std::string padded(offset, 'x');
    padded += floats.view();
    const Blob odd = Blob::Adopt(std::move(padded)).Slice(offset, 12);
    const at::Tensor tensor = TensorOver(odd, DType::kFloat32, std::vector<int64_t>{3});
    EXPECT_TRUE(at::equal(tensor, at::tensor({1.F, 2.F, 3.F}))) << offset;
  }
}

TEST(TensorOverTest, EmptyTensorsHaveTheirShape) {
  const at::Tensor tensor = TensorOver(Blob(), DType::kBFloat16, std::vector<int64_t>{0, 7});
  EXPECT_EQ(tensor.sizes(), at::IntArrayRef({0, 7}));
  EXPECT_EQ(tensor.scalar_type(), at::kBFloat16);
}

TEST(TensorOverTest, BytesThatDoNotFitTheShapeAreABug) {
  const Blob bytes = Floats({1, 2, 3});
  EXPECT_THROW((void)TensorOver(bytes, DType::kFloat32, std::vector<int64_t>{4}), CheckFailure);
  EXPECT_THROW((void)TensorOver(bytes, DType::kFloat64, std::vector<int64_t>{3}), CheckFailure);
}

TEST(BytesOfTest, TheyAreTheTensorsOwnAndGoBackIntoTheSameTensor) {
  const at::Tensor tensor = at::arange(12, at::kLong).view({3, 4});
  const ByteSpan bytes = BytesOf(tensor);
  EXPECT_EQ(static_cast<const void*>(bytes.data()), tensor.const_data_ptr());
  ASSERT_EQ(bytes.size(), 96u);
  const at::Tensor back = TensorOver(Blob::Copy(bytes), DType::kInt64, std::vector<int64_t>{3, 4});
  EXPECT_TRUE(at::equal(back, tensor));
  // A slice's bytes begin where the slice does.
  EXPECT_EQ(BytesOf(tensor[1]).data(), bytes.data() + 32);
}

TEST(BytesOfTest, ATensorWithGapsIsABug) {
  const at::Tensor tensor = at::ones({3, 4});
  EXPECT_THROW((void)BytesOf(tensor.t()), CheckFailure);
  EXPECT_THROW((void)BytesOf(tensor.narrow(1, 0, 2)), CheckFailure);
}

}  // namespace
}  // namespace weft
