#include "client/load_site.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

#include "client/memory_plan.h"
#include "common/adapters/adapter.h"
#include "common/base/str.h"
#include "common/codec/codec.h"
#include "common/formats/base_hash.h"
#include "common/formats/jsonl_rows.h"
#include "common/formats/model_config.h"
#include "common/tensor/device.h"

namespace weft {
namespace {

constexpr int64_t kBytesPerMegabyte = 1 << 20;

}  // namespace

Result<SharedBase> LoadSharedBase(const ModelSettings& model) {
  if (model.path.empty()) {
    return InvalidArgument("[model] path: got none, wanted the base model's folder");
  }
  SharedBase shared;
  WEFT_TRY_ASSIGN(const at::Device device, ParseDevice(model.device));
  WEFT_TRY_ASSIGN(shared.base, DescribeBase(model.path));
  WEFT_TRY_ASSIGN(const ModelConfig config, ReadModelConfig(model.path));
  WEFT_TRY_ASSIGN(std::unique_ptr<Tokenizer> tokenizer,
                  Tokenizer::LoadFor(model.path, config.vocab_size));
  shared.chat_template = ChooseChatTemplate(model.chat_template, *tokenizer);
  shared.tokenizer = std::move(tokenizer);
  shared.context = config.max_positions;
  shared.classifies = config.is_encoder();
  shared.models = std::make_shared<ModelShelf>(model.path, device);
  return shared;
}

Result<std::shared_ptr<Site>> LoadSite(const ClientSettings& client, const SharedBase& shared) {
  const std::string where = Str("[client] ", client.name);
  const auto check = [&](const std::vector<Row>& rows, const std::string& file) {
    if (shared.classifies) return CheckLabelled(rows).Within(Str(where, ": ", file));
    TokenizeOptions options;
    options.chat_template = shared.chat_template;
    return CheckRows(rows, *shared.tokenizer, options).Within(Str(where, ": ", file));
  };
  if (client.data.empty()) {
    return InvalidArgument(where + ": data: got none, wanted a JSONL file of training rows");
  }
  Result<std::vector<Row>> rows = ReadRows(client.data, static_cast<uint64_t>(client.max_rows));
  WEFT_TRY(rows.status().Within(where));
  std::vector<Row> train = std::move(*rows);
  WEFT_TRY(check(train, client.data));
  std::vector<Row> validation;
  if (!client.valid.empty()) {
    Result<std::vector<Row>> valid = ReadRows(client.valid, 0);
    WEFT_TRY(valid.status().Within(where));
    validation = std::move(*valid);
    WEFT_TRY(check(validation, client.valid));
  } else if (client.valid_fraction > 0) {
    const auto kept = static_cast<std::ptrdiff_t>(
        std::llround(static_cast<double>(train.size()) * (1 - client.valid_fraction)));
    if (kept < 1) {
      return InvalidArgument(Str(where, ": valid-fraction ", client.valid_fraction, " of ",
                                 train.size(), " rows leaves none to train on"));
    }
    std::move(train.begin() + kept, train.end(), std::back_inserter(validation));
    train.resize(static_cast<size_t>(kept));
  }
  return MakeSite(ClientId{client.name}, shared, std::move(train), std::move(validation));
}

std::shared_ptr<Site> MakeSite(const ClientId& client, const SharedBase& shared,
                               std::vector<Row> train, std::vector<Row> validation) {
  Site::Parts parts;
  parts.client = client;
  parts.models = shared.models;
  parts.tokenizer = shared.tokenizer;
  parts.chat_template = shared.chat_template;
  parts.train = std::move(train);
  parts.validation = std::move(validation);
  return std::make_shared<Site>(std::move(parts));
}

ClientOptions MakeClientOptions(const Site& site, const SharedBase& shared,
                                const std::string& device, int64_t rank_max,
                                const std::string& method) {
  ClientOptions options;
  options.name = site.client();
  options.base = shared.base;
  Capabilities& offer = options.offer;
  offer.software = "weft 0.1.0";
  offer.device = device;
  const Result<at::Device> parsed = ParseDevice(device);
  if (parsed.ok()) {
    offer.memory_mb = static_cast<uint64_t>(AvailableMemory(*parsed) / kBytesPerMegabyte);
  }
  offer.rank_max = rank_max;
  offer.num_examples = site.num_train();
  offer.eval_examples = site.num_validation();
  if (method.empty()) {
    for (const Adapter* adapter : AdapterRegistry()) offer.methods.emplace_back(adapter->name());
  } else {
    offer.methods = {method};
  }
  for (const Codec* codec : CodecRegistry()) offer.codecs.emplace_back(codec->name());
  return options;
}

}  // namespace weft
