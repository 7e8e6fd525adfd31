#include "common/runtime/blob_folder.h"

#include "common/runtime/blob_name.h"
#include "common/runtime/durable_file.h"

namespace weft {

Result<Blob> BlobFolder::ReadBlob(const std::string& name) const {
  WEFT_TRY(CheckBlobName(name));
  return MapFile(folder_ / name);
}

Result<Blob> BlobFolder::ReadPart(const std::string& name, uint64_t offset, uint64_t length) const {
  WEFT_TRY(CheckBlobName(name));
  return ReadFilePart(folder_ / name, offset, length);
}

}  // namespace weft
