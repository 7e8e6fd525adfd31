// `weft adapter` on blocks of several parts.

#include "common/codec/adapter_block.h"

#include <gtest/gtest.h>

#include "cli/set_up.h"
#include "common/adapters/adapter.h"
#include "common/adapters/peft_io.h"
#include "common/codec/precision.h"
#include "tests/support/temp_folder.h"
#include "tests/unit/cli/execute.h"

namespace weft::cli {
namespace {

const std::vector<LinearSite> kSites = {{"model.layers.0.self_attn.q_proj", 6, 5},
                                        {"model.layers.0.self_attn.v_proj", 6, 4}};

AdapterState Random(const std::vector<LinearSite>& sites, uint64_t seed) {
  AdapterSpec spec;
  spec.rank = 2;
  spec.alpha = 6;
  spec.target_modules = {"q_proj", "v_proj"};
  AdapterState state = (*FindAdapter("lora"))->Init(spec, sites, seed).value();
  at::manual_seed(seed);
  for (SiteState& site : state.sites) site.Get("B").normal_();
  return state;
}

at::Tensor Product(const AdapterState& state, size_t site) {
  const LowRank factors = Lower(state).value()[site].factors;
  return factors.B_OR.mm(factors.A_RI);
}

// What a run took out of the base model (KaSA) may sit on fewer layers than its adapter.
TEST(AdapterBlockTest, ExportHoldsWhatWasTakenOutOfTheBase) {
  const weft::testing::TempFolder folder;
  const AdapterState adapter = Random(kSites, 1), frozen = Random(kSites, 2),
                     change = Random({kSites[1]}, 3);
  for (const bool beside : {false, true}) {
    AdapterBundle bundle;
    bundle.adapter = adapter;
    if (beside) bundle.frozen = frozen;
    bundle.base_change = change;
    const std::string block =
        folder.Write("block", std::string(EncodeBundle(bundle, Float32Codec())->view())).string();
    const std::string out = (folder.path() / (beside ? "both" : "one")).string();
    const Outcome exported = Execute(SetUpAdapterExport, {block, "--out", out});
    ASSERT_TRUE(exported.status.ok()) << exported.status;
    const AdapterState read = ReadPeft(out, kSites).value().state;
    for (size_t i = 0; i < kSites.size(); ++i) {
      at::Tensor wanted = Product(adapter, i);
      if (beside) wanted = wanted + Product(frozen, i);
      if (i == 1) wanted = wanted + Product(change, 0);
      EXPECT_TRUE(at::allclose(Product(read, i), wanted, 1e-5, 1e-6)) << beside << i;
    }
  }
}

}  // namespace
}  // namespace weft::cli
