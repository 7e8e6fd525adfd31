#include "aggregator/uploads.h"

#include <algorithm>
#include <utility>

#include "common/base/failpoint.h"
#include "common/base/limits.h"
#include "common/base/str.h"

namespace weft {
namespace {

// Chunks asked for and not yet here, and chunks here and not yet on disk: together they bound the
// memory of one upload to twice this many chunks (2 MiB).
constexpr uint32_t kWindow = 4;
constexpr int kDigestFailuresMax = 2;

}  // namespace

struct Uploads::Transfer {
  std::string blob;
  PayloadOffer payload;
  std::unique_ptr<PayloadReceiver> receiver;  // none while it waits in line
  uint32_t unwritten = 0;                     // chunks given to the store
  bool sealing = false;
  int digest_failures = 0;
  Nanos began{0};
  Nanos moved{0};  // when the last chunk came
};

size_t Uploads::CountActive() const {
  return static_cast<size_t>(
      std::count_if(transfers_.begin(), transfers_.end(),
                    [](const auto& entry) { return entry.second->receiver != nullptr; }));
}

bool Uploads::Current(const ClientId& client, const Shared& transfer) const {
  const auto it = transfers_.find(client);
  return !office_.over() && it != transfers_.end() && it->second == transfer;
}

void Uploads::Take(const ClientId& client, const std::string& blob, const PayloadOffer& payload) {
  const auto it = transfers_.find(client);
  if (it != transfers_.end()) {
    if (it->second->payload == payload) return;
    Forget(client);
    office_.env.store.RemoveBlob(blob, [](const Status&) {});
  }
  auto transfer = std::make_shared<Transfer>();
  transfer->blob = blob;
  transfer->payload = payload;
  transfers_[client] = std::move(transfer);
  line_.push_back(client);
  StartNext();
}

void Uploads::Forget(const ClientId& client) {
  transfers_.erase(client);
  std::erase(line_, client);
  if (!office_.over()) StartNext();
}

void Uploads::CancelAll() {
  transfers_.clear();
  line_.clear();
  came_bytes_.clear();
}

void Uploads::StartNext() {
  const auto at_once =
      static_cast<size_t>(std::max<int64_t>(office_.options.settings.server.uploads_at_once, 1));
  while (!line_.empty() && CountActive() < at_once) {
    const ClientId client = line_.front();
    line_.pop_front();
    Begin(client, *transfers_.at(client));
  }
}

void Uploads::Begin(const ClientId& client, Transfer& transfer) {
  Store& store = office_.env.store;
  transfer.receiver = std::make_unique<PayloadReceiver>(
      transfer.payload, PayloadReceiver::Options{.window = kWindow, .verify_digest = false});
  transfer.began = transfer.moved = office_.env.clock.Now();
  patience_[client].Begin(transfer.began);
  const uint64_t kept = store.PartialBytes(transfer.blob);
  const bool usable = kept == transfer.payload.bytes ||
                      (kept < transfer.payload.bytes && kept % limits::kChunkBytes == 0);
  if (kept > 0 && usable) {
    transfer.receiver->ResumeAfter(kept, Blob());
    office_.env.log.Info("upload resumes",
                         {{"client", client}, {"kept", kept}, {"of", transfer.payload.bytes}});
  } else if (kept > 0) {
    store.RemoveBlob(transfer.blob, [](const Status&) {});
  }
  if (transfer.receiver->complete()) {
    Seal(client, transfers_.at(client));
  } else {
    Ask(client, transfer);
  }
}

void Uploads::Ask(const ClientId& client, Transfer& transfer) {
  if (transfer.unwritten >= kWindow) return;
  if (const auto request = transfer.receiver->NextRequest()) office_.Send(client, *request);
}

void Uploads::OnChunk(const ClientId& from, const Chunk& chunk, const Blob& bytes) {
  const auto it = transfers_.find(from);
  if (it == transfers_.end() || it->second->receiver == nullptr || it->second->sealing) return;
  const Shared transfer = it->second;
  came_bytes_[from] += bytes.size();
  if (const Status fits = transfer->receiver->CheckFits(chunk, bytes); !fits.ok()) {
    // Asking again would bring the same, until the round's deadline.
    Forget(from);
    done_(from, fits.Within(Str("[upload] client ", from)));
    return;
  }
  const Result<uint64_t> offset = transfer->receiver->Accept(chunk, bytes);
  if (!offset.ok()) {
    // What was in flight before a reconnect comes twice or not at all; Tick asks again.
    office_.env.log.Debug("chunk not taken", {{"client", from}, {"why", offset.status()}});
    if (offset.status().code() == Code::kDataLoss) {
      transfer->receiver->Restart();
      patience_[from].Damaged(office_.env.clock.Now());
    }
    return;
  }
  transfer->moved = office_.env.clock.Now();
  patience_[from].Came(transfer->moved);
  ++transfer->unwritten;
  Pass(Failpoint::kChunkCame);
  office_.env.store.WritePartial(
      transfer->blob, *offset, bytes,
      [this, from, transfer](const Status& status) { OnWritten(from, transfer, status); });
  Ask(from, *transfer);
}

void Uploads::OnWritten(const ClientId& client, const Shared& transfer, const Status& status) {
  if (!Current(client, transfer)) return;
  --transfer->unwritten;
  Pass(Failpoint::kChunkWritten);
  if (!status.ok()) {
    office_.GiveUp(status.Within(Str("[spool] update of ", client)));
    return;
  }
  if (!transfer->receiver->complete()) {
    Ask(client, *transfer);
  } else if (transfer->unwritten == 0) {
    Seal(client, transfer);
  }
}

void Uploads::Seal(const ClientId& client, const Shared& transfer) {
  transfer->sealing = true;
  office_.env.store.SealPartial(
      transfer->blob, transfer->payload.bytes, transfer->payload.sha256,
      [this, client, transfer](const Status& status) { OnSealed(client, transfer, status); });
}

void Uploads::OnSealed(const ClientId& client, const Shared& transfer, const Status& status) {
  if (!Current(client, transfer)) return;
  if (status.code() == Code::kDataLoss && ++transfer->digest_failures < kDigestFailuresMax) {
    // Bytes kept from before a restart can be of another payload: once more from the start.
    office_.env.log.Warn("upload starts again", {{"client", client}, {"why", status}});
    transfer->sealing = false;
    Begin(client, *transfer);
    return;
  }
  if (!status.ok() && status.code() != Code::kDataLoss) {
    office_.GiveUp(status.Within(Str("[spool] update of ", client)));
    return;
  }
  Pass(Failpoint::kUpdateSealed);
  Upload upload{.blob = transfer->blob,
                .payload = transfer->payload,
                .wire_bytes = came_bytes_[client],
                .upload_s = ToSeconds(office_.env.clock.Now() - transfer->began)};
  Forget(client);
  done_(client, status.ok() ? Result<Upload>(std::move(upload)) : Result<Upload>(status));
}

void Uploads::Tick() {
  const Nanos now = office_.env.clock.Now();
  const Nanos patience = Seconds(office_.options.settings.server.gone_after_s);
  std::vector<ClientId> stuck;
  for (auto& [client, transfer] : transfers_) {
    if (!transfer->receiver || transfer->sealing || transfer->unwritten > 0) continue;
    if (now - transfer->moved > patience && !line_.empty()) {
      stuck.push_back(client);
    } else if (patience_[client].Over(now)) {
      transfer->receiver->Restart();
      Ask(client, *transfer);
    }
  }
  for (const ClientId& client : stuck) {
    office_.env.log.Warn("upload stands still; the next in line is served first",
                         {{"client", client}});
    transfers_.at(client)->receiver.reset();
    line_.push_back(client);
    StartNext();
  }
}

}  // namespace weft
