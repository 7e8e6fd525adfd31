#include "common/codec/layout.h"

#include <functional>
#include <limits>

#include <gtest/gtest.h>

namespace weft {
namespace {

BlockTensor Zeros(std::string name, std::vector<int64_t> shape, DType dtype = DType::kFloat32) {
  size_t bytes = DTypeBytes(dtype);
  for (const int64_t side : shape) bytes *= static_cast<size_t>(side);
  return {std::move(name), dtype, std::move(shape), Blob::Adopt(std::string(bytes, '\0'))};
}

const std::vector<LinearSite>& Sites() {
  static const auto* sites = new std::vector<LinearSite>{{"l.0.q", 6, 8}, {"l.0.v", 6, 2}};
  return *sites;
}

AdapterSpec Spec() {
  AdapterSpec spec;
  spec.rank = 4;
  spec.alpha = 8;
  return spec;
}

// Rank 4, capped to 2 on the narrow site.
BlockSection Good() {
  return {"adapter",
          Spec(),
          {{Sites()[0], {Zeros("A", {4, 6}), Zeros("B", {8, 4})}},
           {Sites()[1], {Zeros("A", {2, 6}), Zeros("B", {2, 2})}}},
          {}};
}

TEST(LayoutTest, ExactlyTheSpecsTensorsPassWithRanksCappedByTheLayer) {
  EXPECT_TRUE(CheckLayout(Good(), Spec(), Sites(), DType::kFloat32).ok());
}

TEST(LayoutTest, TheBoundOfAManifestCoversWhatAPeerNeedsAndNotMuchMore) {
  TensorBlock block;
  block.sections = {Good()};
  for (BlockSite& site : block.sections[0].sites) {
    for (BlockTensor& tensor : site.tensors) {
      tensor.packing = "sparse-uniform8";
      tensor.bytes = Blob();
    }
  }
  const uint64_t most = *ManifestBytesMax(Spec(), Sites());
  const Blob bytes = EncodeTensorBlock(block);
  EXPECT_GE(most, bytes.size());
  EXPECT_LE(most, 4 * bytes.size() + 4096);
  EXPECT_TRUE(DecodeTensorBlock(bytes, most).ok());
  for (const BlockForm form : {BlockForm::kCanonical, BlockForm::kCompact}) {
    const Status status = DecodeTensorBlock(EncodeTensorBlock(block, form), 100).status();
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << status;
    EXPECT_NE(status.message().find("manifest of"), std::string::npos) << status;
  }
}

TEST(LayoutTest, EveryDeviationIsRefusedByName) {
  struct Case {
    std::function<void(BlockSection&)> spoil;
    std::string message;
  };
  const std::vector<Case> cases = {
      {[](auto& s) {
         s.sites[0].tensors[0] = Zeros("A", {3, 6});
       },
       "site l.0.q: A is [3×6], the plan says [4×6]"},
      {[](auto& s) {
         s.sites[0].tensors[0] = Zeros("A", {6, 4});
       },
       "site l.0.q: A is [6×4], the plan says [4×6]"},
      {[](auto& s) {
         s.sites[0].tensors[1] = Zeros("B", {8, 5});
       },
       "site l.0.q: B is [8×5], the plan says [8×4]"},
      {[](auto& s) {
         s.sites[1].tensors[0] = Zeros("A", {4, 6});
       },
       "site l.0.v: A is [4×6], the plan says [2×6]"},
      {[](auto& s) { s.sites[0].tensors[0] = Zeros("A", {24}); }, "A is [24]"},
      {[](auto& s) {
         s.sites[0].tensors[0] = Zeros("A", {0, 6});
       },
       "A is [0×6]"},
      {[](auto& s) { s.sites[0].tensors.pop_back(); }, "site l.0.q: tensor \"B\" is missing"},
      {[](auto& s) { s.sites[0].tensors.clear(); }, "site l.0.q: tensor \"A\" is missing"},
      {[](auto& s) { s.sites[0].tensors.push_back(Zeros("C", {1})); },
       "site l.0.q: tensor \"C\" is one too many"},
      {[](auto& s) { s.sites[0].tensors.push_back(s.sites[0].tensors[0]); },
       "tensor \"A\" is one too many"},
      {[](auto& s) { std::swap(s.sites[0].tensors[0], s.sites[0].tensors[1]); },
       "tensor \"B\" stands where \"A\" is wanted"},
      {[](auto& s) { s.sites[0].tensors[0].name = "../A"; },
       "tensor \"../A\" stands where \"A\" is wanted"},
      {[](auto& s) {
         s.sites[0].tensors[0] = Zeros("A", {4, 6}, DType::kFloat16);
       },
       "A is F16, the codec stores F32"},
      {[](auto& s) {
         s.sites[0].tensors[0] = Zeros("A", {4, 6}, DType::kInt32);
       },
       "A is I32, the codec stores F32"},
      {[](auto& s) { s.sites.pop_back(); }, "got 1 sites, wanted 2: l.0.v is missing"},
      {[](auto& s) { s.sites.push_back(s.sites[0]); },
       "got 3 sites, wanted 2: l.0.q is one too many"},
      {[](auto& s) { std::swap(s.sites[0], s.sites[1]); }, "site 0 is l.0.v, the plan says l.0.q"},
      {[](auto& s) { s.sites[1] = s.sites[0]; }, "site 1 is l.0.q, the plan says l.0.v"},
      {[](auto& s) { std::swap(s.sites[0].site.in, s.sites[0].site.out); },
       "site l.0.q: is 6×8 (out×in), the model says 8×6"},
      {[](auto& s) {
         s.dense.push_back(Zeros("score.weight", {2, 2}));
       },
       "dense tensor score.weight"},
  };
  for (const Case& c : cases) {
    BlockSection section = Good();
    c.spoil(section);
    const Status status = CheckLayout(section, Spec(), Sites(), DType::kFloat32);
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << c.message;
    EXPECT_NE(status.message().find(c.message), std::string::npos)
        << "got " << status << "\nwanted " << c.message;
  }
}

TEST(LayoutTest, ARankBelowOneOrAnUnknownMethodHasNoLayout) {
  AdapterSpec zero = Spec();
  zero.rank = 0;
  EXPECT_EQ(CheckLayout({}, zero, Sites(), DType::kFloat32).code(), Code::kInvalidArgument);
  AdapterSpec odd = Spec();
  odd.method = "lokr";
  EXPECT_EQ(CheckLayout({}, odd, Sites(), DType::kFloat32).code(), Code::kNotFound);
}

TEST(LayoutTest, TheFirstFieldInWhichSpecsDifferIsNamed) {
  EXPECT_TRUE(CheckSameSpec(Spec(), Spec()).ok());
  struct Case {
    std::function<void(AdapterSpec&)> spoil;
    std::string message;
  };
  const std::vector<Case> cases = {
      {[](auto& s) { s.rank = 5; }, "rank is 5, the plan says 4"},
      {[](auto& s) { s.alpha = -1; }, "alpha is -1, the plan says 8"},
      {[](auto& s) { s.alpha = std::numeric_limits<double>::quiet_NaN(); }, "alpha is"},
      {[](auto& s) { s.alpha = 1e300; }, "alpha is 1e+300"},
      {[](auto& s) { s.method = "nola"; }, "method is nola"},
      {[](auto& s) { s.rslora = true; }, "rslora is 1"},
      {[](auto& s) {
         s.rank_pattern = {{"q", 2}};
       },
       "patterns"},
      {[](auto& s) { s.target_modules = {"k"}; }, "targets"},
      {[](auto& s) {
         s.options = {{"nola.seed", "7"}};
       },
       "option is nola.seed = 7, the plan says none"},
  };
  for (const Case& c : cases) {
    AdapterSpec spec = Spec();
    c.spoil(spec);
    const Status status = CheckSameSpec(spec, Spec());
    EXPECT_NE(status.message().find(c.message), std::string::npos) << status;
  }
}

}  // namespace
}  // namespace weft
