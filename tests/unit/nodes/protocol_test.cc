// The aggregator and messages of other versions, in the wrong direction and beyond its limits, as
// protocols/README.md has it.

#include <gtest/gtest.h>

#include "common/base/limits.h"
#include "tests/unit/nodes/fake_world.h"
#include "tests/unit/nodes/usual_settings.h"

namespace weft::testing {
namespace {

Hello HelloOf(const FakeWorld& world) {
  Hello hello;
  hello.base_hash = world.base.hash;
  hello.sites = world.base.sites;
  hello.capabilities.rank_max = 8;
  hello.capabilities.num_examples = 10;
  hello.capabilities.methods = {"lora"};
  hello.capabilities.codecs = {"float32"};
  return hello;
}

template <typename M>
std::vector<M> SentTo(const FakeWorld& world, const std::string& name) {
  std::vector<M> found;
  for (const auto& [to, message] : world.sent_to) {
    if (to == name && std::holds_alternative<M>(message)) found.push_back(std::get<M>(message));
  }
  return found;
}

size_t TimesLogged(const FakeWorld& world, const std::string& words) {
  const std::string text = world.log_lines->Text();
  size_t count = 0;
  for (size_t at = text.find(words); at != text.npos; at = text.find(words, at + 1)) ++count;
  return count;
}

// Each kind that only an aggregator sends.
std::vector<Message> AggregatorsOwn(const FakeWorld& world) {
  RoundOffer offer;
  offer.plan.run = RunId{"test"};
  offer.payload = {std::string(64, 'a'), 1};
  return {Welcome{.run = RunId{"test"},
                  .version = {},
                  .num_server_rounds = 1,
                  .heartbeat_ms = 1000,
                  .gone_after_ms = 5000},
          Refusal{.code = Code::kPermissionDenied, .reason = "you", .retry = false},
          offer,
          RoundClosed{.round = RoundId{1}, .reason = "over"},
          UpdateVerdict{.round = RoundId{1}, .code = Code::kOk, .reason = ""},
          EvalRequest{.run = RunId{"test"},
                      .version = {},
                      .deadline_s = 1,
                      .payload = {std::string(64, 'a'), 1}},
          RunEnded{.state = "completed", .reason = world.settings.run.name}};
}

TEST(AggregatorProtocolTest, WhatOnlyAnAggregatorMaySendCutsAClientJoinedOrNot) {
  for (const bool joined : {true, false}) {
    FakeWorld probe(UsualSettings(1));
    for (const Message& message : AggregatorsOwn(probe)) {
      FakeWorld world(UsualSettings(1));
      ASSERT_TRUE(world.StartAggregator().ok());
      if (joined) world.Inject("eve", HelloOf(world));
      world.RunFor(0.1);
      world.Inject("eve", message);
      world.RunFor(0.1);
      ASSERT_TRUE(world.cut.contains("eve")) << MessageName(message) << (joined ? " joined" : "");
      EXPECT_NE(world.cut["eve"].find(MessageName(message)), std::string::npos) << world.cut["eve"];
      EXPECT_NE(world.cut["eve"].find("only an aggregator may send"), std::string::npos);
    }
  }
}

TEST(AggregatorProtocolTest, AKindFromTheFutureIsIgnoredAndTheClientStays) {
  FakeWorld calm(UsualSettings(1));
  FakeWorld world(UsualSettings(1));
  std::string future(EncodeMessage(Goodbye{.reason = "x"}).view());
  future[2 * 8 + 2] = 99;  // the union's tag
  for (FakeWorld* each : {&calm, &world}) {
    ASSERT_TRUE(each->StartAggregator().ok());
    each->StartClient("alpha", 4);
    each->StartClient("beta", 8);
    each->StartClient("gamma", 16);
  }
  ASSERT_TRUE(calm.RunToEnd());
  for (int i = 0; i < 20; ++i) {
    world.InjectRaw("alpha", Blob::Copy(std::string_view(future)));
    world.RunFor(0.05);
  }
  ASSERT_TRUE(world.RunToEnd());
  EXPECT_TRUE(world.cut.empty());
  EXPECT_EQ(world.Hashes(), calm.Hashes());
  EXPECT_NE(world.log_lines->Text().find("newer kind ignored"), std::string::npos);
}

TEST(AggregatorProtocolTest, OneVersionBesideOursJoinsAndTwoAwayIsToldBothVersions) {
  for (const int step : {-1, 0, 1, 2, 1000}) {
    FakeWorld world(UsualSettings(1));
    ASSERT_TRUE(world.StartAggregator().ok());
    Hello hello = HelloOf(world);
    hello.protocol = static_cast<uint16_t>(kProtocolVersion + step);
    world.Inject("alpha", hello);
    world.RunFor(0.1);
    const bool welcome = !SentTo<Welcome>(world, "alpha").empty();
    EXPECT_EQ(welcome, step <= 1) << step;
    if (welcome) continue;
    const std::vector<Refusal> refusals = SentTo<Refusal>(world, "alpha");
    ASSERT_EQ(refusals.size(), 1u);
    EXPECT_EQ(refusals[0].code, Code::kFailedPrecondition);
    EXPECT_NE(refusals[0].reason.find(Str("got version ", hello.protocol)), std::string::npos);
    EXPECT_NE(refusals[0].reason.find(Str("wanted ", kProtocolVersion)), std::string::npos);
    EXPECT_FALSE(refusals[0].retry);
  }
}

TEST(AggregatorProtocolTest, WhoHasNotJoinedIsToldToSayHelloWhereItExpectsAnAnswer) {
  FakeWorld world(UsualSettings(1));
  ASSERT_TRUE(world.StartAggregator().ok());
  world.Inject("alpha", Heartbeat{.round = RoundId{1}, .phase = "train", .progress = 0.5F});
  world.RunFor(0.1);
  ASSERT_EQ(SentTo<Refusal>(world, "alpha").size(), 1u);
  EXPECT_TRUE(SentTo<Refusal>(world, "alpha")[0].retry) << "after a restart of the aggregator";
  world.Inject("alpha", ChunkRequest{.sha256 = std::string(64, 'e'), .first = 0, .count = 1});
  world.Inject("alpha", Chunk{.sha256 = std::string(64, 'e'), .index = 0, .xxh3 = 0});
  world.Inject("alpha", Goodbye{.reason = "never mind"});
  world.RunFor(0.1);
  EXPECT_EQ(world.sent_to.size(), 1u);
  EXPECT_TRUE(world.cut.empty());
}

TEST(AggregatorProtocolTest, AHeartbeatComesBackAsItWasSent) {
  FakeWorld world(UsualSettings(1));
  ASSERT_TRUE(world.StartAggregator().ok());
  world.Inject("alpha", HelloOf(world));
  const Heartbeat beat{.round = RoundId{3}, .phase = "train", .progress = 0.25F};
  world.Inject("alpha", beat);
  world.RunFor(0.1);
  ASSERT_EQ(SentTo<Heartbeat>(world, "alpha").size(), 1u);
  EXPECT_EQ(SentTo<Heartbeat>(world, "alpha")[0], beat);
}

TEST(AggregatorProtocolTest, HelloTwiceIsOneMember) {
  FakeWorld world(UsualSettings(1));
  ASSERT_TRUE(world.StartAggregator().ok());
  world.Inject("alpha", HelloOf(world));
  world.Inject("alpha", HelloOf(world));
  world.RunFor(0.1);
  EXPECT_EQ(SentTo<Welcome>(world, "alpha").size(), 2u) << "each is answered";
  world.Inject("alpha", Goodbye{.reason = "done"});
  world.RunFor(0.1);
  EXPECT_EQ(TimesLogged(world, "client gone"), 1u);
}

TEST(AggregatorProtocolTest, AHelloThatNoLongerFitsEndsAMembership) {
  FakeWorld world(UsualSettings(1));
  ASSERT_TRUE(world.StartAggregator().ok());
  world.Inject("alpha", HelloOf(world));
  world.RunFor(0.1);
  Hello other = HelloOf(world);
  other.base_hash = std::string(64, '0');
  world.Inject("alpha", other);
  world.RunFor(0.1);
  EXPECT_EQ(SentTo<Refusal>(world, "alpha").size(), 1u);
  EXPECT_EQ(TimesLogged(world, "client gone"), 1u);
  world.Inject("alpha", Heartbeat{});
  world.RunFor(0.1);
  EXPECT_EQ(SentTo<Heartbeat>(world, "alpha").size(), 0u) << "it is no member any more";
}

TEST(AggregatorProtocolTest, RequestsBeyondAPayloadCutThePeerAndUnknownOnesAreIgnored) {
  FakeWorld world(UsualSettings(1));
  ASSERT_TRUE(world.StartAggregator().ok());
  for (const char* name : {"alpha", "beta", "gamma"}) world.Inject(name, HelloOf(world));
  ASSERT_TRUE(world.RunUntil(
      [&] {
        return !SentTo<RoundOffer>(world, "alpha").empty() ||
               !SentTo<EvalRequest>(world, "alpha").empty();
      },
      60));
  // Whatever it was offered first: an evaluation of version 0, or the round's bundle.
  const std::vector<EvalRequest> asked = SentTo<EvalRequest>(world, "alpha");
  const PayloadOffer payload =
      asked.empty() ? SentTo<RoundOffer>(world, "alpha")[0].payload : asked[0].payload;
  world.Inject("alpha", ChunkRequest{.sha256 = std::string(64, 'e'), .first = 0, .count = 1});
  world.RunFor(0.1);
  EXPECT_TRUE(world.cut.empty()) << "a payload of a past round is no crime";
  world.Inject("alpha", ChunkRequest{.sha256 = payload.sha256, .first = 5, .count = 3});
  world.RunFor(0.1);
  EXPECT_TRUE(world.cut.contains("alpha"));
  EXPECT_EQ(world.cut.size(), 1u);
}

// kPeersMax: one more is told to come again, and a member that comes back is not one more.
TEST(AggregatorProtocolTest, MoreMembersThanTheLimitAreAskedToComeLater) {
  Settings settings = UsualSettings(1);
  settings.clients.clear();
  // Never enough, so that no round opens.
  settings.cohort.min_available_nodes = static_cast<int64_t>(limits::kPeersMax) + 2;
  settings.cohort.fraction_evaluate = 0;
  FakeWorld world(settings);
  ASSERT_TRUE(world.StartAggregator().ok());
  const Hello hello = HelloOf(world);
  for (size_t i = 0; i + 1 < limits::kPeersMax; ++i) world.Inject(Str("c", i), hello);
  world.RunFor(0.01);
  world.sent_to.clear();
  world.Inject("c0", hello);
  world.RunFor(0.01);
  EXPECT_EQ(SentTo<Welcome>(world, "c0").size(), 1u);
  world.Inject("last", hello);
  world.Inject("one-more", hello);
  world.RunFor(0.01);
  EXPECT_EQ(SentTo<Welcome>(world, "last").size(), 1u);
  ASSERT_EQ(SentTo<Refusal>(world, "one-more").size(), 1u);
  EXPECT_EQ(SentTo<Refusal>(world, "one-more")[0].code, Code::kResourceExhausted);
  EXPECT_TRUE(SentTo<Refusal>(world, "one-more")[0].retry);
}

}  // namespace
}  // namespace weft::testing
