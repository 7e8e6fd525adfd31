#pragma once
// FaultyLink: one payload on its way over a link on which anything happens: chunks are lost,
// doubled, overtaken, cut, damaged, the link breaks. It checks all the while that no more than the
// window is under way and that what was taken is the payload's beginning.

#include <deque>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/wire/message_codec.h"
#include "common/wire/payload.h"

namespace weft {

class FaultyLink {
 public:
  FaultyLink(Blob payload, uint32_t window)
      : payload_(std::move(payload)),
        sender_(OfferOf(payload_), payload_),
        receiver_(sender_.offer(), {.window = window, .verify_digest = true}),
        window_(window) {}

  /// One happening; any byte is one.
  void Happen(uint8_t what) {
    const uint8_t more = what / 8;
    if (what % 8 == 0) Ask();
    if (what % 8 == 1) Pump(more);
    if (what % 8 == 2) Take();
    if (wire_.empty()) return;
    const size_t place = more % wire_.size();
    Frames& frames = wire_[place];
    if (what % 8 == 3) wire_.erase(wire_.begin() + static_cast<std::ptrdiff_t>(place));
    if (what % 8 == 4) wire_.push_back(Frames(frames));
    if (what % 8 == 5) std::swap(wire_.front(), frames);
    if (what % 8 == 6) Damage(frames, more);
    if (what % 8 == 7) Break();
  }

  /// From now on the link is good: the payload must arrive whole.
  void Finish() {
    Break();
    while (!receiver_.complete()) {
      Ask();
      Pump(limits::kChunksInFlightMax);
      WEFT_CHECK(!wire_.empty(), "nothing comes any more");
      Take();
    }
    WEFT_CHECK(receiver_.Finish().ok() && taken_ == payload_.size());
  }

  [[nodiscard]] uint64_t taken() const { return taken_; }
  [[nodiscard]] uint64_t refused() const { return refused_; }

 private:
  void Ask() {
    const auto request = receiver_.NextRequest();
    WEFT_CHECK(receiver_.in_flight() <= window_, receiver_.in_flight());
    // Where answers were lost the sender may still owe a part of an earlier request.
    if (request) (void)sender_.Ask(*request).ok();
  }
  void Pump(size_t most) {
    (void)sender_.Pump([&](Frames frames) {
      if (wire_.size() >= most) return ResourceExhausted("full");
      wire_.push_back(std::move(frames));
      return OkStatus();
    });
  }
  void Take() {
    if (wire_.empty()) return;
    const Frames frames = std::move(wire_.front());
    wire_.pop_front();
    const auto chunk = std::get<Chunk>(*DecodeMessage(frames.control));
    const Result<uint64_t> offset = receiver_.Accept(chunk, frames.chunk);
    if (offset.ok()) {
      WEFT_CHECK(*offset == taken_ && *offset == chunk.index * limits::kChunkBytes, *offset);
      WEFT_CHECK(payload_.view().substr(taken_, frames.chunk.size()) == frames.chunk.view());
      taken_ += frames.chunk.size();
    }
    refused_ += offset.ok() ? 0 : 1;
    WEFT_CHECK(receiver_.received_bytes() == taken_ && taken_ <= payload_.size());
  }
  static void Damage(Frames& frames, uint8_t how) {
    std::vector<std::byte> bytes(frames.chunk.span().begin(), frames.chunk.span().end());
    if (how % 2 == 0) bytes.resize(bytes.size() / 2);
    if (how % 2 == 1 && !bytes.empty()) bytes[how % bytes.size()] ^= std::byte{1};
    frames.chunk = Blob::Adopt(std::move(bytes));
  }
  void Break() {
    wire_.clear();
    sender_.Reset();
    receiver_.Restart();
  }

  Blob payload_;
  PayloadSender sender_;
  PayloadReceiver receiver_;
  uint32_t window_;
  std::deque<Frames> wire_;
  uint64_t taken_ = 0;
  uint64_t refused_ = 0;
};

}  // namespace weft
