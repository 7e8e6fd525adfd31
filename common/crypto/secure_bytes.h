#pragma once
// SecureBytes: a secret (a CURVE key, a seed) that is wiped when its owner goes, is moved from or
// takes another one. Never printed, never copied.

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>

#include "common/base/bytes.h"

namespace weft {

class SecureBytes {
 public:
  SecureBytes() = default;
  /// `size` zero bytes.
  explicit SecureBytes(size_t size);
  /// Copies; the caller wipes the source with WipeBytes where that is possible.
  explicit SecureBytes(ByteSpan bytes);
  ~SecureBytes() { Clear(); }
  SecureBytes(const SecureBytes&) = delete;
  SecureBytes& operator=(const SecureBytes&) = delete;
  SecureBytes(SecureBytes&& other) noexcept;
  SecureBytes& operator=(SecureBytes&& other) noexcept;

  [[nodiscard]] ByteSpan span() const { return {bytes_.get(), size_}; }
  [[nodiscard]] std::span<std::byte> span() { return {bytes_.get(), size_}; }
  [[nodiscard]] std::string_view view() const { return AsText(span()); }
  [[nodiscard]] size_t size() const { return size_; }
  [[nodiscard]] bool empty() const { return size_ == 0; }
  /// Wipes and lets go.
  void Clear();

 private:
  std::unique_ptr<std::byte[]> bytes_;  // never grows, so no stale copy is left behind
  size_t size_ = 0;
};

/// Overwrites with zeros in a way the compiler may not leave out.
void WipeBytes(std::span<std::byte> bytes);

/// Compares in time that depends on the lengths only.
[[nodiscard]] bool EqualInConstantTime(ByteSpan a, ByteSpan b);

}  // namespace weft
