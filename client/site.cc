#include "client/site.h"

#include "common/base/str.h"
#include "common/tensor/device.h"

namespace weft {

Result<std::shared_ptr<const Model>> ModelShelf::Get(const std::string& dtype) {
  const std::lock_guard lock(mutex_);
  std::shared_ptr<const Model>& model = models_[dtype];
  if (model == nullptr) {
    LoadOptions options{.device = device_};
    WEFT_TRY_ASSIGN(options.dtype, ParseComputeType(dtype));
    WEFT_TRY_ASSIGN(model, Model::Load(folder_, options));
  }
  newest_ = dtype;
  return model;
}

Result<std::shared_ptr<const Model>> ModelShelf::Any() {
  std::string dtype = "float32";
  {
    const std::lock_guard lock(mutex_);
    if (!newest_.empty()) dtype = newest_;
  }
  return Get(dtype);
}

Result<std::shared_ptr<const TokenRows>> Site::Tokens(Split split, int64_t max_len,
                                                      const std::string& long_rows,
                                                      const std::vector<std::string>& labels) {
  const bool train = split == Split::kTrain;
  std::string key = Str(train ? "train" : "validation", " ", max_len, " ", long_rows);
  for (const std::string& label : labels) key += "\n" + label;
  const std::lock_guard lock(mutex_);
  std::shared_ptr<const TokenRows>& tokens = tokens_[key];
  if (tokens == nullptr) {
    TokenizeOptions options;
    options.max_len = max_len;
    options.long_rows = long_rows;
    options.labels = labels;
    options.chat = parts_.chat;
    options.chat_template = parts_.chat_template;
    const std::vector<Row>& rows = train ? parts_.train : parts_.validation;
    WEFT_TRY_ASSIGN(TokenRows made, TokenizeRows(rows, *parts_.tokenizer, options));
    tokens = std::make_shared<const TokenRows>(std::move(made));
  }
  return tokens;
}

}  // namespace weft
