// Rounds that close before everybody is done (cohort.buffer, cohort.max-staleness): who is not goes
// on with what it was asked, and counts in a later round.

#include <gtest/gtest.h>

#include "tests/unit/nodes/fake_world.h"
#include "tests/unit/nodes/usual_settings.h"

namespace weft::testing {
namespace {

// Two updates close a round; gamma takes as long as the test likes.
Settings Buffered(int64_t rounds, int64_t max_staleness) {
  Settings settings = UsualSettings(rounds);
  settings.strategy.name = "exact-svd";
  settings.cohort.buffer = 2;
  settings.cohort.max_staleness = max_staleness;
  return settings;
}

void StartAll(FakeWorld& world) {
  ASSERT_TRUE(world.StartAggregator().ok());
  world.StartClient("alpha", 4);
  world.StartClient("beta", 8);
  world.StartClient("gamma", 16);
}

bool Published(const FakeWorld& world, size_t versions) {
  return world.Events<RoundPublished>().size() == versions + 1;
}

// "2: alpha of 2, gamma of 1" …
std::vector<std::string> Accepted(const FakeWorld& world) {
  std::map<uint32_t, std::map<std::string, uint32_t>> rounds;
  for (const UpdateAccepted& event : world.Events<UpdateAccepted>()) {
    rounds[event.CountsIn().number][event.header.client.name] = event.header.round.number;
  }
  std::vector<std::string> lines;
  for (const auto& [round, clients] : rounds) {
    std::string line = std::to_string(round) + ":";
    for (const auto& [client, asked] : clients) line += " " + client + std::to_string(asked);
    lines.push_back(line);
  }
  return lines;
}

// Is that update ("gamma1": what gamma was asked in round 1) in some version?
bool Counts(const FakeWorld& world, const std::string& update) {
  for (const std::string& line : Accepted(world)) {
    if (line.find(update) != std::string::npos) return true;
  }
  return false;
}

using Strings = std::vector<std::string>;

TEST(LateUpdatesTest, AFullBufferClosesTheRoundAndTheOthersGoOn) {
  FakeWorld world(Buffered(3, 2));
  world.hold_training = {"gamma"};
  StartAll(world);
  ASSERT_TRUE(world.RunUntil([&] { return Published(world, 1); }));
  world.ReleaseTraining();
  ASSERT_TRUE(world.RunToEnd());
  EXPECT_EQ(Accepted(world)[0], "1: alpha1 beta1");
  EXPECT_NE(Accepted(world)[1].find("gamma1"), std::string::npos) << Accepted(world)[1];
  EXPECT_TRUE(world.Events<ClientDropped>().empty() ||
              world.Events<ClientDropped>()[0].round == RoundId{3})
      << "nobody is sent home before the last round";
  const std::vector<RoundOpened> opened = world.Events<RoundOpened>();
  ASSERT_EQ(opened.size(), 3u);
  ASSERT_EQ(opened[1].plan.cohort.size(), 3u);
  EXPECT_EQ(opened[1].plan.cohort[2].asked, RoundId{1});
  EXPECT_EQ(opened[1].plan.cohort[2].adapter, opened[0].plan.cohort[2].adapter);
  EXPECT_EQ(opened[1].bundles[2], opened[0].bundles[2]) << "what it started from, cut again";
}

TEST(LateUpdatesTest, WhoIsTooLateIsSentHomeAndAskedAnew) {
  FakeWorld world(Buffered(6, 2));
  world.hold_training = {"gamma"};
  StartAll(world);
  ASSERT_TRUE(world.RunUntil([&] { return Published(world, 3); }));
  ASSERT_EQ(world.Events<ClientDropped>().size(), 1u);
  EXPECT_EQ(world.Events<ClientDropped>()[0].client.name, "gamma");
  EXPECT_EQ(world.Events<ClientDropped>()[0].round, RoundId{3}) << "two rounds late is in time";
  world.hold_training.clear();
  world.ReleaseTraining();
  ASSERT_TRUE(world.RunToEnd());
  EXPECT_FALSE(Counts(world, "gamma1"));
}

TEST(LateUpdatesTest, TheStateThatSomebodyStartedFromStaysAsLongAsItIsAtIt) {
  FakeWorld world(Buffered(8, 4));
  world.hold_training = {"gamma"};
  StartAll(world);
  const auto has = [&](const std::string& state) {
    return world.disk->ListBlobs("state/" + state).size() == 1;
  };
  ASSERT_TRUE(world.RunUntil([&] { return Published(world, 4); }));
  EXPECT_TRUE(has("round-0000"));
  EXPECT_FALSE(has("round-0001")) << "nobody is at it";
  world.hold_training.clear();
  world.ReleaseTraining();
  ASSERT_TRUE(world.RunToEnd());
  EXPECT_FALSE(has("round-0000"));
}

TEST(LateUpdatesTest, AnAggregatorThatDiesBetweenRoundsStillCountsThem) {
  for (const bool in_a_round : {false, true}) {
    FakeWorld world(Buffered(4, 3));
    world.hold_training = {"gamma"};
    StartAll(world);
    ASSERT_TRUE(world.RunUntil([&] {
      return in_a_round ? world.Events<RoundOpened>().size() == 2 : Published(world, 1);
    }));
    world.KillAggregator();
    ASSERT_TRUE(world.StartAggregator().ok());
    world.hold_training.clear();
    world.ReleaseTraining();
    ASSERT_TRUE(world.RunToEnd());
    EXPECT_TRUE(Counts(world, "gamma1")) << in_a_round;
  }
}

TEST(LateUpdatesTest, AStragglerThatDiesIsAskedForTheSameAgain) {
  FakeWorld world(Buffered(3, 2));
  world.hold_training = {"gamma"};
  StartAll(world);
  ASSERT_TRUE(world.RunUntil([&] { return Published(world, 1); }));
  world.KillClient("gamma");
  world.hold_training.clear();
  world.StartClient("gamma", 16);
  ASSERT_TRUE(world.RunToEnd());
  EXPECT_TRUE(Counts(world, "gamma1"));
}

// Its verdict was lost on the way, so it offers again while its round is merged.
TEST(LateUpdatesTest, WhoWasAcceptedLateAndOffersAgainIsNotToldThatItIsTooLate) {
  FakeWorld world(Buffered(3, 2));
  world.hold_training = {"gamma"};
  StartAll(world);
  ASSERT_TRUE(world.RunUntil([&] { return Published(world, 1); }));
  world.hold_training = {"alpha"};
  world.ReleaseTraining();
  ASSERT_TRUE(world.RunUntil(
      [&] { return world.log_lines->Text().find("round closed round=2") != std::string::npos; }));
  ASSERT_FALSE(Published(world, 2));
  const UpdateAccepted gamma = [&] {
    for (const UpdateAccepted& event : world.Events<UpdateAccepted>()) {
      if (event.header.client.name == "gamma") return event;
    }
    return UpdateAccepted{};
  }();
  ASSERT_EQ(gamma.header.round, RoundId{1});
  world.Inject("gamma",
               UpdateOffer{.header = gamma.header,
                           .payload = {gamma.header.payload_sha256, gamma.header.payload_bytes}});
  world.hold_training.clear();
  world.ReleaseTraining();
  ASSERT_TRUE(world.RunToEnd());
  EXPECT_TRUE(world.Events<UpdateLate>().empty());
}

TEST(LateUpdatesTest, AFullBufferWithoutLatenessSendsTheOthersHome) {
  FakeWorld world(Buffered(2, 0));
  world.hold_training = {"gamma"};
  StartAll(world);
  ASSERT_TRUE(world.RunUntil([&] { return Published(world, 1); }));
  world.ReleaseTraining();
  ASSERT_TRUE(world.RunToEnd());
  EXPECT_EQ(world.Events<ClientDropped>()[0].round, RoundId{1});
  EXPECT_EQ(world.Events<RoundOpened>()[1].plan.cohort[2].asked, RoundId{});
}

TEST(LateUpdatesTest, WhereEverybodyIsInTimeNothingIsDifferent) {
  Settings settings = UsualSettings(3);
  settings.strategy.name = "exact-svd";
  FakeWorld usual(settings);
  StartAll(usual);
  ASSERT_TRUE(usual.RunToEnd());
  settings.cohort.max_staleness = 5;
  FakeWorld patient(settings);
  StartAll(patient);
  ASSERT_TRUE(patient.RunToEnd());
  EXPECT_EQ(usual.Hashes(), patient.Hashes());
}

TEST(LateUpdatesTest, TheDeadlineCarriesOnWhoIsNotDone) {
  Settings settings = Buffered(3, 2);
  settings.cohort.buffer = 0;
  settings.cohort.quorum = 0.5;
  FakeWorld world(settings);
  world.hold_training = {"gamma"};
  StartAll(world);
  ASSERT_TRUE(world.RunUntil([&] { return world.Events<RoundOpened>().size() == 2; }));
  world.ReleaseTraining();
  ASSERT_TRUE(world.RunToEnd());
  EXPECT_EQ(Accepted(world),
            (Strings{"1: alpha1 beta1", "2: alpha2 beta2 gamma1", "3: alpha3 beta3 gamma3"}));
}

}  // namespace
}  // namespace weft::testing
