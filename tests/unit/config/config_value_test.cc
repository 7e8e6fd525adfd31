// TOML in and out: what is read keeps its order, types and lines, what is printed reads back.

#include "common/config/config_value.h"

#include <cmath>
#include <limits>
#include <string>

#include <gtest/gtest.h>

#include "common/base/random.h"

namespace weft {
namespace {

using Table = ConfigValue::Table;
using List = ConfigValue::List;

ConfigValue Parse(const std::string& text) {
  Result<ConfigValue> value = ParseToml(text, "t.toml");
  EXPECT_TRUE(value.ok()) << value.status() << "\n" << text;
  return value.ok() ? std::move(value).value() : ConfigValue{.data = Table()};
}

// The value of "v = TEXT".
ConfigValue Value(const std::string& text) {
  const ConfigValue root = Parse("v = " + text);
  const auto* table = root.As<Table>();
  EXPECT_TRUE(table != nullptr && table->size() == 1) << text;
  return table != nullptr && table->size() == 1 ? table->front().second : ConfigValue{};
}

std::string Error(const std::string& text) {
  const Result<ConfigValue> value = ParseToml(text, "t.toml");
  return value.ok() ? "parsed" : value.status().message();
}

TEST(ParseTomlTest, EveryTypeIsReadAsItself) {
  EXPECT_EQ(*Value("true").As<bool>(), true);
  EXPECT_EQ(*Value("-17").As<int64_t>(), -17);
  EXPECT_EQ(*Value("0x1F").As<int64_t>(), 31);
  EXPECT_EQ(*Value("1_000").As<int64_t>(), 1000);
  EXPECT_EQ(*Value("9223372036854775807").As<int64_t>(), std::numeric_limits<int64_t>::max());
  EXPECT_EQ(*Value("1e-4").As<double>(), 1e-4);
  EXPECT_EQ(*Value("2.0").As<double>(), 2.0) << "a point makes a number, not an integer";
  EXPECT_TRUE(std::isinf(*Value("-inf").As<double>()));
  EXPECT_EQ(*Value("\"a\\n\\u00e4\"").As<std::string>(), "a\nä");
  EXPECT_EQ(*Value("'a\\n'").As<std::string>(), "a\\n") << "literal strings keep backslashes";
  EXPECT_EQ(Value("[1, 2, 3]").As<List>()->size(), 3u);
  EXPECT_EQ(Value("{ a = 1 }").As<Table>()->front().first, "a");
}

TEST(ParseTomlTest, KeysKeepTheOrderInWhichTheyAreWritten) {
  const ConfigValue root = Parse("z = 1\na = 2\nm = { y = 1, b = 2, \"a b\" = 3 }\n[k]\n[b]\n");
  std::vector<std::string> keys;
  for (const auto& [key, value] : *root.As<Table>()) keys.push_back(key);
  EXPECT_EQ(keys, (std::vector<std::string>{"z", "a", "m", "k", "b"}));
  std::vector<std::string> inner;
  for (const auto& [key, value] : *(*root.As<Table>())[2].second.As<Table>()) inner.push_back(key);
  EXPECT_EQ(inner, (std::vector<std::string>{"y", "b", "a b"}));
}

TEST(ParseTomlTest, LinesAreThoseOfTheKeysAlsoInTables) {
  const ConfigValue root = Parse("a = 1\n\n[s]\nb = [\n 1,\n 2]\n\n[[client]]\nname = 'x'\n");
  const Table& table = *root.As<Table>();
  EXPECT_EQ(table[0].second.line, 1);
  EXPECT_EQ(table[1].second.line, 3);
  const auto& [key, list] = table[1].second.As<Table>()->front();
  EXPECT_EQ(key, "b");
  EXPECT_EQ(list.line, 4);
  EXPECT_EQ((*list.As<List>())[1].line, 6);
  const ConfigValue& client = (*table[2].second.As<List>())[0];
  EXPECT_EQ(client.As<Table>()->front().second.line, 9);
}

TEST(ParseTomlTest, ErrorsSayFileLineAndColumn) {
  EXPECT_EQ(Error("a = 1\nb = \n").substr(0, 9), "t.toml:2:");
  EXPECT_EQ(Error("[a\n").substr(0, 9), "t.toml:1:");
  EXPECT_EQ(Error("a = 1\na = 2\n").substr(0, 9), "t.toml:2:");
  EXPECT_EQ(Error("x = \"no end\n").substr(0, 9), "t.toml:1:");
  EXPECT_NE(Error("a = 9223372036854775808").find("t.toml:1:"), std::string::npos);
  EXPECT_NE(Error("a = 07:32:00").find("put it in quotes"), std::string::npos);
  EXPECT_NE(Error("[s]\na = [1, 1979-05-27]").find("t.toml:2: a date or time"), std::string::npos);
  EXPECT_NE(Error("[s]\nb = { c = 1979-05-27T07:32:00Z }").find("a date"), std::string::npos);
}

// The library's parser asserts that a key begins as keys do, and only then looks whether it does.
TEST(ParseTomlTest, AKeyThatBeginsAsNoKeyDoesIsAnErrorNotTheEndOfTheProgram) {
  for (const char* text : {"[=]",       "[!run]",
                           "[@",        "[[=]]",
                           "[ .a]",     "[a.=]",
                           "a.= 1",     "= 1",
                           ". = 1",     "v = { = 1 }",
                           "v = { . }", "v = {,}",
                           "[",         "[[",
                           "[a",        "[]",
                           "[[a]",      "a.",
                           "v",         "v =",
                           "v = {",     "v = [",
                           "v = [,]",   "'",
                           "\"\"\"",    "\xEF\xBB\xBF[="}) {
    EXPECT_EQ(Error(text).substr(0, 7), "t.toml:") << text;
  }
}

// The library runs into undefined behaviour where it looks whether such a character is a blank.
TEST(ParseTomlTest, CharactersBeyondAsciiBelongInTextsAndComments) {
  for (const char* text :
       {"a = 1\nü = 2", "a = 1\n[ü]", "a = 1\nv = 1 é", "a = 1\nv = “x”", "a = 1\n\xC2\xA0v = 1",
        "a = 1\n[\xD0]", "a = 1\nv = [1,\xE3\x80\x80 2]", "a = 1\n\xEF\xBB\xBF"}) {
    EXPECT_EQ(
        Error(text),
        "t.toml:2: a character that is not ASCII (as typographic quotes are) outside of texts")
        << text;
  }
  EXPECT_EQ(*Value("'é' # größe").As<std::string>(), "é");
  EXPECT_EQ(Parse("\xEF\xBB\xBF\"größe\" = 1").As<Table>()->front().first, "größe");
  EXPECT_EQ(*Value("\"\"\"\n日\n\"本\"\"\"\"\" # 日").As<std::string>(), "日\n\"本\"\"");
  EXPECT_EQ(*(*Value("['''é'''', \"ü\"]").As<List>())[1].As<std::string>(), "ü")
      << "a quote before the three that end a text opens none";
  // U+FE7F behind a backslash, where the library looks for the blanks before a line's end.
  EXPECT_EQ(Error("v = \"\"\"\\\xEF\xB9\xBF\"\"\"").substr(0, 9), "t.toml:1:");
}

TEST(ParseTomlTest, EmptyTextIsAnEmptyTable) {
  EXPECT_TRUE(Parse("").As<Table>()->empty());
  EXPECT_TRUE(Parse("# only words\n\n").As<Table>()->empty());
}

// A configuration is a file that a stranger may hand on: depth must end in an error, not in a
// crash.
TEST(ParseTomlTest, DeepNestingOfEveryKindIsAnErrorOrATree) {
  constexpr size_t kDepth = 100'000;
  std::string dotted = "a";
  for (size_t i = 0; i < kDepth; ++i) dotted += ".a";
  std::string inline_tables;
  for (size_t i = 0; i < 1000; ++i) inline_tables += "{a=";
  for (const std::string& text :
       {"v = " + std::string(kDepth, '['), dotted + " = 1", "[" + dotted + "]",
        "[[" + dotted + "]]", "v = " + inline_tables}) {
    EXPECT_NE(Error(text), "parsed") << text.substr(0, 20);
  }
  EXPECT_EQ(Error("a.b.c.d.e.f = 1"), "parsed") << "what people write stays possible";
  const std::string dots(300, '.');
  for (const char* quote : {"\"", "'", "\"\"\"", "\'\'\'"}) {
    EXPECT_EQ(Error(std::string("a = ") + quote + dots + quote + " # " + dots + "\nb = 1\n"),
              "parsed")
        << "dots in texts and comments are none of a key's";
  }
  EXPECT_EQ(Error("a = \"\\\"" + dots + "\"\n"), "parsed") << "an escaped quote ends no text";
  EXPECT_EQ(Error("v = [" + std::string(400, ' ') + "1.5, 2.5, 3.5]"), "parsed");
}

TEST(DescribeTest, ValuesAreShownAsTomlWouldWriteThem) {
  EXPECT_EQ(Value("true").Describe(), "true");
  EXPECT_EQ(Value("-3").Describe(), "-3");
  EXPECT_EQ(Value("3.0").Describe(), "3.0");
  EXPECT_EQ(Value("\"a\\\"b\"").Describe(), "\"a\\\"b\"");
  EXPECT_EQ(Value("[1, \"x\"]").Describe(), "[1, \"x\"]");
  EXPECT_EQ(Value("{a=1, \"b c\"=[true]}").Describe(), "{a = 1, \"b c\" = [true]}");
  std::string numbers = "[0";
  for (int i = 1; i < 500; ++i) numbers += ", 1234567";
  EXPECT_EQ(Value(numbers + "]").Describe(), "a list of 500") << "long ones by their size";
}

TEST(QuoteTomlTest, AnyTextReadsBack) {
  std::string all;
  for (int c = 0; c < 128; ++c) all += static_cast<char>(c);
  const std::string texts[] = {all,       "",          "\"\"\"",        "'",   "\\",
                               "\\u0041", "é日🙂", "tab\tline\n\r", "\x7F"};
  for (const std::string& text : texts) {
    EXPECT_EQ(*Value(QuoteToml(text)).As<std::string>(), text);
    const ConfigValue root = Parse(KeyToml(text) + " = 1");
    EXPECT_EQ(root.As<Table>()->front().first, text);
  }
  RandomStream random(3);
  for (int turn = 0; turn < 300; ++turn) {
    std::string text;
    for (uint64_t n = random.Below(12); n > 0; --n) text += static_cast<char>(random.Below(128));
    EXPECT_EQ(*Value(QuoteToml(text)).As<std::string>(), text);
  }
}

TEST(KeyTomlTest, PlainKeysStayBareAndOthersAreQuoted) {
  EXPECT_EQ(KeyToml("q_proj-2"), "q_proj-2");
  EXPECT_EQ(KeyToml("a.b"), "\"a.b\"") << "a dot would make a table of it";
  EXPECT_EQ(KeyToml(""), "\"\"");
  EXPECT_EQ(KeyToml("ä"), "\"ä\"");
}

TEST(NumberTomlTest, EveryNumberReadsBackToItsLastBitAndAsANumber) {
  RandomStream random(4);
  std::vector<double> numbers = {0.0,
                                 -0.0,
                                 1.0,
                                 -1.0,
                                 0.1,
                                 1e15,
                                 1e16,
                                 1e17,
                                 1e22,
                                 1e-300,
                                 5e-324,
                                 1.7976931348623157e308,
                                 123456789012345680.0};
  for (int i = 0; i < 2000; ++i) {
    numbers.push_back(random.Normal() *
                      std::pow(10.0, static_cast<double>(random.Below(600)) - 300));
  }
  for (const double number : numbers) {
    const std::string text = NumberToml(number);
    const ConfigValue back = Value(text);
    ASSERT_NE(back.As<double>(), nullptr) << text << " must not read back as an integer";
    EXPECT_EQ(*back.As<double>(), number) << text;
    EXPECT_EQ(std::signbit(*back.As<double>()), std::signbit(number)) << text;
  }
  EXPECT_EQ(NumberToml(0.1), "0.1") << "the shortest";
  EXPECT_EQ(NumberToml(5), "5.0");
  EXPECT_EQ(NumberToml(std::nan("")), "nan");
  EXPECT_EQ(NumberToml(-std::numeric_limits<double>::infinity()), "-inf");
}

}  // namespace
}  // namespace weft
