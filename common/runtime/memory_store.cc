#include "common/runtime/memory_store.h"

#include <utility>

#include "common/base/str.h"
#include "common/crypto/digest.h"
#include "common/runtime/blob_name.h"

namespace weft {

Status MemoryStore::Allowed(std::string_view operation, const std::string& name) const {
  if (operation != "Append") WEFT_TRY(CheckBlobName(name));
  return options_.fault ? options_.fault(operation, name) : OkStatus();
}

void MemoryStore::Finish(Done done, Status status) const {
  options_.post([done = std::move(done), status = std::move(status)] { done(status); });
}

void MemoryStore::Append(std::vector<EventDraft> events, Done done) {
  const Status status = Allowed("Append", "");
  if (status.ok()) {
    const std::scoped_lock guard(mutex_);
    const int64_t wall_us = options_.wall_us();
    for (EventDraft& draft : events) events_.push_back(Chain(tail_, std::move(draft), wall_us));
  }
  Finish(std::move(done), status);
}

void MemoryStore::WriteBlob(std::string name, Blob bytes, Done done) {
  const Status status = Allowed("WriteBlob", name);
  if (status.ok()) {
    const std::scoped_lock guard(mutex_);
    blobs_[std::move(name)] = std::move(bytes);
  }
  Finish(std::move(done), status);
}

Status MemoryStore::Write(const std::string& name, uint64_t offset, const Blob& bytes) {
  WEFT_TRY(Allowed("WritePartial", name));
  const std::scoped_lock guard(mutex_);
  std::string& partial = partials_[name];
  if (offset != partial.size()) {
    return FailedPrecondition(Str("[store] partial blob ", name, ": got bytes at offset ", offset,
                                  ", it has ", partial.size(), ": chunks come in order"));
  }
  partial += bytes.view();
  return OkStatus();
}

void MemoryStore::WritePartial(std::string name, uint64_t offset, Blob bytes, Done done) {
  Finish(std::move(done), Write(name, offset, bytes));
}

Status MemoryStore::Seal(const std::string& name, uint64_t bytes, const std::string& sha256) {
  WEFT_TRY(Allowed("SealPartial", name));
  const std::scoped_lock guard(mutex_);
  std::string partial = std::move(partials_[name]);
  partials_.erase(name);
  const std::string got = Sha256Hex(AsBytes(partial));
  if (partial.size() != bytes || got != sha256) {
    return DataLoss(Str("[store] partial blob ", name, ": got ", partial.size(),
                        " bytes with SHA-256 ", got, ", wanted ", bytes, " bytes with ", sha256,
                        ": it was removed"));
  }
  blobs_[name] = Blob::Adopt(std::move(partial));
  return OkStatus();
}

void MemoryStore::SealPartial(std::string name, uint64_t bytes, std::string sha256, Done done) {
  Finish(std::move(done), Seal(name, bytes, sha256));
}

uint64_t MemoryStore::PartialBytes(const std::string& name) const {
  const std::scoped_lock guard(mutex_);
  const auto it = partials_.find(name);
  return it == partials_.end() ? 0 : it->second.size();
}

void MemoryStore::RemoveBlob(std::string name, Done done) {
  const Status status = Allowed("RemoveBlob", name);
  if (status.ok()) {
    const std::scoped_lock guard(mutex_);
    blobs_.erase(name);
    partials_.erase(name);
  }
  Finish(std::move(done), status);
}

Result<Blob> MemoryStore::ReadBlob(const std::string& name) const {
  WEFT_TRY(CheckBlobName(name));
  const std::scoped_lock guard(mutex_);
  const auto it = blobs_.find(name);
  if (it == blobs_.end()) return NotFound(Str("[store] blob ", name, ": there is none"));
  return it->second;
}

std::vector<std::string> MemoryStore::ListBlobs(const std::string& prefix) const {
  const std::scoped_lock guard(mutex_);
  std::vector<std::string> names;
  for (auto it = blobs_.lower_bound(prefix); it != blobs_.end(); ++it) {
    if (it->first.compare(0, prefix.size(), prefix) != 0) break;
    names.push_back(it->first);
  }
  return names;
}

Status MemoryStore::EachEvent(const TakeEvent& take) const {
  const std::scoped_lock guard(mutex_);
  WEFT_TRY(VerifyChain(events_));
  for (const LedgerEvent& event : events_) WEFT_TRY(take(event));
  return OkStatus();
}

}  // namespace weft
