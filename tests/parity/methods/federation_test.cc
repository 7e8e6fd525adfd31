// golden/federation as a whole. Each method has a test FederationParity.<Method>… in its own file,
// which looks at the tensors of its prefix and ends with ExpectAllUsed(prefix). Here: that every
// tensor has such a prefix and every prefix such a test, and that the weights which all share are
// weights.

#include <gtest/gtest.h>

#include "common/base/str.h"
#include "tests/parity/methods/golden_set.h"

namespace weft::testing {
namespace {

struct Prefix {
  std::string name;
  std::string method;  // as names of tests begin
};
const std::vector<Prefix> kPrefixes = {
    {"kasa.", "Kasa"}, {"msp.", "Msplora"}, {"nola.", "Nola"}, {"rose.", "Roselora"}};

bool HasTest(const std::string& method) {
  const ::testing::UnitTest& program = *::testing::UnitTest::GetInstance();
  for (int i = 0; i < program.total_test_suite_count(); ++i) {
    const ::testing::TestSuite& suite = *program.GetTestSuite(i);
    if (std::string_view(suite.name()) != "FederationParity") continue;
    for (int j = 0; j < suite.total_test_count(); ++j) {
      if (std::string_view(suite.GetTestInfo(j)->name()).starts_with(method)) return true;
    }
  }
  return false;
}

TEST(FederationParity, EveryTensorBelongsToAMethodThatIsTested) {
  GoldenSet golden("federation/exact_merge.safetensors");
  const std::vector<double> p = golden.Numbers("p");
  double sum = 0;
  for (const double weight : p) {
    EXPECT_GE(weight, 0);
    sum += weight;
  }
  EXPECT_NEAR(sum, 1, 1e-12);
  for (const Prefix& prefix : kPrefixes) {
    EXPECT_EQ(golden.Count(prefix.name + "client"), static_cast<int64_t>(p.size())) << prefix.name;
    for (const std::string& name : golden.Names(prefix.name)) golden.Use(name);
    EXPECT_TRUE(HasTest(prefix.method)) << prefix.name << ": no FederationParity." << prefix.method;
  }
  golden.ExpectAllUsed();
}

}  // namespace
}  // namespace weft::testing
