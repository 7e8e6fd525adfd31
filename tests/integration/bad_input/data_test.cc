// Rows that are no rows: a user is told file, line, what stood there and what was wanted; what is
// only too long is cut or dropped by the stated rule and counted.

#include <cstdlib>

#include <gtest/gtest.h>
#include <sys/wait.h>

#include "tests/integration/bad_input/damaged_model.h"

namespace weft::testing {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kGood = "{\"prompt\":\"a pump\",\"completion\":\"is old\"}\n";

std::string Row(const std::string& prompt, const std::string& completion) {
  return Json{{"prompt", prompt}, {"completion", completion}}.dump() + "\n";
}

std::string Repeated(const std::string& word, int times) {
  std::string text;
  for (int i = 0; i < times; ++i) text += word + " ";
  return text;
}

class BadDataTest : public ::testing::Test {
 protected:
  [[nodiscard]] std::string rows() const { return (temp_.path() / "rows.jsonl").string(); }
  [[nodiscard]] Ran Eval(const std::string& content,
                         const std::vector<std::string>& more = {}) const {
    temp_.Write("rows.jsonl", content);
    std::vector<std::string> arguments = {
        "eval", "--model", kTinyModel.string(), "--data", rows(), "--threads", "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Execute("weft", arguments);
  }
  [[nodiscard]] Ran Train(const std::string& content, const std::vector<std::string>& more = {},
                          const char* steps = "1") const {
    temp_.Write("rows.jsonl", content);
    std::vector<std::string> arguments = {
        "train",   "--model", kTinyModel.string(), "--data", rows(), "--out", out(),
        "--steps", steps,     "--threads",         "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Execute("weft", arguments);
  }
  [[nodiscard]] std::string out() const { return (temp_.path() / "out").string(); }

  TempFolder temp_;
};

TEST_F(BadDataTest, ALineThatIsNoRowIsNamedByItsNumber) {
  const auto refused = [&](const std::string& line, const std::vector<std::string>& words) {
    std::vector<std::string> all = {rows() + ":3"};
    all.insert(all.end(), words.begin(), words.end());
    EXPECT_TRUE(Refused(Eval(std::string(kGood) + "\n" + line + "\n" + kGood), all)) << line;
  };
  refused("nope", {"is not JSON"});
  refused("{\"prompt\":\"x\"", {"is not JSON"});
  refused("{\"prompt\":\"\xFF\",\"completion\":\"x\"}", {"UTF-8"});
  refused("{\"prompt\":\"\\ud800\",\"completion\":\"x\"}", {"UTF-8"});
  refused(std::string("\x1F\x8B\x08\0gzip", 8), {"UTF-8"});
  refused("[1]", {"got array", "wanted an object"});
  refused("{\"prompt\":\"x\"}", {"got prompt", "prompt and completion", "messages"});
  refused("{}", {"got no fields"});
  refused("{\"prompt\":\"x\",\"completion\":5}", {"field completion", "got number"});
  refused("{\"messages\":[]}", {"got 0 messages"});
  refused("{\"messages\":[{\"role\":\"user\"}]}", {"messages[0]", "role and content"});
  refused("{\"prompt\":" + std::string(300000, '[') + std::string(300000, ']') +
              ",\"completion\":\"x\"}",
          {});
  refused("{\"prompt\":\"" + std::string(17 << 20, 'x') + "\",\"completion\":\"x\"}",
          {"longer than"});
}

TEST_F(BadDataTest, AFileWithoutRowsIsNamed) {
  for (const char* content : {"", "\n \n", "\xEF\xBB\xBF\n"}) {
    EXPECT_TRUE(Refused(Eval(content), {rows(), "holds no rows"}));
    EXPECT_TRUE(Refused(Train(content), {rows(), "holds no rows"}));
  }
  const std::vector<std::string> eval = {"eval", "--model", kTinyModel.string(), "--data"};
  const auto refused = [&](const std::string& file, const std::string& why) {
    std::vector<std::string> arguments = eval;
    arguments.push_back(file);
    EXPECT_TRUE(Refused(Execute("weft", arguments), {file, why}));
  };
  refused("/no/such/rows.jsonl", "No such file");
  refused("/tmp", "got a folder");
}

TEST_F(BadDataTest, AnEmptyFileStopsAClientBeforeItJoins) {
  temp_.Write("rows.jsonl", "");
  EXPECT_TRUE(Refused(
      Execute("weft-client", {"--name", "alpha", "--model", kTinyModel.string(), "--data", rows()}),
      {"[client] alpha", rows(), "holds no rows"}));
  temp_.Write("rows.jsonl", R"({"messages":[{"role":"user","content":"hi"}]})");
  EXPECT_TRUE(Refused(
      Execute("weft-client", {"--name", "alpha", "--model", kTinyModel.string(), "--data", rows()}),
      {"[client] alpha", rows(), "line 1", "conversation", "chat-template"}));
}

TEST_F(BadDataTest, ConversationsWithoutATemplateSayHowToNameOne) {
  const std::string row =
      R"({"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"x"}]})";
  EXPECT_TRUE(Refused(Eval(row), {rows(), "line 1", "--chat-template", "model.chat-template"}));
  EXPECT_TRUE(Refused(Eval(kGood, {"--chat"}), {"line 1", "--chat-template"}));
  EXPECT_TRUE(Refused(Eval("{\"text\":\"x\"}", {"--chat"}), {"line 1", "leave out --chat"}));
  EXPECT_TRUE(Succeeded(Eval(row, {"--chat-template", "chatml"})));
  EXPECT_TRUE(Refused(Eval(row, {"--chat-template", "vicuna"}), {"vicuna", "chatml"}, 2));
  EXPECT_TRUE(Refused(
      Eval(R"({"messages":[{"role":"wizard","content":"hi"}]})", {"--chat-template", "llama2"}),
      {"line 1", "message 0", "\"wizard\""}));
}

TEST_F(BadDataTest, LongRowsAreCutOrDroppedByTheStatedRuleAndCounted) {
  const std::string content = kGood + Row("p", Repeated("pump", 2000)) +  // cut in its completion
                              Row(Repeated("pump", 2000), "x");           // no label is left
  const Ran eval = Eval(content, {"--json"});
  ASSERT_TRUE(Succeeded(eval));
  const Json json = Json::parse(eval.out);
  EXPECT_EQ(json["rows"], 2);
  EXPECT_EQ(json["rows_cut"], 2);
  EXPECT_EQ(json["rows_without_label"], 1);
  const Ran cut = Train(content);
  ASSERT_TRUE(Succeeded(cut));
  EXPECT_NE(cut.err.find("2 rows cut at 256 tokens"), std::string::npos) << cut.err;
  const Ran drop = Train(content, {"--long-rows", "drop"});
  ASSERT_TRUE(Succeeded(drop));
  EXPECT_NE(drop.err.find("2 rows dropped for being longer than 256"), std::string::npos)
      << drop.err;
  EXPECT_TRUE(Refused(Train(Row(Repeated("pump", 2000), "x")),
                      {rows(), "no row is left to learn from", "max_len = 256"}));
  EXPECT_TRUE(Refused(Train(content, {"--long-rows", "fold"}), {"fold", "cut", "drop"}));
  EXPECT_TRUE(Refused(Train(content, {"--max-len", "257"}), {"257", "context is 256"}));
}

TEST_F(BadDataTest, ALossThatIsNoNumberStopsTrainingAndKeepsWhatWasThere) {
  std::filesystem::create_directories(out());
  temp_.Write("out/adapter_config.json", "old");
  const Ran ran = Train(kGood, {"--lr", "1e30", "--json"}, "3");
  EXPECT_TRUE(Refused(ran, {"step 2", "the loss is", "lower the learning rate"}));
  EXPECT_EQ(temp_.Read("out/adapter_config.json"), "old");
}

// ---- ready batches ----

TEST_F(BadDataTest, BatchesThatAreNoBatchesAreNamedByLine) {
  const auto refused = [&](const std::string& line, const std::string& why) {
    temp_.Write("b.jsonl", "{\"input_ids\":[[1,2]],\"labels\":[[1,2]]}\n" + line + "\n");
    const std::string file = (temp_.path() / "b.jsonl").string();
    EXPECT_TRUE(Refused(Execute("weft", {"train", "--model", kTinyModel.string(), "--batches", file,
                                         "--out", out(), "--threads", "1"}),
                        {why}))
        << line.substr(0, 80);
  };
  refused("nope", ":2: no JSON object");
  refused("{\"input_ids\":[[1,2]],\"labels\":[[1]]}", ":2: a row's ids and labels differ");
  refused("{\"input_ids\":[[1,512]],\"labels\":[[1,2]]}", ":2: token 512, wanted 0 to 511");
  refused("{\"input_ids\":[[1,-1]],\"labels\":[[1,2]]}", ":2: token -1");
  refused("{\"input_ids\":[[1,2]],\"labels\":[[1,18446744073709551516]]}", ":2: token 18446744");
  refused("{\"input_ids\":[[1,\"a\"]],\"labels\":[[1,2]]}", ":2: token string");
  refused("{\"input_ids\":[[1," + std::string(300000, '[') + std::string(300000, ']') +
              "]],\"labels\":[[1,2]]}",
          ":2");
  refused("{\"split\":\"test\",\"input_ids\":[[1,2]],\"labels\":[[1,2]]}", "\"test\"");
  refused("{\"input_ids\":[[1,2]],\"labels\":[[-100,-100]]}", ":2: no row has a label");
  Json row = Json::array();
  for (int i = 0; i < 257; ++i) row.push_back(1);
  refused(Json{{"input_ids", {row}}, {"labels", {row}}}.dump(), ":2: a row has 257 tokens");
}

// ---- stdin of `weft tokenize` ----

TEST(BadStdinTest, ALineThatIsNoTextIsNamedAndThoseBeforeItAreDone) {
  const auto tokenize = [](const std::string& input) {
    return Execute("weft", {"tokenize", "--model", kTinyModel.string()}, {.input = input});
  };
  const auto refused = [&](const std::string& line, const std::string& got) {
    Ran ran = tokenize("{\"text\":\"a\"}\n\n" + line + "\n{\"text\":\"b\"}\n");
    EXPECT_EQ(ran.out, "[67]\n");
    ran.out.clear();
    EXPECT_TRUE(Refused(ran, {"[tokenize] stdin:3: got " + got, "wanted {\"text\": \"...\"}"}))
        << line.substr(0, 40);
  };
  refused("nope", "no JSON");
  refused("{\"text\":\"b\"", "no JSON");
  refused("{\"text\":\"\xFF\"}", "no JSON in UTF-8");
  refused("{\"text\":5}", "\"text\" as number");
  refused("{\"txt\":\"a\"}", "no field \"text\"");
  refused("[]", "JSON of type array");
  refused("{\"text\":" + std::string(300000, '[') + std::string(300000, ']') + "}", "");
  EXPECT_TRUE(
      Refused(tokenize("{\"text\":\"" + std::string(17 << 20, 'x') + "\"}"), {"stdin:1", "bytes"}));
  // A stream without line ends is given up long before it fills the memory.
  const std::string endless = std::string(WEFT_BIN_DIR) + "/weft tokenize --model " +
                              kTinyModel.string() + " < /dev/zero > /dev/null 2>&1";
  EXPECT_EQ(WEXITSTATUS(std::system(endless.c_str())), 1);
  const Ran empty = tokenize("");
  EXPECT_TRUE(Succeeded(empty));
  EXPECT_EQ(empty.out, "");
}

}  // namespace
}  // namespace weft::testing
