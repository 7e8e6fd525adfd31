#include "common/wire/spec_codec.h"

#include "common/base/check.h"
#include "common/base/limits.h"

namespace weft::wire {

constexpr const char* kLabelKey = "label";  // of the options that are names of classes

unsigned ListSize(size_t count) {
  constexpr size_t kCapnpListMax = (size_t{1} << 29) - 1;
  WEFT_CHECK(count <= kCapnpListMax, count);
  return static_cast<unsigned>(count);
}

void WriteTexts(capnp::List<capnp::Text>::Builder out, const std::vector<std::string>& texts) {
  for (unsigned i = 0; i < out.size(); ++i) out.set(i, AsCapnp(texts[i]));
}

std::vector<std::string> ReadNames(FieldReader& fields, capnp::List<capnp::Text>::Reader in,
                                   uint64_t count_max, const char* field) {
  std::vector<std::string> names;
  if (!fields.Count(in.size(), count_max, field)) return names;
  names.reserve(in.size());
  for (const capnp::Text::Reader text : in) {
    names.push_back(fields.Name(text, field));
    if (!fields.ok()) break;
  }
  return names;
}

void WriteSite(proto::LinearSite::Builder out, const LinearSite& site) {
  out.setPath(AsCapnp(site.path));
  out.setIn(site.in);
  out.setOut(site.out);
}

LinearSite ReadSite(FieldReader& fields, proto::LinearSite::Reader in) {
  LinearSite site;
  site.path = fields.Key(in.getPath(), "site path");
  site.in = fields.Within(in.getIn(), 1, limits::kDimensionMax, "site in");
  site.out = fields.Within(in.getOut(), 1, limits::kDimensionMax, "site out");
  return site;
}

void WriteSpec(proto::AdapterSpec::Builder out, const AdapterSpec& spec) {
  out.setMethod(AsCapnp(spec.method));
  out.setRank(spec.rank);
  out.setAlpha(spec.alpha);
  out.setRslora(spec.rslora);
  out.setDropout(spec.dropout);
  WriteTexts(out.initTargetModules(ListSize(spec.target_modules.size())), spec.target_modules);
  out.setTargetRegex(AsCapnp(spec.target_regex));
  WriteTexts(out.initExcludeModules(ListSize(spec.exclude_modules.size())), spec.exclude_modules);
  auto layers = out.initLayersToTransform(ListSize(spec.layers_to_transform.size()));
  for (unsigned i = 0; i < layers.size(); ++i) layers.set(i, spec.layers_to_transform[i]);
  out.setLayersPattern(AsCapnp(spec.layers_pattern));
  auto ranks = out.initRankPattern(ListSize(spec.rank_pattern.size()));
  for (unsigned i = 0; i < ranks.size(); ++i) {
    ranks[i].setPattern(AsCapnp(spec.rank_pattern[i].first));
    ranks[i].setValue(spec.rank_pattern[i].second);
  }
  auto alphas = out.initAlphaPattern(ListSize(spec.alpha_pattern.size()));
  for (unsigned i = 0; i < alphas.size(); ++i) {
    alphas[i].setPattern(AsCapnp(spec.alpha_pattern[i].first));
    alphas[i].setValue(spec.alpha_pattern[i].second);
  }
  WriteTexts(out.initModulesToSave(ListSize(spec.modules_to_save.size())), spec.modules_to_save);
  const auto num_options = ListSize(spec.options.size());
  auto options = out.initOptions(ListSize(spec.options.size() + spec.labels.size()));
  for (unsigned i = 0; i < num_options; ++i) {
    options[i].setKey(AsCapnp(spec.options[i].first));
    options[i].setValue(AsCapnp(spec.options[i].second));
  }
  for (unsigned i = num_options; i < options.size(); ++i) {
    options[i].setKey(kLabelKey);
    options[i].setValue(AsCapnp(spec.labels[i - num_options]));
  }
}

namespace {

void ReadPatterns(FieldReader& fields, proto::AdapterSpec::Reader in, AdapterSpec& spec) {
  const auto ranks = in.getRankPattern();
  if (!fields.Count(ranks.size(), limits::kSitesMax, "rank pattern")) return;
  for (const auto entry : ranks) {
    std::string pattern = fields.Pattern(entry.getPattern(), "rank pattern");
    const int64_t rank = fields.Within(entry.getValue(), 0, limits::kRankMax, "rank pattern");
    spec.rank_pattern.emplace_back(std::move(pattern), rank);
    if (!fields.ok()) return;
  }
  const auto alphas = in.getAlphaPattern();
  if (!fields.Count(alphas.size(), limits::kSitesMax, "alpha pattern")) return;
  for (const auto entry : alphas) {
    std::string pattern = fields.Pattern(entry.getPattern(), "alpha pattern");
    const double alpha = fields.Finite(entry.getValue(), "alpha pattern");
    spec.alpha_pattern.emplace_back(std::move(pattern), alpha);
    if (!fields.ok()) return;
  }
}

void ReadLists(FieldReader& fields, proto::AdapterSpec::Reader in, AdapterSpec& spec) {
  spec.target_modules =
      ReadNames(fields, in.getTargetModules(), limits::kSitesMax, "target modules");
  spec.exclude_modules =
      ReadNames(fields, in.getExcludeModules(), limits::kSitesMax, "exclude modules");
  const auto layers = in.getLayersToTransform();
  if (!fields.Count(layers.size(), limits::kSitesMax, "layers to transform")) return;
  for (const int64_t layer : layers) {
    spec.layers_to_transform.push_back(
        fields.Within(layer, 0, limits::kDimensionMax, "layers to transform"));
  }
  spec.modules_to_save =
      ReadNames(fields, in.getModulesToSave(), limits::kOptionsMax, "modules to save");
  const auto options = in.getOptions();
  constexpr auto kLabelsMax = static_cast<uint64_t>(limits::kLabelsMax);
  if (!fields.Count(options.size(), limits::kOptionsMax + kLabelsMax, "options")) return;
  for (const auto option : options) {
    std::string key = fields.Name(option.getKey(), "option");
    if (key == kLabelKey) {
      spec.labels.push_back(fields.Name(option.getValue(), "label"));
    } else {
      spec.options.emplace_back(std::move(key), fields.Pattern(option.getValue(), "option"));
    }
    if (!fields.ok()) return;
  }
  (void)(fields.Count(spec.options.size(), limits::kOptionsMax, "options") &&
         fields.Count(spec.labels.size(), kLabelsMax, "labels"));
}

}  // namespace

AdapterSpec ReadSpec(FieldReader& fields, proto::AdapterSpec::Reader in) {
  AdapterSpec spec;
  spec.method = fields.Key(in.getMethod(), "method");
  spec.rank = fields.Within(in.getRank(), 0, limits::kRankMax, "rank");
  spec.alpha = fields.Finite(in.getAlpha(), "alpha");
  spec.rslora = in.getRslora();
  spec.dropout = fields.Finite(in.getDropout(), "dropout");
  spec.target_regex = fields.Pattern(in.getTargetRegex(), "target regex");
  spec.layers_pattern = fields.Pattern(in.getLayersPattern(), "layers pattern");
  if (fields.ok()) ReadLists(fields, in, spec);
  if (fields.ok()) ReadPatterns(fields, in, spec);
  return spec;
}

}  // namespace weft::wire
