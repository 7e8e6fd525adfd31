#include "client/memory_plan.h"

#include <algorithm>
#include <fstream>
#include <limits>

#include "common/base/str.h"

namespace weft {
namespace {

constexpr int64_t kLogitBytes = int64_t{4} * 128 * 49152;  // one block of the cross-entropy
constexpr double kShareToUse = 0.8;

// One number of a file such as memory.max; nothing for "max" or where there is no file.
std::optional<int64_t> NumberIn(const std::filesystem::path& path) {
  std::ifstream in(path);
  int64_t number = 0;
  if (in >> number) return number;
  return std::nullopt;
}

std::optional<int64_t> MemInfoAvailable() {
  std::ifstream in("/proc/meminfo");
  for (std::string word; in >> word;) {
    int64_t kib = 0;
    if (word == "MemAvailable:" && in >> kib) return kib * 1024;
  }
  return std::nullopt;
}

int64_t BytesOfWeights(const Model& model) {
  int64_t bytes = 0;
  for (const NamedTensor& weight : model.AllWeights()) {
    bytes += static_cast<int64_t>(weight.value.nbytes());
  }
  return bytes;
}

// Numbers a layer keeps of each token for its backward pass: two norm inputs, q·k·v, attention's
// output, the MLP's up (and gate) product.
int64_t KeptPerLayer(const ModelConfig& config) {
  const int64_t heads = config.num_heads * config.head_dim;
  const int64_t kv = config.num_kv_heads * config.head_dim;
  return 2 * config.hidden_size + 2 * heads + 2 * kv + 2 * config.intermediate_size;
}

std::string Megabytes(int64_t bytes) { return Str((bytes + (1 << 19)) >> 20, " MB"); }

}  // namespace

// A limit may be set at any of them: systemd's at the unit, a container's at its root.
std::optional<int64_t> ControlGroupLeft(const std::filesystem::path& groups,
                                        const std::filesystem::path& own) {
  std::ifstream lines(own);
  std::filesystem::path group = "/";
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("0::/")) group = line.substr(3);
  }
  std::optional<int64_t> least;
  for (;; group = group.parent_path()) {
    const std::filesystem::path folder = groups / group.relative_path();
    const auto most = NumberIn(folder / "memory.max");
    const auto used = NumberIn(folder / "memory.current");
    if (most && used) {
      const int64_t left = std::max<int64_t>(0, *most - *used);
      least = least ? std::min(*least, left) : left;
    }
    if (!group.has_relative_path()) return least;
  }
}

int64_t MemoryPlan::activation_bytes() const {
  return bytes_per_token * row_tokens * micro_batch_rows + fixed_bytes;
}

int64_t MemoryPlan::training_bytes() const {
  return adapter_bytes + optimizer_bytes + activation_bytes();
}

std::string MemoryPlan::Text() const {
  std::string text = Str("memory: base ", Megabytes(base_bytes), ", parameters and gradients ",
                         Megabytes(adapter_bytes), ", optimiser ", Megabytes(optimizer_bytes),
                         ", activations ", Megabytes(activation_bytes()), " for micro-batches of ",
                         micro_batch_rows, " rows of ", row_tokens, " tokens at most");
  if (available_bytes > 0) text += ", free " + Megabytes(available_bytes);
  return text;
}

int64_t MaxRowTokens(const LocalTraining& training, const Model& model) {
  const int64_t context = model.config().max_positions;
  return training.max_len > 0 ? std::min(training.max_len, context) : context;
}

MemoryPlan PlanMemory(const Model& model, const LocalTraining& training,
                      const MemoryRequest& request) {
  const ModelConfig& config = model.config();
  const auto element = static_cast<int64_t>(c10::elementSize(model.dtype()));
  const int64_t layer = KeptPerLayer(config) * element;
  MemoryPlan plan;
  plan.base_bytes = BytesOfWeights(model);
  plan.adapter_bytes = request.trained_parameters * 8;
  plan.optimizer_bytes = request.trained_parameters * 8;
  plan.row_tokens = request.longest_row;
  plan.available_bytes = request.available_bytes;
  // With checkpointing a layer keeps its input; one layer at a time keeps all.
  plan.bytes_per_token = training.gradient_checkpointing
                             ? config.num_layers * config.hidden_size * element + 2 * layer
                             : (config.num_layers + 1) * layer;
  plan.fixed_bytes = kLogitBytes;
  plan.micro_batch_rows = training.micro_batch_size;
  if (plan.micro_batch_rows > 0) return plan;
  plan.micro_batch_rows = training.batch_size;
  const auto usable =
      static_cast<int64_t>(kShareToUse * static_cast<double>(request.available_bytes));
  while (request.available_bytes > 0 && plan.micro_batch_rows > 1 &&
         plan.training_bytes() > usable) {
    plan.micro_batch_rows = (plan.micro_batch_rows + 1) / 2;
  }
  return plan;
}

int64_t AvailableMemory(at::Device device) {
  if (!device.is_cpu()) {
    try {
      return static_cast<int64_t>(at::accelerator::getMemoryInfo(device.index()).first);
    } catch (const c10::Error&) {
      return 0;  // an accelerator that does not tell
    }
  }
  int64_t available = std::numeric_limits<int64_t>::max();
  for (const auto& bound :
       {MemInfoAvailable(), ControlGroupLeft("/sys/fs/cgroup", "/proc/self/cgroup")}) {
    if (bound) available = std::min(available, *bound);
  }
  return available == std::numeric_limits<int64_t>::max() ? 0 : available;
}

}  // namespace weft
