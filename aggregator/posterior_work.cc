#include "aggregator/posterior_work.h"

#include <algorithm>
#include <chrono>

#include "aggregator/strategies/state_block.h"
#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/codec/adapter_block.h"
#include "common/crypto/digest.h"
#include "common/evaluate/measure_curvature.h"
#include "common/laplace/evidence.h"
#include "common/laplace/statistics_file.h"
#include "common/tensor/guard.h"

namespace weft {
namespace {

std::vector<MeasuredMatrix> MatricesOf(const AdapterState& adapter) {
  const std::vector<std::string> names = MatrixNames(adapter);
  const std::vector<at::Tensor> values = MatrixValues(adapter);
  std::vector<MeasuredMatrix> matrices;
  for (size_t m = 0; m < names.size(); ++m) {
    matrices.push_back({names[m], values[m].size(0), values[m].size(1)});
  }
  return matrices;
}

// What the bundle asks to measure, seen in place.
Result<AdapterState> AdapterToMeasure(const Blob& bundle) {
  WEFT_TRY_ASSIGN(const TensorBlock block, DecodeTensorBlock(bundle));
  const BlockSection* section = block.Find(kFrozenRole);
  if (section == nullptr) return Internal("[laplace] the bundle holds no adapter to measure");
  WEFT_TRY_ASSIGN(const Codec* codec, FindCodec(block.codec));
  return ViewAdapter(*section, *codec);
}

Status CheckHeader(const UpdateHeader& header, const LaplaceStatistics& sums) {
  if (header.num_examples == sums.examples) return OkStatus();
  return InvalidArgument(
      Str("statistics of ", sums.examples, " examples, its header says ", header.num_examples));
}

}  // namespace

Result<AdmitJob::Output> AdmitStatistics(const AdmitJob& job) {
  const std::string whose =
      Str("[admission] client ", job.client.client, " round ", job.header.round);
  WEFT_TRY_ASSIGN(const Blob payload, job.store->ReadBlob(job.blob));
  WEFT_TRY_ASSIGN(const AdapterState adapter, AdapterToMeasure(job.bundle));
  WEFT_TRY_ASSIGN(const std::string hash, AdapterSha256(adapter));
  const auto check = [&]() -> Status {
    WEFT_TRY_ASSIGN(const StatisticsFile file, DecodeStatistics(payload, "its statistics"));
    WEFT_TRY(CheckHeader(job.header, file.statistics));
    return CheckMeasuredAt(file.statistics, hash, MatricesOf(adapter),
                           CurvatureSettings().root_from);
  };
  return AdmitJob::Output{.verdict = check().Within(whose)};
}

Result<FitJob::Output> RunFit(const FitJob& job, JobControl&) {
  const auto began = std::chrono::steady_clock::now();
  return Guarded("[laplace]", [&]() -> Result<FitJob::Output> {
    WEFT_TRY_ASSIGN(const Blob state, job.store->ReadBlob(job.state_blob));
    WEFT_TRY_ASSIGN(const GlobalState global, DecodeState(state, job.strategy));
    FitJob::Output output;
    std::vector<StatisticsFile> files;
    for (const SpooledUpdate& update : job.updates) {
      WEFT_TRY_ASSIGN(const Blob payload, job.store->ReadBlob(update.blob));
      WEFT_TRY_ASSIGN(StatisticsFile file, DecodeStatistics(payload, update.blob));
      files.push_back(std::move(file));
      output.clients.push_back(update.header.client);
    }
    std::vector<ClientStatistics> clients;
    for (size_t k = 0; k < files.size(); ++k) {
      clients.push_back({output.clients[k].name, &files[k].statistics});
    }
    WEFT_TRY_ASSIGN(const LaplaceStatistics sums, MergeStatistics(clients));
    WEFT_TRY_ASSIGN(const LaplacePosterior posterior,
                    MakePosterior(sums, MatrixValues(global.adapter), Normalization::kTokenRows));
    if (job.precision > 0) {
      output.precision = job.precision;
      const double precisions[] = {job.precision};
      WEFT_TRY_ASSIGN(const Evidence evidence, LogEvidence(posterior, precisions));
      output.log_marginal = evidence.log_marginal;
    } else {
      WEFT_TRY_ASSIGN(const PriorFit fit, FitPrior(posterior, PriorSharing::kOne));
      output.precision = fit.precisions.front();
      output.log_marginal = fit.log_marginal;
    }
    output.log_likelihood = sums.log_likelihood;
    output.examples = sums.examples;
    WEFT_TRY_ASSIGN(output.file, EncodeStatistics({sums, output.precision}));
    output.sha256 = Sha256Hex(output.file.span());
    output.fit_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    return output;
  });
}

uint64_t StatisticsBytesMax(const std::vector<LinearSite>& sites) {
  // A whole side has fewer than root_from elements, or it is kept as a root of a few columns.
  const CurvatureSettings settings;
  const auto side = [&](int64_t dim) {
    const int64_t columns = dim < settings.root_from ? dim : settings.root_rank;
    return static_cast<uint64_t>(dim) * static_cast<uint64_t>(columns) * sizeof(double);
  };
  uint64_t bytes = limits::kManifestBytesMax;
  for (const LinearSite& site : sites) {
    // A reads the layer's inputs, B gives its outputs; both have the rank as their other side,
    // which is at most the smaller of the two.
    bytes += side(site.in) + side(site.out) + 2 * side(std::min(site.in, site.out));
  }
  return std::min(bytes, limits::kPayloadBytesMax);
}

}  // namespace weft
