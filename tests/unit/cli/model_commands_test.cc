// `weft eval`, `generate`, `tokenize` and `bench train` on a small random model: what they print
// for people and for machines, and that it is what the library computes.

#include <cmath>
#include <cstdio>

#include <nlohmann/json.hpp>

#include "cli/set_up.h"
#include "common/adapters/peft_io.h"
#include "common/evaluate/evaluate_rows.h"
#include "common/formats/utf8.h"
#include "common/model/bind_adapter.h"
#include "common/model/generate.h"
#include "tests/support/small_model.h"
#include "tests/support/temp_folder.h"
#include "tests/unit/cli/execute.h"

namespace weft::cli {
namespace {

using Json = nlohmann::json;

class ModelCommandsTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<weft::testing::TempFolder>();
    ASSERT_TRUE(weft::testing::WriteSmallModel(folder_->path() / "model").ok());
    std::string rows;
    for (int i = 0; i < 10; ++i) {
      rows += Json{{"prompt", "ship " + std::to_string(i)},
                   {"completion", std::string(static_cast<size_t>(1 + i % 4), 'a')}}
                  .dump() +
              "\n";
    }
    folder_->Write("rows.jsonl", rows);
    AdapterSpec spec;
    spec.rank = 2;
    spec.target_modules = {"q_proj", "up_proj"};
    const auto model = LoadModel();
    AdapterState state = *(*FindAdapter("lora"))->Init(spec, *MatchSites(spec, model->sites()), 1);
    for (SiteState& site : state.sites) site.Get("B").fill_(0.1);
    ASSERT_TRUE(WritePeft(state, folder_->path() / "adapter", {}).ok());
  }
  static void TearDownTestSuite() { folder_.reset(); }

  static std::string File(const std::string& name) { return (folder_->path() / name).string(); }
  static std::shared_ptr<Model> LoadModel(LoadOptions options = {}) {
    return *Model::Load(folder_->path() / "model", options);
  }

  static TokenRows Rows(int64_t max_len) {
    const auto tokenizer = Tokenizer::Load(File("model")).value();
    TokenizeOptions options;
    options.max_len = max_len;
    return *TokenizeRows(*ReadRows(File("rows.jsonl"), 0), *tokenizer, options);
  }

  static Outcome Eval(const std::vector<std::string>& more) {
    return Execute(
        SetUpEval,
        Over({{"--model", File("model")}, {"--data", File("rows.jsonl")}, {"--threads", "1"}},
             more));
  }
  static Json EvalJson(std::vector<std::string> more) {
    more.push_back("--json");
    const Outcome outcome = Eval(more);
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_EQ(Lines(outcome.out).size(), 1u) << outcome.out;
    return outcome.status.ok() ? Json::parse(outcome.out) : Json();
  }
  static Json Generated(std::vector<std::string> more) {
    std::vector<std::string> args = {"--model",   File("model"), "--prompt", "the ship",
                                     "--threads", "1",           "--json"};
    args.insert(args.end(), more.begin(), more.end());
    const Outcome outcome = Execute(SetUpGenerate, args);
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    return outcome.status.ok() ? Json::parse(outcome.out) : Json();
  }

  inline static std::unique_ptr<weft::testing::TempFolder> folder_;
};

// ---- eval ----

TEST_F(ModelCommandsTest, EvalIsTheLibrarysLossOfTheFilesRows) {
  const auto model = LoadModel();
  const TokenRows rows = Rows(model->config().max_positions);
  JobControl control;
  const RowsLoss wanted = *EvaluateRows(*model, {}, rows.rows, 3, control);
  const Json json = EvalJson({});
  EXPECT_NEAR(json["loss"].get<double>(), wanted.loss, 1e-6 * wanted.loss);
  EXPECT_NEAR(json["perplexity"].get<double>(), std::exp(wanted.loss),
              1e-5 * std::exp(wanted.loss));
  EXPECT_EQ(json["label_tokens"], wanted.label_tokens);
  EXPECT_EQ(json["rows"], 10);
  // However the rows are cut into passes.
  EXPECT_NEAR(EvalJson({"--batch", "1"})["loss"].get<double>(), wanted.loss, 1e-6 * wanted.loss);
}

TEST_F(ModelCommandsTest, EvalOfFewerAndShorterRowsCountsThem) {
  const Json few = EvalJson({"--max-rows", "4"});
  EXPECT_EQ(few["rows"], 4);
  EXPECT_LT(few["label_tokens"], EvalJson({})["label_tokens"]);
  size_t longest = 0;
  for (const TokenRow& row : Rows(64).rows) longest = std::max(longest, row.ids.size());
  const Json cut = EvalJson({"--max-len", std::to_string(longest - 1)});
  EXPECT_GT(cut["rows_cut"].get<int>() + cut["rows_without_label"].get<int>(), 0);
  EXPECT_LT(cut["rows_cut"].get<int>() + cut["rows_without_label"].get<int>(), 10);
}

TEST_F(ModelCommandsTest, EvalPutsTheAdapterOnTheModel) {
  const double plain = EvalJson({})["loss"];
  const double adapted = EvalJson({"--adapter", File("adapter")})["loss"];
  EXPECT_GT(std::abs(adapted - plain), 1e-4);
  const auto model = LoadModel();
  const PeftFolder peft = *ReadPeft(File("adapter"), model->sites());
  const TokenRows rows = Rows(model->config().max_positions);
  JobControl control;
  const at::NoGradGuard no_grad;
  const AdapterBinding binding = {*FactorsFor(*model, peft.state)};
  EXPECT_NEAR(adapted, EvaluateRows(*model, binding, rows.rows, 8, control)->loss, 1e-5);
}

TEST_F(ModelCommandsTest, EvalInBfloat16IsNearlyTheSame) {
  const double exact = EvalJson({})["loss"];
  EXPECT_NEAR(EvalJson({"--dtype", "bfloat16"})["loss"].get<double>(), exact, 0.02 * exact);
}

TEST_F(ModelCommandsTest, EvalForPeopleSaysTheSame) {
  const Outcome outcome = Eval({});
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  const Json json = EvalJson({});
  std::ostringstream loss;
  loss << "loss " << json["loss"].get<double>();
  EXPECT_NE(outcome.out.find(loss.str()), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find(json["label_tokens"].dump() + " label tokens"), std::string::npos);
  EXPECT_NE(outcome.out.find("10 rows"), std::string::npos);
}

TEST_F(ModelCommandsTest, EvalSaysWhichLineIsBrokenAndWhichFileIsMissing) {
  const auto error = [&](const std::vector<std::string>& more) { return Eval(more).status; };
  folder_->Write("broken.jsonl", "{\"text\": \"fine\"}\n{\"prompt\": \"no completion\"}\n");
  const Status broken = error({"--data", File("broken.jsonl")});
  EXPECT_NE(broken.message().find("broken.jsonl:2"), std::string::npos) << broken;
  EXPECT_NE(error({"--data", File("none.jsonl")}).message().find("none.jsonl"), std::string::npos);
  EXPECT_NE(error({"--model", File("none")}).message().find("none"), std::string::npos);
  EXPECT_NE(error({"--adapter", File("none")}).message().find("none"), std::string::npos);
  EXPECT_NE(error({"--max-len", "65"}).message().find("context is 64"), std::string::npos);
  EXPECT_NE(error({"--dtype", "float8"}).message().find("float8"), std::string::npos);
  EXPECT_NE(error({"--device", "tpu"}).message().find("tpu"), std::string::npos);
}

// ---- generate ----

TEST_F(ModelCommandsTest, GenerateGivesTheLibrarysTokens) {
  const Json json = Generated({"--max-new-tokens", "12", "--temperature", "0", "--ignore-eos"});
  const auto tokenizer = Tokenizer::Load(File("model")).value();
  std::vector<int64_t> prompt;
  for (const int32_t id : tokenizer->Encode("the ship", true)) prompt.push_back(id);
  EXPECT_EQ(json["prompt_ids"], Json(prompt));
  const auto wanted = *Generate(*LoadModel(), {}, prompt, {.max_new_tokens = 12});
  EXPECT_EQ(json["ids"], Json(wanted));
  EXPECT_EQ(json["stopped"], false);
}

TEST_F(ModelCommandsTest, GenerateShowsTheContinuationAloneInValidUtf8) {
  const Outcome outcome =
      Execute(SetUpGenerate, {"--model", File("model"), "--prompt", "the ship", "--max-new-tokens",
                              "20", "--temperature", "2", "--seed", "3", "--ignore-eos"});
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_TRUE(IsValidUtf8(outcome.out)) << "bytes that are none show as U+FFFD";
  EXPECT_EQ(outcome.out.back(), '\n');
  EXPECT_EQ(outcome.out.find("the ship"), std::string::npos);
  EXPECT_EQ(Generated({"--max-new-tokens", "20", "--temperature", "2", "--seed", "3",
                       "--ignore-eos"})["text"]
                    .get<std::string>() +
                "\n",
            outcome.out);
}

TEST_F(ModelCommandsTest, TheSeedDecidesWhatIsSampled) {
  const std::vector<std::string> sampling = {"--temperature", "1.5",   "--max-new-tokens", "16",
                                             "--ignore-eos",  "--seed"};
  const auto ids = [&](const char* seed) {
    std::vector<std::string> args = sampling;
    args.emplace_back(seed);
    return Generated(args)["ids"];
  };
  EXPECT_EQ(ids("1"), ids("1"));
  EXPECT_NE(ids("1"), ids("2"));
}

TEST_F(ModelCommandsTest, GenerateRefusesWhatItCannotDo) {
  const auto error = [&](std::vector<std::string> more) {
    std::vector<std::string> args = {"--model", File("model"), "--prompt", "x"};
    args.insert(args.end(), more.begin(), more.end());
    return Execute(SetUpGenerate, args).status.message();
  };
  EXPECT_NE(error({"--temperature", "-1"}).find("temperature"), std::string::npos);
  EXPECT_NE(error({"--top-p", "0"}).find("top-p"), std::string::npos);
  EXPECT_NE(error({"--chat"}).find("--chat-template"), std::string::npos);
  EXPECT_THROW(error({"--chat", "--chat-template", "polite"}), CLI::ValidationError);
}

// ---- tokenize ----

// What the command reads on stdin, as long as this lives; glibc's stdin is a variable.
class WithStdin {
 public:
  explicit WithStdin(std::string text) : text_(std::move(text)) {
    stdin = ::fmemopen(text_.data(), text_.size(), "r");
  }
  ~WithStdin() {
    std::fclose(stdin);
    stdin = before_;
  }
  WithStdin(const WithStdin&) = delete;
  WithStdin& operator=(const WithStdin&) = delete;

 private:
  std::string text_;
  std::FILE* before_ = stdin;
};

TEST_F(ModelCommandsTest, TokenizeWritesOneArrayALineAndSkipsBlankOnes) {
  const auto tokenizer = Tokenizer::Load(File("model")).value();
  const WithStdin in("{\"text\": \"the ship\"}\n\n{\"text\": \"\"}\n{\"text\": \"sails\\n\"}");
  const Outcome outcome = Execute(SetUpTokenize, {"--model", File("model")});
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  const std::vector<std::string> lines = Lines(outcome.out);
  ASSERT_EQ(lines.size(), 3u) << outcome.out;
  EXPECT_EQ(Json::parse(lines[0]), Json(tokenizer->Encode("the ship", false)));
  EXPECT_EQ(lines[1], "[]");
  EXPECT_EQ(Json::parse(lines[2]), Json(tokenizer->Encode("sails\n", false)));
}

TEST_F(ModelCommandsTest, TokenizeAddsSpecialTokensWhereAsked) {
  const auto tokenizer = Tokenizer::Load(File("model")).value();
  const WithStdin in("{\"text\": \"the ship\"}\n");
  const Outcome outcome = Execute(SetUpTokenize, {"--model", File("model"), "--special"});
  EXPECT_EQ(Json::parse(outcome.out), Json(tokenizer->Encode("the ship", true)));
}

TEST_F(ModelCommandsTest, TokenizeNamesTheLineItCannotRead) {
  for (const char* line : {"no json", "[1]", "{\"txt\": \"x\"}", "{\"text\": 5}"}) {
    const WithStdin in(std::string("{\"text\": \"fine\"}\n") + line + "\n");
    const Outcome outcome = Execute(SetUpTokenize, {"--model", File("model")});
    EXPECT_FALSE(outcome.status.ok()) << line;
    EXPECT_NE(outcome.status.message().find("stdin:2"), std::string::npos) << outcome.status;
    EXPECT_EQ(Lines(outcome.out).size(), 1u) << "what was read before is written";
  }
}

// ---- bench ----

TEST_F(ModelCommandsTest, BenchTrainReportsItsStepsAndTheLossOfThePlainModelFirst) {
  const Outcome outcome =
      Execute(SetUpBenchTrain,
              {"--model", File("model"), "--data", File("rows.jsonl"), "--rank", "2", "--batch",
               "2", "--steps", "4", "--max-len", "32", "--threads", "1", "--json"});
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  const Json json = Json::parse(outcome.out);
  ASSERT_EQ(json["losses"].size(), 5u) << "an untimed one and four";
  for (const char* key : {"s_per_step", "tokens_per_s", "label_tokens_per_s", "peak_rss_mb"}) {
    EXPECT_GT(json[key].get<double>(), 0) << key;
  }
  EXPECT_GT(json["tokens_per_s"], json["label_tokens_per_s"]);
  // A fresh adapter changes nothing, so the first loss is the model's on the first two rows.
  const double first = EvalJson({"--max-rows", "2", "--max-len", "32"})["loss"];
  EXPECT_NEAR(json["losses"][0].get<double>(), first, 1e-5 * first);
}

TEST_F(ModelCommandsTest, BenchTrainNeedsEnoughRows) {
  const Status status =
      Execute(SetUpBenchTrain, {"--model", File("model"), "--data", File("rows.jsonl"), "--batch",
                                "8", "--steps", "4"})
          .status;
  EXPECT_NE(status.message().find("40 needed"), std::string::npos) << status;
}

}  // namespace
}  // namespace weft::cli
