#pragma once
// The ZAP handler (ZeroMQ RFC 27): libzmq asks it about every CURVE handshake; it lets in the keys
// of the allow-list and names the peer after its entry. Must exist before the server's socket
// binds. Internal to common/net.

#include <filesystem>
#include <functional>
#include <string>

#include "common/base/result.h"
#include "common/net/keys.h"
#include "common/net/zmq_socket.h"

namespace weft {

/// The allow-list in its file, read again when the file changes. A file that cannot be read or is
/// wrong changes nothing: who was allowed stays allowed, and the error is there to be reported.
class WatchedAllowList {
 public:
  [[nodiscard]] static Result<WatchedAllowList> Open(const std::filesystem::path& file);

  [[nodiscard]] const AllowList& list() const { return list_; }
  /// True if the list changed. Cheap while the file does not.
  [[nodiscard]] bool Reread();
  /// Why the last reading failed; ok otherwise.
  [[nodiscard]] const Status& problem() const { return problem_; }

 private:
  struct Stamp {
    int64_t modified_ns = 0;
    uint64_t bytes = 0;
    uint64_t inode = 0;
    friend bool operator==(const Stamp&, const Stamp&) = default;
  };
  [[nodiscard]] static Stamp StampOf(const std::filesystem::path& file);

  std::filesystem::path file_;
  AllowList list_;
  Stamp stamp_;
  Status problem_;
};

class ZapHandler {
 public:
  static constexpr const char* kDomain = "weft";

  /// `on_refused` is told the key of each peer that was turned away.
  ZapHandler(zmq::Context& context, EventLoop& loop, const AllowList& allowed,
             std::function<void(const std::string& key)> on_refused);
  ZapHandler(const ZapHandler&) = delete;
  ZapHandler& operator=(const ZapHandler&) = delete;

 private:
  void Run(int budget);
  void Answer(const std::vector<Blob>& request);

  const AllowList& allowed_;
  std::function<void(const std::string&)> on_refused_;
  zmq::Socket socket_;
  zmq::SocketSource source_;
};

}  // namespace weft
