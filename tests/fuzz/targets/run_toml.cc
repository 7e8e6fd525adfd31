// run.toml and one --set: settings that load print as TOML that loads to the same settings.

#include "common/base/check.h"
#include "common/config/load.h"
#include "tests/fuzz/fuzz_target.h"

namespace weft::fuzz {
namespace {

void Run(std::string_view input) {
  const std::vector<std::string_view> parts = Parts(input, 2);
  const MemoryFile file(parts[0]);
  SettingsSource source{.file = file.path(), .overrides = {}, .environment = false};
  if (!parts[1].empty()) source.overrides.emplace_back(parts[1]);
  const Result<Settings> settings = LoadSettings(source);
  if (!settings.ok()) {
    WEFT_CHECK(!settings.status().message().empty());
    return;
  }
  const std::string whole = ToToml(*settings, true);
  for (const bool all : {true, false}) {
    const MemoryFile printed(ToToml(*settings, all));
    const Result<Settings> again =
        LoadSettings({.file = printed.path(), .overrides = {}, .environment = false});
    WEFT_CHECK(again.ok(), again.status(), "\n", ToToml(*settings, all));
    WEFT_CHECK(ToToml(*again, true) == whole, whole);
  }
}

Seeds MakeSeeds() {
  return {
      Joined({"[run]\nname = \"r\"\nseed = \"18446744073709551615\"\ndir = \"x/../y\"\n",
              "train.lr=1e-4"}),
      Joined({"[adapter]\nrank-pattern = { \"z.*\" = 1, q = 2 }\ntarget-modules = '.*q'\n"
              "options = { k = 64, t = true, w = \"a\\nb\" }\n",
              "adapter.target-modules=q_proj,v_proj"}),
      Joined({"[[client]]\nname = \"a\"\nrank = 4\n[[client]]\nname = \"b.c\"\nrank = \"auto\"\n",
              "client.b.c.rank=7"}),
      Joined({"[client]\ndata = \"rows.jsonl\"\n[sim]\nranks = [4, 8]\nworld = 'inproc'\n", ""}),
      Joined({"[cohort]\nfraction-train = 0.5\n[server]\nheartbeat-s = 1e1\n", "run.name=n"}),
      Joined({"[train]\nlr = 1979-05-27\n", ""}),
      Joined({"a.b.c = [[1], {x = 2}]\n", ""})};
}

}  // namespace

Target RunToml() {
  return {
      "run_toml",
      Run,
      MakeSeeds,
      {"[adapter]", "alpha-pattern", "exclude-modules", "layers-to-transform", "modules-to-save",
       "'''", "\"\"\"", "\\u0000", "inf", "nan", "0x", "[[client]]", "public-key", "max-examples"}};
}

}  // namespace weft::fuzz
