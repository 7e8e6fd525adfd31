#include "sim/run_folder.h"

#include <memory>
#include <system_error>
#include <vector>

#include "common/base/str.h"
#include "common/runtime/blob_name.h"
#include "common/runtime/durable_file.h"
#include "common/runtime/ledger_db.h"

namespace weft::sim {

Status CheckNoRunIn(const std::filesystem::path& folder) {
  std::error_code error;
  if (!std::filesystem::exists(folder / kLedgerFile, error)) return OkStatus();
  return FailedPrecondition(Str("[sim] ", folder.string(), ": it holds a run already (",
                                kLedgerFile, "); name another folder, or remove this one"));
}

Status WriteRunFolder(const Store& store, const std::filesystem::path& folder) {
  WEFT_TRY(CheckNoRunIn(folder));
  WEFT_TRY(MakeFolders(folder));
  for (const std::string& name : store.ListBlobs("")) {
    WEFT_TRY_ASSIGN(const Blob bytes, store.ReadBlob(name));
    const std::filesystem::path path = folder / name;
    WEFT_TRY(MakeFolders(path.parent_path()));
    WEFT_TRY(ReplaceFile(path, path.string() + kTempSuffix, bytes.span()));
  }
  WEFT_TRY_ASSIGN(const std::vector<LedgerEvent> ledger, store.ReadLedger());
  WEFT_TRY_ASSIGN(const std::unique_ptr<LedgerDb> db,
                  LedgerDb::OpenForWriting(folder / kLedgerFile));
  return db->Insert(ledger);
}

}  // namespace weft::sim
