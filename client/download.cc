#include "client/download.h"

#include <utility>

#include "common/base/limits.h"
#include "common/base/str.h"

namespace weft {

void Download::Start(const PayloadOffer& offer, Done done) {
  Stop();
  done_ = std::move(done);
  if (offer.bytes == 0 || offer.bytes > limits::kPayloadBytesMax) {
    return Finish(ResourceExhausted(Str("[download] got an offer of ", offer.bytes,
                                        " bytes, wanted 1 to ", limits::kPayloadBytesMax)));
  }
  receiver_.emplace(offer, PayloadReceiver::Options{});
  renewed_ = false;
  patience_.Begin(context_.env.clock.Now());
  Ask();
}

void Download::Stop() {
  receiver_.reset();
  buffer_.reset();
  done_ = nullptr;
}

bool Download::Pulls(const std::string& sha256) const {
  return receiver_ && receiver_->offer().sha256 == sha256;
}

void Download::Ask() {
  if (!context_.joined) return;
  if (const auto request = receiver_->NextRequest()) context_.Send(*request);
}

void Download::OnChunk(const Chunk& chunk, const Blob& bytes) {
  if (!Pulls(chunk.sha256)) return;  // of a transfer that was given up
  const Result<uint64_t> offset = receiver_->Accept(chunk, bytes);
  if (!offset.ok()) {
    context_.env.log.Debug("chunk not taken", {{"why", offset.status()}});
    if (offset.status().code() == Code::kDataLoss) {
      receiver_->Restart();
      patience_.Damaged(context_.env.clock.Now());
    }
    return;
  }
  patience_.Came(context_.env.clock.Now());
  if (!buffer_) {
    Result<PayloadBuffer> buffer = PayloadBuffer::Make(receiver_->offer().bytes);
    if (!buffer.ok()) return Finish(buffer.status());
    buffer_.emplace(std::move(*buffer));
  }
  buffer_->Write(*offset, bytes.span());
  if (!receiver_->complete()) return Ask();
  if (const Status whole = receiver_->Finish(); !whole.ok()) return Finish(whole);
  Finish(buffer_->Share(receiver_->offer().bytes));
}

void Download::AskAgain() {
  if (!receiver_) return;
  renewed_ = true;
  patience_.Begin(context_.env.clock.Now());
  receiver_->Restart();
  Ask();
}

void Download::OfferedAgain() {
  if (!receiver_ || !std::exchange(renewed_, false)) return;
  receiver_->Restart();
  Ask();
}

void Download::Tick() {
  if (!receiver_ || !patience_.Over(context_.env.clock.Now())) return;
  receiver_->Restart();
  Ask();
}

void Download::Finish(Result<Blob> result) {
  Done done = std::move(done_);
  Stop();
  done(std::move(result));
}

}  // namespace weft
