#include "common/runtime/partial_files.h"

#include <cerrno>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include "common/base/str.h"
#include "common/runtime/blob_name.h"
#include "common/runtime/durable_file.h"

namespace weft {

std::filesystem::path PartialFiles::PartPath(const std::string& name) const {
  return folder_ / (name + kPartSuffix);
}

Result<PartialFiles::Open*> PartialFiles::Find(const std::string& name) {
  const auto it = open_.find(name);
  if (it != open_.end()) return &it->second;
  Open open;
  Result<Blob> left = MapFile(PartPath(name));
  if (left.ok()) {
    open.hash.Update(left->span());
    open.bytes = left->size();
  } else if (left.status().code() != Code::kNotFound) {
    return left.status();
  }
  return &open_.emplace(name, std::move(open)).first->second;
}

Status PartialFiles::Write(const std::string& name, uint64_t offset, ByteSpan bytes) {
  WEFT_TRY_ASSIGN(Open * open, Find(name));
  if (offset != open->bytes) {
    return FailedPrecondition(Str("[store] partial blob ", name, ": got bytes at offset ", offset,
                                  ", it has ", open->bytes, ": chunks come in order"));
  }
  const std::filesystem::path path = PartPath(name);
  WEFT_TRY(MakeFolders(path.parent_path()));
  WEFT_TRY_ASSIGN(const FileHandle file, OpenFile(path, O_WRONLY | O_CREAT));
  const Status status = WriteAt(file, path, offset, bytes);
  if (!status.ok()) {
    // Half a chunk on disk would be taken for received after a restart.
    if (::ftruncate(file.fd(), static_cast<off_t>(offset)) != 0) {
      return status.Within(Str("and could not be cut back to ", offset, " bytes"));
    }
    return status;
  }
  open->hash.Update(bytes);
  open->bytes += bytes.size();
  return OkStatus();
}

Status PartialFiles::Seal(const std::string& name, uint64_t bytes, const std::string& sha256) {
  WEFT_TRY_ASSIGN(Open * open, Find(name));
  const std::filesystem::path path = PartPath(name);
  const uint64_t got_bytes = open->bytes;
  const std::string got = open->hash.FinishHex();
  open_.erase(name);  // the digest is spent; a second try would hash the file again
  if (got_bytes != bytes || got != sha256) {
    const Status damage =
        DataLoss(Str("[store] partial blob ", name, ": got ", got_bytes, " bytes with SHA-256 ",
                     got, ", wanted ", bytes, " bytes with ", sha256, ": it was removed"));
    WEFT_TRY(RemoveFile(path));
    return damage;
  }
  // No bytes were written for an empty blob, so there may be no file yet.
  WEFT_TRY(MakeFolders(path.parent_path()));
  WEFT_TRY_ASSIGN(const FileHandle file, OpenFile(path, O_WRONLY | O_CREAT));
  WEFT_TRY(SyncFile(file, path));
  return RenameDurably(path, folder_ / name);
}

Status PartialFiles::Remove(const std::string& name) {
  open_.erase(name);
  return RemoveFile(PartPath(name));
}

}  // namespace weft
