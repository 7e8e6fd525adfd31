#include "common/evaluate/metrics.h"

#include <charconv>
#include <cmath>

#include "common/base/check.h"

namespace weft {
namespace {

struct Counts {
  double predicted = 0;
  double truth = 0;
  double both = 0;
};

std::vector<Counts> CountClasses(std::span<const int32_t> predicted, std::span<const int32_t> truth,
                                 size_t classes) {
  std::vector<Counts> counts(classes);
  for (size_t i = 0; i < truth.size(); ++i) {
    ++counts.at(static_cast<size_t>(predicted[i])).predicted;
    ++counts.at(static_cast<size_t>(truth[i])).truth;
    if (predicted[i] == truth[i]) ++counts[static_cast<size_t>(truth[i])].both;
  }
  return counts;
}

double F1Of(const Counts& c) { return c.both == 0 ? 0 : 2 * c.both / (c.predicted + c.truth); }

double F1(const std::vector<Counts>& counts) {
  if (counts.size() == 2) return F1Of(counts[1]);
  double sum = 0, seen = 0;
  for (const Counts& c : counts) {
    if (c.predicted + c.truth == 0) continue;
    sum += F1Of(c);
    ++seen;
  }
  return sum / seen;
}

// (c·s − Σ p_k t_k) / √((s² − Σ p_k²)(s² − Σ t_k²)) of s rows, c of them right, p_k predicted and
// t_k true ones of class k.
double Matthews(const std::vector<Counts>& counts, double rows) {
  double right = 0, products = 0, predicted = 0, truth = 0;
  for (const Counts& c : counts) {
    right += c.both;
    products += c.predicted * c.truth;
    predicted += c.predicted * c.predicted;
    truth += c.truth * c.truth;
  }
  const double spread = (rows * rows - predicted) * (rows * rows - truth);
  return spread == 0 ? 0 : (right * rows - products) / std::sqrt(spread);
}

// The numbers that the classes are named by; nothing where one is none.
std::optional<std::vector<double>> ValuesOf(const std::vector<std::string>& labels) {
  std::vector<double> values;
  for (const std::string& label : labels) {
    double value = 0;
    const auto [end, error] = std::from_chars(label.data(), label.data() + label.size(), value);
    if (error != std::errc() || end != label.data() + label.size() || !std::isfinite(value)) {
      return std::nullopt;
    }
    values.push_back(value);
  }
  return values;
}

}  // namespace

double PearsonCorrelation(std::span<const double> x, std::span<const double> y) {
  WEFT_CHECK(x.size() == y.size() && !x.empty(), x.size(), " and ", y.size());
  const auto count = static_cast<double>(x.size());
  double mean_x = 0, mean_y = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    mean_x += x[i] / count;
    mean_y += y[i] / count;
  }
  double xy = 0, xx = 0, yy = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    xy += (x[i] - mean_x) * (y[i] - mean_y);
    xx += (x[i] - mean_x) * (x[i] - mean_x);
    yy += (y[i] - mean_y) * (y[i] - mean_y);
  }
  return xx == 0 || yy == 0 ? 0 : xy / (std::sqrt(xx) * std::sqrt(yy));
}

ClassScores ScoreClasses(std::span<const int32_t> predicted, std::span<const int32_t> truth,
                         const std::vector<std::string>& labels) {
  WEFT_CHECK(predicted.size() == truth.size() && !truth.empty(), predicted.size(), " and ",
             truth.size());
  const std::vector<Counts> counts = CountClasses(predicted, truth, labels.size());
  const auto rows = static_cast<double>(truth.size());
  ClassScores scores;
  for (const Counts& c : counts) scores.accuracy += c.both / rows;
  scores.f1 = F1(counts);
  scores.matthews = Matthews(counts, rows);
  if (const auto values = ValuesOf(labels)) {
    std::vector<double> x, y;
    for (size_t i = 0; i < truth.size(); ++i) {
      x.push_back((*values)[static_cast<size_t>(predicted[i])]);
      y.push_back((*values)[static_cast<size_t>(truth[i])]);
    }
    scores.pearson = PearsonCorrelation(x, y);
  }
  return scores;
}

}  // namespace weft
