// Updates whose tensors come packed: what is admitted of them, and that merging sees their numbers.

#include <cstring>
#include <functional>
#include <limits>

#include <gtest/gtest.h>

#include "aggregator/spooled_updates.h"
#include "aggregator/update_admission.h"
#include "common/codec/adapter_block.h"
#include "common/codec/precision.h"
#include "tests/support/strategy_world.h"

namespace weft {
namespace {

using testing::MemoryUpdates;

class SparseUpdateTest : public ::testing::Test {
 protected:
  SparseUpdateTest()
      : sites_({{MemoryUpdates::Path(0), 60, 80}, {MemoryUpdates::Path(1), 60, 50}}) {
    plan_.client = ClientId{"c07"};
    plan_.adapter = testing::LoraSpec(4, 8);
    plan_.adapter.method = "roselora";
    state_.spec = plan_.adapter;
    for (const LinearSite& site : sites_) {
      state_.sites.push_back({site,
                              {{"A", Sparse({4, site.in}, site.path + "A")},
                               {"B", Sparse({site.out, 4}, site.path + "B")}}});
    }
  }

  // One entry in ten.
  static at::Tensor Sparse(std::vector<int64_t> shape, const std::string& label) {
    at::Tensor value = testing::RandomMatrix(shape[0], shape[1], label).to(at::kFloat);
    return value.masked_fill_(value.abs().lt(1.64), 0);
  }

  TensorBlock Block() const {
    return *DecodeTensorBlock(*EncodeBundle({state_, std::nullopt}, Float32Codec()));
  }

  Status Check(const Blob& payload) const {
    return CheckUpdate(plan_, testing::HonestHeader(plan_, payload), sites_, payload).status();
  }

  // The honest update but for the last tensor's bytes.
  Status CheckChanged(const std::function<void(std::string&)>& change) const {
    TensorBlock block = Block();
    BlockTensor& tensor = block.sections[0].sites[1].tensors[1];
    EXPECT_EQ(tensor.packing, "sparse");
    std::string bytes(tensor.bytes.view());
    change(bytes);
    tensor.bytes = Blob::Copy(bytes);
    return Check(EncodeTensorBlock(block, BlockForm::kCompact));
  }

  std::vector<LinearSite> sites_;
  ClientPlan plan_;
  AdapterState state_;
};

TEST_F(SparseUpdateTest, AnHonestOneIsAdmittedAndSmall) {
  const Blob payload = *EncodeBundle({state_, std::nullopt}, Float32Codec());
  EXPECT_TRUE(Check(payload).ok()) << Check(payload);
  EXPECT_LT(payload.size(), 4 * static_cast<size_t>(state_.NumParameters()) / 3);
}

TEST_F(SparseUpdateTest, BytesThatAreNoSparseTensorAreRefusedWithClientSiteAndTensor) {
  const std::vector<std::pair<std::function<void(std::string&)>, std::string>> cases = {
      {[](std::string& b) { b.resize(3); }, "too few for a head"},
      {[](std::string& b) { b.pop_back(); }, "wanted"},
      {[](std::string& b) { b[0] = 9; }, "form 9"},
      {[](std::string& b) { b[1] = static_cast<char>(b[1] + 1); }, "wanted"},
      {[](std::string& b) { b.replace(b.size() - 4, 4, 4, '\0'); }, "is zero"},
      {[](std::string& b) {
         const float nan = std::numeric_limits<float>::quiet_NaN();
         std::memcpy(b.data() + b.size() - 4, &nan, 4);
       },
       "NaN"}};
  for (const auto& [change, wanted] : cases) {
    const Status status = CheckChanged(change);
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    for (const std::string& part : {std::string("client c07"), sites_[1].path,
                                    std::string("tensor B"), std::string(wanted)}) {
      EXPECT_NE(status.message().find(part), std::string::npos) << part << ": " << status;
    }
  }
}

TEST_F(SparseUpdateTest, AnUnknownPackingIsRefused) {
  TensorBlock block = Block();
  block.sections[0].sites[0].tensors[0].packing = "moths";
  const Status status = Check(EncodeTensorBlock(block, BlockForm::kCompact));
  EXPECT_NE(status.message().find("\"moths\""), std::string::npos) << status;
}

TEST_F(SparseUpdateTest, AnAdapterOfZerosWasNeverTrainedHoweverItIsPacked) {
  for (SiteState& site : state_.sites) {
    for (NamedTensor& tensor : site.tensors) tensor.value.zero_();
  }
  const Status status = Check(*EncodeBundle({state_, std::nullopt}, Float32Codec()));
  EXPECT_NE(status.message().find("never trained"), std::string::npos) << status;
}

TEST_F(SparseUpdateTest, MergingReadsTheNumbersThatWereSent) {
  const Blob payload = *EncodeBundle({state_, std::nullopt}, Float32Codec());
  const auto part = [payload](uint64_t offset, uint64_t length) -> Result<Blob> {
    return Blob::Copy(payload.Slice(offset, length).span());
  };
  for (const bool anew : {false, true}) {
    std::vector<ReceivedUpdate> updates;
    updates.push_back({testing::HonestHeader(plan_, payload), plan_, payload, 1, {}});
    if (anew) updates[0].read = part;
    const auto spooled = SpooledUpdates::Open(std::move(updates), sites_, "examples", 0);
    ASSERT_TRUE(spooled.ok()) << spooled.status();
    for (size_t i = 0; i < sites_.size(); ++i) {
      const Result<LowRank> factors = (*spooled)->Factors(0, i);
      ASSERT_TRUE(factors.ok()) << factors.status();
      EXPECT_TRUE(at::equal(factors->A_RI, state_.sites[i].Get("A").to(at::kDouble)));
      EXPECT_TRUE(at::equal(factors->B_OR, 2 * state_.sites[i].Get("B").to(at::kDouble)));
    }
  }
}

}  // namespace
}  // namespace weft
