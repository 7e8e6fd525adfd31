// write_seeds FOLDER: each target's seeds as files FOLDER/TARGET/seed-N and its words as
// FOLDER/TARGET.dict, for libFuzzer.

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/fuzz/fuzz_target.h"

namespace {

// libFuzzer's dictionary: quoted, other than printable ASCII as \xNN.
std::string Quoted(std::string_view word) {
  std::string out = "\"";
  for (const char c : word) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7F && c != '"' && c != '\\') {
      out += c;
    } else {
      constexpr std::string_view kDigits = "0123456789ABCDEF";
      out += "\\x";
      out += kDigits[byte >> 4];
      out += kDigits[byte & 15];
    }
  }
  return out + "\"";
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: write_seeds FOLDER\n");
    return 2;
  }
  for (const weft::fuzz::Target& target : weft::fuzz::Targets()) {
    const std::filesystem::path folder = std::filesystem::path(argv[1]) / target.name;
    std::filesystem::create_directories(folder);
    size_t number = 0;
    for (const std::string& seed : target.seeds()) {
      std::ofstream(folder / ("seed-" + std::to_string(number++)), std::ios::binary) << seed;
    }
    std::ofstream words(folder.string() + ".dict");
    for (const std::string_view word : target.words) words << Quoted(word) << "\n";
    std::printf("%s: %zu seeds\n", std::string(target.name).c_str(), number);
  }
  return 0;
}
