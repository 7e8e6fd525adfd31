#include "common/base/bytes.h"

#include "common/base/check.h"

namespace weft {
namespace {

template <typename Container>
Blob AdoptContainer(Container bytes) {
  auto owner = std::make_shared<const Container>(std::move(bytes));
  const ByteSpan span = std::as_bytes(std::span(owner->data(), owner->size()));
  return Blob::Share(span, std::move(owner));
}

}  // namespace

Blob Blob::Adopt(std::vector<std::byte> bytes) { return AdoptContainer(std::move(bytes)); }
Blob Blob::Adopt(std::string bytes) { return AdoptContainer(std::move(bytes)); }
Blob Blob::Copy(ByteSpan bytes) {
  return Adopt(std::vector<std::byte>(bytes.begin(), bytes.end()));
}
Blob Blob::Copy(std::string_view bytes) { return Adopt(std::string(bytes)); }
Blob Blob::Share(ByteSpan bytes, std::shared_ptr<const void> owner) {
  return {bytes, std::move(owner)};
}

std::string_view Blob::view() const { return AsText(bytes_); }

Blob Blob::Slice(size_t offset, size_t length) const {
  WEFT_CHECK(offset <= size() && length <= size() - offset, "slice [", offset, ", +", length,
             ") of ", size(), " bytes");
  return {bytes_.subspan(offset, length), owner_};
}

ByteSpan AsBytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string_view AsText(ByteSpan bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string Hex(ByteSpan bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const std::byte value : bytes) {
    out.push_back(kDigits[std::to_integer<size_t>(value >> 4)]);
    out.push_back(kDigits[std::to_integer<size_t>(value & std::byte{15})]);
  }
  return out;
}

}  // namespace weft
