#include "common/model/tape_node.h"

#include <utility>

#include "common/base/check.h"

namespace weft {
namespace {

class TapeNode : public torch::autograd::Node {
 public:
  TapeNode(std::string name, TapeBackward backward)
      : name_(std::move(name)), backward_(std::move(backward)) {}

  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    WEFT_CHECK(backward_ != nullptr, "the backward pass of ", name_, " runs once");
    const TapeBackward backward = std::exchange(backward_, nullptr);
    return backward(gradients[0]);
  }
  void release_variables() override { backward_ = nullptr; }
  std::string name() const override { return name_; }

 private:
  std::string name_;
  TapeBackward backward_;
};

}  // namespace

void AttachBackward(const at::Tensor& output, const std::vector<at::Tensor>& inputs,
                    std::string name, TapeBackward backward) {
  torch::autograd::edge_list edges;
  {
    const at::AutoGradMode with_grad(true);
    edges = torch::autograd::collect_next_edges(inputs);
  }
  const auto node = c10::make_intrusive<TapeNode>(std::move(name), std::move(backward));
  node->set_next_edges(std::move(edges));
  node->add_input_metadata(output);
  torch::autograd::impl::set_gradient_edge(output, torch::autograd::Edge(node, 0));
}

}  // namespace weft
