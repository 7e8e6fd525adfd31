#include "tests/integration/process.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace weft::testing {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// After a fork of a process with threads, so nothing here may allocate.
[[noreturn]] void Become(char** argv, int log) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::dup2(log, STDERR_FILENO);
  const int nowhere = ::open("/dev/null", O_WRONLY);
  ::dup2(nowhere, STDOUT_FILENO);
  ::execv(argv[0], argv);
  ::_exit(127);
}

}  // namespace

Process::Process(const std::string& program, const std::vector<std::string>& arguments) {
  int ends[2] = {-1, -1};
  if (::pipe2(ends, O_CLOEXEC) != 0) return;
  std::vector<std::string> texts{(std::filesystem::path(WEFT_BIN_DIR) / program).string()};
  texts.insert(texts.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& text : texts) argv.push_back(text.data());
  argv.push_back(nullptr);
  pid_ = ::fork();
  if (pid_ == 0) Become(argv.data(), ends[1]);
  ::close(ends[1]);
  pipe_ = ends[0];
}

Process::~Process() {
  if (pid_ > 0 && !ended_) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  if (pipe_ >= 0) ::close(pipe_);
}

bool Process::ReadSome(double limit_s) {
  pollfd ready{.fd = pipe_, .events = POLLIN, .revents = 0};
  if (::poll(&ready, 1, static_cast<int>(std::max(limit_s, 0.0) * 1000)) <= 0) return false;
  char buffer[4096];
  const ssize_t count = ::read(pipe_, buffer, sizeof(buffer));
  if (count <= 0) return false;
  log_.append(buffer, static_cast<size_t>(count));
  return true;
}

bool Process::WaitForLine(const std::vector<std::string>& words, double limit_s) {
  const Clock::time_point start = Clock::now();
  while (true) {
    size_t end = 0;
    while ((end = log_.find('\n', searched_)) != std::string::npos) {
      const std::string line = log_.substr(searched_, end - searched_);
      searched_ = end + 1;
      if (std::all_of(words.begin(), words.end(), [&](const std::string& word) {
            return line.find(word) != std::string::npos;
          })) {
        return true;
      }
    }
    if (!ReadSome(limit_s - SecondsSince(start))) return false;
  }
}

int Process::Wait() {
  constexpr double kLimit_s = 120;
  const Clock::time_point start = Clock::now();
  while (ReadSome(kLimit_s - SecondsSince(start))) {
  }
  if (SecondsSince(start) >= kLimit_s) ::kill(pid_, SIGKILL);
  int state = 0;
  ::waitpid(pid_, &state, 0);
  ended_ = true;
  return WIFEXITED(state) ? WEXITSTATUS(state) : -WTERMSIG(state);
}

void Process::Signal(int number) const {
  if (!ended_) ::kill(pid_, number);
}

void Process::LimitFileBytes(uint64_t bytes) const {
  rlimit limit{};
  EXPECT_EQ(::prlimit(pid_, RLIMIT_FSIZE, nullptr, &limit), 0);
  limit.rlim_cur = std::min<rlim_t>(bytes, limit.rlim_max);
  EXPECT_EQ(::prlimit(pid_, RLIMIT_FSIZE, &limit, nullptr), 0);
}

}  // namespace weft::testing
