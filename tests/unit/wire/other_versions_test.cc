// Peers of the version before and after ours (protocols/README.md, "Versions"): fields we do not
// know are ignored, fields they do not send take their default, kinds we do not know are told apart
// from damage. The other version is made by rewriting our own frames: every struct larger, as a
// version with more fields writes it, or smaller, as one with fewer.

#include <cstring>

#include <capnp/any.h>
#include <capnp/serialize.h>
#include <gtest/gtest.h>
#include <protocols/tensors.capnp.h>
#include <protocols/weft.capnp.h>

#include "common/base/limits.h"
#include "common/wire/message_codec.h"
#include "common/wire/tensor_block.h"
#include "tests/unit/wire/random_messages.h"

namespace weft {
namespace {

Blob ToBlob(capnp::MessageBuilder& builder) {
  const kj::Array<capnp::word> words = capnp::messageToFlatArray(builder);
  const auto bytes = words.asBytes();
  return Blob::Copy(std::as_bytes(std::span(bytes.begin(), bytes.size())));
}

// What a version with other fields would write of a message: each struct's data and pointer
// sections longer (`more` > 0, filled with something) or shorter (`more` < 0) by that many words.
class Rewriter {
 public:
  explicit Rewriter(int more) : more_(more) {}

  void Struct(capnp::AnyStruct::Reader in, capnp::AnyStruct::Builder out) const {
    const auto from = in.getDataSection();
    auto to = out.getDataSection();
    for (size_t i = 0; i < to.size(); ++i) to[i] = i < from.size() ? from[i] : kj::byte{0xA5};
    const auto pointers = in.getPointerSection();
    auto targets = out.getPointerSection();
    for (unsigned i = 0; i < targets.size(); ++i) {
      if (i < pointers.size()) {
        Pointer(pointers[i], targets[i]);
      } else {
        targets[i].setAs<capnp::Text>("from the future");
      }
    }
  }

  [[nodiscard]] uint16_t Words(size_t data_bytes) const { return Size((data_bytes + 7) / 8); }
  [[nodiscard]] uint16_t Size(size_t count) const {
    const int size = static_cast<int>(count) + more_;
    return static_cast<uint16_t>(std::max(size, 0));
  }

 private:
  void Pointer(capnp::AnyPointer::Reader in, capnp::AnyPointer::Builder out) const {
    if (in.isNull()) return;
    if (in.isStruct()) {
      const auto from = in.getAs<capnp::AnyStruct>();
      return Struct(from, out.initAsAnyStruct(Words(from.getDataSection().size()),
                                              Size(from.getPointerSection().size())));
    }
    const auto list = in.getAs<capnp::AnyList>();
    if (list.getElementSize() != capnp::ElementSize::INLINE_COMPOSITE) return out.set(in);
    const auto items = list.as<capnp::List<capnp::AnyStruct>>();
    if (items.size() == 0) return out.set(in);
    const auto first = items[0];
    auto target = out.initAsListOfAnyStruct(Words(first.getDataSection().size()),
                                            Size(first.getPointerSection().size()), items.size());
    for (unsigned i = 0; i < items.size(); ++i) Struct(items[i], target[i]);
  }

  int more_;
};

// The frame as the other version would write it. The envelope itself keeps its shape where fields
// are taken away: without its union there would be no message.
Blob Rewritten(const Blob& frame, int more) {
  kj::Array<capnp::word> words = kj::heapArray<capnp::word>(frame.size() / 8);
  std::memcpy(words.asBytes().begin(), frame.data(), frame.size());
  capnp::FlatArrayMessageReader reader(words);
  const auto root = reader.getRoot<capnp::AnyStruct>();
  capnp::MallocMessageBuilder builder;
  const Rewriter rewriter(more);
  const size_t data = root.getDataSection().size();
  const size_t pointers = root.getPointerSection().size();
  auto out = builder.getRoot<capnp::AnyPointer>().initAsAnyStruct(
      more > 0 ? rewriter.Words(data) : static_cast<uint16_t>(data / 8),
      more > 0 ? rewriter.Size(pointers) : static_cast<uint16_t>(pointers));
  rewriter.Struct(root, out);
  return ToBlob(builder);
}

TEST(NewerPeerTest, FieldsWeDoNotKnowChangeNothingInAnyMessage) {
  RandomStream random(41);
  for (int turn = 0; turn < 40; ++turn) {
    for (size_t kind = 0; kind < kMessageKinds; ++kind) {
      const Message message = RandomMessage(random, kind);
      for (const int more : {1, 3}) {
        const Blob frame = Rewritten(EncodeMessage(message), more);
        ASSERT_GT(frame.size(), EncodeMessage(message).size());
        const Result<Message> back = DecodeMessage(frame);
        ASSERT_TRUE(back.ok()) << MessageName(message) << ": " << back.status();
        EXPECT_TRUE(*back == message) << MessageName(message);
      }
    }
  }
}

TEST(NewerPeerTest, WhatWePassOnHasOnlyTheFieldsWeKnow) {
  RandomStream random(42);
  for (size_t kind = 0; kind < kMessageKinds; ++kind) {
    const Blob ours = EncodeMessage(RandomMessage(random, kind));
    const Result<Message> back = DecodeMessage(Rewritten(ours, 2));
    ASSERT_TRUE(back.ok());
    EXPECT_EQ(EncodeMessage(*back).view(), ours.view());
  }
}

TEST(OlderPeerTest, MessagesWithFewerFieldsReadWithDefaultsOrAreRefusedByName) {
  RandomStream random(43);
  int read = 0, refused = 0;
  for (int turn = 0; turn < 40; ++turn) {
    for (size_t kind = 0; kind < kMessageKinds; ++kind) {
      for (const int more : {-1, -2, -20}) {
        const Result<Message> back =
            DecodeMessage(Rewritten(EncodeMessage(RandomMessage(random, kind)), more));
        back.ok() ? ++read : ++refused;
        if (back.ok()) {
          EXPECT_EQ(back->index(), kind) << "it is still that message";
          EXPECT_TRUE(DecodeMessage(EncodeMessage(*back)).ok());
        } else {
          EXPECT_EQ(back.status().code(), Code::kInvalidArgument) << back.status();
          EXPECT_NE(back.status().message().find("[wire] "), std::string::npos) << back.status();
        }
      }
    }
  }
  EXPECT_GT(read, 400);
  EXPECT_GT(refused, 400) << "a digest or a name that is missing must show";
}

// rowOrder was added after the others: a peer that does not know it means what was always done.
TEST(OlderPeerTest, ARoundOfferWithoutARowOrderMeansShuffled) {
  RandomStream random(44);
  auto offer = std::get<RoundOffer>(RandomMessage(random, 7));
  offer.plan.training.row_order = "file";
  capnp::MallocMessageBuilder builder;
  {
    const Blob frame = EncodeMessage(offer);
    kj::Array<capnp::word> words = kj::heapArray<capnp::word>(frame.size() / 8);
    std::memcpy(words.asBytes().begin(), frame.data(), frame.size());
    capnp::FlatArrayMessageReader reader(words);
    builder.setRoot(reader.getRoot<proto::Envelope>());
  }
  auto training =
      builder.getRoot<proto::Envelope>().getBody().getRoundOffer().getPlan().getTraining();
  ASSERT_EQ(training.getRowOrder(), "file");
  training.disownRowOrder();
  const Result<Message> back = DecodeMessage(ToBlob(builder));
  ASSERT_TRUE(back.ok()) << back.status();
  const RoundOffer& read = std::get<RoundOffer>(*back);
  EXPECT_EQ(read.plan.training.row_order, LocalTraining().row_order);
  EXPECT_EQ(read.plan.training.lr, offer.plan.training.lr) << "the others are as sent";
}

// Optional parts of messages, one by one: absent means nothing, not damage.
TEST(OlderPeerTest, AbsentOptionalPartsAreEmpty) {
  const auto decode = [](auto build) {
    capnp::MallocMessageBuilder builder;
    build(builder.initRoot<proto::Envelope>().getBody());
    return DecodeMessage(ToBlob(builder));
  };
  const auto hello = decode([](auto body) { body.initHello(); });
  ASSERT_TRUE(hello.ok()) << hello.status();
  EXPECT_EQ(std::get<Hello>(*hello),
            (Hello{.protocol = 0, .base_hash = {}, .sites = {}, .capabilities = {}}));
  const auto heartbeat = decode([](auto body) { body.initHeartbeat(); });
  ASSERT_TRUE(heartbeat.ok());
  EXPECT_EQ(std::get<Heartbeat>(*heartbeat), Heartbeat{});
  const auto refusal = decode([](auto body) { body.initRefusal(); });
  ASSERT_TRUE(refusal.ok());
  EXPECT_EQ(std::get<Refusal>(*refusal).code, Code::kInternal) << "no code is no permission";
  EXPECT_FALSE(std::get<Refusal>(*refusal).retry);
  const auto verdict = decode([](auto body) { body.initUpdateVerdict(); });
  ASSERT_TRUE(verdict.ok());
  EXPECT_EQ(std::get<UpdateVerdict>(*verdict).code, Code::kInternal)
      << "a verdict without a code must never read as accepted";
  const auto goodbye = decode([](auto body) { body.initGoodbye(); });
  ASSERT_TRUE(goodbye.ok());
  EXPECT_EQ(std::get<Goodbye>(*goodbye).reason, "");
}

TEST(OlderPeerTest, AbsentNecessaryPartsAreNamed) {
  const auto why = [](auto build) {
    capnp::MallocMessageBuilder builder;
    build(builder.initRoot<proto::Envelope>().getBody());
    const Result<Message> message = DecodeMessage(ToBlob(builder));
    EXPECT_EQ(message.status().code(), Code::kInvalidArgument);
    return message.ok() ? std::string("read") : message.status().message();
  };
  const auto expect = [](const std::string& got, const std::string& part) {
    EXPECT_NE(got.find(part), std::string::npos) << got;
  };
  expect(why([](auto body) { body.initUpdateOffer(); }), "update-offer: run: got nothing");
  expect(why([](auto body) { body.initEvalReply(); }), "eval-reply: run: got nothing");
  expect(why([](auto body) { body.initWelcome(); }), "welcome: run: got nothing");
  expect(why([](auto body) { body.initWelcome().setRun("r"); }), "welcome: heartbeat ms: got 0");
  expect(why([](auto body) { body.initRoundOffer(); }), "round-offer: run: got nothing");
  expect(why([](auto body) { body.initEvalRequest().setRun("r"); }),
         "eval-request: payload sha256: wanted 64");
  expect(why([](auto body) { body.initChunkRequest(); }), "chunk-request: sha256: wanted 64");
  expect(why([](auto body) { body.initChunk(); }), "chunk: sha256: wanted 64");
  expect(why([](auto body) {
           auto request = body.initEvalRequest();
           request.setRun("r");
           request.initPayload().setSha256(std::string(64, 'a').c_str());
         }),
         "payload bytes: got 0, wanted at least 1");
}

TEST(NewerPeerTest, AKindWeDoNotKnowIsNeverTakenForDamageWhateverItCarries) {
  for (const uint16_t kind : {uint16_t{17}, uint16_t{18}, uint16_t{255}, uint16_t{65535}}) {
    for (const bool with_contents : {false, true}) {
      capnp::MallocMessageBuilder builder;
      auto envelope = builder.getRoot<capnp::AnyPointer>().initAsAnyStruct(2, 3);
      envelope.getDataSection()[0] = 2;  // protocol
      envelope.getDataSection()[2] = static_cast<kj::byte>(kind);
      envelope.getDataSection()[3] = static_cast<kj::byte>(kind >> 8);
      if (with_contents) {
        auto body = envelope.getPointerSection()[0].initAsAnyStruct(9, 9);
        body.getPointerSection()[3].setAs<capnp::Text>("../../etc");
      }
      const Result<Message> message = DecodeMessage(ToBlob(builder));
      EXPECT_EQ(message.status().code(), Code::kFailedPrecondition) << kind << message.status();
      EXPECT_NE(message.status().message().find(Str("kind ", kind)), std::string::npos);
      EXPECT_NE(message.status().message().find("from a peer of protocol 2"), std::string::npos)
          << message.status();
    }
  }
}

// A kind that holds another kind's contents (a struct with fewer fields, or of other types) is
// judged by what it says it is.
TEST(NewerPeerTest, ContentsOfAnotherKindAreReadAsWhatTheEnvelopeSays) {
  RandomStream random(45);
  int refused = 0;
  for (size_t kind = 0; kind < kMessageKinds; ++kind) {
    const Blob frame = EncodeMessage(RandomMessage(random, kind));
    constexpr size_t kTag = 2 * 8 + 2;
    for (uint8_t other = 1; other <= kMessageKinds; ++other) {
      std::vector<std::byte> bytes(frame.span().begin(), frame.span().end());
      ASSERT_EQ(bytes[kTag], static_cast<std::byte>(kind + 1));
      bytes[kTag] = std::byte{other};
      const Result<Message> message = DecodeMessage(Blob::Adopt(std::move(bytes)));
      if (!message.ok()) {
        ++refused;
        EXPECT_EQ(message.status().code(), Code::kInvalidArgument);
      } else {
        EXPECT_EQ(message->index() + 1, other);
      }
    }
  }
  EXPECT_GT(refused, 60);
}

// ---- tensor blocks ----

// The block with its manifest rewritten; everything behind it moves to the next multiple of 64.
Blob RewrittenBlock(const Blob& block, int more) {
  uint64_t manifest = 0;
  std::memcpy(&manifest, block.data() + 8, 8);
  const Blob wider = Rewritten(Blob::Copy(block.Slice(16, manifest).span()), more);
  const auto aligned = [](size_t size) { return (size + 63) / 64 * 64; };
  std::string out(block.view().substr(0, 8));
  const uint64_t size = wider.size();
  out.append(reinterpret_cast<const char*>(&size), 8);
  out += wider.view();
  out.resize(aligned(out.size()), '\0');
  out += block.view().substr(std::min(aligned(16 + manifest), block.size()));
  return Blob::Adopt(std::move(out));
}

// A block in which every struct's last field is set: a canonical manifest leaves off what is zero
// at a struct's end, and what comes behind would be taken for it.
TensorBlock FullBlock() {
  // Packed, so that every field of a tensor is there.
  const auto tensor = [](std::string name) {
    return BlockTensor{std::move(name), DType::kUInt8, {70}, Blob::Adopt(std::string(60, 't')),
                       std::nullopt,    "some"};
  };
  TensorBlock block;
  BlockSection& section = block.sections.emplace_back();
  section.role = "adapter";
  RandomStream random(46);
  section.spec = RandomSpec(random);
  section.spec.rslora = true;
  section.spec.dropout = 0.5;
  section.spec.layers_to_transform = {3};
  section.spec.rank_pattern = {{"q", 4}};
  section.spec.alpha_pattern = {{"v", 2.5}};
  section.spec.modules_to_save = {"head"};
  section.spec.options = {{"k", "v"}};
  for (const char* path : {"a", "b"}) {
    section.sites.push_back({{path, 7, 10}, {tensor("A"), tensor("B")}});
  }
  section.dense = {tensor("head.weight"), tensor("head.bias")};
  section.delta = true;
  section.codec = "float32";
  return block;
}

TEST(NewerPeerTest, FieldsOfAManifestThatWeDoNotKnowChangeNothing) {
  const Blob ours = EncodeTensorBlock(FullBlock());
  for (const int more : {1, 2, 5}) {
    const Blob theirs = RewrittenBlock(ours, more);
    ASSERT_GT(theirs.size(), ours.size());
    const Result<TensorBlock> back = DecodeTensorBlock(theirs);
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(EncodeTensorBlock(*back).view(), ours.view());
  }
}

TEST(NewerPeerTest, AManifestOfAnotherVersionIsAFailedPreconditionThatNamesBoth) {
  capnp::MallocMessageBuilder builder;
  builder.initRoot<proto::TensorManifest>().setVersion(2);
  const Blob manifest = ToBlob(builder);
  std::string block = "WEFTTB01";
  const uint64_t size = manifest.size();
  block.append(reinterpret_cast<const char*>(&size), 8);
  block += manifest.view();
  block.resize((block.size() + 63) / 64 * 64, '\0');
  const Status status = DecodeTensorBlock(Blob::Adopt(std::move(block))).status();
  EXPECT_EQ(status.code(), Code::kFailedPrecondition);
  EXPECT_NE(status.message().find("got version 2, this program reads version 1"), std::string::npos)
      << status;
}

}  // namespace
}  // namespace weft
