#pragma once
// GoldenSet: one file of golden numbers of an adapter method, below $WEFT_GOLDEN_DIR (default
// tests/golden). The tests of a method must pass on any file of its kind: numbers of cases,
// clients, sites, tiers and layers, prefixes and shapes are read from the names and shapes of the
// tensors, never assumed. A tensor counts as used once it was asked for; a test ends with
// ExpectAllUsed, so no number of a file goes unlooked at.
//
// What is missing or malformed is thrown as GoldenError, which fails the test that asked. One
// thread.

#include <filesystem>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "common/formats/safetensors.h"
#include "common/tensor/torch.h"

namespace weft::testing {

class GoldenError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class GoldenSet {
 public:
  /// Opens e.g. "flora/flora.safetensors"; an absolute path is taken as it is. Throws when the file
  /// is absent, malformed or empty.
  explicit GoldenSet(const std::filesystem::path& file);

  [[nodiscard]] bool Has(const std::string& name) const { return file_.Find(name) != nullptr; }
  /// All names that begin with `prefix`, sorted.
  [[nodiscard]] std::vector<std::string> Names(std::string_view prefix = "") const;

  /// Every p for which p + suffix is a tensor and p is empty or ends in '.', sorted:
  /// Cases("input_ids") of "seq.input_ids" and "tok1.input_ids" is {"seq.", "tok1."}. Throws when
  /// there is none.
  [[nodiscard]] std::vector<std::string> Cases(std::string_view suffix) const;
  /// Every m for which prefix + m + suffix is a tensor, sorted; m may hold dots, but is not empty.
  [[nodiscard]] std::vector<std::string> Between(std::string_view prefix,
                                                 std::string_view suffix) const;
  /// n, where names begin with stem + "0", … stem + (n−1), each followed by '.' or by nothing:
  /// Count("heter.client") of "heter.client0.mod0.A" … "heter.client3.mod1.B" is 4. Throws when
  /// there is none or the numbers have a gap.
  [[nodiscard]] int64_t Count(std::string_view stem) const;

  /// The tensor as it is stored, or converted to float64. Throws when it is missing, or when a
  /// shape is given and another found (−1 stands for any extent).
  [[nodiscard]] at::Tensor Get(const std::string& name);
  [[nodiscard]] at::Tensor Doubles(const std::string& name);
  [[nodiscard]] at::Tensor Doubles(const std::string& name, const std::vector<int64_t>& shape);
  /// A vector of integers, or of float64 (any integer or floating dtype that holds them exactly).
  [[nodiscard]] std::vector<int64_t> Integers(const std::string& name);
  [[nodiscard]] std::vector<double> Numbers(const std::string& name);
  /// The only element of a tensor [1] or [].
  [[nodiscard]] int64_t Integer(const std::string& name);
  [[nodiscard]] double Number(const std::string& name);

  /// The shape is the same and |got − wanted| ≤ tolerance · max|wanted| everywhere (≤ tolerance
  /// where all that is wanted is zero). Not for NaN on either side.
  void ExpectClose(const std::string& name, const at::Tensor& got, double tolerance);
  void ExpectClose(const std::string& name, double got, double tolerance);
  /// The same shape and values, whatever the dtypes.
  void ExpectEqual(const std::string& name, const at::Tensor& got);

  /// Marks a tensor as used that another test is about.
  void Use(const std::string& name);
  /// A failure for every tensor of that prefix that was not used, naming it.
  void ExpectAllUsed(std::string_view prefix = "") const;

 private:
  [[nodiscard]] const StoredTensor& Find(const std::string& name);
  /// "laplace/x.safetensors: seq.emb"
  [[nodiscard]] std::string Where(std::string_view name) const;

  std::string path_;
  SafetensorsFile file_;
  std::set<std::string> used_;
};

/// The largest |got − wanted| relative to the largest |wanted|, or a failure text about shapes or
/// values that are not finite: what ExpectClose says of tensors that lie in no file.
[[nodiscard]] std::string Difference(const at::Tensor& got, const at::Tensor& wanted,
                                     double tolerance);

}  // namespace weft::testing
