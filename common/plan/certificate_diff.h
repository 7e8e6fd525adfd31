#pragma once
// Compares two certificates number by number, as the ledger's JSON has them: fields that a later
// version adds are compared without a line here.

#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"

namespace weft {

struct CertificateDifference {
  std::string site;   // its path; empty: of the whole round
  std::string field;  // "error_published", "client_norms.harbour", "spectrum[3]"
  std::string a;      // JSON text; "none" where it is missing
  std::string b;

  friend bool operator==(const CertificateDifference&, const CertificateDifference&) = default;
};

/// What differs, in the order of `a` and then of what only `b` has. Numbers are equal within
/// `tolerance` times the larger of the two. A field that `a` has nowhere (an older version wrote
/// it) is no difference. kInvalidArgument for text that is no JSON object.
[[nodiscard]] Result<std::vector<CertificateDifference>> CompareCertificates(std::string_view a,
                                                                             std::string_view b,
                                                                             double tolerance);

/// "site layers.0.q_proj: error_published: got 1, wanted 2", with a as got.
[[nodiscard]] std::string Describe(const CertificateDifference& difference);

}  // namespace weft
