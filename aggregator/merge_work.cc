#include "aggregator/merge_work.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>

#include <ATen/Version.h>
#include <torch/version.h>

#include "aggregator/forward_work.h"
#include "aggregator/merge_inputs.h"
#include "aggregator/posterior_work.h"
#include "aggregator/sent_adapter.h"
#include "aggregator/strategies/round_merge.h"
#include "aggregator/strategies/state_block.h"
#include "aggregator/update_admission.h"
#include "common/adapters/beside.h"
#include "common/adapters/dense.h"
#include "common/adapters/method_spec.h"
#include "common/adapters/peft_io.h"
#include "common/base/str.h"
#include "common/codec/delta.h"
#include "common/codec/layout.h"
#include "common/codec/precision.h"
#include "common/tensor/guard.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

// Names and shapes of the whole modules in a bundle that was cut here.
Result<std::vector<TensorLayout>> DenseSent(const Blob& bundle) {
  WEFT_TRY_ASSIGN(const TensorBlock block, DecodeTensorBlock(bundle));
  for (const BlockSection& section : block.sections) {
    if (!section.dense.empty()) return DenseOf(section);
  }
  return std::vector<TensorLayout>();
}

// What a bundle that was cut here gives a client to start from, seen in place.
Result<std::optional<AdapterState>> AdapterOf(const Blob& bundle) {
  WEFT_TRY_ASSIGN(const TensorBlock block, DecodeTensorBlock(bundle));
  const BlockSection* section = block.Find(kAdapterRole);
  if (section == nullptr) return std::optional<AdapterState>();
  WEFT_TRY_ASSIGN(const Codec* codec, FindCodec(block.codec));
  WEFT_TRY_ASSIGN(AdapterState state, ViewAdapter(*section, *codec));
  return std::optional<AdapterState>(std::move(state));
}

// What the methods of the run take out of the base model, together; a method that needs the layers'
// weights asks for them.
Result<std::optional<AdapterState>> BaseChangeOf(const InitJob& job, const WeightOf& weight) {
  LowRankAdapter change;
  for (const std::string& name : job.methods) {
    WEFT_TRY_ASSIGN(const Adapter* method, FindAdapter(name));
    WEFT_TRY_ASSIGN(const std::optional<LowRankAdapter> own,
                    method->BaseChange(ForMethod(job.adapter, name), job.sites, weight));
    if (own) change = SideBySide(change, *own);
  }
  if (change.empty()) return std::optional<AdapterState>();
  return std::optional<AdapterState>(LoraFromFactors(ForMethod(job.adapter, "lora"), change));
}

// What a client with nothing to change sends back of a tensor: no change, or what its codec makes
// of the tensor.
Result<bool> IsAsSent(const NamedTensor& got, const NamedTensor& sent, const Codec& codec,
                      bool delta) {
  if (at::equal(got.value, sent.value)) return true;
  if (delta) return false;
  WEFT_TRY_ASSIGN(const BlockTensor coded, codec.Encode(sent));
  WEFT_TRY_ASSIGN(const at::Tensor returned, codec.Decode(coded));
  return at::equal(got.value, returned);
}

// What the method does not train must come back as it was sent, save for the codec: a merge relies
// on it (NOLA's frozen side).
Status CheckConstants(const AdapterState& update, const AdapterState& sent, const Codec& codec,
                      bool delta) {
  WEFT_TRY_ASSIGN(const Adapter* method, FindAdapter(update.spec.method));
  const std::vector<std::string> trainable = method->Trainable(update.spec);
  for (size_t i = 0; i < update.sites.size(); ++i) {
    for (size_t t = 0; t < update.sites[i].tensors.size(); ++t) {
      const NamedTensor& tensor = update.sites[i].tensors[t];
      const bool trained =
          std::find(trainable.begin(), trainable.end(), tensor.name) != trainable.end();
      if (trained) continue;
      WEFT_TRY_ASSIGN(const bool same, IsAsSent(tensor, sent.sites[i].tensors[t], codec, delta));
      if (same) continue;
      return InvalidArgument(Str("site ", update.sites[i].site.path, ": ", tensor.name,
                                 " is not trained in this round, and is not what was sent"));
    }
  }
  return OkStatus();
}

MergeKernels KernelsHere() {
  return {TORCH_VERSION, at::get_cpu_capability(), at::get_num_threads()};
}

// A folder under another name first: a reader never meets half an adapter.
Status WriteFolder(const AdapterState& adapter, const ExportJob& job) {
  const fs::path folder(job.folder);
  const fs::path temporary(job.folder + ".tmp");
  std::error_code error;
  fs::remove_all(temporary, error);
  WEFT_TRY(WritePeft(adapter, temporary, {.base_model = job.base_model}));
  fs::remove_all(folder, error);
  fs::rename(temporary, folder, error);
  if (error) {
    return Unavailable(
        Str("[export] ", job.folder, ": cannot rename its temporary folder: ", error.message()));
  }
  return OkStatus();
}

}  // namespace

Result<InitJob::Output> RunInit(const InitJob& job, JobControl&, const WeightOf& weight) {
  return Guarded("[init]", [&]() -> Result<InitJob::Output> {
    WEFT_TRY_ASSIGN(const Strategy* strategy, FindStrategy(job.strategy.name));
    WEFT_TRY(strategy->Check(job.strategy));
    WEFT_TRY_ASSIGN(GlobalState global, strategy->Init(job.adapter, job.sites, job.seed));
    WEFT_TRY_ASSIGN(global.adapter.dense, FreshDense(job.adapter, job.base_sites, job.seed));
    InitJob::Output output;
    WEFT_TRY_ASSIGN(global.base_change, BaseChangeOf(job, weight));
    if (global.base_change) {
      WEFT_TRY_ASSIGN(output.base_change_sha256, AdapterSha256(*global.base_change));
    }
    WEFT_TRY_ASSIGN(EncodedState state, EncodeState(global));
    output.state = std::move(state.bytes);
    output.adapter_sha256 = std::move(state.adapter_sha256);
    return output;
  });
}

Result<MergeJob::Output> RunMerge(const MergeJob& job, JobControl& control) {
  const auto began = std::chrono::steady_clock::now();
  return Guarded("[merge]", [&]() -> Result<MergeJob::Output> {
    WEFT_TRY_ASSIGN(const MergeInputs inputs, OpenMerge(job));
    WEFT_TRY_ASSIGN(const Codec* down, FindCodec(job.plan.down_codec));
    WEFT_TRY_ASSIGN(
        MergedRound merged,
        MergeRound(*inputs.strategy,
                   {job.strategy, inputs.global, *inputs.updates, job.plan.round.number}, control));
    MergeJob::Output output;
    WEFT_TRY_ASSIGN(EncodedState state, EncodeState(merged.global));
    output.state = std::move(state.bytes);
    output.adapter_sha256 = std::move(state.adapter_sha256);
    output.certificate = std::move(merged.certificate);
    output.kernels = KernelsHere();
    WEFT_TRY_ASSIGN(output.certificate.error_codec, CodecError(merged.global.adapter, *down));
    output.merge_s =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    return output;
  });
}

Result<CutJob::Output> RunCut(const CutJob& job, JobControl&) {
  return Guarded("[cut]", [&]() -> Result<CutJob::Output> {
    WEFT_TRY_ASSIGN(const Strategy* strategy, FindStrategy(job.strategy.name));
    WEFT_TRY_ASSIGN(GlobalState global, DecodeState(job.state, job.strategy.name));
    AdapterBundle bundle;
    if (job.whole) {
      bundle.frozen = std::move(global.adapter);
      bundle.base_change = std::move(global.base_change);
    } else {
      WEFT_TRY_ASSIGN(bundle, CutBundle(*strategy, global, job.client));
    }
    WEFT_TRY_ASSIGN(const Codec* codec, FindCodec(job.codec));
    const TensorForm form = job.compress ? TensorForm::kCompressed : TensorForm::kShortest;
    WEFT_TRY_ASSIGN(Blob bytes, EncodeBundle(bundle, *codec, form));
    return CutJob::Output{std::move(bytes)};
  });
}

Result<AdmitJob::Output> RunAdmit(const AdmitJob& job, JobControl&) {
  return Guarded("[admission]", [&]() -> Result<AdmitJob::Output> {
    if (job.measured) return AdmitStatistics(job);
    AdmitJob::Output output;
    const auto refused = [&](Status why) {
      output.verdict = std::move(why);
      return output;
    };
    // Failing to read our own store or bundle is our trouble, not the client's: no verdict.
    WEFT_TRY_ASSIGN(const Blob payload, job.store->ReadBlob(job.blob));
    WEFT_TRY_ASSIGN(const std::optional<AdapterState> sent, AdapterOf(job.bundle));
    WEFT_TRY_ASSIGN(const std::vector<TensorLayout> dense, DenseSent(job.bundle));
    const bool delta = job.delta && sent;
    const Result<TensorBlock> block =
        CheckUpdate(job.client, job.header, job.sites, payload, dense, delta);
    if (!block.ok()) return refused(block.status());
    WEFT_TRY_ASSIGN(AdapterState update, ViewUpdate(*block));
    if (delta) {
      WEFT_TRY_ASSIGN(update, WithChange(*sent, update));
    }
    const std::string whose =
        Str("[admission] client ", job.client.client, " round ", job.header.round);
    if (sent) {
      WEFT_TRY_ASSIGN(const Codec* codec, FindCodec(block->codec));
      if (Status status = CheckConstants(update, *sent, *codec, delta); !status.ok()) {
        return refused(status.Within(whose));
      }
    }
    WEFT_TRY_ASSIGN(output.update_norm, UpdateNorm(update, sent));
    if (!std::isfinite(output.update_norm)) {
      return refused(InvalidArgument(whose +
                                     ": its update's values are so large that their norm is "
                                     "no number; its training diverged, lower the learning rate"));
    }
    if (job.norm_max > 0 && output.update_norm > job.norm_max) {
      return refused(InvalidArgument(Str(whose, ": its update has norm ", output.update_norm,
                                         ", cohort.update-norm-max is ", job.norm_max)));
    }
    const double ratio = job.norm_median > 0 ? output.update_norm / job.norm_median : 0;
    if (job.norm_ratio_max > 0 && ratio > job.norm_ratio_max) {
      return refused(
          InvalidArgument(Str(whose, ": its update has norm ", output.update_norm, ", ", ratio,
                              " times the median of the updates in the newest version; "
                              "cohort.update-norm-ratio-max is ",
                              job.norm_ratio_max)));
    }
    return output;
  });
}

Result<ExportJob::Output> RunExport(const ExportJob& job, JobControl&) {
  return Guarded("[export]", [&]() -> Result<ExportJob::Output> {
    WEFT_TRY_ASSIGN(const GlobalState global, DecodeState(job.state, ""));
    WEFT_TRY_ASSIGN(const AdapterState whole, WithBaseChange(global.adapter, global.base_change));
    WEFT_TRY(WriteFolder(whole, job));
    return ExportJob::Output{job.folder};
  });
}

WeightOf NoBaseWeights() {
  return [](const LinearSite& site) -> Result<at::Tensor> {
    return FailedPrecondition(
        Str("the method looks at the base model's weights (here ", site.path,
            "), and the aggregator has none: set [model] path to the base model's folder"));
  };
}

void RegisterMergeWork(WorkTable& table, WeightOf weight) {
  table.On<InitJob>([weight = std::move(weight)](const InitJob& job, JobControl& control) {
    return RunInit(job, control, weight);
  });
  table.On<MergeJob>(RunMerge);
  table.On<FitJob>(RunFit);
  table.On<CutJob>(RunCut);
  table.On<AdmitJob>(RunAdmit);
  table.On<AdoptJob>(RunAdopt);
  table.On<ForwardJob>(RunForward);
  table.On<ExportJob>(RunExport);
}

}  // namespace weft
