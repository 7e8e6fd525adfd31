#pragma once
// What the tests of real sockets share: one loop, a folder for keys, receivers that write down what
// they are told, and waiting for conditions with a deadline instead of sleeping.

#include <deque>
#include <filesystem>

#include <gtest/gtest.h>

#include "common/base/str.h"
#include "common/net/event_loop.h"
#include "common/net/keys.h"
#include "common/net/zmq_client.h"
#include "common/net/zmq_server.h"
#include "tests/support/temp_folder.h"

namespace weft {

/// Writes down every call; answers if told how.
class Notes : public Transport::Receiver {
 public:
  struct Message {
    ClientId from;
    Frames frames;
  };
  void OnFrames(const ClientId& from, Frames frames) override {
    messages.push_back({from, frames});
    if (on_frames) on_frames(from, std::move(frames));
  }
  void OnPeerGone(const ClientId& peer, const Status& why) override {
    gone.emplace_back(peer, why);
  }

  std::deque<Message> messages;
  std::deque<std::pair<ClientId, Status>> gone;
  std::function<void(const ClientId&, Frames)> on_frames;
};

inline Frames Text(std::string_view control) { return {Blob::Copy(control), {}}; }

inline KeyPair CopyOf(const KeyPair& pair) {
  return {pair.public_key, SecureBytes(pair.secret_key.span())};
}

class NetWorld : public ::testing::Test {
 protected:
  static constexpr double kDeadlineSeconds = 20;

  /// Turns the loop until `condition` holds; false when the deadline passes first.
  bool Until(const std::function<bool()>& condition, double seconds = kDeadlineSeconds) {
    const Nanos end = loop_.Now() + Seconds(seconds);
    while (!condition()) {
      if (loop_.Now() > end) return false;
      loop_.RunOnce(std::chrono::milliseconds(50));
    }
    return true;
  }

  [[nodiscard]] std::filesystem::path AllowFile() const { return folder_.path() / "allow"; }

  /// A fresh key on the allow-list under that name.
  KeyPair Member(const std::string& name) {
    KeyPair pair = NewKeyPair().value();
    EXPECT_TRUE(AllowKey(AllowFile(), pair.public_key, ClientId{name}).ok());
    return pair;
  }

  void StartServer(const std::string& endpoint = "tcp://127.0.0.1:*") {
    auto server = ZmqServer::Bind(
        loop_, {.endpoint = endpoint, .keys = CopyOf(server_keys_), .allow_list = AllowFile()});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = std::move(*server);
    server_->SetReceiver(&server_notes_);
  }

  [[nodiscard]] ZmqClient::Options ClientOptions(const KeyPair& keys) const {
    return {.endpoint = server_->endpoint(),
            .keys = CopyOf(keys),
            .server_key = server_keys_.public_key,
            .reconnect_max = Seconds(0.5)};
  }

  std::unique_ptr<ZmqClient> StartClient(ZmqClient::Options options, Notes& notes) {
    auto client = ZmqClient::Connect(loop_, std::move(options));
    EXPECT_TRUE(client.ok()) << client.status();
    (*client)->SetReceiver(&notes);
    return std::move(*client);
  }
  std::unique_ptr<ZmqClient> StartClient(const KeyPair& keys, Notes& notes) {
    return StartClient(ClientOptions(keys), notes);
  }

  /// Sends as soon as there is a link.
  bool SendWhenLinked(ZmqClient& client, std::string_view text) {
    return Until([&] { return client.Send(kAggregator, Text(text)).ok(); });
  }

  [[nodiscard]] size_t Heard(std::string_view text) const {
    size_t count = 0;
    for (const Notes::Message& message : server_notes_.messages) {
      if (message.frames.control.view() == text) ++count;
    }
    return count;
  }

  weft::testing::TempFolder folder_;
  EventLoop loop_;
  KeyPair server_keys_ = NewKeyPair().value();
  Notes server_notes_;
  std::unique_ptr<ZmqServer> server_;
};

}  // namespace weft
