#include "tests/parity/methods/toy_model.h"

#include <algorithm>

#include "common/base/str.h"

// Shape legend: N examples, T tokens, C classes, O out, I in of a matrix.

namespace weft::testing {
namespace {

at::Tensor Parameter(GoldenSet& golden, const std::string& name) {
  return golden.Doubles(name, {-1, -1}).clone().set_requires_grad(true);
}

/// x Wᵀ + s (x Aᵀ) Bᵀ, keeping what went into A and B and came out of them.
at::Tensor Apply(const ToyLayer& layer, double scaling, const at::Tensor& x_NTI, ToyPass& pass) {
  const at::Tensor z = at::matmul(x_NTI, layer.A.t());
  const at::Tensor u = at::matmul(z, layer.B.t());
  for (const auto& [input, output] : {std::pair(x_NTI, z), std::pair(z, u)}) {
    output.retain_grad();
    pass.inputs_NTI.push_back(input.detach());
    pass.outputs_NTO.push_back(output);
  }
  return at::matmul(x_NTI, layer.W.t()) + scaling * u;
}

at::Tensor LastPosition(const at::Tensor& x_NTD) { return x_NTD.narrow(1, x_NTD.size(1) - 1, 1); }

at::Tensor Rows(const at::Tensor& x_NTD, bool last_only) {
  return (last_only ? LastPosition(x_NTD) : x_NTD).flatten(0, 1);
}

}  // namespace

std::vector<std::string> ToyModel::Matrices() const {
  std::vector<std::string> names;
  for (const ToyLayer& layer : layers) {
    names.push_back(layer.name + ".lora_A");
    names.push_back(layer.name + ".lora_B");
  }
  return names;
}

std::vector<at::Tensor> ToyModel::Theta() const {
  std::vector<at::Tensor> theta;
  for (const ToyLayer& layer : layers) {
    theta.push_back(layer.A.detach());
    theta.push_back(layer.B.detach());
  }
  return theta;
}

ToyModel ReadToyModel(GoldenSet& golden, const std::string& prefix, const std::string& base) {
  ToyModel model;
  model.scaling = golden.Number(prefix + "scaling");
  model.embedding = golden.Doubles(prefix + "param.emb.weight", {-1, -1});
  std::vector<std::string> names = golden.Between(prefix + "param.", ".lora_A.weight");
  if (names.empty()) throw GoldenError(prefix + "param.*.lora_A.weight: no layer is adapted");
  std::sort(names.begin(), names.end(), [](const std::string& x, const std::string& y) {
    return std::pair(x.size(), x) < std::pair(y.size(), y);  // l2 before l10
  });
  for (const std::string& name : names) {
    const std::string stem = prefix + "param." + name;
    model.layers.push_back({name, golden.Doubles(stem + "." + base + ".weight", {-1, -1}),
                            Parameter(golden, stem + ".lora_A.weight"),
                            Parameter(golden, stem + ".lora_B.weight")});
  }
  if (golden.Has(prefix + "param.head.weight")) {
    model.head = golden.Doubles(prefix + "param.head.weight", {-1, -1});
  }
  return model;
}

ToyPass Forward(const ToyModel& model, const at::Tensor& ids_NT) {
  ToyPass pass;
  at::Tensor h = at::embedding(model.embedding, ids_NT);
  for (size_t l = 0; l < model.layers.size(); ++l) {
    const bool gives_logits = !model.head.defined() && l + 1 == model.layers.size();
    h = Apply(model.layers[l], model.scaling, gives_logits ? LastPosition(h) : h, pass);
    if (!gives_logits) h = h.tanh();
  }
  if (model.head.defined()) h = at::matmul(LastPosition(h), model.head.t());
  pass.logits_NC = h.squeeze(1);
  return pass;
}

std::vector<at::Tensor> OutputGradients(const ToyPass& pass, const at::Tensor& objective) {
  objective.backward();
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& output : pass.outputs_NTO) gradients.push_back(output.grad());
  return gradients;
}

std::vector<at::Tensor> Jacobians(const ToyModel& model, const at::Tensor& ids_NT) {
  const int64_t classes = Forward(model, ids_NT).logits_NC.size(1);
  std::vector<std::vector<at::Tensor>> by_matrix(model.Matrices().size());
  for (int64_t c = 0; c < classes; ++c) {
    // Examples do not meet each other, so one backward pass serves them all.
    const ToyPass pass = Forward(model, ids_NT);
    const std::vector<at::Tensor> g = OutputGradients(pass, pass.logits_NC.select(1, c).sum());
    for (size_t m = 0; m < by_matrix.size(); ++m) {
      by_matrix[m].push_back(at::einsum("nto,nti->noi", {g[m], pass.inputs_NTI[m]}));
    }
  }
  std::vector<at::Tensor> jacobians;
  for (const std::vector<at::Tensor>& classes_NOI : by_matrix) {
    jacobians.push_back(at::stack(classes_NOI, 1));
  }
  return jacobians;
}

void AddInputs(const ToyPass& pass, bool last_only, LaplaceStatistics& statistics) {
  for (size_t m = 0; m < statistics.matrices.size(); ++m) {
    const at::Tensor rows = Rows(pass.inputs_NTI[m], last_only);
    statistics.matrices[m].input.Add(rows);
    statistics.matrices[m].rows += static_cast<uint64_t>(rows.size(0));
  }
}

void AddGradients(const std::vector<at::Tensor>& gradients_NTO, bool last_only,
                  LaplaceStatistics& statistics) {
  for (size_t m = 0; m < statistics.matrices.size(); ++m) {
    statistics.matrices[m].output.Add(Rows(gradients_NTO[m], last_only));
  }
}

LaplaceStatistics EmptyStatistics(const ToyModel& model, int64_t root_from, int64_t rank) {
  LaplaceStatistics statistics;
  const std::vector<std::string> names = model.Matrices();
  const std::vector<at::Tensor> theta = model.Theta();
  for (size_t m = 0; m < names.size(); ++m) {
    statistics.matrices.push_back({names[m], 0, Gram::ForSide(theta[m].size(1), root_from, rank),
                                   Gram::ForSide(theta[m].size(0), root_from, rank)});
  }
  return statistics;
}

at::Tensor DenseCovariance(const std::vector<DenseBlock>& blocks, double precision,
                           const std::vector<at::Tensor>& jacobians_NCOI) {
  at::Tensor sum = at::zeros({1, 1, 1}, at::kDouble);
  for (size_t b = 0; b < blocks.size(); ++b) {
    const at::Tensor H = at::kron(blocks[b].G, blocks[b].A);
    const at::Tensor covariance = at::linalg_inv(H + precision * at::eye(H.size(0), at::kDouble));
    const at::Tensor J = jacobians_NCOI[b].flatten(2);
    sum = sum + at::matmul(at::matmul(J, covariance), J.transpose(1, 2));
  }
  return sum;
}

}  // namespace weft::testing
