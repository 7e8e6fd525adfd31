// Stacks of a round's updates, site by site.
//
// Shape legend: O out, I in, R rank.

#include "aggregator/strategies/strategy.h"

namespace weft {
namespace {

// The memory as a matrix [rows×columns], of whose old content the first `kept` rows stay. Where it
// is too small it is made large enough for `room` rows.
at::Tensor Matrix(at::Tensor& memory, int64_t kept, int64_t rows, int64_t room, int64_t columns) {
  if (memory.numel() < rows * columns) {
    at::Tensor larger = at::empty({room * columns}, memory.options());
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

Result<PlainFactors> UpdateSource::Plain(size_t client, size_t site) const {
  WEFT_TRY_ASSIGN(LowRank factors, Factors(client, site));
  return PlainFactors{std::move(factors)};
}

Result<AdapterState> UpdateSource::State(size_t) const {
  return Internal("[merge] these updates are in lowered form only");
}

Result<std::vector<NamedTensor>> UpdateSource::Dense(size_t) const {
  return std::vector<NamedTensor>();
}

Result<SiteStack> UpdateSource::Stack(size_t site) const {
  StackMemory memory;
  return StackIn(memory, site);
}

std::vector<double> WeightsOf(const UpdateSource& updates) {
  std::vector<double> weights;
  for (size_t k = 0; k < updates.size(); ++k) weights.push_back(updates.weight(k));
  return weights;
}

Result<LowRankSum> UpdateSource::Mean(size_t site) const {
  WEFT_TRY_ASSIGN(const SiteStack stack, Stack(site));
  LowRankSum mean(stack.factors.B_OR.size(0), stack.factors.A_RI.size(1));
  mean.Add(stack.factors);
  return mean;
}

Status UpdateSource::EachStack(
    size_t site, const std::function<Status(size_t first, const SiteStack& stack)>& use) const {
  WEFT_TRY_ASSIGN(const SiteStack stack, Stack(site));
  return use(0, stack);
}

Result<SiteStack> UpdateSource::StackIn(StackMemory& memory, size_t site, size_t first,
                                        size_t last) const {
  SiteStack stack;
  stack.begins.push_back(0);
  for (size_t k = first; k < last; ++k) {
    WEFT_TRY_ASSIGN(const PlainFactors plain, Plain(k, site));
    const LowRank& own = plain.factors;
    const int64_t begin = stack.begins.back();
    const int64_t rank = own.A_RI.size(0);
    const int64_t end = begin + rank;
    const int64_t room = end + rank * static_cast<int64_t>(last - 1 - k);
    stack.begins.push_back(end);
    stack.factors.A_RI = Matrix(memory.A, begin, end, room, own.A_RI.size(1));
    stack.factors.A_RI.narrow(0, begin, rank).copy_(own.A_RI);
    // B lies transposed, so that a client's part is one piece.
    const at::Tensor B_RO = Matrix(memory.B, begin, end, room, own.B_OR.size(0));
    B_RO.narrow(0, begin, rank).copy_(own.B_OR.t()).mul_(weight(k) * plain.scale);
    stack.factors.B_OR = B_RO.t();
  }
  return stack;
}

}  // namespace weft
