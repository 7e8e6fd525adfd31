// `weft version`: what to quote in a bug report.

#include <iostream>

#include <torch/version.h>

#include "cli/set_up.h"
#include "common/tensor/torch.h"
#include "common/wire/messages.h"

namespace weft::cli {

Action SetUpVersion(CLI::App&) {
  return [] {
    std::cout << "weft 0.1.0\nprotocol " << kProtocolVersion << "\nlibtorch " << TORCH_VERSION
              << "\n"
              << "cuda " << (at::hasCUDA() ? "yes" : "no") << "\n";
    return OkStatus();
  };
}

}  // namespace weft::cli
