#include "cli/model_options.h"

#include "cli/whole_number.h"
#include "common/adapters/peft_io.h"
#include "common/formats/chat_template.h"
#include "common/model/bind_dense.h"
#include "common/tensor/device.h"

namespace weft::cli {

void AddModelOptions(CLI::App& app, ModelOptions& options, bool with_adapter) {
  app.add_option("--model", options.model, "model folder (config.json, weights, tokenizer)")
      ->required();
  if (with_adapter) app.add_option("--adapter", options.adapter, "PEFT folder to put on the model");
  app.add_option("--dtype", options.dtype, "of the computation: float32 or bfloat16")
      ->capture_default_str();
  app.add_option("--device", options.device, "cpu, cuda, cuda:N or auto")->capture_default_str();
  app.add_option("--threads", options.threads, "CPU threads (0: all cores)")
      ->check(WholeNumber(0, 1024))
      ->capture_default_str();
}

void AddChatOptions(CLI::App& app, ChatOptions& options) {
  app.add_flag("--chat", options.use, "prompts through the model's chat template");
  app.add_option("--chat-template", options.name,
                 "template by name, where the folder's is missing or unknown")
      ->check(CLI::IsMember(ChatTemplate::Names()));
}

Result<LoadedModel> LoadForCommand(const ModelOptions& options, bool token_by_token) {
  LoadOptions load{.token_by_token = token_by_token};
  WEFT_TRY_ASSIGN(load.device, ParseDevice(options.device));
  WEFT_TRY_ASSIGN(load.dtype, ParseComputeType(options.dtype));
  if (options.threads > 0) at::set_num_threads(options.threads);
  LoadedModel loaded;
  WEFT_TRY_ASSIGN(loaded.model, Model::Load(options.model, load));
  WEFT_TRY_ASSIGN(loaded.tokenizer,
                  Tokenizer::LoadFor(options.model, loaded.model->config().vocab_size));
  if (!options.adapter.empty()) {
    WEFT_TRY_ASSIGN(PeftFolder peft, ReadPeft(options.adapter, loaded.model->sites()));
    const at::NoGradGuard no_grad;
    Result<AppliedAdapter> applied = Apply(*loaded.model, peft.state);
    WEFT_TRY(applied.status().Within(options.adapter));
    loaded.adapters.push_back(*std::move(applied));
    loaded.labels = peft.state.spec.labels;
    loaded.adapter = std::move(peft.state);
  }
  if (!loaded.model->config().is_encoder()) return loaded;
  WEFT_TRY(CheckHead(*loaded.model, loaded.adapters));
  if (loaded.labels.empty()) loaded.labels = loaded.model->config().labels;
  return loaded;
}

}  // namespace weft::cli
