// `weft edit`: teaches a model new answers to some prompts (a JSONL of edits), folds what was
// learnt into its weights, and says how well it holds, how far it carries over to paraphrases, and
// what else changed: other answers, and the share of weights that kept every bit. The method is
// RoseLoRA's knowledge editing (arXiv:2406.10777, section on knowledge editing), or LoRA's for
// comparison; the standard settings are those of the authors' editor where they suit small models.

#include <algorithm>
#include <chrono>
#include <deque>
#include <iostream>
#include <memory>
#include <numeric>
#include <span>

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
#include "common/adapters/adapter.h"
#include "common/adapters/merge.h"
#include "common/adapters/method_spec.h"
#include "common/adapters/roselora.h"
#include "common/base/str.h"
#include "common/evaluate/answers.h"
#include "common/formats/edit_rows.h"
#include "common/model/bind_adapter.h"
#include "common/tensor/guard.h"

namespace weft::cli {
namespace {

struct EditOptions {
  ModelOptions model;
  std::string edits;
  std::string others;
  std::string out;
  AdapterSpec spec;
  std::vector<std::string> method_options;
  LocalTraining training;
  uint64_t max_edits = 0;
  uint64_t max_others = 200;
  int64_t answer_tokens = 1;
  double loss_below = 0.1;
  bool each = false;
  uint64_t seed = 1;
  bool json = false;
};

// Everything that is asked, as tokens. `line` of each row of `edits` stands at the same place.
struct Questions {
  std::vector<TokenRow> edits;
  std::vector<uint64_t> lines;
  std::vector<TokenRow> paraphrases;
  std::vector<size_t> paraphrased;  // the edit that each of them asks for
  std::vector<TokenRow> others;     // with what the model answered before
};

// Which answers are those wanted.
struct Measures {
  std::vector<bool> edits;
  std::vector<bool> paraphrases;
  std::vector<bool> others;

  void Add(const Measures& more) {
    edits.insert(edits.end(), more.edits.begin(), more.edits.end());
    paraphrases.insert(paraphrases.end(), more.paraphrases.begin(), more.paraphrases.end());
    others.insert(others.end(), more.others.begin(), more.others.end());
  }
};

struct Weights {
  int64_t all = 0;
  int64_t all_same = 0;
  int64_t adapted = 0;  // of layers that carry the adapter
  int64_t adapted_same = 0;
};

// The prompt, and behind a space the answer, which has the labels.
Result<TokenRow> Question(const std::string& prompt, const std::string& answer, uint64_t line,
                          const LoadedModel& loaded) {
  TokenRow row;
  row.ids = loaded.tokenizer->Encode(prompt, /*special=*/true);
  row.labels.assign(row.ids.size(), kNoLabel);
  const bool spaced = prompt.ends_with(' ') || answer.starts_with(' ');
  for (const int32_t id :
       loaded.tokenizer->Encode(spaced ? answer : " " + answer, /*special=*/false)) {
    row.ids.push_back(id);
    row.labels.push_back(id);
  }
  const int64_t context = loaded.model->config().max_positions;
  if (row.num_labels() > 0 && static_cast<int64_t>(row.ids.size()) <= context) return row;
  return InvalidArgument(Str("[edit] line ", line, ": ", row.ids.size(), " tokens, ",
                             row.num_labels(), " of them an answer; wanted some of each, and the ",
                             "model's context is ", context));
}

class Editing {
 public:
  explicit Editing(EditOptions options) : options_(std::move(options)) {}

  Status Run() {
    if (options_.out.empty() != options_.each) {
      return InvalidArgument("[edit] wanted one of --out, for a model with all edits, and --each");
    }
    if (!options_.each) WEFT_TRY(PrepareOutFolder(options_.out, options_.model.model));
    WEFT_TRY_ASSIGN(loaded_, LoadForCommand(options_.model));
    if (loaded_.model->config().is_encoder()) {
      return InvalidArgument("[edit] the model predicts no tokens; wanted a decoder");
    }
    WEFT_TRY(ReadQuestions());
    WEFT_TRY_ASSIGN(before_, Measure({}, questions_));
    WEFT_TRY(weft::Guarded("[edit]", [&] { return options_.each ? RunEach() : RunTogether(); }));
    Print();
    return OkStatus();
  }

 private:
  Status RunTogether() {
    WEFT_TRY(Learn(questions_.edits));
    WEFT_TRY_ASSIGN(const std::vector<NamedTensor> merged, Merged());
    WEFT_TRY(WriteModelFolder(merged, options_.model.model, options_.out));
    // What is measured is the model that was written, not the adapter beside the old one.
    ModelOptions written = options_.model;
    written.model = options_.out;
    loaded_ = LoadedModel();
    WEFT_TRY_ASSIGN(loaded_, LoadForCommand(written));
    WEFT_TRY_ASSIGN(after_, Measure({}, questions_));
    return OkStatus();
  }

  // Every edit alone on the model as it was; shares are means over all of them.
  Status RunEach() {
    for (size_t i = 0; i < questions_.edits.size(); ++i) {
      const std::span<const TokenRow> one(&questions_.edits[i], 1);
      WEFT_TRY(Learn(one));
      WEFT_TRY(Merged().status());
      const at::NoGradGuard no_grad;
      WEFT_TRY_ASSIGN(const LowRankAdapter lowered, Lower(learnt_.state));
      WEFT_TRY_ASSIGN(std::vector<Factors> factors, FactorsFor(*loaded_.model, lowered));
      AdapterBinding binding;
      binding.emplace_back(std::move(factors));
      Questions asked{{one.begin(), one.end()}, {}, {}, {}, questions_.others};
      for (size_t p = 0; p < questions_.paraphrases.size(); ++p) {
        if (questions_.paraphrased[p] == i) asked.paraphrases.push_back(questions_.paraphrases[p]);
      }
      WEFT_TRY_ASSIGN(const Measures measures, Measure(binding, asked));
      after_.Add(measures);
    }
    return OkStatus();
  }

  Status ReadQuestions() {
    WEFT_TRY_ASSIGN(const std::vector<EditRow> edits,
                    ReadEdits(options_.edits, EditTarget::kNeeded, 0, options_.max_edits));
    for (const EditRow& edit : edits) {
      WEFT_TRY_ASSIGN(TokenRow row, Question(edit.prompt, edit.target, edit.line, loaded_));
      questions_.edits.push_back(std::move(row));
      questions_.lines.push_back(edit.line);
      for (const std::string& paraphrase : edit.paraphrases) {
        WEFT_TRY_ASSIGN(TokenRow asked, Question(paraphrase, edit.target, edit.line, loaded_));
        questions_.paraphrases.push_back(std::move(asked));
        questions_.paraphrased.push_back(questions_.edits.size() - 1);
      }
    }
    return AskOthers(edits.size());
  }

  // Other prompts: those of --others, or the rows behind the edited ones.
  Status AskOthers(uint64_t edited) {
    if (options_.max_others == 0) return OkStatus();
    const bool own = options_.others.empty();
    WEFT_TRY_ASSIGN(const std::vector<EditRow> rows,
                    ReadEdits(own ? options_.edits : options_.others, EditTarget::kOptional,
                              own ? edited : 0, options_.max_others));
    std::vector<std::vector<int32_t>> prompts;
    for (const EditRow& row : rows) {
      prompts.push_back(loaded_.tokenizer->Encode(row.prompt, /*special=*/true));
      const int64_t context = loaded_.model->config().max_positions - options_.answer_tokens;
      if (!prompts.back().empty() && static_cast<int64_t>(prompts.back().size()) <= context) {
        continue;
      }
      return InvalidArgument(Str("[edit] line ", row.line, ": a prompt of ", prompts.back().size(),
                                 " tokens, wanted 1 to ", context));
    }
    JobControl control;
    WEFT_TRY_ASSIGN(questions_.others, GreedyAnswers(*loaded_.model, {}, prompts,
                                                     options_.answer_tokens, kBatchRows, control));
    return OkStatus();
  }

  Result<Measures> Measure(const AdapterBinding& binding, const Questions& questions) const {
    const auto ask = [&](const std::vector<TokenRow>& rows) {
      JobControl control;
      return AnswersAreLabels(*loaded_.model, binding, rows, kBatchRows, control);
    };
    Measures measures;
    WEFT_TRY_ASSIGN(measures.edits, ask(questions.edits));
    WEFT_TRY_ASSIGN(measures.paraphrases, ask(questions.paraphrases));
    WEFT_TRY_ASSIGN(measures.others, ask(questions.others));
    return measures;
  }

  // Pruning must have come to its end before training may.
  Result<double> SettledAfter(const AdapterSpec& spec) const {
    if (spec.method != RoseLoraAdapter()->name()) return 0.0;
    WEFT_TRY_ASSIGN(const RoseSchedule schedule,
                    RoseScheduleOf(spec, options_.training.local_steps));
    return schedule.end + 1;
  }

  Status Learn(std::span<const TokenRow> edits) {
    TrainInput input;
    input.rows = edits;
    WEFT_TRY_ASSIGN(FreshAdapter fresh, MakeFreshAdapter(options_.spec, options_.method_options,
                                                         loaded_.model->sites(), options_.seed));
    input.start = std::move(fresh.state);
    input.training = options_.training;
    const auto rows = static_cast<int64_t>(edits.size());
    if (input.training.batch_size == 0) input.training.batch_size = rows;
    input.training.batch_size = std::min(input.training.batch_size, rows);
    const int64_t pass = (rows + input.training.batch_size - 1) / input.training.batch_size;
    WEFT_TRY_ASSIGN(const double settled, SettledAfter(input.start.spec));
    input.training.dtype = options_.model.dtype;
    input.seed = options_.seed;
    Progress progress("edit", 0);
    input.on_step = [&](const StepReport& report) {
      progress.Line(std::cerr, Str("step ", report.step, "/", report.num_steps, "  loss ",
                                   report.loss, "  grad ", report.grad_norm));
    };
    std::deque<double> losses;  // of the newest pass over the edits
    input.enough = [&](const StepReport& report) {
      losses.push_back(report.loss);
      if (static_cast<int64_t>(losses.size()) > pass) losses.pop_front();
      const double mean =
          std::accumulate(losses.begin(), losses.end(), 0.0) / static_cast<double>(losses.size());
      return static_cast<double>(report.step) > settled &&
             static_cast<int64_t>(losses.size()) == pass && mean < options_.loss_below;
    };
    JobControl control;
    const auto began = std::chrono::steady_clock::now();
    WEFT_TRY_ASSIGN(learnt_, Train(*loaded_.model, std::move(input), control));
    train_s_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    steps_ += learnt_.steps.size();
    return OkStatus();
  }

  // The stored weights with what was learnt last, compared with what they were.
  Result<std::vector<NamedTensor>> Merged() {
    const ModelConfig& config = loaded_.model->config();
    WEFT_TRY_ASSIGN(const std::vector<NamedTensor> stored,
                    StoredWeights(options_.model.model, config));
    WEFT_TRY_ASSIGN(const LowRankAdapter lowered, Lower(learnt_.state));
    const MergeOptions merge{.stored_transposed = config.family == ModelFamily::kGpt2};
    WEFT_TRY_ASSIGN(std::vector<NamedTensor> merged, MergeIntoWeights(stored, lowered, merge));
    for (size_t i = 0; i < stored.size(); ++i) Compare(stored[i].value, merged[i].value);
    return merged;
  }

  void Compare(const at::Tensor& stored, const at::Tensor& merged) {
    weights_.all += stored.numel();
    if (merged.is_same(stored)) {
      weights_.all_same += stored.numel();
      return;
    }
    const at::ScalarType word = stored.element_size() == 2 ? at::kShort : at::kInt;
    const at::Tensor same = stored.contiguous()
                                .view(word)
                                .eq(merged.contiguous().view(word))
                                .view({stored.numel(), -1});
    const auto count = same.all(1).count_nonzero().item<int64_t>();
    weights_.all_same += count;
    weights_.adapted += stored.numel();
    weights_.adapted_same += count;
  }

  // How often the model was taught: weights were counted each time.
  [[nodiscard]] int64_t learnings() const {
    return options_.each ? static_cast<int64_t>(questions_.edits.size()) : 1;
  }

  [[nodiscard]] int64_t NonZero() const {
    int64_t count = 0;
    for (const SiteState& site : learnt_.state.sites) {
      for (const NamedTensor& tensor : site.tensors) {
        count += tensor.value.count_nonzero().item<int64_t>();
      }
    }
    return count;
  }

  static nlohmann::json Share(const std::vector<bool>& flags) {
    if (flags.empty()) return nullptr;
    return static_cast<double>(std::count(flags.begin(), flags.end(), true)) /
           static_cast<double>(flags.size());
  }

  static double Share(int64_t part, int64_t whole) {
    return whole == 0 ? 1.0 : static_cast<double>(part) / static_cast<double>(whole);
  }

  [[nodiscard]] nlohmann::json Report() const {
    nlohmann::json json = {{"method", options_.spec.method},
                           {"edits", after_.edits.size()},
                           {"each", options_.each},
                           {"steps", steps_},
                           {"loss", learnt_.steps.back().loss},
                           {"train_s", train_s_},
                           {"efficacy", Share(after_.edits)},
                           {"efficacy_before", Share(before_.edits)},
                           {"generality", Share(after_.paraphrases)},
                           {"generality_before", Share(before_.paraphrases)},
                           {"paraphrases", after_.paraphrases.size()},
                           {"locality", Share(after_.others)},
                           {"others", questions_.others.size()},
                           {"weights", weights_.all / learnings()},
                           {"weights_same", Share(weights_.all_same, weights_.all)},
                           {"adapted_weights", weights_.adapted / learnings()},
                           {"adapted_same", Share(weights_.adapted_same, weights_.adapted)},
                           {"adapter_numbers", learnt_.state.NumParameters()},
                           {"adapter_nonzero", NonZero()},
                           {"out", options_.out}};
    json["failed_lines"] = nlohmann::json::array();
    for (size_t i = 0; i < after_.edits.size(); ++i) {
      if (!after_.edits[i]) json["failed_lines"].push_back(questions_.lines[i]);
    }
    return json;
  }

  void Print() const {
    const nlohmann::json json = Report();
    if (options_.json) {
      std::cout << json.dump() << "\n";
      return;
    }
    const auto percent = [&](const char* name) {
      return json[name].is_null() ? std::string("–") : Str(100 * json[name].get<double>(), " %");
    };
    std::cout << json["edits"] << " edits in " << json["steps"] << " steps, "
              << json["adapter_nonzero"] << " of " << json["adapter_numbers"]
              << " numbers of the adapter not zero\n"
              << "efficacy    " << percent("efficacy") << " (before: " << percent("efficacy_before")
              << ")\n"
              << "generality  " << percent("generality") << " of " << json["paraphrases"]
              << " paraphrases\n"
              << "locality    " << percent("locality") << " of " << json["others"]
              << " other answers as before\n"
              << "weights     " << percent("weights_same") << " bit for bit as before, "
              << percent("adapted_same") << " of the adapted layers'\n"
              << (options_.each ? "means over edits made alone; nothing written"
                                : "written to " + options_.out)
              << "\n";
  }

  static constexpr int64_t kBatchRows = 16;  // in one pass

  EditOptions options_;
  LoadedModel loaded_;
  Questions questions_;
  Measures before_;
  Measures after_;
  TrainOutput learnt_;
  Weights weights_;
  double train_s_ = 0;
  size_t steps_ = 0;
};

EditOptions Standard() {
  EditOptions options;
  options.spec.method = "roselora";
  options.spec.rank = 8;
  options.spec.alpha = 32;
  options.spec.target_modules = {"q_proj", "v_proj"};
  options.training.lr = 1e-3;
  options.training.local_steps = 40;
  options.training.batch_size = 0;
  return options;
}

}  // namespace

Action SetUpEdit(CLI::App& app) {
  const auto options = std::make_shared<EditOptions>(Standard());
  AddModelOptions(app, options->model, false);
  app.add_option("--edits", options->edits,
                 "JSONL of prompt, target_new and (if there are any) paraphrases")
      ->required();
  app.add_option("--out", options->out, "model folder to write, with all edits learnt together");
  app.add_flag("--each", options->each,
               "make every edit alone, as papers measure, and write nothing");
  app.add_option("--max-edits", options->max_edits, "rows from the beginning (0: all)")
      ->check(WholeNumber(uint64_t{0}));
  app.add_option("--others", options->others,
                 "JSONL of prompts whose answers should stay (default: the rows behind the edits)");
  app.add_option("--max-others", options->max_others, "how many of them (0: none)")
      ->check(WholeNumber(uint64_t{0}))
      ->capture_default_str();
  app.add_option("--answer-tokens", options->answer_tokens, "that must stay of other answers")
      ->check(WholeNumber(int64_t{1}, int64_t{256}))
      ->capture_default_str();
  AddMethodOptions(app, options->spec.method, options->method_options);
  app.add_option("--rank", options->spec.rank, "of the adapter")->capture_default_str();
  app.add_option("--alpha", options->spec.alpha, "of the adapter")->capture_default_str();
  app.add_option("--target-modules", options->spec.target_modules, "layer names, or all-linear")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--lr", options->training.lr, "learning rate")->capture_default_str();
  app.add_option("--weight-decay", options->training.weight_decay, "AdamW's")
      ->capture_default_str();
  app.add_option("--steps", options->training.local_steps, "optimiser steps, at most")
      ->check(WholeNumber(int64_t{1}))
      ->capture_default_str();
  app.add_option("--batch", options->training.batch_size, "edits per step (0: all)")
      ->check(WholeNumber(int64_t{0}))
      ->capture_default_str();
  app.add_option("--loss-below", options->loss_below,
                 "ends the training once the mean loss of a pass is smaller")
      ->capture_default_str();
  app.add_option("--seed", options->seed, "of factors and row order")
      ->check(WholeNumber(uint64_t{0}))
      ->capture_default_str();
  app.add_flag("--json", options->json, "one JSON object");
  return [options] { return Editing(*options).Run(); };
}

}  // namespace weft::cli
