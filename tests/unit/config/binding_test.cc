// The table of settings, each row by its own rule: what a rule allows is taken, what it forbids is
// refused by a message that says what was wanted, and every value prints as what reads back.

#include "common/config/binding.h"

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "common/base/random.h"
#include "common/base/str.h"
#include "common/config/load.h"
#include "tests/support/temp_folder.h"

namespace weft {
namespace {

std::string NameOf(const Binding& binding) { return Str(binding.section, ".", binding.key); }

// Calls `look` with every binding of fresh settings.
void ForEachBinding(const std::function<void(const Binding&)>& look) {
  Settings settings;
  ClientSettings client;
  for (const auto& table : {BindSettings(settings), BindClient(client)}) {
    for (const Binding& binding : table) look(binding);
  }
}

template <typename T>
ConfigValue Of(T value) {
  ConfigValue out;
  out.data = std::move(value);
  return out;
}

bool IsInteger(const Binding& b) {
  return std::holds_alternative<int64_t*>(b.ref) || std::holds_alternative<uint64_t*>(b.ref) ||
         std::holds_alternative<NumberOrWordRef>(b.ref);
}
bool IsNumber(const Binding& b) { return std::holds_alternative<double*>(b.ref); }

TEST(RuleTest, TheBoundsOfEveryNumberAreTakenOrLeftOutAsItsRuleSays) {
  int bounds = 0;
  ForEachBinding([&](const Binding& binding) {
    if (!IsInteger(binding) && !IsNumber(binding)) return;
    const Rule& rule = binding.rule;
    const double step = IsInteger(binding) ? 1 : 1e-6 * std::max(1.0, std::abs(rule.max));
    const auto taken = [&](double value) {
      return IsInteger(binding) ? Assign(binding, Of(static_cast<int64_t>(value))).ok()
                                : Assign(binding, Of(value)).ok();
    };
    if (std::isfinite(rule.min)) {
      ++bounds;
      EXPECT_EQ(taken(rule.min), !rule.above_min) << NameOf(binding);
      EXPECT_TRUE(taken(rule.min + (IsInteger(binding) ? 1 : 1e-6))) << NameOf(binding);
      EXPECT_FALSE(taken(rule.min - step)) << NameOf(binding);
    }
    if (std::isfinite(rule.max)) {
      ++bounds;
      EXPECT_EQ(taken(rule.max), !rule.below_max) << NameOf(binding);
      EXPECT_FALSE(taken(rule.max + step)) << NameOf(binding);
    }
  });
  EXPECT_GT(bounds, 60) << "the loop has looked at something";
}

TEST(RuleTest, NumbersThatAreNoneAreRefusedEverywhere) {
  ForEachBinding([](const Binding& binding) {
    if (!IsNumber(binding)) return;
    for (const double odd : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
      const Status status = Assign(binding, Of(odd));
      EXPECT_EQ(status.code(), Code::kInvalidArgument) << NameOf(binding) << " " << odd;
    }
  });
}

TEST(RuleTest, WordsAreTakenExactlyAndListedWhenMissed) {
  int words = 0;
  ForEachBinding([&](const Binding& binding) {
    if (!std::holds_alternative<std::string*>(binding.ref) || binding.rule.words.empty()) return;
    for (const std::string_view word : binding.rule.words) {
      ++words;
      EXPECT_TRUE(Assign(binding, Of(std::string(word))).ok()) << NameOf(binding) << " " << word;
      EXPECT_EQ(**std::get_if<std::string*>(&binding.ref), word);
      for (const std::string& other : {std::string(word) + " ", std::string(word) + "x"}) {
        const Status status = Assign(binding, Of(other));
        EXPECT_FALSE(status.ok()) << NameOf(binding) << " \"" << other << "\"";
        EXPECT_NE(status.message().find(std::string("wanted one of ")), std::string::npos)
            << status;
        if (!word.empty()) {
          EXPECT_NE(status.message().find(std::string(word)), std::string::npos) << status;
        }
      }
    }
  });
  EXPECT_GT(words, 30);
}

TEST(RuleTest, AValueOfAnotherTypeChangesNothingAndSaysWhatWasWanted) {
  const ConfigValue odd[] = {Of(true),
                             Of(int64_t{1}),
                             Of(0.5),
                             Of(std::string("word with blank")),
                             Of(ConfigValue::List{Of(ConfigValue::List())}),
                             Of(ConfigValue::Table{{"k", Of(ConfigValue::Table())}})};
  ForEachBinding([&](const Binding& binding) {
    int refused = 0;
    for (const ConfigValue& value : odd) {
      const Status status = Assign(binding, value);
      if (status.ok()) continue;
      ++refused;
      EXPECT_NE(status.message().find("got "), std::string::npos) << status;
      EXPECT_NE(status.message().find(", wanted " + DescribeType(binding)), std::string::npos)
          << NameOf(binding) << ": " << status;
    }
    EXPECT_GE(refused, 3) << NameOf(binding) << " takes nearly anything";
    EXPECT_FALSE(DescribeType(binding).empty());
  });
}

TEST(RuleTest, ARefusedValueLeavesTheOldOne) {
  ForEachBinding([&](const Binding& binding) {
    const std::string before = PrintValue(binding);
    const ConfigValue deep = Of(ConfigValue::List{Of(int64_t{1}), Of(ConfigValue::List())});
    ASSERT_FALSE(Assign(binding, deep).ok()) << NameOf(binding);
    EXPECT_EQ(PrintValue(binding), before) << NameOf(binding);
  });
}

TEST(RuleTest, TextsOverTheLimitAreRefused) {
  ForEachBinding([&](const Binding& binding) {
    if (!std::holds_alternative<std::string*>(binding.ref)) return;
    const std::string long_text(limits::kTextBytesMax + 1, 'a');
    EXPECT_FALSE(Assign(binding, Of(long_text)).ok()) << NameOf(binding);
  });
}

// A random value that the rule allows, as --set would be given it; empty where we cannot make one.
std::string RandomText(const Binding& binding, RandomStream& random) {
  const Rule& rule = binding.rule;
  const bool is_unsigned = std::holds_alternative<uint64_t*>(binding.ref);
  const double low = std::isfinite(rule.min) ? rule.min : is_unsigned ? 0 : -1000;
  const double high = std::isfinite(rule.max) ? rule.max : low + 100000;
  if (std::holds_alternative<bool*>(binding.ref)) return random.Below(2) == 0 ? "true" : "false";
  if (IsInteger(binding)) {
    return Str(static_cast<int64_t>(low) +
               static_cast<int64_t>(random.Below(static_cast<uint64_t>(high - low))));
  }
  if (IsNumber(binding)) return NumberToml(low + (high - low) * (0.1 + 0.8 * random.Uniform()));
  if (std::holds_alternative<std::string*>(binding.ref)) {
    if (!rule.words.empty()) return std::string(rule.words[random.Below(rule.words.size())]);
    if (rule.path) return Str("/some/where-", random.Below(1000), " x/rows.jsonl");
    if (rule.form == nullptr) return Str("a\\ \"quoted\" word ", random.Below(1000));
    return {};
  }
  if (std::holds_alternative<std::vector<int64_t>*>(binding.ref)) {
    return Str(random.Below(60) + 1, ",", random.Below(60) + 1);
  }
  if (std::holds_alternative<TargetsRef>(binding.ref)) {
    constexpr const char* kTargets[] = {"all-linear", "q_proj", "q_proj,v.k_proj",
                                        ".*\\.(q|v)_proj", "[\"a\", \"b.c\"]"};
    return kTargets[random.Below(5)];
  }
  return {};
}

// The whole way: text → value → printed file → loaded again → the same.
TEST(SettingsTest, RandomSettingsPrintAsAFileThatLoadsToTheSame) {
  const testing::TempFolder folder;
  RandomStream random(17);
  for (int turn = 0; turn < 60; ++turn) {
    Settings settings;
    settings.clients.resize(1 + random.Below(2));
    std::vector<Binding> table = BindSettings(settings);
    for (ClientSettings& client : settings.clients) {
      for (Binding& binding : BindClient(client)) table.push_back(std::move(binding));
    }
    for (const Binding& binding : table) {
      if (random.Below(3) == 0) continue;
      const std::string text = RandomText(binding, random);
      if (text.empty()) continue;
      const Status status = AssignText(binding, text);
      ASSERT_TRUE(status.ok()) << NameOf(binding) << " = " << text << ": " << status;
    }
    settings.server.heartbeat_s = 1;
    settings.server.gone_after_s = 2 + static_cast<double>(turn);
    settings.sim.clients = 0;
    for (size_t i = 0; i < settings.clients.size(); ++i) settings.clients[i].name = Str("c", i);
    for (const bool all : {false, true}) {
      const auto file = folder.Write("run.toml", ToToml(settings, all));
      const Result<Settings> again =
          LoadSettings({.file = file, .overrides = {}, .environment = false});
      ASSERT_TRUE(again.ok()) << again.status() << "\n" << ToToml(settings, all);
      ASSERT_EQ(ToToml(*again, true), ToToml(settings, true));
    }
  }
}

TEST(AssignTextTest, QuotesListsAndTablesAreTomlAndTheRestIsText) {
  Settings s;
  const auto set = [&](std::string_view name, const std::string& text) {
    for (const Binding& binding : BindSettings(s)) {
      if (NameOf(binding) == name) return AssignText(binding, text);
    }
    return NotFound(std::string(name));
  };
  EXPECT_TRUE(set("sim.field", "speaker").ok());
  EXPECT_EQ(s.sim.field, "speaker");
  EXPECT_TRUE(set("sim.field", "'quoted'").ok());
  EXPECT_EQ(s.sim.field, "quoted");
  EXPECT_TRUE(set("sim.field", "").ok());
  EXPECT_EQ(s.sim.field, "");
  EXPECT_TRUE(set("sim.ranks", "[4, 8]").ok());
  EXPECT_EQ(s.sim.ranks, (std::vector<int64_t>{4, 8}));
  EXPECT_TRUE(set("sim.ranks", "16").ok()) << "one is a list of one";
  EXPECT_EQ(s.sim.ranks, (std::vector<int64_t>{16}));
  EXPECT_TRUE(set("adapter.rank-pattern", "{ \"q.*\" = 4, v = 2 }").ok());
  EXPECT_EQ(s.adapter.rank_pattern.size(), 2u);
  EXPECT_TRUE(set("adapter.options", "{ k = 64, tied = true, word = 'x' }").ok());
  EXPECT_EQ(s.adapter.options[0].second, "64");
  EXPECT_EQ(s.adapter.options[1].second, "true");
  EXPECT_TRUE(set("adapter.exclude-modules", "lm_head,o_proj").ok());
  EXPECT_EQ(s.adapter.exclude_modules, (std::vector<std::string>{"lm_head", "o_proj"}));
  for (const auto& [name, text] :
       std::vector<std::pair<std::string, std::string>>{{"sim.ranks", "4,,8"},
                                                        {"sim.ranks", "[4"},
                                                        {"adapter.rank-pattern", "q=4"},
                                                        {"adapter.rank-pattern", "{ q = 0 }"},
                                                        {"adapter.alpha-pattern", "{ q = 'x' }"},
                                                        {"adapter.options", "{ k = [1] }"},
                                                        {"adapter.rank", "4.5"},
                                                        {"adapter.rank", ""},
                                                        {"train.packing", "True"},
                                                        {"run.seed", "18446744073709551616"},
                                                        {"run.seed", "-1"},
                                                        {"adapter.target-modules", ""}}) {
    EXPECT_FALSE(set(name, text).ok()) << name << "=" << text;
  }
}

TEST(AssignTextTest, TextCannotSmuggleASecondSettingIn) {
  Settings s;
  for (const Binding& binding : BindSettings(s)) {
    if (NameOf(binding) != "adapter.rank") continue;
    EXPECT_FALSE(AssignText(binding, "4\nvalue2 = 5").ok());
    EXPECT_FALSE(AssignText(binding, "4\n[other]\nx = 1").ok());
    EXPECT_EQ(s.adapter.rank, 8);
  }
}

// A setting is printed into the ledger and into site files; what TOML cannot hold would come back
// as a file that does not load.
TEST(AssignTextTest, BytesThatAreNoUtf8AreRefusedWhereverTextIsTaken) {
  Settings settings;
  ClientSettings client;
  for (const auto& table : {BindSettings(settings), BindClient(client)}) {
    for (const Binding& binding : table) {
      for (const char* bytes : {"\xFF", "ab\xC3", "\xED\xA0\x80", "'\xFE'"}) {
        const Status status = AssignText(binding, bytes);
        EXPECT_EQ(status.code(), Code::kInvalidArgument) << NameOf(binding);
        EXPECT_NE(status.message().find("got bytes that are not UTF-8"), std::string::npos)
            << status;
      }
    }
  }
}

TEST(UnsignedTest, SeedsReachTheLastNumberAsText) {
  Settings s;
  for (const Binding& binding : BindSettings(s)) {
    if (NameOf(binding) != "run.seed") continue;
    EXPECT_TRUE(Assign(binding, Of(std::string("18446744073709551615"))).ok());
    EXPECT_EQ(s.run.seed, ~uint64_t{0});
    EXPECT_EQ(PrintValue(binding), "\"18446744073709551615\"") << "TOML's integers end at 2^63";
    EXPECT_TRUE(Assign(binding, Of(int64_t{5})).ok());
    EXPECT_EQ(PrintValue(binding), "5");
    EXPECT_TRUE(AssignText(binding, "18446744073709551615").ok()) << "as --set gives it, unquoted";
    EXPECT_EQ(s.run.seed, ~uint64_t{0});
    for (const char* text : {"", "5x", "-5", "0x10", " 5"}) {
      EXPECT_FALSE(Assign(binding, Of(std::string(text))).ok()) << text;
    }
  }
}

}  // namespace
}  // namespace weft
