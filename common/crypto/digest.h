#pragma once
// SHA-256 (FIPS 180-4, by OpenSSL): names payloads, adapters and base models. One object belongs to
// one thread.

#include <array>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>

#include "common/base/bytes.h"
#include "common/base/result.h"

namespace weft {

using Sha256Digest = std::array<std::byte, 32>;

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  void Update(ByteSpan bytes);
  /// The digest of all bytes so far; afterwards the object starts anew.
  [[nodiscard]] Sha256Digest Finish();
  [[nodiscard]] std::string FinishHex();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

[[nodiscard]] Sha256Digest Sha256Of(ByteSpan bytes);
/// 64 lower-case hexadecimal digits.
[[nodiscard]] std::string Sha256Hex(ByteSpan bytes);

/// Hexadecimal digest of a file's content, read in blocks. kNotFound when it cannot be opened,
/// kDataLoss when reading stops before its end; both name the file.
[[nodiscard]] Result<std::string> Sha256File(const std::filesystem::path& path);

}  // namespace weft
