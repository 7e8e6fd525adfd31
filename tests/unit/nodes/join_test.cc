// Who may join, what a peer that misbehaves meets, and who is waited for.

#include <gtest/gtest.h>

#include "tests/unit/nodes/fake_world.h"
#include "tests/unit/nodes/usual_settings.h"

namespace weft::testing {
namespace {

Hello GoodHello(const FakeWorld& world) {
  Hello hello;
  hello.base_hash = world.base.hash;
  hello.sites = world.base.sites;
  hello.capabilities.rank_max = 8;
  hello.capabilities.num_examples = 10;
  hello.capabilities.methods = {"lora"};
  hello.capabilities.codecs = {"float32"};
  return hello;
}

const Refusal* RefusalTo(const FakeWorld& world, const std::string& name) {
  for (const auto& [to, message] : world.sent_to) {
    if (to == name && std::holds_alternative<Refusal>(message)) return &std::get<Refusal>(message);
  }
  return nullptr;
}

TEST(JoinTest, AClientThatDoesNotFitIsToldWhyAndWhatIsWanted) {
  FakeWorld world(UsualSettings(1));
  ASSERT_TRUE(world.StartAggregator().ok());
  struct Case {
    std::function<void(Hello&)> change;
    const char* word;
  };
  const std::vector<Case> cases = {
      {[](Hello& h) { h.base_hash = std::string(64, '0'); }, "base model"},
      {[](Hello& h) { h.sites.pop_back(); }, "linear layers"},
      {[](Hello& h) { h.sites[1].out = 7; }, "up_proj"},
      {[](Hello& h) { h.protocol = kProtocolVersion + 2; }, "protocol"},
      {[](Hello& h) { h.capabilities.methods = {"nola"}; }, "adapter method"},
      {[](Hello& h) { h.capabilities.codecs = {}; }, "codec"},
      {[](Hello& h) { h.capabilities.rank_max = -1; }, "rank"}};
  for (const Case& c : cases) {
    world.sent_to.clear();
    Hello hello = GoodHello(world);
    c.change(hello);
    world.Inject("alpha", hello);
    world.RunFor(0.1);
    const Refusal* refusal = RefusalTo(world, "alpha");
    if (refusal == nullptr) {
      // What no protocol allows never gets past decoding.
      EXPECT_TRUE(world.cut.contains("alpha")) << c.word;
      world.cut.clear();
      continue;
    }
    EXPECT_FALSE(refusal->retry);
    EXPECT_NE(refusal->reason.find(c.word), std::string::npos) << refusal->reason;
    EXPECT_NE(refusal->reason.find("wanted"), std::string::npos) << refusal->reason;
  }
  EXPECT_TRUE(world.Events<MemberJoined>().empty());
}

TEST(JoinTest, TheProtocolVersionBeforeOursIsUnderstood) {
  FakeWorld world(UsualSettings(1));
  ASSERT_TRUE(world.StartAggregator().ok());
  Hello hello = GoodHello(world);
  hello.protocol = kProtocolVersion - 1;
  world.Inject("alpha", hello);
  world.RunFor(0.1);
  EXPECT_EQ(RefusalTo(world, "alpha"), nullptr);
}

TEST(JoinTest, ARefusedClientEndsWithTheReason) {
  FakeWorld world(UsualSettings(1));
  ASSERT_TRUE(world.StartAggregator().ok());
  const BaseDescription right = world.base;
  world.base.hash = std::string(64, '1');
  world.StartClient("alpha", 4);
  ASSERT_TRUE(world.RunUntil([&] { return world.client("alpha").Finished(); }, 60));
  EXPECT_EQ(world.client("alpha").Outcome().code(), Code::kFailedPrecondition);
  EXPECT_NE(world.client("alpha").Outcome().message().find("base model"), std::string::npos);
}

TEST(JoinTest, NamesThatAreNoFileNamesAreRefused) {
  FakeWorld world(UsualSettings(1));
  ASSERT_TRUE(world.StartAggregator().ok());
  world.Inject("..", GoodHello(world));
  world.RunFor(0.1);
  ASSERT_NE(RefusalTo(world, ".."), nullptr);
}

TEST(JoinTest, ARunWithoutEnoughMembersFailsAtItsJoinDeadlineAndNamesWhoIsMissing) {
  FakeWorld world(UsualSettings(1));
  ASSERT_TRUE(world.StartAggregator().ok());
  world.StartClient("alpha", 4);
  ASSERT_TRUE(world.RunToEnd(1000));
  EXPECT_EQ(world.aggregator().Outcome().code(), Code::kDeadlineExceeded);
  EXPECT_NE(world.aggregator().Outcome().message().find("beta, gamma"), std::string::npos)
      << world.aggregator().Outcome();
}

TEST(JoinTest, NamedClientsAreWaitedForAlthoughEnoughOthersAreHere) {
  Settings settings = UsualSettings(1);
  settings.cohort.min_available_nodes = 1;
  FakeWorld world(settings);
  ASSERT_TRUE(world.StartAggregator().ok());
  world.StartClient("alpha", 4);
  world.RunFor(100);
  EXPECT_TRUE(world.Events<RoundOpened>().empty());
  world.StartClient("beta", 8);
  world.StartClient("gamma", 16);
  ASSERT_TRUE(world.RunToEnd());
  EXPECT_EQ(world.Events<RoundOpened>()[0].plan.cohort.size(), 3U);
}

TEST(JoinTest, AMissingNamedClientIsGivenUpAtTheJoinDeadlineIfEnoughAreHere) {
  Settings settings = UsualSettings(1);
  settings.cohort.min_available_nodes = 2;
  FakeWorld world(settings);
  ASSERT_TRUE(world.StartAggregator().ok());
  world.StartClient("alpha", 4);
  world.StartClient("beta", 8);
  ASSERT_TRUE(world.RunToEnd());
  EXPECT_TRUE(world.aggregator().Outcome().ok());
  EXPECT_EQ(world.Events<RoundOpened>()[0].plan.cohort.size(), 2U);
}

TEST(JoinTest, PeersThatBreakTheProtocolAreCutAndNobodyElseIsHurt) {
  FakeWorld calm(UsualSettings(2));
  FakeWorld world(UsualSettings(2));
  for (FakeWorld* each : {&calm, &world}) {
    ASSERT_TRUE(each->StartAggregator().ok());
    each->StartClient("alpha", 4);
    each->StartClient("beta", 8);
    each->StartClient("gamma", 16);
  }
  ASSERT_TRUE(calm.RunToEnd());
  ASSERT_TRUE(world.RunUntil([&] { return world.Events<RoundOpened>().size() == 1; }));
  world.InjectRaw("mallory", Blob::Copy("no Cap'n Proto at all"));
  world.Inject("mallory", GoodHello(world));
  world.RunFor(0.2);
  world.Inject("mallory", RunEnded{.state = "completed", .reason = "says who"});
  world.Inject("mallory", Chunk{.sha256 = std::string(64, 'c'), .index = 5, .xxh3 = 1},
               Blob::Copy("x"));
  world.Inject("mallory", ChunkRequest{.sha256 = std::string(64, 'c'), .first = 0, .count = 1});
  ASSERT_TRUE(world.RunToEnd());
  EXPECT_TRUE(world.cut.contains("mallory"));
  EXPECT_EQ(world.cut.size(), 1U);
  EXPECT_TRUE(world.aggregator().Outcome().ok());
  EXPECT_EQ(world.Hashes(), calm.Hashes());
}

TEST(JoinTest, EveryKindOfMessageFromAStrangerOrAtTheWrongTimeIsHarmless) {
  for (const bool joined : {false, true}) {
    FakeWorld world(UsualSettings(1));
    ASSERT_TRUE(world.StartAggregator().ok());
    if (joined) world.Inject("eve", GoodHello(world));
    UpdateOffer offer;
    offer.header.client = ClientId{"eve"};
    offer.header.run = RunId{"test"};
    offer.header.base_hash = offer.header.payload_sha256 = offer.payload.sha256 =
        std::string(64, 'd');
    EvalReport report;
    report.client = ClientId{"eve"};
    report.run = RunId{"test"};
    const std::vector<Message> all = {
        Heartbeat{.round = RoundId{9}, .phase = "train", .progress = 0.5F},
        offer,
        RoundFailed{.round = RoundId{1}, .code = Code::kInternal, .reason = "x"},
        EvalReply{.report = report},
        ChunkRequest{.sha256 = std::string(64, 'e'), .first = 0, .count = 4},
        Chunk{.sha256 = std::string(64, 'e'), .index = 0, .xxh3 = 0},
        Goodbye{.reason = "bye"},
        Goodbye{.reason = "bye again"}};
    for (const Message& message : all) world.Inject("eve", message);
    world.StartClient("alpha", 4);
    world.StartClient("beta", 8);
    world.StartClient("gamma", 16);
    ASSERT_TRUE(world.RunToEnd());
    EXPECT_TRUE(world.aggregator().Outcome().ok()) << world.aggregator().Outcome();
  }
}

TEST(JoinTest, AnOfferedRankAboveAdapterRankIsWhatTheSiteTrains) {
  Settings settings = UsualSettings(1);
  settings.strategy.global_rank = 6;
  FakeWorld world(settings);
  ASSERT_TRUE(world.StartAggregator().ok());
  world.StartClient("alpha", 4);
  world.StartClient("beta", 0);  // names none: adapter.rank, at most the global one
  world.StartClient("gamma", 64);
  ASSERT_TRUE(world.RunToEnd());
  const RoundPlan plan = world.Events<RoundOpened>()[0].plan;
  EXPECT_EQ(plan.cohort[0].adapter.rank, 4);
  EXPECT_EQ(plan.cohort[1].adapter.rank, 6);
  EXPECT_EQ(plan.cohort[2].adapter.rank, 6);
  EXPECT_EQ(plan.cohort[0].adapter.alpha, 8) << "alpha/r is the same for all ranks";
}

}  // namespace
}  // namespace weft::testing
