#pragma once
// What hostile clients ship in place of an honest update: one small formula each, of what was
// trained and of what they were sent. Pure functions; sim/attackers.h runs them for clients.
//
// All are for LoRA and stay within the rank that the attacker was planned, unless the rank is the
// attack. Whole trained modules (AdapterState::dense) are left as they were trained.
//
// Notation: D a client's honest ΔW, G the ΔW that it was sent, K clients, f attackers.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/adapters/adapter_state.h"
#include "common/base/random.h"
#include "common/base/result.h"

namespace weft::sim {

enum class AttackKind {
  kNone,
  kSignFlip,       // G − s·(D − G)
  kGaussian,       // G + noise of s times the norm of D − G
  kAlie,           // mean − z·deviation of the colluders' updates
  kInnerProduct,   // G − ε·mean of the colluders' changes
  kGaugeBomb,      // D itself, as (g·B)·(A/g)
  kOverflow,       // finite factors (g·B)·(g·A) whose product no float32 holds
  kRankInflation,  // D itself, at a larger rank than planned
  kSybil,          // the first attacker's sign-flipped update, from all of them
};

/// The kind that [sim] attack names; kInvalidArgument listing the known ones.
[[nodiscard]] Result<AttackKind> FindAttack(std::string_view name);
/// Does each attacker need what the others would have shipped?
[[nodiscard]] bool Colludes(AttackKind kind);
/// The number that [sim] attack-scale = 0 stands for: s = 10 of sign-flip and sybil, s = 1 of
/// gaussian, z of alie (AlieZ), ε = 1, g = 1e6 of gauge-bomb, g = 1e20 of overflow, twice the rank.
[[nodiscard]] double UsualScale(AttackKind kind, int64_t clients, int64_t attackers);

/// The adapter they were sent, lowered; empty: none, ΔW = 0.
using Sent = LowRankAdapter;

/// The nearest adapter of own's rank (Eckart and Young 1936) to (1 + s)·G − s·D: exact in a round
/// that starts from nothing, and wherever D and G together have no more than that rank.
[[nodiscard]] Result<AdapterState> SignFlip(const AdapterState& own, const Sent& sent,
                                            double scale);

/// The nearest adapter of own's rank to G + N, per site N = U·V of standard normal factors scaled
/// to ‖N‖_F = s·‖D − G‖_F: Blanchard et al. 2017 (section 5, Gaussian proposals) at a stated norm.
[[nodiscard]] Result<AdapterState> Gaussian(const AdapterState& own, const Sent& sent, double scale,
                                            uint64_t seed, std::string_view label);

/// The nearest adapter of that rank to G − ε·mean_j(D_j − G): Xie, Koyejo and Gupta 2020 ("Fall of
/// Empires", section 4). `colluders` must not be empty, all of one layout.
[[nodiscard]] Result<AdapterState> InnerProduct(std::span<const AdapterState> colluders,
                                                const Sent& sent, double epsilon);

/// μ − z·σ for every number that is shipped, mean and deviation (of the population) over the
/// colluders: Baruch, Baruch and Goldberg 2019 ("A Little Is Enough", algorithm 3). The numbers are
/// the entries of A and B, which is what the paper's rules would see; all started from one pair.
[[nodiscard]] AdapterState Alie(std::span<const AdapterState> colluders, double z);

/// The paper's z: the largest with Φ(z) ≤ (K − f − h)/(K − f), where h = ⌊K/2 + 1⌋ − f honest
/// clients must side with the attackers; at least 0. Wants f ≤ K/2.
[[nodiscard]] double AlieZ(int64_t clients, int64_t attackers);

/// B·g and A/g with g rounded to a power of two, so that the product keeps its bits wherever
/// float32 holds both factors.
[[nodiscard]] AdapterState GaugeBomb(const AdapterState& own, double g);

/// B·g and A·g: all finite, the product about g² too large.
[[nodiscard]] AdapterState Overflow(const AdapterState& own, double g);

/// [B … B]/k and [A; …; A], k times: D at k times its rank. `claimed`: the spec says so too.
[[nodiscard]] AdapterState InflateRank(const AdapterState& own, int64_t times, bool claimed);

}  // namespace weft::sim
