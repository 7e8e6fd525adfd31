#pragma once
// MemoryStore: the Store in memory, for one process and for tests. The same contract, names and
// errors as FileStore; what is asked for happens at once, completions come through `post`.

#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "common/runtime/ledger.h"
#include "common/runtime/store.h"

namespace weft {

class MemoryStore : public Store {
 public:
  struct Options {
    std::function<void(std::function<void()>)> post;
    std::function<int64_t()> wall_us;
    /// Asked before every write with the method's name ("Append", "WriteBlob" …) and the blob's
    /// name; a failure it returns is the write's outcome and nothing is changed. Empty: no faults.
    std::function<Status(std::string_view operation, const std::string& name)> fault;
  };
  explicit MemoryStore(Options options) : options_(std::move(options)) {}

  void Append(std::vector<EventDraft> events, Done done) override;
  void WriteBlob(std::string name, Blob bytes, Done done) override;
  void WritePartial(std::string name, uint64_t offset, Blob bytes, Done done) override;
  void SealPartial(std::string name, uint64_t bytes, std::string sha256, Done done) override;
  [[nodiscard]] uint64_t PartialBytes(const std::string& name) const override;
  void RemoveBlob(std::string name, Done done) override;
  [[nodiscard]] Result<Blob> ReadBlob(const std::string& name) const override;
  [[nodiscard]] std::vector<std::string> ListBlobs(const std::string& prefix) const override;
  [[nodiscard]] Status EachEvent(const TakeEvent& take) const override;

 private:
  [[nodiscard]] Status Allowed(std::string_view operation, const std::string& name) const;
  [[nodiscard]] Status Write(const std::string& name, uint64_t offset, const Blob& bytes);
  [[nodiscard]] Status Seal(const std::string& name, uint64_t bytes, const std::string& sha256);
  void Finish(Done done, Status status) const;

  const Options options_;
  mutable std::mutex mutex_;  // workers read blobs
  LedgerTail tail_;
  std::vector<LedgerEvent> events_;
  std::map<std::string, Blob> blobs_;
  std::map<std::string, std::string> partials_;
};

}  // namespace weft
