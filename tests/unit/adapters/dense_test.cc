// What modules_to_save trains whole: which layers, in which shapes, from which numbers.

#include "common/adapters/dense.h"

#include <gtest/gtest.h>

#include "common/adapters/match.h"

namespace weft {
namespace {

const std::vector<LinearSite> kRoberta = {{"roberta.encoder.layer.0.attention.self.query", 6, 6},
                                          {"roberta.encoder.layer.0.output.dense", 8, 6},
                                          {"classifier.dense", 6, 6},
                                          {"classifier.out_proj", 6, 2}};

AdapterSpec Spec(std::vector<std::string> modules, std::vector<std::string> labels) {
  AdapterSpec spec;
  spec.target_modules = {"query"};
  spec.modules_to_save = std::move(modules);
  spec.labels = std::move(labels);
  return spec;
}

std::string Error(const AdapterSpec& spec, const std::vector<LinearSite>& base = kRoberta) {
  const auto layout = DenseLayout(spec, base);
  EXPECT_EQ(layout.status().code(), Code::kInvalidArgument);
  return layout.status().message();
}

TEST(DenseTest, TheHeadHasARowForEachLabelWhateverTheBasesHas) {
  const auto layout = DenseLayout(Spec({"classifier"}, {"a", "b", "c"}), kRoberta);
  ASSERT_TRUE(layout.ok()) << layout.status();
  ASSERT_EQ(layout->size(), 4u);
  EXPECT_EQ((*layout)[0].name, "classifier.dense.bias");
  EXPECT_EQ((*layout)[1].shape, (std::vector<int64_t>{6, 6}));
  EXPECT_EQ((*layout)[2].shape, (std::vector<int64_t>{3}));
  EXPECT_EQ((*layout)[3].name, "classifier.out_proj.weight");
  EXPECT_EQ((*layout)[3].shape, (std::vector<int64_t>{3, 6}));
  EXPECT_TRUE(DenseLayout(Spec({}, {}), kRoberta)->empty());
}

TEST(DenseTest, WhatIsNoHeadIsNotTrainedWhole) {
  EXPECT_NE(Error(Spec({"dense"}, {"a", "b"})).find("covers roberta.encoder.layer.0.output.dense"),
            std::string::npos);
  EXPECT_NE(Error(Spec({"clasifier"}, {"a", "b"})).find("the head is called classifier"),
            std::string::npos);
  EXPECT_NE(Error(Spec({"lm_head"}, {"a", "b"}), {{"model.layers.0.q_proj", 4, 4}})
                .find("no classification head"),
            std::string::npos);
  EXPECT_NE(Error(Spec({"lm_head"}, {"a", "b"}), {{"q_proj", 4, 4}, {"lm_head", 4, 9}})
                .find("only a classification head"),
            std::string::npos);
  EXPECT_NE(Error(Spec({"classifier"}, {"a", "b"}), {}).find("no classification head"),
            std::string::npos);
  EXPECT_NE(Error(Spec({"classifier"}, {"a"})).find("names 1 classes"), std::string::npos);
  EXPECT_NE(Error(Spec({}, {"a", "b"})).find("name \"classifier\""), std::string::npos);
}

TEST(DenseTest, FreshHeadsDependOnTheSeedAlone) {
  const AdapterSpec spec = Spec({"classifier"}, {"a", "b"});
  const auto one = *FreshDense(spec, kRoberta, 1);
  const auto again = *FreshDense(spec, kRoberta, 1);
  const auto other = *FreshDense(spec, kRoberta, 2);
  for (size_t i = 0; i < one.size(); ++i) {
    EXPECT_TRUE(at::equal(one[i].value, again[i].value));
    const bool bias = one[i].value.dim() == 1;
    EXPECT_EQ(at::equal(one[i].value, other[i].value), bias) << "biases are 0";
    if (!bias) {
      EXPECT_GT(one[i].value.abs().max().item<double>(), 0.005);
      EXPECT_LT(one[i].value.abs().max().item<double>(), 0.1);
    }
  }
}

TEST(DenseTest, AllLinearPassesHeadsOver) {
  AdapterSpec spec = Spec({}, {});
  spec.target_modules = {"all-linear"};
  const auto sites = MatchSites(spec, kRoberta);
  ASSERT_TRUE(sites.ok()) << sites.status();
  EXPECT_EQ(sites->size(), 2u);
  EXPECT_TRUE(IsHeadPath("classifier"));
  EXPECT_TRUE(IsHeadPath("score"));
  EXPECT_FALSE(IsHeadPath("model.classifier"));
  EXPECT_FALSE(IsHeadPath("classifiers.0"));
}

}  // namespace
}  // namespace weft
