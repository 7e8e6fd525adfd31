#include "common/tensor/device.h"

#include <charconv>

#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>

namespace weft {
namespace {

int64_t CudaDevices() { return at::hasCUDA() ? at::detail::getCUDAHooks().deviceCount() : 0; }

}  // namespace

Result<at::Device> ParseDevice(std::string_view text) {
  const int64_t count = CudaDevices();
  if (text == "cpu") return at::Device(at::kCPU);
  if (text == "auto") return count > 0 ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
  int index = 0;
  bool cuda = text == "cuda";
  if (text.substr(0, 5) == "cuda:") {
    const char* const end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data() + 5, end, index);
    cuda = text.size() > 5 && parsed.ec == std::errc() && parsed.ptr == end && index >= 0;
  }
  if (!cuda) {
    return InvalidArgument(Str("[device] got \"", text, "\", wanted cpu, cuda, cuda:N or auto"));
  }
  if (index >= count) {
    return FailedPrecondition(Str("[device] got \"", text, "\", but this ",
                                  at::hasCUDA() ? "machine has " : "LibTorch has no CUDA and sees ",
                                  count, " CUDA devices; use cpu or auto"));
  }
  return at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(index));
}

Result<at::ScalarType> ParseComputeType(std::string_view text) {
  if (text == "float32" || text == "f32" || text == "fp32") return at::kFloat;
  if (text == "bfloat16" || text == "bf16") return at::kBFloat16;
  return InvalidArgument(Str("[dtype] got \"", text, "\", wanted float32 or bfloat16"));
}

}  // namespace weft
