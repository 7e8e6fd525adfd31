// A cable between two machines that is pulled and put back: the aggregator in one network
// namespace, the clients in another, joined by a veth pair. Nothing outside the two namespaces is
// touched; they and the pair go with the test. Skipped where namespaces are not permitted.

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include "common/base/str.h"
#include "tests/integration/federation.h"

namespace weft::testing {
namespace {

constexpr const char* kAggregatorAddress = "10.217.3.1";
constexpr const char* kClientsAddress = "10.217.3.2";

bool Shell(const std::string& command) {
  return std::system((command + " >/dev/null 2>&1").c_str()) == 0;
}

/// A network namespace; processes started while the thread is in it live in it.
class Namespace {
 public:
  /// The thread's present one.
  Namespace() : fd_(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)) {}
  ~Namespace() { ::close(fd_); }
  Namespace(const Namespace&) = delete;
  Namespace& operator=(const Namespace&) = delete;

  void Enter() const { EXPECT_EQ(::setns(fd_, CLONE_NEWNET), 0) << std::strerror(errno); }
  [[nodiscard]] std::string path() const { return Str("/proc/", ::getpid(), "/fd/", fd_); }

 private:
  int fd_;
};

class CableTest : public ::testing::Test {
 protected:
  // "" or why there is no cable.
  std::string Lay() {
    if (!Shell("ip -V")) return "there is no ip program (iproute2)";
    for (std::unique_ptr<Namespace>* made : {&aggregators_, &clients_}) {
      if (::unshare(CLONE_NEWNET) != 0) {
        return Str("network namespaces are not permitted: ", std::strerror(errno));
      }
      *made = std::make_unique<Namespace>();
    }
    // The thread is in the clients' namespace now.
    if (!Shell("ip link add cable0 type veth peer name cable1") ||
        !Shell(Str("ip link set cable1 netns ", aggregators_->path()))) {
      return "veth pairs are not to be had";
    }
    const bool here = Shell(Str("ip addr add ", kClientsAddress, "/30 dev cable0")) &&
                      Shell("ip link set cable0 up");
    aggregators_->Enter();
    const bool there = Shell(Str("ip addr add ", kAggregatorAddress, "/30 dev cable1")) &&
                       Shell("ip link set cable1 up");
    return here && there ? "" : "the pair cannot be set up";
  }
  void TearDown() override { home_.Enter(); }

  void Pull() {
    clients_->Enter();
    ASSERT_TRUE(Shell("ip link set cable0 down"));
  }
  void PutBack() {
    clients_->Enter();
    ASSERT_TRUE(Shell("ip link set cable0 up"));
  }

  Namespace home_;
  std::unique_ptr<Namespace> aggregators_;
  std::unique_ptr<Namespace> clients_;
};

TEST_F(CableTest, ACableThatIsPulledInARoundAndPutBackAfterEverybodysPatienceChangesNoBit) {
  if (const std::string why = Lay(); !why.empty()) GTEST_SKIP() << why;
  Settings settings = QuickSettings();
  settings.train.local_steps = 60;  // long enough for the cable to go while everybody trains
  settings.server.bind = Str("tcp://", kAggregatorAddress, ":7711");
  settings.server.gone_after_s = 2;
  Federation federation(settings);
  aggregators_->Enter();
  const std::unique_ptr<Process> aggregator = federation.Aggregator();
  clients_->Enter();
  std::map<std::string, std::unique_ptr<Process>> clients;
  for (const std::string& site : kSites) {
    clients[site] = std::make_unique<Process>(
        "weft-client", std::vector<std::string>{federation.File("run.toml"), "--name", site});
  }
  ASSERT_TRUE(aggregator->WaitForLine({"round opened", "round=2"})) << aggregator->log();
  Pull();
  EXPECT_LT(federation.AcceptedIn(2).size(), 3U) << "it was pulled too late to be missed";
  for (size_t gone = 0; gone < kSites.size(); ++gone) {
    ASSERT_TRUE(aggregator->WaitForLine({"client gone"})) << aggregator->log();
  }
  for (const std::string& site : kSites) {
    ASSERT_TRUE(clients[site]->WaitForLine({"nothing heard"})) << clients[site]->log();
  }
  PutBack();
  EXPECT_EQ(aggregator->Wait(), 0) << aggregator->log();
  for (const auto& [site, client] : clients) EXPECT_EQ(client->Wait(), 0) << client->log();
  EXPECT_EQ(federation.Hashes(), federation.SimulatedHashes());
  for (const uint32_t round : {1U, 2U, 3U}) {
    EXPECT_EQ(federation.AcceptedIn(round).size(), 3U) << "each update counts once";
  }
  EXPECT_TRUE(federation.Verified());
}

}  // namespace
}  // namespace weft::testing
