// `weft tokenize`: JSONL {"text"} on stdin → one JSON array of ids a line on stdout.

#include <iostream>
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "cli/set_up.h"
#include "common/base/str.h"
#include "common/formats/line_reader.h"
#include "common/formats/tokenizer.h"

namespace weft::cli {
namespace {

struct Options {
  std::string model;
  bool special = false;
};

Result<std::string> TextOfLine(const std::string& line, uint64_t number) {
  const auto bad = [&](const std::string& got) {
    return InvalidArgument(
        Str("[tokenize] stdin:", number, ": got ", got, ", wanted {\"text\": \"...\"}"));
  };
  const auto row = nlohmann::json::parse(line, nullptr, false);
  if (row.is_discarded()) return bad("no JSON in UTF-8");
  if (!row.is_object()) return bad(Str("JSON of type ", row.type_name()));
  const auto text = row.find("text");
  if (text == row.end()) return bad("no field \"text\"");
  if (!text->is_string()) return bad(Str("\"text\" as ", text->type_name()));
  return text->get<std::string>();
}

Status Run(const Options& options) {
  WEFT_TRY_ASSIGN(const std::unique_ptr<Tokenizer> tokenizer, Tokenizer::Load(options.model));
  LineReader lines = LineReader::Stdin();
  std::string line;
  while (true) {
    std::cout.flush();  // who writes a line and waits for its ids must get them
    WEFT_TRY_ASSIGN(const bool more, lines.Next(line));
    if (!more) break;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    WEFT_TRY_ASSIGN(const std::string text, TextOfLine(line, lines.number()));
    std::cout << nlohmann::json(tokenizer->Encode(text, options.special)).dump() << '\n';
  }
  return OkStatus();
}

}  // namespace

Action SetUpTokenize(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("--model", options->model, "folder with tokenizer.json or tokenizer.model")
      ->required();
  app.add_flag("--special", options->special, "with the post-processor's special tokens");
  return [options] { return Run(*options); };
}

}  // namespace weft::cli
