#pragma once
// CURVE key pairs in files and the allow-list that maps public keys to site names. Secret files
// have mode 0600 and are refused when others can read them. Keys are 40 characters of Z85 (ZeroMQ
// RFC 32).

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "common/base/ids.h"
#include "common/base/result.h"
#include "common/crypto/secure_bytes.h"

namespace weft {

inline constexpr size_t kKeyTextBytes = 40;

struct KeyPair {
  std::string public_key;  // Z85
  SecureBytes secret_key;  // Z85
};

/// A fresh pair from the system's entropy.
[[nodiscard]] Result<KeyPair> NewKeyPair();
/// Writes PATH.secret (0600) and PATH.public; kAlreadyExists if either is there.
[[nodiscard]] Status WriteKeyPair(const KeyPair& pair, const std::filesystem::path& path);
/// Reads a .secret file and computes the public key. kPermissionDenied if group or others may read
/// it, with the fix.
[[nodiscard]] Result<KeyPair> LoadSecretKey(const std::filesystem::path& secret_file);
/// A public key given as its 40 characters or as the path of a .public file.
[[nodiscard]] Result<std::string> LoadPublicKey(const std::string& text_or_file);
[[nodiscard]] bool IsKeyText(std::string_view text);

/// A site name: 1 to limits::kPlainNameBytesMax letters, digits, '.', '_' or '-', beginning with a
/// letter or digit; not "aggregator".
[[nodiscard]] Status CheckSiteName(std::string_view name);

/// Who may connect. Lines "public-key name"; '#' begins a comment. Two keys of one name or one key
/// twice are refused.
class AllowList {
 public:
  [[nodiscard]] static Result<AllowList> Parse(std::string_view text, std::string_view where);
  [[nodiscard]] static Result<AllowList> Load(const std::filesystem::path& file);

  [[nodiscard]] std::optional<ClientId> NameOf(const std::string& public_key) const;
  [[nodiscard]] std::optional<std::string> KeyOf(const ClientId& name) const;
  [[nodiscard]] const std::map<ClientId, std::string>& entries() const { return keys_; }

 private:
  std::map<ClientId, std::string> keys_;   // name → key
  std::map<std::string, ClientId> names_;  // key → name
};

/// Adds "key name" to the file (made if missing), keeping its comments; by a temporary file and
/// rename. The same entry again is fine; kAlreadyExists if the name has another key or the key
/// another name.
[[nodiscard]] Status AllowKey(const std::filesystem::path& file, const std::string& public_key,
                              const ClientId& name);
/// Removes the entry of that name or key; kNotFound if there is none.
[[nodiscard]] Status RevokeKey(const std::filesystem::path& file, const std::string& key_or_name);

}  // namespace weft
