#include "common/adapters/msplora_merge.h"

#include <algorithm>
#include <limits>
#include <map>
#include <set>
#include <utility>

#include "common/adapters/adapter.h"
#include "common/adapters/method_spec.h"
#include "common/adapters/msplora.h"
#include "common/adapters/singular_form.h"
#include "common/base/str.h"

// Shape legend: R rank, I in, O out.

namespace weft {
namespace {

const at::Tensor* Find(const SiteState& site, const std::string& name) {
  for (const NamedTensor& tensor : site.tensors) {
    if (tensor.name == name) return &tensor.value;
  }
  return nullptr;
}

// "global.A" → "global".
std::string TierOf(const std::string& tensor) { return tensor.substr(0, tensor.find('.')); }

// global, mid, mid2, …, mid10, …, layer.
std::pair<size_t, std::string> TierOrder(const std::string& tier) {
  if (tier == "global") return {0, ""};
  if (tier == "layer") return {std::numeric_limits<size_t>::max(), ""};
  return {tier.size(), tier};
}

std::vector<std::string> TiersOf(std::span<const AdapterUpdate> updates) {
  std::set<std::pair<std::pair<size_t, std::string>, std::string>> found;
  for (const AdapterUpdate& update : updates) {
    for (const SiteState& site : update.state->sites) {
      for (const NamedTensor& tensor : site.tensors) {
        const std::string tier = TierOf(tensor.name);
        found.insert({TierOrder(tier), tier});
      }
    }
  }
  std::vector<std::string> tiers;
  for (const auto& [order, tier] : found) tiers.push_back(tier);
  return tiers;
}

Status CheckUpdates(std::span<const AdapterUpdate> updates) {
  if (updates.empty()) return InvalidArgument("[msplora] a merge of no client");
  const std::vector<SiteState>& wanted = updates[0].state->sites;
  for (size_t c = 0; c < updates.size(); ++c) {
    const AdapterState& state = *updates[c].state;
    if (state.spec.method != "msplora") {
      return InvalidArgument(Str("[msplora] client ", c, ": its adapter is a ", state.spec.method,
                                 ", not an msplora"));
    }
    if (state.sites.size() != wanted.size()) {
      return InvalidArgument(Str("[msplora] client ", c, " has ", state.sites.size(),
                                 " sites, client 0 has ", wanted.size()));
    }
    for (size_t i = 0; i < wanted.size(); ++i) {
      const LinearSite& got = state.sites[i].site;
      if (got == wanted[i].site) continue;
      return InvalidArgument(Str("[msplora] client ", c, ": site ", i, " is ", got.path, " ",
                                 got.out, "×", got.in, " (out×in), client 0 has ",
                                 wanted[i].site.path, " ", wanted[i].site.out, "×",
                                 wanted[i].site.in));
    }
  }
  return OkStatus();
}

// Sites that share the tier's pair with every client: the common refinement of the clients'
// partitions. Sites that no client gives the tier are in no cell.
std::vector<std::vector<size_t>> Refinement(std::span<const AdapterUpdate> updates,
                                            const std::string& tier) {
  std::vector<std::vector<size_t>> cells;
  std::map<std::vector<const c10::TensorImpl*>, size_t> known;  // looked up only
  for (size_t i = 0; i < updates[0].state->sites.size(); ++i) {
    std::vector<const c10::TensorImpl*> pairs;
    bool any = false;
    for (const AdapterUpdate& update : updates) {
      const at::Tensor* const A_RI = Find(update.state->sites[i], tier + ".A");
      pairs.push_back(A_RI == nullptr ? nullptr : A_RI->unsafeGetTensorImpl());
      any = any || A_RI != nullptr;
    }
    if (!any) continue;
    const auto [cell, is_new] = known.try_emplace(std::move(pairs), cells.size());
    if (is_new) cells.emplace_back();
    cells[cell->second].push_back(i);
  }
  return cells;
}

// One client's pair, with p·s kept apart from B.
struct Part {
  at::Tensor A_RI;
  at::Tensor B_OR;
  double share;
};

bool AllEqual(const std::vector<Part>& parts, at::Tensor Part::*side) {
  const at::Tensor& first = parts[0].*side;
  return std::all_of(parts.begin(), parts.end(), [&](const Part& part) {
    const at::Tensor& own = part.*side;
    return own.sizes() == first.sizes() && at::equal(own, first);
  });
}

at::Tensor Mean(const std::vector<Part>& parts, at::Tensor Part::*side) {
  at::Tensor mean = at::zeros_like(parts[0].*side);
  for (const Part& part : parts) mean.add_(part.*side, part.share);
  return mean;
}

LowRank Combined(const std::vector<Part>& parts) {
  if (AllEqual(parts, &Part::A_RI)) return {parts[0].A_RI, Mean(parts, &Part::B_OR)};
  if (AllEqual(parts, &Part::B_OR)) return {Mean(parts, &Part::A_RI), parts[0].B_OR};
  std::vector<at::Tensor> A;
  std::vector<at::Tensor> B;
  for (const Part& part : parts) {
    A.push_back(part.A_RI);
    B.push_back(part.B_OR * part.share);
  }
  return {at::cat(A, 0), at::cat(B, 1)};
}

MspCell MergeCell(std::span<const AdapterUpdate> updates, const std::string& tier,
                  std::vector<size_t> sites) {
  std::vector<Part> parts;
  for (const AdapterUpdate& update : updates) {
    const SiteState& site = update.state->sites[sites[0]];
    const at::Tensor* const A_RI = Find(site, tier + ".A");
    if (A_RI == nullptr) continue;
    const double scaling = TierScaling(update.state->spec, site.site.path, A_RI->size(0));
    parts.push_back({A_RI->detach().to(at::kDouble), site.Get(tier + ".B").detach().to(at::kDouble),
                     update.weight * scaling});
  }
  return {tier, std::move(sites), Combined(parts)};
}

// The cell of a tier that holds a site, or none.
const MspCell* CellOf(const MspMerge& merge, const std::string& tier, size_t site) {
  for (const MspCell& cell : merge.cells) {
    if (cell.tier != tier) continue;
    if (std::binary_search(cell.sites.begin(), cell.sites.end(), site)) return &cell;
  }
  return nullptr;
}

// Every pair of the layout must be one of the merge's, and every pair of the merge one of the
// layout's, or the state could not say what the merge says.
Status CheckCells(const std::vector<SiteLayout>& layout, const MspMerge& merge) {
  for (size_t i = 0; i < layout.size(); ++i) {
    for (const TensorLayout& tensor : layout[i]) {
      const std::string tier = TierOf(tensor.name);
      if (CellOf(merge, tier, i) != CellOf(merge, tier, tensor.owner)) {
        return FailedPrecondition(Str("[msplora] site ", merge.sites[i].path, " shares tier \"",
                                      tier, "\" with ", merge.sites[tensor.owner].path,
                                      " by the spec, and not by the merge: keep the merge's "
                                      "groups, or lower it to factors"));
      }
    }
  }
  for (const MspCell& cell : merge.cells) {
    for (const size_t i : cell.sites) {
      const bool has = std::any_of(layout[i].begin(), layout[i].end(), [&](const auto& tensor) {
        return TierOf(tensor.name) == cell.tier;
      });
      if (has) continue;
      return FailedPrecondition(Str("[msplora] site ", merge.sites[i].path,
                                    ": the merge has tier \"", cell.tier, "\", the spec has not"));
    }
  }
  return OkStatus();
}

// Puts the cell's leading slots into a fresh pair.
void Fill(const MspCell& cell, double scaling, at::Tensor A_RI, at::Tensor B_OR) {
  const LowRank pair = SingularFormOf(cell.factors).Leading(A_RI.size(0)).Balanced();
  const int64_t rank = pair.A_RI.size(0);
  A_RI.narrow(0, 0, rank).copy_(pair.A_RI);
  B_OR.narrow(1, 0, rank).copy_(pair.B_OR / scaling);
}

AdapterState PartOf(const AdapterState& state, const std::string& part) {
  AdapterState kept = state;
  SetOption(kept.spec, "part", part);
  for (SiteState& site : kept.sites) {
    std::erase_if(site.tensors, [&](const NamedTensor& tensor) {
      return (TierOf(tensor.name) == "layer") != (part == "own");
    });
  }
  return kept;
}

// "all" where the spec does not say.
std::string PartName(const AdapterSpec& spec) {
  for (const auto& [name, value] : spec.options) {
    if (name == "msplora.part") return value;
  }
  return "all";
}

AdapterSpec WholeSpec(AdapterSpec spec) {
  std::erase_if(spec.options, [](const auto& option) { return option.first == "msplora.part"; });
  return spec;
}

}  // namespace

Result<MspMerge> MergeMsp(std::span<const AdapterUpdate> updates) {
  const at::NoGradGuard no_grad;
  WEFT_TRY(CheckUpdates(updates));
  MspMerge merge;
  for (const SiteState& site : updates[0].state->sites) merge.sites.push_back(site.site);
  for (const std::string& tier : TiersOf(updates)) {
    for (std::vector<size_t>& cell : Refinement(updates, tier)) {
      merge.cells.push_back(MergeCell(updates, tier, std::move(cell)));
    }
  }
  return merge;
}

MspMerge RecompressMsp(const MspMerge& merge, int64_t rank) {
  MspMerge smaller = merge;
  for (MspCell& cell : smaller.cells) {
    cell.factors = SingularFormOf(cell.factors).Leading(rank).Balanced();
  }
  return smaller;
}

Result<AdapterState> MspStateOf(const AdapterSpec& spec, const MspMerge& merge, uint64_t seed) {
  const at::NoGradGuard no_grad;
  WEFT_TRY_ASSIGN(const std::vector<SiteLayout> layout,
                  MspLoraAdapter()->Layout(spec, merge.sites));
  WEFT_TRY(CheckCells(layout, merge));
  WEFT_TRY_ASSIGN(AdapterState state, MspLoraAdapter()->Init(spec, merge.sites, seed));
  for (size_t i = 0; i < layout.size(); ++i) {
    for (size_t j = 0; j + 1 < layout[i].size(); j += 2) {
      const MspCell* const cell = CellOf(merge, TierOf(layout[i][j].name), i);
      if (cell == nullptr || layout[i][j].owner != i) continue;
      Fill(*cell, TierScaling(spec, merge.sites[i].path, layout[i][j].shape[0]),
           state.sites[i].tensors[j].value, state.sites[i].tensors[j + 1].value);
    }
  }
  return state;
}

LowRankAdapter LowerMsp(const MspMerge& merge) {
  LowRankAdapter lowered;
  for (size_t i = 0; i < merge.sites.size(); ++i) {
    std::vector<at::Tensor> A = {at::zeros({0, merge.sites[i].in}, at::kDouble)};
    std::vector<at::Tensor> B = {at::zeros({merge.sites[i].out, 0}, at::kDouble)};
    for (const MspCell& cell : merge.cells) {
      if (!std::binary_search(cell.sites.begin(), cell.sites.end(), i)) continue;
      A.push_back(cell.factors.A_RI);
      B.push_back(cell.factors.B_OR);
    }
    lowered.push_back({merge.sites[i], {at::cat(A, 0), at::cat(B, 1)}});
  }
  return lowered;
}

Result<MspParts> SplitMsp(const AdapterState& state) {
  if (PartName(state.spec) != "all") {
    return InvalidArgument(Str("[msplora] the adapter is the \"", PartName(state.spec),
                               "\" part of one already, and is not split again"));
  }
  MspParts parts{PartOf(state, "shared"), PartOf(state, "own")};
  for (const AdapterState* part : {&parts.shared, &parts.own}) {
    WEFT_TRY(MspLoraAdapter()->CheckSpec(part->spec));
  }
  parts.own.dense.clear();  // whole modules are shared
  return parts;
}

Result<AdapterState> JoinMsp(const MspParts& parts) {
  if (PartName(parts.shared.spec) != "shared" || PartName(parts.own.spec) != "own" ||
      WholeSpec(parts.shared.spec) != WholeSpec(parts.own.spec) ||
      parts.shared.sites.size() != parts.own.sites.size()) {
    return InvalidArgument(
        "[msplora] wanted the \"shared\" and the \"own\" part of one adapter, of the same spec and "
        "sites");
  }
  AdapterState state = parts.shared;
  state.spec = WholeSpec(parts.shared.spec);
  for (size_t i = 0; i < state.sites.size(); ++i) {
    const SiteState& own = parts.own.sites[i];
    if (own.site != state.sites[i].site) {
      return InvalidArgument(Str("[msplora] site ", i, " of the shared part is ",
                                 state.sites[i].site.path, ", of the own part ", own.site.path));
    }
    state.sites[i].tensors.insert(state.sites[i].tensors.end(), own.tensors.begin(),
                                  own.tensors.end());
  }
  return state;
}

}  // namespace weft
