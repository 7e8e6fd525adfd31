#include "common/laplace/statistics.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "common/base/str.h"

namespace weft {
namespace {

std::string KindOf(const Gram& gram) {
  return gram.whole() ? Str("a whole factor of ", gram.dim()) : Str("a root of ", gram.dim());
}

Status CheckSameSide(const Gram& got, const Gram& wanted, std::string_view side) {
  if (got.whole() == wanted.whole() && got.dim() == wanted.dim()) return OkStatus();
  return FailedPrecondition(Str(side, " side is ", KindOf(got), ", wanted ", KindOf(wanted)));
}

Status CheckSameMatrix(const MatrixStatistics& got, const MatrixStatistics& wanted) {
  if (got.name != wanted.name) {
    return FailedPrecondition(Str("matrix ", got.name, ", wanted ", wanted.name));
  }
  WEFT_TRY(CheckSameSide(got.input, wanted.input, "input").Within(got.name));
  return CheckSameSide(got.output, wanted.output, "output").Within(got.name);
}

Status CheckSameAdapter(const LaplaceStatistics& got, const LaplaceStatistics& wanted) {
  if (got.adapter_hash != wanted.adapter_hash) {
    return FailedPrecondition(Str("measured at adapter ", got.adapter_hash, ", the others at ",
                                  wanted.adapter_hash,
                                  "; all must measure at the same published adapter"));
  }
  if (got.matrices.size() != wanted.matrices.size()) {
    return FailedPrecondition(
        Str(got.matrices.size(), " matrices, wanted ", wanted.matrices.size()));
  }
  for (size_t m = 0; m < got.matrices.size(); ++m) {
    WEFT_TRY(CheckSameMatrix(got.matrices[m], wanted.matrices[m]));
  }
  return OkStatus();
}

MatrixStatistics SumOf(std::span<const ClientStatistics> clients, size_t m,
                       std::optional<int64_t> root_rank) {
  uint64_t rows = 0;
  std::vector<const Gram*> inputs;
  std::vector<const Gram*> outputs;
  for (const ClientStatistics& client : clients) {
    const MatrixStatistics& matrix = client.statistics->matrices[m];
    rows += matrix.rows;
    inputs.push_back(&matrix.input);
    outputs.push_back(&matrix.output);
  }
  return {clients.front().statistics->matrices[m].name, rows, Gram::Sum(inputs, root_rank),
          Gram::Sum(outputs, root_rank)};
}

}  // namespace

Status CheckStatistics(const LaplaceStatistics& statistics) {
  if (statistics.examples == 0) return InvalidArgument("no examples were measured");
  if (!std::isfinite(statistics.log_likelihood) || statistics.log_likelihood > 0) {
    return InvalidArgument(Str("log-likelihood ", statistics.log_likelihood,
                               ", wanted a sum of logarithms of probabilities"));
  }
  std::set<std::string> names;
  for (const MatrixStatistics& matrix : statistics.matrices) {
    if (!names.insert(matrix.name).second) {
      return InvalidArgument(Str("matrix ", matrix.name, " comes twice"));
    }
    if (matrix.rows == 0) {
      return InvalidArgument(Str("matrix ", matrix.name, ": no input rows were measured"));
    }
  }
  return OkStatus();
}

Status CheckMeasuredAt(const LaplaceStatistics& statistics, const std::string& adapter_hash,
                       std::span<const MeasuredMatrix> matrices, int64_t root_from) {
  if (statistics.adapter_hash != adapter_hash) {
    return FailedPrecondition(
        Str("[laplace] measured at adapter ", statistics.adapter_hash, ", wanted ", adapter_hash));
  }
  if (statistics.matrices.size() != matrices.size()) {
    return FailedPrecondition(
        Str("[laplace] ", statistics.matrices.size(), " matrices, wanted ", matrices.size()));
  }
  for (size_t m = 0; m < matrices.size(); ++m) {
    const MatrixStatistics& got = statistics.matrices[m];
    const MeasuredMatrix& wanted = matrices[m];
    if (got.name != wanted.name || got.output.dim() != wanted.out || got.input.dim() != wanted.in) {
      return FailedPrecondition(Str("[laplace] matrix ", got.name, " [", got.output.dim(), "×",
                                    got.input.dim(), "], wanted ", wanted.name, " [", wanted.out,
                                    "×", wanted.in, "]"));
    }
    for (const Gram* side : {&got.input, &got.output}) {
      const bool whole = side->dim() < root_from;
      if (side->whole() == whole) continue;
      return FailedPrecondition(Str("[laplace] matrix ", got.name, ": ", KindOf(*side), ", wanted ",
                                    whole ? "it whole" : "a root"));
    }
  }
  return OkStatus();
}

Result<LaplaceStatistics> MergeStatistics(std::span<const ClientStatistics> clients,
                                          std::optional<int64_t> root_rank) {
  if (clients.empty()) return InvalidArgument("[laplace] no client has measured");
  std::vector<ClientStatistics> sorted(clients.begin(), clients.end());
  std::sort(sorted.begin(), sorted.end(), [](const ClientStatistics& a, const ClientStatistics& b) {
    return a.client < b.client;
  });
  const LaplaceStatistics& first = *sorted.front().statistics;
  LaplaceStatistics sum{first.adapter_hash, 0, 0, 0, {}};
  for (size_t k = 0; k < sorted.size(); ++k) {
    const std::string whose = Str("[laplace] client ", sorted[k].client);
    if (k > 0 && sorted[k].client == sorted[k - 1].client) {
      return InvalidArgument(Str(whose, " comes twice"));
    }
    const LaplaceStatistics& own = *sorted[k].statistics;
    WEFT_TRY(CheckStatistics(own).Within(whose));
    WEFT_TRY(CheckSameAdapter(own, first).Within(whose));
    sum.examples += own.examples;
    sum.batches += own.batches;
    sum.log_likelihood += own.log_likelihood;
  }
  for (size_t m = 0; m < first.matrices.size(); ++m) {
    sum.matrices.push_back(SumOf(sorted, m, root_rank));
  }
  return sum;
}

}  // namespace weft
