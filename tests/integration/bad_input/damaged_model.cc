#include "tests/integration/bad_input/damaged_model.h"

#include <fstream>
#include <iterator>

namespace weft::testing {
namespace {

using Json = nlohmann::ordered_json;

std::string ReadAll(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

}  // namespace

WeightFile WeightFile::Read(const std::filesystem::path& path) {
  const std::string bytes = ReadAll(path);
  uint64_t length = 0;
  for (size_t i = 0; i < 8; ++i) {
    length |= uint64_t{static_cast<unsigned char>(bytes.at(i))} << (8 * i);
  }
  return {Json::parse(bytes.substr(8, length)), bytes.substr(8 + length)};
}

std::string WithLength(uint64_t length, const std::string& rest) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(length >> (8 * i)));
  return bytes + rest;
}

std::string WeightFile::Bytes() const {
  const std::string text = header.dump();
  return WithLength(text.size(), text + data);
}

DamagedModel::DamagedModel() {
  for (const char* name :
       {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}) {
    std::filesystem::copy_file(kTinyModel / name, temp_.path() / name);
  }
}

void DamagedModel::Write(const std::string& name, const std::string& content) const {
  temp_.Write(name, content);
}

void DamagedModel::Remove(const std::string& name) const {
  std::filesystem::remove(temp_.path() / name);
}

void DamagedModel::EditJson(const std::string& name, const std::function<void(Json&)>& edit) const {
  Json json = Json::parse(ReadAll(kTinyModel / name));
  edit(json);
  Write(name, json.dump());
}

void DamagedModel::Config(const std::function<void(Json&)>& edit) const {
  EditJson("config.json", edit);
}

void DamagedModel::Tokenizer(const std::function<void(Json&)>& edit) const {
  EditJson("tokenizer.json", edit);
}

void DamagedModel::Weights(const std::function<void(WeightFile&)>& edit) const {
  WeightFile file = WeightFile::Read(kTinyModel / "model.safetensors");
  edit(file);
  Write("model.safetensors", file.Bytes());
}

Ran DamagedModel::Eval(const std::vector<std::string>& more) const {
  std::vector<std::string> arguments = {"eval",       "--model", folder(),    "--data", kTinyRows,
                                        "--max-rows", "2",       "--threads", "1"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return Execute("weft", arguments);
}

}  // namespace weft::testing
