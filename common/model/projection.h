#pragma once
// A group of linear layers that read the same input, with the adapters bound to them:
// y = x Wᵀ + b + Σ_j B_j A_j dropout_j(x), and its backward pass, which keeps only x and A x.
// The adapters of all layers of a group are laid side by side: one A [R×I], one B [O×R] whose
// blocks map each adapter's ranks to its own layer's outputs.
//
// Shape legend: N tokens, I in, O out, R ranks of all adapters of the group together.

#include <cstdint>
#include <vector>

#include "common/model/weights.h"
#include "common/tensor/torch.h"

namespace weft {

/// Sees during a backward pass, position by position, what each matrix of the adapters that take
/// gradients read and the gradient of what it made of it: curvature is made of their products.
/// Factors are at scale 1; `site` is an index into Model::sites(). Tensors hold for the call alone,
/// on the thread that runs backward.
class MatrixObserver {
 public:
  virtual ~MatrixObserver() = default;
  /// x, after dropout, and the gradient of A x.
  virtual void OnA(size_t site, const at::Tensor& x_NI, const at::Tensor& dz_NR) = 0;
  /// A x and the gradient of B A x.
  virtual void OnB(size_t site, const at::Tensor& z_NR, const at::Tensor& dy_NO) = 0;
};

/// Gradients of the inputs of one loss, by slot, and who watches them being made (or null).
class GradientSlots {
 public:
  explicit GradientSlots(size_t count, MatrixObserver* observer = nullptr)
      : slots_(count), observer_(observer) {}
  /// Adds to a slot; −1 (nobody asks) is ignored.
  void Add(int64_t slot, const at::Tensor& gradient);
  [[nodiscard]] std::vector<at::Tensor>& slots() { return slots_; }
  [[nodiscard]] MatrixObserver* observer() const { return observer_; }

 private:
  std::vector<at::Tensor> slots_;
  MatrixObserver* observer_;
};

/// One adapter on one linear layer of a group.
struct BoundFactors {
  size_t part = 0;  // index into ProjectionGroup::parts
  int64_t rank_begin = 0;
  int64_t rank = 0;
  int64_t a_slot = -1;  // −1: frozen
  int64_t b_slot = -1;
  double dropout = 0;  // > 0 only while training
  uint64_t dropout_stream = 0;
};

struct BoundGroup {
  std::vector<BoundFactors> factors;
  at::Tensor A_RI;  // computation dtype; undefined: no adapter here
  at::Tensor B_OR;
  uint64_t dropout_seed = 0;
  [[nodiscard]] bool empty() const { return factors.empty(); }
  [[nodiscard]] bool has_dropout() const;
  [[nodiscard]] bool trains() const;
  /// The same with factors of that type; shares them where they are of it.
  [[nodiscard]] BoundGroup As(at::ScalarType type) const;
};

/// One site's adapters as they were passed in, and the slots of their gradients.
struct SiteFactors {
  at::Tensor A_RI;
  at::Tensor B_OR;
  int64_t a_slot = -1;
  int64_t b_slot = -1;
  double dropout = 0;
  uint64_t dropout_stream = 0;
};

/// Do products of matrices of this type run in float32? Those of bfloat16 do on a CPU without
/// matrix units for it (AMX, or Arm's), where a float32 product of the same size is faster: twice
/// on a Sapphire Rapids whose AMX the hypervisor hides.
[[nodiscard]] bool WidensProducts(at::ScalarType type, at::Device device);

/// The type in which the product of x with a frozen weight runs: x's own, or float32 where the
/// weight was widened while loading or products are widened. Inputs are widened, results rounded
/// once. A few rows on a weight that was not widened stay as they are: widening it would cost more
/// than the product.
[[nodiscard]] at::ScalarType ProductType(const at::Tensor& x_NI, const at::Tensor& w_OI);

/// Lays the adapters of a group side by side; `by_part` has one list per part.
[[nodiscard]] BoundGroup BindGroup(const ProjectionGroup& group,
                                   const std::vector<std::vector<SiteFactors>>& by_part,
                                   at::ScalarType dtype, at::Device device, uint64_t dropout_seed);

/// base_NO (undefined: zero) + the group's product. z_NR receives A x for the backward pass.
at::Tensor ProjectForward(const ProjectionGroup& group, const BoundGroup& bound,
                          const at::Tensor& x_NI, const at::Tensor& base_NO, at::Tensor* z_NR);

/// The backward pass in two halves, since some inputs are only known again after the first.
/// The gradient of x; dz_NR receives that of A x.
at::Tensor ProjectInputGradient(const ProjectionGroup& group, const BoundGroup& bound,
                                const at::Tensor& dy_NO, bool want_dx, at::Tensor* dz_NR);

struct ProjectionSaved {
  at::Tensor x_NI;
  at::Tensor z_NR;
};
/// Gradients of factors and weights go to their slots; `weight_offset` is the slot of the model's
/// first trainable weight.
void ProjectParameterGradients(const ProjectionGroup& group, const BoundGroup& bound,
                               const ProjectionSaved& saved, const at::Tensor& dy_NO,
                               const at::Tensor& dz_NR, int64_t weight_offset,
                               GradientSlots& gradients);

/// Dropout's factors 0 or 1/(1 − p) for [rows×columns] elements: element i of a stream is word
/// i mod 4 of the Philox block i div 4, so the mask depends on nothing but seed, stream and place.
[[nodiscard]] at::Tensor DropoutMask(uint64_t seed, uint64_t stream, double p,
                                     at::IntArrayRef shape, const at::TensorOptions& options);

}  // namespace weft
