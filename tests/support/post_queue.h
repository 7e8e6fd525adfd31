#pragma once
// PostQueue: the least event loop a test needs: completions posted from any thread run where the
// test waits for them. ScratchFolder: a folder that goes when the test ends.

#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <functional>
#include <mutex>
#include <string>
#include <utility>

#include "common/base/status.h"

namespace weft::testing {

class PostQueue {
 public:
  [[nodiscard]] std::function<void(std::function<void()>)> Poster() {
    return [this](std::function<void()> task) {
      const std::scoped_lock guard(mutex_);
      tasks_.push_back(std::move(task));
      wake_.notify_one();
    };
  }

  /// Runs one posted task, waiting for it.
  void RunOne() {
    std::function<void()> task;
    {
      std::unique_lock guard(mutex_);
      wake_.wait(guard, [this] { return !tasks_.empty(); });
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }

  /// Calls `start` with a Done and runs tasks until that Done is called; returns its status.
  [[nodiscard]] Status Await(const std::function<void(std::function<void(Status)>)>& start) {
    bool called = false;
    Status outcome;
    start([&](Status status) {
      called = true;
      outcome = std::move(status);
    });
    while (!called) RunOne();
    return outcome;
  }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;
};

class ScratchFolder {
 public:
  ScratchFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "weft-test-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace weft::testing
