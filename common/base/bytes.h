#pragma once
// Blob: immutable bytes with shared ownership. Slices share the owner, so a payload crosses layers,
// queues and threads without a copy. A value type; safe to copy between threads.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace weft {

using ByteSpan = std::span<const std::byte>;

class Blob {
 public:
  Blob() = default;

  /// Takes the bytes over.
  [[nodiscard]] static Blob Adopt(std::vector<std::byte> bytes);
  [[nodiscard]] static Blob Adopt(std::string bytes);
  /// Copies the bytes.
  [[nodiscard]] static Blob Copy(ByteSpan bytes);
  [[nodiscard]] static Blob Copy(std::string_view bytes);
  /// Shares bytes that `owner` keeps alive (a mapped file, a socket's message).
  [[nodiscard]] static Blob Share(ByteSpan bytes, std::shared_ptr<const void> owner);

  [[nodiscard]] ByteSpan span() const { return bytes_; }
  [[nodiscard]] const std::byte* data() const { return bytes_.data(); }
  [[nodiscard]] size_t size() const { return bytes_.size(); }
  [[nodiscard]] bool empty() const { return bytes_.empty(); }
  [[nodiscard]] std::string_view view() const;
  /// What keeps the bytes alive; hand it on with span() to share without a copy.
  [[nodiscard]] const std::shared_ptr<const void>& owner() const { return owner_; }

  /// Bytes [offset, offset + length); both must lie inside (checked).
  [[nodiscard]] Blob Slice(size_t offset, size_t length) const;

 private:
  Blob(ByteSpan bytes, std::shared_ptr<const void> owner)
      : bytes_(bytes), owner_(std::move(owner)) {}

  ByteSpan bytes_;
  std::shared_ptr<const void> owner_;
};

/// The bytes of a string, and the other way round; nothing is copied.
[[nodiscard]] ByteSpan AsBytes(std::string_view text);
[[nodiscard]] std::string_view AsText(ByteSpan bytes);

/// Lower-case hexadecimal.
[[nodiscard]] std::string Hex(ByteSpan bytes);

}  // namespace weft
