#include "common/runtime/blob_name.h"

#include <string_view>

#include "common/base/str.h"
#include "common/runtime/run_events.h"

namespace weft {
namespace {

Status Bad(std::string_view name, std::string_view why) {
  return InvalidArgument(Str("[store] blob name \"", name.substr(0, 120), "\": ", why));
}

bool EndsWith(std::string_view text, std::string_view ending) {
  return text.size() >= ending.size() && text.substr(text.size() - ending.size()) == ending;
}

Status CheckPart(std::string_view name, std::string_view part) {
  if (part.empty()) return Bad(name, "a component is empty (leading, doubled or trailing slash)");
  if (part == "." || part == "..") return Bad(name, "a component is . or ..");
  if (part.size() > kBlobPartBytesMax) {
    return Bad(name, Str("a component has ", part.size(), " bytes, at most ", kBlobPartBytesMax));
  }
  if (EndsWith(part, kPartSuffix) || EndsWith(part, kTempSuffix)) {
    return Bad(name, Str("a component ends in ", kPartSuffix, " or ", kTempSuffix));
  }
  return OkStatus();
}

}  // namespace

Status CheckBlobName(const std::string& name) {
  if (name.empty()) return Bad(name, "empty");
  if (name.size() > kBlobNameBytesMax) {
    return Bad(name, Str(name.size(), " bytes, at most ", kBlobNameBytesMax));
  }
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F || c == '\\') {
      return Bad(name, "holds a control character or a backslash");
    }
  }
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('/', begin), name.size());
    WEFT_TRY(CheckPart(name, std::string_view(name).substr(begin, end - begin)));
    begin = end + 1;
  }
  const std::string first = name.substr(0, name.find('/'));
  if (first.compare(0, 6, "run.db") == 0 || first == "lock" || first == kStopRequestFile) {
    return Bad(name, Str("\"", first, "\" is a file of the run folder itself"));
  }
  return OkStatus();
}

}  // namespace weft
