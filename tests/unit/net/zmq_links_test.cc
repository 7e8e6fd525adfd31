// Many links of one process, to a real server and to the bare ROUTER; and the limit that ends how
// many there can be.

#include "common/net/zmq_links.h"

#include <algorithm>
#include <set>
#include <vector>

#include "common/net/descriptors.h"
#include "tests/unit/net/net_world.h"

namespace weft {
namespace {

class ZmqLinksTest : public NetWorld {
 protected:
  // Says it again until somebody answered.
  bool Answered(const std::vector<ZmqLink*>& links) {
    return Until([&] {
      for (ZmqLink* link : links) {
        if (link->heard() == 0) (void)link->Send(kAggregator, Text("hello"));
      }
      return std::all_of(links.begin(), links.end(),
                         [](const ZmqLink* link) { return link->heard() > 0; });
    });
  }
};

TEST_F(ZmqLinksTest, EachIsAPeerOfItsOwnAndHearsWhatItIsSent) {
  constexpr size_t kLinks = 50;
  std::vector<KeyPair> keys;
  for (size_t i = 0; i < kLinks; ++i) keys.push_back(Member(Str("site", i)));
  StartServer();
  std::set<ClientId> seen;
  server_notes_.on_frames = [&](const ClientId& from, Frames frames) {
    seen.insert(from);
    ASSERT_TRUE(server_->Send(from, std::move(frames)).ok());
  };
  auto links = ZmqLinks::Open(loop_, {.endpoint = server_->endpoint(),
                                      .server_key = server_keys_.public_key,
                                      .links_max = kLinks});
  ASSERT_TRUE(links.ok()) << links.status();
  std::vector<ZmqLink*> all;
  for (const KeyPair& pair : keys) all.push_back((*links)->Add(pair).value());
  Notes notes;
  all.front()->SetReceiver(&notes);
  ASSERT_TRUE(Answered(all));
  EXPECT_EQ(seen.size(), kLinks);
  EXPECT_EQ(server_->peers(), kLinks);
  ASSERT_FALSE(notes.messages.empty());
  EXPECT_EQ(notes.messages[0].frames.control.view(), "hello");
}

TEST_F(ZmqLinksTest, WhatIsSentToNobodyIsUnavailableAndACutLinkSendsAndDeliversNothing) {
  const KeyPair keys = Member("site");
  StartServer();
  auto links = ZmqLinks::Open(
      loop_,
      {.endpoint = server_->endpoint(), .server_key = server_keys_.public_key, .links_max = 1});
  ASSERT_TRUE(links.ok()) << links.status();
  ZmqLink* const link = (*links)->Add(keys).value();
  EXPECT_EQ(link->Send(kAggregator, Text("too early")).code(), Code::kUnavailable);
  EXPECT_EQ(link->Send(ClientId{"other"}, Text("x")).code(), Code::kUnavailable);
  link->Cut(kAggregator, OkStatus());
  EXPECT_EQ(link->Send(kAggregator, Text("x")).code(), Code::kUnavailable);
}

TEST_F(ZmqLinksTest, TheBareRouterAnswersAnybody) {
  const KeyPair server = NewKeyPair().value();
  auto echo = ZmqEcho::Bind(loop_, server);
  ASSERT_TRUE(echo.ok()) << echo.status();
  auto links = ZmqLinks::Open(
      loop_, {.endpoint = (*echo)->endpoint(), .server_key = server.public_key, .links_max = 2});
  ASSERT_TRUE(links.ok()) << links.status();
  EXPECT_TRUE(Answered(
      {(*links)->Add(NewKeyPair().value()).value(), (*links)->Add(NewKeyPair().value()).value()}));
}

TEST_F(ZmqLinksTest, WhereTheyCannotBeItSaysHowManyDescriptorsThereAreAndHowToGetMore) {
  const uint64_t now = RaiseDescriptorLimit();
  EXPECT_GT(now, 0u);
  EXPECT_TRUE(NeedDescriptors("a test", now).ok());
  const Result<std::unique_ptr<ZmqLinks>> links =
      ZmqLinks::Open(loop_, {.endpoint = "tcp://127.0.0.1:1",
                             .server_key = NewKeyPair().value().public_key,
                             .links_max = now});
  EXPECT_EQ(links.status().code(), Code::kResourceExhausted);
  EXPECT_NE(links.status().message().find(Str("open ", now)), std::string::npos) << links.status();
  EXPECT_NE(links.status().message().find("ulimit"), std::string::npos);
}

}  // namespace
}  // namespace weft
