#include "aggregator/node_jobs.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "common/base/str.h"
#include "common/crypto/digest.h"

namespace weft {
namespace {

Result<std::vector<FileRef>> ListFiles(const ListFilesJob& job) {
  const std::filesystem::path root(job.root);
  std::vector<FileRef> files;
  std::error_code error;
  std::filesystem::recursive_directory_iterator entry(root / job.folder, error);
  for (; !error && entry != std::filesystem::recursive_directory_iterator();
       entry.increment(error)) {
    if (!entry->is_regular_file(error) || error) continue;
    FileRef file;
    file.name = entry->path().lexically_relative(root).generic_string();
    file.bytes = entry->file_size(error);
    if (error) break;
    WEFT_TRY_ASSIGN(file.sha256, Sha256File(entry->path()));
    files.push_back(std::move(file));
  }
  if (error) return NotFound(Str("[export] ", root / job.folder, ": ", error.message()));
  std::sort(files.begin(), files.end(),
            [](const FileRef& a, const FileRef& b) { return a.name < b.name; });
  return files;
}

// Those of which a byte has changed since they were accepted, or all of them are gone.
std::vector<ClientId> Damaged(const CheckSpoolJob& job) {
  std::vector<ClientId> damaged;
  for (const SpooledUpdate& update : job.updates) {
    const Result<Blob> bytes = job.store->ReadBlob(update.blob);
    if (bytes.ok() && Sha256Hex(bytes->span()) == update.header.payload_sha256) continue;
    damaged.push_back(update.header.client);
  }
  return damaged;
}

}  // namespace

void RegisterNodeJobs(WorkTable& table) {
  table.On<DigestJob>([](const DigestJob& job, JobControl&) -> Result<std::string> {
    return Sha256Hex(job.bytes.span());
  });
  table.On<CheckSpoolJob>([](const CheckSpoolJob& job, JobControl&) {
    return Result<CheckSpoolJob::Output>(Damaged(job));
  });
  table.On<ListFilesJob>([](const ListFilesJob& job, JobControl&) { return ListFiles(job); });
}

}  // namespace weft
