#include "client/train_work.h"

#include <cmath>

#include <gtest/gtest.h>

#include "client/training_state.h"
#include "common/adapters/adapter.h"
#include "common/adapters/match.h"
#include "common/codec/adapter_block.h"
#include "common/crypto/digest.h"
#include "tests/support/small_model.h"
#include "tests/support/temp_folder.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

class TrainWorkTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    at::set_num_threads(1);
    folder_ = std::make_unique<testing::TempFolder>();
    ASSERT_TRUE(testing::WriteSmallModel(folder_->path()).ok());
  }

  void SetUp() override {
    Site::Parts parts;
    parts.client = {"harbour"};
    parts.models = std::make_shared<ModelShelf>(folder_->path(), at::Device(at::kCPU));
    parts.tokenizer = Tokenizer::Load(folder_->path()).value();
    for (int i = 0; i < 6; ++i) {
      Row row;
      row.kind = RowKind::kPrompt;
      row.prompt = "ship " + std::to_string(i);
      row.completion = "sails at " + std::to_string(i);
      parts.train.push_back(row);
      parts.validation.push_back(row);
    }
    site_ = std::make_unique<Site>(std::move(parts));
  }

  TrainJob Job() const {
    TrainJob job;
    job.client = {"harbour"};
    job.plan.run = {"run"};
    job.plan.round = {1};
    job.plan.num_server_rounds = 2;
    job.plan.seed = 9;
    job.plan.base_hash = "abc";
    job.plan.training.local_steps = 3;
    job.plan.training.batch_size = 2;
    job.plan.training.lr = 1e-2;
    AdapterSpec spec;
    spec.rank = 2;
    spec.target_modules = {"q_proj", "v_proj"};
    job.plan.cohort = {{job.client, spec}};
    return job;
  }

  Result<TrainJob::Output> Run(const TrainJob& job) {
    JobControl control;
    return TrainRound(*site_, job, control, [&](const std::string& text) { notice_ = text; });
  }

  // A fresh adapter of that spec on the small model.
  AdapterState Start(const AdapterSpec& spec) const {
    const std::vector<LinearSite> sites =
        MatchSites(spec, (*site_->models().Any())->sites()).value();
    return FindAdapter(spec.method).value()->Init(spec, sites, 3).value();
  }

  static std::unique_ptr<testing::TempFolder> folder_;
  std::unique_ptr<Site> site_;
  std::string notice_;
};

std::unique_ptr<testing::TempFolder> TrainWorkTest::folder_;

TEST_F(TrainWorkTest, UpdateDecodesToTheAdapterItsHeaderDescribes) {
  const TrainJob job = Job();
  const auto output = Run(job);
  ASSERT_TRUE(output.ok()) << output.status();
  const UpdateHeader& header = output->header;
  EXPECT_EQ(header.run, job.plan.run);
  EXPECT_EQ(header.client, job.client);
  EXPECT_EQ(header.base_hash, "abc");
  EXPECT_EQ(header.spec, job.plan.cohort[0].adapter);
  EXPECT_EQ(header.steps, 3u);
  EXPECT_EQ(header.num_examples, 6u);
  EXPECT_EQ(header.payload_bytes, output->payload.size());
  EXPECT_EQ(header.payload_sha256, Sha256Hex(output->payload.span()));
  const auto bundle = DecodeBundle(output->payload, at::kCPU);
  ASSERT_TRUE(bundle.ok()) << bundle.status();
  ASSERT_TRUE(bundle->adapter.has_value());
  EXPECT_EQ(bundle->adapter->sites.size(), 4u);
  EXPECT_GT(bundle->adapter->sites[0].Get("B").abs().max().item<float>(), 0);
  double update_norm = -1;
  for (const auto& [name, value] : header.metrics) {
    if (name == "update_norm") update_norm = value;
  }
  // What was sent had B = 0: the update is the whole adapter.
  double square = 0;
  const LowRankAdapter trained = *Lower(*bundle->adapter);
  for (const LowRankSite& site : trained) {
    square += at::matmul(site.factors.B_OR, site.factors.A_RI).square().sum().item<double>();
  }
  EXPECT_NEAR(update_norm, std::sqrt(square), 1e-3 * std::sqrt(square));
  EXPECT_GT(square, 0);
}

TEST_F(TrainWorkTest, MomentsAreKeptOnlyWhereAskedFor) {
  TrainJob job = Job();
  EXPECT_FALSE(DecodeTrainingState(Run(job)->local_state)->moments.has_value());
  job.plan.training.keep_optimizer = true;
  EXPECT_TRUE(DecodeTrainingState(Run(job)->local_state)->moments.has_value());
}

TEST_F(TrainWorkTest, SameJobSameBytes) {
  EXPECT_EQ(Run(Job())->header.payload_sha256, Run(Job())->header.payload_sha256);
}

TEST_F(TrainWorkTest, StartComesFromTheBundle) {
  const auto first = Run(Job());
  TrainJob next = Job();
  next.bundle = first->payload;
  next.plan.training.lr = 0;
  const auto second = Run(next);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->header.payload_sha256, first->header.payload_sha256);
}

TEST_F(TrainWorkTest, BundleOfAnotherSpecIsRefused) {
  TrainJob next = Job();
  next.bundle = Run(Job())->payload;
  next.plan.cohort[0].adapter.rank = 3;
  EXPECT_EQ(Run(next).status().code(), Code::kInvalidArgument);
}

// What KaSA takes out of the base is one thing for all sites and rounds: another one, or none, is
// another base model.
TEST_F(TrainWorkTest, ABaseChangeOtherThanThePlansIsRefused) {
  AdapterSpec spec = Job().plan.cohort[0].adapter;
  AdapterBundle bundle;
  bundle.base_change = Start(spec);
  const std::string hash = *AdapterSha256(*bundle.base_change);
  TrainJob job = Job();
  job.bundle = *EncodeBundle(bundle, **FindCodec("float32"));
  EXPECT_NE(Run(job).status().message().find(hash), std::string::npos) << "the plan names none";
  job.plan.cohort[0].adapter.options = {{std::string(kBaseChangeOption), hash}};
  EXPECT_TRUE(Run(job).ok()) << Run(job).status();
  job.plan.cohort[0].adapter.options[0].second[0] ^= 1;
  const Status other = Run(job).status();
  EXPECT_EQ(other.code(), Code::kFailedPrecondition);
  EXPECT_NE(other.message().find("taken out of the base model"), std::string::npos) << other;
  job.bundle = Blob();
  EXPECT_NE(Run(job).status().message().find("has hash none"), std::string::npos);
}

TEST_F(TrainWorkTest, ABaseChangeIsPartOfTheModelThatTrains) {
  TrainJob job = Job();
  AdapterBundle bundle;
  bundle.base_change = Start(job.plan.cohort[0].adapter);
  for (SiteState& site : bundle.base_change->sites) site.Get("B").fill_(0.5);
  job.plan.cohort[0].adapter.options = {
      {std::string(kBaseChangeOption), *AdapterSha256(*bundle.base_change)}};
  job.bundle = *EncodeBundle(bundle, **FindCodec("float32"));
  const auto changed = Run(job);
  ASSERT_TRUE(changed.ok()) << changed.status();
  EXPECT_NE(changed->header.train_loss, Run(Job())->header.train_loss);
}

TEST_F(TrainWorkTest, DamagedBundleIsAStatus) {
  TrainJob job = Job();
  std::string bytes(Run(Job())->payload.view());
  bytes.resize(bytes.size() / 2);
  job.bundle = Blob::Adopt(std::move(bytes));
  EXPECT_FALSE(Run(job).ok());
}

TEST_F(TrainWorkTest, PlanWithoutThisClientIsRefused) {
  TrainJob job = Job();
  job.plan.cohort[0].client = {"weaver"};
  EXPECT_EQ(Run(job).status().code(), Code::kInvalidArgument);
}

TEST_F(TrainWorkTest, KeptOptimizerChangesTheNextRoundAndADamagedOneDoesNotEndIt) {
  TrainJob first = Job();
  first.plan.training.keep_optimizer = true;
  const auto round1 = Run(first);
  ASSERT_TRUE(round1.ok()) << round1.status();
  TrainJob next = first;
  next.plan.round = {2};
  next.bundle = round1->payload;
  const auto afresh = Run(next);
  next.local_state = round1->local_state;
  const auto kept = Run(next);
  ASSERT_TRUE(kept.ok()) << kept.status();
  EXPECT_NE(afresh->header.payload_sha256, kept->header.payload_sha256);
  next.local_state = Blob::Copy(std::string_view("not a state"));
  const auto damaged = Run(next);
  ASSERT_TRUE(damaged.ok()) << damaged.status();
  EXPECT_EQ(damaged->header.payload_sha256, afresh->header.payload_sha256);
}

TEST_F(TrainWorkTest, EvaluationSeesTheAdapter) {
  TrainJob job = Job();
  job.plan.training.local_steps = 20;
  const auto trained = Run(job);
  ASSERT_TRUE(trained.ok()) << trained.status();
  JobControl control;
  ClientEvaluateJob evaluate{.run = {"run"}, .version = {1}, .client = {"harbour"}, .bundle = {}};
  const auto base = EvaluateVersion(*site_, evaluate, control);
  evaluate.bundle = trained->payload;
  const auto after = EvaluateVersion(*site_, evaluate, control);
  ASSERT_TRUE(base.ok() && after.ok()) << base.status() << after.status();
  EXPECT_LT(after->loss, base->loss);
  EXPECT_EQ(after->num_examples, 6u);
}

// A method's option that keeps a part at the site, and how the tensors of that part are called.
struct KeptPart {
  const char* method;
  const char* option;
  const char* value;
  const char* prefix;
};

void PrintTo(const KeptPart& part, std::ostream* out) { *out << part.option; }

class KeptPartTest : public TrainWorkTest, public ::testing::WithParamInterface<KeptPart> {};

INSTANTIATE_TEST_SUITE_P(Methods, KeptPartTest,
                         ::testing::Values(KeptPart{"msplora", "msplora.part", "personal",
                                                    "layer."},
                                           KeptPart{"lora", "lora.private", "2", "private."}),
                         [](const auto& test) { return std::string(test.param.method); });

TEST_P(KeptPartTest, TrainsWithTheRestAndGoesOn) {
  const std::string prefix = GetParam().prefix;
  const std::string own_B = prefix + "B";
  TrainJob job = Job();
  AdapterSpec& spec = job.plan.cohort[0].adapter;
  spec.method = GetParam().method;
  spec.rank = 4;
  spec.options = {{GetParam().option, GetParam().value}};
  const auto first = Run(job);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->header.spec, spec);
  const AdapterState shipped = *DecodeBundle(first->payload, at::kCPU)->adapter;
  for (const SiteState& site : shipped.sites) {
    for (const NamedTensor& tensor : site.tensors) EXPECT_FALSE(tensor.name.starts_with(prefix));
  }
  const auto kept_of = [](const TrainJob::Output& output) {
    return DecodeTrainingState(output.local_state)->kept;
  };
  const std::optional<AdapterState> kept = kept_of(*first);
  ASSERT_TRUE(kept.has_value());
  EXPECT_GT(kept->sites[0].Get(own_B).abs().max().item<float>(), 0) << "it learnt";
  // The next round goes on from what was kept, whatever is sent.
  TrainJob next = job;
  next.plan.round = {2};
  next.plan.training.lr = 0;
  next.local_state = first->local_state;
  const auto second = Run(next);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_TRUE(at::equal(kept_of(*second)->sites[1].Get(own_B), kept->sites[1].Get(own_B)));
  next.local_state = Blob();
  EXPECT_EQ(kept_of(*Run(next))->sites[1].Get(own_B).abs().max().item<float>(), 0);
  // Evaluated is what the site would use: both.
  ClientEvaluateJob evaluate;
  evaluate.client = {"harbour"};
  evaluate.bundle = first->payload;
  JobControl control;
  const Result<EvalReport> without = EvaluateVersion(*site_, evaluate, control);
  evaluate.local_state = first->local_state;
  const Result<EvalReport> with = EvaluateVersion(*site_, evaluate, control);
  ASSERT_TRUE(without.ok() && with.ok()) << without.status() << with.status();
  EXPECT_LT(with->loss, without->loss) << "it was trained on these rows";
}

TEST_F(TrainWorkTest, RegisteredWorkFindsItsSite) {
  WorkTable table;
  RegisterTrainWork(table, {.sites = {std::shared_ptr<Site>(site_.release())}, .on_notice = {}});
  JobControl control;
  const std::any result = table.Run(std::any(Job()), control);
  EXPECT_TRUE(std::any_cast<const Result<TrainJob::Output>&>(result).ok());
}

TEST(TrainingStateTest, EncodedStateComesBack) {
  TrainingState state;
  state.layout = "x";
  state.position = {3, 14};
  state.moments = AdamW::Moments{7, at::arange(4, at::kFloat), at::ones({4})};
  const auto back = DecodeTrainingState(*EncodeTrainingState(state));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->layout, "x");
  EXPECT_EQ(back->position, state.position);
  EXPECT_EQ(back->moments->step, 7);
  EXPECT_TRUE(at::equal(back->moments->exp_avg, state.moments->exp_avg));
}

TEST(TrainingStateTest, DamagedStatesAreRefused) {
  TrainingState state;
  state.moments = AdamW::Moments{7, at::full({4}, NAN), at::ones({4})};
  EXPECT_FALSE(DecodeTrainingState(*EncodeTrainingState(state)).ok());
  EXPECT_FALSE(DecodeTrainingState(Blob::Copy(std::string_view("12345678"))).ok());
}

TEST(TrainingStateTest, LayoutNamesTellRanksApart) {
  AdapterSpec spec;
  spec.rank = 2;
  const std::vector<LinearSite> sites = {{"a.q", 8, 8}};
  const auto state = [&](int64_t rank) {
    spec.rank = rank;
    return *(*FindAdapter("lora"))->Init(spec, sites, 1);
  };
  EXPECT_EQ(LayoutName(state(2)), LayoutName(state(2)));
  EXPECT_NE(LayoutName(state(2)), LayoutName(state(3)));
}

}  // namespace
}  // namespace weft
