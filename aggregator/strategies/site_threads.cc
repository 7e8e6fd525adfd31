#include "aggregator/strategies/site_threads.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace weft {

// Threads of our own and not OpenMP's: MKL's QR waits forever inside an OpenMP region that gives it
// fewer threads than torch has told it to use.
void ForEachSite(size_t count, const std::function<void(size_t, StackMemory&)>& work) {
  const size_t cores = std::max(1U, std::thread::hardware_concurrency());
  const size_t threads = std::min(count, cores);
  const int torch_threads = at::get_num_threads();
  std::atomic<size_t> next{0};
  std::exception_ptr escaped;
  std::mutex mutex;
  const auto run = [&] {
    // QR and SVD have other bits with other numbers of threads.
    at::set_num_threads(1);
    const c10::InferenceMode no_autograd;
    StackMemory memory;
    try {
      for (size_t i = next++; i < count; i = next++) work(i, memory);
    } catch (...) {
      const std::scoped_lock lock(mutex);
      escaped = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> others;
    for (size_t i = 1; i < threads; ++i) others.emplace_back(run);
    run();
  }
  at::set_num_threads(torch_threads);
  if (escaped) std::rethrow_exception(escaped);
}

}  // namespace weft
