#include "tests/parity/methods/golden_set.h"

#include <algorithm>
#include <charconv>

#include <gtest/gtest.h>

#include "common/base/str.h"
#include "common/tensor/dtype_map.h"
#include "tests/support/paths.h"

namespace weft::testing {
namespace {

SafetensorsFile Open(const std::string& path) {
  Result<SafetensorsFile> file = SafetensorsFile::Open(path);
  if (!file.ok()) {
    throw GoldenError(Str("golden file ", path, ": ", file.status(),
                          "; WEFT_GOLDEN_DIR names the folder of <method>/<file>.safetensors"));
  }
  if (file->tensors().empty()) throw GoldenError(Str("golden file ", path, " holds no tensor"));
  return std::move(file).value();
}

std::string Text(at::IntArrayRef shape) { return ShapeText(shape.vec()); }

}  // namespace

GoldenSet::GoldenSet(const std::filesystem::path& file)
    : path_((GoldenDir() / file).string()), file_(Open(path_)) {}

std::string GoldenSet::Where(std::string_view name) const { return Str(path_, ": ", name); }

std::vector<std::string> GoldenSet::Names(std::string_view prefix) const {
  std::vector<std::string> names;
  for (const StoredTensor& tensor : file_.tensors()) {
    if (tensor.name.starts_with(prefix)) names.push_back(tensor.name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::string> GoldenSet::Cases(std::string_view suffix) const {
  std::vector<std::string> cases;
  for (const std::string& name : Names()) {
    if (!name.ends_with(suffix)) continue;
    std::string prefix = name.substr(0, name.size() - suffix.size());
    if (prefix.empty() || prefix.ends_with('.')) cases.push_back(std::move(prefix));
  }
  if (cases.empty()) {
    throw GoldenError(Where(Str("no tensor ", suffix, " with or without a prefix")));
  }
  std::sort(cases.begin(), cases.end());
  return cases;
}

std::vector<std::string> GoldenSet::Between(std::string_view prefix,
                                            std::string_view suffix) const {
  std::vector<std::string> middles;
  for (const std::string& name : Names(prefix)) {
    if (name.size() <= prefix.size() + suffix.size() || !name.ends_with(suffix)) continue;
    middles.push_back(name.substr(prefix.size(), name.size() - prefix.size() - suffix.size()));
  }
  std::sort(middles.begin(), middles.end());
  return middles;
}

int64_t GoldenSet::Count(std::string_view stem) const {
  std::set<int64_t> numbers;
  for (const std::string& name : Names(stem)) {
    const char* const begin = name.data() + stem.size();
    const char* const end = name.data() + name.size();
    int64_t number = -1;
    const auto [stop, error] = std::from_chars(begin, end, number);
    if (error == std::errc() && number >= 0 && (stop == end || *stop == '.')) {
      numbers.insert(number);
    }
  }
  if (numbers.empty()) throw GoldenError(Where(Str("no tensor ", stem, "0 …")));
  if (*numbers.rbegin() != static_cast<int64_t>(numbers.size()) - 1) {
    throw GoldenError(Where(Str(stem, "0 … ", stem, *numbers.rbegin(), ": there are only ",
                                numbers.size(), " of them")));
  }
  return static_cast<int64_t>(numbers.size());
}

const StoredTensor& GoldenSet::Find(const std::string& name) {
  const StoredTensor* const stored = file_.Find(name);
  if (stored == nullptr) throw GoldenError(Where(Str("no tensor ", name)));
  used_.insert(name);
  return *stored;
}

void GoldenSet::Use(const std::string& name) { static_cast<void>(Find(name)); }

at::Tensor GoldenSet::Get(const std::string& name) {
  const StoredTensor& stored = Find(name);
  return TensorOver(stored.bytes, stored.dtype, stored.shape);
}

at::Tensor GoldenSet::Doubles(const std::string& name) { return Get(name).to(at::kDouble); }

at::Tensor GoldenSet::Doubles(const std::string& name, const std::vector<int64_t>& shape) {
  at::Tensor tensor = Doubles(name);
  bool same = tensor.dim() == static_cast<int64_t>(shape.size());
  for (size_t i = 0; same && i < shape.size(); ++i) {
    same = shape[i] == -1 || tensor.size(static_cast<int64_t>(i)) == shape[i];
  }
  if (!same) {
    throw GoldenError(
        Where(Str(name, " is ", Text(tensor.sizes()), ", wanted ", ShapeText(shape))));
  }
  return tensor;
}

std::vector<double> GoldenSet::Numbers(const std::string& name) {
  const at::Tensor numbers = Doubles(name, {-1}).contiguous();
  const auto* data = numbers.const_data_ptr<double>();
  return {data, data + numbers.numel()};
}

std::vector<int64_t> GoldenSet::Integers(const std::string& name) {
  std::vector<int64_t> integers;
  for (const double number : Numbers(name)) {
    integers.push_back(static_cast<int64_t>(number));
    if (static_cast<double>(integers.back()) != number) {
      throw GoldenError(Where(Str(name, " holds ", number, ", wanted whole numbers")));
    }
  }
  return integers;
}

double GoldenSet::Number(const std::string& name) {
  const at::Tensor tensor = Doubles(name);
  if (tensor.numel() != 1 || tensor.dim() > 1) {
    throw GoldenError(Where(Str(name, " is ", Text(tensor.sizes()), ", wanted one number")));
  }
  return tensor.item<double>();
}

int64_t GoldenSet::Integer(const std::string& name) {
  const double number = Number(name);
  if (static_cast<double>(static_cast<int64_t>(number)) != number) {
    throw GoldenError(Where(Str(name, " is ", number, ", wanted a whole number")));
  }
  return static_cast<int64_t>(number);
}

std::string Difference(const at::Tensor& got, const at::Tensor& wanted, double tolerance) {
  if (got.sizes() != wanted.sizes()) {
    return Str("got ", Text(got.sizes()), ", wanted ", Text(wanted.sizes()));
  }
  if (wanted.numel() == 0) return "";
  const at::Tensor want = wanted.to(at::kDouble);
  const double largest = want.abs().max().item<double>();
  const double difference = (got.to(at::kDouble) - want).abs().max().item<double>();
  if (difference <= tolerance * (largest > 0 ? largest : 1)) return "";  // false for NaN
  return Str("differs by ", difference, ", largest wanted ", largest, ", tolerance ", tolerance);
}

void GoldenSet::ExpectClose(const std::string& name, const at::Tensor& got, double tolerance) {
  const std::string difference = Difference(got.detach(), Doubles(name), tolerance);
  EXPECT_EQ(difference, "") << Where(name);
}

void GoldenSet::ExpectClose(const std::string& name, double got, double tolerance) {
  const double wanted = Number(name);
  const std::string difference = Difference(at::scalar_tensor(got, at::kDouble),
                                            at::scalar_tensor(wanted, at::kDouble), tolerance);
  EXPECT_EQ(difference, "") << Where(name) << ": got " << got << ", wanted " << wanted;
}

void GoldenSet::ExpectEqual(const std::string& name, const at::Tensor& got) {
  EXPECT_EQ(Difference(got.detach(), Doubles(name), 0), "") << Where(name);
}

void GoldenSet::ExpectAllUsed(std::string_view prefix) const {
  for (const std::string& name : Names(prefix)) {
    EXPECT_TRUE(used_.contains(name)) << Where(name) << " was not used by the test";
  }
}

}  // namespace weft::testing
