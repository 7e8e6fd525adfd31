#pragma once
// FileStore: the production Store. A run folder with run.db (the ledger), blobs as files below it,
// and `lock`, held while the store is open. Writes are done in order by a thread of the store's
// own, which commits queued Appends together; it hands completions to `post`.
//
// Built and used by one loop; ReadBlob may be called from any thread. A partial blob's bytes
// survive a crash of the process as soon as they are acknowledged, and of the machine once sealed.

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>

#include "common/runtime/store.h"

namespace weft {

class FileStore : public Store {
 public:
  struct Options {
    std::filesystem::path folder;  // made if it is missing
    /// Runs a completion in the node's loop; called from the store's thread.
    std::function<void(std::function<void()>)> post;
    std::function<int64_t()> wall_us;  // microseconds since the epoch; called from Append's caller
    /// Where the disk is full (or over a quota or size limit), writes wait for that long and are
    /// tried again and again, those after them behind them. 0: they fail at once.
    std::chrono::seconds full_disk_patience{0};
    /// Told when writes begin to wait, with the reason, and with ok when they go on; called in the
    /// loop. May be empty.
    std::function<void(const Status& why)> on_waiting = nullptr;
  };

  /// kAlreadyExists, naming the process, if another one has the folder open; kDataLoss if the
  /// ledger's last row cannot be read.
  [[nodiscard]] static Result<std::unique_ptr<FileStore>> Open(Options options);

  /// Finishes what was asked for, then closes. Completions still go to `post`.
  ~FileStore() override;
  /// From now on what waits for a full disk, and what would, fails: the process is to end.
  void StopWaiting();
  FileStore(const FileStore&) = delete;
  FileStore& operator=(const FileStore&) = delete;

  void Append(std::vector<EventDraft> events, Done done) override;
  void WriteBlob(std::string name, Blob bytes, Done done) override;
  void WritePartial(std::string name, uint64_t offset, Blob bytes, Done done) override;
  void SealPartial(std::string name, uint64_t bytes, std::string sha256, Done done) override;
  [[nodiscard]] uint64_t PartialBytes(const std::string& name) const override;
  void RemoveBlob(std::string name, Done done) override;
  [[nodiscard]] Result<Blob> ReadBlob(const std::string& name) const override;
  [[nodiscard]] Result<Blob> ReadPart(const std::string& name, uint64_t offset,
                                      uint64_t length) const override;
  [[nodiscard]] std::vector<std::string> ListBlobs(const std::string& prefix) const override;
  [[nodiscard]] Status EachEvent(const TakeEvent& take) const override;

 private:
  class Writer;
  explicit FileStore(Options options);

  Options options_;
  std::unique_ptr<Writer> writer_;
};

}  // namespace weft
