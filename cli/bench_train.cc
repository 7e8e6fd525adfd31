// `weft bench train`: LoRA steps on the rows of a file in file order, timed; the same rows, loss
// and optimiser settings as a transformers + PEFT script (bench/README.md), so that the two
// compare.

#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>

#include <ATen/ops/_fused_adamw.h>
#include <nlohmann/json.hpp>
#include <sys/resource.h>

#include "cli/model_options.h"
#include "cli/set_up.h"
#include "cli/whole_number.h"
#include "common/base/limits.h"
#include "common/data/batch.h"
#include "common/data/token_rows.h"
#include "common/model/bind_adapter.h"
#include "common/plan/round_plan.h"
#include "common/tensor/guard.h"

namespace weft::cli {
namespace {

struct BenchOptions {
  ModelOptions model;
  std::string data;
  int64_t rank = 8;
  int64_t batch = 8;
  int64_t max_len = 256;
  int64_t steps = 8;
  bool checkpointing = false;
  bool json = false;
};

// AdamW with transformers' defaults, all tensors in one call.
class FusedAdamW {
 public:
  explicit FusedAdamW(std::vector<at::Tensor> parameters) : parameters_(std::move(parameters)) {
    for (const at::Tensor& parameter : parameters_) {
      first_.push_back(at::zeros_like(parameter));
      second_.push_back(at::zeros_like(parameter));
      steps_.push_back(at::zeros({}, at::TensorOptions(at::kFloat).device(parameter.device())));
    }
  }

  void Step() {
    const at::NoGradGuard no_grad;
    std::vector<at::Tensor> gradients;
    for (size_t i = 0; i < parameters_.size(); ++i) {
      gradients.push_back(parameters_[i].grad());
      steps_[i].add_(1);
    }
    at::_fused_adamw_(parameters_, gradients, first_, second_, {}, steps_, /*lr=*/1e-4,
                      /*beta1=*/0.9, /*beta2=*/0.999, /*weight_decay=*/0.01, /*eps=*/1e-8,
                      /*amsgrad=*/false, /*maximize=*/false);
    for (at::Tensor& parameter : parameters_) parameter.mutable_grad() = at::Tensor();
  }

 private:
  std::vector<at::Tensor> parameters_, first_, second_, steps_;
};

struct Report {
  std::vector<double> seconds;
  std::vector<double> losses;
  int64_t tokens = 0;  // of the timed steps
  int64_t labels = 0;
};

Result<AdapterState> FreshAdapter(const Model& model, int64_t rank) {
  AdapterSpec spec;
  spec.rank = rank;
  spec.alpha = 2.0 * static_cast<double>(rank);
  spec.target_modules = {"all-linear"};
  WEFT_TRY_ASSIGN(const std::vector<LinearSite> sites, MatchSites(spec, model.sites()));
  (void)CapRanks(spec, sites);
  WEFT_TRY_ASSIGN(const Adapter* method, FindAdapter(spec.method));
  WEFT_TRY_ASSIGN(AdapterState state, method->Init(spec, sites, /*seed=*/0));
  state = CloneTo(state, model.device(), at::kFloat);
  for (SiteState& site : state.sites) {
    for (NamedTensor& tensor : site.tensors) tensor.value.requires_grad_(true);
  }
  return state;
}

Result<double> Step(const Model& model, const AdapterState& adapter, const PackedBatch& batch,
                    const BenchOptions& options, FusedAdamW& optimiser) {
  WEFT_TRY_ASSIGN(std::vector<Factors> factors, FactorsFor(model, adapter));
  const AdapterBinding binding = {std::move(factors)};
  at::Tensor loss =
      model.LossSum(batch, binding,
                    {.gradient_checkpointing = options.checkpointing, .training = true}) /
      static_cast<double>(batch.labels_L.size(0));
  loss.backward();
  optimiser.Step();
  return loss.item<double>();
}

Result<Report> Measure(const Model& model, const TokenRows& rows, const BenchOptions& options) {
  WEFT_TRY_ASSIGN(const AdapterState adapter, FreshAdapter(model, options.rank));
  std::vector<at::Tensor> parameters;
  for (const SiteState& site : adapter.sites) {
    for (const NamedTensor& tensor : site.tensors) parameters.push_back(tensor.value);
  }
  FusedAdamW optimiser(parameters);
  Report report;
  for (int64_t step = 0; step <= options.steps; ++step) {
    std::vector<const TokenRow*> chosen;
    for (int64_t i = step * options.batch; i < (step + 1) * options.batch; ++i) {
      chosen.push_back(&rows.rows[static_cast<size_t>(i)]);
    }
    const PackedBatch batch = Pack(chosen, {.device = model.device()});
    const auto begin = std::chrono::steady_clock::now();
    WEFT_TRY_ASSIGN(const double loss, Step(model, adapter, batch, options, optimiser));
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    report.losses.push_back(loss);
    if (step == 0) continue;  // the first one also warms caches
    report.seconds.push_back(took.count());
    report.tokens += batch.ids_N.size(0);
    report.labels += batch.labels_L.size(0);
  }
  return report;
}

double PeakRssMb() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024.0;
}

void Print(const BenchOptions& options, const Report& report) {
  std::vector<double> sorted = report.seconds;
  std::sort(sorted.begin(), sorted.end());
  const size_t half = sorted.size() / 2;
  const double median =
      sorted.size() % 2 == 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
  double total = 0;
  for (double seconds : sorted) total += seconds;
  const nlohmann::json figures = {
      {"what", "weft"},
      {"dtype", options.model.dtype},
      {"rank", options.rank},
      {"batch", options.batch},
      {"s_per_step", median},
      {"tokens_per_s", static_cast<double>(report.tokens) / total},
      {"label_tokens_per_s", static_cast<double>(report.labels) / total},
      {"peak_rss_mb", static_cast<int64_t>(PeakRssMb())},
      {"losses", report.losses}};
  if (options.json) {
    std::cout << figures.dump() << "\n";
    return;
  }
  std::cout << "median step " << median << " s, " << figures["tokens_per_s"].get<double>()
            << " tokens/s (" << figures["label_tokens_per_s"].get<double>()
            << " with a label), peak memory " << figures["peak_rss_mb"] << " MB\nloss "
            << report.losses.front() << " → " << report.losses.back() << " over "
            << report.losses.size() << " steps\n";
}

Status Run(const BenchOptions& options) {
  WEFT_TRY_ASSIGN(const LoadedModel loaded, LoadForCommand(options.model));
  const auto needed = static_cast<uint64_t>(options.batch * (options.steps + 1));
  WEFT_TRY_ASSIGN(const std::vector<Row> rows, ReadRows(options.data, needed));
  TokenizeOptions tokenize;
  tokenize.max_len = std::min(options.max_len, loaded.model->config().max_positions);
  tokenize.chat_template = ChooseChatTemplate("", *loaded.tokenizer);
  const Result<TokenRows> made = TokenizeRows(rows, *loaded.tokenizer, tokenize);
  WEFT_TRY(made.status().Within(options.data));
  const TokenRows& tokens = *made;
  if (tokens.rows.size() < needed) {
    return InvalidArgument(Str("[bench] ", options.data, ": ", tokens.rows.size(),
                               " rows with a label, ", needed, " needed for ", options.steps,
                               " + 1 steps of ", options.batch));
  }
  WEFT_TRY_ASSIGN(const Report report, weft::Guarded("[bench]", [&]() -> Result<Report> {
                    return Measure(*loaded.model, tokens, options);
                  }));
  Print(options, report);
  return OkStatus();
}

}  // namespace

Action SetUpBenchTrain(CLI::App& app) {
  const auto options = std::make_shared<BenchOptions>();
  AddModelOptions(app, options->model, false);
  app.add_option("--data", options->data, "JSONL file, rows taken in order")->required();
  const auto number = [&](const char* name, int64_t& value, int64_t most, const char* help) {
    app.add_option(name, value, help)->check(WholeNumber(int64_t{1}, most))->capture_default_str();
  };
  number("--rank", options->rank, limits::kRankMax, "of the adapter on every linear layer");
  number("--batch", options->batch, kBatchRowsMax, "rows in a step");
  number("--max-len", options->max_len, kRowTokensMax, "tokens of a row");
  number("--steps", options->steps, 1'000'000, "timed steps, after one that is not");
  app.add_flag("--checkpointing", options->checkpointing, "recompute layers to save memory");
  app.add_flag("--json", options->json, "one JSON object");
  return [options] { return Run(*options); };
}

}  // namespace weft::cli
