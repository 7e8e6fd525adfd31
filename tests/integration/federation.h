#pragma once
// Federation: the tiny example's three sites as a folder with keys, an allow-list and one run.toml
// that the aggregator, the clients and weft-sim all read, and the processes started on it. Each
// client reaches the aggregator through a forwarder of its own, so that a test can disturb its link
// and the aggregator may come back on another port.

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/config/settings.h"
#include "common/runtime/run_events.h"
#include "tests/integration/bad_input/command.h"
#include "tests/integration/process.h"
#include "tests/support/tcp_forwarder.h"
#include "tests/support/temp_folder.h"

namespace weft::testing {

inline const std::vector<std::string> kSites = {"harbour", "hospital", "weaver"};

/// Ranks 4, 8 and 16, three quick rounds, a quorum of everybody. Tests change what they are about.
[[nodiscard]] Settings QuickSettings();

/// Weaver at rank 64: its update has 9 chunks, so that there is a middle of an upload.
[[nodiscard]] Settings SettingsWithALargeUpdate();
/// Bytes of that update, and a number of bytes that weaver's link has carried up when the update is
/// part of the way, in the middle of its third chunk (what comes before it is far less than one).
inline constexpr uint64_t kLargeUpdateBytes = uint64_t{2288} * 4 * 64 * 4;
inline constexpr uint64_t kMiddleOfUpload = uint64_t{256 * 1024} * 5 / 2;

class Federation {
 public:
  explicit Federation(Settings settings = QuickSettings());

  [[nodiscard]] const Settings& settings() const { return settings_; }
  [[nodiscard]] std::filesystem::path run_folder() const { return folder_.path() / "run"; }
  [[nodiscard]] std::string File(const std::string& name) const {
    return (folder_.path() / name).string();
  }
  [[nodiscard]] TcpForwarder& link(const std::string& site) { return links_[site]; }
  /// Where the aggregator listens itself.
  [[nodiscard]] const std::string& endpoint() const { return endpoint_; }

  /// Starts it and waits until it listens; the links lead to it from then on.
  [[nodiscard]] std::unique_ptr<Process> Aggregator(const std::vector<std::string>& more = {});
  /// The same by `weft runs resume`, without the run's TOML file.
  [[nodiscard]] std::unique_ptr<Process> Resumed();
  [[nodiscard]] std::unique_ptr<Process> Client(const std::string& site,
                                                const std::vector<std::string>& more = {});
  /// The client's arguments, for one that is not started as a Process.
  [[nodiscard]] std::vector<std::string> ClientArguments(const std::string& site);

  /// Waits until weaver's held link has brought two chunks of this round's update to the disk.
  [[nodiscard]] bool WeaverIsHalfWay(uint32_t round);

  /// What the ledger says so far; also while the aggregator is at work.
  [[nodiscard]] std::vector<RunEvent> Events() const;
  template <typename E>
  [[nodiscard]] std::vector<E> EventsOf() const {
    std::vector<E> found;
    for (const RunEvent& event : Events()) {
      if (const E* one = std::get_if<E>(&event)) found.push_back(*one);
    }
    return found;
  }
  /// Names of the clients whose updates the round took, in the order they were accepted.
  [[nodiscard]] std::vector<std::string> AcceptedIn(uint32_t round) const;
  /// The adapter's hash after each version.
  [[nodiscard]] std::vector<std::string> Hashes() const;
  /// What weft-sim --json says of the same run.toml.
  [[nodiscard]] std::string SimulatedReport(const std::vector<std::string>& arguments = {}) const;
  /// The hashes in it: what an undisturbed run arrives at.
  [[nodiscard]] std::vector<std::string> SimulatedHashes(
      const std::vector<std::string>& arguments = {}) const;
  /// `weft runs verify` on the run folder.
  [[nodiscard]] ::testing::AssertionResult Verified() const;

 private:
  void WriteKeys();
  /// Waits until it listens; the links lead to it from then on.
  [[nodiscard]] std::unique_ptr<Process> Listening(std::unique_ptr<Process> aggregator);

  TempFolder folder_;
  Settings settings_;
  std::map<std::string, TcpForwarder> links_;
  std::string endpoint_;
};

/// An aggregator and the three clients.
struct Everybody {
  explicit Everybody(Federation& federation);
  void ExpectCompleted();
  [[nodiscard]] std::string Logs() const;

  std::unique_ptr<Process> aggregator;
  std::map<std::string, std::unique_ptr<Process>> clients;
};

/// Where an aggregator that has just been started listens.
[[nodiscard]] std::string EndpointOf(Process& aggregator);

/// Asks again and again until it holds; false when the limit has passed.
[[nodiscard]] bool Eventually(const std::function<bool()>& holds, double limit_s = 60);

}  // namespace weft::testing
