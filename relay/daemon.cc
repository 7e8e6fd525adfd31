#include "relay/daemon.h"

#include <memory>
#include <utility>

#include "aggregator/daemon.h"
#include "aggregator/premises.h"
#include "client/connect.h"
#include "common/base/str.h"
#include "relay/relay_node.h"

namespace weft {
namespace {

// What the relay needs of the world above, made when it has something to offer there.
class LinkAbove {
 public:
  explicit LinkAbove(Premises& premises)
      : premises_(premises),
        logger_(
            "relay-above", log::StderrSink(), [&premises] { return premises.loop().WallMicros(); },
            log::LevelFromName(premises.settings().run.log_level)),
        entropy_(SystemEntropy()) {}

  Result<Env> Connect() {
    const RelaySettings& relay = premises_.settings().relay;
    EventLoop& loop = premises_.loop();
    WEFT_TRY_ASSIGN(
        store_, FileStore::Open(
                    {.folder = premises_.folder() + "/above",
                     .post = [&loop](std::function<void()> done) { loop.Post(std::move(done)); },
                     .wall_us = [&loop] { return loop.WallMicros(); }}));
    Settings settings = premises_.settings();
    settings.server.address = relay.address;
    settings.server.public_key = relay.public_key;
    ClientSettings client;
    client.name = relay.name;
    client.secret_key = relay.secret_key;
    WEFT_TRY_ASSIGN(link_, ConnectTo(loop, settings, client));
    return Env{loop, *link_, premises_.executor(), *store_, entropy_, logger_};
  }

 private:
  Premises& premises_;
  log::Logger logger_;
  RandomStream entropy_;
  std::unique_ptr<FileStore> store_;
  std::unique_ptr<ZmqClient> link_;
};

Status CheckRelay(const RelaySettings& relay) {
  const auto missing = [](std::string_view key, std::string_view wanted) {
    return InvalidArgument(Str("[relay] ", key, ": got none, wanted ", wanted));
  };
  if (relay.name.empty()) return missing("name", "its name on the allow-list above");
  if (relay.address.empty()) return missing("address", "tcp://host:port of the aggregator above");
  if (relay.public_key.empty()) return missing("public-key", "the aggregator's public key");
  if (relay.secret_key.empty()) {
    return missing("secret-key", "the relay's .secret file, from `weft keys new`");
  }
  return OkStatus();
}

}  // namespace

Status RunRelayDaemon(const RelayDaemon& daemon, bool* refused) {
  const RelaySettings& relay = daemon.settings.relay;
  WEFT_TRY(CheckRelay(relay));
  Premises premises(daemon.settings, "relay-" + relay.name);
  RelayOptions options;
  WEFT_TRY_ASSIGN(options.below, MakeAggregatorOptions(premises.settings(), /*run_dir=*/""));
  options.below.evaluate_here = false;
  options.below.stop_requested = [&premises] { return premises.StopRequest(); };
  options.above.name = ClientId{relay.name};
  options.above.base = options.below.base;
  WEFT_TRY(premises.Open(/*evaluate_here=*/false));
  if (daemon.on_bound) daemon.on_bound(premises.endpoint());
  LinkAbove above(premises);
  RelayNode node(
      premises.env(), [&above] { return above.Connect(); }, std::move(options));
  WEFT_TRY(premises.Run(node));
  *refused = node.Refused();
  return node.Outcome();
}

}  // namespace weft
