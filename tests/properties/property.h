#pragma once
// CheckProperty: a property of random cases (rapidcheck) as a part of a GoogleTest. The seed is
// fixed, so that every run sees the same cases; RC_PARAMS="seed=7 max_success=100000" asks for
// others. A case that fails is shrunk and printed.

#include <cstdlib>
#include <iostream>
#include <sstream>
#include <string>
#include <utility>

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "common/tensor/torch.h"

namespace weft::testing {

inline constexpr int kCases = 1000;
inline constexpr int kManyCases = 5000;  // of properties that draw a strategy for each case
inline constexpr uint64_t kSeed = 20240607;

template <typename Property>
void CheckProperty(Property&& property, int cases = kCases) {
  at::set_num_threads(1);  // of matrices this small threads would only wait for one another
  const ::testing::TestInfo* const test = ::testing::UnitTest::GetInstance()->current_test_info();
  rc::detail::TestMetadata metadata;
  metadata.id = std::string(test->test_suite_name()) + "." + test->name();
  metadata.description = metadata.id;
  rc::detail::TestParams params = rc::detail::configuration().testParams;
  if (std::getenv("RC_PARAMS") == nullptr) {
    params.seed = kSeed;
    params.maxSuccess = cases;
  }
  const rc::detail::TestResult result =
      rc::detail::checkTestable(std::forward<Property>(property), metadata, params);
  std::ostringstream text;
  rc::detail::printResultMessage(result, text);
  EXPECT_TRUE(result.template is<rc::detail::SuccessResult>()) << text.str();
  std::cout << text.str() << "\n";  // how many cases, and of which kinds
}

/// A whole number of [low, high], small ones first.
inline int64_t Draw(const std::string& what, int64_t low, int64_t high) {
  return *rc::gen::inRange<int64_t>(low, high + 1).as(what);
}

}  // namespace weft::testing
