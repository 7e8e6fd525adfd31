#include "common/runtime/file_store.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "common/base/failpoint.h"
#include "common/base/str.h"
#include "common/runtime/blob_folder.h"
#include "common/runtime/blob_name.h"
#include "common/runtime/durable_file.h"
#include "common/runtime/ledger.h"
#include "common/runtime/ledger_db.h"
#include "common/runtime/partial_files.h"
#include "common/runtime/run_lock.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::milliseconds kRetryEvery{500};  // of a write to a full disk

bool EndsWith(const std::string& text, std::string_view ending) {
  return text.size() >= ending.size() &&
         text.compare(text.size() - ending.size(), ending.size(), ending) == 0;
}

// Blobs that were being written when a process died were never acknowledged.
void RemoveTemporaryFiles(const fs::path& folder) {
  std::error_code error;
  for (fs::recursive_directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    std::error_code ignored;
    if (EndsWith(it->path().string(), kTempSuffix)) fs::remove(it->path(), ignored);
  }
}

// A round's folder goes with the last of its blobs, or a run would leave one for every round it
// had. Folders of the layout itself stay.
void RemoveIfEmpty(const fs::path& folder, const fs::path& root) {
  if (folder == root || folder.parent_path() == root) return;
  std::error_code not_empty;
  fs::remove(folder, not_empty);
}

}  // namespace

// The thread that owns database and files. Everything but the queue belongs to it.
class FileStore::Writer {
 public:
  struct AppendOp {
    std::vector<EventDraft> events;
    int64_t wall_us = 0;
  };
  struct Op {
    std::optional<AppendOp> append;             // an append, or
    std::function<Status(PartialFiles&)> work;  // anything else
    std::string partial;                        // whose planned size this op counts for
    Done done;
  };

  Writer(const Options& options, RunLock lock, std::unique_ptr<LedgerDb> db, LedgerTail tail)
      : post_(options.post),
        patience_(options.full_disk_patience),
        on_waiting_(options.on_waiting),
        partials_(options.folder),
        lock_(std::move(lock)),
        db_(std::move(db)),
        tail_(std::move(tail)),
        thread_([this] { Run(); }) {}

  ~Writer() {
    {
      const std::scoped_lock guard(mutex_);
      stopping_ = true;
    }
    wake_.notify_one();
    thread_.join();
  }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  void StopWaiting() {
    {
      const std::scoped_lock guard(mutex_);
      patient_ = false;
    }
    wake_.notify_one();
  }

  /// For an op on a partial blob: `plan` turns the size it will have before the op into the size
  /// after it.
  void Push(Op op, const std::function<uint64_t(uint64_t)>& plan = nullptr) {
    {
      const std::scoped_lock guard(mutex_);
      if (!op.partial.empty()) {
        Planned& planned = PlannedFor(op.partial);
        planned.bytes = plan(planned.bytes);
        ++planned.pending;
      }
      queue_.push_back(std::move(op));
    }
    wake_.notify_one();
  }

  uint64_t PartialBytes(const std::string& name) {
    const std::scoped_lock guard(mutex_);
    const auto it = planned_.find(name);
    return it != planned_.end() ? it->second.bytes : BytesOnDisk(name);
  }

 private:
  // What a partial blob's size will be once the queued writes are done.
  struct Planned {
    uint64_t bytes = 0;
    int pending = 0;
  };

  uint64_t BytesOnDisk(const std::string& name) const {
    std::error_code error;
    const uintmax_t bytes = fs::file_size(partials_.PartPath(name), error);
    return error ? 0 : static_cast<uint64_t>(bytes);
  }

  Planned& PlannedFor(const std::string& name) {
    const auto it = planned_.find(name);
    if (it != planned_.end()) return it->second;
    return planned_.emplace(name, Planned{BytesOnDisk(name), 0}).first->second;
  }

  void Run() {
    for (;;) {
      std::vector<Op> batch;
      {
        std::unique_lock guard(mutex_);
        wake_.wait(guard, [this] { return stopping_ || !queue_.empty(); });
        if (queue_.empty()) return;
        // One op, or all appends that stand in a row: those share a transaction.
        do {
          batch.push_back(std::move(queue_.front()));
          queue_.pop_front();
        } while (batch.back().append && !queue_.empty() && queue_.front().append);
      }
      if (batch.front().append) {
        CommitAppends(batch);
      } else {
        Finish(batch.front(), Patiently([&] { return batch.front().work(partials_); }));
      }
    }
  }

  void CommitAppends(std::vector<Op>& batch) {
    if (batch.size() > 1 && Patiently([&] { return Commit(batch); }).ok()) {
      for (Op& op : batch) Finish(op, OkStatus());
      return;
    }
    // One of them may be what fails: each is then tried by itself.
    for (Op& op : batch) Finish(op, Patiently([&] { return Commit({&op, 1}); }));
  }

  // What was asked for is not lost by a disk that is full for a while.
  Status Patiently(const std::function<Status()>& write) {
    Status status = write();
    if (status.code() != Code::kResourceExhausted || patience_ == std::chrono::seconds(0)) {
      return status;
    }
    const auto until = std::chrono::steady_clock::now() + patience_;
    Tell(status);
    while (status.code() == Code::kResourceExhausted && std::chrono::steady_clock::now() < until) {
      {
        std::unique_lock guard(mutex_);
        const auto hurried = [this] { return stopping_ || !patient_; };
        if (wake_.wait_for(guard, kRetryEvery, hurried)) return status;
      }
      status = write();
    }
    if (status.ok()) Tell(status);
    return status;
  }

  void Tell(const Status& why) {
    if (!on_waiting_) return;
    post_([on_waiting = on_waiting_, why] { on_waiting(why); });
  }

  Status Commit(std::span<Op> batch) {
    LedgerTail tail = tail_;
    std::vector<LedgerEvent> events;
    for (const Op& op : batch) {
      for (const EventDraft& draft : op.append->events) {
        events.push_back(Chain(tail, draft, op.append->wall_us));
      }
    }
    if (events.empty()) return OkStatus();
    Pass(Failpoint::kBeforeCommit);
    const Status status = db_->Insert(events);
    if (status.ok()) {
      Pass(Failpoint::kAfterCommit);
      tail_ = std::move(tail);
      return status;
    }
    // A commit that failed late may still have reached the disk: what counts is what is there.
    Result<LedgerTail> real = db_->Tail();
    if (real.ok()) tail_ = std::move(real).value();
    return tail_.hash == tail.hash ? OkStatus() : status;
  }

  void Finish(Op& op, Status status) {
    if (!op.partial.empty()) {
      const std::scoped_lock guard(mutex_);
      const auto it = planned_.find(op.partial);
      if (--it->second.pending == 0) planned_.erase(it);
    }
    post_([done = std::move(op.done), status = std::move(status)] { done(status); });
  }

  const std::function<void(std::function<void()>)> post_;
  const std::chrono::seconds patience_;
  const std::function<void(const Status& why)> on_waiting_;
  PartialFiles partials_;
  RunLock lock_;
  std::unique_ptr<LedgerDb> db_;
  LedgerTail tail_;

  std::mutex mutex_;  // guards the five below
  std::condition_variable wake_;
  std::deque<Op> queue_;
  std::map<std::string, Planned> planned_;
  bool stopping_ = false;
  bool patient_ = true;

  std::thread thread_;  // last: it uses all of the above
};

FileStore::FileStore(Options options) : options_(std::move(options)) {}
FileStore::~FileStore() = default;

Result<std::unique_ptr<FileStore>> FileStore::Open(Options options) {
  WEFT_TRY(MakeFolders(options.folder));
  WEFT_TRY_ASSIGN(RunLock lock, RunLock::Acquire(options.folder));
  WEFT_TRY_ASSIGN(std::unique_ptr<LedgerDb> db,
                  LedgerDb::OpenForWriting(options.folder / kLedgerFile));
  WEFT_TRY_ASSIGN(LedgerTail tail, db->Tail());
  RemoveTemporaryFiles(options.folder);
  std::unique_ptr<FileStore> store(new FileStore(std::move(options)));
  store->writer_ =
      std::make_unique<Writer>(store->options_, std::move(lock), std::move(db), std::move(tail));
  return store;
}

void FileStore::StopWaiting() { writer_->StopWaiting(); }

void FileStore::Append(std::vector<EventDraft> events, Done done) {
  Writer::Op op;
  op.append = Writer::AppendOp{std::move(events), options_.wall_us()};
  op.done = std::move(done);
  writer_->Push(std::move(op));
}

void FileStore::WriteBlob(std::string name, Blob bytes, Done done) {
  Writer::Op op;
  op.done = std::move(done);
  op.work = [this, name = std::move(name), bytes = std::move(bytes)](PartialFiles&) -> Status {
    WEFT_TRY(CheckBlobName(name));
    const fs::path path = options_.folder / name;
    WEFT_TRY(MakeFolders(path.parent_path()));
    return ReplaceFile(path, options_.folder / (name + kTempSuffix), bytes.span());
  };
  writer_->Push(std::move(op));
}

void FileStore::WritePartial(std::string name, uint64_t offset, Blob bytes, Done done) {
  Writer::Op op;
  const uint64_t end = offset + bytes.size();
  if (CheckBlobName(name).ok()) op.partial = name;
  op.done = std::move(done);
  op.work = [name = std::move(name), offset,
             bytes = std::move(bytes)](PartialFiles& partials) -> Status {
    WEFT_TRY(CheckBlobName(name));
    return partials.Write(name, offset, bytes.span());
  };
  writer_->Push(std::move(op), [=](uint64_t before) { return offset == before ? end : before; });
}

void FileStore::SealPartial(std::string name, uint64_t bytes, std::string sha256, Done done) {
  Writer::Op op;
  if (CheckBlobName(name).ok()) op.partial = name;
  op.done = std::move(done);
  op.work = [name = std::move(name), bytes,
             sha256 = std::move(sha256)](PartialFiles& partials) -> Status {
    WEFT_TRY(CheckBlobName(name));
    return partials.Seal(name, bytes, sha256);
  };
  writer_->Push(std::move(op), [](uint64_t) { return uint64_t{0}; });
}

uint64_t FileStore::PartialBytes(const std::string& name) const {
  return CheckBlobName(name).ok() ? writer_->PartialBytes(name) : 0;
}

void FileStore::RemoveBlob(std::string name, Done done) {
  Writer::Op op;
  if (CheckBlobName(name).ok()) op.partial = name;
  op.done = std::move(done);
  op.work = [this, name = std::move(name)](PartialFiles& partials) -> Status {
    WEFT_TRY(CheckBlobName(name));
    WEFT_TRY(partials.Remove(name));
    const fs::path path = options_.folder / name;
    WEFT_TRY(RemoveFile(path));
    RemoveIfEmpty(path.parent_path(), options_.folder);
    return OkStatus();
  };
  writer_->Push(std::move(op), [](uint64_t) { return uint64_t{0}; });
}

Result<Blob> FileStore::ReadBlob(const std::string& name) const {
  return BlobFolder(options_.folder).ReadBlob(name);
}

Result<Blob> FileStore::ReadPart(const std::string& name, uint64_t offset, uint64_t length) const {
  return BlobFolder(options_.folder).ReadPart(name, offset, length);
}

std::vector<std::string> FileStore::ListBlobs(const std::string& prefix) const {
  // Only the deepest folder the prefix names needs to be looked through.
  const size_t slash = prefix.rfind('/');
  fs::path top = options_.folder;
  if (slash != std::string::npos) {
    if (!CheckBlobName(prefix.substr(0, slash)).ok()) return {};
    top /= prefix.substr(0, slash);
  }
  std::vector<std::string> names;
  std::error_code error;
  for (fs::recursive_directory_iterator it(top, error), end; !error && it != end;
       it.increment(error)) {
    std::error_code ignored;
    if (!it->is_regular_file(ignored)) continue;
    std::string name = it->path().lexically_relative(options_.folder).generic_string();
    if (name.compare(0, prefix.size(), prefix) == 0 && CheckBlobName(name).ok()) {
      names.push_back(std::move(name));
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

Status FileStore::EachEvent(const TakeEvent& take) const {
  WEFT_TRY_ASSIGN(const std::unique_ptr<LedgerDb> db,
                  LedgerDb::OpenForReading(options_.folder / kLedgerFile));
  LedgerTail tail;
  return db->EachAfter(tail, take);
}

}  // namespace weft
