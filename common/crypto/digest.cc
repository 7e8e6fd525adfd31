#include "common/crypto/digest.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <vector>

#include <openssl/evp.h>

namespace weft {

struct Sha256::State {
  struct Free {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  };
  std::unique_ptr<EVP_MD_CTX, Free> context;
};

// OpenSSL fails here only when memory is out or the library is broken, never because of the bytes.
Sha256::Sha256() : state_(std::make_unique<State>()) {
  state_->context.reset(EVP_MD_CTX_new());
  WEFT_CHECK(state_->context != nullptr);
  WEFT_CHECK(EVP_DigestInit_ex(state_->context.get(), EVP_sha256(), nullptr) == 1);
}

Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

void Sha256::Update(ByteSpan bytes) {
  WEFT_CHECK(EVP_DigestUpdate(state_->context.get(), bytes.data(), bytes.size()) == 1);
}

Sha256Digest Sha256::Finish() {
  std::array<unsigned char, 32> raw{};
  unsigned size = 0;
  WEFT_CHECK(EVP_DigestFinal_ex(state_->context.get(), raw.data(), &size) == 1);
  WEFT_CHECK(size == raw.size());
  WEFT_CHECK(EVP_DigestInit_ex(state_->context.get(), EVP_sha256(), nullptr) == 1);
  Sha256Digest digest;
  std::memcpy(digest.data(), raw.data(), raw.size());
  return digest;
}

std::string Sha256::FinishHex() { return Hex(Finish()); }

Sha256Digest Sha256Of(ByteSpan bytes) {
  Sha256 sha;
  sha.Update(bytes);
  return sha.Finish();
}

std::string Sha256Hex(ByteSpan bytes) { return Hex(Sha256Of(bytes)); }

Result<std::string> Sha256File(const std::filesystem::path& path) {
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  const std::unique_ptr<std::FILE, Close> file(std::fopen(path.c_str(), "rb"));
  if (!file) return NotFound(Str("[sha256] ", path.string(), ": ", std::strerror(errno)));
  Sha256 sha;
  std::vector<std::byte> block(size_t{1} << 20);
  while (true) {
    const size_t got = std::fread(block.data(), 1, block.size(), file.get());
    sha.Update({block.data(), got});
    if (got < block.size()) break;
  }
  if (std::ferror(file.get()) != 0) {
    return DataLoss(Str("[sha256] ", path.string(), ": reading failed: ", std::strerror(errno)));
  }
  return sha.FinishHex();
}

}  // namespace weft
