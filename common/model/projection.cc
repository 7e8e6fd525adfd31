#include "common/model/projection.h"

#include <cmath>

#include <ATen/cpu/Utils.h>

#include "common/base/check.h"
#include "common/base/random.h"

namespace weft {

void GradientSlots::Add(int64_t slot, const at::Tensor& gradient) {
  if (slot < 0) return;
  at::Tensor& sum = slots_[static_cast<size_t>(slot)];
  sum = sum.defined() ? sum + gradient : gradient;
}

bool BoundGroup::has_dropout() const {
  for (const BoundFactors& bound : factors) {
    if (bound.dropout > 0) return true;
  }
  return false;
}

BoundGroup BoundGroup::As(at::ScalarType type) const {
  BoundGroup same = *this;
  if (empty()) return same;
  same.A_RI = A_RI.to(type);
  same.B_OR = B_OR.to(type);
  return same;
}

bool BoundGroup::trains() const {
  for (const BoundFactors& bound : factors) {
    if (bound.a_slot >= 0 || bound.b_slot >= 0) return true;
  }
  return false;
}

BoundGroup BindGroup(const ProjectionGroup& group,
                     const std::vector<std::vector<SiteFactors>>& by_part, at::ScalarType dtype,
                     at::Device device, uint64_t dropout_seed) {
  BoundGroup bound;
  bound.dropout_seed = dropout_seed;
  int64_t ranks = 0;
  for (size_t part = 0; part < by_part.size(); ++part) {
    for (const SiteFactors& site : by_part[part]) {
      const int64_t rank = site.A_RI.size(0);
      bound.factors.push_back(
          {part, ranks, rank, site.a_slot, site.b_slot, site.dropout, site.dropout_stream});
      ranks += rank;
    }
  }
  if (bound.empty()) return bound;
  const at::TensorOptions options = at::TensorOptions().dtype(dtype).device(device);
  bound.A_RI = at::empty({ranks, group.in}, options);
  bound.B_OR = group.parts.size() > 1 ? at::zeros({group.out, ranks}, options)
                                      : at::empty({group.out, ranks}, options);
  size_t next = 0;
  for (size_t part = 0; part < by_part.size(); ++part) {
    const ProjectionPart& rows = group.parts[part];
    for (const SiteFactors& site : by_part[part]) {
      const BoundFactors& place = bound.factors[next++];
      bound.A_RI.narrow(0, place.rank_begin, place.rank).copy_(site.A_RI);
      bound.B_OR.narrow(0, rows.begin, rows.size)
          .narrow(1, place.rank_begin, place.rank)
          .copy_(site.B_OR);
    }
  }
  return bound;
}

at::Tensor DropoutMask(uint64_t seed, uint64_t stream, double p, at::IntArrayRef shape,
                       const at::TensorOptions& options) {
  at::Tensor mask = at::empty(shape, at::kFloat);
  float* const data = mask.data_ptr<float>();
  const int64_t count = mask.numel();
  const float kept = static_cast<float>(1.0 / (1.0 - p));
  const auto threshold = static_cast<uint32_t>(std::min(p * 4294967296.0, 4294967295.0));
  const std::array<uint32_t, 2> key = {static_cast<uint32_t>(seed),
                                       static_cast<uint32_t>(seed >> 32)};
  at::parallel_for(0, (count + 3) / 4, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const auto words =
          Philox({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
                  static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32)},
                 key);
      for (int64_t i = 4 * block; i < std::min(4 * block + 4, count); ++i) {
        data[i] = words[static_cast<size_t>(i % 4)] < threshold ? 0.0F : kept;
      }
    }
  });
  return mask.to(options);
}

namespace {

at::Tensor MaskOf(const BoundGroup& bound, const BoundFactors& factors, const at::Tensor& x_NI) {
  return DropoutMask(bound.dropout_seed, factors.dropout_stream, factors.dropout, x_NI.sizes(),
                     x_NI.options());
}

at::Tensor DownProduct(const BoundGroup& bound, const at::Tensor& x_NI) {
  if (!bound.has_dropout()) return x_NI.mm(bound.A_RI.t());
  at::Tensor z_NR = at::empty({x_NI.size(0), bound.A_RI.size(0)}, x_NI.options());
  for (const BoundFactors& factors : bound.factors) {
    const at::Tensor A_RI = bound.A_RI.narrow(0, factors.rank_begin, factors.rank);
    const at::Tensor kept_NI = factors.dropout > 0 ? x_NI * MaskOf(bound, factors, x_NI) : x_NI;
    z_NR.narrow(1, factors.rank_begin, factors.rank).copy_(kept_NI.mm(A_RI.t()));
  }
  return z_NR;
}

void AddAdapterInputGradient(const BoundGroup& bound, const at::Tensor& dz_NR,
                             const at::Tensor& dx_NI) {
  if (!bound.has_dropout()) {
    dx_NI.addmm_(dz_NR, bound.A_RI);
    return;
  }
  for (const BoundFactors& factors : bound.factors) {
    at::Tensor own_NI = dz_NR.narrow(1, factors.rank_begin, factors.rank)
                            .mm(bound.A_RI.narrow(0, factors.rank_begin, factors.rank));
    if (factors.dropout > 0) own_NI.mul_(MaskOf(bound, factors, dx_NI));
    dx_NI.add_(own_NI);
  }
}

void GradientsOfA(const ProjectionGroup& group, const BoundGroup& bound, const at::Tensor& x_NI,
                  const at::Tensor& dz_NR, GradientSlots& gradients) {
  const bool dropout = bound.has_dropout();
  at::Tensor dA_RI;
  if (!dropout) dA_RI = dz_NR.t().mm(x_NI);
  for (const BoundFactors& factors : bound.factors) {
    if (factors.a_slot < 0) continue;
    const at::Tensor own_NR = dz_NR.narrow(1, factors.rank_begin, factors.rank);
    const at::Tensor kept_NI = factors.dropout > 0 ? x_NI * MaskOf(bound, factors, x_NI) : x_NI;
    gradients.Add(factors.a_slot, dropout ? own_NR.t().mm(kept_NI)
                                          : dA_RI.narrow(0, factors.rank_begin, factors.rank));
    if (MatrixObserver* const observer = gradients.observer()) {
      observer->OnA(group.parts[factors.part].site, kept_NI, own_NR);
    }
  }
}

void GradientsOfB(const ProjectionGroup& group, const BoundGroup& bound, const at::Tensor& z_NR,
                  const at::Tensor& dy_NO, GradientSlots& gradients) {
  const at::Tensor dB_OR = dy_NO.t().mm(z_NR);
  for (const BoundFactors& factors : bound.factors) {
    if (factors.b_slot < 0) continue;
    const ProjectionPart& part = group.parts[factors.part];
    gradients.Add(
        factors.b_slot,
        dB_OR.narrow(0, part.begin, part.size).narrow(1, factors.rank_begin, factors.rank));
    if (MatrixObserver* const observer = gradients.observer()) {
      observer->OnB(part.site, z_NR.narrow(1, factors.rank_begin, factors.rank),
                    dy_NO.narrow(1, part.begin, part.size));
    }
  }
}

void WeightGradients(const ProjectionGroup& group, const at::Tensor& x_NI, const at::Tensor& dy_NO,
                     int64_t weight_offset, GradientSlots& gradients) {
  for (const ProjectionPart& part : group.parts) {
    const at::Tensor own_NO = dy_NO.narrow(1, part.begin, part.size);
    if (part.weight_slot >= 0) {
      gradients.Add(weight_offset + part.weight_slot,
                    part.stored_transposed ? x_NI.t().mm(own_NO) : own_NO.t().mm(x_NI));
    }
    if (part.bias_slot >= 0) gradients.Add(weight_offset + part.bias_slot, own_NO.sum(0));
  }
}

}  // namespace

bool WidensProducts(at::ScalarType type, at::Device device) {
  static const bool has_units = [] {
#if defined(__x86_64__)
    const auto capabilities = at::cpu::get_cpu_capabilities();
    const auto found = capabilities.find("amx_bf16");
    return found != capabilities.end() && found->second.isBool() && found->second.toBool();
#else
    return true;
#endif
  }();
  return type == at::kBFloat16 && device.is_cpu() && !has_units;
}

at::ScalarType ProductType(const at::Tensor& x_NI, const at::Tensor& w_OI) {
  constexpr int64_t kFewRows = 32;
  if (w_OI.scalar_type() == at::kFloat) return at::kFloat;
  const bool widened =
      x_NI.size(0) >= kFewRows && WidensProducts(x_NI.scalar_type(), x_NI.device());
  return widened ? at::kFloat : x_NI.scalar_type();
}

at::Tensor ProjectForward(const ProjectionGroup& group, const BoundGroup& given,
                          const at::Tensor& x_NI, const at::Tensor& base_NO, at::Tensor* z_NR) {
  const at::ScalarType type = ProductType(x_NI, group.pieces[0].w_OI);
  const at::Tensor own_NI = x_NI.to(type);
  at::Tensor y_NO;
  if (group.pieces.size() == 1) {
    const at::Tensor w_IO = group.pieces[0].w_OI.to(type).t();
    if (base_NO.defined()) {
      y_NO = at::addmm(base_NO.to(type), own_NI, w_IO);
      if (group.bias_O.defined()) y_NO.add_(group.bias_O);
    } else {
      y_NO = group.bias_O.defined() ? at::addmm(group.bias_O.to(type), own_NI, w_IO)
                                    : at::mm(own_NI, w_IO);
    }
  } else {
    WEFT_CHECK(!base_NO.defined(), "only groups of one piece add to the residual stream");
    y_NO = at::empty({x_NI.size(0), group.out}, own_NI.options());
    for (const ProjectionPiece& piece : group.pieces) {
      at::Tensor rows_NO = y_NO.narrow(1, piece.begin, piece.w_OI.size(0));
      at::mm_out(rows_NO, own_NI, piece.w_OI.to(type).t());
    }
    if (group.bias_O.defined()) y_NO.add_(group.bias_O);
  }
  if (!given.empty()) {
    const BoundGroup bound = given.As(type);
    *z_NR = DownProduct(bound, own_NI);
    y_NO.addmm_(*z_NR, bound.B_OR.t());
  }
  return y_NO.to(x_NI.scalar_type());
}

at::Tensor ProjectInputGradient(const ProjectionGroup& group, const BoundGroup& given,
                                const at::Tensor& dy_NO, bool want_dx, at::Tensor* dz_NR) {
  const at::ScalarType type = ProductType(dy_NO, group.pieces[0].w_OI);
  const at::Tensor own_NO = dy_NO.to(type);
  const BoundGroup bound = given.As(type);
  if (!bound.empty()) *dz_NR = own_NO.mm(bound.B_OR);
  if (!want_dx) return {};
  at::Tensor dx_NI;
  for (const ProjectionPiece& piece : group.pieces) {
    const at::Tensor w_OI = piece.w_OI.to(type);
    const at::Tensor rows_NO =
        group.pieces.size() == 1 ? own_NO : own_NO.narrow(1, piece.begin, w_OI.size(0));
    if (dx_NI.defined()) {
      dx_NI.addmm_(rows_NO, w_OI);
    } else {
      dx_NI = at::mm(rows_NO, w_OI);
    }
  }
  if (!bound.empty()) AddAdapterInputGradient(bound, *dz_NR, dx_NI);
  return dx_NI.to(dy_NO.scalar_type());
}

void ProjectParameterGradients(const ProjectionGroup& group, const BoundGroup& bound,
                               const ProjectionSaved& saved, const at::Tensor& dy_NO,
                               const at::Tensor& dz_NR, int64_t weight_offset,
                               GradientSlots& gradients) {
  if (bound.trains()) {
    // A x and its gradient are kept in the type of the products.
    const at::ScalarType type = ProductType(dy_NO, group.pieces[0].w_OI);
    GradientsOfA(group, bound, saved.x_NI.to(type), dz_NR, gradients);
    GradientsOfB(group, bound, saved.z_NR, dy_NO.to(type), gradients);
  }
  WeightGradients(group, saved.x_NI, dy_NO, weight_offset, gradients);
}

}  // namespace weft
