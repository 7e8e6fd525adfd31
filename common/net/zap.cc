#include "common/net/zap.h"

#include <sys/stat.h>
#include <zmq.h>

#include "common/base/check.h"
#include "common/base/str.h"

namespace weft {
namespace {

// Request: version, id, domain, address, identity, mechanism, credentials. Reply: version, id,
// status, text, user id, metadata.
constexpr size_t kRequestFrames = 7;
constexpr size_t kRawKeyBytes = 32;
constexpr std::string_view kVersion = "1.0";

zmq::Socket& Bound(zmq::Socket& socket) {
  const int error = socket.Bind("inproc://zeromq.zap.01");
  WEFT_CHECK(error == 0, "ZAP: ", zmq_strerror(error));
  return socket;
}

// A ZMTP property: length and name, length (big-endian) and value.
std::string MetadataProperty(std::string_view name, std::string_view value) {
  std::string out(1, static_cast<char>(name.size()));
  out += name;
  for (int shift = 24; shift >= 0; shift -= 8)
    out += static_cast<char>((value.size() >> shift) & 0xFF);
  out += value;
  return out;
}

}  // namespace

Result<WatchedAllowList> WatchedAllowList::Open(const std::filesystem::path& file) {
  WatchedAllowList out;
  out.file_ = file;
  out.stamp_ = StampOf(file);
  WEFT_TRY_ASSIGN(out.list_, AllowList::Load(file));
  return out;
}

WatchedAllowList::Stamp WatchedAllowList::StampOf(const std::filesystem::path& file) {
  struct stat info {};
  if (stat(file.c_str(), &info) != 0) return {};
  return {info.st_mtim.tv_sec * int64_t{1'000'000'000} + info.st_mtim.tv_nsec,
          static_cast<uint64_t>(info.st_size), info.st_ino};
}

bool WatchedAllowList::Reread() {
  // A file written twice within the clock's grain keeps its stamp, so a young one is read every
  // time.
  constexpr int64_t kYoungNs = 3'000'000'000;
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  const int64_t now_ns = now.tv_sec * int64_t{1'000'000'000} + now.tv_nsec;
  const Stamp stamp = StampOf(file_);
  const bool young = now_ns - stamp.modified_ns < kYoungNs;
  if (stamp == stamp_ && !young) return false;
  stamp_ = stamp;
  Result<AllowList> fresh = AllowList::Load(file_);
  problem_ = fresh.status();
  if (!fresh.ok() || fresh->entries() == list_.entries()) return false;
  list_ = std::move(*fresh);
  return true;
}

ZapHandler::ZapHandler(zmq::Context& context, EventLoop& loop, const AllowList& allowed,
                       std::function<void(const std::string&)> on_refused)
    : allowed_(allowed),
      on_refused_(std::move(on_refused)),
      socket_(context, ZMQ_REP),
      source_(loop, Bound(socket_), [this](int budget) { Run(budget); }) {}

void ZapHandler::Run(int budget) {
  for (int i = 0; i < budget; ++i) {
    const std::optional<zmq::Received> request = socket_.Receive(kRequestFrames);
    if (!request) return;
    Answer(request->frames);
  }
}

void ZapHandler::Answer(const std::vector<Blob>& request) {
  // libzmq itself asks, in this process: a request of another form is a bug.
  WEFT_CHECK(request.size() == kRequestFrames && request[0].view() == kVersion, request.size());
  const std::string_view mechanism = request[5].view();
  std::string key;
  if (mechanism == "CURVE" && request[6].size() == kRawKeyBytes) {
    key.resize(kKeyTextBytes + 1);
    zmq_z85_encode(key.data(), reinterpret_cast<const uint8_t*>(request[6].data()), kRawKeyBytes);
    key.resize(kKeyTextBytes);
  }
  const std::optional<ClientId> name =
      request[2].view() == kDomain ? allowed_.NameOf(key) : std::nullopt;
  const auto reply = [&](std::string_view code, std::string_view text, std::string_view user,
                         const std::string& metadata) {
    (void)socket_.Send({request[0], request[1], Blob::Copy(code), Blob::Copy(text),
                        Blob::Copy(user), Blob::Copy(std::string_view(metadata))});
  };
  if (name) return reply("200", "OK", name->name, MetadataProperty("X-Key", key));
  reply("400", "key not allowed", "", "");
  on_refused_(key);
}

}  // namespace weft
