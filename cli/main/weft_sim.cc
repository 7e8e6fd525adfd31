// weft-sim run.toml [--model DIR] [--data F] [--clients N] [--workers W] [--seed S] [--out DIR]
// [--fault-seed S] [--set section.key=value]... [--json]
// weft-sim torture --seeds A..B [--scenario S]... [--json]

#include <algorithm>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "cli/check_run.h"
#include "cli/command.h"
#include "cli/exit_code.h"
#include "cli/run_rows.h"
#include "cli/torture.h"
#include "cli/whole_number.h"
#include "common/config/load.h"
#include "sim/simulation.h"

namespace {

using Json = nlohmann::ordered_json;

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Who was hostile, and whom the aggregator turned away in each round, hostile or not.
Json AttackJson(const weft::sim::SimulationReport& report) {
  Json out{{"name", report.attack},
           {"scale", report.attack_scale},
           {"attackers", report.attackers},
           {"refused", Json::array()}};
  for (const weft::RoundRow& round : report.run.rounds) {
    for (const weft::ClientRow& client : round.clients) {
      if (client.state != "refused") continue;
      out["refused"].push_back(
          {{"round", round.round}, {"client", client.client}, {"reason", client.reason}});
    }
  }
  return out;
}

Json ToJson(const weft::sim::SimulationReport& report) {
  Json out;
  out["run"] = report.run.run;
  out["strategy"] = report.run.strategy;
  out["clients"] = report.clients;
  out["workers"] = report.workers;
  out["rounds"] = report.run.published;
  out["round_s"] = Median(report.round_wall_s);
  out["round_wall_s"] = report.round_wall_s;
  out["client_steps_per_s"] = report.client_steps_per_s;
  out["load_s"] = report.load_s;
  out["wall_s"] = report.wall_s;
  out["virtual_s"] = report.virtual_s;
  out["eval_loss"] = report.eval_loss;
  out["shipped"] = Json::parse(weft::cli::ShippedJson(report.run));
  out["adapter_sha256"] = report.adapter_sha256;
  for (const weft::RoundRow& round : report.run.rounds) {
    for (const auto& [name, value] : round.server_metrics) out["eval_" + name].push_back(value);
    if (round.round == 0 || round.measures) continue;  // nothing was merged
    out["error_before_truncation"].push_back(round.certificate.error_before_truncation);
    out["error_published"].push_back(round.certificate.error_published);
    out["error_to_ideal"].push_back(round.certificate.error_to_ideal);
    out["error_rule"].push_back(round.certificate.error_rule);
    out["bytes_up"].push_back(round.BytesUp());
    out["bytes_down"].push_back(round.BytesDown());
    out["merge_s"].push_back(round.merge_s);
    out["error_codec"].push_back(round.certificate.error_codec);
  }
  if (report.run.posterior) out["posterior"] = Json::parse(weft::cli::PosteriorJson(report.run));
  out["attack"] = AttackJson(report);
  out["peak_rss_mb"] = report.peak_rss_mb;
  out["crashes"] = report.crashes;
  return out;
}

void Print(const weft::sim::SimulationReport& report) {
  for (const weft::RoundRow& round : report.run.rounds) {
    std::cout << "round " << round.round << "  accepted " << round.accepted << "/" << round.cohort;
    if (round.refused > 0) std::cout << "  refused " << round.refused;
    if (round.train_loss) std::cout << "  train_loss " << *round.train_loss;
    if (round.clients_loss) std::cout << "  eval_loss " << *round.clients_loss << " (sites)";
    if (round.server_loss) std::cout << "  eval_loss " << *round.server_loss << " (aggregator)";
    for (const auto& [name, value] : round.server_metrics)
      std::cout << "  " << name << " " << value;
    std::cout << (round.best ? "  best\n" : "\n");
  }
  if (report.run.posterior) {
    std::cout << "posterior  precision " << report.run.posterior->precision << "  log_marginal "
              << report.run.posterior->log_marginal << "\n";
  }
  if (!report.attackers.empty()) {
    std::cout << "attack " << report.attack << " × " << report.attack_scale << " by "
              << report.attackers.size() << " of " << report.clients << " clients\n";
  }
  std::cout << report.clients << " clients on " << report.workers << " workers: " << report.wall_s
            << " s, " << report.client_steps_per_s << " client steps/s, " << report.peak_rss_mb
            << " MB\n";
}

struct Flags {
  weft::SettingsSource source;
  std::string model, data, out;
  int64_t clients = -1, workers = -1, seed = -1, fault_seed = -1;
  bool json = false;
};

weft::Status Run(Flags flags) {
  WEFT_TRY_ASSIGN(weft::Settings settings, weft::LoadSettings(flags.source));
  if (!flags.model.empty()) settings.model.path = flags.model;
  if (!flags.data.empty()) settings.sim.data = flags.data;
  if (flags.clients >= 0) settings.sim.clients = flags.clients;
  if (flags.workers >= 0) settings.sim.workers = flags.workers;
  if (flags.seed >= 0) settings.run.seed = static_cast<uint64_t>(flags.seed);
  WEFT_TRY(weft::cli::CheckRun(settings));
  weft::sim::SimulationOptions options;
  options.settings = settings;
  options.out_dir = flags.out;
  if (flags.fault_seed >= 0) options.fault_seed = static_cast<uint64_t>(flags.fault_seed);
  options.on_notice = [](const std::string& line) { std::cerr << "weft-sim: " << line << "\n"; };
  WEFT_TRY_ASSIGN(const weft::sim::SimulationReport report,
                  weft::sim::Simulate(std::move(options)));
  if (flags.json) {
    std::cout << ToJson(report).dump() << "\n";
  } else {
    Print(report);
  }
  return weft::OkStatus();
}

int RunTorture(int argc, char** argv) {
  CLI::App app;
  app.name("weft-sim torture");
  const weft::cli::Action action = weft::cli::SetUpTorture(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return weft::cli::ExitOfParseError(app, error, "weft-sim torture");
  }
  return weft::cli::Guarded("weft-sim torture", action);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::string_view(argv[1]) == "torture") return RunTorture(argc - 1, argv + 1);
  CLI::App app{
      "Runs a whole federation in one process: the same nodes, frames and log as the daemons"};
  app.footer(
      "weft-sim torture --help: many seeds of faults through small federations\n"
      "Exit codes: 0 completed, 1 failed, 2 usage, 70 a bug of ours");
  Flags flags;
  std::string file;
  app.add_option("config", file, "the run's TOML file")->required();
  app.add_option("--model", flags.model, "base model folder, over model.path");
  app.add_option("--data", flags.data, "JSONL rows to deal out, over sim.data");
  app.add_option("--clients", flags.clients, "virtual clients, over sim.clients")
      ->check(CLI::Range(1, 1000000));
  app.add_option("--workers", flags.workers,
                 "worker threads (default: cores); results do not depend on it")
      ->check(CLI::Range(1, 1024));
  app.add_option("--seed", flags.seed, "over run.seed")->check(weft::cli::WholeNumber(int64_t{0}));
  app.add_option("--fault-seed", flags.fault_seed,
                 "kill processes and disturb links as drawn from this seed; the run's rules are "
                 "checked all along")
      ->check(weft::cli::WholeNumber(int64_t{0}));
  app.add_option("--out", flags.out,
                 "write a run folder as an aggregator's: every round's adapter, the ledger, what "
                 "[run] keep-updates keeps");
  app.add_option("--set", flags.source.overrides,
                 "section.key=value, over the file; may be repeated")
      ->allow_extra_args(false);
  app.add_flag("--json", flags.json, "one JSON object on stdout");
  app.set_version_flag("--version", "weft-sim 0.1.0");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return weft::cli::ExitOfParseError(app, error, "weft-sim");
  }
  flags.source.file = file;
  return weft::cli::Guarded("weft-sim", [&] { return Run(flags); });
}
