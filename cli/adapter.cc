// `weft adapter inspect | export | import | merge`: look at an adapter, and move it between PEFT
// folders, our block files and whole models.

#include "common/adapters/adapter.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <memory>

#include <nlohmann/json.hpp>

#include "cli/model_folder.h"
#include "cli/out_folder.h"
#include "cli/set_up.h"
#include "cli/table.h"
#include "client/training_state.h"
#include "common/adapters/beside.h"
#include "common/adapters/distance.h"
#include "common/adapters/merge.h"
#include "common/adapters/peft_io.h"
#include "common/base/limits.h"
#include "common/codec/adapter_block.h"
#include "common/formats/file_io.h"
#include "common/tensor/guard.h"

namespace weft::cli {
namespace {

namespace fs = std::filesystem;

struct LoadedAdapter {
  AdapterState state;
  std::vector<AdapterState> frozen;         // of a block: applied beside it
  std::optional<AdapterState> base_change;  // of a block: what its run took out of the base model
  std::string base_model;
  bool fan_in_fan_out = false;
};

// A run folder stands for its newest exported round.
Result<fs::path> NewestRound(const fs::path& run) {
  fs::path newest;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(run / "adapters", error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("round-") && fs::exists(entry.path() / "adapter_config.json") &&
        (newest.empty() || newest.filename().string() < name)) {
      newest = entry.path();
    }
  }
  if (newest.empty()) {
    return NotFound(Str("[adapter] ", run.string(), ": no adapters/round-* with an adapter yet"));
  }
  return newest;
}

Result<LoadedAdapter> LoadPeft(const fs::path& folder) {
  WEFT_TRY_ASSIGN(PeftFolder peft, ReadPeft(folder, {}));
  LoadedAdapter loaded;
  loaded.state = std::move(peft.state);
  loaded.base_model = peft.config.base_model;
  loaded.fan_in_fan_out = peft.config.fan_in_fan_out;
  return loaded;
}

// What a client keeps for itself lies in the local state of its newest round.
Result<AdapterBundle> ReadBlock(const Blob& bytes) {
  const Result<TrainingState> local = DecodeTrainingState(bytes);
  if (!local.ok()) return DecodeBundle(bytes, at::kCPU);
  if (local->kept) return AdapterBundle{local->kept};
  return InvalidArgument("a client's local state, in which it keeps no adapter of its own");
}

Result<LoadedAdapter> LoadBlock(const fs::path& file) {
  WEFT_TRY_ASSIGN(const auto mapped, MappedFile::Open(file));
  Result<AdapterBundle> bundle = ReadBlock(MappedFile::AsBlob(mapped));
  if (!bundle.ok()) return bundle.status().Within(file.string());
  LoadedAdapter loaded;
  loaded.base_change = std::move(bundle->base_change);
  if (bundle->frozen) loaded.frozen.push_back(std::move(*bundle->frozen));
  if (bundle->adapter) {
    loaded.state = std::move(*bundle->adapter);
  } else if (!loaded.frozen.empty()) {
    loaded.state = std::move(loaded.frozen[0]);
    loaded.frozen.clear();
  } else {
    return InvalidArgument(Str("[adapter] ", file.string(), ": holds no adapter"));
  }
  return loaded;
}

/// A PEFT folder, a run folder (its newest round) or a block file.
Result<LoadedAdapter> LoadAny(const fs::path& path) {
  std::error_code error;
  if (fs::exists(path / "adapter_config.json", error)) return LoadPeft(path);
  if (fs::is_directory(path / "adapters", error)) {
    WEFT_TRY_ASSIGN(const fs::path newest, NewestRound(path));
    return LoadPeft(newest);
  }
  if (fs::is_regular_file(path, error)) return LoadBlock(path);
  return NotFound(
      Str("[adapter] ", path.string(), ": no PEFT folder, run folder or adapter block lies there"));
}

nlohmann::json Describe(const LoadedAdapter& loaded, const LowRankAdapter& lowered,
                        const std::string& sha256) {
  const AdapterSpec& spec = loaded.state.spec;
  nlohmann::json json = {{"method", spec.method},
                         {"rank", spec.rank},
                         {"alpha", spec.alpha},
                         {"rslora", spec.rslora},
                         {"base_model", loaded.base_model},
                         {"parameters", loaded.state.NumParameters()},
                         {"norm", DistanceBetween(lowered, {})},
                         {"sha256", sha256}};
  json["sites"] = nlohmann::json::array();
  for (size_t i = 0; i < lowered.size(); ++i) {
    const LinearSite& site = lowered[i].site;
    json["sites"].push_back({{"path", site.path},
                             {"in", site.in},
                             {"out", site.out},
                             {"rank", RankFor(spec, site.path)},
                             {"alpha", AlphaFor(spec, site.path)},
                             {"scaling", ScalingFor(spec, site.path)},
                             {"norm", NormOf(lowered[i].factors)}});
  }
  json["dense"] = nlohmann::json::array();
  for (const NamedTensor& tensor : loaded.state.dense) {
    json["dense"].push_back({{"name", tensor.name}, {"shape", tensor.value.sizes().vec()}});
  }
  return json;
}

void PrintDescription(const nlohmann::json& json) {
  std::cout << json["method"].get<std::string>() << ", " << json["parameters"]
            << " parameters, ‖ΔW‖ " << json["norm"].get<double>() << "\n"
            << "sha256 " << json["sha256"].get<std::string>() << "\n";
  for (const auto& site : json["sites"]) {
    std::cout << "  " << OneLine(site["path"].get<std::string>()) << "  " << site["out"] << "×"
              << site["in"] << "  rank " << site["rank"] << "  alpha "
              << site["alpha"].get<double>() << "  scaling " << site["scaling"].get<double>()
              << "  ‖ΔW‖ " << site["norm"].get<double>() << "\n";
  }
}

Status Inspect(const std::string& path, bool as_json) {
  WEFT_TRY_ASSIGN(const LoadedAdapter loaded, LoadAny(path));
  WEFT_TRY_ASSIGN(const LowRankAdapter lowered, Lower(loaded.state));
  WEFT_TRY_ASSIGN(const std::string sha256, AdapterSha256(loaded.state));
  const nlohmann::json json = Describe(loaded, lowered, sha256);
  if (as_json) {
    std::cout << json.dump() << "\n";
  } else {
    PrintDescription(json);
  }
  return OkStatus();
}

// In any order: a PEFT folder has its layers by name.
Status CheckSameSites(const LowRankAdapter& a, const LowRankAdapter& b) {
  const bool all = std::all_of(b.begin(), b.end(), [&](const LowRankSite& site) {
    return std::any_of(a.begin(), a.end(),
                       [&](const LowRankSite& other) { return other.site == site.site; });
  });
  if (all && a.size() == b.size()) return OkStatus();
  return FailedPrecondition("[adapter] the two adapters sit on different layers");
}

// Several adapters that apply together are one with all their ranks side by side.
Result<AdapterState> Joined(const LoadedAdapter& loaded) {
  if (loaded.frozen.empty()) return WithBaseChange(loaded.state, loaded.base_change);
  WEFT_TRY_ASSIGN(LowRankAdapter sum, Lower(loaded.state));
  for (const AdapterState& frozen : loaded.frozen) {
    WEFT_TRY_ASSIGN(const LowRankAdapter beside, Lower(frozen));
    WEFT_TRY(CheckSameSites(sum, beside));
    sum = SideBySide(sum, beside);
  }
  return WithBaseChange(LoraFromFactors(loaded.state.spec, sum), loaded.base_change);
}

Status Export(const std::string& path, const std::string& beside, const std::string& out,
              const std::string& base_model) {
  WEFT_TRY_ASSIGN(LoadedAdapter loaded, LoadAny(path));
  if (!beside.empty()) {
    WEFT_TRY_ASSIGN(LoadedAdapter other, LoadAny(beside));
    WEFT_TRY_ASSIGN(AdapterState joined, Joined(other));
    loaded.frozen.push_back(std::move(joined));
    if (loaded.base_model.empty()) loaded.base_model = other.base_model;
    loaded.fan_in_fan_out = loaded.fan_in_fan_out || other.fan_in_fan_out;
  }
  WEFT_TRY_ASSIGN(const AdapterState state, Joined(loaded));
  WEFT_TRY(PrepareOutFolder(out, {}));
  return WritePeft(state, out,
                   {.base_model = base_model.empty() ? loaded.base_model : base_model,
                    .fan_in_fan_out = loaded.fan_in_fan_out});
}

Status Import(const std::string& folder, const std::string& out) {
  WEFT_TRY_ASSIGN(const PeftFolder peft, ReadPeft(folder, {}));
  AdapterBundle bundle;
  bundle.adapter = peft.state;
  WEFT_TRY_ASSIGN(const Codec* codec, FindCodec("float32"));
  WEFT_TRY_ASSIGN(const Blob bytes, EncodeBundle(bundle, *codec));
  return WriteFileAtomically(out, bytes.view());
}

Status Merge(const std::string& model, const std::string& adapter, const std::string& out) {
  WEFT_TRY_ASSIGN(const ModelConfig config, ReadModelConfig(model));
  WEFT_TRY_ASSIGN(LoadedAdapter loaded, LoadAny(adapter));
  WEFT_TRY(PrepareOutFolder(out, model));
  if (!loaded.state.dense.empty()) {
    return FailedPrecondition(Str("[merge] ", adapter, ": replaces ", loaded.state.dense[0].name,
                                  " (modules_to_save), which is not merged; use PEFT"));
  }
  WEFT_TRY_ASSIGN(std::vector<NamedTensor> weights, StoredWeights(model, config));
  const MergeOptions options{.stored_transposed = config.family == ModelFamily::kGpt2};
  WEFT_TRY_ASSIGN(const AdapterState joined, Joined(loaded));
  WEFT_TRY_ASSIGN(const LowRankAdapter lowered, Lower(joined));
  WEFT_TRY_ASSIGN(weights, MergeIntoWeights(weights, lowered, options));
  return WriteModelFolder(weights, model, out);
}

struct Paths {
  std::string adapter;
  std::string beside;
  std::string model;
  std::string out;
  std::string base_model;
  bool json = false;
};

Status Guard(const std::function<Status()>& body) { return weft::Guarded("[adapter]", body); }

// Does the work, then says where its result lies.
Status WithReport(const Paths& paths, const std::function<Status()>& work) {
  WEFT_TRY(Guard(work));
  if (paths.json) {
    std::cout << nlohmann::json{{"out", paths.out}}.dump() << "\n";
  } else {
    std::cout << "written to " << paths.out << "\n";
  }
  return OkStatus();
}

void AddOut(CLI::App& app, Paths& paths, const char* what) {
  app.add_option("--out", paths.out, what)->required();
  app.add_flag("--json", paths.json, "one JSON object on stdout");
}

}  // namespace

Action SetUpAdapterInspect(CLI::App& app) {
  const auto paths = std::make_shared<Paths>();
  app.add_option("adapter", paths->adapter, "PEFT folder, run folder or adapter block")->required();
  app.add_flag("--json", paths->json, "one JSON object");
  return [paths] { return Guard([&] { return Inspect(paths->adapter, paths->json); }); };
}

Action SetUpAdapterExport(CLI::App& app) {
  const auto paths = std::make_shared<Paths>();
  app.add_option("adapter", paths->adapter,
                 "run folder (its newest round), adapter block, or the local state of a client")
      ->required();
  app.add_option("--beside", paths->beside, "another such adapter, to be one with it");
  AddOut(app, *paths, "PEFT folder to write");
  app.add_option("--base-model", paths->base_model, "base_model_name_or_path to write");
  return [paths] {
    return WithReport(*paths, [&] {
      return Export(paths->adapter, paths->beside, paths->out, paths->base_model);
    });
  };
}

Action SetUpAdapterImport(CLI::App& app) {
  const auto paths = std::make_shared<Paths>();
  app.add_option("adapter", paths->adapter, "PEFT folder")->required();
  AddOut(app, *paths, "adapter block to write");
  return [paths] { return WithReport(*paths, [&] { return Import(paths->adapter, paths->out); }); };
}

Action SetUpAdapterMerge(CLI::App& app) {
  const auto paths = std::make_shared<Paths>();
  app.add_option("--model", paths->model, "model folder")->required();
  app.add_option("--adapter", paths->adapter, "PEFT folder, run folder or adapter block")
      ->required();
  AddOut(app, *paths, "model folder to write");
  return [paths] {
    return WithReport(*paths, [&] { return Merge(paths->model, paths->adapter, paths->out); });
  };
}

}  // namespace weft::cli
