// The rules of the house as tests: layers, names, sizes, banned words. A rule that does not run
// does not hold.

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace weft {
namespace {

namespace fs = std::filesystem;

struct File {
  std::string path;  // from the root, with slashes
  std::vector<std::string> lines;
};

std::vector<std::string> ReadLines(const fs::path& path) {
  std::ifstream in(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::vector<File> Load(const std::vector<std::string>& folders) {
  const fs::path root = WEFT_SOURCE_DIR;
  std::vector<File> files;
  for (const std::string& folder : folders) {
    if (!fs::exists(root / folder)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
      const std::string extension = entry.path().extension();
      if (extension != ".h" && extension != ".cc") continue;
      files.push_back({fs::relative(entry.path(), root).generic_string(), ReadLines(entry.path())});
    }
  }
  std::sort(files.begin(), files.end(),
            [](const File& a, const File& b) { return a.path < b.path; });
  return files;
}

const std::vector<File>& Sources() {
  static const auto* files =
      new std::vector<File>(Load({"common", "aggregator", "client", "sim", "cli"}));
  return *files;
}

const std::vector<File>& Tests() {
  static const auto* files = new std::vector<File>(Load({"tests"}));
  return *files;
}

bool StartsWith(const std::string& text, const std::string& prefix) {
  return text.compare(0, prefix.size(), prefix) == 0;
}

// "common/wire/x.h" → "common/wire", "client/objectives/x.h" → "client".
std::string LayerOf(const std::string& path) {
  const size_t first = path.find('/');
  if (path.substr(0, first) != "common") return path.substr(0, first);
  return path.substr(0, path.find('/', first + 1));
}

// The height of each layer: includes may point to the same layer or a lower one. Layers of equal
// height do not know each other.
const std::map<std::string, int>& Heights() {
  static const auto* heights = new std::map<std::string, int>{{"common/base", 0},
                                                              {"common/plan", 1},
                                                              {"common/log", 1},
                                                              {"common/crypto", 1},
                                                              {"common/config", 2},
                                                              {"common/runtime", 2},
                                                              {"common/wire", 3},
                                                              {"common/formats", 3},
                                                              {"common/net", 4},
                                                              {"common/tensor", 5},
                                                              {"common/adapters", 6},
                                                              {"common/model", 7},
                                                              {"common/data", 7},
                                                              {"common/laplace", 7},
                                                              {"common/privacy", 7},
                                                              {"common/codec", 8},
                                                              {"common/evaluate", 8},
                                                              {"aggregator", 9},
                                                              {"client", 9},
                                                              {"relay", 10},
                                                              {"sim", 11},
                                                              {"cli", 12},
                                                              {"protocols", 3}};
  return *heights;
}

TEST(TidyTest, ArrowsPointDownOnly) {
  const std::regex include("^#include \"([a-z_]+/[^\"]+)\"");
  for (const File& file : Sources()) {
    const std::string from = LayerOf(file.path);
    ASSERT_TRUE(Heights().count(from)) << file.path << ": unknown layer " << from;
    for (const std::string& line : file.lines) {
      std::smatch match;
      if (!std::regex_search(line, match, include)) continue;
      const std::string to = LayerOf(match[1]);
      ASSERT_TRUE(Heights().count(to)) << file.path << ": " << line;
      EXPECT_TRUE(from == to || Heights().at(to) < Heights().at(from)) << file.path << ": " << line;
    }
  }
}

TEST(TidyTest, LibrariesStayBehindTheirDoors) {
  // Header of a library → the only places that may include it.
  const std::vector<std::pair<std::string, std::string>> doors = {
      {"<spdlog/", "common/log/"},           {"<zmq", "common/net/"},
      {"<capnp/", "common/wire/"},           {"<kj/", "common/wire/"},
      {"<openssl/", "common/crypto/"},       {"<SQLiteCpp/", "common/runtime/"},
      {"<sqlite3", "common/runtime/"},       {"<toml++/", "common/config/"},
      {"<pcre2", "common/formats/"},         {"<utf8proc", "common/formats/"},
      {"<sentencepiece", "common/formats/"}, {"<CLI/", "cli/"}};
  for (const File& file : Sources()) {
    for (const std::string& line : file.lines) {
      if (!StartsWith(line, "#include <")) continue;
      for (const auto& [library, door] : doors) {
        if (line.find(library) != std::string::npos) {
          EXPECT_TRUE(StartsWith(file.path, door))
              << file.path << ": " << line << " belongs in " << door;
        }
      }
      EXPECT_EQ(line.find("torch/torch.h"), std::string::npos)
          << file.path << ": costs 15 s a file";
    }
  }
}

TEST(TidyTest, HeadersOpenWithPragmaAndSayWhatTheyAre) {
  for (const File& file : Sources()) {
    if (file.path.size() < 2 || file.path.substr(file.path.size() - 2) != ".h") continue;
    ASSERT_GE(file.lines.size(), 2u) << file.path;
    EXPECT_EQ(file.lines[0], "#pragma once") << file.path;
    EXPECT_TRUE(StartsWith(file.lines[1], "// ")) << file.path << ": say what this header is";
    for (const std::string& line : file.lines) {
      EXPECT_FALSE(StartsWith(line, "using namespace")) << file.path;
      EXPECT_EQ(line.find("#include <nlohmann"), std::string::npos)
          << file.path << ": json stays in .cc files";
    }
  }
}

TEST(TidyTest, FilesAreShort) {
  std::vector<size_t> sizes;
  for (const auto* files : {&Sources(), &Tests()}) {
    for (const File& file : *files) {
      EXPECT_LE(file.lines.size(), 700u) << file.path;
      sizes.push_back(file.lines.size());
    }
  }
  std::sort(sizes.begin(), sizes.end());
  EXPECT_LE(sizes[sizes.size() / 2], 150u) << "median lines of a file";
}

TEST(TidyTest, LinesAreAtMostAHundredColumnsInCodeAndOneTwentyInComments) {
  for (const auto* files : {&Sources(), &Tests()}) {
    for (const File& file : *files) {
      for (size_t i = 0; i < file.lines.size(); ++i) {
        const std::string& line = file.lines[i];
        const auto columns = std::count_if(line.begin(), line.end(), [](char c) {
          return (static_cast<unsigned char>(c) & 0xC0) != 0x80;  // not a UTF-8 continuation byte
        });
        const bool comment =
            line.find("//") != std::string::npos || line.find('"') != std::string::npos;
        EXPECT_LE(columns, comment ? 130 : 110) << file.path << ":" << i + 1;
      }
    }
  }
}

// A function's body: from a line that ends in "{" at indentation 0 and is no type or namespace, to
// the "}" at 0.
TEST(TidyTest, FunctionsAreAtMostSeventyLines) {
  const std::regex not_a_function(
      "^(namespace|class|struct|enum|union|extern|using|template|constexpr|const|static "
      "const|inline constexpr)\\b");
  for (const File& file : Sources()) {
    size_t start = 0;
    bool inside = false;
    for (size_t i = 0; i < file.lines.size(); ++i) {
      const std::string& line = file.lines[i];
      if (!inside && !line.empty() && line[0] != ' ' && line[0] != '}' && line[0] != '#' &&
          line[0] != '/' && line.back() == '{' && line.find('(') != std::string::npos &&
          !std::regex_search(line, not_a_function)) {
        inside = true;
        start = i;
      } else if (inside && line == "}") {
        inside = false;
        EXPECT_LE(i - start - 1, 70u) << file.path << ":" << start + 1 << ": " << file.lines[start];
      }
    }
  }
}

TEST(TidyTest, NoFileLiesLooseOrHidesBehindAVagueName) {
  for (const auto& entry : fs::directory_iterator(fs::path(WEFT_SOURCE_DIR) / "common")) {
    EXPECT_TRUE(entry.is_directory()) << entry.path();
  }
  const std::regex vague("(^|[/_])(utils?|misc|helpers?|common_stuff)([._/]|$)");
  for (const auto* files : {&Sources(), &Tests()}) {
    for (const File& file : *files) {
      const std::string below = file.path.substr(file.path.find('/') + 1);
      EXPECT_FALSE(std::regex_search(below, vague)) << file.path;
    }
  }
}

TEST(TidyTest, ErrorsTravelAsStatusAndRandomnessIsOurs) {
  const std::regex thrown("\\bthrow\\b");
  const std::regex random(
      "std::(random_device|mt19937|rand\\b|shuffle|default_random_engine)|\\brand\\(\\)");
  for (const File& file : Sources()) {
    for (size_t i = 0; i < file.lines.size(); ++i) {
      const std::string code = file.lines[i].substr(0, file.lines[i].find("//"));
      // check.cc raises bugs, guard.cc is the door that hands them on.
      if (file.path != "common/base/check.cc" && file.path != "common/tensor/guard.cc") {
        EXPECT_FALSE(std::regex_search(code, thrown) && code.find('"') == std::string::npos)
            << file.path << ":" << i + 1 << ": return a Status";
      }
      // The system's entropy is a seam: only the daemons, and what two of them share, may ask for
      // it.
      const bool entropy_seam =
          file.path.ends_with("/daemon.cc") || file.path == "aggregator/premises.cc";
      EXPECT_FALSE(!entropy_seam && std::regex_search(code, random))
          << file.path << ":" << i + 1 << ": use base/random.h";
    }
  }
}

TEST(TidyTest, OnlySimKnowsThatSimulationExists) {
  for (const File& file : Sources()) {
    if (StartsWith(file.path, "sim/") || StartsWith(file.path, "cli/")) continue;
    for (const std::string& line : file.lines) {
      EXPECT_EQ(line.find("IsSimulated"), std::string::npos) << file.path;
      EXPECT_FALSE(StartsWith(line, "#include \"sim/")) << file.path;
    }
  }
}

// Tests run side by side, each in a process of its own.
TEST(TidyTest, TestsShareNoFiles) {
  const std::string shared = std::string("TempDir") + "()";
  for (const File& file : Tests()) {
    for (const std::string& line : file.lines) {
      EXPECT_EQ(line.find(shared), std::string::npos) << file.path << ": use TempFolder";
    }
  }
}

TEST(TidyTest, TestsDoNotFallBehindTheSource) {
  const auto total = [](const std::vector<File>& files) {
    size_t lines = 0;
    for (const File& file : files) lines += file.lines.size();
    return lines;
  };
  EXPECT_GE(static_cast<double>(total(Tests())), 0.78 * static_cast<double>(total(Sources())));
}

}  // namespace
}  // namespace weft
