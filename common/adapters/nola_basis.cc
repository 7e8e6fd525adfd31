#include "common/adapters/nola_basis.h"

#include <algorithm>

#include "common/adapters/nola_basis_cpu.h"
#include "common/base/check.h"

namespace weft {
namespace {

constexpr int64_t kPerBlock = 8;      // elements of one Philox block
constexpr int64_t kBasesAtOnce = 32;  // of a sum made by tensor operations

int64_t NumRanges(int64_t elements) { return (elements + cpu::kBasisRange - 1) / cpu::kBasisRange; }

// Calls work(range, begin, end) for each range of elements, on all threads.
template <typename Work>
void ForRanges(int64_t elements, const Work& work) {
  at::parallel_for(0, NumRanges(elements), 1, [&](int64_t first, int64_t last) {
    for (int64_t range = first; range < last; ++range) {
      const int64_t begin = range * cpu::kBasisRange;
      work(range, begin, std::min(begin + cpu::kBasisRange, elements));
    }
  });
}

// 32-bit words in int64 tensors, whose products wrap as unsigned ones do.
struct Product {
  at::Tensor high;
  at::Tensor low;
};
Product Multiply(const at::Tensor& word, int64_t factor) {
  const at::Tensor product = word * factor;
  return {at::bitwise_and(at::bitwise_right_shift(product, 32), 0xFFFFFFFFLL),
          at::bitwise_and(product, 0xFFFFFFFFLL)};
}

bool Fused(const at::Tensor& coefficients_K) {
  return coefficients_K.device().is_cpu() && coefficients_K.scalar_type() == at::kFloat;
}

at::Tensor SumOf(uint64_t key, const at::Tensor& coefficients_K, int64_t elements) {
  const int64_t count = coefficients_K.size(0);
  if (Fused(coefficients_K)) {
    const at::Tensor packed_K = coefficients_K.contiguous();
    at::Tensor sum_E = at::empty({elements}, packed_K.options());
    const float* const from = packed_K.const_data_ptr<float>();
    float* const to = sum_E.data_ptr<float>();
    ForRanges(elements, [&](int64_t, int64_t begin, int64_t end) {
      cpu::SumBases(key, from, count, begin, end, to);
    });
    return sum_E;
  }
  at::Tensor sum_E = at::zeros({elements}, coefficients_K.options());
  for (int64_t first = 0; first < count; first += kBasesAtOnce) {
    const int64_t some = std::min(kBasesAtOnce, count - first);
    const at::Tensor bases_KE =
        BasisMatrix(key, static_cast<uint32_t>(first), some, elements, coefficients_K.device());
    sum_E.addmv_(bases_KE.to(coefficients_K.scalar_type()).t(),
                 coefficients_K.narrow(0, first, some));
  }
  return sum_E;
}

at::Tensor ProductsOf(uint64_t key, const at::Tensor& gradient_E, int64_t count) {
  const int64_t elements = gradient_E.size(0);
  if (Fused(gradient_E)) {
    const at::Tensor packed_E = gradient_E.contiguous();
    // One row for each range, added up in order: the bits do not depend on the threads.
    at::Tensor parts_PK = at::empty({NumRanges(elements), count}, packed_E.options());
    const float* const from = packed_E.const_data_ptr<float>();
    float* const to = parts_PK.data_ptr<float>();
    ForRanges(elements, [&](int64_t range, int64_t begin, int64_t end) {
      cpu::MultiplyBases(key, from, count, begin, end, to + range * count);
    });
    return parts_PK.sum(0);
  }
  std::vector<at::Tensor> parts;
  for (int64_t first = 0; first < count; first += kBasesAtOnce) {
    const at::Tensor bases_KE =
        BasisMatrix(key, static_cast<uint32_t>(first), std::min(kBasesAtOnce, count - first),
                    elements, gradient_E.device());
    parts.push_back(bases_KE.to(gradient_E.scalar_type()).mv(gradient_E));
  }
  return at::cat(parts);
}

class SumFunction : public torch::autograd::Function<SumFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context,
                            const at::Tensor& coefficients_K, int64_t key, int64_t elements) {
    context->saved_data["key"] = key;
    context->saved_data["count"] = coefficients_K.size(0);
    return SumOf(static_cast<uint64_t>(key), coefficients_K, elements);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const auto key = static_cast<uint64_t>(context->saved_data["key"].toInt());
    return {ProductsOf(key, gradients[0], context->saved_data["count"].toInt()), at::Tensor(),
            at::Tensor()};
  }
};

}  // namespace

at::Tensor BasisMatrixAten(uint64_t key, uint32_t first, int64_t count, int64_t elements,
                           at::Device device) {
  const at::NoGradGuard no_grad;
  const auto options = at::TensorOptions().dtype(at::kLong).device(device);
  const int64_t blocks = (elements + kPerBlock - 1) / kPerBlock;
  const at::Tensor block_NB = at::arange(blocks, options).expand({count, blocks});
  at::Tensor c0 = at::bitwise_and(block_NB, 0xFFFFFFFFLL);
  at::Tensor c1 = at::bitwise_right_shift(block_NB, 32);
  at::Tensor c2 = at::bitwise_and(at::arange(count, options).add_(int64_t{first}), 0xFFFFFFFFLL)
                      .unsqueeze(1)
                      .expand({count, blocks});
  at::Tensor c3 = at::zeros({count, blocks}, options);
  auto key0 = static_cast<uint32_t>(key);
  auto key1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 7; ++round) {
    const Product p0 = Multiply(c0, 0xD2511F53LL);
    const Product p1 = Multiply(c2, 0xCD9E8D57LL);
    c0 = at::bitwise_xor(at::bitwise_xor(p1.high, c1), int64_t{key0});
    c2 = at::bitwise_xor(at::bitwise_xor(p0.high, c3), int64_t{key1});
    c1 = p1.low;
    c3 = p0.low;
    key0 += 0x9E3779B9U;
    key1 += 0xBB67AE85U;
  }
  std::vector<at::Tensor> halves;
  for (const at::Tensor& word : {c0, c1, c2, c3}) {
    halves.push_back(at::bitwise_and(word, 0xFFFFLL));
    halves.push_back(at::bitwise_right_shift(word, 16));
  }
  const at::Tensor words_NE = at::stack(halves, 2).view({count, blocks * kPerBlock});
  // Exact: a 16-bit integer, a power of two, and a sum of 17 bits.
  return words_NE.narrow(1, 0, elements)
      .to(at::kFloat)
      .mul_(1.0 / 32768)
      .add_(1.0 / 65536 - 1.0)
      .contiguous();
}

at::Tensor BasisMatrix(uint64_t key, uint32_t first, int64_t count, int64_t elements,
                       at::Device device) {
  if (!device.is_cpu()) return BasisMatrixAten(key, first, count, elements, device);
  at::Tensor bases_KE = at::empty({count, elements}, at::kFloat);
  float* const to = bases_KE.data_ptr<float>();
  ForRanges(elements, [&](int64_t, int64_t begin, int64_t end) {
    cpu::FillBases(key, first, count, elements, begin, end, to);
  });
  return bases_KE;
}

at::Tensor BasisSum(uint64_t key, const at::Tensor& coefficients_K, int64_t elements) {
  WEFT_CHECK(coefficients_K.dim() == 1 && elements > 0, elements, " elements");
  return SumFunction::apply(coefficients_K, static_cast<int64_t>(key), elements);
}

}  // namespace weft
