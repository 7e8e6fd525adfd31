#include "cli/out_folder.h"

#include "common/base/str.h"
#include "common/formats/file_io.h"

namespace weft::cli {

namespace fs = std::filesystem;

Status PrepareOutFolder(const fs::path& out, const fs::path& model) {
  const auto cannot = [&](const std::string& why) {
    return PermissionDenied(
        Str("[out] ", out.string(), ": ", why, "; name a folder you may write to with --out"));
  };
  if (out.empty()) return InvalidArgument("[out] got an empty name, wanted a folder to write");
  std::error_code error;
  fs::create_directories(out, error);
  if (error) return cannot(Str("cannot be made: ", error.message()));
  if (!fs::is_directory(out, error)) return cannot("is no folder");
  if (!model.empty() && fs::equivalent(out, model, error)) {
    return AlreadyExists(
        Str("[out] ", out.string(), ": is the base model's own folder; name another one to write"));
  }
  const fs::path probe = out / ".weft-writable";
  const Status written = WriteFileAtomically(probe, "");
  if (!written.ok()) return cannot(written.message());
  fs::remove(probe, error);
  return OkStatus();
}

}  // namespace weft::cli
