#include "cli/bench_baselines.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "aggregator/strategies/site_threads.h"

// Shape legend: O out, I in, R rank of a stack.

namespace weft::cli {
namespace {

struct Sizes {
  int64_t layers;
  LinearSite layer;
  int64_t rank;
  uint64_t bytes;
};

void Copy(const Sizes& sizes) {
  static std::vector<char> from;
  static std::vector<char> to;
  from.resize(sizes.bytes, 1);
  to.resize(sizes.bytes);
  constexpr size_t kPart = size_t{1} << 20;
  const size_t parts = (sizes.bytes + kPart - 1) / kPart;
  ForEachSite(parts, [&](size_t part, StackMemory&) {
    const size_t begin = part * kPart;
    std::memcpy(to.data() + begin, from.data() + begin, std::min(kPart, sizes.bytes - begin));
  });
}

at::Tensor Numbers(int64_t rows, int64_t columns) { return at::rand({rows, columns}, at::kDouble); }

void QrSvd(const Sizes& sizes) {
  static const at::Tensor B_OR = Numbers(sizes.layer.out, sizes.rank);
  static const at::Tensor A_IR = Numbers(sizes.layer.in, sizes.rank);
  ForEachSite(static_cast<size_t>(sizes.layers), [](size_t, StackMemory&) {
    const auto [Q_B, R_B] = at::linalg_qr(B_OR, "reduced");
    const auto [Q_A, R_A] = at::linalg_qr(A_IR, "reduced");
    at::linalg_svd(at::matmul(R_B, R_A.t()), /*full_matrices=*/false);
  });
}

void DenseSvd(const Sizes& sizes) {
  static const at::Tensor sum_OI =
      at::matmul(Numbers(sizes.layer.out, sizes.rank), Numbers(sizes.rank, sizes.layer.in));
  at::linalg_svd(sum_OI, /*full_matrices=*/false);
}

void Gram(const Sizes& sizes) {
  static const at::Tensor B_RO = Numbers(sizes.rank, sizes.layer.out);
  static const at::Tensor A_RI = Numbers(sizes.rank, sizes.layer.in);
  ForEachSite(static_cast<size_t>(sizes.layers), [](size_t, StackMemory&) {
    at::matmul(B_RO, B_RO.t());
    at::matmul(A_RI, A_RI.t());
  });
}

}  // namespace

const std::vector<std::string>& Baselines() {
  static const auto* names = new std::vector<std::string>{"copy", "qr-svd", "dense-svd", "gram"};
  return *names;
}

double BaselineSeconds(const std::string& name, int64_t layers, const LinearSite& layer,
                       int64_t rank, uint64_t bytes, int64_t repeat) {
  const Sizes sizes{layers, layer, rank, bytes};
  std::vector<double> seconds;
  // The first run only makes the numbers.
  for (int64_t i = name == "dense-svd" ? 1 : 0; i <= repeat; ++i) {
    const auto began = std::chrono::steady_clock::now();
    if (name == "copy") Copy(sizes);
    if (name == "qr-svd") QrSvd(sizes);
    if (name == "dense-svd") DenseSvd(sizes);
    if (name == "gram") Gram(sizes);
    const auto took = std::chrono::steady_clock::now() - began;
    if (i > 0) seconds.push_back(std::chrono::duration<double>(took).count());
  }
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[seconds.size() / 2];
  return name == "dense-svd" ? median * static_cast<double>(layers) : median;
}

}  // namespace weft::cli
