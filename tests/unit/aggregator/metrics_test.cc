// What watchers are told, and over HTTP.

#include <gtest/gtest.h>
#include <httplib.h>

#include "aggregator/metrics_server.h"
#include "tests/support/run_samples.h"
#include "tests/support/temp_folder.h"

namespace weft {
namespace {

using testing::SampleEval;
using testing::SampleLedger;
using testing::SampleOpened;
using testing::SamplePublished;
using testing::SampleRun;
using testing::SampleUpdate;

RunView ViewOf(const std::vector<RunEvent>& events) {
  RunFold fold;
  for (const LedgerEvent& row : SampleLedger(events)) WEFT_CHECK(fold.Add(row).ok());
  return fold.view();
}

bool Has(const std::string& page, const std::string& line) {
  return page.find("\n" + line + "\n") != std::string::npos;
}

TEST(MetricsPageTest, ARunIsToldAsItsLedgerSays) {
  const std::string page = MetricsPage(ViewOf(SampleRun()), {}, {.loop_age_s = 0.5});
  EXPECT_TRUE(Has(page, "weft_version 1")) << page;
  EXPECT_TRUE(Has(page, "weft_members 2")) << page;
  EXPECT_TRUE(Has(page, "weft_updates_accepted_total 2")) << page;
  EXPECT_TRUE(Has(page, "weft_rounds_missed_total 1")) << page;
  EXPECT_TRUE(Has(page, "weft_bytes_down_total 4000")) << page;
  EXPECT_TRUE(Has(page, "weft_server_loss 1.8")) << page;
  EXPECT_TRUE(Has(page, "weft_loop_age_seconds 0.5")) << page;
  EXPECT_TRUE(Has(page, "weft_round_open 0")) << page;
  EXPECT_TRUE(Has(page, "# TYPE weft_updates_accepted_total counter")) << page;
}

TEST(MetricsPageTest, AnEmptyLedgerAndAnOpenRoundAreToldAsWell) {
  EXPECT_TRUE(Has(MetricsPage(RunView(), {}, {}), "weft_version 0"));
  std::vector<RunEvent> open = SampleRun();
  open.resize(15);
  const std::string page = MetricsPage(ViewOf(open), {}, {});
  EXPECT_TRUE(Has(page, "weft_round_open 1")) << page;
  EXPECT_TRUE(Has(page, "weft_round_cohort 2")) << page;
  EXPECT_TRUE(Has(page, "weft_round_accepted 1")) << page;
}

// As the server does after each look, whenever that is: the page is that of the whole run.
TEST(MetricsPageTest, RoundsThatAreGivenUpStillCount) {
  std::vector<RunEvent> events = SampleRun();
  events.pop_back();  // its end
  for (uint32_t round = 2; round <= 6; ++round) {
    events.emplace_back(SampleOpened(round, 1));
    events.emplace_back(SampleUpdate(round, "weaver", 1, 300, "update of weaver"));
    events.emplace_back(SamplePublished(round, "merged"));
    events.emplace_back(UpdateLate{.round = {round}, .client = {"harbour"}});
    events.emplace_back(SampleEval(round, "weaver", 1.5, 300));
  }
  const std::string whole = MetricsPage(ViewOf(events), {}, {});
  EXPECT_TRUE(Has(whole, "weft_updates_accepted_total 7")) << whole;
  EXPECT_TRUE(Has(whole, "weft_updates_late_total 5")) << whole;
  RunFold fold;
  RunTotals older;
  for (const LedgerEvent& row : SampleLedger(events)) {
    ASSERT_TRUE(fold.Add(row).ok());
    for (const RoundRow& round : fold.TakeOlder(2)) older.Add(round);
    ASSERT_LE(fold.view().rounds.size(), 2U);
  }
  EXPECT_EQ(MetricsPage(fold.view(), older, {}), whole);
}

TEST(MetricsPageTest, NamesThatAPeerChoseStayInsideTheirQuotes) {
  RunView view;
  view.run = "a\"b\\c\nd";
  EXPECT_NE(MetricsPage(view, {}, {}).find("run=\"a\\\"b\\\\c d\""), std::string::npos);
}

TEST(HealthTest, ALoopThatStandsAndADiskThatIsFullAreNotWell) {
  EXPECT_TRUE(Health({.loop_age_s = 2}).ok());
  EXPECT_FALSE(Health({.loop_age_s = 11}).ok());
  EXPECT_FALSE(Health({.loop_age_s = 0, .paused = true}).ok());
}

TEST(MetricsServerTest, AnswersOverHttpAlsoBeforeThereIsALedger) {
  const testing::TempFolder folder;
  Pulse pulse;
  const auto server =
      MetricsServer::Start("127.0.0.1:0", folder.path(), [&pulse] { return pulse; });
  ASSERT_TRUE(server.ok()) << server.status();
  httplib::Client client((*server)->address());
  const auto metrics = client.Get("/metrics");
  ASSERT_TRUE(metrics);
  EXPECT_EQ(metrics->status, 200);
  EXPECT_TRUE(Has(metrics->body, "weft_version 0")) << metrics->body;
  EXPECT_EQ(client.Get("/healthz")->status, 200);
  pulse.loop_age_s = 60;
  EXPECT_EQ(client.Get("/healthz")->status, 503);
  EXPECT_EQ(client.Get("/run.db")->status, 404);
  EXPECT_EQ(client.Post("/metrics", "x", "text/plain")->status, 404);
}

TEST(MetricsServerTest, AddressesThatCannotBeHadAreRefused) {
  const testing::TempFolder folder;
  const auto start = [&](const std::string& bind) {
    return MetricsServer::Start(bind, folder.path(), [] { return Pulse(); }).status();
  };
  for (const char* bind : {"", "9464", ":9464", "127.0.0.1:", "127.0.0.1:70000", "127.0.0.1:-1"}) {
    EXPECT_EQ(start(bind).code(), Code::kInvalidArgument) << bind;
  }
  const auto first = MetricsServer::Start("127.0.0.1:0", folder.path(), [] { return Pulse(); });
  ASSERT_TRUE(first.ok());
  const Status taken = start((*first)->address().substr(7));
  EXPECT_EQ(taken.code(), Code::kUnavailable);
  EXPECT_NE(taken.message().find("in use"), std::string::npos) << taken;
}

}  // namespace
}  // namespace weft
