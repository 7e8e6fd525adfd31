#include "common/net/signal_watcher.h"

#include <cerrno>

#include <pthread.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/base/check.h"

namespace weft {
namespace {

sigset_t Watched() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

}  // namespace

SignalWatcher::SignalWatcher(EventLoop& loop, std::function<void(int)> on_signal)
    : loop_(loop), on_signal_(std::move(on_signal)) {
  const sigset_t set = Watched();
  WEFT_CHECK(pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0);
  fd_ = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
  WEFT_CHECK(fd_ >= 0, "signalfd: ", errno);
  loop_.Add(this);
}

SignalWatcher::~SignalWatcher() {
  loop_.Remove(this);
  close(fd_);
  const sigset_t set = Watched();
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

void SignalWatcher::Run(int budget) {
  signalfd_siginfo info{};
  for (int i = 0; i < budget && read(fd_, &info, sizeof(info)) == sizeof(info); ++i) {
    on_signal_(static_cast<int>(info.ssi_signo));
  }
}

}  // namespace weft
