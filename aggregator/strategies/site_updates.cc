#include "aggregator/strategies/site_updates.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "common/base/check.h"

namespace weft {
namespace {

// What is the same however the factors are held.
class OneSite : public ForwardedUpdates {
 public:
  OneSite(const UpdateSource& all, size_t site) : ForwardedUpdates(all), site_(site) {}

  // A dense one is not formed twice.
  [[nodiscard]] Result<LowRankSum> Mean(size_t site) const override {
    if (!mean_) {
      WEFT_TRY_ASSIGN(mean_, NewMean(site));
    }
    return *mean_;
  }

 protected:
  [[nodiscard]] virtual Result<LowRankSum> NewMean(size_t site) const = 0;
  void CheckSite(size_t site) const {
    WEFT_CHECK(site == site_, "site ", site, " of the updates of site ", site_);
  }

 private:
  const size_t site_;
  mutable std::optional<LowRankSum> mean_;
};

class Stacked final : public OneSite {
 public:
  Stacked(const UpdateSource& all, size_t site, SiteStack stack)
      : OneSite(all, site), stack_(std::move(stack)) {}

  [[nodiscard]] Result<SiteStack> Stack(size_t site) const override {
    CheckSite(site);
    return stack_;
  }

 private:
  [[nodiscard]] Result<LowRankSum> NewMean(size_t site) const override {
    return UpdateSource::Mean(site);
  }

  const SiteStack stack_;
};

class Streamed final : public OneSite {
 public:
  Streamed(const UpdateSource& all, const LinearSite& layer, size_t site, StackMemory& memory,
           int64_t ranks)
      : OneSite(all, site), layer_(layer), memory_(memory), ranks_(ranks) {}

  [[nodiscard]] Status EachStack(
      size_t site,
      const std::function<Status(size_t first, const SiteStack& stack)>& use) const override {
    CheckSite(site);
    for (size_t first = 0; first < size();) {
      size_t last = first + 1;
      for (int64_t ranks = plan(first).adapter.rank; last < size(); ++last) {
        ranks += plan(last).adapter.rank;
        if (ranks > ranks_) break;
      }
      WEFT_TRY_ASSIGN(const SiteStack stack, all().StackIn(memory_, site, first, last));
      WEFT_TRY(use(first, stack));
      first = last;
    }
    return OkStatus();
  }

 private:
  [[nodiscard]] Result<LowRankSum> NewMean(size_t site) const override {
    LowRankSum mean(layer_.out, layer_.in);
    WEFT_TRY(EachStack(site, [&](size_t, const SiteStack& stack) {
      // A sum that is not dense yet keeps what it is given, and the next stack lies there.
      const int64_t ranks = mean.rank() + stack.begins.back();
      const bool keeps = !mean.dense() && ranks < std::min(layer_.out, layer_.in);
      mean.Add(keeps ? LowRank{stack.factors.A_RI.clone(), stack.factors.B_OR.clone()}
                     : stack.factors);
      return OkStatus();
    }));
    return mean;
  }

  const LinearSite& layer_;
  StackMemory& memory_;
  const int64_t ranks_;  // of a stack, unless one client has more
};

}  // namespace

Result<std::unique_ptr<UpdateSource>> UpdatesOfSite(const UpdateSource& all,
                                                    const LinearSite& layer, size_t site,
                                                    StackMemory& memory, bool may_stream,
                                                    int64_t whole_stack_bytes_max) {
  int64_t ranks = 0;
  for (size_t k = 0; k < all.size(); ++k) ranks += all.plan(k).adapter.rank;
  const int64_t bytes_a_rank = (layer.in + layer.out) * static_cast<int64_t>(sizeof(double));
  if (may_stream && ranks * bytes_a_rank > whole_stack_bytes_max) {
    const int64_t ranks_max = std::max<int64_t>(1, whole_stack_bytes_max / 2 / bytes_a_rank);
    return std::unique_ptr<UpdateSource>(new Streamed(all, layer, site, memory, ranks_max));
  }
  WEFT_TRY_ASSIGN(SiteStack stack, all.StackIn(memory, site));
  return std::unique_ptr<UpdateSource>(new Stacked(all, site, std::move(stack)));
}

}  // namespace weft
