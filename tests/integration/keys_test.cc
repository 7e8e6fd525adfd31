// Who may join, over real processes: keys, allow-list, base model; and what stops an aggregator
// from starting.

#include "common/net/keys.h"

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "common/base/str.h"
#include "common/net/event_loop.h"
#include "common/net/zmq_client.h"
#include "tests/integration/federation.h"

namespace weft::testing {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// A client of the federation that ends by itself, with more arguments.
Ran RunClient(Federation& federation, const std::string& site,
              const std::vector<std::string>& more) {
  std::vector<std::string> arguments = federation.ClientArguments(site);
  arguments.insert(arguments.end(), more.begin(), more.end());
  return Execute("weft-client", arguments);
}

/// The aggregator is unharmed and knows nobody.
void ExpectNobodyJoined(Process& aggregator) {
  aggregator.Signal(SIGTERM);
  EXPECT_EQ(aggregator.Wait(), 4) << aggregator.log();
  EXPECT_EQ(aggregator.log().find("client joined"), std::string::npos) << aggregator.log();
}

TEST(KeysTest, AWrongServerKeyIsToldFromAWrongKeyOfTheSite) {
  Federation federation;
  const auto aggregator = federation.Aggregator();
  const std::string other = NewKeyPair().value().public_key;
  EXPECT_TRUE(Refused(RunClient(federation, "weaver", {"--server-key", other}),
                      {"the server key this site was given is not the aggregator's"}, 3));
  ExpectNobodyJoined(*aggregator);
}

TEST(KeysTest, AKeyThatIsNotOnTheAllowListIsRefusedAndBothSidesSaySo) {
  Federation federation;
  const auto aggregator = federation.Aggregator();
  const KeyPair stranger = NewKeyPair().value();
  ASSERT_TRUE(WriteKeyPair(stranger, federation.File("stranger")).ok());
  EXPECT_TRUE(
      Refused(RunClient(federation, "weaver", {"--key", federation.File("stranger.secret")}),
              {"refused this site's key", "allow-list", "weft keys allow"}, 3));
  EXPECT_TRUE(aggregator->WaitForLine(
      {"connection refused", "allow-list", stranger.public_key.substr(0, 8)}))
      << aggregator->log();
  ExpectNobodyJoined(*aggregator);
}

TEST(KeysTest, ASecretKeyThatOthersCanReadIsRefusedWithTheFix) {
  Federation federation;
  const auto aggregator = federation.Aggregator();
  namespace fs = std::filesystem;
  const fs::path secret = federation.File("weaver.secret");
  fs::permissions(secret, fs::perms::others_read, fs::perm_options::add);
  EXPECT_TRUE(Refused(RunClient(federation, "weaver", {}), {secret.string(), "chmod 600"}, 1));
  ExpectNobodyJoined(*aggregator);
}

/// Seconds until a link with this key stands; -1 if it does not within 10.
double SecondsUntilLinked(const Federation& federation, const std::string& site) {
  const Clock::time_point start = Clock::now();
  EventLoop loop;
  ZmqClient::Options options;
  options.endpoint = federation.endpoint();
  options.keys = LoadSecretKey(federation.File(site + ".secret")).value();
  options.server_key = federation.settings().server.public_key;
  options.reconnect_max = Seconds(0.2);
  const auto link = ZmqClient::Connect(loop, std::move(options)).value();
  bool late = false;
  loop.At(loop.Now() + Seconds(10), [&late] { late = true; });
  loop.RunUntil([&] { return late || link->connected(); });
  return link->connected() ? SecondsSince(start) : -1;
}

TEST(KeysTest, ARevokedClientIsCutAndAnAllowedOneLetInWithinFiveSeconds) {
  Federation federation;
  // Held in the first chunk of its first update until it is cut, so that the run cannot be over
  // too soon.
  federation.link("weaver").StallAfter(50'000);
  Everybody everybody(federation);
  ASSERT_TRUE(federation.link("weaver").WaitUntilReached()) << everybody.Logs();
  const std::vector<std::string> list = {"-f", federation.File("allow.txt")};

  ASSERT_TRUE(Succeeded(Execute("weft", {"keys", "revoke", "weaver", list[0], list[1]})));
  const Clock::time_point revoked = Clock::now();
  ASSERT_TRUE(
      everybody.aggregator->WaitForLine({"client gone", "client=weaver", "its key was revoked"}))
      << everybody.Logs();
  EXPECT_LT(SecondsSince(revoked), 5);
  federation.link("weaver").Resume();
  EXPECT_EQ(everybody.clients["weaver"]->Wait(), 3) << everybody.Logs();
  EXPECT_NE(everybody.clients["weaver"]->log().find("or was revoked"), std::string::npos);

  ASSERT_TRUE(Succeeded(Execute(
      "weft", {"keys", "allow", federation.File("weaver.public"), "weaver", list[0], list[1]})));
  const double waited = SecondsUntilLinked(federation, "weaver");
  EXPECT_GE(waited, 0);
  EXPECT_LT(waited, 5);
  everybody.clients["weaver"] = federation.Client("weaver");
  everybody.ExpectCompleted();
  EXPECT_EQ(federation.Hashes(), federation.SimulatedHashes()) << everybody.Logs();
}

/// A copy of the base model with one weight's lowest bit turned.
std::filesystem::path AlmostTheSameModel(const Federation& federation) {
  const std::filesystem::path copy = federation.File("almost");
  std::filesystem::create_directories(copy);
  for (const char* name :
       {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}) {
    std::filesystem::copy_file(std::filesystem::path(federation.settings().model.path) / name,
                               copy / name);
  }
  std::fstream weights(copy / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
  weights.seekg(-4, std::ios::end);
  const auto byte = static_cast<char>(weights.get() ^ 1);
  weights.seekp(-4, std::ios::end);
  weights.put(byte);
  return copy;
}

TEST(KeysTest, AClientWithAnotherBaseModelIsRefusedWithBothHashes) {
  Federation federation;
  const auto aggregator = federation.Aggregator();
  EXPECT_TRUE(
      Refused(RunClient(federation, "weaver", {"--model", AlmostTheSameModel(federation).string()}),
              {"base model: got hash", "wanted", "point [model] path at the run's base model"}, 3));
  EXPECT_TRUE(aggregator->WaitForLine({"client refused", "client=weaver", "base model: got hash"}));
  ExpectNobodyJoined(*aggregator);
}

TEST(KeysTest, ARunIsNotGoneOnWithOnAnotherBaseModel) {
  Federation federation;
  Everybody everybody(federation);
  ASSERT_TRUE(everybody.aggregator->WaitForLine({"round opened", "round=2"})) << everybody.Logs();
  everybody.aggregator->Signal(SIGKILL);
  EXPECT_EQ(everybody.aggregator->Wait(), -SIGKILL);
  EXPECT_TRUE(Refused(
      Execute("weft-aggregator", {federation.File("run.toml"), "--set",
                                  Str("model.path=", AlmostTheSameModel(federation).string())}),
      {"the folder holds run quick with base model", "use another run.dir"}));
}

TEST(StartTest, TwoAggregatorsOnOneFolderAreOneTooMany) {
  Federation federation;
  const auto first = federation.Aggregator();
  EXPECT_TRUE(Refused(Execute("weft-aggregator", {federation.File("run.toml")}),
                      {federation.run_folder().string(), "process"}));
  ExpectNobodyJoined(*first);
}

TEST(StartTest, APortInUseIsNamed) {
  Federation federation;
  const TcpForwarder holder;
  EXPECT_TRUE(Refused(Execute("weft-aggregator", {federation.File("run.toml"), "--set",
                                                  Str("server.bind=", holder.endpoint())}),
                      {holder.endpoint(), "is in use", "server.bind"}));
}

TEST(StartTest, TwoClientsOnOneStateFolderAreOneTooMany) {
  Federation federation;
  const auto aggregator = federation.Aggregator();
  const auto first = federation.Client("weaver");
  ASSERT_TRUE(first->WaitForLine({"joined"})) << first->log();
  EXPECT_TRUE(
      Refused(RunClient(federation, "weaver", {}), {federation.File("client-weaver"), "process"}));
}

}  // namespace
}  // namespace weft::testing
