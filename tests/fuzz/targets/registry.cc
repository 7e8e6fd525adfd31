// The table of all targets, and what they share.

#include <algorithm>
#include <array>
#include <string>

#include <sys/mman.h>
#include <unistd.h>

#include "common/base/check.h"
#include "tests/fuzz/fuzz_target.h"

namespace weft::fuzz {

// One a file of this folder.
Target AllowListFile();
Target BaseDescriptionFile();
Target ChatTemplates();
Target ControlMessage();
Target JsonlRows();
Target LedgerEvents();
Target ModelConfigFile();
Target PayloadTransfer();
Target PeftConfigFile();
Target PlanesTensors();
Target RegularExpressions();
Target RunToml();
Target SafetensorsFiles();
Target SentencePieceModel();
Target SparseTensors();
Target TensorBlocks();
Target TokenizerFolder();
Target TokenizerJson();
Target WeightsFolder();

std::span<const Target> Targets() {
  static const std::array targets = {
      AllowListFile(),  BaseDescriptionFile(), ChatTemplates(),   ControlMessage(),
      JsonlRows(),      LedgerEvents(),        ModelConfigFile(), PayloadTransfer(),
      PeftConfigFile(), RegularExpressions(),  RunToml(),         SafetensorsFiles(),
      TensorBlocks(),   SentencePieceModel(),  SparseTensors(),   TokenizerFolder(),
      TokenizerJson(),  WeightsFolder(),       PlanesTensors()};
  return targets;
}

std::vector<std::string_view> Parts(std::string_view input, size_t count) {
  std::vector<std::string_view> parts;
  while (parts.size() + 1 < count) {
    const size_t end = std::min(input.find(kSeparator), input.size());
    parts.push_back(input.substr(0, end));
    input.remove_prefix(std::min(end + 1, input.size()));
  }
  parts.push_back(input);
  return parts;
}

std::string Joined(const std::vector<std::string>& parts) {
  std::string input;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) input += kSeparator;
    input += parts[i];
  }
  return input;
}

MemoryFile::MemoryFile(std::string_view content) : fd_(::memfd_create("weft-fuzz", MFD_CLOEXEC)) {
  WEFT_CHECK(fd_ >= 0, "memfd_create");
  while (!content.empty()) {
    const ssize_t written = ::write(fd_, content.data(), content.size());
    WEFT_CHECK(written > 0, "write");
    content.remove_prefix(static_cast<size_t>(written));
  }
  path_ = "/proc/self/fd/" + std::to_string(fd_);
}

MemoryFile::~MemoryFile() { ::close(fd_); }

}  // namespace weft::fuzz
