#include "common/log/log.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/post_queue.h"

namespace weft::log {
namespace {

struct Capture {
  std::shared_ptr<MemorySink> sink = std::make_shared<MemorySink>();
  int64_t now = 1'000'000;
  Logger logger{"aggregator", sink, [this] { return now; }};
};

TEST(LogTest, ALineCarriesTheCallersTimeNameAndFields) {
  Capture c;
  c.logger.Info("round closed", {{"round", 3}, {"bytes", uint64_t{12}}, {"loss", 0.5}});
  c.now += 5;
  c.logger.Warn("late");
  EXPECT_EQ(c.sink->Text(),
            "1000000 info [aggregator] round closed round=3 bytes=12 loss=0.5\n"
            "1000005 warn [aggregator] late\n");
}

TEST(LogTest, ValuesThatWouldBlurTheLineAreQuoted) {
  Capture c;
  c.logger.Error("x", {{"a", "two words"}, {"b", ""}, {"c", "k=v"}, {"d", "q\"\\\n"}});
  EXPECT_EQ(c.sink->Text(),
            "1000000 error [aggregator] x a=\"two words\" b=\"\" c=\"k=v\" d=\"q\\\"\\\\\\n\"\n");
}

TEST(LogTest, AFieldCannotForgeAnotherLine) {
  Capture c;
  c.logger.Info("x", {{"reason", "a\r\n9 info [aggregator] forged\x1b[2J"}});
  const std::string text = c.sink->Text();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
  EXPECT_EQ(text.find('\x1b'), std::string::npos) << "no terminal escapes from a peer's text";
  EXPECT_EQ(text.find('\r'), std::string::npos);
}

TEST(LogTest, LinesBelowTheLevelAreLeftOut) {
  Capture c;
  const Logger quiet(
      "n", c.sink, [] { return int64_t{0}; }, Level::kError);
  quiet.Debug("d");
  quiet.Info("i");
  quiet.Warn("w");
  quiet.Error("e");
  EXPECT_EQ(c.sink->Text(), "0 error [n] e\n");
  const Logger off(
      "n", c.sink, [] { return int64_t{0}; }, Level::kOff);
  off.Error("never");
  EXPECT_EQ(c.sink->Text(), "0 error [n] e\n");
}

TEST(LogTest, LevelsAreReadByName) {
  EXPECT_EQ(LevelFromName("debug"), Level::kDebug);
  EXPECT_EQ(LevelFromName("off"), Level::kOff);
  EXPECT_EQ(LevelFromName("loud"), Level::kInfo);
}

TEST(LogTest, LinesOfManyThreadsStayWhole) {
  Capture c;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&c] {
      for (int i = 0; i < 100; ++i) c.logger.Info("a line", {{"i", i}});
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::string text = c.sink->Text();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 400);
  EXPECT_EQ(text.find("a line"), std::string("1000000 info [aggregator] ").size());
}

TEST(LogTest, TheFileSinkStampsWithTheCallersTime) {
  const testing::ScratchFolder scratch;
  const std::string file = (scratch.path() / "log").string();
  const Logger logger("client-a", StderrSink(file), [] { return int64_t{1'700'000'000'123'000}; });
  logger.Info("hello", {{"k", 1}});
  std::ifstream in(file);
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  EXPECT_NE(text.find("2023-11-"), std::string::npos) << text;
  EXPECT_NE(text.find(".123"), std::string::npos) << text;
  EXPECT_NE(text.find("info  [client-a] hello k=1"), std::string::npos) << text;
}

}  // namespace
}  // namespace weft::log
