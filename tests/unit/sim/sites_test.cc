// The virtual clients of a simulation: names, rows, ranks, and what is kept for evaluation.

#include "sim/sites.h"

#include <algorithm>
#include <set>

#include <gtest/gtest.h>

#include "tests/support/small_model.h"
#include "tests/support/temp_folder.h"

namespace weft::sim {
namespace {

using weft::testing::TempFolder;

class SitesTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TempFolder>();
    ASSERT_TRUE(weft::testing::WriteSmallModel(folder_->path() / "model").ok());
    std::string rows;
    for (int i = 0; i < 30; ++i) rows += R"({"text": "row )" + std::to_string(i) + "\"}\n";
    folder_->Write("rows.jsonl", rows);
    folder_->Write("held.jsonl", "{\"text\": \"held out\"}\n{\"text\": \"too\"}\n");
    ModelSettings model;
    model.path = (folder_->path() / "model").string();
    model.device = "cpu";
    Result<SharedBase> shared = LoadSharedBase(model);
    ASSERT_TRUE(shared.ok()) << shared.status();
    shared_ = std::make_unique<SharedBase>(std::move(shared).value());
  }
  static void TearDownTestSuite() {
    shared_.reset();
    folder_.reset();
  }

  static std::string File(const std::string& name) { return (folder_->path() / name).string(); }
  static Settings Dealt(int64_t clients) {
    Settings settings;
    settings.adapter.rank = 8;
    settings.sim.clients = clients;
    settings.sim.data = File("rows.jsonl");
    settings.sim.partition = "round-robin";
    return settings;
  }
  static Population Make(const Settings& settings) {
    Result<Population> made = MakePopulation(settings, *shared_);
    EXPECT_TRUE(made.ok()) << made.status();
    return made.ok() ? std::move(made).value() : Population{};
  }

  inline static std::unique_ptr<TempFolder> folder_;
  inline static std::unique_ptr<SharedBase> shared_;
};

TEST_F(SitesTest, NamesAreNumbersWhoseOrderIsThatOfText) {
  const Population population = Make(Dealt(12));
  ASSERT_EQ(population.clients.size(), 12u);
  std::vector<std::string> names;
  for (const VirtualClient& client : population.clients) {
    names.push_back(client.site->client().name);
  }
  EXPECT_EQ(names.front(), "client-00");
  EXPECT_EQ(names.back(), "client-11");
  EXPECT_TRUE(std::is_sorted(names.begin(), names.end()));
  EXPECT_EQ(Make(Dealt(10)).clients.back().site->client().name, "client-9");
}

TEST_F(SitesTest, RanksAreDealtInTurnAndElseTheAdapters) {
  Settings settings = Dealt(5);
  for (const VirtualClient& client : Make(settings).clients) EXPECT_EQ(client.rank, 8);
  settings.sim.ranks = {2, 4};
  std::vector<int64_t> ranks;
  for (const VirtualClient& client : Make(settings).clients) ranks.push_back(client.rank);
  EXPECT_EQ(ranks, (std::vector<int64_t>{2, 4, 2, 4, 2}));
}

TEST_F(SitesTest, TheLongestRowIsOverAllClientsInTokensAndNoLongerThanIsTrained) {
  const TempFolder folder;
  const std::string words = "harbour harbour harbour harbour harbour harbour harbour harbour";
  std::string rows;
  for (int i = 0; i < 9; ++i) rows += "{\"text\": \"row\"}\n";
  Settings settings = Dealt(3);
  settings.sim.data = folder.Write("rows.jsonl", rows + "{\"text\": \"" + words + "\"}\n").string();
  const Population population = Make(settings);
  const auto first = population.clients[0].site->Tokens(Site::Split::kTrain, 64, "cut");
  ASSERT_TRUE(first.ok()) << first.status();
  const auto longest = static_cast<int64_t>((*first)->rows.back().ids.size());
  ASSERT_GT(longest, 9) << "dealt round robin: the tenth row is the first client's";
  EXPECT_EQ(LongestRow(population, 64, "cut"), longest);
  EXPECT_EQ(LongestRow(population, 5, "cut"), 5);
  EXPECT_LT(LongestRow(population, longest - 1, "drop"), longest - 1);
  EXPECT_EQ(LongestRow(Population{}, 64, "cut"), 0);
}

TEST_F(SitesTest, ASiteWithoutUsableRowsHasNoLongestRow) {
  const Population population = Make(Dealt(2));
  EXPECT_EQ(LongestRow(population, 1, "cut"), 0) << "one token has no next one to predict";
}

TEST_F(SitesTest, TheFirstRowsAreKeptForEvaluationAndNobodyTrainsOnThem) {
  Settings settings = Dealt(4);
  settings.sim.eval_rows = 10;
  const Population population = Make(settings);
  ASSERT_EQ(population.evaluation.size(), 10u);
  EXPECT_EQ(population.evaluation[0].completion, "row 0");
  uint64_t rows = 0;
  for (const VirtualClient& client : population.clients) rows += client.site->num_train();
  EXPECT_EQ(rows, 20u);
  EXPECT_EQ(population.clients[0].site->num_train(), 5u);
}

TEST_F(SitesTest, AnEvaluationFileWinsOverHeldRows) {
  Settings settings = Dealt(4);
  settings.sim.eval_rows = 10;
  settings.evaluate.data = File("held.jsonl");
  const Population population = Make(settings);
  ASSERT_EQ(population.evaluation.size(), 2u);
  EXPECT_EQ(population.evaluation[0].completion, "held out");
  settings.evaluate.max_rows = 1;
  EXPECT_EQ(Make(settings).evaluation.size(), 1u);
}

TEST_F(SitesTest, ClientTablesAreLoadedAsTheDaemonsWouldAndSortedByName) {
  Settings settings;
  settings.adapter.rank = 8;
  for (const auto& [name, rank] : {std::pair("weaver", "4"), std::pair("harbour", "auto")}) {
    ClientSettings client;
    client.name = name;
    client.rank = rank;
    client.data = File("rows.jsonl");
    client.valid_fraction = 0.1;
    settings.clients.push_back(client);
  }
  const Population population = Make(settings);
  ASSERT_EQ(population.clients.size(), 2u);
  EXPECT_EQ(population.clients[0].site->client().name, "harbour");
  EXPECT_EQ(population.clients[0].rank, 8) << "auto: nothing limits a virtual client";
  EXPECT_EQ(population.clients[1].rank, 4);
  EXPECT_EQ(population.clients[1].site->num_train(), 27u);
  EXPECT_EQ(population.clients[1].site->num_validation(), 3u);
  EXPECT_TRUE(population.evaluation.empty());
}

TEST_F(SitesTest, AllShareOneModel) {
  const Population population = Make(Dealt(3));
  const auto model = *population.clients[0].site->models().Get("float32");
  for (const VirtualClient& client : population.clients) {
    EXPECT_EQ(*client.site->models().Get("float32"), model);
  }
}

TEST_F(SitesTest, WhatIsMissingIsSaid) {
  const auto error = [&](Settings settings) {
    return MakePopulation(settings, *shared_).status().message();
  };
  EXPECT_NE(error(Settings{}).find("got no clients"), std::string::npos);
  Settings no_data = Dealt(3);
  no_data.sim.data.clear();
  EXPECT_NE(error(no_data).find("wanted a JSONL file"), std::string::npos);
  Settings greedy = Dealt(3);
  greedy.sim.eval_rows = 29;  // leaves one row for three clients
  EXPECT_NE(error(greedy).find("1 rows for 3 clients"), std::string::npos);
  Settings gone = Dealt(3);
  gone.sim.data = File("gone.jsonl");
  EXPECT_NE(error(gone).find("gone.jsonl"), std::string::npos);
}

}  // namespace
}  // namespace weft::sim
