#include "common/runtime/store.h"

#include "common/base/str.h"

namespace weft {

Result<Blob> BlobSource::ReadPart(const std::string& name, uint64_t offset, uint64_t length) const {
  WEFT_TRY_ASSIGN(const Blob blob, ReadBlob(name));
  if (offset > blob.size() || length > blob.size() - offset) {
    return DataLoss(Str("[store] blob ", name, ": it has ", blob.size(), " bytes, wanted ", length,
                        " at offset ", offset));
  }
  return blob.Slice(offset, length);
}

}  // namespace weft
