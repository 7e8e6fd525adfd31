#pragma once
// --method and --option name=value: which adapter method a command trains, and the method's own
// options (docs/methods.md), as [adapter] method and options say in a run file.

#include <span>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "common/adapters/adapter_state.h"
#include "common/base/result.h"

namespace weft::cli {

void AddMethodOptions(CLI::App& app, std::string& method, std::vector<std::string>& options);

/// A fresh adapter of a command, as a site gets one in a run's first round.
struct FreshAdapter {
  AdapterState state;
  std::vector<LinearSite> sites;    // those it sits on
  std::vector<std::string> capped;  // of which the rank is capped by the layer's sides
};

/// Of the spec with these options ("k=64" or "nola.k=64" of method nola) on the layers that it
/// chooses among `all`. kInvalidArgument for an option without a name or "=", or a spec that its
/// method cannot use.
[[nodiscard]] Result<FreshAdapter> MakeFreshAdapter(AdapterSpec spec,
                                                    const std::vector<std::string>& options,
                                                    std::span<const LinearSite> all, uint64_t seed);

}  // namespace weft::cli
