// `weft bench count`: numbers that a method trains and bytes that a client ships, from a model's
// configuration alone: no weights are read and nothing is trained.

#include <iostream>
#include <memory>

#include <nlohmann/json.hpp>

#include "cli/method_options.h"
#include "cli/set_up.h"
#include "cli/whole_number.h"
#include "common/adapters/adapter.h"
#include "common/adapters/method_spec.h"
#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/codec/adapter_block.h"
#include "common/codec/codec.h"
#include "common/formats/model_config.h"
#include "common/formats/model_layout.h"
#include "common/tensor/guard.h"

namespace weft::cli {
namespace {

struct CountOptions {
  std::string model;
  AdapterSpec spec;
  std::vector<std::string> method_options;
  std::vector<std::string> codecs = {"float32"};
  bool json = false;
};

// Bytes of a client's update in that codec. Numbers that are not zero, so that nothing is packed as
// sparse; where the method itself prunes, what it ships depends on its keep rate (bench/README.md).
Result<uint64_t> UpdateBytes(const AdapterState& state, const std::string& codec_name) {
  WEFT_TRY_ASSIGN(const Codec* codec, FindCodec(codec_name));
  AdapterBundle bundle;
  bundle.adapter = state;
  MapTensors(bundle.adapter->sites,
             [](const NamedTensor& tensor) { return at::ones_like(tensor.value); });
  WEFT_TRY_ASSIGN(const Blob bytes, EncodeBundle(bundle, *codec));
  return bytes.size();
}

Result<nlohmann::json> Count(CountOptions options) {
  WEFT_TRY_ASSIGN(const ModelConfig config, ReadModelConfig(options.model));
  AdapterSpec& spec = options.spec;
  spec.alpha = 2.0 * static_cast<double>(spec.rank);
  WEFT_TRY_ASSIGN(const FreshAdapter fresh,
                  MakeFreshAdapter(spec, options.method_options, LinearSites(config), /*seed=*/1));
  const AdapterState& state = fresh.state;
  const uint64_t lora = PlainLoraBytes(state.spec, fresh.sites) / sizeof(float);
  nlohmann::json json = {
      {"method", spec.method},
      {"rank", spec.rank},
      {"layers", fresh.sites.size()},
      {"parameters", state.NumParameters()},
      {"lora_parameters", lora},
      {"ratio", static_cast<double>(state.NumParameters()) / static_cast<double>(lora)}};
  for (const std::string& codec : options.codecs) {
    WEFT_TRY_ASSIGN(json["bytes_" + codec], UpdateBytes(state, codec));
  }
  return json;
}

Status Run(const CountOptions& options) {
  WEFT_TRY_ASSIGN(const nlohmann::json json,
                  weft::Guarded("[bench]", [&] { return Count(options); }));
  if (options.json) {
    std::cout << json.dump() << "\n";
    return OkStatus();
  }
  for (const auto& [name, value] : json.items()) std::cout << name << " " << value << "\n";
  return OkStatus();
}

}  // namespace

Action SetUpBenchCount(CLI::App& app) {
  const auto options = std::make_shared<CountOptions>();
  options->spec.target_modules = {"all-linear"};
  app.add_option("--model", options->model, "folder with a config.json; no weights are needed")
      ->required();
  AddMethodOptions(app, options->spec.method, options->method_options);
  app.add_option("--rank", options->spec.rank, "of the adapter")
      ->check(WholeNumber(int64_t{1}, limits::kRankMax))
      ->capture_default_str();
  app.add_option("--target-modules", options->spec.target_modules,
                 "layer names, or all-linear (default)")
      ->delimiter(',');
  app.add_option("--codec", options->codecs, "codecs to count bytes in")->delimiter(',');
  app.add_flag("--json", options->json, "one JSON object");
  return [options] { return Run(*options); };
}

}  // namespace weft::cli
