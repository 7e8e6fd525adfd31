// Plain TCP connections: libzmq's own sender would hold back a message that never ends, a hostile
// one would not.

#include "common/net/connection_watch.h"

#include <algorithm>
#include <string>

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

namespace weft {
namespace {

// A connection on 127.0.0.1: `near` is the accepted end.
class TcpPair {
 public:
  TcpPair() {
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(bind(listener, generic, size), 0);
    EXPECT_EQ(listen(listener, 1), 0);
    EXPECT_EQ(getsockname(listener, generic, &size), 0);
    far = socket(AF_INET, SOCK_STREAM, 0);
    EXPECT_EQ(connect(far, generic, size), 0);
    near = accept(listener, nullptr, nullptr);
    close(listener);
  }
  ~TcpPair() {
    close(near);
    close(far);
  }
  TcpPair(const TcpPair&) = delete;
  TcpPair& operator=(const TcpPair&) = delete;

  // The near end reads it, as libzmq would, so that the kernel takes all of it.
  void Flow(size_t bytes) const {
    const std::string block(64 << 10, 'x');
    std::string sink(block.size(), '\0');
    for (size_t sent = 0; sent < bytes;) {
      const ssize_t out = send(far, block.data(), std::min(block.size(), bytes - sent), 0);
      ASSERT_GT(out, 0);
      sent += static_cast<size_t>(out);
      for (ssize_t in = 0; in < out;) in += recv(near, sink.data(), sink.size(), 0);
    }
  }
  // True if the far end sees the end of the stream.
  [[nodiscard]] bool Ended() const {
    char byte = 0;
    return recv(far, &byte, 1, MSG_DONTWAIT) == 0;
  }

  int near = -1;
  int far = -1;
};

using namespace std::chrono_literals;

constexpr uint64_t kLimit = 4 << 20;
constexpr ConnectionWatch::Bounds kBounds{.untaken_max = kLimit, .silence_max = 30s};
constexpr size_t kAll = 1000;

TEST(ConnectionWatchTest, APeerThatNeverFinishesAMessageIsHungUpOnAndOthersAreNot) {
  TcpPair rude, kind;
  ConnectionWatch watch(kBounds);
  watch.Accepted(rude.near);
  watch.Accepted(kind.near);
  rude.Flow(kLimit);
  kind.Flow(kLimit / 2);
  EXPECT_EQ(watch.Look(1s, kAll).flooders, 0u);
  rude.Flow(1);
  EXPECT_EQ(watch.Look(1s, kAll).flooders, 1u);
  EXPECT_TRUE(rude.Ended());
  EXPECT_FALSE(kind.Ended());
}

TEST(ConnectionWatchTest, WholeMessagesFreeTheirBytesAndFramingIsForgiven) {
  TcpPair pair;
  ConnectionWatch watch(kBounds);
  watch.Accepted(pair.near);
  for (int i = 0; i < 20; ++i) {
    pair.Flow(kLimit / 2);
    watch.Took(pair.near, kLimit / 2 - 500000);  // far more framing than there can be
    EXPECT_EQ(watch.Look(1s, kAll).flooders, 0u) << i;
  }
  EXPECT_FALSE(pair.Ended());
}

TEST(ConnectionWatchTest, ALittleMessageDoesNotHideAnUnfinishedLargeOne) {
  TcpPair pair;
  ConnectionWatch watch(kBounds);
  watch.Accepted(pair.near);
  watch.Took(pair.near, 100);
  pair.Flow(2 << 20);
  EXPECT_EQ(watch.Look(1s, kAll).flooders, 0u);
  pair.Flow(3 << 20);
  EXPECT_EQ(watch.Look(1s, kAll).flooders, 1u);
}

TEST(ConnectionWatchTest, AClosedConnectionIsForgottenAndAnUnknownOneIgnored) {
  TcpPair pair;
  ConnectionWatch watch(kBounds);
  watch.Took(pair.near, 100);
  watch.Accepted(pair.near);
  watch.Closed(pair.near);
  pair.Flow(kLimit + 1);
  EXPECT_EQ(watch.Look(1s, kAll).flooders, 0u);
  EXPECT_FALSE(pair.Ended());
}

TEST(ConnectionWatchTest, ALinkOnWhichNothingComesAnyLongerIsEndedAndOneThatNeverBeganIsNot) {
  TcpPair dead, alive, mute;
  ConnectionWatch watch(kBounds);
  for (const TcpPair* pair : {&dead, &alive, &mute}) watch.Accepted(pair->near);
  dead.Flow(100);
  alive.Flow(100);
  EXPECT_EQ(watch.Look(1s, kAll).silent, 0u);
  alive.Flow(1);
  EXPECT_EQ(watch.Look(31s, kAll).silent, 0u) << "exactly as long is not longer";
  EXPECT_EQ(watch.Look(32s, kAll).silent, 1u);
  EXPECT_TRUE(dead.Ended());
  EXPECT_FALSE(alive.Ended());
  EXPECT_FALSE(mute.Ended()) << "the handshake has a limit of its own";
}

TEST(ConnectionWatchTest, LooksThatTakeAFewEachComeToAllInTurn) {
  TcpPair pairs[5];
  ConnectionWatch watch(kBounds);
  for (const TcpPair& pair : pairs) {
    watch.Accepted(pair.near);
    pair.Flow(kLimit + 1);
  }
  EXPECT_EQ(watch.Look(1s, 2).flooders, 2u);
  EXPECT_EQ(watch.Look(1s, 2).flooders, 2u);
  watch.Closed(pairs[4].near);  // where the next look would have begun
  watch.Closed(pairs[0].near);
  watch.Closed(pairs[1].near);
  EXPECT_EQ(watch.Look(1s, kAll).flooders, 2u) << "those left, each once";
}

TEST(ConnectionWatchTest, ADescriptorThatBelongsToAnotherConnectionByNowIsLeftAlone) {
  TcpPair first, second;
  HangUp(second.near, RemoteOf(first.near));
  HangUp(second.near, "");
  EXPECT_FALSE(second.Ended());
  HangUp(second.near, RemoteOf(second.near));
  EXPECT_TRUE(second.Ended());
  EXPECT_EQ(RemoteOf(-1), "");
}

}  // namespace
}  // namespace weft
