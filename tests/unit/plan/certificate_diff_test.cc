#include "common/plan/certificate_diff.h"

#include <cmath>

#include <gtest/gtest.h>

#include "common/plan/json.h"

namespace weft {
namespace {

Certificate Sample() {
  Certificate certificate;
  certificate.target_norm = 2;
  certificate.error_published = 1e-8;
  certificate.sites = {{.path = "q", .error_published = 0.5, .rank = 4},
                       {.path = "v", .error_published = 0.25, .rank = 4}};
  certificate.client_norms = {{"harbour", 1.5}, {"weaver", 2.5}};
  return certificate;
}

std::vector<CertificateDifference> Compare(const Certificate& a, const Certificate& b,
                                           double tolerance = 1e-9) {
  const auto found = CompareCertificates(ToJson(a), ToJson(b), tolerance);
  EXPECT_TRUE(found.ok()) << found.status();
  return found.ok() ? *found : std::vector<CertificateDifference>{};
}

TEST(CertificateDiffTest, EqualOnesHaveNoDifferenceNotANumberIncluded) {
  Certificate certificate = Sample();
  certificate.tail_energy = std::nan("");
  EXPECT_TRUE(Compare(certificate, certificate, 0).empty());
}

TEST(CertificateDiffTest, EveryKindOfNumberIsNamedWithItsSiteOrClient) {
  Certificate other = Sample();
  other.target_norm = 3;
  other.sites[1].error_published = 0.75;
  other.client_norms[0].second = 9;
  const auto found = Compare(Sample(), other);
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0], (CertificateDifference{"", "target_norm", "2.0", "3.0"}));
  EXPECT_EQ(found[1], (CertificateDifference{"v", "error_published", "0.25", "0.75"}));
  EXPECT_EQ(found[2], (CertificateDifference{"", "client_norms.harbour", "1.5", "9.0"}));
  EXPECT_EQ(Describe(found[1]), "site v: error_published: got 0.25, wanted 0.75");
  EXPECT_EQ(Describe(found[0]), "target_norm: got 2.0, wanted 3.0");
}

TEST(CertificateDiffTest, TheToleranceIsRelativeAlsoForTinyNumbers) {
  Certificate other = Sample();
  other.error_published = 1e-8 * (1 + 1e-10);
  EXPECT_TRUE(Compare(Sample(), other).empty());
  EXPECT_EQ(Compare(Sample(), other, 0).size(), 1u);
  other.error_published = 1e-8 * (1 + 1e-8);
  EXPECT_EQ(Compare(Sample(), other).size(), 1u);
  other.error_published = 0;
  EXPECT_EQ(Compare(Sample(), other).size(), 1u) << "nothing is near zero but zero";
}

TEST(CertificateDiffTest, ASiteOrClientThatOneOfThemLacksDiffers) {
  Certificate fewer = Sample();
  fewer.sites.pop_back();
  fewer.client_norms.pop_back();
  const auto missing = Compare(Sample(), fewer);
  ASSERT_FALSE(missing.empty());
  EXPECT_EQ(missing.front().site, "v");
  EXPECT_EQ(missing.front().b, "none");
  const auto more = Compare(fewer, Sample());
  EXPECT_EQ(more.size(), missing.size());
  EXPECT_EQ(more.back(), (CertificateDifference{"", "client_norms.weaver", "none", "2.5"}));
}

// A ledger of before a field existed says nothing about it, and is not wrong for that.
TEST(CertificateDiffTest, AFieldTheFirstDoesNotKnowIsNoDifference) {
  const auto found = CompareCertificates(R"({"rank":4,"sites":[{"path":"q","rank":4}]})",
                                         R"({"rank":4,"codec_error":0.5,"spectrum":[1,2],
                                             "sites":[{"path":"q","rank":4,"tail":1}]})",
                                         0);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_TRUE(found->empty());
  const auto lists = CompareCertificates(R"({"spectrum":[1,2],"by":{"codec":1}})",
                                         R"({"spectrum":[1,3,4],"by":{"codec":2}})", 0);
  ASSERT_TRUE(lists.ok());
  ASSERT_EQ(lists->size(), 3u);
  EXPECT_EQ(lists->at(0).field, "spectrum[1]");
  EXPECT_EQ(lists->at(1).field, "by.codec");
  EXPECT_EQ(lists->at(2).field, "spectrum[2]");
}

TEST(CertificateDiffTest, WhatIsNoObjectIsAnError) {
  for (const char* text : {"", "[1]", "{", "7"}) {
    EXPECT_EQ(CompareCertificates(text, "{}", 0).status().code(), Code::kInvalidArgument) << text;
    EXPECT_EQ(CompareCertificates("{}", text, 0).status().code(), Code::kInvalidArgument) << text;
  }
}

}  // namespace
}  // namespace weft
