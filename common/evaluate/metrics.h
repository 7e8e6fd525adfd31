#pragma once
// How well predicted classes agree with the true ones. Stateless; torch-free.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace weft {

struct ClassScores {
  double accuracy = 0;
  /// Harmonic mean of precision and recall: of class 1 where there are two classes, else the mean
  /// over all classes that are predicted or true; 0 for a class that is never both.
  double f1 = 0;
  /// Matthews' correlation, for any number of classes (Gorodkin 2004): 1 perfect, 0 chance.
  double matthews = 0;
  /// Of the classes' values, where every class is named by a number.
  std::optional<double> pearson;
};

/// Classes lie in [0, labels.size()); as many predicted as true (checked), at least one.
[[nodiscard]] ClassScores ScoreClasses(std::span<const int32_t> predicted,
                                       std::span<const int32_t> truth,
                                       const std::vector<std::string>& labels);

/// Pearson's correlation of two lists of the same length; 0 where one of them does not vary.
[[nodiscard]] double PearsonCorrelation(std::span<const double> x, std::span<const double> y);

}  // namespace weft
