// The aggregator's tensor jobs on a store in memory: a round as the node asks for it, and every way
// a peer's update may be wrong.

#include "aggregator/merge_work.h"

#include <chrono>
#include <filesystem>
#include <functional>
#include <limits>

#include <gtest/gtest.h>

#include "aggregator/strategies/state_block.h"
#include "common/adapters/peft_io.h"
#include "common/codec/precision.h"
#include "common/runtime/memory_store.h"
#include "tests/support/strategy_world.h"
#include "tests/support/temp_folder.h"

namespace weft {
namespace {

namespace fs = std::filesystem;
using testing::HonestHeader;
using testing::MaxAbs;
using testing::MemoryUpdates;
using testing::Product;

const std::vector<LinearSite>& Sites() {
  static const auto* sites =
      new std::vector<LinearSite>{{MemoryUpdates::Path(0), 12, 10}, {MemoryUpdates::Path(1), 6, 3}};
  return *sites;
}

class MergeWorkTest : public ::testing::Test {
 protected:
  MergeWorkTest()
      : store_({.post = [](std::function<void()> call) { call(); },
                .wall_us = [] { return int64_t{0}; },
                .fault = {}}) {
    settings_.name = "exact-svd";
    const Result<InitJob::Output> init = RunInit(
        {.strategy = settings_, .adapter = testing::LoraSpec(8, 16), .sites = Sites(), .seed = 5},
        control_);
    WEFT_CHECK(init.ok(), init.status());
    Write("state", init->state);
  }

  void Write(const std::string& name, Blob bytes) {
    store_.WriteBlob(name, std::move(bytes),
                     [](Status status) { WEFT_CHECK(status.ok(), status); });
  }

  static ClientPlan Plan(const std::string& name, int64_t rank) {
    return {ClientId{name}, testing::LoraSpec(rank, 8)};
  }

  Blob Bundle(const ClientPlan& plan) {
    const CutJob job{.strategy = settings_, .state = *store_.ReadBlob("state"), .client = plan};
    const Result<CutJob::Output> cut = RunCut(job, control_);
    WEFT_CHECK(cut.ok(), cut.status());
    return cut->bundle;
  }

  // What an honest client sends: the bundle it got, with something added.
  AdapterState Trained(const ClientPlan& plan) {
    AdapterState state = *DecodeBundle(Bundle(plan), at::kCPU)->adapter;
    for (SiteState& site : state.sites) {
      at::Tensor& B = site.Get("B");
      B = B + testing::RandomMatrix(B.size(0), B.size(1), plan.client.name + site.site.path)
                  .to(at::kFloat);
    }
    return state;
  }

  static Blob Encode(const AdapterState& state) {
    return *EncodeBundle({state, std::nullopt}, Float32Codec());
  }

  AdmitJob Admission(const ClientPlan& plan, const Blob& payload) {
    Write("update", payload);
    return {.client = plan,
            .header = HonestHeader(plan, payload),
            .sites = Sites(),
            .blob = "update",
            .bundle = Bundle(plan),
            .norm_max = 0,
            .store = &store_};
  }

  Status Verdict(const AdmitJob& job) {
    const Result<AdmitJob::Output> output = RunAdmit(job, control_);
    return output.ok() ? output->verdict : output.status();
  }

  StrategySettings settings_;
  JobControl control_;
  MemoryStore store_;
};

TEST_F(MergeWorkTest, AHonestUpdateIsAdmittedWithItsNorm) {
  const ClientPlan plan = Plan("c07", 4);
  const AdapterState state = Trained(plan);
  const Result<AdmitJob::Output> output = RunAdmit(Admission(plan, Encode(state)), control_);
  ASSERT_TRUE(output.ok()) << output.status();
  EXPECT_TRUE(output->verdict.ok()) << output->verdict;
  double square = 0;  // the state is empty, so the update is all there is
  for (size_t i = 0; i < Sites().size(); ++i)
    square += Product(state, i).square().sum().item<double>();
  EXPECT_NEAR(output->update_norm, std::sqrt(square), 1e-6 * std::sqrt(square));
}

TEST_F(MergeWorkTest, AnUpdateThatIsWhatTheClientWasSentHasNoNorm) {
  const ClientPlan plan = Plan("c07", 4);
  AdmitJob job = Admission(plan, Encode(Trained(plan)));
  const double norm = RunAdmit(job, control_)->update_norm;
  job.bundle = Encode(Trained(plan));
  EXPECT_LE(RunAdmit(job, control_)->update_norm, 1e-6 * norm);
}

TEST_F(MergeWorkTest, AnUpdatesNormIsBoundedAgainstWhatTheClientWasSent) {
  const ClientPlan plan = Plan("c07", 4);
  AdmitJob job = Admission(plan, Encode(Trained(plan)));
  const double norm = RunAdmit(job, control_)->update_norm;
  job.norm_max = norm * 1.01;
  EXPECT_TRUE(Verdict(job).ok());
  job.norm_max = norm * 0.99;
  EXPECT_NE(Verdict(job).message().find("client c07 round 1: its update has norm"),
            std::string::npos)
      << Verdict(job);
}

TEST_F(MergeWorkTest, AnUpdatesNormIsBoundedAgainstThoseOfTheNewestVersion) {
  const ClientPlan plan = Plan("c07", 4);
  AdmitJob job = Admission(plan, Encode(Trained(plan)));
  const double norm = RunAdmit(job, control_)->update_norm;
  job.norm_ratio_max = 1000;
  EXPECT_TRUE(Verdict(job).ok()) << "there is no version yet";
  job.norm_median = norm / 999;
  EXPECT_TRUE(Verdict(job).ok());
  job.norm_median = norm / 1001;
  EXPECT_EQ(Verdict(job).code(), Code::kInvalidArgument);
  EXPECT_NE(Verdict(job).message().find("1001 times the median"), std::string::npos)
      << Verdict(job);
  job.norm_ratio_max = 0;
  EXPECT_TRUE(Verdict(job).ok());
}

TEST_F(MergeWorkTest, EveryHostileAdapterIsRefusedWithATypedErrorThatNamesTheClient) {
  const ClientPlan plan = Plan("c07", 4);
  struct Case {
    std::string name;
    std::function<void(AdapterState&)> spoil;
    std::string message;
  };
  const auto set = [](const char* tensor, double value) {
    return [=](AdapterState& s) { s.sites[1].Get(tensor).index_put_({1, 0}, value); };
  };
  const auto replace = [](const char* tensor, std::vector<int64_t> shape) {
    return [=](AdapterState& s) { s.sites[0].Get(tensor) = at::ones(shape, at::kFloat); };
  };
  const std::vector<Case> cases = {
      {"rank below the plan", replace("A", {3, 12}),
       "site layers.0.q_proj: A is [3×12], the plan says [4×12]"},
      {"rank above", replace("B", {10, 5}), "B is [10×5], the plan says [10×4]"},
      {"rank 0", replace("A", {0, 12}), "A is [0×12]"},
      {"rank above min(in, out)", replace("A", {30, 12}), "A is [30×12]"},
      {"transposed A", replace("A", {12, 4}), "A is [12×4]"},
      {"transposed B", replace("B", {4, 10}), "B is [4×10]"},
      {"one dimension", replace("A", {48}), "A is [48]"},
      {"missing tensor", [](auto& s) { s.sites[0].tensors.pop_back(); }, "tensor \"B\" is missing"},
      {"extra tensor",
       [](auto& s) {
         s.sites[0].tensors.push_back({"C", at::ones({1})});
       },
       "tensor \"C\" is one too many"},
      {"odd name", [](auto& s) { s.sites[0].tensors[0].name = "../../A"; }, "tensor name"},
      {"missing site", [](auto& s) { s.sites.pop_back(); }, "layers.1.q_proj is missing"},
      {"extra site",
       [](auto& s) {
         s.sites.push_back(s.sites[0]);
         s.sites.back().site.path = "lm_head";
       },
       "lm_head is one too many"},
      {"sites swapped", [](auto& s) { std::swap(s.sites[0], s.sites[1]); },
       "site 0 is layers.1.q_proj"},
      {"other layer size", [](auto& s) { s.sites[0].site.in = 13; }, "the model says 10×12"},
      {"dense part",
       [](auto& s) {
         s.dense.push_back({"head", at::ones({2})});
       },
       "dense tensor head"},
      {"alpha negative", [](auto& s) { s.spec.alpha = -8; }, "alpha is -8, the plan says 8"},
      {"alpha huge", [](auto& s) { s.spec.alpha = 1e300; }, "alpha is 1e+300"},
      {"declared rank", [](auto& s) { s.spec.rank = 8; }, "rank is 8, the plan says 4"},
      {"other method", [](auto& s) { s.spec.method = "nola"; }, "method is nola"},
      {"other targets", [](auto& s) { s.spec.target_modules = {"v_proj"}; }, "targets"},
      {"all zero",
       [](auto& s) {
         for (auto& site : s.sites)
           for (auto& t : site.tensors) t.value.zero_();
       },
       "is zero"},
      {"all zero, of either sign",
       [](auto& s) {
         for (auto& site : s.sites)
           for (auto& t : site.tensors) t.value.zero_();
         s.sites[0].Get("B").neg_();
       },
       "is zero"},
  };
  for (const Case& c : cases) {
    AdapterState state = Trained(plan);
    c.spoil(state);
    const Status status = Verdict(Admission(plan, Encode(state)));
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << c.name << ": " << status;
    EXPECT_NE(status.message().find("[admission] client c07 round 1"), std::string::npos) << c.name;
    EXPECT_NE(status.message().find(c.message), std::string::npos) << c.name << ": " << status;
  }
  // Odd but honest numbers pass.
  for (const double value : {-0.0, 1e-42}) {
    AdapterState state = Trained(plan);
    set("A", value)(state);
    EXPECT_TRUE(Verdict(Admission(plan, Encode(state))).ok()) << value;
  }
}

TEST_F(MergeWorkTest, ValuesThatAreNotFiniteAreRefusedWhereverTheyLie) {
  // No codec of ours writes them, so they are put into the bytes by hand.
  const ClientPlan plan = Plan("c07", 4);
  const Blob honest = Encode(Trained(plan));
  const float bad[] = {std::numeric_limits<float>::quiet_NaN(),
                       std::numeric_limits<float>::infinity(),
                       -std::numeric_limits<float>::infinity()};
  const TensorBlock block = *DecodeTensorBlock(honest);
  for (const BlockSite& site : block.sections[0].sites) {
    for (const BlockTensor& tensor : site.tensors) {
      for (const float value : bad) {
        std::string bytes(honest.view());
        const auto at_byte = static_cast<size_t>(tensor.bytes.data() - honest.data());
        std::memcpy(bytes.data() + at_byte + tensor.bytes.size() - sizeof(float), &value,
                    sizeof(float));
        const Status status = Verdict(Admission(plan, Blob::Adopt(std::move(bytes))));
        EXPECT_EQ(status.code(), Code::kInvalidArgument);
        EXPECT_NE(status.message().find(site.site.path + " " + tensor.name), std::string::npos)
            << status;
      }
    }
  }
}

TEST_F(MergeWorkTest, BytesThatAreNoUpdateAreRefusedWithoutACrash) {
  const ClientPlan plan = Plan("c07", 4);
  const Blob honest = Encode(Trained(plan));
  const std::string text(honest.view());
  for (const size_t size :
       {size_t{0}, size_t{7}, size_t{16}, size_t{100}, text.size() / 2, text.size() - 1}) {
    EXPECT_FALSE(Verdict(Admission(plan, Blob::Copy(std::string_view(text).substr(0, size)))).ok())
        << size;
  }
  // Any one byte flipped: refused, or it was in a number and the numbers are still finite.
  for (size_t i = 0; i < text.size(); i += 3) {
    std::string flipped = text;
    flipped[i] = static_cast<char>(flipped[i] ^ 0x41);
    static_cast<void>(Verdict(Admission(plan, Blob::Adopt(std::move(flipped)))));
  }
  const Blob two = *EncodeBundle({Trained(plan), Trained(plan)}, Float32Codec());
  EXPECT_NE(Verdict(Admission(plan, two)).message().find("got 2 sections"), std::string::npos);
  const Blob none = *EncodeBundle({}, Float32Codec());
  EXPECT_NE(Verdict(Admission(plan, none)).message().find("got 0 sections"), std::string::npos);
}

TEST_F(MergeWorkTest, HeadersThatDoNotFitAreRefused) {
  const ClientPlan plan = Plan("c07", 4);
  const AdmitJob good = Admission(plan, Encode(Trained(plan)));
  const std::vector<std::pair<std::function<void(UpdateHeader&)>, std::string>> cases = {
      {[](auto& h) { h.num_examples = 0; }, "num_examples is 0"},
      {[](auto& h) { h.num_examples = uint64_t{1} << 63; }, "num_examples is 9223372036854775808"},
      {[](auto& h) { h.label_tokens = 0; }, "label_tokens is 0"},
      {[](auto& h) { h.train_loss = std::nan(""); }, "the local training diverged"},
      {[](auto& h) { h.client.name = "c08"; }, "from client c08"},
      {[](auto& h) { h.spec.rank = 3; }, "rank is 3, the plan says 4"},
      {[](auto& h) { h.spec.alpha = std::nan(""); }, "alpha is nan"},
      {[](auto& h) { h.codec = "float16"; }, "codec float32, the offer said float16"},
      {[](auto& h) { h.payload_bytes += 1; }, "the offer said"},
  };
  for (const auto& [spoil, message] : cases) {
    AdmitJob job = good;
    spoil(job.header);
    const Status status = Verdict(job);
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << message;
    EXPECT_NE(status.message().find(message), std::string::npos) << status;
  }
}

TEST_F(MergeWorkTest, ARoundOfJobsEndsInAnAdapterThatPeftReads) {
  const std::vector<ClientPlan> cohort = {Plan("a", 2), Plan("b", 4), Plan("c", 8)};
  MergeJob job{.strategy = settings_,
               .weighting = "examples",
               .max_examples = 0,
               .plan = {},
               .state_blob = "state",
               .updates = {},
               .store = &store_};
  job.plan.cohort = cohort;
  for (const ClientPlan& plan : cohort) {
    const Blob payload = Encode(Trained(plan));
    Write("spool/" + plan.client.name, payload);
    job.updates.push_back({HonestHeader(plan, payload), "spool/" + plan.client.name, 2.5});
  }
  const Result<MergeJob::Output> merged = RunMerge(job, control_);
  ASSERT_TRUE(merged.ok()) << merged.status();
  EXPECT_LE(merged->certificate.error_before_truncation, 1e-6);
  ASSERT_EQ(merged->certificate.client_norms.size(), 3u);
  EXPECT_EQ(merged->certificate.client_norms[0].second, 2.5) << "as admission measured it";
  const GlobalState global = *DecodeState(merged->state, "exact-svd");
  EXPECT_EQ(merged->adapter_sha256, *AdapterSha256(global.adapter));

  const testing::TempFolder own;
  const fs::path folder = own.path() / "round-0001";
  for (int again = 0; again < 2; ++again) {  // writing over an earlier try is fine
    const Result<ExportJob::Output> exported = RunExport(
        {.state = merged->state, .folder = folder.string(), .base_model = "tiny"}, control_);
    ASSERT_TRUE(exported.ok()) << exported.status();
  }
  EXPECT_FALSE(fs::exists(folder.string() + ".tmp"));
  const Result<PeftFolder> peft = ReadPeft(folder, Sites());
  ASSERT_TRUE(peft.ok()) << peft.status();
  for (size_t i = 0; i < Sites().size(); ++i) {
    EXPECT_LE(MaxAbs(Product(peft->state, i) - Product(global.adapter, i)), 1e-6);
  }
  const CutJob whole{.strategy = settings_, .state = merged->state, .client = {}, .whole = true};
  const AdapterBundle bundle = *DecodeBundle(RunCut(whole, control_)->bundle, at::kCPU);
  ASSERT_TRUE(bundle.frozen.has_value());
  EXPECT_FALSE(bundle.adapter.has_value());
  EXPECT_EQ(MaxAbs(Product(*bundle.frozen, 0) - Product(global.adapter, 0)), 0);
}

TEST_F(MergeWorkTest, ASpoolThatDoesNotBelongToTheRoundIsRefused) {
  const ClientPlan plan = Plan("a", 2);
  const Blob payload = Encode(Trained(plan));
  Write("spool/a", payload);
  MergeJob job{.strategy = settings_,
               .weighting = "examples",
               .max_examples = 0,
               .plan = {},
               .state_blob = "state",
               .updates = {{HonestHeader(plan, payload), "spool/a"}},
               .store = &store_};
  EXPECT_NE(RunMerge(job, control_).status().message().find("client a is not of the cohort"),
            std::string::npos);
  job.plan.cohort = {plan};
  EXPECT_TRUE(RunMerge(job, control_).ok());
  job.updates.push_back(job.updates[0]);
  EXPECT_EQ(RunMerge(job, control_).status().code(), Code::kAlreadyExists);
  job.updates = {{HonestHeader(plan, payload), "spool/gone"}};
  EXPECT_EQ(RunMerge(job, control_).status().code(), Code::kNotFound);
  job.updates = {};
  EXPECT_FALSE(RunMerge(job, control_).ok());
  job.strategy.name = "flora";
  EXPECT_EQ(RunMerge(job, control_).status().code(), Code::kFailedPrecondition);
}

TEST_F(MergeWorkTest, WholeModulesOfABaseWithoutAHeadAreRefusedAtTheStart) {
  AdapterSpec spec = testing::LoraSpec(4, 8);
  spec.modules_to_save = {"score"};
  spec.labels = {"a", "b"};
  const Status status = RunInit({.strategy = settings_,
                                 .adapter = spec,
                                 .sites = Sites(),
                                 .base_sites = Sites(),
                                 .seed = 1},
                                control_)
                            .status();
  EXPECT_NE(status.message().find("no classification head"), std::string::npos) << status;
}

class BaseChangeTest : public MergeWorkTest {
 protected:
  InitJob Job() const {
    AdapterSpec spec = testing::LoraSpec(2, 4);
    spec.method = "kasa";
    return {
        .strategy = settings_, .adapter = spec, .methods = {"kasa"}, .sites = Sites(), .seed = 5};
  }
  static Result<at::Tensor> Weight(const LinearSite& site) {
    at::manual_seed(site.in);
    return at::randn({site.out, site.in});
  }
};

TEST_F(BaseChangeTest, IsComputedOnceKeptInTheStateAndSentWithEveryBundle) {
  const Result<InitJob::Output> init = RunInit(Job(), control_, Weight);
  ASSERT_TRUE(init.ok()) << init.status();
  Write("state", init->state);
  for (const bool whole : {false, true}) {
    const CutJob job{.strategy = settings_,
                     .state = *store_.ReadBlob("state"),
                     .client = Plan("a", 2),
                     .whole = whole};
    const Result<CutJob::Output> cut = RunCut(job, control_);
    ASSERT_TRUE(cut.ok()) << cut.status();
    const AdapterBundle bundle = DecodeBundle(cut->bundle, at::kCPU).value();
    ASSERT_TRUE(bundle.base_change.has_value()) << whole;
    EXPECT_EQ(*AdapterSha256(*bundle.base_change), init->base_change_sha256);
    const LowRankAdapter taken = Lower(*bundle.base_change).value();
    for (size_t i = 0; i < taken.size(); ++i) {
      const at::Tensor W = *Weight(taken[i].site);
      const at::Tensor S =
          std::get<1>(at::linalg_svd(W + Product(taken[i].factors).to(at::kFloat)));
      EXPECT_LT(S[-2].item<double>(), 1e-5) << "two components less";
    }
  }
}

TEST_F(BaseChangeTest, NeedsTheWeightsAndSaysSo) {
  const Status status = RunInit(Job(), control_).status();
  EXPECT_EQ(status.code(), Code::kFailedPrecondition);
  EXPECT_NE(status.message().find("[model] path"), std::string::npos) << status;
}

TEST_F(BaseChangeTest, IsPartOfWhatIsExported) {
  Write("state", RunInit(Job(), control_, Weight)->state);
  const testing::TempFolder folder;
  const std::string out = (folder.path() / "adapter").string();
  ASSERT_TRUE(
      RunExport({.state = *store_.ReadBlob("state"), .folder = out, .base_model = "base"}, control_)
          .ok());
  const PeftFolder read = ReadPeft(out, Sites()).value();
  const LowRankAdapter exported = Lower(read.state).value();
  for (const LowRankSite& site : exported) {
    EXPECT_GT(MaxAbs(Product(site.factors)), 1e-3) << "the adapter itself is still zero";
  }
}

TEST_F(MergeWorkTest, EveryJobIsRegistered) {
  WorkTable table;
  RegisterMergeWork(table);
  const InitJob job{
      .strategy = settings_, .adapter = testing::LoraSpec(8, 16), .sites = Sites(), .seed = 5};
  const std::any output = table.Run(std::any(job), control_);
  const auto& result = *std::any_cast<Result<InitJob::Output>>(&output);
  EXPECT_EQ(result->state.view(), store_.ReadBlob("state")->view());
}

}  // namespace
}  // namespace weft
