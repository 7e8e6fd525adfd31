// `weft bench merge`: how long one round's merge takes, for any strategy, number of clients, ranks
// and layer size, on random updates in the form in which they lie in the spool.

#include <algorithm>
#include <chrono>
#include <iostream>

#include <nlohmann/json.hpp>
#include <sys/resource.h>

#include "aggregator/spooled_updates.h"
#include "aggregator/strategies/robust_rules.h"
#include "aggregator/strategies/round_merge.h"
#include "aggregator/strategies/site_threads.h"
#include "aggregator/strategies/slots.h"
#include "aggregator/strategies/state_block.h"
#include "cli/bench_baselines.h"
#include "cli/set_up.h"
#include "cli/whole_number.h"
#include "common/adapters/adapter.h"
#include "common/base/limits.h"
#include "common/base/random.h"
#include "common/base/str.h"
#include "common/codec/precision.h"
#include "common/tensor/guard.h"

namespace weft::cli {
namespace {

struct Options {
  int64_t clients = 3;
  std::vector<int64_t> ranks = {16};
  int64_t modules = 8;
  std::vector<int64_t> dim = {1024, 1024};  // out, in
  std::string strategy = "exact-svd";
  RobustSettings robust;
  std::vector<std::string> baselines;
  int64_t repeat = 3;
  int threads = 0;
  bool json = false;
};

// Uniform numbers: what they are does not matter to the time, that they are not zero does.
at::Tensor Random(std::vector<int64_t> shape, RandomStream& stream) {
  at::Tensor tensor = at::empty(shape, at::kFloat);
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    tensor.mutable_data_ptr<float>()[i] = static_cast<float>(stream.NextU32()) * 0x1p-31F - 1.0F;
  }
  return tensor;
}

Result<ReceivedUpdate> MakeUpdate(const Options& options, int64_t index,
                                  const std::vector<LinearSite>& sites) {
  ReceivedUpdate update;
  const std::string digits = Str(index);
  update.client.client.name =
      "c" + std::string(6 - std::min<size_t>(6, digits.size()), '0') + digits;
  update.client.adapter.rank = options.ranks[static_cast<size_t>(index) % options.ranks.size()];
  update.client.adapter.alpha = 16;
  RandomStream stream = RandomStream::Derive(1, {"bench-merge", digits});
  AdapterBundle bundle;
  bundle.adapter.emplace();
  bundle.adapter->spec = update.client.adapter;
  for (const LinearSite& site : sites) {
    const int64_t rank = SiteRank(update.client.adapter, site);
    bundle.adapter->sites.push_back(
        {site, {{"A", Random({rank, site.in}, stream)}, {"B", Random({site.out, rank}, stream)}}});
  }
  WEFT_TRY_ASSIGN(update.payload, EncodeBundle(bundle, Float32Codec()));
  update.update_norm = 1;
  update.header.client = update.client.client;
  update.header.spec = update.client.adapter;
  update.header.codec = "float32";
  update.header.num_examples = 100;
  update.header.label_tokens = 1000;
  update.header.payload_bytes = update.payload.size();
  return update;
}

// What choosing the clients' weights takes by itself: the median of its runs.
Result<double> ChooseSeconds(const Strategy& strategy, const MergeInput& input, int64_t repeat) {
  const std::vector<double> weights = WeightsOf(input.updates);
  std::vector<double> seconds;
  for (int64_t i = 0; i < repeat; ++i) {
    const auto began = std::chrono::steady_clock::now();
    JobControl control;
    WEFT_TRY_ASSIGN(const at::Tensor gram, ChangeGram(strategy, input, control));
    static_cast<void>(ChooseClients(input.settings.robust, gram, weights, weights.size()));
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

// What the rule takes without the certificate and the state's encoding: the median of its runs.
Result<double> RuleSeconds(const Strategy& strategy, const MergeInput& input, int64_t repeat) {
  const size_t sites = input.global.adapter.sites.size();
  std::vector<double> seconds;
  for (int64_t i = 0; i < repeat; ++i) {
    const auto began = std::chrono::steady_clock::now();
    WEFT_TRY_ASSIGN(const RoundSurvey survey, strategy.Survey(input));
    std::vector<Status> ends(sites);
    ForEachSite(sites, [&](size_t site, StackMemory&) {
      ends[site] = strategy.MergeSite(input, survey, site).status();
    });
    for (const Status& end : ends) WEFT_TRY(end);
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

struct Measured {
  double merge_s;
  double rule_s;
  double bytes;
  LinearSite layer;
  int64_t stacked;  // rank of all updates of a layer together
};

void Report(const Options& options, const Measured& measured, const Certificate& certificate,
            nlohmann::ordered_json beside) {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const double peak_mb = static_cast<double>(usage.ru_maxrss) / 1024;
  for (const std::string& name : options.baselines) {
    const double baseline_s =
        BaselineSeconds(name, options.modules, measured.layer, measured.stacked,
                        static_cast<uint64_t>(measured.bytes), options.repeat);
    beside["baselines"][name] = {{"seconds", baseline_s},
                                 {"merge_to_baseline", measured.merge_s / baseline_s},
                                 {"rule_to_baseline", measured.rule_s / baseline_s}};
  }
  if (options.json) {
    nlohmann::ordered_json out = {{"merge_s", measured.merge_s},
                                  {"gb_per_s", measured.bytes / measured.merge_s / 1e9},
                                  {"rule_s", measured.rule_s},
                                  {"rule_gb_per_s", measured.bytes / measured.rule_s / 1e9},
                                  {"peak_rss_mb", peak_mb},
                                  {"payload_mb", measured.bytes / 1e6},
                                  {"error_before_truncation", certificate.error_before_truncation},
                                  {"error_published", certificate.error_published}};
    if (!beside.is_null()) out.update(beside);
    std::cout << out.dump() << "\n";
  } else {
    std::cout << options.strategy << ", " << options.clients << " clients, " << options.modules
              << " layers " << options.dim[0] << "×" << options.dim[1] << ": " << measured.merge_s
              << " s a merge (median of " << options.repeat << "), "
              << measured.bytes / measured.merge_s / 1e9 << " GB/s of updates (the rule alone "
              << measured.rule_s << " s, " << measured.bytes / measured.rule_s / 1e9
              << " GB/s), peak memory " << peak_mb << " MB\n";
    if (!beside.is_null()) std::cout << beside.dump(2) << "\n";
  }
}

Status Run(const Options& options) {
  if (options.threads > 0) at::set_num_threads(options.threads);
  WEFT_TRY_ASSIGN(const Strategy* strategy, FindStrategy(options.strategy));
  StrategySettings settings{.name = options.strategy};
  settings.robust = options.robust;
  WEFT_TRY(CheckStrategySettings(settings, {}));
  std::vector<LinearSite> sites;
  for (int64_t i = 0; i < options.modules; ++i) {
    sites.push_back({Str("layers.", i, ".q_proj"), options.dim[1], options.dim[0]});
  }
  std::vector<ReceivedUpdate> received;
  double bytes = 0;
  for (int64_t k = 0; k < options.clients; ++k) {
    WEFT_TRY_ASSIGN(ReceivedUpdate update, MakeUpdate(options, k, sites));
    bytes += static_cast<double>(update.payload.size());
    received.push_back(std::move(update));
  }
  AdapterSpec spec;
  spec.rank = *std::max_element(options.ranks.begin(), options.ranks.end());
  WEFT_TRY_ASSIGN(GlobalState global, strategy->Init(spec, sites, 1));

  std::vector<double> seconds;
  Certificate certificate;
  for (int64_t i = 0; i <= options.repeat; ++i) {
    const auto began = std::chrono::steady_clock::now();
    JobControl control;
    WEFT_TRY_ASSIGN(const auto updates, SpooledUpdates::Open(received, sites, "examples", 0));
    WEFT_TRY_ASSIGN(MergedRound merged,
                    MergeRound(*strategy, {settings, global, *updates}, control));
    WEFT_TRY_ASSIGN(const EncodedState state, EncodeState(merged.global));
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
    certificate = std::move(merged.certificate);
    // The first merge only makes the state of a run under way, and warms up.
    if (i == 0) {
      global = std::move(merged.global);
      seconds.clear();
    }
  }
  std::sort(seconds.begin(), seconds.end());
  const double merge_s = seconds[seconds.size() / 2];
  nlohmann::ordered_json beside;
  double rule_s = merge_s;
  if (!strategy->traits().own_coordinates) {
    WEFT_TRY_ASSIGN(const auto updates, SpooledUpdates::Open(received, sites, "examples", 0));
    WEFT_TRY_ASSIGN(rule_s, RuleSeconds(*strategy, {settings, global, *updates}, options.repeat));
  }
  if (ChoosesWeights(settings.robust)) {
    WEFT_TRY_ASSIGN(const auto updates, SpooledUpdates::Open(received, sites, "examples", 0));
    WEFT_TRY_ASSIGN(beside["choose_s"],
                    ChooseSeconds(*strategy, {settings, global, *updates}, options.repeat));
  }
  int64_t stacked = 0;
  for (const ReceivedUpdate& update : received) {
    stacked += SiteRank(update.client.adapter, sites.front());
  }
  Report(options, {merge_s, rule_s, bytes, sites.front(), stacked}, certificate, std::move(beside));
  return OkStatus();
}

}  // namespace

Action SetUpBenchMerge(CLI::App& app) {
  auto options = std::make_shared<Options>();
  const auto number = [&](const char* name, auto& value, int64_t most, const char* help) {
    return app.add_option(name, value, help)->check(WholeNumber(int64_t{1}, most));
  };
  constexpr auto kClientsMax = static_cast<int64_t>(limits::kPeersMax);
  constexpr auto kModulesMax = static_cast<int64_t>(limits::kSitesMax);
  number("--clients", options->clients, kClientsMax, "updates in the round")->capture_default_str();
  number("--ranks", options->ranks, limits::kRankMax, "ranks, given to the clients in turn: 4,8,16")
      ->delimiter(',');
  number("--modules", options->modules, kModulesMax, "adapted layers")->capture_default_str();
  number("--dim", options->dim, limits::kDimensionMax, "outputs and inputs of a layer: 4096 4096")
      ->expected(2);
  app.add_option("--strategy", options->strategy, "rule to run")->capture_default_str();
  app.add_option("--robust", options->robust.rule, "robust rule before it")->capture_default_str();
  app.add_option("--byzantine", options->robust.byzantine, "liars that the rule reckons with")
      ->check(WholeNumber(int64_t{0}, kClientsMax));
  app.add_option("--baseline", options->baselines, "measured beside it, in turn: copy,qr-svd,…")
      ->delimiter(',')
      ->check(CLI::IsMember(Baselines()));
  number("--repeat", options->repeat, 1'000'000, "merges; the median is reported")
      ->capture_default_str();
  app.add_option("--threads", options->threads, "torch threads; 0: all cores")
      ->check(WholeNumber(0, 1024));
  app.add_flag("--json", options->json, "one JSON object on stdout");
  return [options] { return weft::Guarded("[bench]", [&] { return Run(*options); }); };
}

}  // namespace weft::cli
