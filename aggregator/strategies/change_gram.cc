// ⟨D_i, D_j⟩ of what the clients changed, D_k = ΔW_k − sent_k: with blocks side by side
//   ⟨ΔW_i, ΔW_j⟩ = Σ (B_iᵀ B_j) ∘ (A_i A_jᵀ),
// and what was sent is the same for many clients, so that its products are few.
//
// Shape legend: K clients, G groups that were sent the same, R all ranks of the stack, S those of
// what was sent, b rows of a block.

#include <map>
#include <mutex>
#include <optional>

#include "aggregator/strategies/robust_rules.h"
#include "aggregator/strategies/site_threads.h"
#include "aggregator/strategies/slots.h"
#include "common/base/str.h"
#include "common/tensor/guard.h"

namespace weft {
namespace {

// Rows of a product of Gram matrices that are formed at once: bounds the memory of large rounds.
constexpr int64_t kBlockRows = 1024;

/// Blocks of factors side by side; block i has ranks begins[i] to begins[i + 1].
struct Blocks {
  LowRank factors;
  std::vector<int64_t> begins;

  [[nodiscard]] int64_t count() const { return static_cast<int64_t>(begins.size()) - 1; }
  [[nodiscard]] bool even() const {
    for (int64_t i = 1; i + 1 < static_cast<int64_t>(begins.size()); ++i) {
      const auto at = static_cast<size_t>(i);
      if (begins[at + 1] - begins[at] != begins[1]) return false;
    }
    return true;
  }
};

// Sums the columns of each block: [b×R] → [b×count].
at::Tensor SumBlocks(const at::Tensor& values_bR, const Blocks& blocks) {
  if (blocks.count() > 0 && blocks.even()) {
    return values_bR.view({values_bR.size(0), blocks.count(), -1}).sum(2);
  }
  std::vector<int64_t> owners;
  for (int64_t i = 0; i < blocks.count(); ++i) {
    const auto at = static_cast<size_t>(i);
    owners.insert(owners.end(), static_cast<size_t>(blocks.begins[at + 1] - blocks.begins[at]), i);
  }
  at::Tensor sums = at::zeros({values_bR.size(0), blocks.count()}, values_bR.options());
  return sums.index_add_(1, at::tensor(owners, at::kLong).to(values_bR.device()), values_bR);
}

// ⟨x_i, y_j⟩ for all blocks [x×y], a few rows of the large products at a time.
at::Tensor InnerProducts(const Blocks& x, const Blocks& y) {
  const int64_t rows = x.begins.back();
  at::Tensor by_row = at::empty({rows, y.count()}, x.factors.A_RI.options());
  for (int64_t first = 0; first < rows; first += kBlockRows) {
    const int64_t count = std::min(kBlockRows, rows - first);
    const at::Tensor values =
        at::matmul(x.factors.B_OR.narrow(1, first, count).t(), y.factors.B_OR)
            .mul_(at::matmul(x.factors.A_RI.narrow(0, first, count), y.factors.A_RI.t()));
    by_row.narrow(0, first, count).copy_(SumBlocks(values, y));
  }
  return SumBlocks(by_row.t().contiguous(), x).t().contiguous();
}

// What clients were sent at this site, each kind once, and which of them each client has; −1:
// nothing.
struct SentBlocks {
  Blocks blocks;
  std::vector<int64_t> of_client;
};

Result<SentBlocks> BlocksSent(const Strategy& strategy, const MergeInput& input, size_t site) {
  SentBlocks sent;
  std::vector<LowRank> factors;
  sent.blocks.begins.push_back(0);
  std::vector<const ClientPlan*> heads;
  std::vector<int64_t> block_of;
  for (size_t k = 0; k < input.updates.size(); ++k) {
    const ClientPlan& plan = input.updates.plan(k);
    size_t kind = 0;
    while (kind < heads.size() && !SentAlike(*heads[kind], plan)) ++kind;
    if (kind == heads.size()) {
      heads.push_back(&plan);
      WEFT_TRY_ASSIGN(const std::optional<LowRank> own,
                      strategy.Sent(input.StartOf(k), site, plan));
      block_of.push_back(own ? sent.blocks.count() : -1);
      if (own) {
        factors.push_back(*own);
        sent.blocks.begins.push_back(sent.blocks.begins.back() + own->A_RI.size(0));
      }
    }
    sent.of_client.push_back(block_of[kind]);
  }
  if (!factors.empty()) sent.blocks.factors = SideBySide(factors);
  return sent;
}

Result<at::Tensor> SiteGram(const Strategy& strategy, const MergeInput& input, size_t site,
                            StackMemory& memory) {
  WEFT_TRY_ASSIGN(const SiteStack stack, input.updates.StackIn(memory, site));
  const Blocks updates{stack.factors, stack.begins};
  const at::Tensor scale = at::tensor(WeightsOf(input.updates), at::kDouble).reciprocal();
  at::Tensor gram = InnerProducts(updates, updates).cpu() * scale.unsqueeze(1) * scale;
  WEFT_TRY_ASSIGN(const SentBlocks sent, BlocksSent(strategy, input, site));
  if (sent.blocks.count() == 0) return gram;
  // Σ over groups by a matrix that says who was sent what.
  at::Tensor who = at::zeros({sent.blocks.count(), gram.size(0)}, at::kDouble);
  for (size_t k = 0; k < sent.of_client.size(); ++k) {
    if (sent.of_client[k] >= 0) who[sent.of_client[k]][static_cast<int64_t>(k)] = 1;
  }
  const at::Tensor cross_KG = InnerProducts(updates, sent.blocks).cpu() * scale.unsqueeze(1);
  const at::Tensor cross = at::matmul(cross_KG, who);
  const at::Tensor among = InnerProducts(sent.blocks, sent.blocks).cpu();
  return gram - cross - cross.t() + at::matmul(who.t(), at::matmul(among, who));
}

}  // namespace

Result<at::Tensor> ChangeGram(const Strategy& strategy, const MergeInput& input,
                              JobControl& control) {
  const size_t sites = input.global.adapter.sites.size();
  const auto clients = static_cast<int64_t>(input.updates.size());
  at::Tensor sum = at::zeros({clients, clients}, at::kDouble);
  std::mutex mutex;
  std::map<size_t, at::Tensor> waiting;  // for the sites before them
  size_t next = 0;
  std::map<size_t, Status> failed;
  ForEachSite(sites, [&](size_t site, StackMemory& memory) {
    if (control.cancelled) return;
    const std::string where = Str("[robust] site ", input.global.adapter.sites[site].site.path);
    Result<at::Tensor> gram =
        Guarded(where, [&] { return SiteGram(strategy, input, site, memory); });
    const std::scoped_lock lock(mutex);
    if (!gram.ok()) {
      failed.emplace(site, gram.status().Within(where));
      return;
    }
    waiting.emplace(site, std::move(gram).value());
    for (auto it = waiting.find(next); it != waiting.end(); it = waiting.find(++next)) {
      sum += it->second;
      waiting.erase(it);
    }
  });
  if (!failed.empty()) return failed.begin()->second;
  if (control.cancelled) return Cancelled("[robust] stopped on request");
  // ⟨D_i, D_j⟩ and ⟨D_j, D_i⟩ were rounded apart. Two clients that are each other's nearest have
  // one distance, or rounding would break the tie of their scores.
  return (sum + sum.t()) / 2;
}

}  // namespace weft
