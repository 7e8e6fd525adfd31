#include "common/log/log.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "common/base/random.h"
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

// U+009B is ESC [ in one character: some terminals obey it. In UTF-8 it is C2 9B.
TEST(LogTest, ControlCharactersBeyondAsciiDoNotReachTheTerminalEither) {
  Capture c;
  c.logger.Info("x", {{"a",
                       "\xC2\x9B"
                       "2J"},
                      {"b", "\xC2\x80\xC2\x9F"},
                      {"c", "\xC2\xA0é日\xC3\x9B"},
                      {"d", "\xC2"},
                      {"e", "\x7F"}});
  EXPECT_EQ(c.sink->Text(),
            "1000000 info [aggregator] x a=\"\\xc2\\x9b2J\" b=\"\\xc2\\x80\\xc2\\x9f\" "
            "c=\xC2\xA0é日\xC3\x9B d=\xC2 e=\"\\x7f\"\n");
}

// Whatever a value holds, the line can be taken apart again: one line, its fields in their order.
TEST(LogTest, AnyValueLeavesALineThatCanBeTakenApart) {
  RandomStream random(3);
  for (int turn = 0; turn < 500; ++turn) {
    std::string value;
    for (uint64_t n = random.Below(20); n > 0; --n) value += static_cast<char>(random.Below(256));
    Capture c;
    c.logger.Info("t", {{"a", value}, {"b", 7}});
    const std::string text = c.sink->Text();
    ASSERT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << turn;
    ASSERT_TRUE(text.ends_with(" b=7\n")) << text;
    for (const char byte : text.substr(0, text.size() - 1)) {
      ASSERT_TRUE(static_cast<unsigned char>(byte) >= 0x20 && byte != 0x7F) << turn;
    }
    // Quoted, it ends at the first quote that is not escaped.
    const std::string rest = text.substr(text.find(" a=") + 3);
    if (rest[0] != '"') continue;
    size_t end = 1;
    while (rest[end] != '"') end += rest[end] == '\\' ? 2 : 1;
    ASSERT_EQ(rest.substr(end), "\" b=7\n") << text;
  }
}

TEST(LogTest, EachMethodWritesItsLevelAndALoggerKnowsItsName) {
  Capture c;
  const Logger all(
      "client-c07", c.sink, [] { return int64_t{5}; }, Level::kDebug);
  all.Debug("d");
  all.Info("i");
  all.Warn("w");
  all.Error("e");
  EXPECT_EQ(all.name(), "client-c07");
  EXPECT_EQ(c.sink->Text(),
            "5 debug [client-c07] d\n5 info [client-c07] i\n"
            "5 warn [client-c07] w\n5 error [client-c07] e\n");
}

TEST(LogTest, EveryLevelHasItsName) {
  const std::pair<const char*, Level> names[] = {{"debug", Level::kDebug},
                                                 {"info", Level::kInfo},
                                                 {"warn", Level::kWarn},
                                                 {"error", Level::kError},
                                                 {"off", Level::kOff}};
  for (const auto& [name, level] : names) EXPECT_EQ(LevelFromName(name), level);
  for (const char* odd : {"", "DEBUG", "warning", "off "}) {
    EXPECT_EQ(LevelFromName(odd), Level::kInfo) << odd;
  }
}

TEST(LogTest, TheFileSinkHasEveryLevelAndAppends) {
  const testing::ScratchFolder scratch;
  const std::string file = (scratch.path() / "log").string();
  for (int start = 0; start < 2; ++start) {
    const Logger logger(
        "n", StderrSink(file), [] { return int64_t{0}; }, Level::kDebug);
    logger.Debug("a debug line");
    logger.Warn("a warning");
    logger.Error("an error");
  }
  std::ifstream in(file);
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 6) << "a restart keeps the lines before it";
  for (const char* part : {"debug [n] a debug line", "warn", "error"}) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  }
  EXPECT_EQ(text.find('\x1b'), std::string::npos) << "no colours in a file";
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
