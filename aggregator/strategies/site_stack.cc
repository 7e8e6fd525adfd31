// Stacks of a round's updates, site by site.
//
// Shape legend: O out, I in, R rank.

#include <algorithm>

#include "aggregator/strategies/strategy.h"

namespace weft {
namespace {

// The memory as a matrix [rows×columns], grown where it is too small; of its old content the first
// `kept` rows stay.
at::Tensor Matrix(at::Tensor& memory, int64_t kept, int64_t rows, int64_t columns) {
  if (memory.numel() < rows * columns) {
    at::Tensor larger = at::empty({std::max(rows, 2 * kept) * columns}, memory.options());
    larger.narrow(0, 0, kept * columns).copy_(memory.narrow(0, 0, kept * columns));
    memory = std::move(larger);
  }
  return memory.narrow(0, 0, rows * columns).view({rows, columns});
}

}  // namespace

LowRank SiteStack::Of(size_t client) const {
  const int64_t begin = begins[client];
  const int64_t rank = begins[client + 1] - begin;
  return {factors.A_RI.narrow(0, begin, rank), factors.B_OR.narrow(1, begin, rank)};
}

Result<SiteStack> UpdateSource::Stack(size_t site) const {
  StackMemory memory;
  return StackIn(memory, site);
}

Result<SiteStack> UpdateSource::StackIn(StackMemory& memory, size_t site) const {
  SiteStack stack;
  stack.begins.push_back(0);
  for (size_t k = 0; k < size(); ++k) {
    WEFT_TRY_ASSIGN(const LowRank own, Factors(k, site));
    const int64_t begin = stack.begins.back();
    const int64_t end = begin + own.A_RI.size(0);
    stack.begins.push_back(end);
    stack.factors.A_RI = Matrix(memory.A, begin, end, own.A_RI.size(1));
    stack.factors.A_RI.narrow(0, begin, end - begin).copy_(own.A_RI);
    // B lies transposed, so that a client's part is one piece.
    const at::Tensor B_RO = Matrix(memory.B, begin, end, own.B_OR.size(0));
    at::Tensor place = B_RO.narrow(0, begin, end - begin);
    at::mul_out(place, own.B_OR.t(), at::scalar_tensor(weight(k), own.B_OR.options()));
    stack.factors.B_OR = B_RO.t();
  }
  return stack;
}

}  // namespace weft
