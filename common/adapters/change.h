#pragma once
// change: ΔW = B·A beside the global adapter, which lies frozen. What a relay ships, whatever its
// members train: the sum of many changes, of any rank up to a layer's smaller side. A client may
// train it too; it starts from zero every round. The spec's alpha and patterns are the run's and
// mean nothing to it.

#include <string>

#include "common/adapters/adapter.h"

namespace weft {

inline constexpr char kChangeMethod[] = "change";

[[nodiscard]] const Adapter* ChangeAdapter();

/// What a relay is told beside the rank of its change, as options of the spec.
struct RelayTerms {
  int64_t global_rank = 0;             // of the run's global adapter, which its members get cuts of
  int64_t members = 0;                 // whom it relays for
  std::string weighting = "examples";  // of their changes: "examples" or "tokens"
};

/// The change of that rank in a global adapter of this spec.
[[nodiscard]] AdapterSpec ChangeSpec(const AdapterSpec& global, int64_t rank,
                                     const std::string& weighting, int64_t members);

/// What such a spec says; kInvalidArgument naming the option.
[[nodiscard]] Result<RelayTerms> TermsOf(const AdapterSpec& change);

/// Clients that an update of this spec is made of: 1 but for a relay's.
[[nodiscard]] Result<uint64_t> MembersOf(const AdapterSpec& spec);

}  // namespace weft
