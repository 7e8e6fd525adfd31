#pragma once
// The one place that includes torch; precompiled. Everything else includes this header (or none).
// torch/torch.h is banned: it costs 13–17 s a file.

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/types.h>
