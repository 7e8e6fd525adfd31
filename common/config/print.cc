// Settings as text: TOML, and the reference page.

#include <string>
#include <vector>

#include "common/base/str.h"
#include "common/config/binding.h"
#include "common/config/load.h"

namespace weft {
namespace {

// The keys of one table whose values differ from the defaults (or all), section headers included.
void PrintTable(std::string& text, const std::vector<Binding>& values,
                const std::vector<Binding>& defaults, bool all) {
  std::string_view section;
  for (size_t i = 0; i < values.size(); ++i) {
    const std::string value = PrintValue(values[i]);
    if (!all && value == PrintValue(defaults[i])) continue;
    if (values[i].section != section) {
      section = values[i].section;
      text += Str(text.empty() ? "" : "\n", "[", section, "]\n");
    }
    text += Str(values[i].key, " = ", value, "\n");
  }
}

constexpr const char* kIntroduction =
    R"(# Configuration

This page is made from the table of settings in the code: `weft config reference > docs/configuration.md`.

Each program takes one TOML file and any number of `--set section.key=value`. From weakest to
strongest: defaults, the file, environment variables, `--set`.

* `--set adapter.rank=16`, `--set adapter.target-modules=q_proj,v_proj`, `--set client.NAME.data=rows.jsonl`
  (`--set client.data=rows.jsonl` where there is only one client).
* `adapter.rank` is `WEFT_ADAPTER_RANK` in the environment, and so on.
* Relative paths in a file are taken from the file's folder, others from the working directory.
* An unknown key is an error that names the nearest known one.
* `weft config show FILE` prints the settings in effect.

A run file lists its sites as `[[client]]` tables; a site's own file has one `[client]`.
)";

struct SectionText {
  std::string_view name;
  std::string_view text;
};

constexpr SectionText kSections[] = {
    {"run", "The run as a whole."},
    {"model", "The base model and where it is computed."},
    {"adapter", "What is trained; the words and the matching rules are PEFT's."},
    {"train", "Local training of a client in one round."},
    {"strategy", "How the aggregator merges updates."},
    {"robust", "What keeps one client from bending the merge."},
    {"server-optimizer", "How the global adapter follows what a round would change."},
    {"wire", "What travels."},
    {"cohort", "Who takes part, how long it may take, what is admitted."},
    {"evaluate", "Evaluation on the aggregator; clients evaluate on their own validation rows."},
    {"laplace", "Laplace-LoRA: a posterior over the final adapter, measured after the last round."},
    {"server", "The link between clients and aggregator."},
    {"relay",
     "`weft-relay` only: its link to the aggregator above; `[server]` is for its own members."},
    {"sim", "`weft-sim` only."},
    {"client", "One site: `[[client]]` in a run file, `[client]` in a site's own file."},
};

// A bar would end the table's cell.
std::string EscapeCell(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '|') escaped += '\\';
    escaped += c;
  }
  return escaped;
}

}  // namespace

std::string ToToml(const Settings& settings, bool all) {
  Settings values = settings;
  Settings defaults;
  std::string text;
  PrintTable(text, BindSettings(values), BindSettings(defaults), all);
  for (ClientSettings& client : values.clients) {
    ClientSettings plain;
    std::string part;
    PrintTable(part, BindClient(client), BindClient(plain), all);
    const size_t header = part.find('\n');
    text += Str(text.empty() ? "" : "\n", "[[client]]\n",
                header == std::string::npos ? "" : part.substr(header + 1));
  }
  return text;
}

std::string SettingsReference() {
  Settings settings;
  ClientSettings client;
  std::vector<Binding> table = BindSettings(settings);
  for (Binding& binding : BindClient(client)) table.push_back(std::move(binding));
  std::string text = kIntroduction;
  for (const SectionText& section : kSections) {
    text += Str("\n## [", section.name, "]\n\n", section.text,
                "\n\n| key | type | default | |\n|---|---|---|---|\n");
    for (const Binding& binding : table) {
      if (binding.section != section.name) continue;
      text += Str("| `", binding.key, "` | ", EscapeCell(DescribeType(binding)), " | `",
                  EscapeCell(PrintValue(binding)), "` | ", EscapeCell(binding.help), " |\n");
    }
  }
  return text;
}

}  // namespace weft
