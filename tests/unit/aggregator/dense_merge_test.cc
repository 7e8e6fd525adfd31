// A classification head through the aggregator's jobs: drawn, sent, admitted, averaged, exported.

#include <functional>

#include <gtest/gtest.h>

#include "aggregator/merge_work.h"
#include "aggregator/strategies/state_block.h"
#include "common/adapters/peft_io.h"
#include "common/codec/precision.h"
#include "common/runtime/memory_store.h"
#include "tests/support/strategy_world.h"
#include "tests/support/temp_folder.h"

namespace weft {
namespace {

const std::vector<LinearSite> kBase = {{testing::MemoryUpdates::Path(0), 12, 10},
                                       {"classifier.dense", 12, 12},
                                       {"classifier.out_proj", 12, 2}};
const std::vector<LinearSite> kSites = {kBase[0]};

AdapterSpec Spec(int64_t rank) {
  AdapterSpec spec = testing::LoraSpec(rank, 8);
  spec.modules_to_save = {"classifier"};
  spec.labels = {"x", "y", "z"};
  return spec;
}

class DenseMergeTest : public ::testing::TestWithParam<const char*> {
 protected:
  DenseMergeTest()
      : store_({.post = [](std::function<void()> call) { call(); },
                .wall_us = [] { return int64_t{0}; },
                .fault = {}}) {
    settings_.name = GetParam();
    const Result<InitJob::Output> init = RunInit({.strategy = settings_,
                                                  .adapter = Spec(4),
                                                  .sites = kSites,
                                                  .base_sites = kBase,
                                                  .seed = 5},
                                                 control_);
    WEFT_CHECK(init.ok(), init.status());
    Write("state", init->state);
  }

  void Write(const std::string& name, Blob bytes) {
    store_.WriteBlob(name, std::move(bytes),
                     [](Status status) { WEFT_CHECK(status.ok(), status); });
  }

  AdapterBundle Bundle(const ClientPlan& plan) { return *DecodeBundle(Cut(plan), at::kCPU); }
  Blob Cut(const ClientPlan& plan) {
    return RunCut({.strategy = settings_, .state = *store_.ReadBlob("state"), .client = plan},
                  control_)
        ->bundle;
  }

  // What is trained from the bundle: every number of the head is moved by `shift`.
  AdapterState Trained(const ClientPlan& plan, double shift) {
    AdapterBundle bundle = Bundle(plan);
    AdapterState state;
    if (bundle.adapter) {
      state = *bundle.adapter;
    } else {
      state = *(*FindAdapter("lora"))->Init(plan.adapter, kSites, 3);
      state.dense = bundle.frozen->dense;
    }
    at::Tensor& B = state.sites[0].Get("B");
    B = B + testing::RandomMatrix(B.size(0), B.size(1), plan.client.name).to(at::kFloat);
    for (NamedTensor& tensor : state.dense) tensor.value = tensor.value + shift;
    return state;
  }

  AdmitJob Admission(const ClientPlan& plan, const AdapterState& state, uint64_t examples = 50) {
    const Blob payload = *EncodeBundle({state, std::nullopt}, Float32Codec());
    Write(plan.client.name, payload);
    AdmitJob job{.client = plan,
                 .header = testing::HonestHeader(plan, payload),
                 .sites = kSites,
                 .blob = plan.client.name,
                 .bundle = Cut(plan),
                 .norm_max = 0,
                 .store = &store_};
    job.header.num_examples = examples;
    job.header.label_tokens = examples;
    return job;
  }

  Status Verdict(const AdmitJob& job) {
    const Result<AdmitJob::Output> output = RunAdmit(job, control_);
    return output.ok() ? output->verdict : output.status();
  }

  StrategySettings settings_;
  JobControl control_;
  MemoryStore store_;
};

TEST_P(DenseMergeTest, EveryClientIsSentTheHeadOnce) {
  const AdapterBundle bundle = Bundle({ClientId{"a"}, Spec(4)});
  size_t heads = 0;
  for (const std::optional<AdapterState>* part : {&bundle.adapter, &bundle.frozen}) {
    if (!part->has_value()) continue;
    EXPECT_EQ((*part)->spec.labels.size(), 3u);
    heads += (*part)->dense.empty() ? 0 : 1;
    if (!(*part)->dense.empty()) {
      EXPECT_EQ((*part)->dense[3].value.sizes(), (std::vector<int64_t>{3, 12}));
    }
  }
  EXPECT_EQ(heads, 1u);
}

TEST_P(DenseMergeTest, TheNextHeadIsTheWeightedMeanAndIsExported) {
  const std::vector<ClientPlan> plans = {{ClientId{"a"}, Spec(4)}, {ClientId{"b"}, Spec(4)}};
  MergeJob job{.strategy = settings_,
               .weighting = "examples",
               .max_examples = 0,
               .plan = {},
               .state_blob = "state",
               .updates = {},
               .store = &store_};
  const std::vector<NamedTensor> before = Trained(plans[0], 0).dense;
  for (size_t k = 0; k < plans.size(); ++k) {
    const AdmitJob admission =
        Admission(plans[k], Trained(plans[k], k == 0 ? 1.0 : -0.5), k == 0 ? 50 : 150);
    ASSERT_TRUE(Verdict(admission).ok()) << Verdict(admission);
    job.plan.cohort.push_back(plans[k]);
    job.updates.push_back({admission.header, admission.blob, 1.0});
  }
  const Result<MergeJob::Output> merged = RunMerge(job, control_);
  ASSERT_TRUE(merged.ok()) << merged.status();
  const GlobalState global = *DecodeState(merged->state, GetParam());
  ASSERT_EQ(global.adapter.dense.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(global.adapter.dense[i].name, before[i].name);
    const at::Tensor moved = global.adapter.dense[i].value - before[i].value;
    EXPECT_LT((moved + 0.125).abs().max().item<double>(), 1e-6) << "¼·1 − ¾·½";
  }
  const testing::TempFolder out;
  const std::string folder = (out.path() / "adapter").string();
  ASSERT_TRUE(
      RunExport({.state = merged->state, .folder = folder, .base_model = "m"}, control_).ok());
  const Result<PeftFolder> read = ReadPeft(folder, {});
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->state.spec.labels, (std::vector<std::string>{"x", "y", "z"}));
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(read->state.dense[i].name, global.adapter.dense[i].name);
    EXPECT_TRUE(at::equal(read->state.dense[i].value, global.adapter.dense[i].value));
  }
}

TEST_P(DenseMergeTest, AHeadThatIsNotThePlansIsRefused) {
  const ClientPlan plan{ClientId{"a"}, Spec(4)};
  const auto verdict = [&](const std::function<void(std::vector<NamedTensor>&)>& change) {
    AdapterState state = Trained(plan, 0.1);
    change(state.dense);
    return Verdict(Admission(plan, state)).message();
  };
  EXPECT_EQ(verdict([](auto&) {}), "");
  EXPECT_NE(verdict([](auto& dense) { dense.pop_back(); }).find("out_proj.weight: is missing"),
            std::string::npos);
  EXPECT_NE(verdict([](auto& dense) {
              dense.push_back({"classifier.third.bias", at::zeros({2})});
            }).find("classifier.third.bias: is one too many"),
            std::string::npos);
  EXPECT_NE(verdict([](auto& dense) { dense[2].value = at::zeros({4}); }).find("[4]"),
            std::string::npos);
  EXPECT_NE(verdict([](auto& dense) { std::swap(dense[0], dense[1]); }).find("is wanted"),
            std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Strategies, DenseMergeTest,
                         ::testing::Values("fedavg", "exact-svd", "flora"));

}  // namespace
}  // namespace weft
