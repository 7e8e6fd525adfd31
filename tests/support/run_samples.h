#pragma once
// A short run's ledger for tests of what reads ledgers: two sites, one round that needs two
// attempts, evaluations, an end.

#include <string>
#include <utility>
#include <vector>

#include "common/crypto/digest.h"
#include "common/runtime/ledger.h"
#include "common/runtime/run_events.h"

namespace weft::testing {

inline RoundOpened SampleOpened(uint32_t round, uint32_t attempt) {
  RoundOpened opened;
  opened.plan.run = {"demo"};
  opened.plan.round = {round};
  opened.plan.version = {round - 1};
  opened.attempt = attempt;
  for (const auto& [name, rank] : {std::pair("harbour", 4), std::pair("weaver", 8)}) {
    ClientPlan plan;
    plan.client = {name};
    plan.adapter.rank = rank;
    opened.plan.cohort.push_back(plan);
  }
  return opened;
}

/// The payload's text is its content; the blob is "spool/CLIENT".
inline UpdateAccepted SampleUpdate(uint32_t round, const std::string& client, double loss,
                                   uint64_t tokens, const std::string& payload) {
  UpdateAccepted update;
  update.header.run = {"demo"};
  update.header.round = {round};
  update.header.version = {round - 1};
  update.header.client = {client};
  update.header.spec.rank = client == "harbour" ? 4 : 8;
  update.header.num_examples = 10;
  update.header.label_tokens = tokens;
  update.header.train_loss = loss;
  update.header.times = {.wait_s = 0.5, .download_s = 0.1, .train_s = 2};
  update.header.payload_bytes = payload.size();
  update.header.payload_sha256 = Sha256Hex(AsBytes(payload));
  update.blob = "spool/" + client;
  update.lora_bytes = client == "harbour" ? 68 : 170;
  update.update_norm = 1.5;
  update.admit_s = 0.01;
  update.upload_s = 0.2;
  update.bytes = payload.size();
  return update;
}

inline RoundPublished SamplePublished(uint32_t round, const std::string& state) {
  RoundPublished published;
  published.round = {round};
  published.version = {round};
  published.state = {"state/round-" + std::to_string(round), state.size(),
                     Sha256Hex(AsBytes(state))};
  published.adapter_sha256 = std::string(63, 'a') + std::to_string(round);
  published.certificate.error_published = 1e-9;
  published.merge_s = round == 0 ? 0 : 0.25;
  return published;
}

inline EvalReported SampleEval(uint32_t version, const std::string& client, double loss,
                               uint64_t tokens) {
  EvalReported reported;
  reported.report.run = {"demo"};
  reported.report.version = {version};
  reported.report.client = {client};
  reported.report.loss = loss;
  reported.report.label_tokens = tokens;
  reported.report.evaluate_s = 0.3;
  return reported;
}

inline std::vector<RunEvent> SampleRun() {
  RunStarted started;
  started.run = {"demo"};
  started.seed = 7;
  started.num_server_rounds = 1;
  started.strategy = "exact-svd";
  started.base_hash = std::string(64, 'b');
  started.software = "weft 0.1.0";
  MemberJoined harbour;
  harbour.client = {"harbour"};
  harbour.capabilities.device = "cpu";
  harbour.capabilities.num_examples = 100;
  harbour.rank = 4;
  MemberJoined weaver = harbour;
  weaver.client = {"weaver"};
  weaver.rank = 8;
  return {
      started,
      SamplePublished(0, "initial"),
      weaver,
      harbour,
      SampleEval(0, "harbour", 3, 100),
      SampleOpened(1, 1),
      BundleSent{.round = {1}, .client = {"harbour"}, .bytes = 1000, .download_s = 0.1},
      ClientDropped{.round = {1}, .client = {"weaver"}, .reason = "silent", .phase = "train"},
      MemberGone{.client = {"weaver"}, .reason = "silent for 20 s"},
      RoundMissed{.round = {1}, .attempt = 1, .reason = "1 of 2 updates at the deadline"},
      weaver,
      SampleOpened(1, 2),
      BundleSent{.round = {1}, .client = {"harbour"}, .bytes = 1000, .download_s = 0.1},
      BundleSent{.round = {1}, .client = {"weaver"}, .bytes = 2000, .download_s = 0.2},
      SampleUpdate(1, "harbour", 2, 100, "update of harbour"),
      SampleUpdate(1, "weaver", 1, 300, "update of weaver"),
      SamplePublished(1, "merged"),
      SampleEval(1, "harbour", 2.5, 100),
      SampleEval(1, "weaver", 1.5, 300),
      ServerEvaluated{.version = {1}, .loss = 1.8, .label_tokens = 50},
      BestRound{.version = {1}, .loss = 1.75, .by = "clients"},
      RunFinished{.state = kRunCompleted, .reason = ""},
  };
}

/// The events as ledger rows, a second apart from 2023-11-14 22:13:20 UTC.
inline std::vector<LedgerEvent> SampleLedger(const std::vector<RunEvent>& events) {
  LedgerTail tail;
  std::vector<LedgerEvent> rows;
  for (const RunEvent& event : events) {
    const int64_t second = 1'700'000'000 + static_cast<int64_t>(rows.size());
    rows.push_back(Chain(tail, ToDraft(event), second * 1'000'000));
  }
  return rows;
}

/// A version that a relay has from above.
inline RoundPublished SampleAdopted(uint32_t version, const std::string& state) {
  RoundPublished adopted = SamplePublished(version, state);
  adopted.certificate = {};
  adopted.adopted = true;
  return adopted;
}

/// What its members changed in that round, as one update.
inline UpdateForwarded SampleForwarded(uint32_t round, const std::string& payload) {
  UpdateForwarded forwarded;
  forwarded.round = {round};
  forwarded.file = {"forwarded/round-" + std::to_string(round), payload.size(),
                    Sha256Hex(AsBytes(payload))};
  forwarded.header.spec.rank = 28;
  forwarded.header.num_examples = 20;
  forwarded.error = 1e-7;
  forwarded.merge_s = 0.5;
  return forwarded;
}

}  // namespace weft::testing
