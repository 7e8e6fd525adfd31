#include "common/config/load.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include <gtest/gtest.h>

#include "common/base/limits.h"
#include "common/config/binding.h"
#include "tests/support/post_queue.h"

namespace weft {
namespace {

namespace fs = std::filesystem;
using testing::ScratchFolder;

class LoadTest : public ::testing::Test {
 protected:
  fs::path Write(const std::string& text, const std::string& name = "run.toml") {
    const fs::path path = scratch_.path() / name;
    std::ofstream(path) << text;
    return path;
  }
  Result<Settings> Load(const std::string& text, std::vector<std::string> overrides = {}) {
    return LoadSettings(
        {.file = Write(text), .overrides = std::move(overrides), .environment = false});
  }
  Result<Settings> Set(std::vector<std::string> overrides) {
    return LoadSettings({.file = {}, .overrides = std::move(overrides), .environment = false});
  }
  std::string Error(const std::string& text, std::vector<std::string> overrides = {}) {
    const Result<Settings> settings = Load(text, std::move(overrides));
    return settings.ok() ? "loaded" : settings.status().message();
  }

  ScratchFolder scratch_;
};

void ExpectHas(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "wanted \"" << part << "\" in:\n" << text;
}

TEST_F(LoadTest, EverySectionIsRead) {
  const Result<Settings> s = Load(R"(
[run]
name = "demo"
seed = 7
num-server-rounds = 3

[adapter]
rank = 16
alpha = 32
target-modules = ["q_proj", "v_proj"]
rank-pattern = { "k_proj" = 4, "a.q_proj" = 2 }

[train]
lr = 3e-4
batch-size = 4

[wire]
codec = "bfloat16"

[cohort]
fraction-train = 0.5

[server]
bind = "tcp://127.0.0.1:9000"

[[client]]
name = "harbour"
rank = 4

[[client]]
name = "weaver"
rank = "auto"

[sim]
ranks = [4, 8, 16]
)");
  ASSERT_TRUE(s.ok()) << s.status();
  EXPECT_EQ(s->run.name, "demo");
  EXPECT_EQ(s->run.seed, 7u);
  EXPECT_EQ(s->run.num_server_rounds, 3);
  EXPECT_EQ(s->adapter.rank, 16);
  EXPECT_EQ(s->adapter.alpha, 32.0);
  EXPECT_EQ(s->adapter.target_modules, (std::vector<std::string>{"q_proj", "v_proj"}));
  EXPECT_EQ(s->train.lr, 3e-4);
  EXPECT_EQ(s->train.batch_size, 4);
  EXPECT_EQ(s->wire.codec, "bfloat16");
  EXPECT_EQ(s->cohort.fraction_train, 0.5);
  EXPECT_EQ(s->server.bind, "tcp://127.0.0.1:9000");
  ASSERT_EQ(s->clients.size(), 2u);
  EXPECT_EQ(s->clients[0].name, "harbour");
  EXPECT_EQ(s->clients[0].rank, "4");
  EXPECT_EQ(s->clients[1].rank, "auto");
  EXPECT_EQ(s->sim.ranks, (std::vector<int64_t>{4, 8, 16}));
}

TEST_F(LoadTest, NothingGivenIsTheDefaults) {
  const Result<Settings> s = Set({});
  ASSERT_TRUE(s.ok());
  EXPECT_EQ(ToToml(*s, false), "");
}

TEST_F(LoadTest, PatternsKeepTheOrderWrittenBecauseTheFirstMatchWins) {
  const Result<Settings> s =
      Load("[adapter]\nrank-pattern = { \"z\" = 1, \"b.*\" = 2, \"a\" = 3 }\n");
  ASSERT_TRUE(s.ok()) << s.status();
  const std::vector<std::pair<std::string, int64_t>> wanted = {{"z", 1}, {"b.*", 2}, {"a", 3}};
  EXPECT_EQ(s->adapter.rank_pattern, wanted);
  const Result<Settings> table = Load("[adapter.rank-pattern]\nz = 1\nm = 2\na = 3\n");
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->adapter.rank_pattern[1].first, "m");
}

TEST_F(LoadTest, TargetModulesMayBeNamesAWordOrARegularExpression) {
  const auto targets = [&](const std::string& value) {
    const Result<Settings> s = Load("[adapter]\ntarget-modules = " + value);
    EXPECT_TRUE(s.ok()) << s.status();
    return std::pair(s->adapter.target_modules, s->adapter.target_regex);
  };
  using Names = std::vector<std::string>;
  EXPECT_EQ(targets("[\"q_proj\"]"), std::pair(Names{"q_proj"}, std::string()));
  EXPECT_EQ(targets("\"all-linear\""), std::pair(Names{"all-linear"}, std::string()));
  EXPECT_EQ(targets("'.*\\.(q|v)_proj'"), std::pair(Names{}, std::string(".*\\.(q|v)_proj")));
  EXPECT_EQ(targets("\"q_proj\""), std::pair(Names{"q_proj"}, std::string()));
  const auto set = [&](const std::string& value) {
    const Result<Settings> s = Set({"adapter.target-modules=" + value});
    EXPECT_TRUE(s.ok()) << s.status();
    return std::pair(s->adapter.target_modules, s->adapter.target_regex);
  };
  EXPECT_EQ(set("q_proj,v_proj"), std::pair(Names{"q_proj", "v_proj"}, std::string()));
  EXPECT_EQ(set("[\"q_proj\", \"v_proj\"]"), std::pair(Names{"q_proj", "v_proj"}, std::string()));
  EXPECT_EQ(set("all-linear"), std::pair(Names{"all-linear"}, std::string()));
  EXPECT_EQ(set(".*q.{1,3}"), std::pair(Names{}, std::string(".*q.{1,3}")));
}

TEST_F(LoadTest, SetWinsOverTheFile) {
  const Result<Settings> s =
      Load("[train]\nlr = 1e-3\n[run]\nname = \"a\"\n",
           {"train.lr=2e-3", "run.name=b", "train.packing=false", "sim.ranks=4,8", "run.seed=9"});
  ASSERT_TRUE(s.ok()) << s.status();
  EXPECT_EQ(s->train.lr, 2e-3);
  EXPECT_EQ(s->run.name, "b");
  EXPECT_FALSE(s->train.packing);
  EXPECT_EQ(s->sim.ranks, (std::vector<int64_t>{4, 8}));
  EXPECT_EQ(s->run.seed, 9u);
}

TEST_F(LoadTest, ClientsAreSetByName) {
  const std::string two = "[[client]]\nname = \"a\"\n[[client]]\nname = \"b.c\"\n";
  const Result<Settings> s = Load(two, {"client.b.c.rank=4", "client.a.max-rows=10"});
  ASSERT_TRUE(s.ok()) << s.status();
  EXPECT_EQ(s->clients[1].rank, "4");
  EXPECT_EQ(s->clients[0].max_rows, 10);
  ExpectHas(Error(two, {"client.rank=4"}), "there are 2 clients; say which: client.NAME.rank");
  ExpectHas(Error(two, {"client.aa.rank=4"}), "no such client; did you mean a?");
  const Result<Settings> alone = Set({"client.name=solo", "client.rank=auto"});
  ASSERT_TRUE(alone.ok()) << alone.status();
  ASSERT_EQ(alone->clients.size(), 1u);
  EXPECT_EQ(alone->clients[0].name, "solo");
  const Result<Settings> single = Load("[client]\nname = \"x\"\nrank = 2\n", {"client.rank=3"});
  ASSERT_TRUE(single.ok()) << single.status();
  ASSERT_EQ(single->clients.size(), 1u);
  EXPECT_EQ(single->clients[0].rank, "3");
}

TEST_F(LoadTest, TheEnvironmentStandsBetweenFileAndSet) {
  const fs::path file = Write("[train]\nlr = 1e-3\nbatch-size = 2\n");
  ::setenv("WEFT_TRAIN_LR", "5e-3", 1);
  ::setenv("WEFT_TRAIN_BATCH_SIZE", "6", 1);
  ::setenv("WEFT_CLIENT_NAME", "env-site", 1);
  ::setenv("WEFT_SOMETHING_ELSE", "1", 1);
  const Result<Settings> s =
      LoadSettings({.file = file, .overrides = {"train.lr=7e-3"}, .environment = true});
  ::setenv("WEFT_TRAIN_LRR", "1", 1);
  const Result<Settings> wrong = LoadSettings({.file = file, .overrides = {}, .environment = true});
  for (const char* name : {"WEFT_TRAIN_LR", "WEFT_TRAIN_BATCH_SIZE", "WEFT_CLIENT_NAME",
                           "WEFT_SOMETHING_ELSE", "WEFT_TRAIN_LRR"}) {
    ::unsetenv(name);
  }
  ASSERT_TRUE(s.ok()) << s.status();
  EXPECT_EQ(s->train.lr, 7e-3);
  EXPECT_EQ(s->train.batch_size, 6);
  ASSERT_EQ(s->clients.size(), 1u);
  EXPECT_EQ(s->clients[0].name, "env-site");
  EXPECT_FALSE(wrong.ok());
  ExpectHas(wrong.status().message(),
            "environment WEFT_TRAIN_LRR: train.lrr: no such setting; did you mean train.lr?");
}

TEST_F(LoadTest, UnknownKeysNameTheNearestOneAndThePlace) {
  ExpectHas(Error("[run]\nname = \"x\"\n\n[cohort]\nfraction-trian = 0.5\n"),
            "run.toml:5: cohort.fraction-trian: no such setting; did you mean "
            "cohort.fraction-train?");
  ExpectHas(Error("[cohort]\nfraction_train = 0.5\n"), "did you mean cohort.fraction-train?");
  ExpectHas(Error("[train]\nrank = 4\n"), "did you mean adapter.rank?");
  ExpectHas(Error("[adaptor]\nrank = 4\n"), "did you mean adapter.rank?");
  ExpectHas(Error("[adaptor]\nrankk = 4\n"), "[adaptor]: no such section; did you mean [adapter]?");
  ExpectHas(Error("[adaptor]\n"), "no such section; did you mean [adapter]?");
  ExpectHas(Error("rank = 4\n"), "run.toml:1: rank: a setting outside of a section");
  ExpectHas(Error("[[client]]\nnmae = \"x\"\n"), "run.toml:2: client.nmae");
  ExpectHas(Error("", {"trian.lr=1"}),
            "--set trian.lr=1: trian.lr: no such setting; did you mean "
            "train.lr?");
  ExpectHas(Error("", {"train.lr"}), "wanted section.key=value");
  ExpectHas(Error("", {"lr=1"}), "wanted section.key=value");
}

TEST_F(LoadTest, WrongTypesAndRangesSayGotAndWanted) {
  struct Case {
    const char* text;
    const char* wanted;
  };
  const Case cases[] = {
      {"[adapter]\nrank = 0", "run.toml:2: adapter.rank: got 0, wanted integer from 1 to 65536"},
      {"[adapter]\nrank = \"four\"", "got \"four\", wanted integer from 1 to 65536"},
      {"[adapter]\nrank = 4.0", "got 4.0, wanted integer"},
      {"[adapter]\ndropout = 1", "got 1, wanted number from 0 and below 1"},
      {"[adapter]\nrank-pattern = { q = 0 }", "adapter.rank-pattern"},
      {"[adapter]\ntarget-modules = [1]", "wanted list of module names"},
      {"[train]\nlr = 0", "train.lr: got 0, wanted number above 0"},
      {"[train]\nlr = -1e-4", "wanted number above 0"},
      {"[train]\nlr = nan", "got nan, wanted number above 0"},
      {"[train]\nlr = inf", "got inf, wanted number above 0"},
      {"[train]\npacking = 1", "got 1, wanted true or false"},
      {"[train]\nschedule = \"cosin\"", "got \"cosin\", wanted one of constant, linear, cosine"},
      {"[train]\nlr = 1979-05-27", "a date or time"},
      {"[cohort]\nfraction-train = 1.5", "got 1.5, wanted number from 0 to 1"},
      {"[cohort]\nmin-train-nodes = 0", "wanted integer from 1"},
      {"[run]\nseed = -1", "got -1, wanted integer from 0"},
      {"[run]\nname = \"../evil\"", "wanted a name of letters"},
      {"[run]\nlog-level = \"loud\"", "wanted one of debug, info"},
      {"[model]\ndevice = \"gpu\"", "wanted auto, cpu, cuda or cuda:N"},
      {"[server]\nbind = \"ipc://x\"", "wanted tcp://HOST:PORT"},
      {"[server]\nheartbeat-s = 30", "server.gone-after-s: got 20, wanted more than"},
      {"[client]\nrank = 0", "got 0, wanted integer from 1 to 65536, or one of auto"},
      {"[client]\nrank = \"many\"", "got \"many\""},
      {"[[client]]\nname=\"a\"\n[[client]]\nname=\"a\"", "two clients are named a"},
      {"[[client]]\nname=\"a\"\n[[client]]\nrank=4", "client number 2 has no name"},
      {"run = 4", "run: got 4, wanted a section [run]"},
      {"[run\nname = 1", "run.toml:1:"},
      {"[run]\nname = \"a\"\nname = \"b\"", "run.toml:3:"},
  };
  for (const Case& c : cases) ExpectHas(Error(c.text), c.wanted);
  ExpectHas(Error("", {"adapter.rank=many"}), "--set adapter.rank=many: adapter.rank: got");
  ExpectHas(Error("", {"train.packing=yes"}), "wanted true or false");
  ExpectHas(Error("", {"sim.ranks=4,x"}), "wanted list of integers");
}

TEST_F(LoadTest, AClientsNameMayBeAsLongAsInTheAllowList) {
  const std::string longest(limits::kPlainNameBytesMax, 'n');
  const Result<Settings> s = Load("[[client]]\nname = \"" + longest + "\"");
  ASSERT_TRUE(s.ok()) << s.status();
  EXPECT_EQ(s->clients[0].name, longest);
  ExpectHas(Error("[[client]]\nname = \"" + longest + "n\""), "underscores, at most 128, the");
}

TEST_F(LoadTest, PrintedSettingsComeBackWithoutAFileOrEnvironment) {
  Settings settings;
  settings.run.keep_updates = true;
  settings.cohort.weighting = "tokens";
  settings.clients.resize(1);
  settings.clients[0].name = "harbour";
  setenv("WEFT_COHORT_WEIGHTING", "uniform", 1);
  const Result<Settings> back = SettingsFromToml(ToToml(settings, true), "ledger");
  unsetenv("WEFT_COHORT_WEIGHTING");
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(ToToml(*back, true), ToToml(settings, true));
  const Status unknown = SettingsFromToml("[run]\nno-such = 1\n", "ledger").status();
  EXPECT_NE(unknown.message().find("ledger:2: run.no-such"), std::string::npos) << unknown;
  EXPECT_FALSE(SettingsFromToml("[run", "ledger").ok());
}

TEST_F(LoadTest, AMissingFileAFolderAndHostileBytesAreErrors) {
  const auto load = [](const fs::path& file) {
    return LoadSettings({.file = file, .overrides = {}, .environment = false}).status().code();
  };
  EXPECT_EQ(load(scratch_.path() / "none.toml"), Code::kNotFound);
  EXPECT_EQ(load(scratch_.path()), Code::kNotFound);
  EXPECT_NE(Error(std::string("[run]\nname = \"\xff\xfe\"\n")), "loaded");
  EXPECT_NE(Error("[run]\nname = \"" + std::string(100'000, 'x') + "\"\n"), "loaded");
  EXPECT_NE(Error("a = " + std::string(5000, '[')), "loaded");
  EXPECT_NE(Error(std::string("[run]\0name", 10)), "loaded");
}

TEST_F(LoadTest, RelativePathsAreTakenFromTheFilesFolder) {
  fs::create_directories(scratch_.path() / "sub");
  const fs::path file = Write(
      "[model]\npath = \"../model\"\n[server]\npublic-key = \"server.pub\"\n"
      "[client]\ndata = \"rows.jsonl\"\nvalid = \"/abs/valid.jsonl\"\n",
      "sub/run.toml");
  const Result<Settings> s =
      LoadSettings({.file = file, .overrides = {"sim.data=here.jsonl"}, .environment = false});
  ASSERT_TRUE(s.ok()) << s.status();
  EXPECT_EQ(s->model.path, (scratch_.path() / "model").string());
  EXPECT_EQ(s->clients[0].data, (scratch_.path() / "sub/rows.jsonl").string());
  EXPECT_EQ(s->clients[0].valid, "/abs/valid.jsonl");
  EXPECT_EQ(s->server.public_key, (scratch_.path() / "sub/server.pub").string());
  EXPECT_EQ(s->sim.data, (fs::current_path() / "here.jsonl").string());
  EXPECT_EQ(s->run.dir, "");
}

TEST_F(LoadTest, APublicKeyGivenAsTextIsNoPath) {
  const std::string key = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7";  // from ZeroMQ's RFC 32
  const Result<Settings> s = Set({"server.public-key=" + key});
  ASSERT_TRUE(s.ok()) << s.status();
  EXPECT_EQ(s->server.public_key, key);
}

// Every setting is changed from its default, printed, and read back.
TEST_F(LoadTest, PrintedSettingsReadBackEqual) {
  const Result<Settings> s = Load(R"(
[run]
name = "r2"
seed = "18446744073709551615"
dir = "/r"
[adapter]
rank-pattern = { "z.*" = 1, "a b" = 2 }
alpha-pattern = { q = 0.1 }
target-modules = '.*\.q"x'
options = { k = 64, tied = true, word = "a\nb" }
layers-to-transform = [0, 3]
[train]
lr = 0.1
eps = 1e-300
beta1 = 0.30000000000000004
packing = false
[cohort]
max-examples = 17
[[client]]
name = "a"
rank = 4
data = "/d"
[[client]]
name = "b"
[sim]
ranks = [1, 2]
)");
  ASSERT_TRUE(s.ok()) << s.status();
  EXPECT_EQ(s->run.seed, ~uint64_t{0});
  for (const bool all : {false, true}) {
    const std::string text = ToToml(*s, all);
    const Result<Settings> again = Load(text);
    ASSERT_TRUE(again.ok()) << again.status() << "\n" << text;
    EXPECT_EQ(ToToml(*again, true), ToToml(*s, true));
    EXPECT_EQ(again->adapter, s->adapter) << text;
    EXPECT_EQ(again->train, s->train) << text;
    EXPECT_EQ(again->clients.size(), 2u);
    EXPECT_EQ(text.find("fraction-train") != std::string::npos, all);
  }
}

// What we hand to strangers must load.
TEST(ExamplesTest, EveryConfigurationInTheTreeLoads) {
  int loaded = 0;
  for (const auto& entry :
       fs::recursive_directory_iterator(fs::path(WEFT_SOURCE_DIR) / "examples")) {
    if (entry.path().extension() != ".toml") continue;
    const Result<Settings> settings =
        LoadSettings({.file = entry.path(), .overrides = {}, .environment = false});
    EXPECT_TRUE(settings.ok()) << settings.status();
    ++loaded;
  }
  EXPECT_GE(loaded, 2);
}

TEST_F(LoadTest, NamesDevicesAndAddressesAreCheckedByForm) {
  for (const char* good :
       {"run.name=a.b-c_1", "model.device=cuda:12", "model.device=cuda", "model.device=auto",
        "server.bind=tcp://[::1]:99", "server.bind=tcp://*:7711", "server.bind=tcp://0.0.0.0:*",
        "server.metrics-bind=localhost:9090", "server.address="}) {
    EXPECT_TRUE(Set({good}).ok()) << good << ": " << Set({good}).status();
  }
  for (const char* bad :
       {"run.name=-a", "run.name=a/b", "run.name=ä", "model.device=cuda:", "model.device=cuda:x",
        "model.device=cuda:1234", "server.bind=tcp://host", "server.bind=tcp://:99",
        "server.bind=tcp://a/b:99", "server.bind=inproc://x", "server.bind=tcp://",
        "server.metrics-bind=9090", "server.metrics-bind=localhost:"}) {
    EXPECT_FALSE(Set({bad}).ok()) << bad;
  }
}

// The table must hold every key exactly once, in kebab-case, with a description and a default that
// its own rule accepts.
TEST(BindingTest, EveryKeyIsWellFormedAndItsDefaultValid) {
  Settings settings;
  ClientSettings client;
  std::vector<Binding> table = BindSettings(settings);
  for (Binding& binding : BindClient(client)) table.push_back(std::move(binding));
  std::set<std::string> seen;
  for (const Binding& binding : table) {
    const std::string name = std::string(binding.section) + "." + std::string(binding.key);
    EXPECT_TRUE(seen.insert(name).second) << name << " is bound twice";
    EXPECT_EQ(binding.key.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-"),
              std::string_view::npos)
        << name;
    EXPECT_FALSE(binding.help.empty()) << name;
    const std::string value = PrintValue(binding);
    const Status status = AssignText(binding, value);
    EXPECT_TRUE(status.ok() || value == "[]") << name << " = " << value << ": " << status;
  }
  EXPECT_GT(seen.size(), 90u);
}

TEST(ReferenceTest, TheCommittedPageIsTheGeneratedOne) {
  std::ifstream in(std::string(WEFT_SOURCE_DIR) + "/docs/configuration.md");
  std::ostringstream page;
  page << in.rdbuf();
  EXPECT_EQ(page.str(), SettingsReference())
      << "run: weft config reference > docs/configuration.md";
}

}  // namespace
}  // namespace weft
