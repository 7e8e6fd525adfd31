// `weft train`: one site alone, from a model folder and rows to a PEFT folder (or, with --full, a
// model folder). Also the baseline that a federation is compared with.

#include <array>
#include <cmath>
#include <iostream>
#include <memory>

#include <nlohmann/json.hpp>

#include "cli/method_options.h"
#include "cli/model_folder.h"
#include "cli/model_options.h"
#include "cli/out_folder.h"
#include "cli/progress.h"
#include "cli/set_up.h"
#include "cli/whole_number.h"
#include "client/schedule.h"
#include "client/trainer.h"
#include "common/adapters/beside.h"
#include "common/adapters/dense.h"
#include "common/adapters/method_spec.h"
#include "common/adapters/peft_io.h"
#include "common/evaluate/evaluate_classes.h"
#include "common/evaluate/evaluate_rows.h"
#include "common/formats/model_layout.h"
#include "common/model/base_weights.h"
#include "common/model/bind_dense.h"
#include "common/tensor/device.h"

namespace weft::cli {
namespace {

struct TrainOptions {
  ModelOptions model;
  std::string data;
  std::string batches;
  std::string eval_data;
  std::string adapter_init;
  std::string out;
  AdapterSpec spec;
  std::vector<std::string> method_options;
  LocalTraining training;
  std::optional<double> alpha;  // none: twice the rank
  bool no_packing = false;
  bool full = false;
  ChatOptions chat;
  uint64_t seed = 1;
  uint64_t init_seed = 0;
  bool has_init_seed = false;
  uint64_t max_rows = 0;
  bool json = false;
};

struct Rows {
  TokenRows train;
  TokenRows eval;
  std::vector<FixedBatch> fixed;  // with --batches; owns what the pointers below point to
  std::vector<std::vector<const TokenRow*>> train_batches;
};

// On --eval-data; nothing without it.
struct Evaluated {
  double loss = 0;
  std::optional<ClassScores> scores;  // of a model that classifies
};
struct Evaluations {
  std::optional<Evaluated> before;
  std::optional<Evaluated> after;
};

Result<std::shared_ptr<Model>> LoadModel(const TrainOptions& options) {
  LoadOptions load;
  WEFT_TRY_ASSIGN(load.device, ParseDevice(options.model.device));
  WEFT_TRY_ASSIGN(load.dtype, ParseComputeType(options.model.dtype));
  load.trainable = options.full;
  if (options.full) load.head_seed = options.seed;
  if (options.has_init_seed) load.init_seed = options.init_seed;
  if (options.model.threads > 0) at::set_num_threads(options.model.threads);
  return Model::Load(options.model.model, load);
}

Result<TokenRows> ReadTokens(const TrainOptions& options, const std::string& path,
                             const Model& model) {
  WEFT_TRY_ASSIGN(const std::unique_ptr<Tokenizer> tokenizer,
                  Tokenizer::LoadFor(options.model.model, model.config().vocab_size));
  WEFT_TRY_ASSIGN(const std::vector<Row> rows, ReadRows(path, options.max_rows));
  TokenizeOptions tokenize;
  const int64_t context = model.config().max_positions;
  tokenize.max_len = options.training.max_len > 0 ? options.training.max_len : context;
  if (tokenize.max_len > context) {
    return InvalidArgument(
        Str("[train] --max-len is ", tokenize.max_len, ", the model's context is ", context));
  }
  tokenize.long_rows = options.training.long_rows;
  tokenize.labels = options.spec.labels;
  tokenize.chat = options.chat.use;
  tokenize.chat_template = ChooseChatTemplate(options.chat.name, *tokenizer);
  Result<TokenRows> tokens = TokenizeRows(rows, *tokenizer, tokenize);
  if (!tokens.ok()) return tokens.status().Within(path);
  std::cerr << path << ": " << tokens->summary.Text(tokenize.max_len) << "\n";
  return tokens;
}

Status CheckFixedRows(const std::vector<FixedBatch>& batches, const std::string& file,
                      const Model& model) {
  for (const FixedBatch& batch : batches) {
    const std::string where = Str("[data] ", file, ":", batch.line, ": ");
    int64_t labels = 0;
    for (const TokenRow& row : batch.rows) {
      labels += row.num_labels();
      if (static_cast<int64_t>(row.ids.size()) > model.config().max_positions) {
        return InvalidArgument(Str(where, "a row has ", row.ids.size(),
                                   " tokens, the model's context is ",
                                   model.config().max_positions));
      }
    }
    if (labels == 0) {
      return InvalidArgument(where + "no row has a label behind its first token");
    }
  }
  return OkStatus();
}

Status ReadFixed(const TrainOptions& options, const Model& model, Rows& rows) {
  WEFT_TRY_ASSIGN(rows.fixed, ReadFixedBatches(options.batches, model.config().vocab_size));
  WEFT_TRY(CheckFixedRows(rows.fixed, options.batches, model));
  for (const FixedBatch& batch : rows.fixed) {
    if (batch.split == "eval") {
      rows.eval.rows.insert(rows.eval.rows.end(), batch.rows.begin(), batch.rows.end());
      continue;
    }
    std::vector<const TokenRow*> pointers;
    for (const TokenRow& row : batch.rows) pointers.push_back(&row);
    rows.train_batches.push_back(std::move(pointers));
  }
  if (rows.train_batches.empty()) {
    return InvalidArgument("[data] " + options.batches + ": no batch of split \"train\"");
  }
  return OkStatus();
}

Result<std::unique_ptr<Rows>> ReadAllRows(const TrainOptions& options, const Model& model) {
  auto rows = std::make_unique<Rows>();
  if (options.data.empty() == options.batches.empty()) {
    return InvalidArgument("[train] wanted one of --data and --batches");
  }
  if (!options.batches.empty()) {
    WEFT_TRY(ReadFixed(options, model, *rows));
  } else {
    WEFT_TRY_ASSIGN(rows->train, ReadTokens(options, options.data, model));
  }
  if (!options.eval_data.empty()) {
    WEFT_TRY_ASSIGN(rows->eval, ReadTokens(options, options.eval_data, model));
  }
  return rows;
}

// The names of the classes that an encoder is to tell apart: with --full the model's own, else
// those given, those of the adapter it starts from, or those of the rows. Nothing for a decoder.
Result<std::vector<std::string>> LabelsFor(const TrainOptions& options, const Model& model) {
  if (!model.config().is_encoder()) {
    if (options.spec.labels.empty()) return std::vector<std::string>();
    return InvalidArgument(Str("[train] --labels: ", model.config().architecture,
                               " predicts tokens, it has no classes; leave it out"));
  }
  if (options.data.empty()) {
    return InvalidArgument("[train] an encoder trains on rows of text and label; give --data");
  }
  if (options.full) return model.config().labels;
  if (!options.adapter_init.empty()) {
    WEFT_TRY_ASSIGN(PeftFolder folder, ReadPeft(options.adapter_init, model.sites()));
    if (!folder.state.spec.labels.empty()) return std::move(folder.state.spec.labels);
  }
  if (!options.spec.labels.empty()) return options.spec.labels;
  WEFT_TRY_ASSIGN(const std::vector<Row> rows, ReadRows(options.data, options.max_rows));
  const Result<std::vector<std::string>> found = LabelsOf(rows);
  WEFT_TRY(found.status().Within(options.data));
  return found;
}

// What training begins with; nothing with --full.
struct Start {
  AdapterState adapter;
  std::optional<AdapterState> base_change;  // what the method takes out of the base model
};

Result<Start> StartOf(const TrainOptions& options, const Model& model) {
  Start start;
  if (!options.adapter_init.empty()) {
    WEFT_TRY_ASSIGN(PeftFolder folder, ReadPeft(options.adapter_init, model.sites()));
    start.adapter = std::move(folder.state);
    return start;
  }
  AdapterSpec spec = options.spec;
  if (!spec.labels.empty()) spec.modules_to_save = {"classifier"};
  spec.alpha = options.alpha.value_or(2.0 * static_cast<double>(spec.rank));
  if (spec.target_modules.empty()) spec.target_modules = {"all-linear"};
  WEFT_TRY_ASSIGN(FreshAdapter fresh,
                  MakeFreshAdapter(spec, options.method_options, model.sites(), options.seed));
  if (!fresh.capped.empty()) {
    std::cerr << "notice: the rank of " << fresh.capped.size()
              << " layers is capped at min(in, out), e.g. " << fresh.capped[0] << " at "
              << RankFor(fresh.state.spec, fresh.capped[0]) << "\n";
  }
  start.adapter = std::move(fresh.state);
  spec = start.adapter.spec;
  WEFT_TRY_ASSIGN(const Adapter* method, FindAdapter(spec.method));
  WEFT_TRY_ASSIGN(const auto change,
                  method->BaseChange(spec, fresh.sites, BaseWeights(options.model.model)));
  if (change) start.base_change = LoraFromFactors(ForMethod(spec, "lora"), *change);
  std::vector<LinearSite> all = model.sites();
  for (LinearSite& site : HeadSites(model.config())) all.push_back(std::move(site));
  WEFT_TRY_ASSIGN(start.adapter.dense, FreshDense(spec, all, options.seed));
  return start;
}

Result<std::optional<Evaluated>> Evaluate(const TrainOptions& options, const Model& model,
                                          const Rows& rows, const AdapterState& state,
                                          const std::optional<AdapterState>& base_change) {
  std::optional<Evaluated> evaluated;
  if (rows.eval.rows.empty()) return evaluated;
  AdapterBinding binding;
  if (!options.full) {
    const at::NoGradGuard no_grad;
    WEFT_TRY_ASSIGN(AppliedAdapter applied, Apply(model, state));
    binding.push_back(std::move(applied));
    if (base_change) {
      WEFT_TRY_ASSIGN(AppliedAdapter change, Apply(model, *base_change));
      binding.push_back(std::move(change));
    }
  }
  JobControl control;
  const int64_t batch = options.training.batch_size;
  if (model.config().is_encoder()) {
    WEFT_TRY_ASSIGN(
        const ClassesResult result,
        EvaluateClasses(model, binding, rows.eval.rows, options.spec.labels, batch, control));
    evaluated = {result.loss, result.scores};
    return evaluated;
  }
  WEFT_TRY_ASSIGN(const RowsLoss total,
                  EvaluateRows(model, binding, rows.eval.rows, batch, control));
  evaluated = {total.loss, std::nullopt};
  return evaluated;
}

Result<TrainOutput> RunTraining(const TrainOptions& options, const Model& model, Rows& rows,
                                const Start& start) {
  TrainInput input;
  input.rows = rows.train.rows;
  input.fixed_batches = rows.train_batches;
  input.training = options.training;
  input.start = start.adapter;
  if (start.base_change) input.frozen.push_back(*start.base_change);
  input.full = options.full;
  input.seed = options.seed;
  input.on_notice = [](const std::string& text) { std::cerr << text << "\n"; };
  Progress progress("train", 0);
  input.on_step = [&](const StepReport& report) {
    progress.Line(std::cerr,
                  Str("step ", report.step, "/", report.num_steps, "  loss ", report.loss,
                      "  grad ", report.grad_norm, "  lr ", report.lr, "  tokens ", report.tokens));
  };
  JobControl control;
  return Train(model, std::move(input), control);
}

Status WriteResult(const TrainOptions& options, const Model& model, const TrainOutput& output,
                   const std::optional<AdapterState>& base_change) {
  if (options.full) return WriteModelFolder(model.AllWeights(), options.model.model, options.out);
  WEFT_TRY_ASSIGN(const AdapterState whole, WithBaseChange(output.state, base_change));
  return WritePeft(whole, options.out,
                   {.base_model = options.model.model,
                    .fan_in_fan_out = model.config().family == ModelFamily::kGpt2});
}

void AddScores(const std::string& when, const Evaluated& evaluated, nlohmann::json& json) {
  json["eval_loss_" + when] = evaluated.loss;
  if (!evaluated.scores) return;
  json["eval_accuracy_" + when] = evaluated.scores->accuracy;
  json["eval_f1_" + when] = evaluated.scores->f1;
  json["eval_matthews_" + when] = evaluated.scores->matthews;
  if (evaluated.scores->pearson) json["eval_pearson_" + when] = *evaluated.scores->pearson;
}

void Print(const TrainOptions& options, const TrainOutput& output, const Evaluations& eval) {
  nlohmann::json json = {
      {"steps", output.steps.size()},           {"train_loss", output.train_loss},
      {"num_examples", output.num_examples},    {"label_tokens", output.label_tokens},
      {"micro_batch", output.micro_batch_rows}, {"out", options.out}};
  json["step_loss"] = nlohmann::json::array();
  json["grad_norm"] = nlohmann::json::array();
  for (const StepReport& step : output.steps) {
    json["step_loss"].push_back(step.loss);
    json["grad_norm"].push_back(step.grad_norm);
  }
  if (eval.before) AddScores("before", *eval.before, json);
  if (eval.after) AddScores("after", *eval.after, json);
  if (options.json) {
    std::cout << json.dump() << "\n";
    return;
  }
  std::cout << "mean loss " << output.train_loss << " over " << output.steps.size() << " steps";
  if (eval.after)
    std::cout << "; evaluation loss " << eval.before->loss << " → " << eval.after->loss;
  if (eval.after && eval.after->scores) {
    std::cout << ", accuracy " << eval.before->scores->accuracy << " → "
              << eval.after->scores->accuracy;
  }
  std::cout << "\nwritten to " << options.out << "\n";
}

Status Run(TrainOptions options) {
  options.training.packing = !options.no_packing;
  options.training.dtype = options.model.dtype;
  WEFT_TRY(CheckTraining(options.training));
  WEFT_TRY(PrepareOutFolder(options.out, options.model.model));
  WEFT_TRY_ASSIGN(const std::shared_ptr<Model> model, LoadModel(options));
  WEFT_TRY_ASSIGN(options.spec.labels, LabelsFor(options, *model));
  WEFT_TRY_ASSIGN(const std::unique_ptr<Rows> rows, ReadAllRows(options, *model));
  Start start;
  if (!options.full) {
    WEFT_TRY_ASSIGN(start, StartOf(options, *model));
  }
  Evaluations eval;
  WEFT_TRY_ASSIGN(eval.before, Evaluate(options, *model, *rows, start.adapter, start.base_change));
  WEFT_TRY_ASSIGN(const TrainOutput output, RunTraining(options, *model, *rows, start));
  WEFT_TRY_ASSIGN(eval.after, Evaluate(options, *model, *rows, output.state, start.base_change));
  WEFT_TRY(WriteResult(options, *model, output, start.base_change));
  Print(options, output, eval);
  return OkStatus();
}

constexpr std::array kOfFreshAdapters = {
    "--rank",   "--alpha",   "--target-modules", "--target-regex", "--exclude-modules",
    "--rslora", "--dropout", "--labels",         "--method",       "--option"};

void AddAdapterOptions(CLI::App& app, TrainOptions& options) {
  CLI::Option* init =
      app.add_option("--adapter-init", options.adapter_init, "PEFT folder to start from");
  AddMethodOptions(app, options.spec.method, options.method_options);
  app.add_option("--rank", options.spec.rank, "of a fresh adapter")->capture_default_str();
  app.add_option("--alpha", options.alpha, "of a fresh adapter (default: twice the rank)");
  app.add_option("--target-modules", options.spec.target_modules,
                 "layer names, or all-linear (default)")
      ->delimiter(',');
  app.add_option("--target-regex", options.spec.target_regex,
                 "one expression that matches whole layer paths, instead of names")
      ->excludes("--target-modules");
  app.add_option("--exclude-modules", options.spec.exclude_modules, "layers left out")
      ->delimiter(',');
  app.add_flag("--rslora", options.spec.rslora, "scaling alpha/√rank");
  app.add_option("--dropout", options.spec.dropout, "on the adapters' input");
  app.add_option("--labels", options.spec.labels,
                 "names of an encoder's classes (default: those of the rows)")
      ->delimiter(',');
  for (const char* of_a_fresh_one : kOfFreshAdapters) init->excludes(of_a_fresh_one);
}

void AddTrainingOptions(CLI::App& app, TrainOptions& options) {
  LocalTraining& training = options.training;
  app.add_option("--lr", training.lr, "learning rate")->capture_default_str();
  app.add_option("--weight-decay", training.weight_decay, "AdamW's")->capture_default_str();
  app.add_option("--grad-clip", training.grad_clip, "largest gradient norm (0: none)");
  app.add_option("--schedule", training.schedule, "constant, linear or cosine")
      ->capture_default_str();
  app.add_option("--warmup", training.warmup_steps, "steps of rising learning rate");
  app.add_option("--steps", training.local_steps, "optimiser steps (0: by --epochs)");
  app.add_option("--epochs", training.local_epochs, "passes over the rows")->capture_default_str();
  app.add_option("--batch", training.batch_size, "rows per optimiser step")->capture_default_str();
  app.add_option("--micro-batch", training.micro_batch_size,
                 "rows per forward pass (0: planned from memory)");
  app.add_option("--max-len", training.max_len, "tokens of a row (default: the model's context)");
  app.add_option("--long-rows", training.long_rows, "cut or drop")->capture_default_str();
  app.add_option("--row-order", training.row_order, "shuffle or file")->capture_default_str();
  app.add_option("--objective", training.objective, "sft or fedprox")->capture_default_str();
  app.add_flag("--no-packing", options.no_packing, "pad rows instead of packing them");
  app.add_flag("--checkpointing", training.gradient_checkpointing,
               "recompute layers to save memory");
}

}  // namespace

Action SetUpTrain(CLI::App& app) {
  const auto options = std::make_shared<TrainOptions>();
  AddModelOptions(app, options->model, false);
  app.add_option("--data", options->data, "JSONL rows to train on");
  CLI::Option* batches =
      app.add_option("--batches", options->batches,
                     "JSONL of ready batches (split, input_ids, labels), each one step, in order");
  app.add_option("--eval-data", options->eval_data, "JSONL rows for the loss before and after");
  app.add_option("--max-rows", options->max_rows, "rows from the beginning (0: all)")
      ->check(WholeNumber(uint64_t{0}));
  app.add_option("--out", options->out, "folder to write")->required();
  AddAdapterOptions(app, *options);
  AddTrainingOptions(app, *options);
  for (const char* by_the_file : {"--batch", "--steps", "--epochs", "--row-order"}) {
    batches->excludes(by_the_file);
  }
  AddChatOptions(app, options->chat);
  app.add_option("--seed", options->seed, "of fresh factors, row order and dropout")
      ->check(WholeNumber(uint64_t{0}))
      ->capture_default_str();
  CLI::Option* full = app.add_flag("--full", options->full,
                                   "train the model's own weights; --out is a model folder");
  // What an adapter is made from or of has no meaning where there is none.
  full->excludes("--adapter-init");
  for (const char* of_a_fresh_one : kOfFreshAdapters) full->excludes(of_a_fresh_one);
  CLI::Option* init_seed = app.add_option("--init-seed", options->init_seed,
                                          "--full without weights: random ones from this seed")
                               ->check(WholeNumber(uint64_t{0}));
  init_seed->needs(full);
  app.add_flag("--json", options->json, "one JSON object, last on stdout");
  return [options, init_seed] {
    options->has_init_seed = init_seed->count() > 0;
    return Run(*options);
  };
}

}  // namespace weft::cli
