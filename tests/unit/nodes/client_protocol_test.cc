// A client and every message in and out of turn, as protocols/README.md draws its states.

#include <gtest/gtest.h>

#include "common/base/limits.h"
#include "tests/unit/nodes/lone_client.h"

namespace weft::testing {
namespace {

const Blob kBundle = Blob::Copy(std::string_view("the bundle of round one"));

// Joined, offered a round, the bundle served: it trains.
void BringToTraining(LoneClient& client) {
  client.Start();
  client.HearsWelcome();
  client.Hears(OfferTo(client, kBundle));
  client.Serves(kBundle);
  ASSERT_EQ(client.jobs_waiting(), 1u);
}

// The same and trained: its update is on offer.
void BringToOffering(LoneClient& client) {
  BringToTraining(client);
  client.Works();
  ASSERT_EQ(client.Take<UpdateOffer>().size(), 1u);
}

EvalRequest EvalOf(const Blob& bundle, uint32_t version) {
  return {.run = RunId{"run"},
          .version = RoundId{version},
          .deadline_s = 60,
          .payload = OfferOf(bundle)};
}

// ---- joining ----

TEST(ClientProtocolTest, HelloComesFirstAndAgainUntilItIsAnswered) {
  LoneClient client;
  client.Start();
  ASSERT_EQ(client.said.size(), 1u);
  const Hello hello = client.Take<Hello>().at(0);
  EXPECT_EQ(hello.protocol, kProtocolVersion);
  EXPECT_EQ(hello.base_hash, client.base.hash);
  EXPECT_EQ(hello.sites, client.base.sites);
  client.RunFor(4.9);
  EXPECT_TRUE(client.said.empty()) << "a hello on its way is given five seconds";
  client.RunFor(60);
  const size_t again = client.Take<Hello>().size();
  EXPECT_GE(again, 3u);
  EXPECT_LE(again, 12u) << "and is not repeated without backing off";
  client.HearsWelcome();
  client.Take<Hello>();
  client.RunFor(9);
  EXPECT_TRUE(client.Take<Hello>().empty()) << "once welcomed it says hello no more";
}

TEST(ClientProtocolTest, BeforeTheWelcomeNothingButWelcomeRefusalAndTheEndIsTaken) {
  LoneClient client;
  client.Start();
  client.Take<Hello>();
  client.Hears(OfferTo(client, kBundle));
  client.Hears(EvalOf(kBundle, 0));
  client.Hears(UpdateVerdict{.round = RoundId{1}, .code = Code::kOk, .reason = ""});
  client.Hears(RoundClosed{.round = RoundId{1}, .reason = ""});
  client.Hears(ChunkRequest{.sha256 = OfferOf(kBundle).sha256, .first = 0, .count = 1});
  client.Hears(Chunk{.sha256 = OfferOf(kBundle).sha256, .index = 0, .xxh3 = 0}, kBundle);
  EXPECT_TRUE(client.said.empty()) << MessageName(client.said.front());
  EXPECT_EQ(client.jobs_waiting(), 0u);
  client.HearsWelcome();
  client.Hears(OfferTo(client, kBundle));
  EXPECT_EQ(client.Take<ChunkRequest>().size(), 1u) << "and the same offer counts once it joined";
}

TEST(ClientProtocolTest, HeartbeatsComeAtTheIntervalOfTheWelcomeWithinReason) {
  LoneClient client;
  client.Start();
  client.HearsWelcome();
  client.Take<Heartbeat>();
  client.RunFor(5.5);
  EXPECT_EQ(client.Take<Heartbeat>().size(), 5u);
  // An aggregator that asks for a thousand a second does not get them.
  client.Hears(Welcome{.run = RunId{"run"},
                       .version = {},
                       .num_server_rounds = 1,
                       .heartbeat_ms = 1,
                       .gone_after_ms = 1});
  client.Take<Heartbeat>();
  client.RunFor(0.09);
  EXPECT_LE(client.Take<Heartbeat>().size(), 2u);
}

TEST(ClientProtocolTest, ASecondWelcomeStartsNothingTwice) {
  LoneClient client;
  BringToTraining(client);
  client.HearsWelcome();
  client.HearsWelcome();
  EXPECT_EQ(client.jobs_waiting(), 1u) << "the training that runs is not disturbed";
  client.Works();
  EXPECT_EQ(client.Take<UpdateOffer>().size(), 1u);
}

TEST(ClientProtocolTest, ARefusalEndsItOrSendsItBackAsItSays) {
  for (const bool retry : {true, false}) {
    LoneClient client;
    client.Start();
    client.HearsWelcome();
    client.Take<Hello>();
    client.Hears(
        Refusal{.code = Code::kFailedPrecondition, .reason = "another base", .retry = retry});
    EXPECT_EQ(client.node->Finished(), !retry);
    EXPECT_EQ(client.node->Refused(), !retry);
    client.RunFor(20);
    EXPECT_EQ(!client.Take<Hello>().empty(), retry);
    if (!retry) {
      EXPECT_EQ(client.node->Outcome(), FailedPrecondition("another base"));
    }
  }
}

TEST(ClientProtocolTest, ARefusalThatSaysOkIsStillARefusal) {
  LoneClient client;
  client.Start();
  client.Hears(Refusal{.code = Code::kOk, .reason = "odd", .retry = false});
  ASSERT_TRUE(client.node->Finished());
  EXPECT_EQ(client.node->Outcome().code(), Code::kInternal);
}

TEST(ClientProtocolTest, AKeyThatIsRefusedIsFinalAndALostLinkIsNot) {
  LoneClient refused;
  refused.Start();
  refused.LosesLink(PermissionDenied("not on the allow-list"));
  EXPECT_TRUE(refused.node->Refused());
  EXPECT_EQ(refused.node->Outcome().code(), Code::kPermissionDenied);
  LoneClient lost;
  lost.Start();
  lost.HearsWelcome();
  lost.Take<Hello>();
  lost.LosesLink();
  EXPECT_FALSE(lost.node->Finished());
  lost.RunFor(20);
  EXPECT_GE(lost.Take<Hello>().size(), 1u);
}

TEST(ClientProtocolTest, AnAggregatorThatIsSilentForTooLongIsLookedForAgain) {
  LoneClient client;
  client.Start();
  client.HearsWelcome();
  client.Take<Hello>();
  for (int i = 0; i < 5; ++i) {
    client.RunFor(8);
    client.Hears(Heartbeat{});  // an echo keeps it
  }
  EXPECT_TRUE(client.Take<Hello>().empty());
  client.RunFor(25);
  EXPECT_GE(client.Take<Hello>().size(), 1u);
}

TEST(ClientProtocolTest, TwoClientsThatLoseOneAggregatorComeBackAtDifferentTimes) {
  const auto returns_after = [](uint64_t seed) {
    LoneClient client("alpha", seed);
    client.Start();
    client.HearsWelcome();
    client.Take<Hello>();
    client.LosesLink();
    for (int hundredths = 1; hundredths < 60; ++hundredths) {
      client.RunFor(0.01);
      if (!client.Take<Hello>().empty()) return hundredths;
    }
    return 0;
  };
  std::set<int> times;
  for (uint64_t seed = 0; seed < 8; ++seed) times.insert(returns_after(seed));
  EXPECT_FALSE(times.contains(0)) << "all of them come back within half a second";
  EXPECT_GE(times.size(), 4u) << "and not all at once";
}

TEST(ClientProtocolTest, TheEndOfTheRunIsAnsweredByGoodbyeAndIsItsOutcome) {
  const std::pair<const char*, Code> ends[] = {{"completed", Code::kOk},
                                               {"stopped", Code::kCancelled},
                                               {"failed", Code::kUnavailable},
                                               {"from-the-future", Code::kUnavailable}};
  for (const auto& [state, code] : ends) {
    LoneClient client;
    BringToTraining(client);
    client.Hears(RunEnded{.state = state, .reason = "why"});
    EXPECT_EQ(client.Take<Goodbye>().size(), 1u) << state;
    ASSERT_TRUE(client.node->Finished()) << state;
    EXPECT_EQ(client.node->Outcome().code(), code) << state;
    client.said.clear();
    client.Works();  // a training that ends afterwards is of no consequence
    EXPECT_TRUE(client.Take<UpdateOffer>().empty());
    client.HearsWelcome();
    EXPECT_TRUE(client.said.empty()) << "who has left says nothing more";
  }
}

// ---- a round ----

TEST(ClientProtocolTest, AnOfferIsPulledTrainedKeptAndOffered) {
  LoneClient client;
  BringToTraining(client);
  EXPECT_EQ(client.Phase(), "train");
  client.Works();
  const UpdateOffer offer = client.Take<UpdateOffer>().at(0);
  EXPECT_EQ(client.trained.at(0).bundle.view(), kBundle.view());
  EXPECT_EQ(offer.header.client.name, "alpha");
  EXPECT_EQ(offer.header.round.number, 1u);
  EXPECT_EQ(offer.payload.sha256, offer.header.payload_sha256);
  EXPECT_EQ(client.Phase(), "upload");
  client.Hears(ChunkRequest{.sha256 = offer.payload.sha256, .first = 0, .count = 1});
  EXPECT_EQ(client.Take<Chunk>().size(), 1u);
  client.Hears(UpdateVerdict{.round = RoundId{1}, .code = Code::kOk, .reason = ""});
  EXPECT_EQ(client.Phase(), "wait");
}

TEST(ClientProtocolTest, TheSameOfferAgainIsTheSameWork) {
  LoneClient client;
  client.Start();
  client.HearsWelcome();
  client.Hears(OfferTo(client, kBundle));
  client.Hears(OfferTo(client, kBundle));
  client.Serves(kBundle);
  client.Hears(OfferTo(client, kBundle));
  EXPECT_EQ(client.jobs_waiting(), 1u);
  client.Works();
  client.Hears(OfferTo(client, kBundle));
  EXPECT_EQ(client.trained.size(), 1u);
  EXPECT_EQ(client.Take<UpdateOffer>().size(), 2u) << "an update on offer is offered again";
}

TEST(ClientProtocolTest, AnotherOfferWhileTrainingTakesItsPlace) {
  LoneClient client;
  BringToTraining(client);
  const Blob second = Blob::Copy(std::string_view("the bundle of round two"));
  client.Hears(OfferTo(client, second, 2));
  client.Serves(second);
  ASSERT_EQ(client.jobs_waiting(), 2u);
  client.Works();  // the first, cancelled
  EXPECT_TRUE(client.Take<UpdateOffer>().empty()) << "nobody waits for the first any more";
  EXPECT_TRUE(client.Take<RoundFailed>().empty()) << "being cancelled is no failure";
  client.Works();
  EXPECT_EQ(client.Take<UpdateOffer>().at(0).header.round.number, 2u);
}

// One that was held back on its way would have the client train what is long over, and forget what
// it has learnt since.
TEST(ClientProtocolTest, AnOfferOfAnEarlierRoundIsIgnoredUntilTheNextWelcome) {
  LoneClient client;
  client.Start();
  client.HearsWelcome();
  client.Hears(OfferTo(client, kBundle, 3));
  client.Serves(kBundle);
  ASSERT_EQ(client.jobs_waiting(), 1u);
  client.Hears(OfferTo(client, kBundle, 1));
  EXPECT_TRUE(client.Take<ChunkRequest>().empty());
  EXPECT_EQ(client.jobs_waiting(), 1u);
  client.HearsWelcome();  // of an aggregator whose folder was put back
  client.Hears(OfferTo(client, kBundle, 1));
  EXPECT_EQ(client.Take<ChunkRequest>().size(), 1u);
}

TEST(ClientProtocolTest, OffersThatDoNotFitThisClientAreDeclinedWithTheReason) {
  struct Case {
    std::function<void(RoundOffer&)> change;
    Code code;
    const char* word;
  };
  const Case cases[] = {
      {[](RoundOffer& o) { o.plan.run = RunId{"another"}; }, Code::kFailedPrecondition,
       "run: got another"},
      {[](RoundOffer& o) { o.plan.base_hash = std::string(64, '0'); }, Code::kFailedPrecondition,
       "base model"},
      {[](RoundOffer& o) { o.plan.cohort.clear(); }, Code::kInvalidArgument, "cohort"},
      {[](RoundOffer& o) { o.plan.cohort[0].client = ClientId{"beta"}; }, Code::kInvalidArgument,
       "cohort"},
      {[](RoundOffer& o) { o.plan.cohort.push_back(o.plan.cohort[0]); }, Code::kInvalidArgument,
       "cohort"},
      {[](RoundOffer& o) { o.plan.cohort[0].adapter.rank = 9; }, Code::kInvalidArgument,
       "rank: got 9, wanted 1 to 8"},
      {[](RoundOffer& o) { o.plan.cohort[0].adapter.rank = 0; }, Code::kInvalidArgument,
       "rank: got 0"}};
  for (const Case& c : cases) {
    LoneClient client;
    client.Start();
    client.HearsWelcome();
    RoundOffer offer = OfferTo(client, kBundle);
    c.change(offer);
    client.Hears(offer);
    const std::vector<RoundFailed> failed = client.Take<RoundFailed>();
    ASSERT_EQ(failed.size(), 1u) << c.word;
    EXPECT_EQ(failed[0].code, c.code) << c.word;
    EXPECT_NE(failed[0].reason.find(c.word), std::string::npos) << failed[0].reason;
    EXPECT_TRUE(client.Take<ChunkRequest>().empty()) << "nothing is pulled for it";
    client.Hears(OfferTo(client, kBundle));
    EXPECT_EQ(client.Take<ChunkRequest>().size(), 1u) << "a good offer after it is taken";
  }
}

TEST(ClientProtocolTest, ATrainingThatFailsIsToldWithItsCode) {
  LoneClient client;
  BringToTraining(client);
  client.Works(InvalidArgument("loss is NaN at step 3"));
  const RoundFailed failed = client.Take<RoundFailed>().at(0);
  EXPECT_EQ(failed.round.number, 1u);
  EXPECT_EQ(failed.code, Code::kInvalidArgument);
  EXPECT_NE(failed.reason.find("NaN at step 3"), std::string::npos);
  EXPECT_EQ(client.Phase(), "wait") << "it stays a member";
}

TEST(ClientProtocolTest, ABundleThatIsNotWhatWasOfferedFailsTheRound) {
  LoneClient client;
  client.Start();
  client.HearsWelcome();
  RoundOffer offer = OfferTo(client, kBundle);
  offer.payload.sha256[0] = offer.payload.sha256[0] == '0' ? '1' : '0';
  client.Hears(offer);
  client.Take<ChunkRequest>();
  Chunk chunk{.sha256 = offer.payload.sha256, .index = 0, .xxh3 = 0};
  PayloadSender sender(OfferOf(kBundle), kBundle);
  ASSERT_TRUE(sender.Ask({OfferOf(kBundle).sha256, 0, 1}).ok());
  ASSERT_TRUE(sender
                  .Pump([&](Frames frames) {
                    chunk.xxh3 = std::get<Chunk>(*DecodeMessage(frames.control)).xxh3;
                    return OkStatus();
                  })
                  .ok());
  client.Hears(chunk, kBundle);
  const std::vector<RoundFailed> failed = client.Take<RoundFailed>();
  ASSERT_EQ(failed.size(), 1u);
  EXPECT_EQ(failed[0].code, Code::kDataLoss);
  EXPECT_EQ(client.jobs_waiting(), 0u) << "damaged bytes are never trained on";
}

TEST(ClientProtocolTest, ChunksThatWereNotAskedForDoNotDisturbThePull) {
  LoneClient client;
  client.Start();
  client.HearsWelcome();
  client.Hears(OfferTo(client, kBundle));
  const std::string name = OfferOf(kBundle).sha256;
  client.Hears(Chunk{.sha256 = std::string(64, 'e'), .index = 0, .xxh3 = 1},
               Blob::Copy(std::string_view("x")));
  client.Hears(Chunk{.sha256 = name, .index = 7, .xxh3 = 1}, kBundle);
  client.Hears(Chunk{.sha256 = name, .index = 0, .xxh3 = 1}, kBundle);
  client.Hears(Chunk{.sha256 = name, .index = 0, .xxh3 = 1}, Blob());
  EXPECT_EQ(client.jobs_waiting(), 0u);
  client.RunFor(5);  // the damaged one is asked for again
  client.Serves(kBundle);
  EXPECT_EQ(client.jobs_waiting(), 1u);
}

TEST(ClientProtocolTest, AHalfPulledBundleGoesOnAfterTheLinkIsBack) {
  const Blob large = Blob::Adopt(std::string(6 * limits::kChunkBytes + 5, 'b'));
  LoneClient client;
  client.Start();
  client.HearsWelcome();
  client.Hears(OfferTo(client, large));
  client.Serves(large);
  client.LosesLink();
  client.Take<ChunkRequest>();
  client.RunFor(20);
  EXPECT_TRUE(client.Take<ChunkRequest>().empty()) << "nothing is asked of nobody";
  client.HearsWelcome();
  const std::vector<ChunkRequest> requests = client.Take<ChunkRequest>();
  ASSERT_EQ(requests.size(), 1u);
  EXPECT_GT(requests[0].first, 0u) << "from its first missing chunk";
  client.Hears(ChunkRequest{.sha256 = requests[0].sha256, .first = 0, .count = 1});
  client.said.emplace_back(requests[0]);
  for (int i = 0; i < 10 && client.jobs_waiting() == 0; ++i) client.Serves(large);
  ASSERT_EQ(client.jobs_waiting(), 1u);
  client.Works();
  EXPECT_EQ(client.trained.at(0).bundle.view(), large.view());
}

// The aggregator repeats its offer while heartbeats say that it was not heard yet; on a slow link
// the repetitions come when the bundle is already on its way.
TEST(ClientProtocolTest, ARepeatedOfferAsksForNothingTwiceButOnceAfterTheLinkIsBack) {
  LoneClient client;
  client.Start();
  client.HearsWelcome();
  client.Hears(OfferTo(client, kBundle));
  EXPECT_EQ(client.Take<ChunkRequest>().size(), 1u);
  client.Hears(OfferTo(client, kBundle));
  client.RunFor(8);
  EXPECT_TRUE(client.Take<ChunkRequest>().empty());
  client.LosesLink();
  client.HearsWelcome();
  EXPECT_EQ(client.Take<ChunkRequest>().size(), 1u) << "of an aggregator that may not know it yet";
  client.Hears(OfferTo(client, kBundle));
  EXPECT_EQ(client.Take<ChunkRequest>().size(), 1u);
  client.Hears(OfferTo(client, kBundle));
  EXPECT_TRUE(client.Take<ChunkRequest>().empty());
  client.RunFor(12);
  EXPECT_EQ(client.Take<ChunkRequest>().size(), 1u) << "nothing came for ten seconds";
}

TEST(ClientProtocolTest, VerdictsAndClosingsOfOtherRoundsAndTimesChangeNothing) {
  LoneClient training;
  BringToTraining(training);
  training.Hears(UpdateVerdict{.round = RoundId{1}, .code = Code::kOk, .reason = "too early"});
  training.Hears(RoundClosed{.round = RoundId{9}, .reason = "another round"});
  EXPECT_EQ(training.Phase(), "train");
  LoneClient offering;
  BringToOffering(offering);
  offering.Hears(UpdateVerdict{.round = RoundId{2}, .code = Code::kOk, .reason = "another round"});
  EXPECT_EQ(offering.Phase(), "upload");
  offering.Hears(RoundClosed{.round = RoundId{1}, .reason = "quorum reached"});
  EXPECT_EQ(offering.Phase(), "wait");
  offering.Hears(UpdateVerdict{.round = RoundId{1}, .code = Code::kOk, .reason = "late"});
  offering.Hears(RoundClosed{.round = RoundId{1}, .reason = "again"});
  EXPECT_EQ(offering.Phase(), "wait");
}

TEST(ClientProtocolTest, RequestsThatNoAggregatorOfOursMakesAreNotedAndNotServed) {
  LoneClient client;
  BringToOffering(client);
  const std::string name = Sha256Hex(AsBytes("an update"));
  client.Hears(ChunkRequest{.sha256 = std::string(64, 'e'), .first = 0, .count = 1});
  client.Hears(ChunkRequest{.sha256 = name, .first = 1, .count = 1});
  client.Hears(ChunkRequest{.sha256 = name, .first = 0, .count = 0});
  client.Hears(ChunkRequest{.sha256 = name, .first = 0, .count = 2});
  EXPECT_TRUE(client.Take<Chunk>().empty());
  client.Hears(ChunkRequest{.sha256 = name, .first = 0, .count = 1});
  EXPECT_EQ(client.Take<Chunk>().size(), 1u);
}

TEST(ClientProtocolTest, AnUpdateThatNobodyPullsIsOfferedAgainEveryTenSeconds) {
  LoneClient client;
  BringToOffering(client);
  for (int i = 0; i < 5; ++i) {
    client.RunFor(8);
    client.Hears(Heartbeat{});
  }
  const size_t offers = client.Take<UpdateOffer>().size();
  EXPECT_GE(offers, 3u);
  EXPECT_LE(offers, 4u);
}

TEST(ClientProtocolTest, AnUpdateSurvivesALostLinkAndIsNotTrainedAgain) {
  LoneClient client;
  BringToOffering(client);
  client.LosesLink();
  client.RunFor(20);
  client.Take<UpdateOffer>();
  client.HearsWelcome();
  EXPECT_EQ(client.Take<UpdateOffer>().size(), 1u);
  client.LosesLink();
  client.HearsWelcome(1);  // the round was published meanwhile
  EXPECT_TRUE(client.Take<UpdateOffer>().empty());
  EXPECT_EQ(client.Phase(), "wait");
  EXPECT_EQ(client.trained.size(), 1u);
}

// ---- evaluation ----

TEST(ClientProtocolTest, AnEvaluationIsPulledDoneAndAnsweredAlsoWhenAskedTwice) {
  LoneClient client;
  client.Start();
  client.HearsWelcome();
  client.Hears(EvalOf(kBundle, 3));
  client.Hears(EvalOf(kBundle, 3));
  client.Serves(kBundle);
  client.Works();
  ASSERT_EQ(client.jobs_waiting(), 0u);
  const std::vector<EvalReply> replies = client.Take<EvalReply>();
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].report.version.number, 3u);
  EXPECT_EQ(replies[0].report.client.name, "alpha");
  EXPECT_EQ(replies[0].report.loss, 1.5);
  client.Hears(EvalOf(kBundle, 3));
  EXPECT_EQ(client.Take<EvalReply>().size(), 1u) << "an answer that was lost is given again";
  EXPECT_EQ(client.jobs_waiting(), 0u);
}

TEST(ClientProtocolTest, ANewerEvaluationTakesThePlaceOfAnOlderOne) {
  LoneClient client;
  client.Start();
  client.HearsWelcome();
  client.Hears(EvalOf(kBundle, 1));
  client.Serves(kBundle);
  ASSERT_EQ(client.jobs_waiting(), 1u);
  const Blob newer = Blob::Copy(std::string_view("version two"));
  client.Hears(EvalOf(newer, 2));
  client.Serves(newer);
  client.Works();
  EXPECT_TRUE(client.Take<EvalReply>().empty());
  client.Works();
  EXPECT_EQ(client.Take<EvalReply>().at(0).report.version.number, 2u);
}

// ---- what only a client may send, and what is no message ----

TEST(ClientProtocolTest, MessagesThatOnlyAClientMaySendAreNotedAndLeaveItAsItWas) {
  LoneClient client;
  BringToTraining(client);
  client.said.clear();
  client.Hears(Hello{});
  client.Hears(RoundFailed{.round = RoundId{1}, .code = Code::kInternal, .reason = "x"});
  EvalReply reply;
  reply.report.run = RunId{"run"};
  reply.report.client = ClientId{"alpha"};
  client.Hears(reply);
  client.Hears(Goodbye{.reason = "bye"});
  EXPECT_TRUE(client.said.empty());
  EXPECT_EQ(client.Phase(), "train");
  EXPECT_NE(client.log_lines->Text().find("only a client may send it"), std::string::npos);
}

TEST(ClientProtocolTest, DamageAndKindsFromTheFutureAreNotedAndTheClientGoesOn) {
  LoneClient client;
  BringToTraining(client);
  client.HearsRaw(Blob::Copy(std::string_view("no message at all")));
  client.HearsRaw(Blob());
  client.HearsRaw(Blob::Adopt(std::string(limits::kControlBytesMax + 8, 'x')));
  std::string future(EncodeMessage(Goodbye{}).view());
  future[2 * 8 + 2] = 77;  // the union's tag
  client.HearsRaw(Blob::Copy(std::string_view(future)));
  EXPECT_NE(client.log_lines->Text().find("kind 77"), std::string::npos);
  EXPECT_EQ(client.Phase(), "train");
  client.Works();
  EXPECT_EQ(client.Take<UpdateOffer>().size(), 1u);
}

// Whatever an aggregator says in whatever order, a client neither crashes nor hangs: it ends when
// told to.
TEST(ClientProtocolTest, AnyOrderOfMessagesLeavesAClientThatCanBeEnded) {
  for (uint64_t seed = 0; seed < 150; ++seed) {
    RandomStream random(seed);
    LoneClient client("alpha", seed);
    client.Start();
    for (int turn = 0; turn < 60; ++turn) {
      const uint32_t round = 1 + static_cast<uint32_t>(random.Below(3));
      const Blob bundle = Blob::Adopt(Str("bundle ", round));
      switch (random.Below(14)) {
        case 0:
          client.HearsWelcome(round - 1);
          break;
        case 1:
          client.Hears(OfferTo(client, bundle, round));
          break;
        case 2:
          client.Serves(bundle);
          break;
        case 3:
          client.Hears(EvalOf(bundle, round));
          break;
        case 4:
          client.Hears(UpdateVerdict{RoundId{round}, Code::kOk, ""});
          break;
        case 5:
          client.Hears(RoundClosed{RoundId{round}, ""});
          break;
        case 6:
          client.Hears(ChunkRequest{Sha256Hex(AsBytes("an update")), random.Below(2), 1});
          break;
        case 7:
          client.Hears(Chunk{OfferOf(bundle).sha256, random.Below(2), 5}, bundle);
          break;
        case 8:
          client.LosesLink();
          break;
        case 9:
          client.Hears(Refusal{Code::kFailedPrecondition, "later", true});
          break;
        case 10:
          client.RunFor(static_cast<double>(random.Below(15)));
          break;
        case 11:
          client.link = random.Below(4) != 0;
          break;
        default:
          if (client.jobs_waiting() > 0) client.Works();
      }
      ASSERT_FALSE(client.node->Finished()) << seed << ": nothing has told it to end";
    }
    client.link = true;
    client.Hears(RunEnded{.state = "completed", .reason = ""});
    EXPECT_TRUE(client.node->Finished()) << seed;
    while (client.jobs_waiting() > 0) client.Works();
  }
}

}  // namespace
}  // namespace weft::testing
