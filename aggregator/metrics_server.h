#pragma once
// MetricsServer: /metrics for Prometheus and /healthz over HTTP, on threads of its own. It reads
// the run's ledger like any other reader, so that whoever watches costs the run nothing.

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "aggregator/metrics_page.h"
#include "common/base/result.h"

namespace weft {

class MetricsServer {
 public:
  /// `bind`: HOST:PORT; port 0 takes a free one. `pulse` is called from the server's threads.
  /// kInvalidArgument for an address that is none, kUnavailable for one that cannot be had.
  [[nodiscard]] static Result<std::unique_ptr<MetricsServer>> Start(
      const std::string& bind, const std::filesystem::path& run_folder,
      std::function<Pulse()> pulse);
  ~MetricsServer();
  MetricsServer(const MetricsServer&) = delete;
  MetricsServer& operator=(const MetricsServer&) = delete;

  /// "http://HOST:PORT".
  [[nodiscard]] std::string address() const;

 private:
  struct Impl;
  explicit MetricsServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft
