#include "common/wire/message_codec.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>

#include <capnp/serialize.h>
#include <gtest/gtest.h>
#include <protocols/weft.capnp.h>

#include "common/base/limits.h"
#include "tests/unit/wire/random_messages.h"

namespace weft {
namespace {

Blob ToBlob(capnp::MessageBuilder& builder) {
  const kj::Array<capnp::word> words = capnp::messageToFlatArray(builder);
  const auto bytes = words.asBytes();
  return Blob::Copy(std::as_bytes(std::span(bytes.begin(), bytes.size())));
}

// What the decoder said of a message some other implementation might have sent.
template <typename Build>
Status Verdict(Build build) {
  capnp::MallocMessageBuilder builder;
  build(builder.initRoot<proto::Envelope>());
  return DecodeMessage(ToBlob(builder)).status();
}

std::vector<std::byte> Bytes(const Blob& blob) { return {blob.data(), blob.data() + blob.size()}; }

TEST(MessageCodecTest, EveryMessageWithRandomContentsComesBackEqual) {
  RandomStream random(11);
  for (int turn = 0; turn < 200; ++turn) {
    for (size_t kind = 0; kind < kMessageKinds; ++kind) {
      const Message message = RandomMessage(random, kind);
      ASSERT_EQ(message.index(), kind);
      const Result<Message> back = DecodeMessage(EncodeMessage(message));
      ASSERT_TRUE(back.ok()) << MessageName(message) << ": " << back.status();
      EXPECT_TRUE(*back == message) << MessageName(message);
    }
  }
}

TEST(MessageCodecTest, TheSameMessageGivesTheSameBytes) {
  for (size_t kind = 0; kind < kMessageKinds; ++kind) {
    RandomStream once(kind), again(kind);
    const Blob a = EncodeMessage(RandomMessage(once, kind));
    const Blob b = EncodeMessage(RandomMessage(again, kind));
    EXPECT_EQ(a.view(), b.view());
  }
}

TEST(MessageCodecTest, FramesThatAreNotAlignedDecodeToo) {
  RandomStream random(12);
  const Message message = RandomMessage(random, 0);
  const Blob frame = EncodeMessage(message);
  for (size_t shift = 1; shift < 8; ++shift) {
    std::vector<std::byte> padded(shift);
    padded.insert(padded.end(), frame.span().begin(), frame.span().end());
    const Blob moved = Blob::Adopt(std::move(padded));
    const Result<Message> back = DecodeMessage(moved.Slice(shift, frame.size()));
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_TRUE(*back == message);
  }
}

TEST(MessageCodecTest, AMessageCutAtAnyByteIsRefused) {
  RandomStream random(13);
  for (size_t kind = 0; kind < kMessageKinds; ++kind) {
    const Blob whole = EncodeMessage(RandomMessage(random, kind));
    for (size_t length = 0; length < whole.size(); ++length) {
      const Result<Message> back = DecodeMessage(whole.Slice(0, length));
      ASSERT_FALSE(back.ok()) << "kind " << kind << " cut at " << length << " of " << whole.size();
      EXPECT_EQ(back.status().code(), Code::kInvalidArgument);
    }
  }
}

TEST(MessageCodecTest, MutatedMessagesAreRefusedOrDecodeToSomethingThatEncodes) {
  RandomStream random(14);
  int refused = 0;
  for (int turn = 0; turn < 20000; ++turn) {
    std::vector<std::byte> bytes =
        Bytes(EncodeMessage(RandomMessage(random, random.Below(kMessageKinds))));
    const uint64_t changes = 1 + random.Below(8);
    for (uint64_t i = 0; i < changes; ++i) {
      bytes[random.Below(bytes.size())] = static_cast<std::byte>(random.Below(256));
    }
    const Result<Message> back = DecodeMessage(Blob::Adopt(std::move(bytes)));
    if (!back.ok()) {
      ++refused;
      EXPECT_FALSE(back.status().message().empty());
      continue;
    }
    EXPECT_TRUE(DecodeMessage(EncodeMessage(*back)).ok());
  }
  EXPECT_GT(refused, 1000);
}

TEST(MessageCodecTest, AKindFromTheFutureIsAFailedPreconditionNotAMalformedMessage) {
  capnp::MallocMessageBuilder builder;
  auto envelope = builder.initRoot<proto::Envelope>();
  envelope.setProtocol(7);
  envelope.getBody().initGoodbye();
  std::vector<std::byte> bytes = Bytes(ToBlob(builder));
  // Root struct: words 0 segment table, 1 root pointer, 2 data section: protocol (bytes 0, 1),
  // union tag (bytes 2, 3).
  constexpr size_t kTag = 2 * 8 + 2;
  ASSERT_EQ(bytes[kTag], std::byte{15});
  bytes[kTag] = std::byte{200};
  const Status status = DecodeMessage(Blob::Adopt(std::move(bytes))).status();
  EXPECT_EQ(status.code(), Code::kFailedPrecondition);
  EXPECT_NE(status.message().find("kind 200 from a peer of protocol 7"), std::string::npos)
      << status;
}

TEST(MessageCodecTest, AHelloOfALaterProtocolCanStillBeReadAndRefused) {
  Hello hello;
  hello.protocol = 99;
  const Result<Message> back = DecodeMessage(EncodeMessage(hello));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(std::get<Hello>(*back).protocol, 99);
}

TEST(MessageCodecTest, AnEmptyEnvelopeIsRefused) {
  EXPECT_EQ(Verdict([](auto) {}).code(), Code::kInvalidArgument);
}

TEST(MessageCodecTest, AListThatClaimsHalfABillionElementsCostsNothing) {
  // A list of elements of no size: eight bytes on the wire claim 2^29−1 of them.
  capnp::MallocMessageBuilder builder;
  builder.initRoot<proto::Envelope>().getBody().initHello().initSites(0);
  std::vector<std::byte> bytes = Bytes(ToBlob(builder));
  for (size_t at = 8; at + 8 <= bytes.size(); at += 8) {
    std::vector<std::byte> hostile = bytes;
    const uint64_t pointer = uint64_t{1} | (uint64_t{(1u << 29) - 1} << 35);
    for (size_t i = 0; i < 8; ++i) hostile[at + i] = static_cast<std::byte>(pointer >> (8 * i));
    const auto start = std::chrono::steady_clock::now();
    (void)DecodeMessage(Blob::Adopt(std::move(hostile))).ok();
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(1));
  }
}

TEST(MessageCodecTest, AFrameOverTheLimitIsRefusedUnread) {
  Hello hello;
  for (int i = 0; i < 2000; ++i) {
    hello.sites.push_back({.path = std::string(limits::kNameBytesMax, 'p'), .in = 1, .out = 1});
  }
  const Blob large = EncodeMessage(hello);
  EXPECT_GT(large.size(), limits::kControlBytesMax);
  const Status status = DecodeMessage(large).status();
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_NE(status.message().find("wanted at most 262144"), std::string::npos) << status;
}

// A round offer of `clients` cohort entries that all point at the first one's name and adapter of
// `layers` numbers.
Blob SharedAdapterOffer(unsigned clients, unsigned layers) {
  capnp::MallocMessageBuilder builder(1 << 16);
  auto plan = builder.initRoot<proto::Envelope>().getBody().initRoundOffer().initPlan();
  plan.setRun("r");
  plan.initTraining().setBatchSize(1);
  auto cohort = plan.initCohort(clients);
  cohort[0].setClient("c");
  cohort[0].initAdapter().setMethod("lora");
  cohort[0].getAdapter().initLayersToTransform(layers);
  const kj::Array<capnp::word> words = capnp::messageToFlatArray(builder);
  std::vector<uint64_t> raw(words.size());
  std::memcpy(raw.data(), words.begin(), raw.size() * 8);
  // The list's tag: `clients` elements of one word of data and two pointers.
  const uint64_t tag_word = (uint64_t{clients} << 2) | (uint64_t{1} << 32) | (uint64_t{2} << 48);
  const auto tag = static_cast<size_t>(std::find(raw.begin(), raw.end(), tag_word) - raw.begin());
  for (size_t field = 0; field < 2; ++field) {
    const size_t first = tag + 1 + 1 + field;
    const auto low = static_cast<uint32_t>(raw.at(first));
    const int64_t target = static_cast<int64_t>(first) + 1 + (static_cast<int32_t>(low) >> 2);
    for (size_t i = 1; i < clients; ++i) {
      const size_t at = first + 3 * i;
      const int64_t offset = target - static_cast<int64_t>(at) - 1;
      const uint32_t pointer = (static_cast<uint32_t>(offset) << 2) | (low & 3);
      raw.at(at) = (raw[first] & ~uint64_t{0xffffffff}) | pointer;
    }
  }
  return Blob::Copy(std::as_bytes(std::span(raw)));
}

TEST(MessageCodecTest, AnAdapterSharedByManyPointersEndsAtTheTraversalLimit) {
  // 2 MB of reading are allowed: 10 × 1000 numbers pass (and show that the surgery is right), 2000
  // × 10000 do not.
  const auto digest_only = DecodeMessage(SharedAdapterOffer(10, 1000)).status();
  EXPECT_NE(digest_only.message().find("payload sha256"), std::string::npos) << digest_only;
  const Blob hostile = SharedAdapterOffer(2000, 10000);
  EXPECT_LT(hostile.size(), limits::kControlBytesMax);
  const Status status = DecodeMessage(hostile).status();
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_NE(status.message().find("limit"), std::string::npos) << status;
}

TEST(MessageCodecTest, TextsListsAndNumbersOverTheirLimitAreRefusedByName) {
  const auto expect = [](const Status& status, const char* words) {
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    EXPECT_NE(status.message().find(words), std::string::npos) << status;
  };
  expect(Verdict([](auto e) {
           e.getBody().initRunEnded().setState(std::string(limits::kNameBytesMax + 1, 'x').c_str());
         }),
         "run-ended: state: got 257 bytes");
  expect(
      Verdict([](auto e) { e.getBody().initGoodbye().setReason(std::string(65536, 'x').c_str()); }),
      "goodbye: reason: got 65536 bytes");
  expect(Verdict([](auto e) {
           e.getBody().initHello().initCapabilities().initMethods(limits::kOptionsMax + 1);
         }),
         "hello: methods: got 65 elements");
  expect(Verdict([](auto e) {
           auto site = e.getBody().initHello().initSites(1)[0];
           site.setPath("a");
           site.setIn(-1);
           site.setOut(4);
         }),
         "hello: site in: got -1");
  expect(Verdict([](auto e) { e.getBody().initChunkRequest().setSha256("../../etc/passwd"); }),
         "chunk-request: sha256: wanted 64");
  expect(Verdict([](auto e) {
           e.getBody().initHeartbeat().setProgress(std::numeric_limits<float>::quiet_NaN());
         }),
         "heartbeat: progress: got NaN");
}

TEST(MessageCodecTest, NamesThatClimbOrCarryControlCharactersAreRefused) {
  for (const std::string_view name : {"", ".", "..", "a/b", "a\\b", "a\nb", "\x1b[31m", "\xff\xfe",
                                      "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80"}) {
    const Status status = Verdict([&](auto e) {
      auto report = e.getBody().initEvalReply();
      report.setRun(capnp::Text::Reader(std::string(name).c_str()));
      report.setClient("c");
    });
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << name;
  }
  EXPECT_TRUE(Verdict([](auto e) {
                auto report = e.getBody().initEvalReply();
                report.setRun("läuft-漢字-🙂");
                report.setClient("c");
              }).ok());
}

TEST(MessageCodecTest, ANameWithANulByteIsSentWholeAndRefused) {
  EvalReply reply;
  reply.report.run.name = std::string("a\0b", 3);
  reply.report.client.name = "c";
  EXPECT_EQ(DecodeMessage(EncodeMessage(reply)).status().code(), Code::kInvalidArgument);
}

TEST(MessageCodecTest, ReasonsAreCutAndCleanedRatherThanLost) {
  const Result<Message> cut = DecodeMessage(EncodeMessage(Goodbye{std::string(9000, 'y') + "é"}));
  ASSERT_TRUE(cut.ok()) << cut.status();
  EXPECT_EQ(std::get<Goodbye>(*cut).reason.size(), limits::kTextBytesMax);
  std::string accents;
  for (int i = 0; i < 5000; ++i) accents += "é";
  const Result<Message> whole_letters = DecodeMessage(EncodeMessage(Goodbye{"x" + accents}));
  ASSERT_TRUE(whole_letters.ok());
  EXPECT_EQ(std::get<Goodbye>(*whole_letters).reason.find('?'), std::string::npos);
  const Result<Message> cleaned = DecodeMessage(EncodeMessage(Goodbye{"line\n\x1b[31mred \xff"}));
  ASSERT_TRUE(cleaned.ok());
  EXPECT_EQ(std::get<Goodbye>(*cleaned).reason, "line\n?[31mred ?");
}

TEST(MessageCodecTest, AnUpdateOfferWhoseHeaderNamesAnotherPayloadIsRefused) {
  RandomStream random(15);
  auto offer = std::get<UpdateOffer>(RandomMessage(random, 2));
  ++offer.payload.bytes;
  EXPECT_EQ(DecodeMessage(EncodeMessage(offer)).status().code(), Code::kInvalidArgument);
}

TEST(MessageCodecTest, ACodeThatThisVersionDoesNotKnowReadsAsInternal) {
  capnp::MallocMessageBuilder builder;
  builder.initRoot<proto::Envelope>().getBody().initRefusal().setCode("gone-fishing");
  const Result<Message> back = DecodeMessage(ToBlob(builder));
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(std::get<Refusal>(*back).code, Code::kInternal);
}

}  // namespace
}  // namespace weft
