// What colluders know of each other: computed once, whoever asks, on any number of threads.

#include "sim/colluders.h"

#include <atomic>
#include <map>
#include <set>
#include <thread>

#include <gtest/gtest.h>

#include "common/adapters/adapter.h"
#include "common/codec/adapter_block.h"

namespace weft::sim {
namespace {

const std::vector<ClientId> kNames = {ClientId{"a"}, ClientId{"b"}, ClientId{"c"}};

AdapterSpec Spec() {
  AdapterSpec spec;
  spec.method = "lora";
  spec.rank = 2;
  spec.target_modules = {"all-linear"};
  return spec;
}

TrainJob JobFor(const ClientId& client, uint32_t round = 1, std::string bundle = "b1") {
  TrainJob job;
  job.client = client;
  job.plan.round = RoundId{round};
  job.plan.codec = "float32";
  job.plan.cohort = {{client, Spec()}};
  job.bundle_sha256 = std::move(bundle);
  job.local_state = Blob::Copy(std::string_view("kept"));
  return job;
}

// "Trains" an adapter that says for whom, and counts.
class FakeTraining {
 public:
  Training Function() {
    return [this](const TrainJob& job, JobControl& control) { return Train(job, control); };
  }
  Result<TrainJob::Output> Train(const TrainJob& job, JobControl& control) {
    EXPECT_TRUE(job.local_state.empty()) << "only the site has it";
    EXPECT_EQ(job.plan.cohort.front().client, job.client);
    ++calls;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    if (control.cancelled) return Cancelled("stopped");
    if (job.client == failing) return FailedPrecondition("no rows");
    LinearSite site;
    site.path = "layers.0.q_proj";
    site.out = 4;
    site.in = 4;
    AdapterBundle bundle;
    WEFT_TRY_ASSIGN(const Adapter* method, FindAdapter("lora"));
    WEFT_TRY_ASSIGN(bundle.adapter, method->Init(Spec(), std::vector<LinearSite>{site}, 1));
    bundle.adapter->sites[0].Get("B").fill_(job.client.name[0]);
    TrainJob::Output output;
    WEFT_TRY_ASSIGN(const Codec* codec, FindCodec("float32"));
    WEFT_TRY_ASSIGN(output.payload, EncodeBundle(bundle, *codec));
    output.header = HeaderOf(job, output.payload);
    return output;
  }

  std::atomic<int> calls{0};
  ClientId failing;
};

std::string WhoTrained(const std::vector<std::shared_ptr<const HonestUpdate>>& updates) {
  std::string who;
  for (const auto& update : updates) {
    who += static_cast<char>(update->adapter.sites[0].Get("B")[0][0].item<double>());
    EXPECT_EQ(update->output.header.client.name, who.substr(who.size() - 1));
  }
  return who;
}

TEST(ColludersTest, AllUpdatesAreThereByNameAndEachIsTrainedOnce) {
  FakeTraining training;
  Colluders colluders(kNames, training.Function());
  JobControl control;
  for (const ClientId& name : {kNames[2], kNames[0], kNames[1]}) {
    const auto updates = colluders.Updates(JobFor(name), control);
    ASSERT_TRUE(updates.ok()) << updates.status();
    EXPECT_EQ(WhoTrained(*updates), "abc");
  }
  EXPECT_EQ(training.calls, 3);
  EXPECT_EQ(colluders.trained(), 3u);
}

TEST(ColludersTest, ThreadsShareTheWorkAndDoNoneTwice) {
  FakeTraining training;
  Colluders colluders(kNames, training.Function());
  std::vector<std::thread> threads;
  std::vector<std::string> got(9);
  for (size_t i = 0; i < got.size(); ++i) {
    threads.emplace_back([&, i] {
      JobControl control;
      const auto updates = colluders.Updates(JobFor(kNames[i % 3]), control);
      if (updates.ok()) got[i] = WhoTrained(*updates);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(std::set<std::string>(got.begin(), got.end()), std::set<std::string>{"abc"});
  EXPECT_EQ(training.calls, 3);
}

TEST(ColludersTest, AnotherRoundOrBundleIsOtherWork) {
  FakeTraining training;
  Colluders colluders(kNames, training.Function());
  JobControl control;
  ASSERT_TRUE(colluders.Updates(JobFor(kNames[0]), control).ok());
  ASSERT_TRUE(colluders.Updates(JobFor(kNames[0], 1, "b2"), control).ok());
  EXPECT_EQ(training.calls, 6);
  ASSERT_TRUE(colluders.Updates(JobFor(kNames[1], 2), control).ok());
  EXPECT_EQ(training.calls, 9);
}

TEST(ColludersTest, AFailureIsToldAndNotRemembered) {
  FakeTraining training;
  training.failing = kNames[1];
  Colluders colluders(kNames, training.Function());
  JobControl control;
  const auto failed = colluders.Updates(JobFor(kNames[0]), control);
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.status().code(), Code::kFailedPrecondition);
  EXPECT_NE(failed.status().message().find("[attack] b"), std::string::npos) << failed.status();
  training.failing = ClientId{};
  const auto again = colluders.Updates(JobFor(kNames[0]), control);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(WhoTrained(*again), "abc");
}

TEST(ColludersTest, OneThatIsCancelledLeavesItsWorkToTheOthers) {
  FakeTraining training;
  Colluders colluders(kNames, training.Function());
  std::thread other([&] {
    JobControl cancelled;
    cancelled.cancelled = true;
    EXPECT_EQ(colluders.Updates(JobFor(kNames[0]), cancelled).status().code(), Code::kCancelled);
  });
  JobControl control;
  const auto updates = colluders.Updates(JobFor(kNames[1]), control);
  other.join();
  ASSERT_TRUE(updates.ok()) << updates.status();
  EXPECT_EQ(WhoTrained(*updates), "abc");
}

TEST(ColludersTest, AnUpdateWithoutAnAdapterIsRefused) {
  TrainJob::Output output;
  WEFT_CHECK(FindCodec("float32").ok());
  output.payload = *EncodeBundle({}, **FindCodec("float32"));
  EXPECT_EQ(ReadBack(std::move(output)).status().code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace weft::sim
