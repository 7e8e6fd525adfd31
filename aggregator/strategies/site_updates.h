#pragma once
// The updates of one site as a merge looks at them, more than once: stacked in memory, or, for a
// rule that takes them as they pass and where the stack would be large, decoded anew each time a
// few clients at a time. Lives while its site is merged, on one thread.

#include <memory>

#include "aggregator/strategies/strategy.h"

namespace weft {

/// Other updates, seen through: what a view of them does not change.
class ForwardedUpdates : public UpdateSource {
 public:
  explicit ForwardedUpdates(const UpdateSource& all) : all_(all) {}

  [[nodiscard]] size_t size() const override { return all_.size(); }
  [[nodiscard]] const ClientPlan& plan(size_t client) const override { return all_.plan(client); }
  [[nodiscard]] double weight(size_t client) const override { return all_.weight(client); }
  [[nodiscard]] double update_norm(size_t client) const override {
    return all_.update_norm(client);
  }
  [[nodiscard]] const GlobalState* older_global(size_t client) const override {
    return all_.older_global(client);
  }
  [[nodiscard]] double discount(size_t client) const override { return all_.discount(client); }
  [[nodiscard]] Result<LowRank> Factors(size_t client, size_t site) const override {
    return all_.Factors(client, site);
  }
  [[nodiscard]] Result<PlainFactors> Plain(size_t client, size_t site) const override {
    return all_.Plain(client, site);
  }

 protected:
  [[nodiscard]] const UpdateSource& all() const { return all_; }

 private:
  const UpdateSource& all_;
};

/// Bytes of a stack from which on a rule that can do without is given parts of it, of about half as
/// many: what a merge holds then depends on the layers' sizes, not on how many clients there are.
inline constexpr int64_t kWholeStackBytesMax = int64_t{32} << 20;

/// Stacks lie in `memory`; `all` and `memory` must outlive what is returned.
[[nodiscard]] Result<std::unique_ptr<UpdateSource>> UpdatesOfSite(
    const UpdateSource& all, const LinearSite& layer, size_t site, StackMemory& memory,
    bool may_stream, int64_t whole_stack_bytes_max = kWholeStackBytesMax);

}  // namespace weft
