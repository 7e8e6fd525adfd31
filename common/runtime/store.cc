#include "common/runtime/store.h"

#include <utility>

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

Result<std::vector<LedgerEvent>> Store::ReadLedger() const {
  std::vector<LedgerEvent> events;
  WEFT_TRY(EachEvent([&](LedgerEvent event) {
    events.push_back(std::move(event));
    return OkStatus();
  }));
  return events;
}

}  // namespace weft
