// Random ledgers folded into a view: counts, bytes and losses are what adding up the events gives,
// and a view folded in pieces is the view folded at once.

#include <map>
#include <optional>

#include <gtest/gtest.h>

#include "common/base/random.h"
#include "common/base/str.h"
#include "common/runtime/run_view.h"
#include "tests/support/run_samples.h"

namespace weft {
namespace {

using namespace testing;  // NOLINT: the samples

constexpr const char* kClients[] = {"alpha", "beta", "gamma"};

// A plausible run: rounds with attempts, outcomes and evaluations in any order and number.
std::vector<RunEvent> RandomRun(RandomStream& random) {
  std::vector<RunEvent> events = {RunStarted{}, SamplePublished(0, "initial")};
  const auto client = [&] { return std::string(kClients[random.Below(3)]); };
  for (uint32_t round = 1; round <= 3; ++round) {
    const uint64_t attempts = 1 + random.Below(2);
    for (uint32_t attempt = 1; attempt <= attempts; ++attempt) {
      RoundOpened opened = SampleOpened(round, attempt);
      opened.plan.cohort.clear();
      for (const char* name : kClients) opened.plan.cohort.push_back({ClientId{name}, {}});
      events.emplace_back(opened);
      for (uint64_t n = random.Below(10); n > 0; --n) {
        switch (random.Below(7)) {
          case 0:
            events.emplace_back(BundleSent{{round}, {client()}, random.Below(1000), 0.1});
            break;
          case 1:
          case 2:
            events.emplace_back(SampleUpdate(round, client(), static_cast<double>(random.Below(9)),
                                             random.Below(100), "payload"));
            break;
          case 3:
            events.emplace_back(UpdateRefused{{round}, {client()}, "data-loss", "NaN"});
            break;
          case 4:
            events.emplace_back(UpdateLate{{round}, {client()}});
            break;
          case 5: {
            const std::string name = client();
            events.emplace_back(UpdateLost{{round}, {name}, "spool/" + name});
            break;
          }
          default:
            events.emplace_back(ClientDropped{{round}, {client()}, "silent", "train"});
        }
      }
      if (attempt < attempts) events.emplace_back(RoundMissed{{round}, attempt, "quorum"});
    }
    events.emplace_back(SamplePublished(round, Str("state ", round)));
    for (uint64_t n = random.Below(4); n > 0; --n) {
      events.emplace_back(
          SampleEval(round, client(), static_cast<double>(random.Below(5)), 1 + random.Below(50)));
    }
  }
  return events;
}

class RunViewModelTest : public ::testing::TestWithParam<uint64_t> {
 protected:
  RandomStream random_{GetParam()};
  std::vector<RunEvent> events_ = RandomRun(random_);
  std::vector<LedgerEvent> rows_ = SampleLedger(events_);
};

TEST_P(RunViewModelTest, BytesAndOutcomesAddUpToWhatTheEventsSay) {
  RunFold fold;
  for (const LedgerEvent& row : rows_) ASSERT_TRUE(fold.Add(row).ok());
  // The model: bytes of all attempts, the last attempt's outcomes; accepted is final until lost.
  std::map<uint32_t, std::map<std::string, std::string>> outcome;
  std::map<uint32_t, uint64_t> down, up;
  for (const RunEvent& event : events_) {
    if (const auto* opened = std::get_if<RoundOpened>(&event))
      outcome[opened->plan.round.number].clear();
    if (const auto* sent = std::get_if<BundleSent>(&event)) down[sent->round.number] += sent->bytes;
    if (const auto* update = std::get_if<UpdateAccepted>(&event)) {
      up[update->header.round.number] += update->bytes;
      outcome[update->header.round.number][update->header.client.name] = "accepted";
    }
    if (const auto* lost = std::get_if<UpdateLost>(&event))
      outcome[lost->round.number][lost->client.name].clear();
    const auto note = [&](RoundId round, const ClientId& client, const char* word) {
      std::string& now = outcome[round.number][client.name];
      if (now != "accepted") now = word;
    };
    if (const auto* refused = std::get_if<UpdateRefused>(&event))
      note(refused->round, refused->client, "refused");
    if (const auto* late = std::get_if<UpdateLate>(&event)) note(late->round, late->client, "late");
    if (const auto* dropped = std::get_if<ClientDropped>(&event))
      note(dropped->round, dropped->client, "dropped");
  }
  for (const RoundRow& round : fold.view().rounds) {
    if (round.round == 0) continue;
    EXPECT_EQ(round.BytesDown(), down[round.round]) << round.round;
    EXPECT_EQ(round.BytesUp(), up[round.round]) << round.round;
    std::map<std::string, uint64_t> counted;
    for (const auto& [client, word] : outcome[round.round]) ++counted[word];
    EXPECT_EQ(round.accepted, counted["accepted"]);
    EXPECT_EQ(round.refused, counted["refused"]);
    EXPECT_EQ(round.late, counted["late"]);
    EXPECT_EQ(round.dropped, counted["dropped"]);
    EXPECT_EQ(round.cohort, 3u);
    EXPECT_EQ(round.state, "published");
    for (size_t i = 1; i < round.clients.size(); ++i) {
      EXPECT_LT(round.clients[i - 1].client, round.clients[i].client);
    }
  }
}

TEST_P(RunViewModelTest, EvaluationsAreWeighedByTheirTokens) {
  RunFold fold;
  for (const LedgerEvent& row : rows_) ASSERT_TRUE(fold.Add(row).ok());
  for (const RoundRow& round : fold.view().rounds) {
    std::map<std::string, std::pair<double, double>>
        last;  // client → loss, tokens: the newest counts
    for (const RunEvent& event : events_) {
      const auto* eval = std::get_if<EvalReported>(&event);
      if (eval == nullptr || eval->report.version.number != round.round) continue;
      last[eval->report.client.name] = {eval->report.loss,
                                        static_cast<double>(eval->report.label_tokens)};
    }
    EXPECT_EQ(round.evaluators, last.size());
    EXPECT_EQ(round.clients_loss.has_value(), !last.empty());
    if (last.empty()) continue;
    double sum = 0, weight = 0;
    for (const auto& [client, entry] : last) {
      sum += entry.first * entry.second;
      weight += entry.second;
    }
    EXPECT_DOUBLE_EQ(*round.clients_loss, sum / weight);
  }
}

TEST_P(RunViewModelTest, AStateIsAlwaysOneOfTheWordsThatUsersKnow) {
  RunFold fold;
  const std::set<std::string> runs = {"pending", "starting", "running"};
  const std::set<std::string> rounds = {"", "open", "published", "failed"};
  const std::set<std::string> clients = {"asked",   "training",  "accepted", "refused", "late",
                                         "dropped", "evaluated", "carried",  ""};
  for (const LedgerEvent& row : rows_) {
    ASSERT_TRUE(fold.Add(row).ok());
    EXPECT_TRUE(runs.contains(fold.view().state)) << fold.view().state;
    for (const RoundRow& round : fold.view().rounds) {
      EXPECT_TRUE(rounds.contains(round.state)) << round.state;
      for (const ClientRow& client : round.clients)
        EXPECT_TRUE(clients.contains(client.state)) << client.state;
    }
  }
  EXPECT_EQ(fold.view().events, rows_.size());
  EXPECT_EQ(fold.view().last_us, rows_.back().wall_us);
}

INSTANTIATE_TEST_SUITE_P(Seeds, RunViewModelTest, ::testing::Range(uint64_t{1}, uint64_t{13}));

}  // namespace
}  // namespace weft
