// golden/msplora: the official code as it is and as it was meant (README there), and the msp.* part
// of golden/federation. Layers, tiers and who owns which pair are those of the files' tables, so
// the sharing is built by hand, and the method's own layout is held against it where the released
// assignment is the paper's.
//
// Shape legend: R rank, I in, O out, L layers, T tiers, N rows of input.

#include "common/adapters/msplora.h"

#include <cmath>
#include <filesystem>
#include <map>
#include <set>

#include <gtest/gtest.h>

#include "common/adapters/msplora_merge.h"
#include "tests/parity/methods/golden_set.h"
#include "tests/support/paths.h"

namespace weft::testing {
namespace {

constexpr double kTolerance = 1e-12;
constexpr double kFederationTolerance = 1e-11;
constexpr int64_t kOfficialGroups = 3;

struct Pair {
  at::Tensor A_RI;
  at::Tensor B_OR;
};

// One module type of one case.
struct Kind {
  std::string prefix;  // "L6."
  std::string name;    // "query"
  at::Tensor owners_LT;
  at::Tensor active_LT;
  std::vector<double> scaling_T;
  std::vector<std::map<int64_t, Pair>> pairs_T;  // by the layer that owns them
  std::vector<LinearSite> sites_L;

  [[nodiscard]] int64_t depth() const { return owners_LT.size(0); }
  [[nodiscard]] int64_t tiers() const { return owners_LT.size(1); }
  [[nodiscard]] int64_t Owner(int64_t layer, int64_t tier) const {
    return owners_LT[layer][tier].item<int64_t>();
  }
  [[nodiscard]] int64_t Rank(size_t tier) const {
    return pairs_T[tier].begin()->second.A_RI.size(0);
  }
  [[nodiscard]] std::string Layer(int64_t layer) const { return Str(name, ".layer", layer, "."); }
};

Kind ReadKind(GoldenSet& golden, const std::string& prefix, const std::string& name) {
  const std::string stem = prefix + name;
  Kind kind{prefix,
            name,
            golden.Get(stem + ".owner_table"),
            golden.Get(stem + ".active_in_official_forward"),
            {},
            {},
            {}};
  if (kind.depth() != golden.Count(stem + ".layer") ||
      kind.tiers() != golden.Count(stem + ".tier") ||
      kind.active_LT.sizes() != kind.owners_LT.sizes()) {
    throw GoldenError(Str(stem, ": tables, layers and tiers do not agree"));
  }
  for (int64_t t = 0; t < kind.tiers(); ++t) {
    const std::string tier = Str(stem, ".tier", t, ".");
    kind.scaling_T.push_back(golden.Number(tier + "scaling"));
    std::map<int64_t, Pair> pairs;
    for (const std::string& owner : golden.Between(tier + "owner", ".A")) {
      const std::string pair = tier + "owner" + owner;
      pairs[std::stoll(owner)] = {golden.Doubles(pair + ".A").requires_grad_(true),
                                  golden.Doubles(pair + ".B").requires_grad_(true)};
    }
    if (pairs.empty()) throw GoldenError(Str(tier, " has no pair"));
    kind.pairs_T.push_back(std::move(pairs));
  }
  for (int64_t l = 0; l < kind.depth(); ++l) {
    const at::Tensor W_OI = golden.Doubles(Str(stem, ".layer", l, ".W"));
    kind.sites_L.push_back({Str("encoder.layer.", l, ".", name), W_OI.size(1), W_OI.size(0)});
  }
  return kind;
}

AdapterSpec SpecOf(const Kind& kind) {
  AdapterSpec spec;
  spec.method = "msplora";
  spec.alpha = kind.scaling_T[0] * static_cast<double>(kind.Rank(0));
  std::string ranks;
  for (size_t t = 0; t < kind.pairs_T.size(); ++t) {
    ranks += Str(t == 0 ? "" : ",", kind.Rank(t));
  }
  spec.options = {{"msplora.ranks", ranks}, {"msplora.groups", Str(kOfficialGroups)}};
  return spec;
}

// A state whose sites hold the pairs of the owner table; of those that are active only, if asked.
// A layer without any pair is no site of it.
AdapterState StateOf(const Kind& kind, bool only_active) {
  AdapterState state;
  state.spec = SpecOf(kind);
  const std::vector<std::string> names = TierNames(kind.tiers());
  // The method has one alpha; where a file's tiers have several, B makes up for it.
  std::map<std::pair<int64_t, int64_t>, at::Tensor> B_of;
  for (int64_t l = 0; l < kind.depth(); ++l) {
    SiteState site{kind.sites_L[static_cast<size_t>(l)], {}};
    for (int64_t t = 0; t < kind.tiers(); ++t) {
      if (only_active && kind.active_LT[l][t].item<int64_t>() == 0) continue;
      const auto tier = static_cast<size_t>(t);
      const Pair& pair = kind.pairs_T[tier].at(kind.Owner(l, t));
      const double own = TierScaling(state.spec, site.site.path, pair.A_RI.size(0));
      const double ratio = kind.scaling_T[tier] / own;
      at::Tensor& B_OR = B_of[{t, kind.Owner(l, t)}];
      if (!B_OR.defined()) B_OR = std::abs(ratio - 1) < 1e-14 ? pair.B_OR : pair.B_OR * ratio;
      site.tensors.push_back({names[tier] + ".A", pair.A_RI});
      site.tensors.push_back({names[tier] + ".B", B_OR});
    }
    if (!site.tensors.empty()) state.sites.push_back(std::move(site));
  }
  return state;
}

// Every output, base included, and every gradient of Σ ⟨y, dy⟩.
void ExpectForwardAndGradients(GoldenSet& golden, const Kind& kind, const std::string& mode) {
  const AdapterState state = StateOf(kind, mode == "official_asis.");
  for (const auto& pairs : kind.pairs_T) {
    for (const auto& [owner, pair] : pairs) {
      for (at::Tensor tensor : {pair.A_RI, pair.B_OR}) {
        tensor.mutable_grad() = at::zeros_like(tensor).detach();
      }
    }
  }
  const at::Tensor x_NI = golden.Doubles(kind.prefix + "x");
  const std::vector<LowRank> factors = MspLoraAdapter()->EffectiveAll(state, nullptr);
  size_t next = 0;
  at::Tensor loss = at::zeros({}, at::kDouble);
  for (int64_t l = 0; l < kind.depth(); ++l) {
    const std::string stem = kind.prefix + kind.Layer(l);
    at::Tensor y_NO =
        at::matmul(x_NI, golden.Doubles(stem + "W").t()) + golden.Doubles(stem + "bias");
    if (next < factors.size() && state.sites[next].site == kind.sites_L[static_cast<size_t>(l)]) {
      const LowRank& own = factors[next++];
      y_NO = y_NO + at::matmul(at::matmul(x_NI, own.A_RI.t()), own.B_OR.t());
    }
    golden.ExpectClose(kind.prefix + mode + kind.Layer(l) + "y", y_NO, kTolerance);
    loss = loss + (y_NO * golden.Doubles(stem + "dy")).sum();
  }
  loss.backward();
  for (int64_t t = 0; t < kind.tiers(); ++t) {
    for (const auto& [owner, pair] : kind.pairs_T[static_cast<size_t>(t)]) {
      const std::string stem =
          Str(kind.prefix, mode, "grad.", kind.name, ".tier", t, ".owner", owner);
      golden.ExpectClose(stem + ".A", pair.A_RI.grad(), kTolerance);
      golden.ExpectClose(stem + ".B", pair.B_OR.grad(), kTolerance);
    }
  }
}

// The released assignment (methods.md, 2): a layer makes a mid-level pair if it lies less than one
// layer behind the beginning of its third, and else looks it up at the integer part of that
// beginning, which is another third's last layer where 3 does not divide L.
int64_t OfficialOwner(int64_t layer, int64_t tier, int64_t tiers, int64_t depth) {
  if (tier == 0) return 0;
  if (tier + 1 == tiers) return layer;
  const auto third = static_cast<double>(depth) / kOfficialGroups;
  for (int64_t j = kOfficialGroups - 1; j >= 0; --j) {
    const double begin = static_cast<double>(j) * third;
    const double behind = static_cast<double>(layer) - begin;
    if (behind < 0) continue;
    return behind < 1 ? layer : OfficialOwner(static_cast<int64_t>(begin), tier, tiers, depth);
  }
  return layer;
}

// The tables are the released rule's; and the method's own sharing is theirs wherever the two
// rules mean the same.
void ExpectAssignment(const Kind& kind) {
  const std::vector<SiteLayout> layout =
      MspLoraAdapter()->Layout(SpecOf(kind), kind.sites_L).value();
  for (int64_t l = 0; l < kind.depth(); ++l) {
    const SiteLayout& own = layout[static_cast<size_t>(l)];
    ASSERT_EQ(static_cast<int64_t>(own.size()), 2 * kind.tiers());
    for (int64_t t = 0; t < kind.tiers(); ++t) {
      const std::string where = Str(kind.prefix, kind.name, " layer ", l, " tier ", t);
      const int64_t owner = kind.Owner(l, t);
      EXPECT_EQ(owner, OfficialOwner(l, t, kind.tiers(), kind.depth())) << where;
      EXPECT_EQ(kind.active_LT[l][t].item<int64_t>(), owner == l ? 1 : 0) << where;
      const bool is_mid = t > 0 && t + 1 < kind.tiers();
      if (is_mid && kind.depth() % kOfficialGroups != 0) continue;
      const TensorLayout& A = own[static_cast<size_t>(2 * t)];
      EXPECT_EQ(static_cast<int64_t>(A.owner), owner) << where;
      const LinearSite& site = kind.sites_L[static_cast<size_t>(l)];
      EXPECT_EQ(A.shape[0], std::min({kind.Rank(static_cast<size_t>(t)), site.in, site.out}))
          << where;
    }
  }
}

std::vector<std::filesystem::path> Files() {
  std::set<std::filesystem::path> files = {"msplora/msplora.safetensors",
                                           "msplora/msplora_nondivisible.safetensors"};
  if (std::filesystem::is_directory(GoldenDir() / "msplora")) {
    for (const auto& entry : std::filesystem::directory_iterator(GoldenDir() / "msplora")) {
      if (entry.path().extension() == ".safetensors") {
        files.insert("msplora" / entry.path().filename());
      }
    }
  }
  return {files.begin(), files.end()};
}

TEST(MsploraParity, OutputsGradientsAndSharingAreThoseOfTheOfficialCode) {
  for (const std::filesystem::path& file : Files()) {
    GoldenSet golden(file);
    for (const std::string& prefix : golden.Cases("x")) {
      int64_t trainable = 0;
      const std::vector<std::string> kinds = golden.Between(prefix, ".owner_table");
      ASSERT_FALSE(kinds.empty()) << file << " " << prefix;
      for (const std::string& name : kinds) {
        SCOPED_TRACE(file.string() + " " + prefix + name);
        const Kind kind = ReadKind(golden, prefix, name);
        ExpectAssignment(kind);
        ExpectForwardAndGradients(golden, kind, "intended.");
        ExpectForwardAndGradients(golden, kind, "official_asis.");
        trainable += StateOf(kind, false).NumParameters();
      }
      EXPECT_EQ(golden.Integer(prefix + "n_trainable"), trainable) << file << " " << prefix;
    }
    golden.ExpectAllUsed();
  }
}

// One client of golden/federation. Tiers that the file does not have are missing ones.
AdapterState ReadClient(GoldenSet& golden, const std::string& client, double alpha, int64_t groups,
                        const std::vector<LinearSite>& sites) {
  const auto depth = static_cast<int64_t>(sites.size());
  AdapterState state;
  state.spec.method = "msplora";
  state.spec.alpha = alpha;
  std::string ranks;
  for (const char* first : {"global", "mid0", "layer0"}) {
    const std::string name = client + first + ".A";
    ranks += Str(ranks.empty() ? "" : ",", golden.Has(name) ? golden.Get(name).size(0) : 0);
  }
  state.spec.options = {{"msplora.ranks", ranks}, {"msplora.groups", Str(groups)}};
  const Result<std::vector<SiteLayout>> layout = MspLoraAdapter()->Layout(state.spec, sites);
  WEFT_CHECK(layout.ok(), layout.status());
  for (size_t i = 0; i < sites.size(); ++i) {
    SiteState site{sites[i], {}};
    for (const TensorLayout& tensor : (*layout)[i]) {
      if (tensor.owner != i) {
        site.tensors.push_back({tensor.name, state.sites[tensor.owner].Get(tensor.name)});
        continue;
      }
      const auto l = static_cast<int64_t>(i);
      const size_t dot = tensor.name.find('.');
      std::string tier = tensor.name.substr(0, dot);
      if (tier == "mid") tier += Str(l * groups / depth);
      if (tier == "layer") tier += Str(l);
      site.tensors.push_back(
          {tensor.name, golden.Doubles(client + tier + tensor.name.substr(dot))});
    }
    state.sites.push_back(std::move(site));
  }
  return state;
}

at::Tensor Deltas(const LowRankAdapter& adapter) {
  std::vector<at::Tensor> deltas;
  for (const LowRankSite& site : adapter) {
    deltas.push_back(at::matmul(site.factors.B_OR, site.factors.A_RI));
  }
  return at::stack(deltas);
}

TEST(FederationParity, MsploraTiersMergeExactlyOverRanksAndGroupings) {
  GoldenSet golden("federation/exact_merge.safetensors");
  const std::vector<double> p = golden.Numbers("p");
  const std::vector<int64_t> groups = golden.Integers("msp.n_groups");
  const at::Tensor wanted_LOI = golden.Doubles("msp.mean_delta_W", {-1, -1, -1});
  ASSERT_EQ(golden.Count("msp.client"), static_cast<int64_t>(p.size()));
  ASSERT_EQ(groups.size(), p.size());
  std::vector<LinearSite> sites;
  for (int64_t l = 0; l < wanted_LOI.size(0); ++l) {
    sites.push_back({Str("layers.", l, ".m"), wanted_LOI.size(2), wanted_LOI.size(1)});
  }
  const double alpha = golden.Number("msp.alpha");
  std::vector<AdapterState> states;
  std::set<std::vector<int64_t>> mid_cells;
  for (size_t c = 0; c < p.size(); ++c) {
    states.push_back(ReadClient(golden, Str("msp.client", c, "."), alpha, groups[c], sites));
  }
  for (int64_t l = 0; l < wanted_LOI.size(0); ++l) {
    std::vector<int64_t> of;
    for (const int64_t g : groups) of.push_back(MidGroup(g, l, wanted_LOI.size(0)));
    mid_cells.insert(std::move(of));
  }
  std::vector<AdapterUpdate> updates;
  for (size_t c = 0; c < p.size(); ++c) updates.push_back({&states[c], p[c]});
  const Result<MspMerge> merge = MergeMsp(updates);
  ASSERT_TRUE(merge.ok()) << merge.status();
  golden.ExpectClose("msp.mean_delta_W", Deltas(LowerMsp(*merge)), kFederationTolerance);
  const int64_t full = std::max(wanted_LOI.size(1), wanted_LOI.size(2));
  golden.ExpectClose("msp.mean_delta_W", Deltas(LowerMsp(RecompressMsp(*merge, full))),
                     kFederationTolerance);
  // What clients share stays shared: one global pair, one mid-level pair a cell of the refinement.
  std::map<std::string, size_t> cells;
  for (const MspCell& cell : merge->cells) ++cells[cell.tier];
  EXPECT_LE(cells["global"], 1u);
  EXPECT_LE(cells["mid"], mid_cells.size());
  EXPECT_LE(cells["layer"], sites.size());
  EXPECT_EQ(cells.size(), 3u);
  golden.ExpectAllUsed("msp.");
}

}  // namespace
}  // namespace weft::testing
