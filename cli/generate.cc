// `weft generate`: the continuation of a prompt on stdout, nothing else.

#include "common/model/generate.h"

#include <iostream>
#include <memory>

#include <nlohmann/json.hpp>

#include "cli/model_options.h"
#include "cli/set_up.h"
#include "cli/whole_number.h"
#include "common/data/token_rows.h"

namespace weft::cli {
namespace {

struct Options {
  ModelOptions model;
  std::string prompt;
  GenerateOptions generate;
  bool ignore_eos = false;
  ChatOptions chat;
  bool json = false;
};

Result<std::vector<int64_t>> PromptIds(const Options& options, const Tokenizer& tokenizer) {
  std::string text = options.prompt;
  if (options.chat.use) {
    WEFT_TRY_ASSIGN(const ChatTemplate chosen, ChooseChatTemplate(options.chat.name, tokenizer));
    WEFT_TRY_ASSIGN(const auto segments,
                    chosen.Render({{"user", options.prompt}}, true,
                                  {tokenizer.bos_token(), tokenizer.eos_token()}));
    text.clear();
    for (const ChatSegment& segment : segments) text += segment.text;
  }
  std::vector<int64_t> ids;
  for (int32_t id : tokenizer.Encode(text, !options.chat.use)) ids.push_back(id);
  return ids;
}

Status Run(const Options& options) {
  WEFT_TRY_ASSIGN(const LoadedModel loaded, LoadForCommand(options.model, true));
  WEFT_TRY_ASSIGN(const std::vector<int64_t> prompt, PromptIds(options, *loaded.tokenizer));
  GenerateOptions generate = options.generate;
  std::vector<int64_t> stops = loaded.model->config().eos_ids;
  if (const auto eos = loaded.tokenizer->eos_id()) stops.push_back(*eos);
  if (!options.ignore_eos) generate.stop_ids = stops;
  WEFT_TRY_ASSIGN(std::vector<int64_t> made,
                  Generate(*loaded.model, loaded.adapters, prompt, generate));
  std::vector<int32_t> shown;
  for (int64_t id : made) shown.push_back(static_cast<int32_t>(id));
  // The token that ended it is no part of the text; with --ignore-eos it is a token like others.
  const bool stopped = !made.empty() && !options.ignore_eos &&
                       std::find(stops.begin(), stops.end(), made.back()) != stops.end();
  if (stopped) shown.pop_back();
  const std::string text = loaded.tokenizer->Decode(shown, !options.ignore_eos);
  if (options.json) {
    std::cout << nlohmann::json{{"text", text},
                                {"ids", made},
                                {"prompt_ids", prompt},
                                {"stopped", stopped}}
                     .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)
              << "\n";
  } else {
    std::cout << text << "\n";
  }
  return OkStatus();
}

}  // namespace

Action SetUpGenerate(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  AddModelOptions(app, options->model, true);
  app.add_option("--prompt", options->prompt, "text to continue")->required();
  app.add_option("--max-new-tokens", options->generate.max_new_tokens, "at most this many")
      ->check(WholeNumber(int64_t{0}))
      ->capture_default_str();
  app.add_option("--temperature", options->generate.temperature, "0: the most likely token always")
      ->capture_default_str();
  app.add_option("--top-p", options->generate.top_p, "sample from this much of the probability")
      ->capture_default_str();
  app.add_option("--seed", options->generate.seed, "of the sampling")
      ->check(WholeNumber(uint64_t{0}))
      ->capture_default_str();
  app.add_flag("--ignore-eos", options->ignore_eos, "go on after an end-of-text token");
  AddChatOptions(app, options->chat);
  app.add_flag("--json", options->json, "one JSON object: text, ids, prompt_ids, stopped");
  return [options] { return Run(*options); };
}

}  // namespace weft::cli
