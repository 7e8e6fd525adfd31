#pragma once
// What `weft init` and `weft init-relay` write for those who join: a key, a place on the
// allow-list and a join file for each site.

#include <filesystem>
#include <string>
#include <vector>

#include "common/base/result.h"
#include "common/config/settings.h"

namespace weft::cli {

/// Who joins, and where.
struct JoinOptions {
  std::string model;               // folder of the base model
  std::vector<std::string> sites;  // their names
  std::string server = "tcp://127.0.0.1:7711";
  std::string rank;  // of every site, or "auto"; empty: as the run's file says
};

/// What is written into another folder must not be relative to this one.
[[nodiscard]] std::string Absolute(const std::string& path);

/// Where a server listens that clients reach at this address: the same port on every card, unless
/// it is on this machine.
[[nodiscard]] std::string BindOf(const std::string& address);

/// Names and numbers as the programs that read them will check them; `command` names them in
/// errors.
[[nodiscard]] Status CheckJoinOptions(const JoinOptions& options, const std::string& command);

[[nodiscard]] std::string RankOf(const JoinOptions& options, const Settings& settings,
                                 const std::string& site);

/// SITE.secret, SITE.public, SITE.toml and the place in allow.txt of every site. `server_key` is
/// what they connect to.
[[nodiscard]] Status WriteJoinFiles(const std::filesystem::path& out, const JoinOptions& options,
                                    const Settings& given, const std::string& server_key);

/// What to do with them, on stdout.
void TellOfJoinFiles(const std::filesystem::path& out, const JoinOptions& options);

}  // namespace weft::cli
