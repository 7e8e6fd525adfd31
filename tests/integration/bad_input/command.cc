#include "tests/integration/bad_input/command.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <string_view>

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace weft::testing {
namespace {

using Clock = std::chrono::steady_clock;

struct Pipe {
  std::array<int, 2> ends{-1, -1};
  Pipe() { (void)!::pipe2(ends.data(), O_CLOEXEC); }
  ~Pipe() {
    CloseRead();
    CloseWrite();
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  void CloseRead() { Close(ends[0]); }
  void CloseWrite() { Close(ends[1]); }

 private:
  static void Close(int& end) {
    if (end >= 0) ::close(end);
    end = -1;
  }
};

[[noreturn]] void Become(const std::string& path, const std::vector<std::string>& arguments,
                         const RunOptions& options, const std::array<int, 3>& ends) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  for (size_t i = 0; i < ends.size(); ++i) ::dup2(ends[i], static_cast<int>(i));
  for (const std::string& variable : options.environment) {
    ::putenv(const_cast<char*>(variable.c_str()));
  }
  std::vector<char*> argv = {const_cast<char*>(path.c_str())};
  for (const std::string& argument : arguments) {
    argv.push_back(const_cast<char*>(argument.c_str()));
  }
  argv.push_back(nullptr);
  ::execv(path.c_str(), argv.data());
  ::_exit(127);
}

/// Feeds and reads the three pipes until both outputs end; false when the time is over.
class Exchange {
 public:
  Exchange(Pipe& in, Pipe& out, Pipe& err, std::string_view input)
      : in_(in), out_(out), err_(err), left_(input) {}

  bool Pump(Ran& ran, double limit_s) {
    const auto end = Clock::now() + std::chrono::duration<double>(limit_s);
    if (left_.empty()) in_.CloseWrite();
    while (out_.ends[0] >= 0 || err_.ends[0] >= 0) {
      const auto left_ms =
          std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now());
      std::array<pollfd, 3> polled = {pollfd{out_.ends[0], POLLIN, 0},
                                      pollfd{err_.ends[0], POLLIN, 0},
                                      pollfd{in_.ends[1], POLLOUT, 0}};
      if (left_ms.count() <= 0 ||
          ::poll(polled.data(), polled.size(), static_cast<int>(left_ms.count())) <= 0) {
        return false;
      }
      if (polled[0].revents != 0) Read(out_, ran.out);
      if (polled[1].revents != 0) Read(err_, ran.err);
      if (polled[2].revents != 0) Feed();
    }
    return true;
  }

 private:
  static void Read(Pipe& pipe, std::string& text) {
    std::array<char, 65536> buffer;
    const ssize_t count = ::read(pipe.ends[0], buffer.data(), buffer.size());
    if (count <= 0) return pipe.CloseRead();
    text.append(buffer.data(), static_cast<size_t>(count));
  }

  void Feed() {
    const ssize_t count = ::write(in_.ends[1], left_.data(), std::min<size_t>(left_.size(), 4096));
    if (count > 0) left_.remove_prefix(static_cast<size_t>(count));
    if (count <= 0 || left_.empty()) in_.CloseWrite();
  }

  Pipe& in_;
  Pipe& out_;
  Pipe& err_;
  std::string_view left_;
};

bool Has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

std::string Shown(const Ran& ran) {
  return "\n  $ " + ran.line + "\n  exit code " + std::to_string(ran.code) +
         "\n  stdout: " + ran.out.substr(0, 2000) + "\n  stderr: " + ran.err.substr(0, 4000);
}

}  // namespace

Ran Execute(const std::string& program, const std::vector<std::string>& arguments,
            const RunOptions& options) {
  Ran ran;
  ran.line = program;
  for (const std::string& argument : arguments) ran.line += " " + argument;
  std::signal(SIGPIPE, SIG_IGN);  // a program may end without reading its input
  Pipe in, out, err;
  const std::string path = std::string(WEFT_BIN_DIR) + "/" + program;
  const pid_t pid = ::fork();
  if (pid == 0) {
    std::signal(SIGPIPE, SIG_DFL);
    Become(path, arguments, options, {in.ends[0], out.ends[1], err.ends[1]});
  }
  in.CloseRead();
  out.CloseWrite();
  err.CloseWrite();
  const bool ended = Exchange(in, out, err, options.input).Pump(ran, options.limit_s);
  if (!ended) ::kill(pid, SIGKILL);
  int state = 0;
  ::waitpid(pid, &state, 0);
  ran.code = WIFEXITED(state) ? WEXITSTATUS(state) : -WTERMSIG(state);
  if (!ended) ran.err += "\n(killed by the test: it did not end in time)";
  return ran;
}

::testing::AssertionResult Refused(const Ran& ran, const std::vector<std::string>& words,
                                   int code) {
  if (ran.code != code) {
    return ::testing::AssertionFailure() << "wanted exit code " << code << Shown(ran);
  }
  if (!Has(ran.err, ": error: ")) {
    return ::testing::AssertionFailure() << "no \"PROGRAM: error: …\" on stderr" << Shown(ran);
  }
  if (!ran.out.empty()) return ::testing::AssertionFailure() << "text on stdout" << Shown(ran);
  for (const char* leak : {"internal error", "Exception raised from", "frame #", "terminate called",
                           "std::", "c10::"}) {
    if (Has(ran.err, leak)) {
      return ::testing::AssertionFailure() << "\"" << leak << "\" reached the user" << Shown(ran);
    }
  }
  for (const std::string& word : words) {
    if (!Has(ran.err, word)) {
      return ::testing::AssertionFailure() << "the message lacks \"" << word << "\"" << Shown(ran);
    }
  }
  return ::testing::AssertionSuccess();
}

::testing::AssertionResult Succeeded(const Ran& ran) {
  if (ran.code == 0) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "wanted exit code 0" << Shown(ran);
}

}  // namespace weft::testing
