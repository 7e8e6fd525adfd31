#include "common/net/keys.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/plain_name.h"
#include "common/base/str.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

constexpr size_t kRawKeyBytes = 32;
constexpr uint64_t kKeyFileBytesMax = 4096;
constexpr uint64_t kAllowListBytesMax = 8 << 20;

std::string ErrnoText() { return std::strerror(errno); }

fs::path WithSuffix(const fs::path& path, const char* suffix) {
  fs::path out = path;
  out += suffix;
  return out;
}

// Writes a new file whole: fails if it exists, removes it again if it cannot be written.
Status WriteNewFile(const fs::path& path, std::string_view text, mode_t mode) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (fd < 0) {
    const bool exists = errno == EEXIST;
    return {exists ? Code::kAlreadyExists : Code::kNotFound,
            Str("[keys] cannot create ", path.string(), ": ", ErrnoText(),
                exists ? "; keys are never overwritten, move it away first" : "")};
  }
  (void)fchmod(fd, mode);  // exactly this mode, whatever the umask
  std::string_view rest = text;
  while (!rest.empty()) {
    const ssize_t written = write(fd, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) break;
    rest.remove_prefix(static_cast<size_t>(written));
  }
  const bool ok = rest.empty() && fsync(fd) == 0;
  const std::string why = ErrnoText();
  close(fd);
  if (ok) return OkStatus();
  std::error_code ignored;
  fs::remove(path, ignored);
  return ResourceExhausted(Str("[keys] cannot write ", path.string(), ": ", why));
}

Result<std::string> ReadSmallFile(const fs::path& path, uint64_t bytes_max) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) return NotFound(Str("[keys] no file ", path.string()));
  const uint64_t size = fs::file_size(path, error);
  if (error || size > bytes_max) {
    return InvalidArgument(
        Str("[keys] ", path.string(), ": ", size, " bytes, wanted at most ", bytes_max));
  }
  std::ifstream in(path, std::ios::binary);
  std::string text(size, '\0');
  in.read(text.data(), static_cast<std::streamsize>(size));
  if (in.gcount() != static_cast<std::streamsize>(size)) {
    return NotFound(Str("[keys] cannot read ", path.string()));
  }
  return text;
}

std::string_view Trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

// "key name" of an allow-list line; empty key for comments and blank lines. No key begins with '#':
// it is Z85's last digit, 84, and 84 * 85^4 passes the 32 bits that a group of five stands for.
struct Entry {
  std::string_view key;
  std::string_view name;
};
Entry ParseLine(std::string_view line) {
  line = Trimmed(line);
  if (line.empty() || line.front() == '#') return {};
  const size_t space = std::min(line.find_first_of(" \t"), line.size());
  return {line.substr(0, space), Trimmed(line.substr(space))};
}

std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

Status ReplaceFile(const fs::path& file, const std::string& text) {
  const fs::path temporary = WithSuffix(file, Str(".", getpid(), ".tmp").c_str());
  WEFT_TRY(WriteNewFile(temporary, text, 0644));
  std::error_code error;
  fs::rename(temporary, file, error);
  if (!error) return OkStatus();
  std::error_code ignored;
  fs::remove(temporary, ignored);
  return Internal(Str("[keys] cannot replace ", file.string(), ": ", error.message()));
}

}  // namespace

bool IsKeyText(std::string_view text) {
  // A NUL would end the text for libzmq, which then takes a shorter key for a whole one.
  if (text.size() != kKeyTextBytes || text.find('\0') != std::string_view::npos) return false;
  std::array<uint8_t, kRawKeyBytes> raw{};
  const bool valid = zmq_z85_decode(raw.data(), std::string(text).c_str()) != nullptr;
  WipeBytes(std::as_writable_bytes(std::span(raw)));
  return valid;
}

Result<KeyPair> NewKeyPair() {
  std::array<char, kKeyTextBytes + 1> public_key{};
  std::array<char, kKeyTextBytes + 1> secret_key{};
  if (zmq_curve_keypair(public_key.data(), secret_key.data()) != 0) {
    return FailedPrecondition(Str("[keys] libzmq makes no CURVE keys: ", zmq_strerror(errno)));
  }
  KeyPair pair{std::string(public_key.data()),
               SecureBytes(AsBytes(std::string_view(secret_key.data(), kKeyTextBytes)))};
  WipeBytes(std::as_writable_bytes(std::span(secret_key)));
  return pair;
}

Status WriteKeyPair(const KeyPair& pair, const fs::path& path) {
  const fs::path secret = WithSuffix(path, ".secret");
  const fs::path open_part = WithSuffix(path, ".public");
  std::error_code error;
  if (fs::exists(open_part, error)) {
    return AlreadyExists(Str("[keys] ", open_part.string(),
                             " exists; keys are never overwritten, move it away first"));
  }
  if (path.has_parent_path()) fs::create_directories(path.parent_path(), error);
  WEFT_TRY(WriteNewFile(secret, pair.secret_key.view(), 0600));
  return WriteNewFile(open_part, pair.public_key + "\n", 0644);
}

Result<KeyPair> LoadSecretKey(const fs::path& secret_file) {
  struct stat info {};
  if (stat(secret_file.c_str(), &info) != 0) {
    return NotFound(Str("[keys] no secret key at ", secret_file.string(),
                        ": make one with `weft keys new --out ",
                        fs::path(secret_file).replace_extension().string(), "`"));
  }
  if ((info.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return PermissionDenied(Str("[keys] ", secret_file.string(),
                                " is open to other users of this machine: run `chmod 600 ",
                                secret_file.string(), "`"));
  }
  WEFT_TRY_ASSIGN(std::string text, ReadSmallFile(secret_file, kKeyFileBytesMax));
  const std::string_view key = Trimmed(text);
  Result<KeyPair> out = InvalidArgument(Str("[keys] ", secret_file.string(), ": got ", key.size(),
                                            " characters, wanted a CURVE secret key of 40 in Z85"));
  std::array<char, kKeyTextBytes + 1> public_key{};
  const SecureBytes secret(AsBytes(key));
  std::array<char, kKeyTextBytes + 1> terminated{};
  if (key.size() == kKeyTextBytes) std::copy(key.begin(), key.end(), terminated.begin());
  if (IsKeyText(key) && zmq_curve_public(public_key.data(), terminated.data()) == 0) {
    out = KeyPair{std::string(public_key.data()), SecureBytes(AsBytes(key))};
  }
  WipeBytes(std::as_writable_bytes(std::span(terminated)));
  WipeBytes(std::as_writable_bytes(std::span(text)));
  return out;
}

Result<std::string> LoadPublicKey(const std::string& text_or_file) {
  if (IsKeyText(text_or_file)) return text_or_file;
  const Result<std::string> text = ReadSmallFile(text_or_file, kKeyFileBytesMax);
  if (!text.ok()) {
    return InvalidArgument(
        Str("[keys] \"", text_or_file,
            "\" is neither a public key of 40 Z85 characters nor a file with one"));
  }
  std::string key(Trimmed(*text));
  if (!IsKeyText(key)) {
    return InvalidArgument(Str("[keys] ", text_or_file, ": got ", key.size(),
                               " characters, wanted a public key of 40 in Z85"));
  }
  return key;
}

Status CheckSiteName(std::string_view name) {
  if (!IsPlainName(name)) {
    return InvalidArgument(Str("[keys] site name \"", name.substr(0, limits::kPlainNameBytesMax),
                               "\": got ", name.size(), " characters, wanted 1 to ",
                               limits::kPlainNameBytesMax,
                               " letters, digits, '.', '_' or '-', beginning with a letter or "
                               "digit"));
  }
  if (name == "aggregator")
    return InvalidArgument("[keys] the site name \"aggregator\" is the aggregator's own");
  return OkStatus();
}

// ---- allow-list ----

Result<AllowList> AllowList::Parse(std::string_view text, std::string_view where) {
  AllowList out;
  size_t number = 0;
  for (const std::string& line : Lines(std::string(text))) {
    ++number;
    const Entry entry = ParseLine(line);
    if (entry.key.empty()) continue;
    const std::string at = Str("[allow-list] ", where, ":", number);
    if (!IsKeyText(entry.key)) {
      return InvalidArgument(Str(at, ": \"", entry.key.substr(0, kKeyTextBytes),
                                 "\" is no public key of 40 Z85 characters"));
    }
    WEFT_TRY(CheckSiteName(entry.name).Within(at));
    const ClientId name{std::string(entry.name)};
    if (!out.keys_.emplace(name, entry.key).second) {
      return AlreadyExists(Str(at, ": site ", name,
                               " has a key already; one site, one key: `weft keys revoke ", name,
                               "` first"));
    }
    if (!out.names_.emplace(entry.key, name).second) {
      return AlreadyExists(
          Str(at, ": this key is already site ", out.names_.at(std::string(entry.key)), "'s"));
    }
  }
  return out;
}

Result<AllowList> AllowList::Load(const fs::path& file) {
  WEFT_TRY_ASSIGN(const std::string text, ReadSmallFile(file, kAllowListBytesMax));
  return Parse(text, file.string());
}

std::optional<ClientId> AllowList::NameOf(const std::string& public_key) const {
  const auto it = names_.find(public_key);
  if (it == names_.end()) return std::nullopt;
  return it->second;
}

std::optional<std::string> AllowList::KeyOf(const ClientId& name) const {
  const auto it = keys_.find(name);
  if (it == keys_.end()) return std::nullopt;
  return it->second;
}

Status AllowKey(const fs::path& file, const std::string& public_key, const ClientId& name) {
  WEFT_TRY(CheckSiteName(name.name));
  if (!IsKeyText(public_key))
    return InvalidArgument("[keys] not a public key of 40 Z85 characters");
  std::string text;
  std::error_code error;
  if (fs::exists(file, error)) {
    WEFT_TRY_ASSIGN(text, ReadSmallFile(file, kAllowListBytesMax));
  }
  WEFT_TRY_ASSIGN(const AllowList list, AllowList::Parse(text, file.string()));
  if (list.KeyOf(name) == public_key) return OkStatus();
  if (!text.empty() && text.back() != '\n') text += '\n';
  text += public_key + " " + name.name + "\n";
  WEFT_TRY(AllowList::Parse(text, file.string()).status());
  return ReplaceFile(file, text);
}

Status RevokeKey(const fs::path& file, const std::string& key_or_name) {
  WEFT_TRY_ASSIGN(const std::string text, ReadSmallFile(file, kAllowListBytesMax));
  WEFT_TRY(AllowList::Parse(text, file.string()).status());
  std::string kept;
  bool found = false;
  for (const std::string& line : Lines(text)) {
    const Entry entry = ParseLine(line);
    if (!entry.key.empty() && (entry.key == key_or_name || entry.name == key_or_name)) {
      found = true;
    } else {
      kept += line + "\n";
    }
  }
  if (!found)
    return NotFound(
        Str("[allow-list] ", file.string(), " has no site and no key \"", key_or_name, "\""));
  return ReplaceFile(file, kept);
}

}  // namespace weft
