// `weft bench train`: steps of an adapter on the rows of a file in file order, timed; the same
// rows, loss and optimiser settings as a transformers + PEFT script (bench/README.md), so that the
// two compare.

#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>

#include <nlohmann/json.hpp>
#include <sys/resource.h>

#include "cli/method_options.h"
#include "cli/model_options.h"
#include "cli/set_up.h"
#include "cli/whole_number.h"
#include "client/optimizer.h"
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
  std::string method = "lora";
  std::vector<std::string> method_options;
  int64_t rank = 8;
  int64_t batch = 8;
  int64_t max_len = 256;
  int64_t steps = 8;
  bool checkpointing = false;
  bool json = false;
};

struct Report {
  std::vector<double> seconds;
  std::vector<double> losses;
  int64_t tokens = 0;  // of the timed steps
  int64_t labels = 0;
  int64_t parameters = 0;
};

// One adapter in training, as client/trainer.cc trains it.
class Training {
 public:
  Training(const Model& model, const BenchOptions& options) : model_(model), options_(options) {
    // transformers' AdamW defaults.
    training_.lr = 1e-4;
    training_.weight_decay = 0.01;
  }

  Status Begin() {
    AdapterSpec spec;
    spec.method = options_.method;
    spec.rank = options_.rank;
    spec.alpha = 2.0 * static_cast<double>(options_.rank);
    spec.target_modules = {"all-linear"};
    WEFT_TRY_ASSIGN(const FreshAdapter fresh,
                    MakeFreshAdapter(spec, options_.method_options, model_.sites(), /*seed=*/0));
    WEFT_TRY_ASSIGN(method_, FindAdapter(spec.method));
    WEFT_TRY_ASSIGN(adapter_, Flatten(fresh.state, model_.device()));
    optimizer_.emplace(training_, adapter_.parameters);
    prepared_ = method_->Prepare(adapter_.state, model_.device());
    rule_ = method_->NewStepRule(adapter_.state, {.total_steps = options_.steps + 1});
    return OkStatus();
  }

  Result<double> Step(const PackedBatch& batch) {
    adapter_.parameters.ZeroGradients();
    WEFT_TRY_ASSIGN(std::vector<Factors> factors,
                    FactorsFor(model_, adapter_.state, prepared_.get()));
    const AdapterBinding binding = {std::move(factors)};
    at::Tensor loss =
        model_.LossSum(batch, binding,
                       {.gradient_checkpointing = options_.checkpointing, .training = true}) /
        static_cast<double>(batch.labels_L.size(0));
    loss.backward();
    const at::Tensor penalty = method_->Penalty(adapter_.state);
    if (penalty.defined()) penalty.backward();
    const at::NoGradGuard no_grad;
    if (rule_ != nullptr) rule_->BeforeStep(adapter_.state);
    optimizer_->Step(training_.lr);
    if (rule_ != nullptr) rule_->AfterStep(adapter_.state);
    return loss.item<double>();
  }

  [[nodiscard]] int64_t NumParameters() const { return adapter_.parameters.NumElements(); }

 private:
  const Model& model_;
  const BenchOptions& options_;
  LocalTraining training_;
  const Adapter* method_ = nullptr;
  FlatAdapter adapter_;
  std::optional<AdamW> optimizer_;
  std::shared_ptr<const Prepared> prepared_;
  std::unique_ptr<StepRule> rule_;
};

Result<Report> Measure(const Model& model, const TokenRows& rows, const BenchOptions& options) {
  Training training(model, options);
  WEFT_TRY(training.Begin());
  Report report;
  report.parameters = training.NumParameters();
  for (int64_t step = 0; step <= options.steps; ++step) {
    std::vector<const TokenRow*> chosen;
    for (int64_t i = step * options.batch; i < (step + 1) * options.batch; ++i) {
      chosen.push_back(&rows.rows[static_cast<size_t>(i)]);
    }
    const PackedBatch batch = Pack(chosen, {.device = model.device()});
    const auto begin = std::chrono::steady_clock::now();
    WEFT_TRY_ASSIGN(const double loss, training.Step(batch));
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
      {"method", options.method},
      {"rank", options.rank},
      {"parameters", report.parameters},
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
  AddMethodOptions(app, options->method, options->method_options);
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
