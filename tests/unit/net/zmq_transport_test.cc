// The ZeroMQ transport over real CURVE links on 127.0.0.1.

#include <zmq.h>

#include "common/base/limits.h"
#include "common/wire/message_codec.h"
#include "common/wire/payload.h"
#include "tests/unit/net/net_world.h"

namespace weft {
namespace {

class ZmqTransportTest : public NetWorld {};

TEST_F(ZmqTransportTest, AnAllowedKeyGetsThroughUnderItsAllowListName) {
  const KeyPair alpha = Member("alpha");
  StartServer();
  server_notes_.on_frames = [&](const ClientId& from, Frames) {
    EXPECT_TRUE(server_
                    ->Send(from, {Blob::Copy(std::string_view("welcome")),
                                  Blob::Copy(std::string(5000, 'c'))})
                    .ok());
  };
  Notes notes;
  const auto client = StartClient(alpha, notes);
  ASSERT_TRUE(SendWhenLinked(*client, "hello"));
  ASSERT_TRUE(Until([&] { return !notes.messages.empty(); }));
  EXPECT_EQ(server_notes_.messages[0].from, ClientId{"alpha"});
  EXPECT_EQ(server_notes_.messages[0].frames.control.view(), "hello");
  EXPECT_EQ(notes.messages[0].from, kAggregator);
  EXPECT_EQ(notes.messages[0].frames.control.view(), "welcome");
  EXPECT_EQ(notes.messages[0].frames.chunk.size(), 5000u);
  EXPECT_EQ(server_->peers(), 1u);
}

TEST_F(ZmqTransportTest, AnUnknownKeyIsToldAndNothingOfItArrives) {
  (void)Member("alpha");
  StartServer();
  Notes notes;
  const auto stranger = StartClient(NewKeyPair().value(), notes);
  ASSERT_TRUE(Until([&] { return !notes.gone.empty(); }));
  EXPECT_EQ(notes.gone[0].second.code(), Code::kPermissionDenied);
  EXPECT_NE(notes.gone[0].second.message().find("allow-list"), std::string::npos);
  EXPECT_EQ(stranger->Send(kAggregator, Text("hello")).code(), Code::kUnavailable);
  EXPECT_TRUE(server_notes_.messages.empty());
  EXPECT_EQ(server_->peers(), 0u);
}

TEST_F(ZmqTransportTest, AKeyAllowedWhileRunningIsLetIn) {
  (void)Member("alpha");
  StartServer();
  Notes notes;
  const KeyPair late = NewKeyPair().value();
  const auto client = StartClient(late, notes);
  ASSERT_TRUE(Until([&] { return !notes.gone.empty(); }));
  ASSERT_TRUE(AllowKey(AllowFile(), late.public_key, ClientId{"late"}).ok());
  ASSERT_TRUE(SendWhenLinked(*client, "hello"));
  ASSERT_TRUE(Until([&] { return Heard("hello") == 1; }));
  EXPECT_EQ(server_notes_.messages[0].from, ClientId{"late"});
}

TEST_F(ZmqTransportTest, ARevokedPeerIsCutWithinFiveSecondsAndLearnsWhy) {
  const KeyPair alpha = Member("alpha");
  const KeyPair beta = Member("beta");
  StartServer();
  Notes alpha_notes, beta_notes;
  const auto revoked = StartClient(alpha, alpha_notes);
  const auto kept = StartClient(beta, beta_notes);
  ASSERT_TRUE(SendWhenLinked(*revoked, "hello"));
  ASSERT_TRUE(SendWhenLinked(*kept, "hello"));
  ASSERT_TRUE(Until([&] { return Heard("hello") == 2; }));
  ASSERT_TRUE(RevokeKey(AllowFile(), "alpha").ok());
  ASSERT_TRUE(Until([&] { return !server_notes_.gone.empty(); }, 5));
  EXPECT_EQ(server_notes_.gone[0].first, ClientId{"alpha"});
  EXPECT_EQ(server_notes_.gone[0].second.code(), Code::kPermissionDenied);
  EXPECT_EQ(server_->Send(ClientId{"alpha"}, Text("x")).code(), Code::kUnavailable);
  const auto refused = [&] {
    for (const auto& [peer, why] : alpha_notes.gone) {
      if (why.code() == Code::kPermissionDenied) return true;
    }
    return false;
  };
  ASSERT_TRUE(Until(refused));
  (void)revoked->Send(kAggregator, Text("still here"));
  ASSERT_TRUE(kept->Send(kAggregator, Text("last")).ok());
  ASSERT_TRUE(Until([&] { return Heard("last") == 1; }));
  EXPECT_EQ(Heard("still here"), 0u);
  EXPECT_TRUE(beta_notes.gone.empty());
}

TEST_F(ZmqTransportTest, ARotatedKeyCutsTheOldOneOfThatName) {
  const KeyPair old_key = Member("alpha");
  StartServer();
  Notes notes;
  const auto client = StartClient(old_key, notes);
  ASSERT_TRUE(SendWhenLinked(*client, "hello"));
  ASSERT_TRUE(Until([&] { return Heard("hello") == 1; }));
  ASSERT_TRUE(RevokeKey(AllowFile(), "alpha").ok());
  const KeyPair new_key = Member("alpha");
  ASSERT_TRUE(Until([&] { return !server_notes_.gone.empty(); }, 5));
  Notes new_notes;
  const auto renewed = StartClient(new_key, new_notes);
  ASSERT_TRUE(SendWhenLinked(*renewed, "new hello"));
  ASSERT_TRUE(Until([&] { return Heard("new hello") == 1; }));
}

TEST_F(ZmqTransportTest, AnAllowListBrokenWhileRunningChangesNothing) {
  const KeyPair alpha = Member("alpha");
  StartServer();
  Notes notes;
  const auto client = StartClient(alpha, notes);
  ASSERT_TRUE(SendWhenLinked(*client, "hello"));
  ASSERT_TRUE(Until([&] { return Heard("hello") == 1; }));
  std::filesystem::remove(AllowFile());
  // Two readings go by; the proof that they did is the loop's clock.
  const Nanos later = loop_.Now() + Seconds(2.2);
  ASSERT_TRUE(Until([&] { return loop_.Now() > later; }));
  ASSERT_TRUE(client->Send(kAggregator, Text("again")).ok());
  ASSERT_TRUE(Until([&] { return Heard("again") == 1; }));
}

TEST_F(ZmqTransportTest, AClientWithTheWrongServerKeySaysSo) {
  const KeyPair alpha = Member("alpha");
  StartServer();
  Notes notes;
  ZmqClient::Options options = ClientOptions(alpha);
  options.server_key = NewKeyPair().value().public_key;
  const auto client = StartClient(std::move(options), notes);
  ASSERT_TRUE(Until([&] { return !notes.gone.empty(); }));
  EXPECT_EQ(notes.gone[0].second.code(), Code::kPermissionDenied);
  EXPECT_NE(notes.gone[0].second.message().find("server key"), std::string::npos);
  EXPECT_TRUE(server_notes_.messages.empty());
}

TEST_F(ZmqTransportTest, EndpointsThatAreNotTcpAreRefused) {
  (void)Member("alpha");
  for (const char* endpoint : {"inproc://x", "ipc:///tmp/weft", "ws://127.0.0.1:1", "tcp://",
                               "tcp://host", "127.0.0.1:77", ""}) {
    const auto server = ZmqServer::Bind(
        loop_, {.endpoint = endpoint, .keys = CopyOf(server_keys_), .allow_list = AllowFile()});
    EXPECT_EQ(server.status().code(), Code::kInvalidArgument) << endpoint;
    const auto client = ZmqClient::Connect(loop_, {.endpoint = endpoint,
                                                   .keys = CopyOf(server_keys_),
                                                   .server_key = server_keys_.public_key});
    EXPECT_EQ(client.status().code(), Code::kInvalidArgument) << endpoint;
  }
}

TEST_F(ZmqTransportTest, APortInUseIsNamed) {
  (void)Member("alpha");
  StartServer();
  const auto second = ZmqServer::Bind(
      loop_,
      {.endpoint = server_->endpoint(), .keys = CopyOf(server_keys_), .allow_list = AllowFile()});
  EXPECT_EQ(second.status().code(), Code::kAlreadyExists);
  EXPECT_NE(second.status().message().find(server_->endpoint() + " is in use"), std::string::npos);
}

TEST_F(ZmqTransportTest, AMissingAllowListStopsTheStart) {
  const auto server = ZmqServer::Bind(loop_, {.endpoint = "tcp://127.0.0.1:*",
                                              .keys = CopyOf(server_keys_),
                                              .allow_list = folder_.path() / "none"});
  EXPECT_EQ(server.status().code(), Code::kNotFound);
}

TEST_F(ZmqTransportTest, TheClientFindsARestartedServerAgain) {
  const KeyPair alpha = Member("alpha");
  StartServer();
  const std::string endpoint = server_->endpoint();
  Notes notes;
  const auto client = StartClient(alpha, notes);
  ASSERT_TRUE(SendWhenLinked(*client, "first"));
  ASSERT_TRUE(Until([&] { return Heard("first") == 1; }));
  server_.reset();
  ASSERT_TRUE(Until([&] { return !notes.gone.empty(); }));
  EXPECT_EQ(notes.gone[0].second.code(), Code::kUnavailable);
  EXPECT_EQ(client->Send(kAggregator, Text("into the void")).code(), Code::kUnavailable);
  StartServer(endpoint);
  ASSERT_TRUE(SendWhenLinked(*client, "second"));
  ASSERT_TRUE(Until([&] { return Heard("second") == 1; }));
  EXPECT_EQ(Heard("into the void"), 0u);
}

TEST_F(ZmqTransportTest, AClientThatLeavesIsReportedAfterItsLastWords) {
  const KeyPair alpha = Member("alpha");
  StartServer();
  Notes notes;
  auto client = StartClient(alpha, notes);
  ASSERT_TRUE(SendWhenLinked(*client, "hello"));
  ASSERT_TRUE(Until([&] { return Heard("hello") == 1; }));
  size_t heard_before_gone = 0;
  ASSERT_TRUE(client->Send(kAggregator, Text("goodbye")).ok());
  client.reset();
  ASSERT_TRUE(Until([&] {
    if (server_notes_.gone.empty()) heard_before_gone = Heard("goodbye");
    return !server_notes_.gone.empty();
  }));
  EXPECT_EQ(Heard("goodbye"), 1u);
  EXPECT_EQ(server_notes_.gone[0].first, ClientId{"alpha"});
  EXPECT_EQ(server_notes_.gone[0].second.code(), Code::kUnavailable);
  EXPECT_EQ(server_->peers(), 0u);
}

TEST_F(ZmqTransportTest, TheNewerOfTwoConnectionsWithOneKeyWins) {
  const KeyPair alpha = Member("alpha");
  StartServer();
  Notes old_notes, new_notes;
  ZmqClient::Options patient = ClientOptions(alpha);
  patient.reconnect_min = Seconds(60);  // the loser must not come back during the test
  patient.reconnect_max = Seconds(60);
  const auto old_client = StartClient(std::move(patient), old_notes);
  ASSERT_TRUE(SendWhenLinked(*old_client, "old"));
  ASSERT_TRUE(Until([&] { return Heard("old") == 1; }));
  const auto new_client = StartClient(alpha, new_notes);
  ASSERT_TRUE(SendWhenLinked(*new_client, "new"));
  ASSERT_TRUE(Until([&] { return Heard("new") == 1; }));
  ASSERT_EQ(server_notes_.gone.size(), 1u);
  EXPECT_NE(server_notes_.gone[0].second.message().find("newer connection"), std::string::npos);
  ASSERT_TRUE(Until([&] { return !old_notes.gone.empty(); }));
  ASSERT_TRUE(server_->Send(ClientId{"alpha"}, Text("to the newer")).ok());
  ASSERT_TRUE(Until([&] { return !new_notes.messages.empty(); }));
  EXPECT_TRUE(old_notes.messages.empty());
  EXPECT_EQ(server_->peers(), 1u);
}

TEST_F(ZmqTransportTest, ACutPeerStillGetsWhatWasSentBeforeAndMayComeBack) {
  const KeyPair alpha = Member("alpha");
  StartServer();
  Notes notes;
  const auto client = StartClient(alpha, notes);
  ASSERT_TRUE(SendWhenLinked(*client, "hello"));
  ASSERT_TRUE(Until([&] { return Heard("hello") == 1; }));
  ASSERT_TRUE(server_->Send(ClientId{"alpha"}, Text("refused: other base model")).ok());
  server_->Cut(ClientId{"alpha"}, FailedPrecondition("other base model"));
  EXPECT_EQ(server_->Send(ClientId{"alpha"}, Text("more")).code(), Code::kUnavailable);
  ASSERT_TRUE(client->Send(kAggregator, Text("but wait")).ok());
  ASSERT_TRUE(Until([&] { return !notes.gone.empty(); }));
  ASSERT_EQ(notes.messages.size(), 1u);
  EXPECT_EQ(notes.messages[0].frames.control.view(), "refused: other base model");
  EXPECT_EQ(Heard("but wait"), 0u);
  ASSERT_TRUE(SendWhenLinked(*client, "back"));
  ASSERT_TRUE(Until([&] { return Heard("back") == 1; }));
}

TEST_F(ZmqTransportTest, FramesOverTheLimitAreNotSent) {
  const KeyPair alpha = Member("alpha");
  StartServer();
  Notes notes;
  const auto client = StartClient(alpha, notes);
  ASSERT_TRUE(SendWhenLinked(*client, "hello"));
  ASSERT_TRUE(Until([&] { return Heard("hello") == 1; }));
  const Frames control{Blob::Copy(std::string(limits::kControlBytesMax + 1, 'x')), {}};
  const Frames chunk{Blob::Copy(std::string_view("c")),
                     Blob::Copy(std::string(limits::kChunkBytes + 1, 'x'))};
  for (const Frames& frames : {control, chunk}) {
    EXPECT_EQ(client->Send(kAggregator, frames).code(), Code::kInvalidArgument);
    EXPECT_EQ(server_->Send(ClientId{"alpha"}, frames).code(), Code::kInvalidArgument);
  }
}

// ---- peers that are not ours ----

// A DEALER of its own making, to say what our client never would.
class RawPeer {
 public:
  RawPeer(const std::string& endpoint, const std::string& server_key, const KeyPair* keys,
          const char* routing_id = nullptr)
      : context_(zmq_ctx_new()), socket_(zmq_socket(context_, ZMQ_DEALER)) {
    const int no_linger = 0;
    zmq_setsockopt(socket_, ZMQ_LINGER, &no_linger, sizeof(no_linger));
    if (keys != nullptr) {
      const std::string secret(keys->secret_key.view());
      zmq_setsockopt(socket_, ZMQ_CURVE_SERVERKEY, server_key.c_str(), 41);
      zmq_setsockopt(socket_, ZMQ_CURVE_PUBLICKEY, keys->public_key.c_str(), 41);
      zmq_setsockopt(socket_, ZMQ_CURVE_SECRETKEY, secret.c_str(), 41);
    }
    if (routing_id != nullptr)
      zmq_setsockopt(socket_, ZMQ_ROUTING_ID, routing_id, std::string_view(routing_id).size());
    zmq_connect(socket_, endpoint.c_str());
  }
  ~RawPeer() {
    zmq_close(socket_);
    zmq_ctx_term(context_);
  }
  RawPeer(const RawPeer&) = delete;
  RawPeer& operator=(const RawPeer&) = delete;

  bool Send(std::string_view frame, bool more = false) {
    return zmq_send(socket_, frame.data(), frame.size(), ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0)) >=
           0;
  }
  std::string Receive() {
    std::string buffer(1 << 16, '\0');
    const int size = zmq_recv(socket_, buffer.data(), buffer.size(), ZMQ_DONTWAIT);
    return size < 0 ? "" : buffer.substr(0, static_cast<size_t>(size));
  }

 private:
  void* context_;
  void* socket_;
};

TEST_F(ZmqTransportTest, AKeylessPeerGetsNothing) {
  const KeyPair alpha = Member("alpha");
  StartServer();
  RawPeer keyless(server_->endpoint(), "", nullptr);
  ASSERT_TRUE(keyless.Send("hello"));
  Notes notes;
  const auto client = StartClient(alpha, notes);
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(SendWhenLinked(*client, "hello from alpha"));
    ASSERT_TRUE(Until([&] { return Heard("hello from alpha") == static_cast<size_t>(i) + 1; }));
  }
  EXPECT_EQ(server_notes_.messages.size(), 5u);
  EXPECT_EQ(keyless.Receive(), "");
}

TEST_F(ZmqTransportTest, AFrameOverTheLimitCutsThePeerAndOthersGoOn) {
  const KeyPair alpha = Member("alpha");
  const KeyPair beta = Member("beta");
  StartServer();
  RawPeer rude(server_->endpoint(), server_keys_.public_key, &alpha);
  ASSERT_TRUE(rude.Send("hello"));
  ASSERT_TRUE(Until([&] { return Heard("hello") == 1; }));
  ASSERT_TRUE(rude.Send(std::string(limits::kFrameBytesMax + 1, 'x')));
  ASSERT_TRUE(Until([&] { return !server_notes_.gone.empty(); }));
  EXPECT_EQ(server_notes_.gone[0].first, ClientId{"alpha"});
  EXPECT_EQ(server_notes_.messages.size(), 1u);
  Notes notes;
  const auto client = StartClient(beta, notes);
  ASSERT_TRUE(SendWhenLinked(*client, "fine"));
  ASSERT_TRUE(Until([&] { return Heard("fine") == 1; }));
}

TEST_F(ZmqTransportTest, AControlFrameOverItsOwnLimitCutsThePeer) {
  const KeyPair alpha = Member("alpha");
  StartServer();
  RawPeer rude(server_->endpoint(), server_keys_.public_key, &alpha);
  ASSERT_TRUE(rude.Send("hello"));
  ASSERT_TRUE(Until([&] { return Heard("hello") == 1; }));
  ASSERT_TRUE(rude.Send(std::string(limits::kControlBytesMax + 1, 'x')));
  ASSERT_TRUE(Until([&] { return !server_notes_.gone.empty(); }));
  EXPECT_EQ(server_notes_.gone[0].second.code(), Code::kInvalidArgument);
  EXPECT_EQ(server_notes_.messages.size(), 1u);
}

TEST_F(ZmqTransportTest, AMessageOfManySmallFramesCutsThePeer) {
  const KeyPair alpha = Member("alpha");
  StartServer();
  RawPeer rude(server_->endpoint(), server_keys_.public_key, &alpha);
  ASSERT_TRUE(rude.Send("hello"));
  ASSERT_TRUE(Until([&] { return Heard("hello") == 1; }));
  for (size_t i = 1; i < limits::kFramesPerMessageMax; ++i) ASSERT_TRUE(rude.Send("fits", true));
  ASSERT_TRUE(rude.Send("chunk"));
  ASSERT_TRUE(Until([&] { return Heard("fits") == 1; })) << "as many as may be";
  for (int i = 0; i < 10000; ++i) ASSERT_TRUE(rude.Send("x", true));
  ASSERT_TRUE(rude.Send("end"));
  ASSERT_TRUE(Until([&] { return !server_notes_.gone.empty(); }));
  EXPECT_EQ(server_notes_.gone[0].second.code(), Code::kInvalidArgument);
  EXPECT_NE(server_notes_.gone[0].second.message().find("too many frames"), std::string::npos);
  EXPECT_EQ(server_notes_.messages.size(), 2u);
}

TEST_F(ZmqTransportTest, APeerThatSendsMuchInWholeMessagesIsNotCut) {
  const KeyPair alpha = Member("alpha");
  auto server = ZmqServer::Bind(loop_, {.endpoint = "tcp://127.0.0.1:*",
                                        .keys = CopyOf(server_keys_),
                                        .allow_list = AllowFile(),
                                        .untaken_bytes_max = 4 << 20});
  ASSERT_TRUE(server.ok()) << server.status();
  server_ = std::move(*server);
  server_->SetReceiver(&server_notes_);
  server_notes_.on_frames = [&](const ClientId&, const Frames&) { server_notes_.messages.clear(); };
  Notes notes;
  const auto client = StartClient(alpha, notes);
  ASSERT_TRUE(SendWhenLinked(*client, "hello"));
  const Blob chunk = Blob::Copy(std::string(limits::kChunkBytes, 'c'));
  int sent = 0;
  const Nanos two_looks_later = loop_.Now() + Seconds(0.6);
  ASSERT_TRUE(Until([&] {
    for (int i = 0; i < 4; ++i)
      sent += client->Send(kAggregator, {Blob::Copy(std::string_view("c")), chunk}).ok();
    return sent >= 64 && loop_.Now() > two_looks_later;
  }));
  EXPECT_TRUE(server_notes_.gone.empty());
  EXPECT_TRUE(notes.gone.empty());
}

TEST_F(ZmqTransportTest, ARoutingIdThatSomeoneElseWouldLikeIsHarmless) {
  const KeyPair alpha = Member("alpha");
  const KeyPair beta = Member("beta");
  StartServer();
  RawPeer squatter(server_->endpoint(), server_keys_.public_key, &alpha, "beta");
  ASSERT_TRUE(squatter.Send("I am beta"));
  ASSERT_TRUE(Until([&] { return Heard("I am beta") == 1; }));
  EXPECT_EQ(server_notes_.messages[0].from, ClientId{"alpha"});
  Notes notes;
  const auto client = StartClient(beta, notes);
  ASSERT_TRUE(SendWhenLinked(*client, "hello"));
  ASSERT_TRUE(Until([&] { return Heard("hello") == 1; }));
  EXPECT_EQ(server_notes_.messages[1].from, ClientId{"beta"});
  ASSERT_TRUE(server_->Send(ClientId{"beta"}, Text("for beta")).ok());
  ASSERT_TRUE(Until([&] { return !notes.messages.empty(); }));
  EXPECT_EQ(squatter.Receive(), "");
}

// ---- many at once ----

// A client that pulls a payload by chunks, as the nodes do.
struct Puller {
  std::unique_ptr<ZmqClient> client;
  Notes notes;
  std::optional<PayloadReceiver> receiver;
  bool greeted = false;
};

TEST_F(ZmqTransportTest, SixtyFourClientsPullAPayloadAtOnce) {
  constexpr int kClients = 64;
  std::vector<KeyPair> keys;
  for (int i = 0; i < kClients; ++i) keys.push_back(Member(Str("site-", i)));
  StartServer();
  std::string text(2 * limits::kChunkBytes + 12345, 'p');
  for (size_t i = 0; i < text.size(); i += 997) text[i] = static_cast<char>(i);
  const Blob payload = Blob::Adopt(std::move(text));
  const PayloadOffer offer = OfferOf(payload);
  std::map<ClientId, PayloadSender> senders;
  server_notes_.on_frames = [&](const ClientId& from, Frames frames) {
    const Result<Message> message = DecodeMessage(frames.control);
    ASSERT_TRUE(message.ok()) << message.status();
    const auto it = senders.try_emplace(from, offer, payload).first;
    ASSERT_TRUE(it->second.Ask(std::get<ChunkRequest>(*message)).ok());
    ASSERT_TRUE(
        it->second.Pump([&](Frames chunk) { return server_->Send(from, std::move(chunk)); }).ok());
    EXPECT_TRUE(it->second.idle());
  };
  std::vector<std::unique_ptr<Puller>> pullers;
  for (const KeyPair& key : keys) {
    Puller& puller = *pullers.emplace_back(std::make_unique<Puller>());
    puller.receiver.emplace(offer, PayloadReceiver::Options{.window = 2});
    puller.notes.on_frames = [&puller](const ClientId&, Frames frames) {
      const Result<Message> message = DecodeMessage(frames.control);
      ASSERT_TRUE(message.ok()) << message.status();
      const auto offset = puller.receiver->Accept(std::get<Chunk>(*message), frames.chunk);
      ASSERT_TRUE(offset.ok()) << offset.status();
      while (const auto request = puller.receiver->NextRequest()) {
        ASSERT_TRUE(puller.client->Send(kAggregator, {EncodeMessage(*request), {}}).ok());
      }
    };
    puller.client = StartClient(key, puller.notes);
  }
  const auto all_done = [&] {
    bool done = true;
    for (const auto& puller : pullers) {
      if (!puller->greeted && puller->client->connected()) {
        puller->greeted = true;
        EXPECT_TRUE(
            puller->client->Send(kAggregator, {EncodeMessage(*puller->receiver->NextRequest()), {}})
                .ok());
      }
      done = done && puller->receiver->complete();
    }
    return done;
  };
  ASSERT_TRUE(Until(all_done, 60));
  for (const auto& puller : pullers) EXPECT_TRUE(puller->receiver->Finish().ok());
  EXPECT_EQ(server_->peers(), static_cast<size_t>(kClients));
}

}  // namespace
}  // namespace weft
