#include "common/formats/safetensors_header.h"

#include <algorithm>
#include <limits>
#include <set>

#include <nlohmann/json.hpp>

#include "common/base/limits.h"

namespace weft {
namespace {

constexpr uint64_t kLengthBytes = 8;

std::string KnownDTypes() {
  std::string names;
  for (const DTypeInfo& info : kDTypes) {
    if (!names.empty()) names += ", ";
    names += info.name;
  }
  return names;
}

// Receives the header's JSON event by event, so that doubled names are seen and a header of 100 MB
// needs no tree of ten times its size. Levels: 0 outside, 1 the object of all tensors, 2 one tensor
// or the metadata, 3 an array of one tensor.
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderReader(std::string_view file) : file_(file) {}

  bool null() override { return Value("null"); }
  bool boolean(bool /*value*/) override { return Value("a boolean"); }
  bool number_integer(number_integer_t value) override { return Value(Str("the number ", value)); }
  bool number_float(number_float_t /*value*/, const string_t& text) override {
    return Value(Str("the number ", text));
  }
  bool binary(binary_t& /*value*/) override { return Value("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (level_ != 3) return Value(Str("the number ", value));
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return Fail(Str(Where(), ": ", value, " is out of range"));
    }
    if (field_ == "shape") {
      if (tensor_.shape.size() == limits::kTensorDimensionsMax) {
        return Fail(Str(Where(), ": more than ", limits::kTensorDimensionsMax, " dimensions"));
      }
      tensor_.shape.push_back(static_cast<int64_t>(value));
    } else {
      if (offsets_.size() == 2) return Fail(Str(Where(), ": more than two numbers"));
      offsets_.push_back(value);
    }
    return true;
  }

  bool string(string_t& value) override {
    if (level_ != 2) return Value("a string");
    if (in_metadata_) {
      header_.metadata.emplace_back(field_, value);
      return true;
    }
    if (field_ != "dtype") return Value("a string");
    const auto dtype = DTypeFromName(value);
    if (!dtype) {
      return Fail(Str("tensor ", tensor_.name, ": unknown dtype \"", value.substr(0, 64),
                      "\", wanted one of ", KnownDTypes()));
    }
    tensor_.dtype = *dtype;
    return true;
  }

  bool start_object(std::size_t /*elements*/) override {
    if (level_ == 0) {
      level_ = 1;
      return true;
    }
    if (level_ != 1) return Value("an object");
    level_ = 2;
    fields_.clear();
    offsets_.clear();
    tensor_.shape.clear();
    return true;
  }

  bool key(string_t& name) override {
    if (level_ == 1) {
      if (name.empty()) return Fail("a tensor without a name");
      if (name.size() > limits::kNameBytesMax) {
        return Fail(Str("tensor ", name.substr(0, 64), "…: name of ", name.size(),
                        " bytes, wanted at most ", limits::kNameBytesMax));
      }
      if (!names_.insert(name).second) return Fail(Str("tensor ", name, ": named twice"));
      in_metadata_ = name == "__metadata__";
      tensor_.name = name;
      field_.clear();
      return true;
    }
    field_ = name;
    if (!fields_.insert(name).second) return Fail(Str(Where(), ": given twice"));
    if (!in_metadata_ && name != "dtype" && name != "shape" && name != "data_offsets") {
      return Fail(Str(Where(), ": unknown field, wanted dtype, shape and data_offsets"));
    }
    return true;
  }

  bool end_object() override {
    if (level_ == 1) {
      level_ = 0;
      return true;
    }
    level_ = 1;
    if (in_metadata_) return true;
    for (const char* wanted : {"dtype", "shape", "data_offsets"}) {
      if (!fields_.count(wanted)) {
        return Fail(Str("tensor ", tensor_.name, ": field ", wanted, " is missing"));
      }
    }
    if (offsets_.size() != 2) {
      return Fail(Str("tensor ", tensor_.name, " data_offsets: got ", offsets_.size(),
                      " numbers, wanted 2"));
    }
    tensor_.begin = offsets_[0];
    tensor_.end = offsets_[1];
    header_.tensors.push_back(std::move(tensor_));
    tensor_ = TensorInfo{};
    return true;
  }

  bool start_array(std::size_t /*elements*/) override {
    if (level_ != 2 || in_metadata_ || field_ == "dtype") return Value("an array");
    level_ = 3;
    return true;
  }
  bool end_array() override {
    level_ = 2;
    return true;
  }

  bool parse_error(std::size_t position, const std::string& /*token*/,
                   const nlohmann::detail::exception& /*error*/) override {
    return Fail(Str("header is not JSON at its byte ", position));
  }

  [[nodiscard]] Status status() const {
    return InvalidArgument(Str("[safetensors] ", file_, ": ", error_));
  }
  [[nodiscard]] SafetensorsHeader& header() { return header_; }

 private:
  bool Fail(std::string message) {
    if (error_.empty()) error_ = std::move(message);
    return false;
  }

  [[nodiscard]] std::string Where() const {
    return in_metadata_ ? Str("__metadata__ ", field_.substr(0, 64))
                        : Str("tensor ", tensor_.name, " ", field_.substr(0, 64));
  }

  // A value where another one belongs.
  bool Value(std::string_view got) {
    if (level_ == 0) return Fail(Str("header is ", got, ", wanted an object"));
    if (level_ == 1) return Fail(Str("tensor ", tensor_.name, ": got ", got, ", wanted an object"));
    if (level_ == 3) return Fail(Str(Where(), ": got ", got, ", wanted a whole number from 0"));
    const bool text = in_metadata_ || field_ == "dtype";
    return Fail(Str(Where(), ": got ", got, ", wanted ", text ? "a string" : "an array"));
  }

  std::string file_;
  std::string error_;
  int level_ = 0;
  bool in_metadata_ = false;
  std::string field_;
  TensorInfo tensor_;
  std::vector<uint64_t> offsets_;
  std::set<std::string> names_;
  std::set<std::string> fields_;
  SafetensorsHeader header_;
};

// Makes offsets absolute and checks that the tensors cover the data exactly.
Status PlaceTensors(std::vector<TensorInfo>& tensors, uint64_t data_begin, uint64_t data_bytes,
                    std::string_view file) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  const auto where = [file](const TensorInfo& tensor) {
    return Str("[safetensors] ", file, ": tensor ", tensor.name, ": offsets [", tensor.begin, ", ",
               tensor.end, ")");
  };
  uint64_t at = 0;
  for (const TensorInfo& tensor : tensors) {
    if (tensor.begin > tensor.end) {
      return InvalidArgument(Str(where(tensor), " end before they begin"));
    }
    const auto bytes = TensorBytes(tensor.dtype, tensor.shape);
    if (!bytes) {
      return InvalidArgument(Str("[safetensors] ", file, ": tensor ", tensor.name, ": shape ",
                                 ShapeText(tensor.shape), " has more bytes than can be counted"));
    }
    if (tensor.end - tensor.begin != *bytes) {
      return InvalidArgument(Str(where(tensor), " hold ", tensor.end - tensor.begin, " bytes, ",
                                 DTypeName(tensor.dtype), " ", ShapeText(tensor.shape), " needs ",
                                 *bytes));
    }
    if (tensor.begin < at) {
      return InvalidArgument(Str(where(tensor), " overlap the tensor that ends at ", at));
    }
    if (tensor.begin > at) {
      return InvalidArgument(Str(where(tensor), " leave a gap behind byte ", at));
    }
    if (tensor.end > data_bytes) {
      return DataLoss(Str(where(tensor), " lie outside the file, which has ", data_bytes,
                          " bytes of data: truncated or damaged, fetch it again"));
    }
    at = tensor.end;
  }
  if (at != data_bytes) {
    return InvalidArgument(
        Str("[safetensors] ", file, ": got ", data_bytes, " bytes of data, the tensors take ", at));
  }
  for (TensorInfo& tensor : tensors) {
    tensor.begin += data_begin;
    tensor.end += data_begin;
  }
  return OkStatus();
}

}  // namespace

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += Str(i == 0 ? "" : "×", shape[i]);
  return text + "]";
}

std::optional<uint64_t> TensorBytes(DType dtype, const std::vector<int64_t>& shape) {
  int64_t bytes = static_cast<int64_t>(DTypeBytes(dtype));
  bool empty = false;
  for (const int64_t dimension : shape) {
    if (dimension < 0) return std::nullopt;
    if (dimension == 0) empty = true;
    // A zero further on makes the product zero, yet the other dimensions must still be sane.
    if (dimension != 0 && __builtin_mul_overflow(bytes, dimension, &bytes)) return std::nullopt;
  }
  return empty ? 0 : static_cast<uint64_t>(bytes);
}

Result<SafetensorsHeader> ParseSafetensorsHeader(ByteSpan head, uint64_t file_bytes,
                                                 std::string_view name) {
  if (file_bytes < kLengthBytes || head.size() < kLengthBytes) {
    return DataLoss(Str("[safetensors] ", name, ": got ", file_bytes,
                        " bytes, a header needs more than ", kLengthBytes, ": truncated"));
  }
  uint64_t length = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) {
    length |= std::to_integer<uint64_t>(head[i]) << (8 * i);
  }
  if (length == 0) return InvalidArgument(Str("[safetensors] ", name, ": header length is 0"));
  if (length > limits::kSafetensorsHeaderMax) {
    return InvalidArgument(Str("[safetensors] ", name, ": header length is ", length,
                               ", wanted at most ", limits::kSafetensorsHeaderMax,
                               ": no safetensors file, or damaged"));
  }
  if (length > file_bytes - kLengthBytes || length > head.size() - kLengthBytes) {
    return DataLoss(Str("[safetensors] ", name, ": header length is ", length, ", the file has ",
                        file_bytes - kLengthBytes, " bytes behind it: truncated, fetch it again"));
  }
  const std::string_view json = AsText(head.subspan(kLengthBytes, length));
  if (json.front() != '{') {
    return InvalidArgument(Str("[safetensors] ", name, ": header does not begin with {"));
  }
  HeaderReader reader(name);
  if (!nlohmann::json::sax_parse(json.begin(), json.end(), &reader)) return reader.status();
  const uint64_t data_begin = kLengthBytes + length;
  WEFT_TRY(PlaceTensors(reader.header().tensors, data_begin, file_bytes - data_begin, name));
  return std::move(reader.header());
}

}  // namespace weft
