#pragma once
// Certificate: what a round's rule owed and what was published, in numbers anyone can recompute
// from the log's blobs. Plain data; part of the "round-published" event.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace weft {

/// All distances are relative Frobenius norms over all sites, computed in float64.
struct Certificate {
  double target_norm = 0;              // ‖target‖_F of the rule's exact target
  double error_before_truncation = 0;  // algebra alone
  double error_published = 0;          // of what clients are given, codec and truncation included
  double error_to_ideal = 0;  // of what was published, to the ideal mean Σ p_k s_k B_k A_k; for
                              // fedavg with more than 64 stacked ranks an estimate (algebra.h)
  double error_rule = 0;      // of the rule's target to the ideal mean: its choice, nothing is cut yet
  double tail_energy = 0;     // Σ_{i>r} σ_i² cut away, relative to Σσ²
  double error_codec = 0;     // of what clients are sent next, to what was published: the rounding
                              // of wire.down-codec
  double effective_rank = 0;  // exp(entropy of σ²/Σσ²), mean over sites
  int64_t rank = 0;           // largest published rank of a site
  // Share of Σσ² of all sites that lies in their i-th singular values ("1" is the largest), as far as
  // they are published.
  std::vector<std::pair<std::string, double>> energy_by_rank;
  struct Site {
    std::string path;
    double error_before_truncation = 0;
    double error_published = 0;
    double error_to_ideal = 0;
    double tail_energy = 0;
    double effective_rank = 0;
    int64_t rank = 0;

    friend bool operator==(const Site&, const Site&) = default;
  };
  std::vector<Site> sites;
  std::vector<std::pair<std::string, double>> client_norms;  // ‖update of k‖_F, by client name
  std::vector<std::pair<std::string, double>>
      client_cosines;  // cosine of client k's update to what the round changed
  // Where a robust rule was at work: how much of each client's change counted, what it has to say of
  // some, and of the round.
  std::vector<std::pair<std::string, double>> client_coefficients;
  std::vector<std::pair<std::string, std::string>> client_remarks;
  std::vector<std::string> notes;

  friend bool operator==(const Certificate&, const Certificate&) = default;
};

}  // namespace weft
