#include "cli/failpoint_flags.h"

#include <algorithm>
#include <iostream>
#include <string>
#include <string_view>

#include "common/base/failpoint.h"

namespace weft::cli {
namespace {

constexpr std::string_view kList = "--list-failpoints";

}  // namespace

void AddFailpointFlags(CLI::App& app, const char* process) {
  const auto arm = [process](const std::string& text) {
    const Status status = ArmFailpoint(text, process);
    return status.ok() ? std::string() : status.message();
  };
  app.add_option("--failpoint",
                 "for tests: die as if by kill -9 at NAME, or at its N-th pass (NAME:N)")
      ->expected(1)
      ->check(CLI::Validator(arm, "", "FAILPOINT"));
  static bool listed = false;  // ListFailpoints looks by itself; this is for --help
  app.add_flag(std::string(kList), listed, "the places where --failpoint can have it die");
}

bool ListFailpoints(int argc, const char* const* argv, const char* process) {
  if (std::none_of(argv + 1, argv + argc, [](const char* word) { return word == kList; })) {
    return false;
  }
  for (const FailpointInfo& point : Failpoints()) {
    if (!Passes(process, point)) continue;
    std::cout << point.name << "  " << point.what << "\n";
  }
  return true;
}

}  // namespace weft::cli
