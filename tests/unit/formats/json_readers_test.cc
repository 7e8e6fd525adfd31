// The two readers of JSON settings: ConfigFields (config.json) and JsonView (tokenizer.json). Each
// wrong value is named with its place, what it is and what was wanted.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "common/formats/config_fields.h"
#include "common/formats/tokenizer/json_view.h"

namespace weft {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

class ConfigFieldsTest : public ::testing::Test {
 protected:
  const Json json_ = Json::parse(R"({
    "whole": 7, "negative": -3, "big": 18446744073709551615, "real": 0.5, "text": "t",
    "yes": true, "null": null, "list": [1, 2, 3], "texts": ["a", "b"], "mixed": ["a", 1],
    "object": {"inner": 4, "deeper": {"x": "y"}}, "empty": []})");
  const ConfigFields fields_{&json_, "[config] f.json"};

  template <typename T>
  static std::string Why(const Result<T>& result) {
    EXPECT_FALSE(result.ok());
    EXPECT_EQ(result.status().code(), Code::kInvalidArgument);
    return result.status().message();
  }
};

TEST_F(ConfigFieldsTest, ValuesWithinTheirBoundsAreTaken) {
  EXPECT_EQ(*fields_.Int("whole", 7, 7), 7);
  EXPECT_EQ(*fields_.Int("negative", -3, 0), -3);
  EXPECT_EQ(*fields_.Number("whole", 0, 10), 7.0) << "a whole number is a number";
  EXPECT_EQ(*fields_.Number("real", 0.5, 0.5), 0.5);
  EXPECT_EQ(*fields_.Bool("yes", false), true);
  EXPECT_EQ(*fields_.Text("text"), "t");
  EXPECT_EQ(*fields_.Texts("texts"), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(*fields_.Ints("list", 1, 3), (std::vector<int64_t>{1, 2, 3}));
  EXPECT_EQ(*fields_.Ints("whole", 0, 9), std::vector<int64_t>{7}) << "one alone is a list";
  EXPECT_TRUE(fields_.Ints("empty", 0, 9)->empty());
}

TEST_F(ConfigFieldsTest, AbsentAndNullTakeTheFallbackOrAreMissed) {
  for (const char* name : {"none", "null"}) {
    EXPECT_FALSE(fields_.Has(name));
    EXPECT_EQ(*fields_.Int(name, 0, 1, 99), 99) << "a fallback need not lie within the bounds";
    EXPECT_EQ(*fields_.Number(name, 0, 1, 2.5), 2.5);
    EXPECT_EQ(*fields_.Bool(name, true), true);
    EXPECT_EQ(*fields_.Text(name, "d"), "d");
    EXPECT_TRUE(fields_.Texts(name)->empty());
    EXPECT_TRUE(fields_.Ints(name, 0, 1)->empty());
    EXPECT_FALSE(fields_.Object(name)->has_value());
    EXPECT_THAT(Why(fields_.Int(name, 0, 1)),
                HasSubstr(Str("[config] f.json: field ", name, ": is missing")));
    EXPECT_THAT(Why(fields_.Number(name, 0, 1)), HasSubstr("is missing"));
    EXPECT_THAT(Why(fields_.Text(name)), HasSubstr("is missing"));
  }
  EXPECT_TRUE(fields_.HasKey("null"));
  EXPECT_FALSE(fields_.HasKey("none"));
}

TEST_F(ConfigFieldsTest, WrongTypesAndRangesSayGotAndWanted) {
  EXPECT_THAT(Why(fields_.Int("whole", 8, 9)),
              HasSubstr("got 7, wanted a whole number from 8 to 9"));
  EXPECT_THAT(Why(fields_.Int("whole", 0, 6)), HasSubstr("from 0 to 6"));
  EXPECT_THAT(Why(fields_.Int("real", 0, 9)), HasSubstr("got 0.5, wanted a whole number"));
  EXPECT_THAT(Why(fields_.Int("text", 0, 9)), HasSubstr("got \"t\""));
  EXPECT_THAT(Why(fields_.Int("big", 0, 9)), HasSubstr("got 18446744073709551615"));
  EXPECT_THAT(Why(fields_.Int("list", 0, 9)), HasSubstr("got a list"));
  EXPECT_THAT(Why(fields_.Number("text", 0, 1)), HasSubstr("wanted a number from 0 to 1"));
  EXPECT_THAT(Why(fields_.Number("real", 0, 0.4)), HasSubstr("got 0.5"));
  EXPECT_THAT(Why(fields_.Bool("whole", false)), HasSubstr("got 7, wanted true or false"));
  EXPECT_THAT(Why(fields_.Text("object")), HasSubstr("got an object, wanted text"));
  EXPECT_THAT(Why(fields_.Texts("text")), HasSubstr("wanted a list of texts"));
  EXPECT_THAT(Why(fields_.Texts("mixed")), HasSubstr("got 1, wanted a text"));
  EXPECT_THAT(Why(fields_.Ints("list", 1, 2)),
              HasSubstr("got 3, wanted a whole number from 1 to 2"));
  EXPECT_THAT(Why(fields_.Ints("object", 0, 9)), HasSubstr("got an object"));
  EXPECT_THAT(Why(fields_.Object("list")), HasSubstr("got a list, wanted an object"));
}

TEST_F(ConfigFieldsTest, FieldsOfInnerObjectsAreNamedByTheirPath) {
  const auto object = fields_.Object("object");
  ASSERT_TRUE(object.ok() && *object);
  EXPECT_EQ(*(*object)->Int("inner", 0, 9), 4);
  EXPECT_THAT(Why((*object)->Int("inner", 5, 9)),
              HasSubstr("[config] f.json: object: field inner"));
  const auto deeper = (*object)->Object("deeper");
  EXPECT_THAT(Why((*deeper)->Int("x", 0, 9)),
              HasSubstr("f.json: object: deeper: field x: got \"y\""));
}

TEST_F(ConfigFieldsTest, LongValuesAreShownShortAndInAscii) {
  const Json json = {{"name", std::string(5000, 'x')}, {"odd", "\u001b[2Jé"}};
  const ConfigFields fields(&json, "f");
  EXPECT_LT(Why(fields.Int("name", 0, 1)).size(), 200u);
  const std::string odd = Why(fields.Int("odd", 0, 1));
  EXPECT_EQ(odd.find('\x1b'), std::string::npos) << "nothing that a terminal obeys";
}

// ---- JsonView ----

JsonDocument Doc(const std::string& text) {
  auto document = JsonDocument::Parse(text, "tokenizer.json");
  EXPECT_TRUE(document.ok()) << document.status();
  return std::move(document).value();
}

template <typename T>
std::string Why(const Result<T>& result) {
  EXPECT_FALSE(result.ok());
  return result.ok() ? "" : result.status().message();
}

TEST(JsonViewTest, MembersAreFoundByPathAndMissedByPath) {
  const JsonDocument document = Doc(R"({"a":{"b":[{"c":1},null]},"n":null})");
  const JsonView root = document.root();
  EXPECT_TRUE(root.is_object());
  const JsonView b = *root.At("a")->At("b");
  EXPECT_TRUE(b.is_array());
  const std::vector<JsonView> items = *b.Items();
  ASSERT_EQ(items.size(), 2u);
  EXPECT_EQ(*items[0].At("c")->Count(1), 1);
  EXPECT_EQ(Why(items[0].At("d")), "[tokenizer.json] /a/b/0: member \"d\" is missing");
  EXPECT_EQ(Why(root.At("n")), "[tokenizer.json] member \"n\" is missing") << "null is absent";
  EXPECT_FALSE(root.Find("n").has_value());
  EXPECT_EQ(Why(items[1].At("x")), "[tokenizer.json] /a/b/1: got null, wanted object");
  EXPECT_FALSE(b.Find("c").has_value()) << "a list has no members";
}

TEST(JsonViewTest, WrongTypesAreNamed) {
  const JsonDocument document = Doc(R"({"s":"t","i":5,"f":1.5,"neg":-1,"b":true,"l":[],"o":{}})");
  const JsonView root = document.root();
  const auto at = [&](const char* key) { return *root.At(key); };
  EXPECT_EQ(Why(at("i").String()), "[tokenizer.json] /i: got number, wanted string");
  EXPECT_EQ(Why(at("s").Bool()), "[tokenizer.json] /s: got string, wanted true or false");
  EXPECT_EQ(Why(at("s").Count(9)), "[tokenizer.json] /s: got string, wanted integer");
  EXPECT_EQ(Why(at("i").Count(4)), "[tokenizer.json] /i: got 5, wanted an integer in [0, 4]");
  EXPECT_EQ(Why(at("neg").Count(4)), "[tokenizer.json] /neg: got -1, wanted an integer in [0, 4]");
  EXPECT_EQ(Why(at("f").Count(4)), "[tokenizer.json] /f: got 1.5, wanted an integer in [0, 4]");
  EXPECT_EQ(Why(at("o").Items()), "[tokenizer.json] /o: got object, wanted array");
  EXPECT_EQ(Why(at("l").Members()), "[tokenizer.json] /l: got array, wanted object");
  EXPECT_EQ(Why(root.StringOr("i", "d")), "[tokenizer.json] /i: got number, wanted string");
  EXPECT_EQ(*root.StringOr("none", "d"), "d");
  EXPECT_EQ(*root.BoolOr("none", true), true);
  EXPECT_EQ(*root.BoolOr("b", false), true);
}

TEST(JsonViewTest, VocabulariesAndMergesAreReadWhole) {
  const JsonDocument document = Doc(R"({"v":{"b":1,"a":0},"bad":{"a":-1},"text":{"a":"0"},
    "m":["a b",["c d","e"]],"m1":["ab"],"m2":["a b c"],"m3":[["a"]],"m4":[["a",1]],"m5":[7]})");
  const JsonView root = document.root();
  const auto at = [&](const char* key) { return *root.At(key); };
  const auto counts = *at("v").Counts(1);
  ASSERT_EQ(counts.size(), 2u);
  EXPECT_EQ(counts[0], (std::pair<std::string_view, int32_t>("a", 0)));
  EXPECT_THAT(Why(at("v").Counts(0)),
              HasSubstr("/v: \"b\": wanted an integer in [0, 0], got number 1"));
  EXPECT_THAT(Why(at("bad").Counts(9)), HasSubstr("got number -1"));
  EXPECT_THAT(Why(at("text").Counts(9)), HasSubstr("got string"));
  const auto pairs = *at("m").Pairs();
  EXPECT_EQ(pairs[0], (std::pair<std::string_view, std::string_view>("a", "b")));
  EXPECT_EQ(pairs[1], (std::pair<std::string_view, std::string_view>("c d", "e")))
      << "as two strings a token may hold a blank";
  for (const char* key : {"m1", "m2", "m3", "m4", "m5"}) {
    EXPECT_THAT(Why(at(key).Pairs()), HasSubstr("entry 0")) << key;
  }
  EXPECT_THAT(Why(at("v").Pairs()), HasSubstr("wanted array"));
}

TEST(JsonViewTest, WhatIsNoJsonSaysHowLongItIs) {
  const auto status = JsonDocument::Parse("{\"a\":", "x.json").status();
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_EQ(status.message(), "[x.json] is not JSON (5 bytes): truncated, damaged, or not UTF-8");
}

}  // namespace
}  // namespace weft
