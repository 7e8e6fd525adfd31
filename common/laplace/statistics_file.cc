#include "common/laplace/statistics_file.h"

#include <charconv>
#include <cmath>
#include <map>

#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/formats/safetensors.h"
#include "common/formats/safetensors_writer.h"
#include "common/tensor/dtype_map.h"
#include "common/tensor/guard.h"

// Metadata: "weft_laplace" (the layout's version), adapter_hash, examples, batches, log_likelihood,
// precision where known, and for matrix i "matrix.i.name", ".rows", ".input" and ".output" ("whole"
// or "root"). Tensors "i.input" and "i.output", float64.

namespace weft {
namespace {

constexpr std::string_view kVersionKey = "weft_laplace";
constexpr std::string_view kVersion = "1";

// Digits that give the same double again.
std::string Exact(double value) {
  std::array<char, 32> text{};
  const auto [end, error] = std::to_chars(text.data(), text.data() + text.size(), value);
  WEFT_CHECK(error == std::errc(), value);
  return {text.data(), end};
}

class Reader {
 public:
  Reader(const SafetensorsFile& file, std::string where)
      : file_(file),
        where_(std::move(where)),
        keys_(file.metadata().begin(), file.metadata().end()) {}

  Result<StatisticsFile> Run() {
    WEFT_TRY_ASSIGN(const std::string version, Text(std::string(kVersionKey)));
    if (version != kVersion) {
      return Wrong(Str(kVersionKey, " is ", version, ", this program reads ", kVersion));
    }
    StatisticsFile read;
    LaplaceStatistics& sums = read.statistics;
    WEFT_TRY_ASSIGN(sums.adapter_hash, Text("adapter_hash"));
    WEFT_TRY_ASSIGN(sums.examples, Number<uint64_t>("examples"));
    WEFT_TRY_ASSIGN(sums.batches, Number<uint64_t>("batches"));
    WEFT_TRY_ASSIGN(sums.log_likelihood, Number<double>("log_likelihood"));
    if (keys_.contains("precision")) {
      WEFT_TRY_ASSIGN(const double precision, Number<double>("precision"));
      if (!(precision > 0) || !std::isfinite(precision)) {
        return Wrong(Str("precision is ", precision, ", wanted a positive number"));
      }
      read.precision = precision;
    }
    for (size_t i = 0; keys_.contains(Str("matrix.", i, ".name")); ++i) {
      WEFT_TRY_ASSIGN(MatrixStatistics matrix, Matrix(i));
      sums.matrices.push_back(std::move(matrix));
    }
    WEFT_TRY(CheckStatistics(sums).Within(where_));
    return read;
  }

 private:
  Status Wrong(const std::string& what) const {
    return InvalidArgument(Str("[laplace] ", where_, ": ", what));
  }

  Result<std::string> Text(const std::string& key) const {
    const auto found = keys_.find(key);
    if (found != keys_.end()) return found->second;
    return Wrong("no \"" + key + "\" in its metadata; is it a file of weft laplace fit?");
  }

  template <typename T>
  Result<T> Number(const std::string& key) const {
    WEFT_TRY_ASSIGN(const std::string text, Text(key));
    T number{};
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, number);
    if (error != std::errc() || stop != end) return Wrong(key + " is \"" + text + "\", no number");
    return number;
  }

  Result<MatrixStatistics> Matrix(size_t i) const {
    const std::string prefix = Str("matrix.", i, ".");
    MatrixStatistics matrix{.name = "", .input = Gram::Whole(1), .output = Gram::Whole(1)};
    WEFT_TRY_ASSIGN(matrix.name, Text(prefix + "name"));
    WEFT_TRY_ASSIGN(matrix.rows, Number<uint64_t>(prefix + "rows"));
    WEFT_TRY_ASSIGN(matrix.input, Side(i, "input", matrix.name));
    WEFT_TRY_ASSIGN(matrix.output, Side(i, "output", matrix.name));
    return matrix;
  }

  Result<Gram> Side(size_t i, const std::string& side, const std::string& name) const {
    WEFT_TRY_ASSIGN(const std::string kind, Text(Str("matrix.", i, ".", side)));
    const StoredTensor* stored = file_.Find(Str(i, ".", side));
    if (stored == nullptr || stored->dtype != DType::kFloat64 || stored->shape.size() != 2 ||
        (kind != "whole" && kind != "root")) {
      return Wrong(Str(name, ": no ", side, " factor of float64, whole or a root"));
    }
    const at::Tensor values = TensorOver(stored->bytes, stored->dtype, stored->shape).clone();
    Result<Gram> gram = Gram::From(values, stored->shape[0], kind == "whole");
    if (!gram.ok()) return gram.status().Within(Str("[laplace] ", where_, ": ", name, " ", side));
    return gram;
  }

  const SafetensorsFile& file_;
  std::string where_;
  std::map<std::string, std::string> keys_;
};

/// What a file is written from; the tensors look at `kept`.
struct Pieces {
  SafetensorsMetadata metadata;
  std::vector<at::Tensor> kept;
  std::vector<TensorToWrite> tensors;
};

Pieces PiecesOf(const StatisticsFile& file) {
  const LaplaceStatistics& sums = file.statistics;
  Pieces pieces;
  pieces.metadata = {{std::string(kVersionKey), std::string(kVersion)},
                     {"adapter_hash", sums.adapter_hash},
                     {"examples", std::to_string(sums.examples)},
                     {"batches", std::to_string(sums.batches)},
                     {"log_likelihood", Exact(sums.log_likelihood)}};
  if (file.precision) pieces.metadata.emplace_back("precision", Exact(*file.precision));
  for (size_t i = 0; i < sums.matrices.size(); ++i) {
    const MatrixStatistics& matrix = sums.matrices[i];
    const std::string prefix = Str("matrix.", i, ".");
    pieces.metadata.emplace_back(prefix + "name", matrix.name);
    pieces.metadata.emplace_back(prefix + "rows", std::to_string(matrix.rows));
    for (const auto& [side, gram] :
         {std::pair("input", &matrix.input), std::pair("output", &matrix.output)}) {
      pieces.metadata.emplace_back(prefix + side, gram->whole() ? "whole" : "root");
      const at::Tensor values = gram->values().to(at::kCPU, at::kDouble).contiguous();
      pieces.kept.push_back(values);
      pieces.tensors.push_back(
          {Str(i, ".", side), DType::kFloat64, values.sizes().vec(), BytesOf(values)});
    }
  }
  return pieces;
}

}  // namespace

Result<Blob> EncodeStatistics(const StatisticsFile& file) {
  const Pieces pieces = PiecesOf(file);
  return EncodeSafetensors(pieces.tensors, pieces.metadata);
}

Result<StatisticsFile> DecodeStatistics(const Blob& bytes, const std::string& name) {
  WEFT_TRY_ASSIGN(const SafetensorsFile file, SafetensorsFile::Parse(bytes, name));
  return Guarded("[laplace]", [&] { return Reader(file, name).Run(); });
}

Status WriteStatistics(const std::filesystem::path& path, const StatisticsFile& file) {
  const Pieces pieces = PiecesOf(file);
  return WriteSafetensors(path, pieces.tensors, pieces.metadata);
}

Result<StatisticsFile> ReadStatistics(const std::filesystem::path& path) {
  WEFT_TRY_ASSIGN(const SafetensorsFile file, SafetensorsFile::Open(path));
  return Guarded("[laplace]", [&] { return Reader(file, path.string()).Run(); });
}

}  // namespace weft
