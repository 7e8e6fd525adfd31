// Payloads over links that lose, double, overtake, cut and damage (faulty_link.h): no sequence of
// happenings leaves a transfer that cannot be finished, or bytes that are not the payload's.

#include <algorithm>

#include <gtest/gtest.h>

#include "common/base/random.h"
#include "tests/unit/wire/faulty_link.h"

namespace weft {
namespace {

constexpr uint64_t kChunk = limits::kChunkBytes;

Blob RandomPayload(RandomStream& random, uint64_t bytes) {
  std::string out(bytes, '\0');
  for (uint64_t i = 0; i < bytes; i += 97) out[i] = static_cast<char>(random.NextU32());
  return Blob::Adopt(std::move(out));
}

class FaultyLinkTest : public ::testing::TestWithParam<uint32_t> {};

TEST_P(FaultyLinkTest, WhateverHappensThePayloadArrivesWholeInTheEnd) {
  RandomStream random(GetParam());
  uint64_t taken = 0, refused = 0;
  for (int turn = 0; turn < 12; ++turn) {
    const uint64_t sizes[] = {1, kChunk - 1, kChunk, kChunk + 1, 7 * kChunk + 13};
    FaultyLink link(RandomPayload(random, sizes[random.Below(5)]), GetParam());
    for (int i = 0; i < 120; ++i)
      ASSERT_NO_THROW(link.Happen(static_cast<uint8_t>(random.Below(256))));
    taken += link.taken();
    ASSERT_NO_THROW(link.Finish());
    refused += link.refused();
  }
  EXPECT_GT(taken, 0u) << "some of it arrived in spite of everything";
  EXPECT_GT(refused, 0u) << "and some was refused";
}

INSTANTIATE_TEST_SUITE_P(Windows, FaultyLinkTest, ::testing::Values(1u, 2u, 3u, 4u, 7u, 16u));

TEST(PayloadReceiverTest, ARequestNeverCrossesTheEndOrTheWindow) {
  for (uint32_t window = 1; window <= limits::kChunksInFlightMax; ++window) {
    for (const uint64_t chunks :
         {uint64_t{1}, uint64_t{2}, uint64_t{15}, uint64_t{16}, uint64_t{40}}) {
      PayloadReceiver receiver({std::string(64, 'a'), chunks * kChunk - 5}, {.window = window});
      uint64_t asked = 0;
      while (const auto request = receiver.NextRequest()) {
        EXPECT_EQ(request->first, asked) << "no hole, nothing twice";
        EXPECT_GT(request->count, 0u);
        EXPECT_LE(request->count, limits::kChunksInFlightMax);
        asked += request->count;
      }
      EXPECT_EQ(asked, std::min<uint64_t>(window, chunks));
      EXPECT_EQ(receiver.in_flight(), asked);
    }
  }
}

TEST(PayloadReceiverTest, APayloadOfNothingIsCompleteAtOnce) {
  PayloadReceiver receiver(OfferOf(Blob()), {});
  EXPECT_TRUE(receiver.complete());
  EXPECT_EQ(receiver.NextRequest(), std::nullopt);
  EXPECT_TRUE(receiver.Finish().ok());
}

TEST(PayloadReceiverTest, WindowsBeyondTheLimitAndLateResumesAreBugs) {
  const PayloadOffer offer{std::string(64, 'a'), 10 * kChunk};
  EXPECT_THROW(PayloadReceiver(offer, {.window = 0}), CheckFailure);
  EXPECT_THROW(PayloadReceiver(offer, {.window = limits::kChunksInFlightMax + 1}), CheckFailure);
  PayloadReceiver begun(offer, {});
  ASSERT_TRUE(begun.NextRequest());
  EXPECT_THROW(begun.ResumeAfter(kChunk, Blob()), CheckFailure);
  PayloadReceiver without_bytes(offer, {});
  EXPECT_THROW(without_bytes.ResumeAfter(kChunk, Blob()), CheckFailure) << "its digest needs them";
  PayloadReceiver stored(offer, {.verify_digest = false});
  stored.ResumeAfter(3 * kChunk + 7, Blob());
  EXPECT_EQ(stored.received_bytes(), 3 * kChunk);
  EXPECT_EQ(stored.NextRequest()->first, 3u);
}

TEST(PayloadReceiverTest, WithoutVerifyingOnlyTheSizeIsChecked) {
  const Blob payload = Blob::Adopt(std::string(kChunk + 1, 'p'));
  PayloadOffer lie = OfferOf(payload);
  lie.sha256[5] = lie.sha256[5] == '0' ? '1' : '0';
  PayloadSender sender(lie, payload);
  PayloadReceiver receiver(lie, {.verify_digest = false});
  EXPECT_EQ(receiver.Finish().code(), Code::kDataLoss) << "nothing is here yet";
  ASSERT_TRUE(sender.Ask(*receiver.NextRequest()).ok());
  ASSERT_TRUE(sender
                  .Pump([&](Frames frames) {
                    return receiver
                        .Accept(std::get<Chunk>(*DecodeMessage(frames.control)), frames.chunk)
                        .status();
                  })
                  .ok());
  EXPECT_TRUE(receiver.Finish().ok()) << "the store that keeps the bytes looks at the digest";
}

TEST(PayloadSenderTest, AnOfferOfOtherBytesIsABug) {
  EXPECT_THROW(PayloadSender({std::string(64, 'a'), 5}, Blob::Copy(std::string_view("four"))),
               CheckFailure);
}

TEST(PayloadSenderTest, OverlappingRequestsAreServedInTheOrderAsked) {
  const Blob payload = Blob::Adopt(std::string(6 * kChunk, 'o'));
  PayloadSender sender(OfferOf(payload), payload);
  const std::string name = sender.offer().sha256;
  ASSERT_TRUE(sender.Ask({name, 4, 2}).ok());
  ASSERT_TRUE(sender.Ask({name, 0, 3}).ok());
  std::vector<uint64_t> order;
  ASSERT_TRUE(sender
                  .Pump([&](Frames frames) {
                    order.push_back(std::get<Chunk>(*DecodeMessage(frames.control)).index);
                    return OkStatus();
                  })
                  .ok());
  EXPECT_EQ(order, (std::vector<uint64_t>{4, 5, 0, 1, 2}));
}

TEST(PayloadBufferTest, BytesLieWhereTheyWereWrittenAndSharedOnesStay) {
  auto buffer = PayloadBuffer::Make(10);
  ASSERT_TRUE(buffer.ok());
  buffer->Write(0, AsBytes("abcde"));
  const Blob first = buffer->Share(5);
  buffer->Write(5, AsBytes("fghij"));
  EXPECT_EQ(first.view(), "abcde");
  EXPECT_EQ(buffer->Share(10).view(), "abcdefghij");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->Share(10).data()) % 64, 0u);
  buffer->Write(10, {});
  EXPECT_THROW(buffer->Write(10, AsBytes("x")), CheckFailure);
  EXPECT_THROW(buffer->Write(~uint64_t{0}, AsBytes("xx")), CheckFailure);
  EXPECT_THROW((void)buffer->Share(11), CheckFailure);
  Blob outlives;
  {
    auto other = PayloadBuffer::Make(3);
    other->Write(0, AsBytes("xyz"));
    outlives = other->Share(3);
  }
  EXPECT_EQ(outlives.view(), "xyz");
}

}  // namespace
}  // namespace weft
