#include "common/codec/blockwise.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "common/base/check.h"
#include "common/base/str.h"
#include "common/codec/packed_codec.h"
#include "common/tensor/dtype_map.h"
#include "common/tensor/guard.h"

// Shape legend: N elements, P elements padded to whole blocks, K blocks, E elements of a block
// (64).

namespace weft {
namespace {

constexpr int kScaleBits = 11;         // significant bits of a float16
constexpr int kExponentMin = -100;     // every level of the smallest scale is a normal float32
constexpr int kExponentMax = 112;      // float16's largest, 2^16, then reaches float32's
constexpr double kScaleMin = 0x1p-14;  // float16's smallest normal, in units of 2^e
constexpr int kScaleReach = 16;        // its largest is just below 2^16

int64_t Blocks(int64_t elements) { return (elements + kBlockElements - 1) / kBlockElements; }
int64_t HalfBytes(int64_t count) { return (count + 1) / 2; }

Status Wrong(const BlockTensor& tensor, const std::string& what) {
  return InvalidArgument(Str("tensor ", tensor.name, " packed as ", tensor.packing, ": ", what));
}

// ---- bytes ----

class Writer {
 public:
  explicit Writer(int64_t bytes) : bytes_(static_cast<size_t>(bytes)) {}
  void Put(const void* from, size_t bytes) {
    WEFT_CHECK(at_ + bytes <= bytes_.size());
    if (bytes > 0) std::memcpy(bytes_.data() + at_, from, bytes);
    at_ += bytes;
  }
  void Put(const at::Tensor& values) { Put(values.const_data_ptr(), values.nbytes()); }
  Blob Finish() {
    WEFT_CHECK(at_ == bytes_.size(), at_, " of ", bytes_.size());
    return Blob::Adopt(std::move(bytes_));
  }

 private:
  std::vector<std::byte> bytes_;
  size_t at_ = 0;
};

// The next `count` numbers of that type, in memory of their own.
at::Tensor Take(ByteSpan& bytes, int64_t count, at::ScalarType type) {
  at::Tensor values = at::empty({count}, type);
  if (count > 0) std::memcpy(values.mutable_data_ptr(), bytes.data(), values.nbytes());
  bytes = bytes.subspan(values.nbytes());
  return values;
}

// Numbers 0 … 15, two a byte.
at::Tensor InHalves(const at::Tensor& codes_N) {
  const at::Tensor even = at::constant_pad_nd(codes_N, {0, codes_N.numel() % 2}).view({-1, 2});
  return even.select(1, 0).bitwise_or(even.select(1, 1) * 16).contiguous();
}

at::Tensor FromHalves(const at::Tensor& bytes, int64_t count) {
  const at::Tensor low = bytes.bitwise_and(0xF);
  const at::Tensor high = bytes.bitwise_right_shift(4);
  return at::stack({low, high}, 1).flatten().narrow(0, 0, count);
}

bool IsPadded(const at::Tensor& bytes, int64_t count) {
  return count % 2 == 0 || bytes[-1].item<uint8_t>() < 16;
}

// ---- scales ----

enum class Round { kNearest, kDown };

// Float64 ≥ 0 to float16's number of bits, whatever the exponent.
at::Tensor Rounded(const at::Tensor& scales_K, Round how) {
  constexpr int64_t kBelow = int64_t{1} << (53 - kScaleBits);
  const at::Tensor bits = scales_K.view(at::kLong) + (how == Round::kNearest ? kBelow / 2 : 0);
  return bits.bitwise_and(-kBelow).view(at::kDouble);
}

struct Scales {
  int16_t exponent = 0;
  at::Tensor stored_K;  // float16, in units of 2^exponent
  at::Tensor value_K1;  // float32
};

at::Tensor ValuesOf(const at::Tensor& stored_K, int exponent) {
  return (stored_K.to(at::kFloat) * std::ldexp(1.0F, exponent)).unsqueeze(1);
}

// `wanted_K`: float64 ≥ 0. A block whose scale lies 2^30 times below the largest becomes zero.
Scales StoredScales(const at::Tensor& wanted_K, Round how) {
  const at::Tensor rounded = Rounded(wanted_K, how);
  const double largest = rounded.numel() == 0 ? 0 : rounded.max().item<double>();
  int reach = 0;
  (void)std::frexp(largest, &reach);
  Scales scales;
  if (largest > 0) {
    scales.exponent =
        static_cast<int16_t>(std::clamp(reach - kScaleReach, kExponentMin, kExponentMax));
  }
  const at::Tensor in_units = rounded * std::ldexp(1.0, -scales.exponent);
  scales.stored_K = at::where(in_units < kScaleMin, 0.0, in_units).to(at::kHalf).contiguous();
  scales.value_K1 = ValuesOf(scales.stored_K, scales.exponent);
  return scales;
}

// x / scale, 0 where the scale is 0.
at::Tensor InScale(const at::Tensor& x_KE, const Scales& scales) {
  const at::Tensor zero = scales.value_K1 == 0;
  return at::where(zero, 0.0F, x_KE / at::where(zero, 1.0F, scales.value_K1));
}

// ---- the three forms ----

// What a block's elements become: scales and codes, and for int4 the code of 0.
struct Coded {
  Scales scales;
  at::Tensor zeros_K;   // uint8; undefined where the form has none
  at::Tensor codes_KE;  // uint8 or int8
};

struct Form {
  std::string_view name;
  at::ScalarType code_type;  // int8: a byte each; uint8: half a byte
  bool has_zeros = false;
  Coded (*code)(const at::Tensor& x_KE) = nullptr;
  at::Tensor (*value)(const at::Tensor& codes_KE, const at::Tensor& zeros_K) = nullptr;  // / scale
};

at::Tensor LargestOf(const at::Tensor& x_KE) {
  return x_KE.numel() == 0 ? at::zeros({0}, at::kDouble) : x_KE.abs().amax(1).to(at::kDouble);
}

Coded CodeInt8(const at::Tensor& x_KE) {
  Coded coded{StoredScales(LargestOf(x_KE) / 127, Round::kNearest), {}, {}};
  coded.codes_KE = InScale(x_KE, coded.scales).round_().clamp_(-127, 127).to(at::kChar);
  return coded;
}

at::Tensor ValueInt8(const at::Tensor& codes_KE, const at::Tensor&) {
  return codes_KE.to(at::kFloat);
}

// 0 belongs to every block's range, so that it has a code. Rounding the scale down makes the range
// at least 15 of it, and rounding halves of codes down lets the lowest element have code 0 and the
// highest code 15: what was decoded has the same scale and codes again.
Coded CodeInt4(const at::Tensor& x_KE) {
  const bool none = x_KE.numel() == 0;
  const at::Tensor low_K = none ? at::zeros({0}) : x_KE.amin(1).clamp_max(0);
  const at::Tensor high_K = none ? at::zeros({0}) : x_KE.amax(1).clamp_min(0);
  const at::Tensor range_K = high_K.to(at::kDouble) - low_K.to(at::kDouble);
  Coded coded{StoredScales(range_K / 15, Round::kDown), {}, {}};
  const at::Tensor zeros_K1 =
      (0.5 - InScale(low_K.unsqueeze(1), coded.scales)).floor_().clamp_(0, 15);
  coded.zeros_K = zeros_K1.squeeze(1).to(at::kByte);
  coded.codes_KE =
      (InScale(x_KE, coded.scales) + (zeros_K1 - 0.5)).ceil_().clamp_(0, 15).to(at::kByte);
  return coded;
}

at::Tensor ValueInt4(const at::Tensor& codes_KE, const at::Tensor& zeros_K) {
  return codes_KE.to(at::kFloat) - zeros_K.to(at::kFloat).unsqueeze(1);
}

Coded CodeNf4(const at::Tensor& x_KE) {
  static const at::Tensor kBetween =
      (Nf4Levels().narrow(0, 0, 15) + Nf4Levels().narrow(0, 1, 15)) / 2;
  Coded coded{StoredScales(LargestOf(x_KE), Round::kNearest), {}, {}};
  coded.codes_KE = at::bucketize(InScale(x_KE, coded.scales), kBetween).to(at::kByte);
  return coded;
}

at::Tensor ValueNf4(const at::Tensor& codes_KE, const at::Tensor&) {
  return Nf4Levels().index_select(0, codes_KE.flatten().to(at::kLong)).view(codes_KE.sizes());
}

constexpr Form kInt8{"int8", at::kChar, false, CodeInt8, ValueInt8};
constexpr Form kInt4{"int4", at::kByte, true, CodeInt4, ValueInt4};
constexpr Form kNf4{"nf4", at::kByte, false, CodeNf4, ValueNf4};

int64_t BytesOfForm(const Form& form, int64_t elements) {
  const int64_t blocks = Blocks(elements);
  return 2 + 2 * blocks + (form.has_zeros ? HalfBytes(blocks) : 0) +
         (form.code_type == at::kChar ? elements : HalfBytes(elements));
}

at::Tensor Decoded(const Form& form, const Coded& coded) {
  return form.value(coded.codes_KE, coded.zeros_K) * coded.scales.value_K1;
}

bool AllFinite(const at::Tensor& values) { return at::isfinite(values).all().item<bool>(); }

template <const Form& kForm>
Result<BlockTensor> Pack(const BlockTensor& plain) {
  const c10::InferenceMode no_autograd;
  const auto elements = static_cast<int64_t>(plain.bytes.size() / sizeof(float));
  const int64_t padding = Blocks(elements) * kBlockElements - elements;
  const at::Tensor x_N = TensorOver(plain.bytes, DType::kFloat32, std::array{elements});
  const at::Tensor x_KE = at::constant_pad_nd(x_N, {0, padding}).view({-1, kBlockElements});
  const Coded coded = kForm.code(x_KE);
  if (!AllFinite(Decoded(kForm, coded))) {
    return InvalidArgument(Str("tensor ", plain.name, ": a value does not fit ", kForm.name));
  }
  Writer out(BytesOfForm(kForm, elements));
  out.Put(&coded.scales.exponent, sizeof(coded.scales.exponent));
  out.Put(coded.scales.stored_K);
  if (kForm.has_zeros) out.Put(InHalves(coded.zeros_K));
  const at::Tensor codes_N = coded.codes_KE.flatten().narrow(0, 0, elements);
  out.Put(kForm.code_type == at::kChar ? codes_N : InHalves(codes_N));
  BlockTensor packed = plain;
  packed.packing = kForm.name;
  packed.bytes = out.Finish();
  return packed;
}

// Nothing, or what is wrong with scales that came from a peer.
std::string WrongScales(const at::Tensor& stored_K, int exponent) {
  if (exponent < kExponentMin || exponent > kExponentMax) {
    return Str("exponent ", exponent, ", wanted ", kExponentMin, " to ", kExponentMax);
  }
  const at::Tensor scales = stored_K.to(at::kFloat);
  const at::Tensor fits = at::isfinite(scales) & ((scales == 0) | (scales >= kScaleMin));
  // −0 equals 0, and is no scale either.
  const at::Tensor positive = stored_K.view(at::kShort) >= 0;
  if ((fits & positive).all().item<bool>()) return "";
  return "a block's scale is negative, not finite or too small to be normal";
}

template <const Form& kForm>
Result<BlockTensor> UnpackChecked(const BlockTensor& packed) {
  const c10::InferenceMode no_autograd;
  const int64_t elements = c10::multiply_integers(packed.shape);
  const int64_t blocks = Blocks(elements);
  const int64_t wanted = BytesOfForm(kForm, elements);
  if (packed.dtype != DType::kFloat32) {
    return Wrong(packed, Str("its elements are ", DTypeName(packed.dtype), ", wanted F32"));
  }
  if (static_cast<int64_t>(packed.bytes.size()) != wanted) {
    return Wrong(packed, Str("got ", packed.bytes.size(), " bytes, wanted ", wanted, " for ",
                             elements, " elements in ", blocks, " blocks"));
  }
  ByteSpan bytes = packed.bytes.span();
  Coded coded;
  std::memcpy(&coded.scales.exponent, bytes.data(), sizeof(coded.scales.exponent));
  bytes = bytes.subspan(sizeof(coded.scales.exponent));
  coded.scales.stored_K = Take(bytes, blocks, at::kHalf);
  if (const std::string what = WrongScales(coded.scales.stored_K, coded.scales.exponent);
      !what.empty()) {
    return Wrong(packed, what);
  }
  coded.scales.value_K1 = ValuesOf(coded.scales.stored_K, coded.scales.exponent);
  if (kForm.has_zeros) {
    const at::Tensor halves = Take(bytes, HalfBytes(blocks), at::kByte);
    if (!IsPadded(halves, blocks)) return Wrong(packed, "the padding of its zeros is not zero");
    coded.zeros_K = FromHalves(halves, blocks);
  }
  at::Tensor codes_N;
  if (kForm.code_type == at::kChar) {
    codes_N = Take(bytes, elements, at::kChar);
    if ((codes_N == -128).any().item<bool>()) return Wrong(packed, "a code is outside ±127");
  } else {
    const at::Tensor halves = Take(bytes, HalfBytes(elements), at::kByte);
    if (!IsPadded(halves, elements)) return Wrong(packed, "the padding of its codes is not zero");
    codes_N = FromHalves(halves, elements);
  }
  const int64_t padding = blocks * kBlockElements - elements;
  coded.codes_KE = at::constant_pad_nd(codes_N, {0, padding}).view({-1, kBlockElements});
  const at::Tensor values_N = Decoded(kForm, coded).flatten().narrow(0, 0, elements).contiguous();
  if (!AllFinite(values_N)) return Wrong(packed, "a value is larger than float32 holds");
  Writer out(elements * static_cast<int64_t>(sizeof(float)));
  out.Put(values_N);
  BlockTensor plain = packed;
  plain.packing.clear();
  plain.bytes = out.Finish();
  return plain;
}

template <const Form& kForm>
Result<BlockTensor> Unpack(const BlockTensor& packed) {
  return Guarded("[codec]", [&] { return UnpackChecked<kForm>(packed); });
}

}  // namespace

// Quantiles at evenly spaced probabilities, 8 steps from ½ up and 7 down, the same outermost
// probability δ on both sides (the mean of 1 − 1/30 and 1 − 1/32), and all divided by the largest:
// 0 and ±1 are levels. To 12 bits, which no machine's erf rounds otherwise, and with which a level
// times a scale is an exact float32.
const at::Tensor& Nf4Levels() {
  static const at::Tensor levels = [] {
    const double outermost = 1 - (1.0 / 30 + 1.0 / 32) / 2;
    const at::Tensor up = at::special_ndtri(at::linspace(0.5, outermost, 9, at::kDouble));
    const at::Tensor down = at::special_ndtri(at::linspace(0.5, outermost, 8, at::kDouble));
    const at::Tensor all = at::cat({-down.narrow(0, 1, 7).flip(0), up}) / up[-1];
    return (all * 4096).round().div(4096).to(at::kFloat);
  }();
  return levels;
}

const ValuePacking& Int8Packing() {
  static const ValuePacking packing{kInt8.name, false, Pack<kInt8>, Unpack<kInt8>};
  return packing;
}

const ValuePacking& Int4Packing() {
  static const ValuePacking packing{kInt4.name, false, Pack<kInt4>, Unpack<kInt4>};
  return packing;
}

const ValuePacking& Nf4Packing() {
  static const ValuePacking packing{kNf4.name, false, Pack<kNf4>, Unpack<kNf4>};
  return packing;
}

// Half a step or half the widest gap, and what rounding the scale adds at the block's ends.
const Codec& Int8Codec() {
  static const PackedCodec codec(Int8Packing(), {kBlockElements, 1.0 / 252});
  return codec;
}

const Codec& Int4Codec() {
  static const PackedCodec codec(Int4Packing(), {kBlockElements, 1.04 / 15});
  return codec;
}

const Codec& Nf4Codec() {
  static const PackedCodec codec(Nf4Packing(), {kBlockElements, 0.153});
  return codec;
}

}  // namespace weft
