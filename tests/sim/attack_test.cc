// Hostile clients in whole federations: real training, real admission, real merges.

#include <cmath>
#include <fstream>
#include <map>

#include "tests/sim/small_federation.h"

namespace weft::sim {
namespace {

constexpr const char* kAttacks[] = {"sign-flip",  "gaussian", "alie",           "inner-product",
                                    "gauge-bomb", "overflow", "rank-inflation", "sybil"};

class AttackedFederation : public SmallFederation {
 protected:
  static Settings Attacked(const std::string& attack, int64_t attackers, double scale = 0) {
    Settings settings = Usual();
    settings.sim.clients = 5;
    settings.cohort.min_train_nodes = 5;
    settings.cohort.min_available_nodes = 5;
    settings.cohort.quorum = 0.5;
    settings.sim.attack = attack;
    settings.sim.attackers = attackers;
    settings.sim.attack_scale = scale;
    return settings;
  }
  static Settings EqualRanks(Settings settings) {
    settings.sim.ranks = {4};
    return settings;
  }
  // By client, the reason; of one round.
  static std::map<std::string, std::string> Refused(const RoundRow& round) {
    std::map<std::string, std::string> refused;
    for (const ClientRow& client : round.clients) {
      if (client.state == "refused") refused[client.client] = client.reason;
    }
    return refused;
  }
};

TEST_F(AttackedFederation, NoAttackersIsNoAttackBitForBit) {
  const std::vector<std::string> clean = Hashes(Attacked("none", 0));
  for (const char* attack : kAttacks) EXPECT_EQ(Hashes(Attacked(attack, 0)), clean) << attack;
}

TEST_F(AttackedFederation, EveryAttackChangesTheResultButAGaugeDoesNot) {
  const Result<SimulationReport> clean = Run(Attacked("none", 0));
  ASSERT_TRUE(clean.ok()) << clean.status();
  for (const char* attack : {"sign-flip", "gaussian", "alie", "inner-product", "sybil"}) {
    const Result<SimulationReport> report = Run(Attacked(attack, 2, 2));
    ASSERT_TRUE(report.ok()) << attack << report.status();
    EXPECT_NE(report->adapter_sha256.back(), clean->adapter_sha256.back()) << attack;
    EXPECT_EQ(report->adapter_sha256.front(), clean->adapter_sha256.front()) << attack;
    EXPECT_EQ(report->attackers, (std::vector<std::string>{"client-3", "client-4"})) << attack;
  }
  const Result<SimulationReport> gauge = Run(Attacked("gauge-bomb", 2));
  ASSERT_TRUE(gauge.ok()) << gauge.status();
  EXPECT_NEAR(gauge->eval_loss.back(), clean->eval_loss.back(), 1e-4) << "the product is the same";
}

TEST_F(AttackedFederation, TheSameBitsWithOneWorkerAndWithFour) {
  for (const char* attack : {"sign-flip", "gaussian", "alie", "inner-product", "sybil"}) {
    Settings settings = Attacked(attack, 2, 2);
    const std::vector<std::string> one = Hashes(settings);
    settings.sim.workers = 4;
    EXPECT_EQ(Hashes(settings), one) << attack;
  }
}

TEST_F(AttackedFederation, TheSameBitsOverQueuesInRealTime) {
  Settings settings = Attacked("inner-product", 2);
  const std::vector<std::string> in_virtual_time = Hashes(settings);
  settings.sim.world = "inproc";
  settings.sim.workers = 2;
  EXPECT_EQ(Hashes(settings), in_virtual_time);
}

// The harness has power: two of five undo what the others learn under a plain mean.
TEST_F(AttackedFederation, ASignFlipUnderAPlainMeanDestroysTheLoss) {
  const Result<SimulationReport> clean = Run(Attacked("none", 0));
  const Result<SimulationReport> flipped = Run(Attacked("sign-flip", 2));
  ASSERT_TRUE(clean.ok() && flipped.ok()) << clean.status() << flipped.status();
  EXPECT_LT(clean->eval_loss.back(), clean->eval_loss.front());
  EXPECT_GT(flipped->eval_loss.back(), flipped->eval_loss.front() + 0.1);
}

TEST_F(AttackedFederation, ANormBoundRefusesTheScaledOnesAndTheRoundsGoOn) {
  const Result<SimulationReport> clean = Run(Attacked("none", 0));
  ASSERT_TRUE(clean.ok()) << clean.status();
  double largest = 0;
  for (const RoundRow& round : clean->run.rounds) {
    for (const ClientRow& client : round.clients) {
      largest = std::max(largest, client.update_norm.value_or(0));
    }
  }
  ASSERT_GT(largest, 0);
  Settings bounded = Attacked("sign-flip", 2, 100);
  bounded.cohort.update_norm_max = 2 * largest;
  const Result<SimulationReport> report = Run(bounded);
  ASSERT_TRUE(report.ok()) << report.status();
  for (const RoundRow& round : report->run.rounds) {
    if (round.round == 0) continue;
    EXPECT_EQ(round.accepted, 3u);
    const auto refused = Refused(round);
    EXPECT_EQ(refused.size(), 2u);
    EXPECT_TRUE(refused.count("client-3") && refused.count("client-4"));
  }
  EXPECT_LT(report->eval_loss.back(), report->eval_loss.front());
}

TEST_F(AttackedFederation, AnInflatedRankIsRefusedByItsHeaderOrByItsPayloadAndTheRoundsGoOn) {
  const Result<SimulationReport> report = Run(Attacked("rank-inflation", 2));
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->run.state, "finished:completed");
  EXPECT_EQ(report->attack_scale, 2);
  for (const RoundRow& round : report->run.rounds) {
    if (round.round == 0) continue;
    EXPECT_EQ(round.attempts, 1u);
    EXPECT_EQ(round.accepted, 3u);
    EXPECT_EQ(round.refused, 2u);
    const auto refused = Refused(round);
    ASSERT_EQ(refused.size(), 2u);
    EXPECT_NE(refused.at("client-3").find("adapter rank is 4"), std::string::npos)
        << "it claims twice its rank: " << refused.at("client-3");
    EXPECT_NE(refused.at("client-4").find("[admission]"), std::string::npos)
        << "its payload is larger than planned: " << refused.at("client-4");
  }
  EXPECT_LT(report->eval_loss.back(), report->eval_loss.front());
}

TEST_F(AttackedFederation, AProductThatNoNumberHoldsIsRefusedAndTheRoundsGoOn) {
  const Result<SimulationReport> report = Run(Attacked("overflow", 2));
  ASSERT_TRUE(report.ok()) << report.status();
  for (const RoundRow& round : report->run.rounds) {
    if (round.round == 0) continue;
    const auto refused = Refused(round);
    ASSERT_EQ(refused.size(), 2u);
    EXPECT_NE(refused.at("client-3").find("norm is no number"), std::string::npos)
        << refused.at("client-3");
  }
}

TEST_F(AttackedFederation, SybilsShipOneUpdate) {
  Settings settings = EqualRanks(Attacked("sybil", 3));
  settings.run.num_server_rounds = 1;
  const Result<SimulationReport> report = Run(settings);
  ASSERT_TRUE(report.ok()) << report.status();
  const std::vector<ClientRow>& clients = report->run.rounds.at(1).clients;
  ASSERT_EQ(clients.size(), 5u);
  ASSERT_TRUE(clients[2].update_norm && clients[3].update_norm && clients[1].update_norm);
  EXPECT_EQ(*clients[2].update_norm, *clients[3].update_norm);
  EXPECT_EQ(*clients[2].update_norm, *clients[4].update_norm);
  EXPECT_NE(*clients[1].update_norm, *clients[2].update_norm);
}

TEST_F(AttackedFederation, SettingsThatCannotBeMeantAreRefusedAtTheStart) {
  const auto refusal = [](const Settings& settings) {
    const Result<SimulationReport> report = Run(settings);
    EXPECT_EQ(report.status().code(), Code::kInvalidArgument) << report.status();
    return report.status().message();
  };
  EXPECT_NE(refusal(Attacked("sign-flip", 5)).find("fewer than the 5"), std::string::npos);
  EXPECT_NE(refusal(Attacked("none", 2)).find("sim.attack"), std::string::npos);
  EXPECT_NE(refusal(Attacked("alie", 3)).find("attack-scale"), std::string::npos);
  EXPECT_NE(refusal(Attacked("rank-inflation", 2, 1.5)).find("whole number"), std::string::npos);
  Settings everybody = Attacked("rank-inflation", 2);
  everybody.cohort.quorum = 1;
  EXPECT_NE(refusal(everybody).find("set cohort.quorum to 0.6"), std::string::npos);
  Settings nola = Attacked("sign-flip", 2);
  nola.sim.methods = {"lora", "nola"};
  EXPECT_NE(refusal(nola).find("trains nola"), std::string::npos);
}

}  // namespace
}  // namespace weft::sim
