// The command line as a whole: which words mean what, where messages go, and exit codes.

#include <filesystem>
#include <set>

#include <nlohmann/json.hpp>
#include <sys/stat.h>

#include "cli/exit_code.h"
#include "cli/set_up.h"
#include "common/base/check.h"
#include "common/config/load.h"
#include "common/net/keys.h"
#include "tests/support/small_model.h"
#include "tests/support/temp_folder.h"
#include "tests/unit/cli/execute.h"

namespace weft::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using weft::testing::TempFolder;

std::vector<std::string> Words(const std::string& command) {
  std::vector<std::string> words;
  std::istringstream in(command);
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

TEST(CommandLineTest, EveryCommandHasANameOfItsOwnAndHelpThatExitsWithZero) {
  std::set<std::string> names;
  for (const Command& command : Commands()) {
    EXPECT_TRUE(names.insert(command.name).second) << command.name;
    EXPECT_GT(std::string(command.help).size(), 10u) << command.name;
    std::vector<std::string> words = Words(command.name);
    words.emplace_back("--help");
    const LineOutcome outcome = RunLine(words);
    EXPECT_EQ(outcome.code, 0) << command.name;
    EXPECT_NE(outcome.out.find(command.help), std::string::npos) << outcome.out;
    EXPECT_EQ(outcome.err, "") << command.name;
  }
}

TEST(CommandLineTest, HelpListsTheCommandsAndVersionIsOneLine) {
  const LineOutcome help = RunLine({"--help"});
  EXPECT_EQ(help.code, 0);
  for (const Command& command : Commands()) {
    EXPECT_NE(help.out.find(Words(command.name)[0]), std::string::npos) << command.name;
  }
  const LineOutcome version = RunLine({"--version"});
  EXPECT_EQ(version.code, 0);
  EXPECT_EQ(Lines(version.out).size(), 1u);
}

TEST(CommandLineTest, WrongUsageIsTwoAndSaysWhatIsWrongOnStderr) {
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
           {},
           {"frobnicate"},
           {"runs"},
           {"runs", "frobnicate"},
           {"eval"},
           {"eval", "--model"},
           {"eval", "--model", "m", "--data", "d", "--no-such-option"},
           {"eval", "--model", "m", "--data", "d", "--max-len", "many"},
           {"generate", "--model", "m"},
           {"train", "--model", "m", "--data", "d"},
           {"bench", "merge", "--dim", "3"},
           {"keys", "allow", "only-a-key"},
           {"runs", "export", "r", "--format", "xml"}}) {
    const LineOutcome outcome = RunLine(words);
    EXPECT_EQ(outcome.code, 2) << (words.empty() ? "nothing" : words.front());
    EXPECT_FALSE(outcome.err.empty());
    EXPECT_EQ(outcome.out, "");
  }
}

TEST(CommandLineTest, AFailureIsOneWithTheCommandsNameOnStderrAndNothingOnStdout) {
  const LineOutcome outcome = RunLine({"runs", "show", "/no/such/run"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_EQ(outcome.out, "");
  EXPECT_EQ(outcome.err.rfind("weft runs show: error: ", 0), 0u) << outcome.err;
  EXPECT_NE(outcome.err.find("/no/such/run"), std::string::npos);
}

TEST(CommandLineTest, TheVersionNamesThePartsForABugReport) {
  const LineOutcome outcome = RunLine({"version"});
  EXPECT_EQ(outcome.code, 0);
  for (const char* part : {"weft 0.1.0", "protocol ", "libtorch ", "cuda "}) {
    EXPECT_NE(outcome.out.find(part), std::string::npos) << outcome.out;
  }
}

// ---- exit codes ----

int GuardedCode(const std::function<Status()>& body, std::string* err = nullptr) {
  ::testing::internal::CaptureStderr();
  const int code = Guarded("weft test", body);
  const std::string text = ::testing::internal::GetCapturedStderr();
  if (err != nullptr) *err = text;
  return code;
}

TEST(ExitCodeTest, OkFailedAndBugAreToldApart) {
  std::string err;
  EXPECT_EQ(GuardedCode([] { return OkStatus(); }, &err), 0);
  EXPECT_EQ(err, "");
  EXPECT_EQ(GuardedCode([] { return NotFound("no such thing"); }, &err), 1);
  EXPECT_EQ(err, "weft test: error: no such thing\n");
  EXPECT_EQ(GuardedCode(
                []() -> Status {
                  WEFT_CHECK(false, "on purpose");
                  return OkStatus();
                },
                &err),
            70);
  EXPECT_NE(err.find("internal error"), std::string::npos) << err;
  EXPECT_EQ(GuardedCode([]() -> Status { throw std::bad_alloc(); }), 70);
}

TEST(ExitCodeTest, DaemonsTellRefusedAndStoppedFromFailed) {
  EXPECT_EQ(ExitCodeOf(OkStatus(), false), 0);
  EXPECT_EQ(ExitCodeOf(OkStatus(), true), 0);
  EXPECT_EQ(ExitCodeOf(Unavailable("x"), false), 1);
  EXPECT_EQ(ExitCodeOf(PermissionDenied("x"), true), 3);
  EXPECT_EQ(ExitCodeOf(FailedPrecondition("other base"), true), 3);
  EXPECT_EQ(ExitCodeOf(Cancelled("signal 15"), false), 4);
  EXPECT_EQ(ExitCodeOf(Cancelled("x"), true), 3);
}

TEST(ExitCodeTest, ADaemonsEndIsSaidOnceOnStderr) {
  const auto run = [](const Status& status, bool is_refused, std::string* err) {
    ::testing::internal::CaptureStderr();
    const int code = RunDaemon("weft-test", [&](bool* refused) {
      *refused = is_refused;
      return status;
    });
    *err = ::testing::internal::GetCapturedStderr();
    return code;
  };
  std::string err;
  EXPECT_EQ(run(OkStatus(), false, &err), 0);
  EXPECT_EQ(err, "");
  EXPECT_EQ(run(Cancelled("signal 15"), false, &err), 4);
  EXPECT_EQ(err, "weft-test: stopped: signal 15\n");
  EXPECT_EQ(run(PermissionDenied("key revoked"), true, &err), 3);
  EXPECT_EQ(err, "weft-test: error: key revoked\n");
}

// ---- keys ----

class KeysCommandTest : public ::testing::Test {
 protected:
  std::string File(const std::string& name) const { return (temp_.path() / name).string(); }
  TempFolder temp_;
};

TEST_F(KeysCommandTest, ANewKeyIsPrivateAndItsPublicPartIsShown) {
  const Outcome made = Execute(SetUpKeysNew, {"--out", File("site"), "--json"});
  ASSERT_TRUE(made.status.ok()) << made.status;
  const std::string key = Json::parse(made.out)["public_key"];
  struct stat info {};
  ASSERT_EQ(::stat(File("site.secret").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  for (const char* file : {"site.secret", "site.public"}) {
    EXPECT_EQ(Execute(SetUpKeysShow, {File(file)}).out, key + "\n") << file;
    EXPECT_EQ(Json::parse(Execute(SetUpKeysShow, {File(file), "--json"}).out)["public_key"], key);
  }
  EXPECT_EQ(made.out.find(temp_.Read("site.secret").substr(0, 40)), std::string::npos);
  EXPECT_EQ(Execute(SetUpKeysNew, {"--out", File("site")}).status.code(), Code::kAlreadyExists)
      << "a key is never overwritten";
  EXPECT_FALSE(Execute(SetUpKeysNew, {"--out", temp_.path().string() + "/"}).status.ok());
}

TEST_F(KeysCommandTest, SitesAreAllowedListedAndRevoked) {
  ASSERT_TRUE(Execute(SetUpKeysNew, {"--out", File("a")}).status.ok());
  ASSERT_TRUE(Execute(SetUpKeysNew, {"--out", File("b")}).status.ok());
  const std::string list = File("allow.txt");
  ASSERT_TRUE(Execute(SetUpKeysAllow, {File("a.public"), "harbour", "-f", list}).status.ok());
  const Outcome allowed =
      Execute(SetUpKeysAllow, {File("b.secret"), "weaver", "-f", list, "--json"});
  EXPECT_EQ(Json::parse(allowed.out)["name"], "weaver");
  EXPECT_EQ(allowed.out.find(temp_.Read("b.secret").substr(0, 40)), std::string::npos)
      << "the public part of a .secret file, never the file";
  Json sites = Json::parse(Execute(SetUpKeysList, {"-f", list, "--json"}).out)["sites"];
  ASSERT_EQ(sites.size(), 2u);
  EXPECT_EQ(sites[0]["name"], "harbour");
  EXPECT_EQ(Lines(Execute(SetUpKeysList, {"-f", list}).out).size(), 2u);
  ASSERT_TRUE(Execute(SetUpKeysRevoke, {"harbour", "-f", list}).status.ok());
  sites = Json::parse(Execute(SetUpKeysList, {"-f", list, "--json"}).out)["sites"];
  ASSERT_EQ(sites.size(), 1u);
  EXPECT_EQ(sites[0]["name"], "weaver");
  EXPECT_FALSE(Execute(SetUpKeysRevoke, {"harbour", "-f", list}).status.ok());
  EXPECT_FALSE(Execute(SetUpKeysAllow, {"not a key", "x", "-f", list}).status.ok());
}

// ---- init ----

class InitCommandTest : public KeysCommandTest {
 protected:
  void SetUp() override { ASSERT_TRUE(weft::testing::WriteSmallModel(File("model")).ok()); }
  Outcome Init(std::vector<std::string> more) const {
    std::vector<std::string> args = {"--model",    File("model"), "--sites",
                                     "alpha,beta", "--out",       File("fed")};
    args.insert(args.end(), more.begin(), more.end());
    return Execute(SetUpInit, args);
  }
};

TEST_F(InitCommandTest, AFederationsFilesFitTogether) {
  const Outcome made = Init({"--server", "tcp://server.example:7711", "--rank", "8", "--set",
                             "run.num-server-rounds=9", "--json"});
  ASSERT_TRUE(made.status.ok()) << made.status;
  const Json json = Json::parse(made.out);
  EXPECT_EQ(json["sites"]["beta"], File("fed") + "/beta.toml");
  SettingsSource source;
  source.environment = false;
  source.file = json["run"].get<std::string>();
  const Result<Settings> server = LoadSettings(source);
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_EQ(server->run.num_server_rounds, 9);
  EXPECT_EQ(server->server.bind, "tcp://0.0.0.0:7711") << "reached from elsewhere: on every card";
  ASSERT_EQ(server->clients.size(), 2u);
  EXPECT_EQ(server->clients[1].name, "beta");
  EXPECT_EQ(server->clients[1].rank, "8");
  source.file = json["sites"]["alpha"].get<std::string>();
  const Result<Settings> site = LoadSettings(source);
  ASSERT_TRUE(site.ok()) << site.status();
  EXPECT_EQ(site->server.address, "tcp://server.example:7711");
  ASSERT_EQ(site->clients.size(), 1u);
  EXPECT_EQ(site->clients[0].name, "alpha");
  // The key the site holds is the one the server allows, and the server's the one the site expects.
  const Result<AllowList> list = AllowList::Load(File("fed/allow.txt"));
  ASSERT_TRUE(list.ok()) << list.status();
  for (const auto& [name, key] : list->entries()) {
    EXPECT_EQ(LoadSecretKey(File("fed/" + name.name + ".secret"))->public_key, key);
  }
  EXPECT_EQ(list->entries().size(), 2u);
  EXPECT_EQ(site->server.public_key, LoadSecretKey(File("fed/server.secret"))->public_key);
}

TEST_F(InitCommandTest, AServerOnThisMachineListensThereAlone) {
  ASSERT_TRUE(Init({"--server", "tcp://127.0.0.1:9000"}).status.ok());
  SettingsSource source;
  source.environment = false;
  source.file = File("fed/run.toml");
  EXPECT_EQ(LoadSettings(source)->server.bind, "tcp://127.0.0.1:9000");
}

TEST_F(InitCommandTest, AFederationIsNeverOverwrittenAndNonsenseIsRefused) {
  EXPECT_FALSE(Init({"--server", "udp://x:1"}).status.ok());
  EXPECT_FALSE(fs::exists(File("fed/run.toml"))) << "nothing is left of a refused one";
  ASSERT_TRUE(Init({}).status.ok());
  const std::string before = temp_.Read("fed/server.secret");
  EXPECT_EQ(Init({}).status.code(), Code::kAlreadyExists);
  EXPECT_EQ(temp_.Read("fed/server.secret"), before);
  EXPECT_FALSE(Execute(SetUpInit, {"--model", File("none"), "--sites", "a", "--out", File("f2")})
                   .status.ok());
  EXPECT_FALSE(Execute(SetUpInit, {"--model", File("model"), "--sites", "a/b", "--out", File("f3")})
                   .status.ok());
}

// ---- bench merge ----

TEST(BenchMergeTest, ItReportsTheMergeOfAnyStrategyAndItsCertificate) {
  for (const char* strategy : {"exact-svd", "fedavg", "flora"}) {
    const Outcome outcome =
        Execute(SetUpBenchMerge, {"--clients", "3", "--ranks", "2,4", "--modules", "2", "--dim",
                                  "48", "32", "--strategy", strategy, "--repeat", "1", "--json"});
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    const Json json = Json::parse(outcome.out);
    EXPECT_GT(json["merge_s"].get<double>(), 0);
    EXPECT_LE(json["error_before_truncation"].get<double>(), 1e-6) << strategy;
    // Two layers of 80 numbers a rank, ranks 2, 4, 2, four bytes each; beside names and shapes.
    EXPECT_GE(json["payload_mb"].get<double>(), 2 * 80 * 8 * 4 / 1e6) << strategy;
  }
  EXPECT_FALSE(Execute(SetUpBenchMerge, {"--strategy", "krum"}).status.ok());
}

}  // namespace
}  // namespace weft::cli
