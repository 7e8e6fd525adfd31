#include "client/kept_update.h"

#include <iomanip>
#include <sstream>
#include <utility>

#include "common/base/str.h"
#include "common/crypto/digest.h"
#include "common/plan/json.h"

namespace weft {
namespace {

constexpr const char* kPayloadBlob = "update/payload";
constexpr const char* kHeaderBlob = "update/header";
constexpr size_t kStatesKept = 2;

/// The run's name comes from a peer, so only its digest becomes part of a path.
std::string StatePrefix(const RunId& run) {
  return "local/" + Sha256Hex(AsBytes(run.name)).substr(0, 16) + "/round-";
}

std::string StateName(const RunId& run, RoundId round) {
  std::ostringstream name;  // ten digits, so that names sort as rounds do
  name << StatePrefix(run) << std::setw(10) << std::setfill('0') << round.number;
  return std::move(name).str();
}

Result<KeptUpdate> Parse(const Blob& text, Blob payload) {
  const std::string_view view = text.view();
  const size_t line = view.find('\n');
  if (line == std::string_view::npos) return DataLoss("its header is cut short");
  KeptUpdate update;
  update.bundle_sha256 = std::string(view.substr(0, line));
  WEFT_TRY_ASSIGN(update.header, UpdateHeaderFromJson(view.substr(line + 1)));
  if (payload.size() != update.header.payload_bytes ||
      Sha256Hex(payload.span()) != update.header.payload_sha256) {
    return DataLoss("its payload is not what its header says");
  }
  update.payload = std::move(payload);
  return update;
}

}  // namespace

void ClientDisk::Keep(const KeptUpdate& update, const Blob& local_state, Done done) {
  Store& store = context_.env.store;
  const UpdateHeader& header = update.header;
  // Writes complete in order: the first failure is told, the last success is.
  auto failed = std::make_shared<bool>(false);
  const auto step = [this, failed, done](bool last) {
    return context_.Track([failed, done, last](const Status& status) {
      if (*failed || (status.ok() && !last)) return;
      *failed = !status.ok();
      done(status);
    });
  };
  store.WriteBlob(kPayloadBlob, update.payload, step(false));
  if (!local_state.empty()) {
    store.WriteBlob(StateName(header.run, header.round), local_state, step(false));
  }
  DropOtherStates(header.run, header.round);
  store.WriteBlob(kHeaderBlob, Blob::Adopt(Str(update.bundle_sha256, "\n", ToJson(header))),
                  step(true));
}

std::optional<KeptUpdate> ClientDisk::Load() const {
  const Result<Blob> header = context_.env.store.ReadBlob(kHeaderBlob);
  if (!header.ok()) return std::nullopt;
  Result<Blob> payload = context_.env.store.ReadBlob(kPayloadBlob);
  Result<KeptUpdate> update =
      payload.ok() ? Parse(*header, std::move(*payload)) : Result<KeptUpdate>(payload.status());
  if (update.ok()) return std::move(*update);
  context_.env.log.Warn("the kept update cannot be used; the round is trained again",
                        {{"why", update.status()}});
  return std::nullopt;
}

void ClientDisk::Forget() {
  context_.env.store.RemoveBlob(kHeaderBlob, context_.Track({}));
  context_.env.store.RemoveBlob(kPayloadBlob, context_.Track({}));
}

Blob ClientDisk::LocalStateBefore(const RunId& run, RoundId round) const {
  const std::string wanted = StateName(run, round);
  std::string latest;
  for (const std::string& name : context_.env.store.ListBlobs(StatePrefix(run))) {
    if (name < wanted) latest = name;
  }
  if (latest.empty()) return {};
  Result<Blob> state = context_.env.store.ReadBlob(latest);
  if (state.ok()) return std::move(*state);
  context_.env.log.Warn("local state cannot be read; the round starts without",
                        {{"why", state.status()}});
  return {};
}

// Of the rounds before this one the last is needed, if this one has to be trained again; those
// after it are of another run of that name.
void ClientDisk::DropOtherStates(const RunId& run, RoundId round) {
  const std::string own = StateName(run, round);
  std::vector<std::string> older;
  std::vector<std::string> others;
  for (const std::string& name : context_.env.store.ListBlobs(StatePrefix(run))) {
    if (name != own) (name < own ? older : others).push_back(name);
  }
  for (size_t i = 0; i + kStatesKept <= older.size(); ++i) others.push_back(older[i]);
  for (const std::string& name : others) {
    context_.env.store.RemoveBlob(name, context_.Track({}));
  }
}

}  // namespace weft
