// Published versions evaluated by sites and by the aggregator: which one is best, what becomes of
// sites that do not answer, and which states are kept.

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "tests/unit/nodes/fake_world.h"
#include "tests/unit/nodes/usual_settings.h"

namespace weft::testing {
namespace {

void StartAll(FakeWorld& world) {
  ASSERT_TRUE(world.StartAggregator().ok());
  for (const char* name : {"alpha", "beta", "gamma"}) world.StartClient(name, 4);
}

EvalReport Report(double loss, uint64_t tokens) {
  EvalReport report;
  report.loss = loss;
  report.label_tokens = tokens;
  report.num_examples = 5;
  return report;
}

/// Losses of versions 0, 1, …; the same at every site.
void Script(FakeWorld& world, std::vector<double> losses) {
  world.on_evaluate = [losses](const ClientEvaluateJob& job) -> Result<EvalReport> {
    return Report(losses.at(job.version.number), 50);
  };
}

std::vector<uint32_t> BestVersions(const FakeWorld& world) {
  std::vector<uint32_t> versions;
  for (const BestRound& best : world.Events<BestRound>()) versions.push_back(best.version.number);
  return versions;
}

TEST(EvaluationTest, TheBestVersionIsMarkedWhenItIsBetterAndItsStateIsKept) {
  FakeWorld world(UsualSettings(7));
  Script(world, {5, 4, 2, 3, 2, 4, 1.5, 9});
  StartAll(world);
  ASSERT_TRUE(world.RunToEnd());
  EXPECT_EQ(BestVersions(world), (std::vector<uint32_t>{0, 1, 2, 6})) << "equal is not better";
  EXPECT_EQ(world.Events<BestRound>().back().by, "clients");
  // The last two versions and the best.
  EXPECT_EQ(world.disk->ListBlobs("state/"),
            (std::vector<std::string>{"state/round-0006", "state/round-0007"}));
}

TEST(EvaluationTest, ABestVersionOfLongAgoOutlivesTheOthersAndARestart) {
  FakeWorld world(UsualSettings(6));
  Script(world, {5, 1, 2, 3, 4, 5, 6});
  StartAll(world);
  ASSERT_TRUE(world.RunUntil([&] { return world.Events<RoundPublished>().size() == 5; }));
  world.KillAggregator();
  world.RunFor(3);
  ASSERT_TRUE(world.StartAggregator().ok());
  ASSERT_TRUE(world.RunToEnd());
  EXPECT_EQ(BestVersions(world), (std::vector<uint32_t>{0, 1}));
  EXPECT_EQ(world.disk->ListBlobs("state/"),
            (std::vector<std::string>{"state/round-0001", "state/round-0005", "state/round-0006"}));
  for (const BlobsRemoved& removed : world.Events<BlobsRemoved>()) {
    for (const std::string& blob : removed.blobs) EXPECT_NE(blob, "state/round-0001");
  }
}

TEST(EvaluationTest, TheSitesLossesAreWeightedByTheirLabels) {
  FakeWorld world(UsualSettings(1));
  world.on_evaluate = [](const ClientEvaluateJob& job) -> Result<EvalReport> {
    if (job.client.name == "alpha") return Report(1, 10);
    return job.client.name == "beta" ? Report(2, 20) : Report(4, 70);
  };
  StartAll(world);
  ASSERT_TRUE(world.RunToEnd());
  ASSERT_FALSE(world.Events<BestRound>().empty());
  EXPECT_DOUBLE_EQ(world.Events<BestRound>()[0].loss, (1 * 10 + 2 * 20 + 4 * 70) / 100.0);
}

TEST(EvaluationTest, SitesThatCannotEvaluateAreLeftOutAndNotWaitedFor) {
  FakeWorld world(UsualSettings(2));
  world.on_evaluate = [](const ClientEvaluateJob& job) -> Result<EvalReport> {
    if (job.client.name == "beta") return Internal("[evaluate] out of memory");
    if (job.client.name == "gamma") return Report(std::nan(""), 50);
    return Report(3, 50);
  };
  StartAll(world);
  const Nanos began = world.clock.Now();
  ASSERT_TRUE(world.RunToEnd());
  EXPECT_TRUE(world.aggregator().Outcome().ok()) << world.aggregator().Outcome();
  for (const EvalReported& event : world.Events<EvalReported>()) {
    EXPECT_EQ(event.report.client.name, "alpha");
  }
  EXPECT_DOUBLE_EQ(world.Events<BestRound>()[0].loss, 3);
  EXPECT_LT(ToSeconds(world.clock.Now() - began), 60) << "three evaluations, deadline 120 s each";
}

TEST(EvaluationTest, AnEvaluatorThatDiesIsWaitedForNoLongerThanASilentClient) {
  Settings settings = UsualSettings(1);
  settings.cohort.evaluate_deadline_s = 100000;
  FakeWorld world(settings);
  world.filter = [](const ClientId& client, bool up, const Message& message) {
    return !(up && client.name == "gamma" && std::holds_alternative<EvalReply>(message));
  };
  StartAll(world);
  ASSERT_TRUE(world.RunUntil([&] { return world.Events<EvalReported>().size() == 2; }));
  world.KillClient("gamma");
  const Nanos died = world.clock.Now();
  ASSERT_TRUE(world.RunUntil([&] { return world.Events<BestRound>().size() == 1; }));
  EXPECT_LT(ToSeconds(world.clock.Now() - died), 2 * settings.server.gone_after_s + 10);
}

TEST(EvaluationTest, TheDeadlineEndsAnEvaluationThatSomebodyDoesNotAnswer) {
  Settings settings = UsualSettings(1);
  settings.cohort.evaluate_deadline_s = 30;
  FakeWorld world(settings);
  world.filter = [](const ClientId& client, bool up, const Message& message) {
    return !(up && client.name == "gamma" && std::holds_alternative<EvalReply>(message));
  };
  StartAll(world);
  ASSERT_TRUE(world.RunToEnd());
  EXPECT_TRUE(world.aggregator().Outcome().ok()) << world.aggregator().Outcome();
  EXPECT_EQ(world.Events<EvalReported>().size(), 4u) << "two sites, two versions";
  EXPECT_FALSE(world.Events<BestRound>().empty());
}

TEST(EvaluationTest, ALostReplyIsSentAgainWithoutEvaluatingAgain) {
  FakeWorld world(UsualSettings(1));
  int evaluated = 0;
  world.on_evaluate = [&](const ClientEvaluateJob&) -> Result<EvalReport> {
    ++evaluated;
    return Report(2, 10);
  };
  int lost = 0;
  world.filter = [&](const ClientId& client, bool up, const Message& message) {
    const bool loses =
        up && client.name == "beta" && lost == 0 && std::holds_alternative<EvalReply>(message);
    lost += loses;
    return !loses;
  };
  StartAll(world);
  ASSERT_TRUE(world.RunToEnd());
  EXPECT_EQ(lost, 1);
  EXPECT_EQ(evaluated, 6) << "three sites, two versions";
  EXPECT_EQ(world.Events<EvalReported>().size(), 6u);
}

TEST(EvaluationTest, WithoutEvaluatorsThereIsNoBestVersionAndNoWaiting) {
  Settings settings = UsualSettings(3);
  settings.cohort.fraction_evaluate = 0;
  FakeWorld world(settings);
  StartAll(world);
  ASSERT_TRUE(world.RunToEnd());
  EXPECT_TRUE(world.aggregator().Outcome().ok());
  EXPECT_TRUE(world.Events<EvalReported>().empty());
  EXPECT_TRUE(world.Events<BestRound>().empty());
}

TEST(EvaluationTest, AFractionOfTheSitesEvaluatesAndNotAlwaysTheSame) {
  Settings settings = UsualSettings(8);
  settings.cohort.fraction_evaluate = 0.5;
  FakeWorld world(settings);
  StartAll(world);
  ASSERT_TRUE(world.RunToEnd());
  std::map<uint32_t, std::set<std::string>> by_version;
  std::set<std::string> all;
  for (const EvalReported& event : world.Events<EvalReported>()) {
    by_version[event.report.version.number].insert(event.report.client.name);
    all.insert(event.report.client.name);
  }
  EXPECT_EQ(by_version.size(), 9u);
  for (const auto& [version, sites] : by_version) EXPECT_EQ(sites.size(), 2u) << version;
  EXPECT_EQ(all.size(), 3u);
}

TEST(EvaluationTest, TheAggregatorsOwnRowsJudgeWhereNoSiteDoes) {
  Settings settings = UsualSettings(3);
  settings.cohort.fraction_evaluate = 0;
  FakeWorld world(settings);
  const std::vector<double> losses = {4, 3, 3.5, 2};
  world.on_evaluate_here = [&](const ServerEvaluateJob& job) -> Result<ServerEvaluateJob::Output> {
    return ServerEvaluateJob::Output{losses.at(job.version.number), 40};
  };
  StartAll(world);
  ASSERT_TRUE(world.RunToEnd());
  EXPECT_EQ(world.Events<ServerEvaluated>().size(), 4u);
  EXPECT_EQ(BestVersions(world), (std::vector<uint32_t>{0, 1, 3}));
  EXPECT_EQ(world.Events<BestRound>().back().by, "server");
}

TEST(EvaluationTest, WhereSitesReportTheyJudgeAndTheAggregatorsLossIsOnlyRecorded) {
  FakeWorld world(UsualSettings(2));
  Script(world, {5, 4, 3});
  world.on_evaluate_here = [](const ServerEvaluateJob& job) -> Result<ServerEvaluateJob::Output> {
    return ServerEvaluateJob::Output{1.0 + job.version.number, 40};  // says the opposite
  };
  StartAll(world);
  ASSERT_TRUE(world.RunToEnd());
  EXPECT_EQ(BestVersions(world), (std::vector<uint32_t>{0, 1, 2}));
  EXPECT_EQ(world.Events<BestRound>().back().by, "clients");
  EXPECT_EQ(world.Events<ServerEvaluated>().size(), 3u);
}

TEST(EvaluationTest, AnAggregatorThatCannotEvaluateItsOwnRowsEndsTheRunWithTheReason) {
  FakeWorld world(UsualSettings(1));
  world.on_evaluate_here = [](const ServerEvaluateJob&) -> Result<ServerEvaluateJob::Output> {
    return Internal("[evaluate] the loss of rows 0 to 7 is nan");
  };
  StartAll(world);
  ASSERT_TRUE(world.RunToEnd());
  EXPECT_FALSE(world.aggregator().Outcome().ok());
  EXPECT_NE(world.aggregator().Outcome().message().find("is nan"), std::string::npos)
      << world.aggregator().Outcome();
}

TEST(EvaluationTest, ReportsAlreadyInTheLedgerAreNotAskedForAgainAfterARestart) {
  FakeWorld world(UsualSettings(1));
  std::map<std::string, int> evaluated;
  world.on_evaluate = [&](const ClientEvaluateJob& job) -> Result<EvalReport> {
    ++evaluated[job.client.name + std::to_string(job.version.number)];
    return Report(2, 10);
  };
  // The last version's evaluation, with one answer withheld.
  world.filter = [](const ClientId& client, bool up, const Message& message) {
    const auto* reply = std::get_if<EvalReply>(&message);
    return !(up && client.name == "gamma" && reply != nullptr &&
             reply->report.version == RoundId{1});
  };
  StartAll(world);
  ASSERT_TRUE(world.RunUntil([&] { return world.Events<EvalReported>().size() == 5; }));
  world.KillAggregator();
  world.filter = nullptr;
  world.RunFor(2);
  ASSERT_TRUE(world.StartAggregator().ok());
  ASSERT_TRUE(world.RunToEnd());
  EXPECT_TRUE(world.aggregator().Outcome().ok());
  EXPECT_EQ(world.Events<EvalReported>().size(), 6u);
  EXPECT_EQ(evaluated["alpha1"], 1);
  EXPECT_EQ(evaluated["beta1"], 1);
}

}  // namespace
}  // namespace weft::testing
