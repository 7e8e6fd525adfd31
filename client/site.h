#pragma once
// Site: what a client's work is done on: a model, shared by all sites of a process, and its own
// rows. Made before the node starts; any thread may use it.

#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "common/base/ids.h"
#include "common/base/result.h"
#include "common/data/token_rows.h"
#include "common/formats/chat_template.h"
#include "common/formats/tokenizer.h"
#include "common/model/model.h"

namespace weft {

/// One base model, in each element type that was asked for; loaded on first use, then shared.
class ModelShelf {
 public:
  ModelShelf(std::filesystem::path folder, at::Device device)
      : folder_(std::move(folder)), device_(device) {}

  /// The model computing in "float32" or "bfloat16".
  [[nodiscard]] Result<std::shared_ptr<const Model>> Get(const std::string& dtype);
  /// The one loaded last, or the float32 one: evaluation takes what training uses.
  [[nodiscard]] Result<std::shared_ptr<const Model>> Any();

 private:
  const std::filesystem::path folder_;
  const at::Device device_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<const Model>> models_;
  std::string newest_;
};

class Site {
 public:
  struct Parts {
    ClientId client;
    std::shared_ptr<ModelShelf> models;
    std::shared_ptr<const Tokenizer> tokenizer;
    ChatChoice chat_template = NoChatTemplate();
    bool chat = false;            // prompt rows through the chat template too
    std::vector<Row> train;       // at least one
    std::vector<Row> validation;  // may be empty: then it cannot evaluate
  };

  explicit Site(Parts parts) : parts_(std::move(parts)) {}
  Site(const Site&) = delete;
  Site& operator=(const Site&) = delete;

  [[nodiscard]] const ClientId& client() const { return parts_.client; }
  [[nodiscard]] ModelShelf& models() const { return *parts_.models; }
  [[nodiscard]] uint64_t num_train() const { return parts_.train.size(); }
  [[nodiscard]] uint64_t num_validation() const { return parts_.validation.size(); }

  enum class Split { kTrain, kValidation };
  /// The rows as tokens, at most `max_len` of each, with their class where `labels` names classes;
  /// made once for each setting and kept.
  [[nodiscard]] Result<std::shared_ptr<const TokenRows>> Tokens(
      Split split, int64_t max_len, const std::string& long_rows,
      const std::vector<std::string>& labels = {});

 private:
  const Parts parts_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<const TokenRows>> tokens_;
};

}  // namespace weft
