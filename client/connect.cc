#include "client/connect.h"

#include <algorithm>
#include <optional>
#include <ostream>
#include <utility>

#include "client/rank_plan.h"
#include "common/base/str.h"
#include "common/net/event_loop.h"
#include "common/net/keys.h"

namespace weft {
namespace {

constexpr Nanos kProbePatience = std::chrono::seconds(10);
constexpr Nanos kReconnectMax = std::chrono::seconds(5);

/// Keeps the first thing the link says about itself.
class LinkWatcher : public Transport::Receiver {
 public:
  void OnFrames(const ClientId&, Frames) override {}
  void OnPeerGone(const ClientId&, const Status& why) override {
    if (!gone) gone = why;
  }
  std::optional<Status> gone;
};

}  // namespace

std::string ServerAddress(const Settings& settings) {
  return settings.server.address.empty() ? settings.server.bind : settings.server.address;
}

Result<std::unique_ptr<ZmqClient>> ConnectTo(EventLoop& loop, const Settings& settings,
                                             const ClientSettings& client) {
  if (settings.server.public_key.empty()) {
    return InvalidArgument("[server] public-key: got none, wanted the server's key (--server-key)");
  }
  if (client.secret_key.empty()) {
    return InvalidArgument("[client] secret-key: got none, wanted the site's .secret file (--key)");
  }
  ZmqClient::Options options;
  options.endpoint = ServerAddress(settings);
  options.reconnect_max = kReconnectMax;
  WEFT_TRY_ASSIGN(options.keys, LoadSecretKey(client.secret_key));
  WEFT_TRY_ASSIGN(options.server_key, LoadPublicKey(settings.server.public_key));
  return ZmqClient::Connect(loop, std::move(options));
}

Status ProbeLink(const Settings& settings, const ClientSettings& client, std::ostream& out,
                 bool* refused) {
  EventLoop loop;
  WEFT_TRY_ASSIGN(const std::unique_ptr<ZmqClient> link, ConnectTo(loop, settings, client));
  WEFT_TRY_ASSIGN(const KeyPair keys, LoadSecretKey(client.secret_key));
  out << "key     ok   public key " << keys.public_key << "\n";
  LinkWatcher watcher;
  link->SetReceiver(&watcher);
  bool late = false;
  loop.At(loop.Now() + kProbePatience, [&late] { late = true; });
  loop.RunUntil([&] { return late || link->connected() || watcher.gone.has_value(); });
  if (link->connected()) {
    out << "link    ok   handshake with " << ServerAddress(settings) << ", key accepted\n";
    return OkStatus();
  }
  *refused = watcher.gone && watcher.gone->code() == Code::kPermissionDenied;
  if (watcher.gone) return *watcher.gone;
  return Unavailable(Str("[link] no handshake with ", ServerAddress(settings), " within ",
                         ToSeconds(kProbePatience),
                         " s; is the aggregator running, and does its "
                         "key equal server.public-key?"));
}

void PrintWhatLeaves(const ClientOptions& options, const std::vector<LinearSite>& sites,
                     int64_t rank, std::ostream& out) {
  const Capabilities& offer = options.offer;
  out << "\nWhat would leave this site (no text, no rows, no tokens):\n"
      << "  on joining    protocol version, base hash, names and shapes of the base's layers,\n"
      << "                software \"" << offer.software << "\", device \"" << offer.device
      << "\", memory " << offer.memory_mb << " MB, rank " << rank << ", " << offer.num_examples
      << " training rows, " << offer.eval_examples << " validation rows, methods and codecs known\n"
      << "  heartbeats    round, phase, progress\n"
      << "  each update   run, round, client name, version, base hash, adapter settings, codec,\n"
      << "                num-examples, label tokens, steps, train_loss, metrics (first and last\n"
      << "                loss, update norm, rows cut), seconds per phase, bytes, SHA-256\n"
      << "  its tensors   (the run's plan decides; at rank " << rank << ")\n";
  constexpr size_t kShown = 4;
  for (size_t i = 0; i < std::min(sites.size(), kShown); ++i) {
    const int64_t own = std::min({rank, sites[i].in, sites[i].out});
    out << "                " << sites[i].path << ": A [" << own << "x" << sites[i].in << "], B ["
        << sites[i].out << "x" << own << "]\n";
  }
  if (sites.size() > kShown) {
    out << "                and " << sites.size() - kShown << " layers more\n";
  }
  out << "                " << FactorBytes(sites, rank) << " bytes of float32 in all\n"
      << "  evaluations   loss, label tokens, rows, seconds\n";
}

}  // namespace weft
