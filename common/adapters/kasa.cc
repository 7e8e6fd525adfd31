#include "common/adapters/kasa.h"

#include <algorithm>
#include <cmath>

#include "common/adapters/factor_init.h"
#include "common/adapters/kasa_merge.h"
#include "common/adapters/method_spec.h"
#include "common/adapters/singular_form.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/random.h"
#include "common/base/str.h"

// Shape legend: R rank, I in, O out, G matrices of one shape.

namespace weft {
namespace {

constexpr double kBetaStandard = 1e-4;
constexpr double kGammaStandard = 1e-3;
constexpr double kCoefficientMax = 1e6;
constexpr int64_t kFromRank = -1;  // truncation

// A direct SVD costs little up to here; beyond it takes many times as long as the Gram matrix.
constexpr int64_t kDirectSvdMax = 64;

// Of the largest singular value: what is smaller is rounding of float32 factors.
constexpr double kNoise = 1e-7;

struct KasaOptions {
  double beta = kBetaStandard;
  double gamma = kGammaStandard;
  int64_t truncate = kFromRank;
  bool official = false;
};

Result<KasaOptions> ReadOptions(const AdapterSpec& spec) {
  KasaOptions options;
  WEFT_TRY_ASSIGN(options.beta, NumberOption(spec, "beta", kBetaStandard, 0, kCoefficientMax));
  WEFT_TRY_ASSIGN(options.gamma, NumberOption(spec, "gamma", kGammaStandard, 0, kCoefficientMax));
  WEFT_TRY_ASSIGN(options.truncate,
                  IntegerOption(spec, "truncate", kFromRank, 0, limits::kRankMax));
  WEFT_TRY_ASSIGN(const std::string mode, WordOption(spec, "mode", {"paper", "official"}));
  options.official = mode == "official";
  return options;
}

at::Tensor RandomSigma(int64_t rank, uint64_t seed, std::string_view path) {
  RandomStream stream = RandomStream::Derive(seed, {"adapter-init", path, "sigma"});
  std::vector<float> values(static_cast<size_t>(rank));
  for (float& value : values) value = static_cast<float>(stream.Normal());
  return at::tensor(values);
}

// Wide matrices [R×N] of one shape, to be worked on together: one product for all instead of one
// for each.
struct SameShape {
  std::vector<at::Tensor> matrices_RN;
};

void AddTo(std::vector<SameShape>& groups, const at::Tensor& matrix_RN) {
  for (SameShape& group : groups) {
    if (group.matrices_RN[0].sizes() != matrix_RN.sizes()) continue;
    group.matrices_RN.push_back(matrix_RN);
    return;
  }
  groups.push_back({{matrix_RN}});
}

// Σ ‖M·Mᵀ − I‖_F over the group's matrices M [R×N], or the released code's Σ ‖Mᵀ·M − I‖_F, which by
// ‖Mᵀ·M − I_N‖² = ‖M·Mᵀ − I_R‖² + N − R needs no N×N matrix either.
at::Tensor Nonorthogonality(const SameShape& group, bool official) {
  const at::Tensor matrices_GRN = at::stack(group.matrices_RN);
  const int64_t rank = matrices_GRN.size(1);
  const at::Tensor off_GRR = at::matmul(matrices_GRN, matrices_GRN.transpose(1, 2)) -
                             at::eye(rank, matrices_GRN.options());
  // Unlike the root of a sum of squares, this norm's gradient is 0, not NaN, where it is 0.
  const at::Tensor norms_G = at::linalg_vector_norm(off_GRR, 2, at::IntArrayRef({1, 2}));
  const int64_t rest = matrices_GRN.size(2) - rank;
  if (!official || rest == 0) return norms_G.sum();
  return (norms_G.square() + rest).sqrt().sum();
}

class Kasa final : public Adapter {
 public:
  std::string_view name() const override { return "kasa"; }

  Status CheckSpec(const AdapterSpec& spec) const override {
    WEFT_TRY(CheckMethodSpec(spec, {"beta", "gamma", "truncate", "mode"}));
    return ReadOptions(spec).status();
  }

  Result<std::vector<SiteLayout>> Layout(const AdapterSpec& spec,
                                         std::span<const LinearSite> sites) const override {
    std::vector<SiteLayout> layout;
    layout.reserve(sites.size());
    for (size_t i = 0; i < sites.size(); ++i) {
      const int64_t rank = SiteRank(spec, sites[i]);
      WEFT_TRY(CheckRank(rank, sites[i].path));
      layout.push_back(
          {{"A", {rank, sites[i].in}, i}, {"B", {sites[i].out, rank}, i}, {"sigma", {rank}, i}});
    }
    return layout;
  }

  Result<AdapterState> Init(const AdapterSpec& spec, std::span<const LinearSite> sites,
                            uint64_t seed) const override {
    WEFT_TRY(CheckSpec(spec));
    AdapterState state;
    state.spec = spec;
    for (const LinearSite& site : sites) {
      const int64_t rank = SiteRank(spec, site);
      WEFT_TRY(CheckRank(rank, site.path));
      state.sites.push_back({site,
                             {{"A", RandomFactorA(rank, site.in, seed, site.path, "A")},
                              {"B", at::zeros({site.out, rank}, at::kFloat)},
                              {"sigma", RandomSigma(rank, seed, site.path)}}});
    }
    return state;
  }

  std::vector<std::string> Trainable(const AdapterSpec&) const override {
    return {"A", "B", "sigma"};
  }

  LowRank Effective(const AdapterState& state, size_t site_index) const override {
    const SiteState& site = state.sites.at(site_index);
    const double scaling = ScalingFor(state.spec, site.site.path);
    return {site.Get("A"), site.Get("B") * (site.Get("sigma") * scaling)};
  }

  bool projects() const override { return true; }

  // A and B as singular vectors and σ as true singular values: both regularisers of A and B are 0
  // then. A slot that the factors leave empty is begun as a fresh one, with B = 0 and σ = 1: with
  // σ = 0 neither A nor B could learn.
  Result<AdapterState> Project(const AdapterSpec& spec,
                               const LowRankAdapter& factors) const override {
    WEFT_TRY(CheckSpec(spec));
    const at::NoGradGuard no_grad;
    AdapterState state;
    state.spec = spec;
    for (const LowRankSite& site : factors) {
      WEFT_TRY_ASSIGN(SiteState projected, ProjectSite(spec, site));
      state.sites.push_back(std::move(projected));
    }
    return state;
  }

  Status CheckMerges(const AdapterSpec& spec) const override { return CheckSpec(spec); }

  // Stacked with the weights in σ, then its best approximation of the spec's rank.
  Result<Merged> Merge(std::span<const AdapterUpdate> updates, const AdapterSpec& spec,
                       uint64_t) const override {
    const at::NoGradGuard no_grad;
    WEFT_CHECK(!updates.empty(), "a merge of no updates");
    Merged merged;
    LowRankAdapter cut;
    for (size_t i = 0; i < updates[0].state->sites.size(); ++i) {
      const LinearSite& site = updates[0].state->sites[i].site;
      std::vector<KasaUpdate> own;
      for (const AdapterUpdate& update : updates) {
        const SiteState& theirs = update.state->sites[i];
        own.push_back({{theirs.Get("A").to(at::kDouble), theirs.Get("B").to(at::kDouble),
                        theirs.Get("sigma").to(at::kDouble)},
                       ScalingFor(update.state->spec, site.path),
                       update.weight});
      }
      const KasaFactors stack = StackKasa(own);
      merged.before_cutting.push_back({site, LowerKasa(stack)});
      cut.push_back({site, LowerKasa(OrthonormalKasa(stack, SiteRank(spec, site)))});
    }
    WEFT_TRY_ASSIGN(merged.state, Project(spec, cut));
    return merged;
  }

  at::Tensor Penalty(const AdapterState& state) const override {
    const KasaOptions options = ReadOptions(state.spec).value();
    if (state.sites.empty() || (options.beta == 0 && options.gamma == 0)) return {};
    std::vector<at::Tensor> sigmas;
    std::vector<SameShape> groups;
    for (const SiteState& site : state.sites) {
      sigmas.push_back(site.Get("sigma"));
      AddTo(groups, site.Get("A"));
      AddTo(groups, site.Get("B").t());
    }
    at::Tensor penalty = at::cat(sigmas).square().sum() * options.beta;
    for (const SameShape& group : groups) {
      penalty = penalty + Nonorthogonality(group, options.official) * options.gamma;
    }
    if (!options.official) return penalty;
    return penalty / static_cast<double>(state.sites.size());
  }

  // Sites of which nothing is removed are left out.
  Result<std::optional<LowRankAdapter>> BaseChange(const AdapterSpec& spec,
                                                   std::span<const LinearSite> sites,
                                                   const WeightOf& weight) const override {
    WEFT_TRY(CheckSpec(spec));
    const at::NoGradGuard no_grad;
    LowRankAdapter change;
    for (const LinearSite& site : sites) {
      WEFT_TRY_ASSIGN(const int64_t count, RemovedComponents(spec, site));
      if (count == 0) continue;
      WEFT_TRY_ASSIGN(const at::Tensor W_OI, weight(site));
      WEFT_CHECK(W_OI.dim() == 2 && W_OI.size(0) == site.out && W_OI.size(1) == site.in, site.path,
                 " is ", W_OI.sizes(), ", wanted ", site.out, "×", site.in);
      const LowRank removed = SmallestComponents(W_OI, count);
      change.push_back({site, {removed.A_RI.to(at::kFloat), -removed.B_OR.to(at::kFloat)}});
    }
    if (change.empty()) return std::optional<LowRankAdapter>();
    return std::optional<LowRankAdapter>(std::move(change));
  }

 private:
  static Result<SiteState> ProjectSite(const AdapterSpec& spec, const LowRankSite& site) {
    const int64_t rank = SiteRank(spec, site.site);
    WEFT_TRY(CheckRank(rank, site.site.path));
    const SingularForm form = SingularFormOf(site.factors);
    const double floor = form.rank() == 0 ? 0 : kNoise * form.S_Q[0].item<double>();
    const int64_t needed = (form.S_Q > floor).sum().item<int64_t>();
    if (needed > rank) {
      return FailedPrecondition(Str("[adapter] ", site.site.path, ": factors of rank ", needed,
                                    " do not fit a KaSA of rank ", rank));
    }
    const auto options = site.factors.A_RI.options().dtype(at::kFloat);
    const int64_t filled = std::min(form.rank(), rank);
    at::Tensor A_RI = at::zeros({rank, site.site.in}, options);
    at::Tensor B_OR = at::zeros({site.site.out, rank}, options);
    at::Tensor sigma_R = at::ones({rank}, options);
    A_RI.narrow(0, 0, filled).copy_(form.V_IQ.narrow(1, 0, filled).t());
    B_OR.narrow(1, 0, needed).copy_(form.U_OQ.narrow(1, 0, needed));
    sigma_R.narrow(0, 0, needed)
        .copy_(form.S_Q.narrow(0, 0, needed) / ScalingFor(spec, site.site.path));
    CompleteRows(A_RI, filled, site.site.path);
    return SiteState{site.site,
                     {{"A", std::move(A_RI)}, {"B", std::move(B_OR)}, {"sigma", sigma_R}}};
  }

  // Rows from `filled` on, where the factors had fewer than the rank: orthonormal to the others.
  static void CompleteRows(at::Tensor& A_RI, int64_t filled, const std::string& path) {
    const int64_t missing = A_RI.size(0) - filled;
    if (missing == 0) return;
    const at::Tensor fresh = RandomFactorA(missing, A_RI.size(1), 0, path, "A").to(A_RI.device());
    const at::Tensor columns = at::cat({A_RI.narrow(0, 0, filled), fresh}, 0).to(at::kDouble).t();
    const at::Tensor basis_IR = std::get<0>(at::linalg_qr(columns, "reduced"));
    A_RI.narrow(0, filled, missing).copy_(basis_IR.narrow(1, filled, missing).t());
  }
};

}  // namespace

Result<int64_t> RemovedComponents(const AdapterSpec& spec, const LinearSite& site) {
  WEFT_TRY_ASSIGN(const KasaOptions options, ReadOptions(spec));
  const bool own = options.truncate != kFromRank;
  const int64_t count = own ? options.truncate : RankFor(spec, site.path);
  const int64_t side = std::min(site.in, site.out);
  // The released code keeps the first in − r components of min(in, out).
  const int64_t removed =
      options.official ? std::max<int64_t>(0, side - std::max<int64_t>(0, site.in - count)) : count;
  if (removed >= side && removed > 0) {
    return InvalidArgument(Str("[kasa] site ", site.path, " has ", side,
                               " singular components, and truncating ", removed,
                               " leaves nothing of it; set kasa.truncate below ", side,
                               own ? "" : " (it is the rank where it is not set)",
                               ", or leave the layer out of the targets"));
  }
  return removed;
}

LowRank SmallestComponents(const at::Tensor& W_OI, int64_t count) {
  const at::NoGradGuard no_grad;
  const at::Tensor W = W_OI.detach().to(at::kDouble);
  const int64_t side = std::min(W.size(0), W.size(1));
  WEFT_CHECK(count >= 0 && count <= side, count, " components of ", side);
  const bool wide = W.size(0) <= W.size(1);
  if (side <= kDirectSvdMax) {
    const auto [u, s, vh] = at::linalg_svd(W, /*full_matrices=*/false);
    const at::Tensor U_OR = u.narrow(1, side - count, count).flip(1);
    const at::Tensor S_R = s.narrow(0, side - count, count).flip(0);
    const at::Tensor V_RI = vh.narrow(0, side - count, count).flip(0);
    if (wide) return {V_RI * S_R.unsqueeze(1), U_OR};
    return {V_RI, U_OR * S_R};
  }
  const at::Tensor gram = wide ? at::matmul(W, W.t()) : at::matmul(W.t(), W);
  const at::Tensor vectors = std::get<1>(at::linalg_eigh(gram)).narrow(1, 0, count).contiguous();
  if (wide) return {at::matmul(vectors.t(), W), vectors};
  return {vectors.t().contiguous(), at::matmul(W, vectors)};
}

const Adapter* KasaAdapter() {
  static const Kasa method;
  return &method;
}

}  // namespace weft
