#pragma once
// Peers that connect and never authenticate, for `weft bench load`: every other one says nothing,
// the rest half of a greeting. Function of a child process.

#include <cstddef>

#include "cli/bench_federation.h"

namespace weft::cli {

/// Reads the endpoint, then lines: "open" keeps `count` connections open, each opened again when
/// the server ends it; "close" ends them and is answered with how many were opened since. Returns
/// when there are no more lines.
[[nodiscard]] Status RunSilentConnections(size_t count, const Pipes& pipes);

}  // namespace weft::cli
