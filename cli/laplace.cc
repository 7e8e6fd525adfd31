// `weft laplace fit|federate|predict`: how sure an adapter may be of its classes. A site measures
// its own rows at the adapter (fit), statistics of several sites add up to what all rows in one
// place would give (federate), and predictions are averaged over the posterior they make (predict).

#include <cmath>
#include <iostream>
#include <memory>

#include <nlohmann/json.hpp>

#include "cli/model_options.h"
#include "cli/set_up.h"
#include "cli/whole_number.h"
#include "common/adapters/peft_io.h"
#include "common/base/str.h"
#include "common/codec/adapter_block.h"
#include "common/evaluate/evaluate_choices.h"
#include "common/evaluate/measure_curvature.h"
#include "common/evaluate/posterior_classes.h"
#include "common/laplace/evidence.h"
#include "common/laplace/statistics_file.h"
#include "common/plan/round_plan.h"
#include "common/tensor/guard.h"

namespace weft::cli {
namespace {

struct LaplaceOptions {
  ModelOptions model;
  std::string data;
  std::vector<std::string> choices;
  uint64_t max_rows = 0;
  int64_t max_len = 0;
  int64_t batch = 8;
  std::string out;
  std::string posterior;
  std::vector<std::string> statistics;
  std::string validation;
  double precision = 0;  // 0: that of the evidence
  int64_t samples = 10000;
  int64_t exact_classes = 8;
  uint64_t seed = 0;
  bool json = false;
};

// Rows with classes: an encoder's own, or a decoder's choices with their tokens.
struct ClassedRows {
  std::vector<TokenRow> rows;
  std::vector<int32_t> answers;
};

Result<ClassedRows> ReadClassed(const LaplaceOptions& options, const LoadedModel& loaded,
                                const std::string& file) {
  const ModelConfig& config = loaded.model->config();
  const bool chooses = !config.is_encoder();
  if (chooses == options.choices.empty()) {
    return InvalidArgument(Str("[laplace] ", config.architecture,
                               chooses ? " predicts tokens; give --choices, the answers that every "
                                         "row's completion ends in one of"
                                       : " has classes of its own; leave --choices out"));
  }
  WEFT_TRY_ASSIGN(const std::vector<Row> rows, ReadRows(file, options.max_rows));
  TokenizeOptions tokenize;
  tokenize.max_len = config.max_positions;
  if (options.max_len > 0) tokenize.max_len = std::min(options.max_len, tokenize.max_len);
  if (chooses) {
    const Result<std::vector<ChoiceRow>> made =
        TokenizeChoices(rows, options.choices, *loaded.tokenizer, tokenize.max_len);
    WEFT_TRY(made.status().Within(file));
    Result<ChoiceClasses> classes = AsClasses(*made);
    WEFT_TRY(classes.status().Within(file));
    return ClassedRows{std::move(classes->rows), std::move(classes->answers)};
  }
  tokenize.labels = loaded.labels;
  Result<TokenRows> made = TokenizeRows(rows, *loaded.tokenizer, tokenize);
  WEFT_TRY(made.status().Within(file));
  return ClassedRows{std::move(made->rows), {}};
}

// A model, the adapter on it, and rows with classes.
struct Scene {
  LoadedModel loaded;
  AdapterBinding beside;
  std::vector<TokenRow> rows;
  std::vector<int32_t> answers;
  [[nodiscard]] Result<MeasuredAdapter> measured() const {
    WEFT_TRY_ASSIGN(std::string hash, AdapterSha256(loaded.adapter));
    return MeasuredAdapter{*loaded.model, loaded.adapter, beside, std::move(hash)};
  }
};

Result<std::unique_ptr<Scene>> LoadScene(const LaplaceOptions& options) {
  auto scene = std::make_unique<Scene>();
  WEFT_TRY_ASSIGN(scene->loaded, LoadForCommand(options.model));
  WEFT_TRY_ASSIGN(ClassedRows classed, ReadClassed(options, scene->loaded, options.data));
  scene->rows = std::move(classed.rows);
  scene->answers = std::move(classed.answers);
  return scene;
}

// λ and what it was chosen by, for a posterior at these matrices.
Result<double> Precision(const LaplacePosterior& posterior, double given, nlohmann::json& report) {
  if (given > 0) return given;
  WEFT_TRY_ASSIGN(const PriorFit fit, FitPrior(posterior, PriorSharing::kOne));
  report["log_marginal"] = fit.log_marginal;
  return fit.precisions.front();
}

void PrintReport(const nlohmann::json& report, bool as_json) {
  if (as_json) {
    std::cout << report.dump() << "\n";
    return;
  }
  for (const auto& [name, value] : report.items()) std::cout << name << " " << value << "\n";
}

// Fits λ at the adapter's own matrices and writes statistics and λ.
Status WriteFitted(const LaplaceStatistics& sums, const AdapterState& adapter,
                   const LaplaceOptions& options) {
  nlohmann::json report = {{"examples", sums.examples},
                           {"matrices", sums.matrices.size()},
                           {"log_likelihood", sums.log_likelihood}};
  WEFT_TRY_ASSIGN(const LaplacePosterior posterior,
                  MakePosterior(sums, MatrixValues(adapter), Normalization::kTokenRows));
  WEFT_TRY_ASSIGN(const double precision, Precision(posterior, options.precision, report));
  report["precision"] = precision;
  report["out"] = options.out;
  WEFT_TRY(WriteStatistics(options.out, {sums, precision}));
  PrintReport(report, options.json);
  return OkStatus();
}

Status Fit(const LaplaceOptions& options) {
  WEFT_TRY_ASSIGN(const std::unique_ptr<Scene> scene, LoadScene(options));
  WEFT_TRY_ASSIGN(const MeasuredAdapter measured, scene->measured());
  CurvatureSettings settings;
  settings.answers = scene->answers;
  settings.batch_rows = options.batch;
  settings.exact_classes_max = options.exact_classes;
  settings.seed = options.seed;
  JobControl control;
  WEFT_TRY_ASSIGN(const LaplaceStatistics sums,
                  MeasureCurvature(measured, scene->rows, settings, control));
  return WriteFitted(sums, scene->loaded.adapter, options);
}

Status Federate(const LaplaceOptions& options) {
  WEFT_TRY_ASSIGN(const PeftFolder folder, ReadPeft(options.model.adapter, {}));
  WEFT_TRY_ASSIGN(const std::string hash, AdapterSha256(folder.state));
  std::vector<StatisticsFile> files;
  for (const std::string& path : options.statistics) {
    WEFT_TRY_ASSIGN(StatisticsFile file, ReadStatistics(path));
    if (file.statistics.adapter_hash != hash) {
      return FailedPrecondition(Str("[laplace] ", path, " was measured at another adapter (",
                                    file.statistics.adapter_hash.substr(0, 16), "…) than ",
                                    options.model.adapter, " (", hash.substr(0, 16),
                                    "…); every site must measure at the final one"));
    }
    files.push_back(std::move(file));
  }
  std::vector<ClientStatistics> clients;
  for (size_t i = 0; i < files.size(); ++i) {
    clients.push_back({options.statistics[i], &files[i].statistics});
  }
  WEFT_TRY_ASSIGN(const LaplaceStatistics sums, MergeStatistics(clients));
  return WriteFitted(sums, folder.state, options);
}

// Two a decade.
std::vector<double> CandidatePrecisions() {
  std::vector<double> candidates;
  for (int half = -8; half <= 12; ++half) candidates.push_back(std::pow(10.0, half / 2.0));
  return candidates;
}

nlohmann::json ToJson(const Calibration& calibration) {
  return {{"accuracy", calibration.accuracy},
          {"nll", calibration.nll},
          {"ece", calibration.ece},
          {"brier", calibration.brier}};
}

Status Predict(const LaplaceOptions& options) {
  WEFT_TRY_ASSIGN(const StatisticsFile file, ReadStatistics(options.posterior));
  WEFT_TRY_ASSIGN(const std::unique_ptr<Scene> scene, LoadScene(options));
  WEFT_TRY_ASSIGN(const MeasuredAdapter measured, scene->measured());
  WEFT_TRY_ASSIGN(const LaplacePosterior posterior,
                  MakePosterior(file.statistics, MatrixValues(scene->loaded.adapter),
                                Normalization::kTokenRows));
  nlohmann::json report;
  PosteriorSettings settings{.answers = scene->answers, .batch_rows = options.batch};
  settings.draws.samples = options.samples;
  settings.draws.seed = options.seed;
  JobControl control;
  double given = options.precision > 0 ? options.precision : file.precision.value_or(0);
  if (!options.validation.empty()) {
    WEFT_TRY_ASSIGN(const ClassedRows held,
                    ReadClassed(options, scene->loaded, options.validation));
    WEFT_TRY_ASSIGN(given, ChoosePrecision(measured, posterior, CandidatePrecisions(), held.rows,
                                           settings, control));
  }
  WEFT_TRY_ASSIGN(const double precision, Precision(posterior, given, report));
  const std::vector<double> precisions = {precision};
  WEFT_TRY_ASSIGN(
      const PosteriorClasses classes,
      EvaluatePosterior(measured, posterior, precisions, scene->rows, settings, control));
  report.update({{"precision", precision},
                 {"rows", classes.map.examples},
                 {"bins", classes.map.bins},
                 {"map", ToJson(classes.map)},
                 {"laplace", ToJson(classes.average)}});
  PrintReport(report, options.json);
  return OkStatus();
}

void AddRows(CLI::App& app, LaplaceOptions& options) {
  AddModelOptions(app, options.model, true);
  app.get_option("--adapter")->required();
  app.add_option("--data", options.data, "JSONL rows of text and label")->required();
  app.add_option("--choices", options.choices,
                 "decoders: answers that every row's completion ends in one of")
      ->delimiter(',');
  app.add_option("--max-rows", options.max_rows, "rows from the beginning (0: all)")
      ->check(WholeNumber(uint64_t{0}));
  app.add_option("--max-len", options.max_len, "tokens of a row (default: the model's context)")
      ->check(WholeNumber(int64_t{1}));
  app.add_option("--batch", options.batch, "rows in one pass")
      ->check(WholeNumber(int64_t{1}, kBatchRowsMax))
      ->capture_default_str();
  app.add_option("--seed", options.seed, "of draws");
}

void AddCommon(CLI::App& app, LaplaceOptions& options) {
  app.add_option("--precision", options.precision,
                 "prior precision λ (default: the one of the largest evidence)")
      ->check(AboveZero());
  app.add_flag("--json", options.json, "one JSON object");
}

Action Guard(Status (*run)(const LaplaceOptions&), std::shared_ptr<LaplaceOptions> options) {
  return [run, options = std::move(options)] {
    return weft::Guarded("[laplace]", [&] { return run(*options); });
  };
}

}  // namespace

Action SetUpLaplaceFit(CLI::App& app) {
  auto options = std::make_shared<LaplaceOptions>();
  AddRows(app, *options);
  app.add_option("--exact-classes", options->exact_classes,
                 "up to so many classes the exact Fisher, beyond it labels drawn from the model")
      ->check(WholeNumber(int64_t{0}, int64_t{4096}))
      ->capture_default_str();
  app.add_option("--out", options->out, "file of statistics to write")->required();
  AddCommon(app, *options);
  return Guard(Fit, std::move(options));
}

Action SetUpLaplaceFederate(CLI::App& app) {
  auto options = std::make_shared<LaplaceOptions>();
  app.add_option("STATISTICS", options->statistics, "files of weft laplace fit, one a site")
      ->required();
  app.add_option("--adapter", options->model.adapter, "PEFT folder at which all were measured")
      ->required();
  app.add_option("--out", options->out, "file to write")->required();
  AddCommon(app, *options);
  return Guard(Federate, std::move(options));
}

Action SetUpLaplacePredict(CLI::App& app) {
  auto options = std::make_shared<LaplaceOptions>();
  AddRows(app, *options);
  app.add_option("--posterior", options->posterior, "file of weft laplace fit or federate")
      ->required();
  app.add_option("--validation", options->validation,
                 "JSONL rows by whose NLL the prior precision is chosen instead, from 1e-4 to 1e6");
  app.add_option("--samples", options->samples, "draws of a row")
      ->check(WholeNumber(int64_t{1}, int64_t{10'000'000}))
      ->capture_default_str();
  AddCommon(app, *options);
  return Guard(Predict, std::move(options));
}

}  // namespace weft::cli
