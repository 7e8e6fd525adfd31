#include "sim/attack.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "common/adapters/adapter.h"
#include "common/adapters/distance.h"
#include "common/adapters/singular_form.h"
#include "common/base/check.h"
#include "common/base/str.h"

// Shape legend: R rank, I in, O out.

namespace weft::sim {
namespace {

struct AttackName {
  std::string_view name;
  AttackKind kind;
};
constexpr std::array<AttackName, 9> kAttacks{{{"none", AttackKind::kNone},
                                              {"sign-flip", AttackKind::kSignFlip},
                                              {"gaussian", AttackKind::kGaussian},
                                              {"alie", AttackKind::kAlie},
                                              {"inner-product", AttackKind::kInnerProduct},
                                              {"gauge-bomb", AttackKind::kGaugeBomb},
                                              {"overflow", AttackKind::kOverflow},
                                              {"rank-inflation", AttackKind::kRankInflation},
                                              {"sybil", AttackKind::kSybil}}};

// Σ c·ΔW of one site, as factors side by side in float64; the coefficients go into B.
class SiteSum {
 public:
  void Add(const LowRank& factors, double coefficient) {
    A_.push_back(factors.A_RI.to(at::kDouble));
    B_.push_back(factors.B_OR.to(at::kDouble) * coefficient);
  }
  [[nodiscard]] LowRank Stack() const { return {at::cat(A_, 0), at::cat(B_, 1)}; }

 private:
  std::vector<at::Tensor> A_;
  std::vector<at::Tensor> B_;
};

struct Term {
  const LowRankAdapter* update;  // empty: zero
  double coefficient;
};

SiteSum SumOf(std::span<const Term> terms, size_t site) {
  SiteSum sum;
  for (const Term& term : terms) {
    if (!term.update->empty()) sum.Add(term.update->at(site).factors, term.coefficient);
  }
  return sum;
}

// An adapter of like's spec nearest to given sums, one a site; whole modules are like's.
Result<AdapterState> Nearest(const AdapterState& like, const std::vector<SiteSum>& sums) {
  LowRankAdapter cut;
  for (size_t i = 0; i < sums.size(); ++i) {
    const LinearSite& site = like.sites[i].site;
    cut.push_back(
        {site, SingularFormOf(sums[i].Stack()).Leading(SiteRank(like.spec, site)).Balanced()});
  }
  WEFT_TRY_ASSIGN(const Adapter* method, FindAdapter(like.spec.method));
  WEFT_TRY_ASSIGN(AdapterState state, method->Project(like.spec, cut));
  state.dense = like.dense;
  return state;
}

Result<AdapterState> NearestTo(const AdapterState& like, std::span<const Term> terms) {
  std::vector<SiteSum> sums;
  for (size_t i = 0; i < like.sites.size(); ++i) sums.push_back(SumOf(terms, i));
  return Nearest(like, sums);
}

Status CheckSites(const LowRankAdapter& own, const Sent& sent) {
  const auto same = [](const LowRankSite& a, const LowRankSite& b) { return a.site == b.site; };
  if (sent.empty() || std::equal(own.begin(), own.end(), sent.begin(), sent.end(), same)) {
    return OkStatus();
  }
  return InvalidArgument("[attack] what was sent and what was trained are not on the same layers");
}

at::Tensor NormalMatrix(int64_t rows, int64_t columns, RandomStream stream) {
  const at::Tensor values = at::empty({rows, columns}, at::kDouble);
  double* data = values.mutable_data_ptr<double>();
  for (int64_t i = 0; i < values.numel(); ++i) data[i] = stream.Normal();
  return values;
}

AdapterState WithFactors(const AdapterState& own,
                         const std::function<at::Tensor(const NamedTensor& tensor)>& change) {
  AdapterState state = own;
  MapTensors(state.sites, change);
  return state;
}

}  // namespace

Result<AttackKind> FindAttack(std::string_view name) {
  std::string known;
  for (const AttackName& attack : kAttacks) {
    if (attack.name == name) return attack.kind;
    known += Str(known.empty() ? "" : ", ", attack.name);
  }
  return InvalidArgument(Str("[sim] attack: got \"", name, "\", wanted one of ", known));
}

bool Colludes(AttackKind kind) {
  return kind == AttackKind::kAlie || kind == AttackKind::kInnerProduct ||
         kind == AttackKind::kSybil;
}

double UsualScale(AttackKind kind, int64_t clients, int64_t attackers) {
  switch (kind) {
    case AttackKind::kSignFlip:
    case AttackKind::kSybil:
      return 10;
    case AttackKind::kAlie:
      return AlieZ(clients, attackers);
    case AttackKind::kGaugeBomb:
      return 1e6;
    case AttackKind::kOverflow:
      return 1e20;
    case AttackKind::kRankInflation:
      return 2;
    case AttackKind::kNone:
    case AttackKind::kGaussian:
    case AttackKind::kInnerProduct:
      return 1;
  }
  WEFT_CHECK(false, "no such attack");
}

Result<AdapterState> SignFlip(const AdapterState& own, const Sent& sent, double scale) {
  WEFT_TRY_ASSIGN(const LowRankAdapter trained, Lower(own));
  WEFT_TRY(CheckSites(trained, sent));
  const std::array<Term, 2> terms{{{&sent, 1 + scale}, {&trained, -scale}}};
  return NearestTo(own, terms);
}

Result<AdapterState> Gaussian(const AdapterState& own, const Sent& sent, double scale,
                              uint64_t seed, std::string_view label) {
  WEFT_TRY_ASSIGN(const LowRankAdapter trained, Lower(own));
  WEFT_TRY(CheckSites(trained, sent));
  const std::array<Term, 2> change{{{&trained, 1}, {&sent, -1}}};
  const std::array<Term, 1> start{{{&sent, 1}}};
  std::vector<SiteSum> sums;
  for (size_t i = 0; i < trained.size(); ++i) {
    const LinearSite& site = trained[i].site;
    const int64_t rank = SiteRank(own.spec, site);
    const auto stream = [&](std::string_view factor) {
      return RandomStream::Derive(seed, {"attack", "gaussian", label, site.path, factor});
    };
    const LowRank noise{NormalMatrix(rank, site.in, stream("A")),
                        NormalMatrix(site.out, rank, stream("B"))};
    SiteSum sum = SumOf(start, i);
    sum.Add(noise, scale * NormOf(SumOf(change, i).Stack()) / NormOf(noise));
    sums.push_back(std::move(sum));
  }
  return Nearest(own, sums);
}

Result<AdapterState> InnerProduct(std::span<const AdapterState> colluders, const Sent& sent,
                                  double epsilon) {
  WEFT_CHECK(!colluders.empty());
  std::vector<LowRankAdapter> trained;
  for (const AdapterState& colluder : colluders) {
    WEFT_TRY_ASSIGN(LowRankAdapter lowered, Lower(colluder));
    WEFT_TRY(CheckSites(lowered, sent));
    trained.push_back(std::move(lowered));
  }
  std::vector<Term> terms{{&sent, 1 + epsilon}};
  for (const LowRankAdapter& update : trained) {
    terms.push_back({&update, -epsilon / static_cast<double>(trained.size())});
  }
  return NearestTo(colluders.front(), terms);
}

AdapterState Alie(std::span<const AdapterState> colluders, double z) {
  WEFT_CHECK(!colluders.empty());
  AdapterState state = colluders.front();
  for (size_t i = 0; i < state.sites.size(); ++i) {
    for (NamedTensor& tensor : state.sites[i].tensors) {
      std::vector<at::Tensor> shipped;
      for (const AdapterState& colluder : colluders) {
        shipped.push_back(colluder.sites.at(i).Get(tensor.name).to(at::kDouble));
      }
      const at::Tensor all = at::stack(shipped);
      tensor.value =
          (all.mean(0) - all.std(/*dim=*/0, /*unbiased=*/false) * z).to(tensor.value.dtype());
    }
  }
  return state;
}

double AlieZ(int64_t clients, int64_t attackers) {
  const int64_t honest = clients - attackers;
  const int64_t supporters = clients / 2 + 1 - attackers;
  WEFT_CHECK(honest > 0 && supporters > 0, attackers, " attackers of ", clients, " clients");
  const double share = static_cast<double>(honest - supporters) / static_cast<double>(honest);
  const at::Tensor z = at::special_ndtri(at::scalar_tensor(share, at::kDouble));
  return std::max(0.0, z.item<double>());
}

AdapterState GaugeBomb(const AdapterState& own, double g) {
  const double power = std::exp2(std::round(std::log2(g)));
  return WithFactors(own, [power](const NamedTensor& tensor) {
    return tensor.value * (tensor.name == "B" ? power : 1 / power);
  });
}

AdapterState Overflow(const AdapterState& own, double g) {
  return WithFactors(own, [g](const NamedTensor& tensor) { return tensor.value * g; });
}

AdapterState InflateRank(const AdapterState& own, int64_t times, bool claimed) {
  AdapterState state = WithFactors(own, [times](const NamedTensor& tensor) {
    return tensor.name == "B" ? tensor.value.repeat({1, times}) / static_cast<double>(times)
                              : tensor.value.repeat({times, 1});
  });
  // alpha grows alike, for the scaling is to stay what it was.
  if (claimed) {
    state.spec.rank *= times;
    state.spec.alpha *= static_cast<double>(times);
  }
  return state;
}

}  // namespace weft::sim
