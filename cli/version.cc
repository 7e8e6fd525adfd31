// `weft version`: what to quote in a bug report.

#include <iostream>
#include <memory>

#include <nlohmann/json.hpp>
#include <torch/version.h>

#include "cli/set_up.h"
#include "common/tensor/torch.h"
#include "common/wire/messages.h"

namespace weft::cli {

Action SetUpVersion(CLI::App& app) {
  const auto json = std::make_shared<bool>(false);
  app.add_flag("--json", *json, "one JSON object");
  return [json] {
    if (*json) {
      std::cout << nlohmann::ordered_json{{"weft", "0.1.0"},
                                          {"protocol", kProtocolVersion},
                                          {"libtorch", TORCH_VERSION},
                                          {"cuda", at::hasCUDA()}}
                       .dump()
                << "\n";
      return OkStatus();
    }
    std::cout << "weft 0.1.0\nprotocol " << kProtocolVersion << "\nlibtorch " << TORCH_VERSION
              << "\n"
              << "cuda " << (at::hasCUDA() ? "yes" : "no") << "\n";
    return OkStatus();
  };
}

}  // namespace weft::cli
