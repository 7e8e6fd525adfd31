#include "cli/method_options.h"

#include "common/adapters/adapter.h"
#include "common/adapters/method_spec.h"
#include "common/base/str.h"

namespace weft::cli {

void AddMethodOptions(CLI::App& app, std::string& method, std::vector<std::string>& options) {
  app.add_option("--method", method, "adapter method")->capture_default_str();
  app.add_option("--option", options, "of that method: name=value; may be repeated");
}

namespace {

Status AddOptions(const std::vector<std::string>& options, AdapterSpec& spec) {
  const std::string prefix = spec.method + ".";
  for (const std::string& option : options) {
    const size_t equals = option.find('=');
    if (equals == 0 || equals == std::string::npos) {
      return InvalidArgument(Str("--option ", option, ": wanted name=value"));
    }
    std::string name = option.substr(0, equals);
    if (name.starts_with(prefix)) name = name.substr(prefix.size());
    SetOption(spec, name, option.substr(equals + 1));
  }
  return OkStatus();
}

}  // namespace

Result<FreshAdapter> MakeFreshAdapter(AdapterSpec spec, const std::vector<std::string>& options,
                                      std::span<const LinearSite> all, uint64_t seed) {
  WEFT_TRY(AddOptions(options, spec));
  WEFT_TRY_ASSIGN(const Adapter* method, FindAdapter(spec.method));
  WEFT_TRY(method->CheckSpec(spec));
  FreshAdapter fresh;
  WEFT_TRY_ASSIGN(fresh.sites, MatchSites(spec, all));
  fresh.capped = CapRanks(spec, fresh.sites);
  WEFT_TRY_ASSIGN(fresh.state,
                  method->Init(method->ForRound(spec, seed, /*round=*/1), fresh.sites, seed));
  return fresh;
}

}  // namespace weft::cli
