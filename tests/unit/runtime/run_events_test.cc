#include "common/runtime/run_events.h"

#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "common/runtime/ledger.h"

namespace weft {
namespace {

std::vector<RunEvent> OneOfEach() {
  RoundPlan plan;
  plan.run = {"demo"};
  plan.round = {2};
  plan.cohort = {{.client = {"a"}, .adapter = {}}};
  UpdateHeader header;
  header.client = {"a"};
  header.train_loss = 0.1;
  Certificate certificate;
  certificate.error_published = 1e-9;
  certificate.sites = {{"layers.0.q_proj", 0, 1e-9, 0, 1.5, 4}};
  RunStarted started;
  started.run = {"demo"};
  started.seed = 1ULL << 63;
  started.adapter.rank = 4;
  MemberJoined joined;
  joined.client = {"a"};
  joined.capabilities.rank_max = 16;
  RoundPublished published;
  published.round = {2};
  published.state = {"state/2", 10, "aa"};
  published.certificate = certificate;
  published.peft_files = {{"adapters/x", 1, "bb"}};
  published.kernels = {"2.13.0", "AVX2", 3};
  published.updates_kept = true;
  published.adopted = true;
  const UpdateForwarded forwarded{.round = {2},
                                  .file = {"forwarded/round-0002", 10, "aa"},
                                  .header = header,
                                  .bundle_sha256 = "bb",
                                  .error = 1e-7,
                                  .merge_s = 0.25};
  PosteriorFitted fitted;
  fitted.round = {3};
  fitted.version = {2};
  fitted.file = {"posterior/round-0002.safetensors", 10, "aa"};
  fitted.precision = 2.5;
  fitted.log_likelihood = -1.5;
  fitted.clients = {{"a"}, {"b"}};
  return {
      started,
      RunResumed{.round = {3}, .software = "weft", .settings_toml = "[run]\n"},
      joined,
      MemberGone{.client = {"a"}, .reason = "silent"},
      RoundOpened{.plan = plan, .attempt = 2, .bundles = {{{"a"}, "ff", 99}}},
      BundleSent{.round = {2}, .client = {"a"}, .bytes = 5, .download_s = 0.5},
      UpdateAccepted{.header = header, .blob = "spool/a", .update_norm = 2, .bytes = 9},
      UpdateLost{.round = {2}, .client = {"a"}, .blob = "spool/a"},
      UpdateRefused{.round = {2}, .client = {"a"}, .code = "data-loss", .reason = "NaN"},
      UpdateLate{.round = {2}, .client = {"a"}},
      ClientDropped{.round = {2}, .client = {"a"}, .reason = "gone", .phase = "train"},
      published,
      forwarded,
      fitted,
      RoundMissed{.round = {2}, .attempt = 1, .reason = "quorum"},
      EvalReported{.report = {.run = {}, .version = {}, .client = {"a"}, .loss = 1.5}},
      ServerEvaluated{
          .version = {2}, .loss = 1.25, .label_tokens = 8, .metrics = {{"accuracy", 0.75}}},
      BestRound{.version = {2}, .loss = 1.25, .by = "server"},
      BlobsRemoved{.blobs = {"state/1"}, .reason = "keep 2"},
      RunFinished{.state = kRunCompleted, .reason = ""},
  };
}

TEST(RunEventsTest, EveryKindRoundTripsThroughTheLedger) {
  const std::vector<RunEvent> events = OneOfEach();
  ASSERT_EQ(events.size() + 1, std::variant_size_v<RunEvent>) << "a kind is missing above";
  LedgerTail tail;
  std::set<std::string> kinds;
  for (const RunEvent& event : events) {
    const EventDraft draft = ToDraft(event);
    kinds.insert(draft.kind);
    const Result<RunEvent> again = FromEvent(Chain(tail, draft, 0));
    ASSERT_TRUE(again.ok()) << again.status() << "\n" << draft.body;
    EXPECT_EQ(*again, event) << draft.body;
  }
  EXPECT_EQ(kinds.size(), events.size()) << "two kinds share a name";
}

TEST(RunEventsTest, AKindFromANewerVersionIsReadAsUnknown) {
  const Result<RunEvent> event = FromEvent(LedgerEvent{1, 0, "from-the-future", "{}", ""});
  ASSERT_TRUE(event.ok());
  EXPECT_TRUE(std::holds_alternative<std::monostate>(*event));
}

TEST(RunEventsTest, ABodyThatDoesNotFitItsKindNamesRowKindAndField) {
  const Status status = FromEvent(LedgerEvent{12, 0, "update-late", R"({"round":1})", ""}).status();
  EXPECT_EQ(status.code(), Code::kDataLoss);
  EXPECT_NE(status.message().find("row 12 update-late: [json] client: missing"), std::string::npos)
      << status;
}

TEST(RunEventsTest, TheTypedReaderRefusesAnotherKind) {
  const LedgerEvent event{1, 0, "member-gone", R"({"client":"a","reason":"r"})", ""};
  EXPECT_EQ(FromEvent<MemberGone>(event)->client.name, "a");
  EXPECT_EQ(FromEvent<MemberJoined>(event).status().code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace weft
