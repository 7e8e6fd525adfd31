// base.json: what parses writes itself as text that parses to the same, within the limits.

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/formats/base_hash.h"
#include "tests/fuzz/fuzz_target.h"

namespace weft::fuzz {
namespace {

void Run(std::string_view input) {
  const Result<BaseDescription> base = ParseBaseDescription(input, "base.json");
  if (!base.ok()) {
    WEFT_CHECK(base.status().message().starts_with("[base] base.json"), base.status());
    return;
  }
  WEFT_CHECK(!base->sites.empty() && base->sites.size() <= limits::kSitesMax);
  for (const LinearSite& site : base->sites) {
    WEFT_CHECK(site.in > 0 && site.in <= limits::kDimensionMax, site.path);
    WEFT_CHECK(site.out > 0 && site.out <= limits::kDimensionMax, site.path);
    WEFT_CHECK(!site.path.empty() && site.path.size() <= limits::kNameBytesMax);
  }
  const Result<BaseDescription> again = ParseBaseDescription(EncodeBaseDescription(*base), "again");
  WEFT_CHECK(again.ok(), again.status());
  WEFT_CHECK(*again == *base);
}

Seeds MakeSeeds() {
  const BaseDescription base{
      .hash = std::string(64, 'a'),
      .architecture = "LlamaForCausalLM",
      .sites = {{"model.layers.0.self_attn.q_proj", 8, 8}, {"lm_head", 8, 32}}};
  return {EncodeBaseDescription(base), R"({"hash":"x","architecture":"","sites":[]})",
          R"({"hash":[[[[]]]],"sites":[{"path":"","in":0}]})"};
}

}  // namespace

Target BaseDescriptionFile() {
  return {"base_description", Run, MakeSeeds, {"\"sites\"", "\"path\"", "16777217", "-1", "null"}};
}

}  // namespace weft::fuzz
