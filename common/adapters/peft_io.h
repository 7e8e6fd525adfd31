#pragma once
// PEFT folders (adapter_config.json + adapter_model.safetensors) ⇄ AdapterState. Stateless.

#include <filesystem>
#include <span>

#include "common/adapters/adapter.h"
#include "common/adapters/peft_config.h"

namespace weft {

struct PeftFolder {
  PeftConfig config;
  AdapterState state;  // method "lora", float32 on the CPU
};

/// Reads a folder. With `base_sites` (all layers of the base model) the adapter must fit it: every
/// chosen layer has its two factors in the right shape and no tensor is left over; sites come in
/// the base's order. Without (empty span) the shapes are taken from the tensors and layers are
/// ordered by path, numbers as numbers. Errors name the file and the tensor, got and wanted.
[[nodiscard]] Result<PeftFolder> ReadPeft(const std::filesystem::path& folder,
                                          std::span<const LinearSite> base_sites);

/// The config alone, for its settings.
[[nodiscard]] Result<PeftConfig> ReadPeftConfig(const std::filesystem::path& folder);

struct PeftWriteOptions {
  std::string base_model;       // base_model_name_or_path
  bool fan_in_fan_out = false;  // true for GPT-2
};

/// Writes a state of any method; what is not LoRA is lowered first, which keeps ΔW. The folder is
/// made if it does not exist; files are replaced one by one, the configuration last.
[[nodiscard]] Status WritePeft(const AdapterState& state, const std::filesystem::path& folder,
                               const PeftWriteOptions& options);

/// Factors at scale 1 with any rank per layer as a LoRA state whose scaling is exactly 1: alpha =
/// rank everywhere, deviating ranks in rank_pattern under full paths. Targets, exclusions and
/// dropout come from `spec`. Layers whose B is zero in all its rank stay.
[[nodiscard]] AdapterState LoraFromFactors(const AdapterSpec& spec, const LowRankAdapter& factors);

}  // namespace weft
