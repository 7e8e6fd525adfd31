#include "common/wire/payload.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/crypto/checksum.h"
#include "common/wire/message_codec.h"

namespace weft {
namespace {

constexpr uint64_t kChunk = limits::kChunkBytes;
constexpr size_t kAlignment = 64;

std::string ShortName(const std::string& sha256) { return sha256.substr(0, 12); }

uint64_t ChunkSize(uint64_t payload_bytes, uint64_t index) {
  return std::min(kChunk, payload_bytes - index * kChunk);
}

}  // namespace

uint64_t ChunkCount(uint64_t payload_bytes) { return (payload_bytes + kChunk - 1) / kChunk; }

PayloadOffer OfferOf(const Blob& payload) { return {Sha256Hex(payload.span()), payload.size()}; }

// ---- sender ----

PayloadSender::PayloadSender(PayloadOffer offer, Blob payload)
    : offer_(std::move(offer)), payload_(std::move(payload)) {
  WEFT_CHECK(offer_.bytes == payload_.size(), offer_.bytes, " offered, ", payload_.size(),
             " at hand");
}

Status PayloadSender::Ask(const ChunkRequest& request) {
  const uint64_t chunks = ChunkCount(offer_.bytes);
  if (request.sha256 != offer_.sha256) {
    return InvalidArgument(Str("[payload] asked for chunks of ", ShortName(request.sha256),
                               ", on offer is ", ShortName(offer_.sha256)));
  }
  if (request.count == 0 || request.count > limits::kChunksInFlightMax || request.first >= chunks ||
      request.count > chunks - request.first) {
    return InvalidArgument(Str("[payload] ", ShortName(offer_.sha256), ": asked for ",
                               request.count, " chunks from ", request.first, ", it has ", chunks,
                               " and one request gets at most ", limits::kChunksInFlightMax));
  }
  uint64_t waiting = request.count;
  for (const Range& range : asked_) waiting += range.end - range.next;
  if (waiting > limits::kChunksInFlightMax) {
    return InvalidArgument(Str("[payload] ", ShortName(offer_.sha256), ": ", waiting,
                               " chunks asked for at once, wanted at most ",
                               limits::kChunksInFlightMax));
  }
  asked_.push_back({request.first, request.first + request.count});
  return OkStatus();
}

Frames PayloadSender::MakeChunk(uint64_t index) const {
  Blob bytes = payload_.Slice(index * kChunk, ChunkSize(offer_.bytes, index));
  const uint64_t checksum = Xxh3(bytes.span());
  return {EncodeMessage(Chunk{.sha256 = offer_.sha256, .index = index, .xxh3 = checksum}),
          std::move(bytes)};
}

Status PayloadSender::Pump(const std::function<Status(Frames)>& send) {
  while (!asked_.empty()) {
    Range& range = asked_.front();
    const Status sent = send(MakeChunk(range.next));
    if (sent.code() == Code::kResourceExhausted) return OkStatus();
    if (!sent.ok()) {
      asked_.clear();
      return sent;
    }
    if (++range.next == range.end) asked_.pop_front();
  }
  return OkStatus();
}

// ---- receiver ----

PayloadReceiver::PayloadReceiver(PayloadOffer offer, Options options)
    : offer_(std::move(offer)), options_(options), chunks_(ChunkCount(offer_.bytes)) {
  WEFT_CHECK(options_.window > 0 && options_.window <= limits::kChunksInFlightMax, options_.window);
}

void PayloadReceiver::ResumeAfter(uint64_t bytes, const Blob& kept) {
  WEFT_CHECK(asked_ == 0 && next_ == 0, "a transfer that has begun is not resumed");
  WEFT_CHECK(!options_.verify_digest || kept.size() >= bytes, kept.size(), " kept of ", bytes);
  next_ = bytes >= offer_.bytes ? chunks_ : bytes / kChunk;
  asked_ = next_;
  received_bytes_ = std::min(next_ * kChunk, offer_.bytes);
  if (options_.verify_digest) digest_.Update(kept.Slice(0, received_bytes_).span());
}

std::optional<ChunkRequest> PayloadReceiver::NextRequest() {
  const uint32_t refill_at = options_.window / 2;
  if (asked_ == chunks_ || in_flight() > refill_at) return std::nullopt;
  const uint64_t count = std::min<uint64_t>(options_.window - in_flight(), chunks_ - asked_);
  const ChunkRequest request{
      .sha256 = offer_.sha256, .first = asked_, .count = static_cast<uint32_t>(count)};
  asked_ += count;
  return request;
}

Status PayloadReceiver::CheckFits(const Chunk& chunk, const Blob& bytes) const {
  if (chunk.sha256 != offer_.sha256) return OkStatus();
  const uint64_t size = chunk.index < chunks_ ? ChunkSize(offer_.bytes, chunk.index) : 0;
  if (size > 0 && bytes.size() == size) return OkStatus();
  return InvalidArgument(Str("[payload] ", ShortName(offer_.sha256), " chunk ", chunk.index,
                             ": got ", bytes.size(), " bytes, wanted ", size, " of the ",
                             offer_.bytes, " on offer"));
}

Result<uint64_t> PayloadReceiver::Accept(const Chunk& chunk, const Blob& bytes) {
  const auto refuse = [&](const std::string& what) {
    return InvalidArgument(
        Str("[payload] ", ShortName(offer_.sha256), " chunk ", chunk.index, ": ", what));
  };
  if (chunk.sha256 != offer_.sha256) return refuse(Str("it is of ", ShortName(chunk.sha256)));
  if (chunk.index < next_) return refuse("it is here already");
  if (chunk.index != next_) return refuse(Str("wanted ", next_, " next: chunks come in order"));
  if (next_ == asked_) return refuse("nobody asked for it");
  WEFT_TRY(CheckFits(chunk, bytes));
  if (Xxh3(bytes.span()) != chunk.xxh3) {
    return DataLoss(Str("[payload] ", ShortName(offer_.sha256), " chunk ", chunk.index,
                        ": its bytes do not match its checksum"));
  }
  const uint64_t offset = received_bytes_;
  if (options_.verify_digest) digest_.Update(bytes.span());
  ++next_;
  received_bytes_ += bytes.size();
  return offset;
}

Status PayloadReceiver::Finish() {
  if (!complete()) {
    return DataLoss(Str("[payload] ", ShortName(offer_.sha256), ": got ", received_bytes_, " of ",
                        offer_.bytes, " bytes"));
  }
  if (!options_.verify_digest) return OkStatus();
  const std::string got = digest_.FinishHex();
  if (got != offer_.sha256) {
    return DataLoss(Str("[payload] all ", offer_.bytes, " bytes are here, their SHA-256 is ", got,
                        ", offered was ", offer_.sha256));
  }
  return OkStatus();
}

// ---- buffer ----

Result<PayloadBuffer> PayloadBuffer::Make(uint64_t bytes) {
  constexpr std::align_val_t kAlign{kAlignment};
  if (bytes > limits::kPayloadBytesMax) {
    return ResourceExhausted(
        Str("[payload] ", bytes, " bytes on offer, wanted at most ", limits::kPayloadBytesMax));
  }
  auto* memory = static_cast<std::byte*>(::operator new[](bytes, kAlign, std::nothrow));
  if (memory == nullptr) {
    return ResourceExhausted(Str("[payload] no memory for the ", bytes, " bytes on offer"));
  }
  return PayloadBuffer({memory, [](std::byte* p) { ::operator delete[](p, kAlign); }}, bytes);
}

void PayloadBuffer::Write(uint64_t offset, ByteSpan bytes) {
  WEFT_CHECK(offset <= size_ && bytes.size() <= size_ - offset, offset, " + ", bytes.size(), " of ",
             size_);
  if (bytes.empty()) return;  // memcpy wants a place even for nothing
  std::memcpy(memory_.get() + offset, bytes.data(), bytes.size());
}

Blob PayloadBuffer::Share(uint64_t bytes) const {
  WEFT_CHECK(bytes <= size_, bytes, " of ", size_);
  return Blob::Share({memory_.get(), bytes}, memory_);
}

}  // namespace weft
