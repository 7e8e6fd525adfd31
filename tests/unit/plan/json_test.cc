#include "common/plan/json.h"

#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include <gtest/gtest.h>

#include "common/base/random.h"

namespace weft {
namespace {

// Random values of every kind, the nasty ones among them.
class Maker {
 public:
  explicit Maker(uint64_t seed) : random_(seed) {}

  double Number() {
    static constexpr double kOdd[] = {0.0,
                                      -0.0,
                                      0.1,
                                      1.0 / 3.0,
                                      5e-324,
                                      2.2250738585072014e-308,
                                      1.7976931348623157e308,
                                      std::numeric_limits<double>::infinity(),
                                      -std::numeric_limits<double>::infinity(),
                                      9007199254740993.0};
    if (random_.Below(3) == 0) return kOdd[random_.Below(std::size(kOdd))];
    return random_.Normal() * std::pow(10.0, static_cast<double>(random_.Below(600)) - 300);
  }
  std::string Text() {
    static const char* kPieces[] = {"q_proj", "\"", "\\", "ü", "\n", "𝛼", ".*", "/", "\t", ""};
    std::string text;
    for (uint64_t n = random_.Below(4); n > 0; --n) text += kPieces[random_.Below(10)];
    return text;
  }
  int64_t Signed() {
    const auto bits = static_cast<int64_t>(random_.NextU64());
    return random_.Below(2) == 0 ? bits : bits % 100;
  }
  uint64_t Unsigned() { return random_.Below(2) == 0 ? random_.NextU64() : random_.Below(100); }
  bool Coin() { return random_.Below(2) == 0; }
  RoundId Round() { return {random_.NextU32()}; }
  template <typename F>
  auto List(F make) {
    std::vector<decltype(make())> list;
    for (uint64_t n = random_.Below(4); n > 0; --n) list.push_back(make());
    return list;
  }
  auto Texts() {
    return List([this] { return Text(); });
  }
  Metrics Numbers() {
    return List([this] { return std::pair(Text(), Number()); });
  }

  AdapterSpec Spec() {
    return {.method = Text(),
            .rank = Signed(),
            .alpha = Number(),
            .rslora = Coin(),
            .dropout = Number(),
            .target_modules = Texts(),
            .target_regex = Text(),
            .exclude_modules = Texts(),
            .layers_to_transform = List([this] { return Signed(); }),
            .layers_pattern = Text(),
            .rank_pattern = List([this] { return std::pair(Text(), Signed()); }),
            .alpha_pattern = Numbers(),
            .modules_to_save = Texts(),
            .labels = Texts(),
            .options = List([this] { return std::pair(Text(), Text()); })};
  }
  LocalTraining Training() {
    LocalTraining t;
    t.objective = Text();
    t.fedprox_mu = Number();
    t.local_steps = Signed();
    t.local_epochs = Signed();
    t.batch_size = Signed();
    t.micro_batch_size = Signed();
    t.max_len = Signed();
    t.packing = Coin();
    t.row_order = Text();
    t.long_rows = Text();
    t.dtype = Text();
    t.gradient_checkpointing = Coin();
    t.optimizer = Text();
    t.lr = Number();
    t.beta1 = Number();
    t.beta2 = Number();
    t.eps = Number();
    t.weight_decay = Number();
    t.grad_clip = Number();
    t.schedule = Text();
    t.warmup_steps = Signed();
    t.schedule_steps = Signed();
    t.steps_done = Signed();
    t.keep_optimizer = Coin();
    return t;
  }
  ClientPlan Client() { return {.client = {Text()}, .adapter = Spec(), .merged = Round()}; }
  RoundPlan Plan() {
    return {.run = {Text()},
            .round = Round(),
            .version = Round(),
            .num_server_rounds = random_.NextU32(),
            .base_hash = Text(),
            .seed = Unsigned(),
            .strategy = Text(),
            .codec = Text(),
            .training = Training(),
            .cohort = List([this] { return Client(); }),
            .evaluators = List([this] { return ClientId{Text()}; }),
            .deadline_s = Number(),
            .delta = Coin(),
            .top_k = Number(),
            .error_feedback = Coin(),
            .compress = Coin(),
            .down_codec = Text()};
  }
  UpdateHeader Header() {
    return {.run = {Text()},
            .round = Round(),
            .client = {Text()},
            .version = Round(),
            .base_hash = Text(),
            .spec = Spec(),
            .codec = Text(),
            .num_examples = Unsigned(),
            .label_tokens = Unsigned(),
            .steps = Unsigned(),
            .train_loss = Number(),
            .metrics = Numbers(),
            .times = {Number(), Number(), Number(), Number(), Number()},
            .payload_bytes = Unsigned(),
            .payload_sha256 = Text()};
  }
  Capabilities Offer() {
    return {Text(),   Text(),     Unsigned(),
            Signed(), Unsigned(), Unsigned(),
            Texts(),  Texts(),    static_cast<uint32_t>(Unsigned())};
  }
  EvalReport Report() {
    return {{Text()}, Round(), {Text()}, Number(), Unsigned(), Unsigned(), Number()};
  }
  Certificate Proof() {
    Certificate c;
    c.target_norm = Number();
    c.error_before_truncation = Number();
    c.error_published = Number();
    c.error_to_ideal = Number();
    c.tail_energy = Number();
    c.error_codec = Number();
    c.effective_rank = Number();
    c.rank = Signed();
    c.sites = List([this] {
      Certificate::Site site;
      site.path = Text();
      site.error_before_truncation = Number();
      site.error_published = Number();
      site.error_to_ideal = Number();
      site.tail_energy = Number();
      site.effective_rank = Number();
      site.rank = Signed();
      return site;
    });
    c.client_norms = Numbers();
    c.client_cosines = Numbers();
    c.error_rule = Number();
    c.energy_by_rank = Numbers();
    c.client_coefficients = Numbers();
    c.client_remarks = List([this] { return std::pair(Text(), Text()); });
    c.notes = Texts();
    return c;
  }

 private:
  RandomStream random_;
};

template <typename T, typename Make, typename Back>
void RoundTrips(Make make, Back back) {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    Maker maker(seed);
    const T value = (maker.*make)();
    const std::string text = ToJson(value);
    EXPECT_EQ(text.find('\n'), std::string::npos) << "one line: " << text;
    const Result<T> again = back(text);
    ASSERT_TRUE(again.ok()) << again.status() << "\n" << text;
    ASSERT_EQ(*again, value) << text;
    ASSERT_EQ(ToJson(*again), text);  // tells −0.0 from 0.0, which == does not
  }
}

TEST(PlanJsonTest, EveryStructRoundTripsToTheLastBit) {
  RoundTrips<AdapterSpec>(&Maker::Spec, AdapterSpecFromJson);
  RoundTrips<LocalTraining>(&Maker::Training, LocalTrainingFromJson);
  RoundTrips<ClientPlan>(&Maker::Client, ClientPlanFromJson);
  RoundTrips<RoundPlan>(&Maker::Plan, RoundPlanFromJson);
  RoundTrips<UpdateHeader>(&Maker::Header, UpdateHeaderFromJson);
  RoundTrips<Capabilities>(&Maker::Offer, CapabilitiesFromJson);
  RoundTrips<EvalReport>(&Maker::Report, EvalReportFromJson);
  RoundTrips<Certificate>(&Maker::Proof, CertificateFromJson);
}

TEST(PlanJsonTest, NanLossSurvives) {
  EvalReport report;
  report.loss = std::nan("");
  EXPECT_TRUE(std::isnan(EvalReportFromJson(ToJson(report))->loss));
}

TEST(PlanJsonTest, UnknownFieldsAreIgnoredAndMissingOptionalOnesKeepTheirDefaults) {
  const Result<AdapterSpec> spec =
      AdapterSpecFromJson(R"({"method":"lora","rank":4,"alpha":8,"from_the_future":{"x":[1]}})");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->rank, 4);
  AdapterSpec expected;
  expected.rank = 4;
  expected.alpha = 8;
  EXPECT_EQ(*spec, expected);
}

TEST(PlanJsonTest, ErrorsNameTheFieldWithItsPath) {
  const auto message = [](const std::string& text) {
    return RoundPlanFromJson(text).status().ToString();
  };
  EXPECT_NE(message("{}").find("run: missing"), std::string::npos) << message("{}");
  RoundPlan plan = Maker(3).Plan();
  plan.cohort = {{.client = {"a"}, .adapter = {}}, {.client = {"b"}, .adapter = {}}};
  std::string text = ToJson(plan);
  const size_t at = text.rfind("\"rank\":8");
  ASSERT_NE(at, std::string::npos);
  text.replace(at, 8, "\"rank\":\"x\"");
  EXPECT_NE(message(text).find("cohort[1].adapter.rank: got \"x\", wanted an integer"),
            std::string::npos)
      << message(text);
}

TEST(PlanJsonTest, HostileTextIsAnErrorNotACrash) {
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  const std::vector<std::string> texts = {
      "",
      "{",
      "[]",
      "null",
      "\"x\"",
      deep,
      "{\"method\":" + deep + "}",
      R"({"method":"lora","rank":1e400,"alpha":1})",
      R"({"method":"lora","rank":99999999999999999999,"alpha":1})",
      R"({"method":"lora","rank":18446744073709551615,"alpha":1})",
      R"({"method":"lora","rank":1.5,"alpha":1})",
      R"({"method":"lora","rank":1,"alpha":"one"})",
      R"({"method":"lora","rank":1,"alpha":1,"target_modules":"all"})",
      R"({"method":"lora","rank":1,"alpha":1,"rank_pattern":[["a"]]})",
      "{\"method\":\"\xff\xfe\",\"rank\":1,\"alpha\":1}",
  };
  for (const std::string& text : texts) {
    EXPECT_EQ(AdapterSpecFromJson(text).status().code(), Code::kInvalidArgument)
        << text.substr(0, 80);
  }
  EXPECT_FALSE(RoundPlanFromJson(R"({"round":-1})").ok());
}

TEST(PlanJsonTest, BytesThatAreNoUtf8AreReplacedWhenWriting) {
  Capabilities offer;
  offer.software = "weft \xff";
  const Result<Capabilities> again = CapabilitiesFromJson(ToJson(offer));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->software, "weft \xEF\xBF\xBD");
}

}  // namespace
}  // namespace weft
