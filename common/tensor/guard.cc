#include "common/tensor/guard.h"

#include <new>
#include <string>

#include "common/base/check.h"
#include "common/tensor/torch.h"

namespace weft {
namespace {

// LibTorch's CPU allocator has no exception type of its own for "no memory": it throws a plain
// c10::Error, which only its text tells from others (and std::bad_alloc comes from containers).
bool SaysOutOfMemory(std::string_view what) {
  for (std::string_view phrase :
       {"DefaultCPUAllocator: can't allocate memory", "not enough memory", "out of memory"}) {
    if (what.find(phrase) != std::string_view::npos) return true;
  }
  return false;
}

std::string FirstLine(std::string_view text) {
  return std::string(text.substr(0, text.find('\n')));
}

}  // namespace

Status StatusOfCurrentException(std::string_view where) {
  const std::string prefix = std::string(where) + (where.empty() ? "" : " ");
  try {
    throw;
  } catch (const CheckFailure&) {
    throw;
  } catch (const c10::OutOfMemoryError& error) {
    return ResourceExhausted(prefix +
                             "out of memory: " + FirstLine(error.what_without_backtrace()));
  } catch (const c10::Error& error) {
    const std::string line = FirstLine(error.what_without_backtrace());
    if (SaysOutOfMemory(line)) return ResourceExhausted(prefix + "out of memory: " + line);
    return Internal(prefix + line);
  } catch (const std::bad_alloc&) {
    return ResourceExhausted(prefix + "out of memory");
  } catch (const std::exception& error) {
    if (SaysOutOfMemory(error.what())) {
      return ResourceExhausted(prefix + "out of memory: " + FirstLine(error.what()));
    }
    return Internal(prefix + FirstLine(error.what()));
  }
}

}  // namespace weft
