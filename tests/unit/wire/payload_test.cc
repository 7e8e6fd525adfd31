#include "common/wire/payload.h"

#include <gtest/gtest.h>

#include "common/base/limits.h"
#include "common/base/random.h"
#include "common/wire/message_codec.h"

namespace weft {
namespace {

constexpr uint64_t kChunk = limits::kChunkBytes;

Blob RandomPayload(uint64_t bytes, uint64_t seed = 1) {
  RandomStream random(seed);
  std::vector<std::byte> out(bytes);
  for (uint64_t i = 0; i < bytes; i += 61) out[i] = static_cast<std::byte>(random.NextU32());
  return Blob::Adopt(std::move(out));
}

Chunk ChunkOf(const Frames& frames) { return std::get<Chunk>(*DecodeMessage(frames.control)); }

// Both ends joined by a queue, as a loop would join them.
struct Pair {
  explicit Pair(Blob payload_in, PayloadReceiver::Options options = {})
      : payload(std::move(payload_in)),
        sender(OfferOf(payload), payload),
        receiver(sender.offer(), options),
        buffer(PayloadBuffer::Make(payload.size()).value()) {}

  // Asks once and lets the sender fill the wire; false when there was nothing to ask.
  bool Ask() {
    const auto request = receiver.NextRequest();
    if (!request) return false;
    EXPECT_TRUE(sender.Ask(*request).ok());
    EXPECT_TRUE(sender
                    .Pump([this](Frames frames) {
                      wire.push_back(std::move(frames));
                      return OkStatus();
                    })
                    .ok());
    return true;
  }
  Status TakeOne() {
    const Frames frames = wire.front();
    wire.pop_front();
    WEFT_TRY_ASSIGN(const uint64_t offset, receiver.Accept(ChunkOf(frames), frames.chunk));
    buffer.Write(offset, frames.chunk.span());
    return OkStatus();
  }
  void RunToEnd() {
    while (!receiver.complete()) {
      while (Ask()) {
      }
      ASSERT_FALSE(wire.empty());
      ASSERT_TRUE(TakeOne().ok());
    }
  }

  Blob payload;
  PayloadSender sender;
  PayloadReceiver receiver;
  PayloadBuffer buffer;
  std::deque<Frames> wire;
};

TEST(PayloadTest, PayloadsOfAwkwardSizesArriveWhole) {
  for (const uint64_t bytes : {uint64_t{1}, kChunk - 1, kChunk, kChunk + 1, 9 * kChunk + 17}) {
    Pair pair(RandomPayload(bytes));
    pair.RunToEnd();
    EXPECT_TRUE(pair.receiver.Finish().ok());
    EXPECT_EQ(pair.buffer.Share(bytes).view(), pair.payload.view());
  }
}

TEST(PayloadTest, NoMoreThanTheWindowIsEverInFlight) {
  Pair pair(RandomPayload(20 * kChunk), {.window = 3});
  while (!pair.receiver.complete()) {
    while (pair.Ask()) {
    }
    EXPECT_LE(pair.wire.size(), 3u);
    EXPECT_LE(pair.receiver.in_flight(), 3u);
    ASSERT_TRUE(pair.TakeOne().ok());
  }
  EXPECT_TRUE(pair.receiver.Finish().ok());
}

TEST(PayloadTest, ChunksAreSlicesOfThePayloadNotCopies) {
  Pair pair(RandomPayload(3 * kChunk));
  ASSERT_TRUE(pair.Ask());
  ASSERT_GE(pair.wire.size(), 2u);
  EXPECT_EQ(pair.wire[1].chunk.data(), pair.payload.data() + kChunk);
}

TEST(PayloadTest, ALostLinkResumesAtTheFirstMissingChunk) {
  Pair pair(RandomPayload(10 * kChunk + 5));
  ASSERT_TRUE(pair.Ask());
  ASSERT_TRUE(pair.TakeOne().ok());
  ASSERT_TRUE(pair.TakeOne().ok());
  pair.wire.clear();
  pair.sender.Reset();
  pair.receiver.Restart();
  const auto request = pair.receiver.NextRequest();
  ASSERT_TRUE(request);
  EXPECT_EQ(request->first, 2u);
  pair.receiver.Restart();
  pair.RunToEnd();
  EXPECT_TRUE(pair.receiver.Finish().ok());
  EXPECT_EQ(pair.buffer.Share(pair.payload.size()).view(), pair.payload.view());
}

TEST(PayloadTest, ARestartedProcessResumesBehindTheWholeChunksItKept) {
  const Blob payload = RandomPayload(6 * kChunk + 9);
  for (const uint64_t kept :
       {uint64_t{0}, kChunk - 1, 2 * kChunk, 3 * kChunk + 7, payload.size()}) {
    Pair pair(payload);
    pair.receiver.ResumeAfter(kept, payload.Slice(0, kept));
    const uint64_t expected = kept == payload.size() ? kept : kept / kChunk * kChunk;
    EXPECT_EQ(pair.receiver.received_bytes(), expected);
    pair.buffer.Write(0, payload.Slice(0, expected).span());
    pair.RunToEnd();
    EXPECT_TRUE(pair.receiver.Finish().ok()) << kept;
    EXPECT_EQ(pair.buffer.Share(payload.size()).view(), payload.view());
  }
}

TEST(PayloadTest, AChunkThatNoHolderOfTheOfferSendsIsToldFromOneThatComesAtTheWrongTime) {
  Pair pair(RandomPayload(kChunk + 100));
  ASSERT_TRUE(pair.Ask());
  const Chunk first = ChunkOf(pair.wire[0]);
  const Chunk last = ChunkOf(pair.wire[1]);
  const Blob whole = pair.wire[0].chunk;
  EXPECT_TRUE(pair.receiver.CheckFits(first, whole).ok());
  EXPECT_TRUE(pair.receiver.CheckFits(last, whole.Slice(0, 100)).ok()) << "early, no more";
  Chunk alien = first;
  alien.sha256[0] = alien.sha256[0] == 'a' ? 'b' : 'a';
  EXPECT_TRUE(pair.receiver.CheckFits(alien, whole.Slice(0, 7)).ok()) << "of another payload";
  Chunk behind = last;
  behind.index = 2;
  for (const auto& [chunk, size] : {std::pair{first, kChunk - 1},
                                    {last, uint64_t{99}},
                                    {last, uint64_t{101}},
                                    {behind, uint64_t{0}}}) {
    const Status status = pair.receiver.CheckFits(chunk, whole.Slice(0, size));
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << chunk.index << " " << size;
  }
}

TEST(PayloadTest, ReplayedAlienEarlyUnaskedAndMissizedChunksAreRefused) {
  Pair pair(RandomPayload(8 * kChunk));
  const Blob whole = pair.payload.Slice(0, kChunk);
  const Chunk unasked{pair.sender.offer().sha256, 0, 0};
  EXPECT_EQ(pair.receiver.Accept(unasked, whole).status().code(), Code::kInvalidArgument);
  ASSERT_TRUE(pair.Ask());
  const Frames first = pair.wire[0];
  const Frames second = pair.wire[1];
  Chunk alien = ChunkOf(first);
  alien.sha256[0] = alien.sha256[0] == '0' ? '1' : '0';
  EXPECT_EQ(pair.receiver.Accept(alien, first.chunk).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(pair.receiver.Accept(ChunkOf(second), second.chunk).status().code(),
            Code::kInvalidArgument);
  EXPECT_EQ(pair.receiver.Accept(ChunkOf(first), first.chunk.Slice(0, kChunk - 1)).status().code(),
            Code::kInvalidArgument);
  const Blob oversized = pair.payload.Slice(0, kChunk + 1);
  EXPECT_EQ(pair.receiver.Accept(ChunkOf(first), oversized).status().code(),
            Code::kInvalidArgument);
  ASSERT_TRUE(pair.TakeOne().ok());
  const Status replay = pair.receiver.Accept(ChunkOf(first), first.chunk).status();
  EXPECT_EQ(replay.code(), Code::kInvalidArgument);
  EXPECT_NE(replay.message().find("here already"), std::string::npos);
}

TEST(PayloadTest, ADamagedChunkIsDataLossAndCanBeAskedForAgain) {
  Pair pair(RandomPayload(2 * kChunk));
  ASSERT_TRUE(pair.Ask());
  std::vector<std::byte> damaged(pair.wire[0].chunk.span().begin(),
                                 pair.wire[0].chunk.span().end());
  damaged[100] ^= std::byte{4};
  const Status status =
      pair.receiver.Accept(ChunkOf(pair.wire[0]), Blob::Adopt(std::move(damaged))).status();
  EXPECT_EQ(status.code(), Code::kDataLoss);
  pair.wire.clear();
  pair.receiver.Restart();
  pair.RunToEnd();
  EXPECT_TRUE(pair.receiver.Finish().ok());
}

TEST(PayloadTest, APayloadThatIsNotWhatWasOfferedFailsAtTheEnd) {
  const Blob offered = RandomPayload(2 * kChunk, 1);
  const Blob other = RandomPayload(2 * kChunk, 2);
  PayloadSender liar(OfferOf(offered), other);
  PayloadReceiver receiver(OfferOf(offered), {});
  ASSERT_TRUE(liar.Ask(receiver.NextRequest().value()).ok());
  ASSERT_TRUE(liar.Pump([&](Frames frames) {
                    return receiver.Accept(ChunkOf(frames), frames.chunk).status();
                  })
                  .ok());
  EXPECT_TRUE(receiver.complete());
  EXPECT_EQ(receiver.Finish().code(), Code::kDataLoss);
  PayloadReceiver early(OfferOf(offered), {});
  EXPECT_EQ(early.Finish().code(), Code::kDataLoss);
}

TEST(PayloadTest, TheSenderRefusesRequestsThatNoReceiverOfOursMakes) {
  const Blob payload = RandomPayload(40 * kChunk);
  PayloadSender sender(OfferOf(payload), payload);
  const std::string name = sender.offer().sha256;
  EXPECT_FALSE(sender.Ask({std::string(64, 'a'), 0, 1}).ok());
  EXPECT_FALSE(sender.Ask({name, 0, 0}).ok());
  EXPECT_FALSE(sender.Ask({name, 40, 1}).ok());
  EXPECT_FALSE(sender.Ask({name, 39, 2}).ok());
  EXPECT_FALSE(sender.Ask({name, ~uint64_t{0}, 1}).ok());
  EXPECT_FALSE(sender.Ask({name, 0, limits::kChunksInFlightMax + 1}).ok());
  EXPECT_TRUE(sender.Ask({name, 0, limits::kChunksInFlightMax}).ok());
  EXPECT_FALSE(sender.Ask({name, 0, 1}).ok()) << "a flood of requests makes no queue";
}

TEST(PayloadTest, AFullLinkKeepsWhatWasAskedAndAnotherFailureForgetsIt) {
  const Blob payload = RandomPayload(4 * kChunk);
  PayloadSender sender(OfferOf(payload), payload);
  ASSERT_TRUE(sender.Ask({sender.offer().sha256, 0, 4}).ok());
  std::vector<uint64_t> sent;
  const auto send_two = [&](Frames frames) {
    if (sent.size() == 2) return ResourceExhausted("full");
    sent.push_back(ChunkOf(frames).index);
    return OkStatus();
  };
  EXPECT_TRUE(sender.Pump(send_two).ok());
  EXPECT_FALSE(sender.idle());
  EXPECT_TRUE(sender
                  .Pump([&](Frames frames) {
                    sent.push_back(ChunkOf(frames).index);
                    return OkStatus();
                  })
                  .ok());
  EXPECT_EQ(sent, (std::vector<uint64_t>{0, 1, 2, 3}));
  EXPECT_TRUE(sender.idle());
  ASSERT_TRUE(sender.Ask({sender.offer().sha256, 0, 1}).ok());
  EXPECT_EQ(sender.Pump([](Frames) { return Unavailable("gone"); }).code(), Code::kUnavailable);
  EXPECT_TRUE(sender.idle());
}

TEST(PayloadTest, MemoryThatDoesNotExistIsAStatusNotACrash) {
  EXPECT_EQ(PayloadBuffer::Make(uint64_t{1} << 60).status().code(), Code::kResourceExhausted);
}

}  // namespace
}  // namespace weft
