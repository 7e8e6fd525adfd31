// With --json a machine reads stdout: exactly one JSON document and nothing else, whatever goes to
// stderr; and what cannot be written is a failure.

#include <cstdlib>

#include <gtest/gtest.h>
#include <sys/wait.h>

#include "tests/integration/bad_input/damaged_model.h"

namespace weft::testing {
namespace {

using Json = nlohmann::json;

/// The document, or null with a failure.
Json OneDocument(const Ran& ran) {
  EXPECT_TRUE(Succeeded(ran));
  EXPECT_TRUE(Json::accept(ran.out)) << ran.line << "\n" << ran.out;
  EXPECT_TRUE(ran.out.ends_with('\n') && ran.out.find('\n') + 1 == ran.out.size())
      << ran.line << "\n"
      << ran.out;
  return Json::parse(ran.out, nullptr, false);
}

TEST(JsonOutputTest, EveryCommandThatOffersItPrintsOneDocument) {
  const TempFolder temp;
  const auto in = [&](const char* name) { return (temp.path() / name).string(); };
  const std::string model = kTinyModel.string();
  const auto weft = [](std::vector<std::string> arguments) {
    arguments.emplace_back("--json");
    return OneDocument(Execute("weft", arguments));
  };
  EXPECT_EQ(weft({"version"})["weft"], "0.1.0");
  EXPECT_TRUE(weft({"eval", "--model", model, "--data", kTinyRows, "--max-rows", "2"})
                  .contains("perplexity"));
  EXPECT_TRUE(weft({"generate", "--model", model, "--prompt", "the", "--max-new-tokens", "2"})
                  .contains("ids"));
  EXPECT_EQ(weft({"train", "--model", model, "--data", kTinyRows, "--out", in("adapter"), "--steps",
                  "2", "--rank", "2", "--threads", "1"})["step_loss"]
                .size(),
            2U);
  EXPECT_EQ(weft({"adapter", "inspect", in("adapter")})["rank"], 2);
  EXPECT_EQ(weft({"adapter", "import", in("adapter"), "--out", in("a.block")})["out"],
            in("a.block"));
  EXPECT_EQ(weft({"adapter", "export", in("a.block"), "--out", in("back")})["out"], in("back"));
  EXPECT_EQ(weft({"adapter", "merge", "--model", model, "--adapter", in("adapter"), "--out",
                  in("merged")})["out"],
            in("merged"));
  EXPECT_TRUE(weft({"bench", "train", "--model", model, "--data", kTinyRows, "--steps", "1",
                    "--batch", "1"})
                  .contains("tokens_per_s"));
  EXPECT_TRUE(
      weft({"bench", "merge", "--modules", "1", "--dim", "8", "8", "--ranks", "2", "--repeat", "1"})
          .contains("merge_s"));
  EXPECT_TRUE(weft({"bench", "round", "--clients", "1", "--payload-mb", "0.1", "--rounds", "1"})
                  .contains("round_s"));
  EXPECT_TRUE(weft({"keys", "new", "--out", in("site")}).contains("public_key"));
  EXPECT_TRUE(weft({"keys", "show", in("site.secret")}).contains("public_key"));
  EXPECT_EQ(weft({"keys", "allow", in("site.public"), "alpha", "-f", in("allow")})["name"],
            "alpha");
  EXPECT_EQ(weft({"keys", "list", "-f", in("allow")})["sites"].size(), 1U);
  EXPECT_EQ(weft({"keys", "revoke", "alpha", "-f", in("allow")})["revoked"], "alpha");
  EXPECT_TRUE(weft({"init", "--model", model, "--sites", "alpha,beta", "--out", in("fed")})
                  .contains("sites"));
  EXPECT_TRUE(weft({"runs", "list", temp.path().string()}).is_structured());
}

TEST(JsonOutputTest, TheSimulatorsReportIsOneDocumentBesideItsLog) {
  const auto run = std::filesystem::path(WEFT_SOURCE_DIR) / "examples" / "tiny" / "run.toml";
  const Ran ran = Execute("weft-sim", {run.string(), "--set", "run.num-server-rounds=1", "--set",
                                       "train.local-steps=1", "--workers", "1", "--json"});
  const Json report = OneDocument(ran);
  EXPECT_EQ(report["clients"], 3);
  EXPECT_EQ(report["eval_loss"].size(), 2U);
  for (const char* error : {"error_before_truncation", "error_published", "error_to_ideal"}) {
    ASSERT_EQ(report[error].size(), 1U) << error;  // one a round
    EXPECT_GE(report[error][0].get<double>(), 0) << error;
  }
  EXPECT_LE(report["error_before_truncation"][0].get<double>(), 1e-6);
  EXPECT_NE(ran.err.find("memory plan"), std::string::npos) << ran.err;
}

TEST(JsonOutputTest, OutputThatCannotBeWrittenIsAFailure) {
  // The shell's redirection, for /dev/full fails like a disk without room.
  const std::string line = std::string(WEFT_BIN_DIR) + "/weft config reference > /dev/full 2>&1";
  EXPECT_EQ(WEXITSTATUS(std::system(line.c_str())), 1);
}

}  // namespace
}  // namespace weft::testing
