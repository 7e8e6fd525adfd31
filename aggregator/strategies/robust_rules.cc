#include "aggregator/strategies/robust_rules.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/base/str.h"

// Shape legend: K clients.

namespace weft {
namespace {

// Two updates nearer to each other than this share of their norm are one update sent twice: copies
// of one lie would stand closest together, and Krum would take it for the truth.
constexpr double kSame = 1e-6;
// Weiszfeld's weights stop growing at this share of the largest norm.
constexpr double kNear = 1e-6;
constexpr int64_t kWeiszfeldSteps = 10000;

using Square = std::vector<std::vector<double>>;

at::Tensor SquaredDistances(const at::Tensor& gram_KK) {
  const at::Tensor squares = gram_KK.diagonal();
  return (squares.unsqueeze(1) + squares - 2 * gram_KK).clamp_min(0);
}

Square Rows(const at::Tensor& matrix_KK) {
  const at::Tensor dense = matrix_KK.contiguous();
  const double* values = dense.const_data_ptr<double>();
  const auto count = static_cast<size_t>(dense.size(0));
  Square rows;
  for (size_t i = 0; i < count; ++i)
    rows.emplace_back(values + i * count, values + (i + 1) * count);
  return rows;
}

// Krum's score of each of `among`, with respect to one another.
std::vector<double> ScoresAmong(const Square& distances, const std::vector<size_t>& among,
                                int64_t byzantine) {
  const auto count = static_cast<int64_t>(among.size());
  const auto neighbours = static_cast<size_t>(
      std::min(std::max<int64_t>(1, count - byzantine - 2), std::max<int64_t>(0, count - 1)));
  std::vector<double> scores;
  for (const size_t i : among) {
    std::vector<double> others;
    for (const size_t j : among) {
      if (j != i) others.push_back(distances[i][j]);
    }
    std::sort(others.begin(), others.end());
    scores.push_back(std::accumulate(
        others.begin(), others.begin() + static_cast<std::ptrdiff_t>(neighbours), 0.0));
  }
  return scores;
}

std::vector<size_t> All(const at::Tensor& gram_KK) {
  std::vector<size_t> all(static_cast<size_t>(gram_KK.size(0)));
  std::iota(all.begin(), all.end(), size_t{0});
  return all;
}

std::vector<size_t> PickRepeatedly(const Square& distances, std::vector<size_t> left,
                                   int64_t byzantine, int64_t picks) {
  std::vector<size_t> picked;
  while (static_cast<int64_t>(picked.size()) < picks && !left.empty()) {
    const std::vector<double> scores = ScoresAmong(distances, left, byzantine);
    const auto best = std::min_element(scores.begin(), scores.end()) - scores.begin();
    picked.push_back(left[static_cast<size_t>(best)]);
    left.erase(left.begin() + best);
  }
  return picked;
}

double MedianOf(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t count = values.size();
  return (values[(count - 1) / 2] + values[count / 2]) / 2;
}

/// One choice being made.
class Choosing {
 public:
  Choosing(const RobustSettings& settings, const at::Tensor& gram_KK,
           const std::vector<double>& weights, size_t trusted)
      : settings_(settings), weights_(weights), trusted_(trusted) {
    const size_t count = weights.size();
    choice_.reasons.resize(count);
    Clip(gram_KK);
    const at::Tensor factors = at::tensor(clip_, at::kDouble);
    gram_ = gram_KK * (factors.unsqueeze(1) * factors);  // as symmetric as it was
    norms_.clear();
    for (size_t k = 0; k < count; ++k) norms_.push_back(std::sqrt(std::max(0.0, At(k, k))));
  }

  ClientChoice Run() && {
    choice_.coefficients = Chosen();
    for (size_t k = 0; k < clip_.size(); ++k) choice_.coefficients[k] *= clip_[k];
    return std::move(choice_);
  }

 private:
  [[nodiscard]] double At(size_t i, size_t j) const {
    return gram_[static_cast<int64_t>(i)][static_cast<int64_t>(j)].item<double>();
  }

  void Clip(const at::Tensor& gram_KK) {
    const at::Tensor norms = gram_KK.diagonal().clamp_min(0).sqrt().contiguous();
    norms_.assign(norms.const_data_ptr<double>(), norms.const_data_ptr<double>() + norms.size(0));
    clip_.assign(norms_.size(), 1);
    if (settings_.clip == "none") return;
    const double longest = settings_.clip == "fixed" ? settings_.clip_norm : MedianOf(norms_);
    for (size_t k = 0; k < norms_.size(); ++k) {
      if (norms_[k] <= longest) continue;
      clip_[k] = longest / norms_[k];
      choice_.reasons[k] = Str("norm ", norms_[k], " clipped to ", longest);
    }
  }

  std::vector<double> Chosen() {
    if (settings_.rule == "none") return weights_;
    if (settings_.rule == "krum" || settings_.rule == "multi-krum") return Krum();
    if (settings_.rule == "geometric-median") return GeometricMedian(gram_, weights_, 0);
    if (settings_.rule == "fltrust") return Trust();
    if (settings_.rule == "cosine") return NearTheMedian();
    if (settings_.rule == "bulyan") return Bulyan();
    return std::vector<double>(weights_.size(), 1);  // looks at the elements of all
  }

  // Clients whose updates are not copies of an earlier one.
  std::vector<size_t> Distinct(const Square& distances) {
    std::vector<size_t> distinct;
    for (size_t k = 0; k < norms_.size(); ++k) {
      const auto twin = std::find_if(distinct.begin(), distinct.end(), [&](size_t other) {
        const double norm = std::max(norms_[k], norms_[other]);
        return norm > 0 && distances[k][other] < kSame * kSame * norm * norm;
      });
      if (twin == distinct.end()) {
        distinct.push_back(k);
      } else {
        choice_.reasons[k] = "the same update as an earlier client's";
      }
    }
    return distinct;
  }

  // f, or the most that so few updates can bear: n ≥ per·f + 3.
  int64_t Bearable(size_t count, int64_t per) {
    const int64_t most = std::max<int64_t>(0, (static_cast<int64_t>(count) - 3) / per);
    choice_.byzantine = std::min(settings_.byzantine, most);
    if (settings_.byzantine <= most) return settings_.byzantine;
    choice_.notes.push_back(Str(settings_.rule, ": ", count, " different updates, ",
                                settings_.byzantine, " liars need ", per * settings_.byzantine + 3,
                                "; it went on with ", most));
    return most;
  }

  std::vector<double> Averaged(const std::vector<size_t>& kept, std::string_view why_not) {
    std::vector<double> coefficients(weights_.size(), 0);
    double sum = 0;
    for (const size_t k : kept) sum += weights_[k];
    for (const size_t k : kept) coefficients[k] = weights_[k] / sum;
    for (size_t k = 0; k < weights_.size(); ++k) {
      if (coefficients[k] == 0 && choice_.reasons[k].empty()) choice_.reasons[k] = why_not;
    }
    return coefficients;
  }

  std::vector<double> Krum() {
    const Square distances = Rows(SquaredDistances(gram_));
    const std::vector<size_t> among = Distinct(distances);
    const int64_t byzantine = Bearable(among.size(), 2);
    const std::vector<double> scores = ScoresAmong(distances, among, byzantine);
    std::vector<size_t> order(among.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return scores[a] < scores[b]; });
    int64_t keep = 1;
    if (settings_.rule == "multi-krum") {
      const auto most = static_cast<int64_t>(among.size()) - byzantine;
      keep = settings_.keep == 0 ? most : std::min(settings_.keep, most);
    }
    std::vector<size_t> kept;
    for (int64_t i = 0; i < keep; ++i) kept.push_back(among[order[static_cast<size_t>(i)]]);
    return Averaged(kept, "further from its neighbours than others (Krum)");
  }

  std::vector<double> Bulyan() {
    const Square distances = Rows(SquaredDistances(gram_));
    std::vector<size_t> among = Distinct(distances);
    const int64_t byzantine = Bearable(among.size(), 4);
    const auto picks = static_cast<int64_t>(among.size()) - 2 * byzantine;
    const std::vector<size_t> kept = PickRepeatedly(distances, std::move(among), byzantine, picks);
    std::vector<double> seen = Averaged(kept, "not picked (Bulyan)");
    for (double& share : seen) share = share > 0 ? 1 : 0;
    return seen;
  }

  std::vector<double> Trust() {
    std::vector<double> coefficients(weights_.size(), 0);
    if (trusted_ >= weights_.size()) {
      choice_.notes.push_back(Str("fltrust: the trusted client ", settings_.trusted,
                                  " sent nothing, so the round changes nothing"));
      return coefficients;
    }
    const double own = norms_[trusted_];
    double sum = 0;
    for (size_t k = 0; k < weights_.size(); ++k) {
      if (k == trusted_ || norms_[k] == 0 || own == 0) continue;
      const double score = std::max(0.0, At(k, trusted_) / (norms_[k] * own));
      if (score == 0) choice_.reasons[k] = "against the trusted update";
      coefficients[k] = score * own / norms_[k];
      sum += score;
    }
    if (sum == 0) {
      choice_.notes.emplace_back(
          "fltrust: nobody agrees with the trusted client, so the round "
          "changes nothing");
      return coefficients;
    }
    for (double& coefficient : coefficients) coefficient /= sum;
    return coefficients;
  }

  std::vector<double> NearTheMedian() {
    const at::Tensor c = at::tensor(GeometricMedian(gram_, weights_, 0), at::kDouble);
    const at::Tensor with_median = at::mv(gram_, c);
    const double norm = std::sqrt(std::max(0.0, at::dot(c, with_median).item<double>()));
    std::vector<size_t> kept;
    for (size_t k = 0; k < weights_.size(); ++k) {
      const double scale = norm * norms_[k];
      const double cosine =
          scale == 0 ? 0 : with_median[static_cast<int64_t>(k)].item<double>() / scale;
      if (cosine >= settings_.min_cosine) kept.push_back(k);
    }
    if (kept.empty()) {
      choice_.notes.emplace_back("cosine: nobody is near the median, so the round changes nothing");
    }
    return Averaged(kept, "points elsewhere than the median");
  }

  const RobustSettings& settings_;
  const std::vector<double>& weights_;
  size_t trusted_;
  at::Tensor gram_;  // after clipping
  std::vector<double> norms_;
  std::vector<double> clip_;
  ClientChoice choice_;
};

struct OwnKey {
  std::string_view key;
  bool at_default;
  std::initializer_list<std::string_view> rules;
};

// A setting of [robust] that the chosen rule would silently ignore.
Status CheckForeignRobust(const RobustSettings& r) {
  const RobustSettings plain;
  const OwnKey keys[] = {
      {"byzantine", r.byzantine == plain.byzantine, {"krum", "multi-krum", "bulyan"}},
      {"keep", r.keep == plain.keep, {"multi-krum"}},
      {"trim", r.trim == plain.trim, {"trimmed-mean"}},
      {"min-cosine", r.min_cosine == plain.min_cosine, {"cosine"}},
      {"trusted", r.trusted == plain.trusted, {"fltrust"}}};
  for (const OwnKey& own : keys) {
    if (own.at_default ||
        std::find(own.rules.begin(), own.rules.end(), r.rule) != own.rules.end()) {
      continue;
    }
    return InvalidArgument(Str("[robust] ", own.key, " is set, but rule \"", r.rule,
                               "\" does not know it; unset it or use ", *own.rules.begin()));
  }
  if (r.clip_norm != plain.clip_norm && r.clip != "fixed") {
    return InvalidArgument("[robust] clip-norm is set, but clip is not \"fixed\"");
  }
  if (r.rule == "fltrust" && r.trusted.empty()) {
    return InvalidArgument(
        "[robust] rule \"fltrust\" measures all by one client's update: name it in robust.trusted");
  }
  return OkStatus();
}

}  // namespace

bool LooksAtElements(const RobustSettings& settings) {
  return settings.rule == "median" || settings.rule == "trimmed-mean" || settings.rule == "bulyan";
}

bool AnyoneCounts(const UpdateSource& updates) {
  for (size_t k = 0; k < updates.size(); ++k) {
    if (updates.weight(k) > 0) return true;
  }
  return false;
}

bool ChoosesWeights(const RobustSettings& settings) {
  return settings.rule != "none" || settings.clip != "none";
}

Status CheckSteps(const Strategy& strategy, const StrategySettings& settings) {
  WEFT_TRY(CheckForeignRobust(settings.robust));
  const bool follows = strategy.traits().any_weights && settings.carry;
  const auto refuse = [&](std::string_view section, const std::string& what) {
    return InvalidArgument(
        Str("[", section, "] \"", what,
            "\" changes how much each client moves the global adapter; strategy ", strategy.name(),
            settings.carry ? "" : " without carry",
            " merges what clients hold, not what they changed; use exact-svd, flora or ffa"));
  };
  const RobustSettings& robust = settings.robust;
  if (!follows && ChoosesWeights(robust)) {
    return refuse("robust", robust.rule == "none" ? "clip" : robust.rule);
  }
  if (!follows && settings.optimizer.name != "none") {
    return refuse("server-optimizer", settings.optimizer.name);
  }
  return OkStatus();
}

std::vector<double> KrumScores(const at::Tensor& gram_KK, int64_t byzantine) {
  return ScoresAmong(Rows(SquaredDistances(gram_KK)), All(gram_KK), byzantine);
}

std::vector<size_t> RepeatedKrum(const at::Tensor& gram_KK, int64_t byzantine, int64_t picks) {
  return PickRepeatedly(Rows(SquaredDistances(gram_KK)), All(gram_KK), byzantine, picks);
}

std::vector<double> GeometricMedian(const at::Tensor& gram_KK, const std::vector<double>& weights,
                                    int64_t steps, double nearest) {
  const at::Tensor p = at::tensor(weights, at::kDouble);
  const at::Tensor squares = gram_KK.diagonal();
  const double largest = std::sqrt(std::max(0.0, squares.max().item<double>()));
  if (largest == 0) return weights;
  if (nearest == 0) nearest = kNear * largest;
  at::Tensor c = p / p.sum();
  const int64_t most = steps > 0 ? steps : kWeiszfeldSteps;
  for (int64_t i = 0; i < most; ++i) {
    const at::Tensor Gc = at::mv(gram_KK, c);
    const at::Tensor distances = (at::dot(c, Gc) - 2 * Gc + squares).clamp_min(0).sqrt();
    const at::Tensor pull = p / distances.clamp_min(nearest);
    const at::Tensor next = pull / pull.sum();
    const double moved = (next - c).abs().max().item<double>();
    c = next;
    if (steps == 0 && moved < 1e-15) break;
  }
  const at::Tensor result = c.contiguous();
  return {result.const_data_ptr<double>(), result.const_data_ptr<double>() + result.size(0)};
}

ClientChoice ChooseClients(const RobustSettings& settings, const at::Tensor& gram_KK,
                           const std::vector<double>& weights, size_t trusted) {
  return Choosing(settings, gram_KK, weights, trusted).Run();
}

}  // namespace weft
