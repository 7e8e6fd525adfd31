// The allow-list: names and keys stand for each other, names are fit for files and logs, keys are
// 40 characters of Z85.

#include "common/base/check.h"
#include "common/net/keys.h"
#include "tests/fuzz/fuzz_target.h"

namespace weft::fuzz {
namespace {

constexpr std::string_view kZ85 =
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

void Run(std::string_view input) {
  if (IsKeyText(input)) {
    WEFT_CHECK(input.size() == kKeyTextBytes && input.find_first_not_of(kZ85) == input.npos);
  }
  const Result<AllowList> list = AllowList::Parse(input, "allow");
  if (!list.ok()) {
    WEFT_CHECK(list.status().message().find("allow:") != std::string::npos, list.status());
    return;
  }
  for (const auto& [name, key] : list->entries()) {
    WEFT_CHECK(CheckSiteName(name.name).ok(), name);
    WEFT_CHECK(key.size() == kKeyTextBytes && key.find_first_not_of(kZ85) == key.npos, name);
    WEFT_CHECK(list->NameOf(key) == name && list->KeyOf(name) == key, name);
  }
}

Seeds MakeSeeds() {
  const std::string a = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7";  // from ZeroMQ's RFC 32
  const std::string b = "JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6";
  return {a + " harbour\n" + b + "\tweaver-2.x\n",
          "# all\n\n  " + a + "  harbour \r\n#" + b + " x",
          a + " aggregator\n",
          a + " a\n" + a + " b\n",
          a + " a\n" + b + " a\n",
          a,
          b + " \n"};
}

}  // namespace

Target AllowListFile() {
  return {"allow_list", Run, MakeSeeds, {"#", "\n", " ", "\r", "aggregator"}};
}

}  // namespace weft::fuzz
