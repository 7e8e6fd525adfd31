// golden/federation as a whole. Each method's own test looks at the tensors of its prefix and ends
// with ExpectAllUsed(prefix): this one sees to it that every tensor has such a prefix, and that the
// weights which all share are weights.

#include <gtest/gtest.h>

#include "common/base/str.h"
#include "tests/parity/methods/golden_set.h"

namespace weft::testing {
namespace {

const std::vector<std::string> kPrefixes = {"kasa.", "msp.", "nola.", "rose."};

TEST(FederationParity, EveryTensorBelongsToAMethodThatIsTested) {
  GoldenSet golden("federation/exact_merge.safetensors");
  const std::vector<double> p = golden.Numbers("p");
  double sum = 0;
  for (const double weight : p) {
    EXPECT_GE(weight, 0);
    sum += weight;
  }
  EXPECT_NEAR(sum, 1, 1e-12);
  for (const std::string& prefix : kPrefixes) {
    EXPECT_EQ(golden.Count(prefix + "client"), static_cast<int64_t>(p.size())) << prefix;
    for (const std::string& name : golden.Names(prefix)) golden.Use(name);
  }
  golden.ExpectAllUsed();
}

}  // namespace
}  // namespace weft::testing
