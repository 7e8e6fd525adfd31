// GoldenSet itself: what it enumerates, and that nothing missing, odd or unused slips through.

#include "tests/parity/methods/golden_set.h"

#include <cmath>

#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>

#include "common/formats/safetensors_writer.h"
#include "common/tensor/dtype_map.h"
#include "tests/support/temp_folder.h"

namespace weft::testing {
namespace {

class GoldenSetTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Add("wide.client0.A", at::arange(6, at::kDouble).view({2, 3}));
    Add("wide.client1.A", at::arange(3, at::kFloat).view({1, 3}));
    Add("wide.ranks", at::tensor(std::vector<int64_t>{2, 1}));
    Add("tall.client0.A", at::zeros({2, 3}, at::kDouble));
    Add("tall.ranks", at::tensor(std::vector<int64_t>{2}));
    Add("p", at::tensor(std::vector<double>{0.25, 0.75}, at::kDouble));
    std::vector<TensorToWrite> all;
    for (const auto& [name, tensor] : tensors_) {
      all.push_back(
          {name, *FromTorch(tensor.scalar_type()), tensor.sizes().vec(), BytesOf(tensor)});
    }
    ASSERT_TRUE(WriteSafetensors(Path(), all).ok());
  }

  std::filesystem::path Path() const { return folder_.path() / "set.safetensors"; }

 private:
  void Add(const std::string& name, const at::Tensor& tensor) {
    tensors_.emplace_back(name, tensor.contiguous());
  }

  TempFolder folder_;
  std::vector<std::pair<std::string, at::Tensor>> tensors_;
};

using Strings = std::vector<std::string>;

TEST_F(GoldenSetTest, CasesClientsAndPartsAreReadFromTheNames) {
  const GoldenSet golden(Path());
  EXPECT_EQ(golden.Cases("ranks"), (Strings{"tall.", "wide."}));
  EXPECT_EQ(golden.Cases("p"), Strings{""});
  EXPECT_EQ(golden.Count("wide.client"), 2);
  EXPECT_EQ(golden.Count("tall.client"), 1);
  EXPECT_EQ(golden.Between("wide.", ".A"), (Strings{"client0", "client1"}));
  EXPECT_EQ(golden.Names("tall."), (Strings{"tall.client0.A", "tall.ranks"}));
  EXPECT_THROW(static_cast<void>(golden.Cases("labels")), GoldenError);
  EXPECT_THROW(static_cast<void>(golden.Count("wide.layer")), GoldenError);
}

TEST_F(GoldenSetTest, MissingFilesTensorsAndOtherShapesAreErrors) {
  EXPECT_THROW(GoldenSet("nowhere/absent.safetensors"), GoldenError);
  GoldenSet golden(Path());
  EXPECT_THROW(static_cast<void>(golden.Get("wide.client2.A")), GoldenError);
  EXPECT_THROW(static_cast<void>(golden.Doubles("wide.client0.A", {3, 2})), GoldenError);
  EXPECT_THROW(static_cast<void>(golden.Doubles("wide.client0.A", {2})), GoldenError);
  EXPECT_THROW(static_cast<void>(golden.Integers("p")), GoldenError);
  EXPECT_THROW(static_cast<void>(golden.Number("p")), GoldenError);
  EXPECT_EQ(golden.Doubles("wide.client0.A", {2, -1}).sum().item<double>(), 15);
  EXPECT_EQ(golden.Integers("wide.ranks"), (std::vector<int64_t>{2, 1}));
}

TEST_F(GoldenSetTest, OtherValuesShapesAndNanDoNotPass) {
  GoldenSet golden(Path());
  const at::Tensor wanted = golden.Doubles("wide.client0.A");
  golden.ExpectClose("wide.client0.A", wanted + 4e-10, 1e-10);  // the largest is 5
  EXPECT_NONFATAL_FAILURE(golden.ExpectClose("wide.client0.A", wanted + 6e-10, 1e-10), "differs");
  EXPECT_NONFATAL_FAILURE(golden.ExpectClose("wide.client0.A", wanted.t(), 1e-10), "got [3×2]");
  EXPECT_NONFATAL_FAILURE(golden.ExpectClose("wide.client0.A", wanted * std::nan(""), 1e-10),
                          "differs");
  EXPECT_NONFATAL_FAILURE(golden.ExpectEqual("wide.client0.A", wanted + 1e-15), "differs");
  golden.ExpectClose("tall.client0.A", at::full({2, 3}, 1e-11, at::kDouble), 1e-10);
  EXPECT_NONFATAL_FAILURE(
      golden.ExpectClose("tall.client0.A", at::full({2, 3}, 1e-9, at::kDouble), 1e-10), "differs");
}

TEST_F(GoldenSetTest, EveryTensorThatWasNotUsedIsNamed) {
  GoldenSet golden(Path());
  golden.Use("tall.ranks");
  EXPECT_NONFATAL_FAILURE(golden.ExpectAllUsed("tall."), "tall.client0.A was not used");
  golden.Use("tall.client0.A");
  golden.ExpectAllUsed("tall.");
}

}  // namespace
}  // namespace weft::testing
