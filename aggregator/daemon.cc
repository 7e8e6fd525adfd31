#include "aggregator/daemon.h"

#include <utility>

#include "aggregator/aggregator_node.h"
#include "aggregator/premises.h"
#include "aggregator/strategies/strategy.h"
#include "common/config/load.h"
#include "common/formats/base_hash.h"

namespace weft {

Result<BaseDescription> DescribeBaseOf(const ModelSettings& model) {
  if (!model.base.empty()) return ReadBaseDescription(model.base);
  if (!model.path.empty()) return DescribeBase(model.path);
  return InvalidArgument(
      "[model] got neither path nor base, wanted the model's folder or its base.json");
}

Result<AggregatorOptions> MakeAggregatorOptions(const Settings& settings,
                                                const std::string& run_dir) {
  AggregatorOptions options;
  options.settings = settings;
  options.settings_toml = ToToml(settings, true);
  WEFT_TRY_ASSIGN(options.base, DescribeBaseOf(settings.model));
  options.base_model = settings.model.path;
  options.run_dir = run_dir;
  options.evaluate_here = !settings.evaluate.data.empty();
  WEFT_TRY(FindStrategy(settings.strategy.name).status());
  return options;
}

Status RunAggregatorDaemon(AggregatorDaemon daemon) {
  Premises premises(std::move(daemon.settings), "aggregator");
  WEFT_TRY_ASSIGN(AggregatorOptions options,
                  MakeAggregatorOptions(premises.settings(), premises.folder()));
  options.keep_running = daemon.keep_running;
  options.stop_requested = [&premises] { return premises.StopRequest(); };
  WEFT_TRY(premises.Open(options.evaluate_here));
  if (daemon.on_bound) daemon.on_bound(premises.endpoint());
  AggregatorNode node(premises.env(), std::move(options));
  WEFT_TRY(premises.Run(node));
  return node.Outcome();
}

}  // namespace weft
