#pragma once
// Options that all commands which compute with a model share (--model, --adapter, --dtype,
// --device,
// --threads, --chat), and what they stand for once loaded.

#include <memory>
#include <string>

#include <CLI/CLI.hpp>

#include "common/base/result.h"
#include "common/formats/tokenizer.h"
#include "common/model/model.h"

namespace weft::cli {

struct ModelOptions {
  std::string model;
  std::string adapter;  // PEFT folder; empty: none
  std::string dtype = "float32";
  std::string device = "cpu";
  int threads = 0;  // 0: as many as cores
};

void AddModelOptions(CLI::App& app, ModelOptions& options, bool with_adapter);

struct ChatOptions {
  bool use = false;
  std::string name;  // of the template; empty: the folder's
};

/// --chat and --chat-template.
void AddChatOptions(CLI::App& app, ChatOptions& options);

struct LoadedModel {
  std::shared_ptr<Model> model;
  std::unique_ptr<Tokenizer> tokenizer;
  AdapterState adapter;     // as it was read; without sites where there is none
  AdapterBinding adapters;  // one or none
  std::vector<std::string>
      labels;  // of classes, where the model classifies: the adapter's or its own
};

/// Sets torch's threads, reads model and tokenizer (which must fit each other) and the adapter.
[[nodiscard]] Result<LoadedModel> LoadForCommand(const ModelOptions& options,
                                                 bool token_by_token = false);

}  // namespace weft::cli
