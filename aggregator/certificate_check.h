#pragma once
// Merges a kept round again, by the code that merged it, and compares every bit and number with
// what the ledger says was published. What `weft runs verify` hands to VerifyRun.

#include "common/base/status.h"
#include "common/runtime/kept_rounds.h"
#include "common/runtime/store.h"

namespace weft {

/// Relative; what the same kernels compute is equal to the last bit.
inline constexpr double kCertificateTolerance = 1e-9;

/// Cuts what each client was sent, measures and admits its update again, merges them, and compares:
/// digests of what was sent, of the state and of the adapter, and every number of the certificate.
/// kDataLoss names site, field, got (the ledger) and wanted (recomputed), and says so where torch,
/// CPU kernels or thread count are not those of the merge. Torch is set to the round's number of
/// threads meanwhile; call it on one thread.
[[nodiscard]] Status CheckKeptRound(const KeptRound& round, const BlobSource& blobs);

}  // namespace weft
