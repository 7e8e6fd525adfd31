// The JSON of plans and events, field by field: every field of every struct is read back, missed
// where it is required, and refused by its path where it has another type.

#include "common/plan/json_fields.h"

#include <cmath>

#include <gtest/gtest.h>

#include "common/base/limits.h"
#include "common/plan/dtype.h"
#include "common/plan/fields.h"

namespace weft {
namespace {

struct Inner {
  std::string name;
  int64_t number = 0;
};

// One of each kind of field.
struct Everything {
  bool flag = false;
  int64_t whole = 0;
  uint64_t wide = 0;
  uint32_t narrow = 0;
  double real = 0;
  std::string text;
  ClientId client;
  RunId run;
  RoundId round;
  std::vector<std::string> texts;
  std::vector<int64_t> numbers;
  std::vector<ClientId> clients;
  NamedValues<double> reals;
  NamedValues<int64_t> ranks;
  NamedValues<std::string> words;
  Inner inner;
  std::vector<Inner> list;
  int64_t extra = 42;
};

}  // namespace

template <typename V, FieldsOf<Inner> S>
void VisitFields(V& visit, S& inner) {
  visit.Required("name", inner.name);
  visit.Optional("number", inner.number);
}

template <typename V, FieldsOf<Everything> S>
void VisitFields(V& visit, S& all) {
  visit.Required("flag", all.flag);
  visit.Required("whole", all.whole);
  visit.Required("wide", all.wide);
  visit.Required("narrow", all.narrow);
  visit.Required("real", all.real);
  visit.Required("text", all.text);
  visit.Required("client", all.client);
  visit.Required("run", all.run);
  visit.Required("round", all.round);
  visit.Required("texts", all.texts);
  visit.Required("numbers", all.numbers);
  visit.Required("clients", all.clients);
  visit.Required("reals", all.reals);
  visit.Required("ranks", all.ranks);
  visit.Required("words", all.words);
  visit.Required("inner", all.inner);
  visit.Required("list", all.list);
  visit.Optional("extra", all.extra);
}

namespace {

constexpr const char* kWhole =
    R"({"flag":true,"whole":-9223372036854775808,"wide":18446744073709551615,"narrow":4294967295,)"
    R"("real":0.1,"text":"t","client":"c","run":"r","round":7,"texts":["a","b"],"numbers":[1,-2],)"
    R"("clients":["x","y"],"reals":[["loss",1.5]],"ranks":[["q.*",4],["k",2]],"words":[["k","v"]],)"
    R"("inner":{"name":"i","number":3},"list":[{"name":"a"},{"name":"b","number":-1}]})";

std::string Why(const std::string& text) {
  const Result<Everything> read = FromJsonText<Everything>(text);
  return read.ok() ? "read" : read.status().message();
}

// The text with the value of `key` replaced.
std::string With(const std::string& key, const std::string& value) {
  std::string text = kWhole;
  const size_t begin = text.find("\"" + key + "\":") + key.size() + 3;
  size_t end = begin;
  int depth = 0;
  while (depth > 0 || (text[end] != ',' && text[end] != '}')) {
    if (text[end] == '[' || text[end] == '{') ++depth;
    if (text[end] == ']' || text[end] == '}') --depth;
    ++end;
  }
  return text.replace(begin, end - begin, value);
}

TEST(JsonFieldsTest, EveryKindOfFieldIsReadAndWrittenBack) {
  const Result<Everything> all = FromJsonText<Everything>(kWhole);
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_TRUE(all->flag);
  EXPECT_EQ(all->whole, std::numeric_limits<int64_t>::min());
  EXPECT_EQ(all->wide, ~uint64_t{0});
  EXPECT_EQ(all->narrow, ~uint32_t{0});
  EXPECT_EQ(all->round.number, 7u);
  EXPECT_EQ(all->clients[1].name, "y");
  EXPECT_EQ(all->ranks[0], (std::pair<std::string, int64_t>("q.*", 4)));
  EXPECT_EQ(all->list[1].number, -1);
  EXPECT_EQ(all->list[0].number, 0) << "an optional field keeps its default";
  EXPECT_EQ(all->extra, 42);
  const std::string text = ToJsonText(*all);
  const Result<Everything> again = FromJsonText<Everything>(text);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(ToJsonText(*again), text);
  EXPECT_EQ(text.find("\"flag\""), 1u) << "in the order of the field list";
}

TEST(JsonFieldsTest, ValuesOfAnotherTypeAreRefusedByTheirPath) {
  const std::tuple<const char*, const char*, const char*> cases[] = {
      {"flag", "1", "flag: got 1, wanted true or false"},
      {"whole", "1.0", "whole: got 1.0, wanted an integer"},
      {"whole", "9223372036854775808", "whole: got 9223372036854775808, wanted an integer"},
      {"wide", "-1", "wide: got -1, wanted an integer from 0"},
      {"narrow", "4294967296", "narrow: got 4294967296, wanted an integer from 0 to 4294967295"},
      {"real", "\"one\"", "real: got \"one\", wanted a number"},
      {"real", "true", "real: got true, wanted a number"},
      {"text", "null", "text: got null, wanted a string"},
      {"client", "5", "client: got 5, wanted a string"},
      {"run", "[]", "run: got [], wanted a string"},
      {"round", "-7", "round: got -7, wanted an integer"},
      {"texts", "[\"a\",1]", "wanted a list of strings"},
      {"texts", "\"a\"", "wanted a list of strings"},
      {"numbers", "[1,0.5]", "wanted a list of integers"},
      {"clients", "[1]", "wanted a list of strings"},
      {"reals", "{\"a\":1}", "wanted a list of [name, number]"},
      {"reals", "[[\"a\"]]", "wanted a list of [name, number]"},
      {"reals", "[[\"a\",1,2]]", "wanted a list of [name, number]"},
      {"ranks", "[[\"a\",0.5]]", "wanted a list of [name, integer]"},
      {"words", "[[1,\"a\"]]", "wanted a list of [name, string]"},
      {"inner", "[]", "inner: got [], wanted an object"},
      {"inner", "{}", "inner.name: missing"},
      {"inner", "{\"name\":\"a\",\"number\":true}", "inner.number: got true"},
      {"list", "{}", "wanted a list of objects"},
      {"list", "[1]", "wanted a list of objects"},
      {"list", "[{\"name\":\"a\"},{}]", "list[1].name: missing"}};
  for (const auto& [key, value, why] : cases) {
    const std::string got = Why(With(key, value));
    EXPECT_NE(got.find(why), std::string::npos) << key << " = " << value << ": " << got;
    EXPECT_EQ(got.find("[json] "), 0u) << got;
  }
}

TEST(JsonFieldsTest, EachRequiredFieldIsMissedByName) {
  for (const char* key :
       {"flag", "whole", "wide", "narrow", "real", "text", "client", "run", "round", "texts",
        "numbers", "clients", "reals", "ranks", "words", "inner", "list"}) {
    std::string text = kWhole;
    text.replace(text.find(std::string("\"") + key + "\":") + 1, 1, "_");
    EXPECT_EQ(Why(text), std::string("[json] ") + key + ": missing");
  }
}

TEST(JsonFieldsTest, NumbersThatJsonHasNoWordForAreWords) {
  Everything all = *FromJsonText<Everything>(kWhole);
  for (const double odd : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
    all.real = odd;
    all.reals = {{"x", odd}};
    const Result<Everything> again = FromJsonText<Everything>(ToJsonText(all));
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(std::isnan(again->real), std::isnan(odd));
    if (!std::isnan(odd)) {
      EXPECT_EQ(again->reals[0].second, odd);
    }
  }
  EXPECT_NE(Why(With("real", "\"NaN\"")), "read") << "one spelling only";
  EXPECT_NE(Why(With("whole", "\"nan\"")), "read") << "not for whole numbers";
}

TEST(JsonFieldsTest, TheFirstFaultIsTheOneThatIsTold) {
  EXPECT_NE(Why(R"({"flag":1,"whole":"x"})").find("flag: got 1"), std::string::npos);
  EXPECT_NE(Why("[1]").find("got array, wanted an object"), std::string::npos);
  EXPECT_NE(Why("{").find("not JSON"), std::string::npos);
}

TEST(JsonFieldsTest, DepthWithinTheLimitIsReadAndBeyondItRefused) {
  const auto deep = [](int levels) {
    const auto count = static_cast<size_t>(levels);
    std::string text = kWhole;
    return text.insert(text.size() - 1,
                       ",\"more\":" + std::string(count, '[') + std::string(count, ']'));
  };
  EXPECT_EQ(Why(deep(limits::kJsonNestingMax - 1)), "read")
      << "unknown fields of any shape are ignored";
  EXPECT_NE(Why(deep(limits::kJsonNestingMax)).find("nested deeper than 64"), std::string::npos);
}

// ---- element types ----

TEST(DTypeTest, EachRowOfTheTableIsTheTypeOfItsNumber) {
  for (size_t i = 0; i < kDTypes.size(); ++i) {
    EXPECT_EQ(static_cast<size_t>(kDTypes[i].dtype), i)
        << "the numbers are in hashes and on the wire";
    EXPECT_EQ(DTypeName(kDTypes[i].dtype), kDTypes[i].name);
    EXPECT_EQ(DTypeFromName(kDTypes[i].name), kDTypes[i].dtype);
    EXPECT_EQ(IsFloating(kDTypes[i].dtype), kDTypes[i].name.find('F') != std::string_view::npos);
  }
  for (const char* odd : {"", "F8", "f32", "F32 ", "BF", "U64"}) {
    EXPECT_EQ(DTypeFromName(odd), std::nullopt) << odd;
  }
  EXPECT_EQ(DTypeFromNumber(~uint64_t{0}), std::nullopt);
}

}  // namespace
}  // namespace weft
