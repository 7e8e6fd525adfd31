// Seeds of every scenario keep the rules, and a system that is broken on purpose does not.

#include "sim/torture.h"

#include <gtest/gtest.h>

#include "tests/support/temp_folder.h"

namespace weft::sim {
namespace {

class TortureTest : public ::testing::Test {
 protected:
  Torture Open(const std::string& bug = "") {
    Result<Torture> torture = Torture::Open(folder_.path() / "base", bug);
    WEFT_CHECK(torture.ok(), torture.status());
    return std::move(torture).value();
  }

  weft::testing::TempFolder folder_;
};

TEST_F(TortureTest, SeedsOfEveryScenarioKeepTheRules) {
  Torture torture = Open();
  for (const Scenario& scenario : Scenarios()) {
    uint64_t trouble = 0;
    for (uint64_t seed = 5001; seed <= 5006; ++seed) {
      const TortureOutcome outcome = torture.Run(scenario, seed);
      EXPECT_TRUE(outcome.status.ok())
          << scenario.name << " " << seed << " " << outcome.faults << outcome.status;
      EXPECT_GT(outcome.looks, 0u);
      trouble += outcome.faults.size();
    }
    EXPECT_GT(trouble, 600u) << scenario.name << ": its plans must say something";
  }
}

// What campaigns found, each mended since.
TEST_F(TortureTest, SeedsThatOnceFailedKeepTheRules) {
  struct Found {
    const char* scenario;
    uint64_t seed;
    const char* what;
  };
  constexpr Found kFound[] = {
      {"deltas", 110, "so did one that came twice, after the round's verdict"},
      {"late", 182,
       "a client that offered its update twice was told that it counts before that was on disk"},
      {"deltas", 5004,
       "an offer of round 1 that came in round 3 had the client forget its moments of round 2"},
  };
  Torture torture = Open();
  for (const Found& found : kFound) {
    const TortureOutcome outcome = torture.Run(**FindScenario(found.scenario), found.seed);
    EXPECT_TRUE(outcome.status.ok()) << found.what << ": " << outcome.status;
  }
}

TEST_F(TortureTest, TheSameSeedIsTheSameRun) {
  const Scenario& scenario = **FindScenario("everything");
  Torture one = Open();
  Torture other = Open();
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    const TortureOutcome a = one.Run(scenario, seed);
    const TortureOutcome b = other.Run(scenario, seed);
    EXPECT_EQ(a.faults, b.faults);
    EXPECT_EQ(a.virtual_s, b.virtual_s);
    EXPECT_EQ(a.messages, b.messages);
  }
}

TEST_F(TortureTest, EveryBugIsNoticedWithinAFewSeeds) {
  for (const std::string& bug : TortureBugs()) {
    Torture torture = Open(bug);
    std::optional<TortureOutcome> caught;
    for (uint64_t seed = 1; seed <= 12 && !caught; ++seed) {
      for (const char* name : {"crashes", "late", "damage", "relays"}) {
        TortureOutcome outcome = torture.Run(**FindScenario(name), seed);
        if (!outcome.status.ok()) caught = std::move(outcome);
      }
    }
    ASSERT_TRUE(caught.has_value()) << bug;
    EXPECT_EQ(caught->last_events.size(), 20u) << bug << " " << caught->status;
  }
}

TEST(ScenariosTest, AnUnknownOneIsToldTheKnown) {
  const Status status = FindScenario("weather").status();
  EXPECT_EQ(status.code(), Code::kNotFound);
  for (const Scenario& scenario : Scenarios()) {
    EXPECT_NE(status.message().find(scenario.name), std::string::npos) << status;
  }
}

}  // namespace
}  // namespace weft::sim
