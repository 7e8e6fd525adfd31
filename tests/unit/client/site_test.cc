// From a client's settings to the site it trains on: which rows are for what, what is shared, and
// what is offered.

#include <algorithm>
#include <functional>
#include <sstream>

#include <gtest/gtest.h>

#include "client/daemon.h"
#include "client/load_site.h"
#include "common/adapters/adapter.h"
#include "common/codec/codec.h"
#include "tests/support/small_model.h"
#include "tests/support/temp_folder.h"

namespace weft {
namespace {

using testing::TempFolder;

class SiteTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TempFolder>();
    ASSERT_TRUE(testing::WriteSmallModel(folder_->path() / "model").ok());
    for (const auto& [name, count] : {std::pair("train.jsonl", 10), std::pair("valid.jsonl", 3)}) {
      std::string rows;
      for (int i = 0; i < count; ++i) {
        rows += R"({"prompt": "ship )" + std::to_string(i) +
                R"(", "completion": "sails"})"
                "\n";
      }
      folder_->Write(name, rows);
    }
  }
  static void TearDownTestSuite() { folder_.reset(); }

  static std::string File(const std::string& name) { return (folder_->path() / name).string(); }

  static SharedBase Shared() {
    ModelSettings model;
    model.path = File("model");
    model.device = "cpu";
    Result<SharedBase> shared = LoadSharedBase(model);
    EXPECT_TRUE(shared.ok()) << shared.status();
    return std::move(shared).value();
  }
  static ClientSettings Client() {
    ClientSettings client;
    client.name = "harbour";
    client.data = File("train.jsonl");
    return client;
  }

  inline static std::unique_ptr<TempFolder> folder_;
};

TEST_F(SiteTest, WithoutValidationRowsASiteTrainsOnAllOfIts) {
  const auto site = LoadSite(Client(), Shared());
  ASSERT_TRUE(site.ok()) << site.status();
  EXPECT_EQ((*site)->client(), ClientId{"harbour"});
  EXPECT_EQ((*site)->num_train(), 10u);
  EXPECT_EQ((*site)->num_validation(), 0u);
}

TEST_F(SiteTest, AFractionTakesTheLastRowsAndAFileTakesNone) {
  ClientSettings client = Client();
  client.valid_fraction = 0.25;
  auto site = LoadSite(client, Shared());
  ASSERT_TRUE(site.ok()) << site.status();
  EXPECT_EQ((*site)->num_train(), 8u);
  EXPECT_EQ((*site)->num_validation(), 2u);
  // The last rows: "ship 8" and "ship 9".
  const auto tokens = (*site)->Tokens(Site::Split::kValidation, 64, "cut");
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  const auto tokenizer = Shared().tokenizer;
  const std::vector<int32_t> head = tokenizer->Encode("ship 8\n", true);
  EXPECT_TRUE(std::equal(head.begin(), head.end(), (*tokens)->rows[0].ids.begin()));
  client.valid = File("valid.jsonl");
  site = LoadSite(client, Shared());
  ASSERT_TRUE(site.ok()) << site.status();
  EXPECT_EQ((*site)->num_train(), 10u) << "the fraction is for where there is no file";
  EXPECT_EQ((*site)->num_validation(), 3u);
}

TEST_F(SiteTest, MaxRowsBoundsTheTrainingRows) {
  ClientSettings client = Client();
  client.max_rows = 4;
  const auto site = LoadSite(client, Shared());
  ASSERT_TRUE(site.ok()) << site.status();
  EXPECT_EQ((*site)->num_train(), 4u);
}

TEST_F(SiteTest, WhatIsMissingIsSaidWithTheSitesName) {
  const auto error = [&](const std::function<void(ClientSettings&)>& change) {
    ClientSettings client = Client();
    change(client);
    const auto site = LoadSite(client, Shared());
    EXPECT_FALSE(site.ok());
    EXPECT_NE(site.status().message().find("harbour"), std::string::npos) << site.status();
    return site.ok() ? std::string() : site.status().message();
  };
  EXPECT_NE(error([](auto& c) { c.data.clear(); }).find("data"), std::string::npos);
  EXPECT_NE(error([](auto& c) { c.data += ".gone"; }).find(".gone"), std::string::npos);
  EXPECT_NE(error([](auto& c) { c.valid = "/no/such.jsonl"; }).find("/no/such.jsonl"),
            std::string::npos);
  EXPECT_NE(error([](auto& c) { c.valid_fraction = 0.99; }).find("none to train on"),
            std::string::npos);
}

TEST_F(SiteTest, RowsAreTokenizedOnceForEachSetting) {
  const auto site = *LoadSite(Client(), Shared());
  const auto first = *site->Tokens(Site::Split::kTrain, 64, "cut");
  EXPECT_EQ(*site->Tokens(Site::Split::kTrain, 64, "cut"), first) << "the same object";
  EXPECT_NE(*site->Tokens(Site::Split::kTrain, 16, "cut"), first);
  EXPECT_NE(*site->Tokens(Site::Split::kTrain, 64, "drop"), first);
}

TEST_F(SiteTest, AModelIsLoadedOnceForAllSitesAndForEachPrecision) {
  const SharedBase shared = Shared();
  const auto a = *LoadSite(Client(), shared);
  const auto b = *LoadSite(Client(), shared);
  const auto model = *a->models().Get("float32");
  EXPECT_EQ(*b->models().Get("float32"), model);
  EXPECT_EQ(*a->models().Any(), model);
  const auto half = *a->models().Get("bfloat16");
  EXPECT_NE(half, model);
  EXPECT_EQ(half->dtype(), at::kBFloat16);
  EXPECT_EQ(*b->models().Any(), half) << "evaluation takes what training used last";
  EXPECT_FALSE(a->models().Get("float8").ok());
  EXPECT_EQ(*a->models().Get("float32"), model) << "a failure costs nothing";
}

TEST_F(SiteTest, AFreshShelfEvaluatesInFloat32) {
  EXPECT_EQ((*Shared().models->Any())->dtype(), at::kFloat);
}

TEST_F(SiteTest, TheOfferSaysWhatTheSiteHasAndCanDo) {
  const SharedBase shared = Shared();
  ClientSettings settings = Client();
  settings.valid = File("valid.jsonl");
  const auto site = *LoadSite(settings, shared);
  const ClientOptions options = MakeClientOptions(*site, shared, "cpu", 12);
  EXPECT_EQ(options.name, ClientId{"harbour"});
  EXPECT_EQ(options.base.hash, shared.base.hash);
  EXPECT_EQ(options.base.sites.size(), 15u) << "seven linear layers in each of two blocks, a head";
  EXPECT_EQ(options.offer.rank_max, 12);
  EXPECT_EQ(options.offer.num_examples, 10u);
  EXPECT_EQ(options.offer.eval_examples, 3u);
  EXPECT_GT(options.offer.memory_mb, 0u);
  std::vector<std::string> methods, codecs;
  for (const Adapter* method : AdapterRegistry()) methods.emplace_back(method->name());
  for (const Codec* codec : CodecRegistry()) codecs.emplace_back(codec->name());
  EXPECT_EQ(options.offer.methods, methods);
  EXPECT_EQ(options.offer.codecs, codecs);
  EXPECT_EQ(MakeClientOptions(*site, shared, "cpu", 12, "nola").offer.methods,
            std::vector<std::string>{"nola"})
      << "a site that names its method trains no other";
}

TEST_F(SiteTest, WithoutAModelThereIsNoBase) {
  ModelSettings model;
  EXPECT_NE(LoadSharedBase(model).status().message().find("[model] path"), std::string::npos);
  model.path = File("nothing-here");
  EXPECT_FALSE(LoadSharedBase(model).ok());
}

// ---- which client a process is ----

TEST(ChooseClientTest, AnOnlyClientNeedsNoNameAndOneOfSeveralDoes) {
  Settings settings;
  EXPECT_FALSE(ChooseClient(settings, "").ok());
  EXPECT_EQ(ChooseClient(settings, "by-flags")->name, "by-flags") << "flags alone are enough";
  settings.clients.resize(1);
  settings.clients[0].name = "alpha";
  settings.clients[0].data = "a.jsonl";
  EXPECT_EQ(ChooseClient(settings, "")->data, "a.jsonl");
  EXPECT_EQ(ChooseClient(settings, "alpha")->data, "a.jsonl");
  settings.clients.resize(2);
  settings.clients[1].name = "beta";
  EXPECT_EQ(ChooseClient(settings, "beta")->name, "beta");
  for (const char* name : {"", "gamma"}) {
    const Status status = ChooseClient(settings, name).status();
    EXPECT_NE(status.message().find("alpha, beta"), std::string::npos) << status;
  }
}

TEST_F(SiteTest, ARankIsANumberOrPlanned) {
  const SharedBase shared = Shared();
  ClientDaemon daemon;
  daemon.settings.model.path = File("model");
  daemon.settings.model.device = "cpu";
  std::ostringstream out;
  daemon.client.rank = "7";
  EXPECT_EQ(*DecideRank(daemon, shared, out), 7);
  EXPECT_EQ(out.str(), "");
  for (const char* wrong : {"0", "-3", "7.5", "many", "", "99999999"}) {
    daemon.client.rank = wrong;
    EXPECT_EQ(DecideRank(daemon, shared, out).status().code(), Code::kInvalidArgument) << wrong;
  }
  daemon.client.rank = "auto";
  daemon.link_mbps = 1000;
  const Result<int64_t> planned = DecideRank(daemon, shared, out);
  ASSERT_TRUE(planned.ok()) << planned.status();
  EXPECT_EQ(*planned, 64) << "a model this small leaves memory for the largest";
  EXPECT_NE(out.str().find("rank 64 planned"), std::string::npos) << out.str();
}

}  // namespace
}  // namespace weft
