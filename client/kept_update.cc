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

/// Its own digest, the bundle's, and the header: a line each.
Blob HeaderText(const KeptUpdate& update) {
  const std::string text = Str(update.bundle_sha256, "\n", ToJson(update.header));
  return Blob::Adopt(Str(Sha256Hex(AsBytes(text)), "\n", text));
}

/// Where the SHA-256 of a state's bytes lies: not beside it, for people look for the newest there.
std::string DigestName(const std::string& state) { return "check/" + state; }

Result<KeptUpdate> Parse(const Blob& text, Blob payload) {
  const std::string_view view = text.view();
  const size_t first = view.find('\n');
  const size_t second = first == std::string_view::npos ? first : view.find('\n', first + 1);
  if (second == std::string_view::npos) return DataLoss("its header is cut short");
  const std::string_view own = view.substr(first + 1);
  if (Sha256Hex(AsBytes(own)) != view.substr(0, first)) return DataLoss("its header is damaged");
  KeptUpdate update;
  update.bundle_sha256 = std::string(view.substr(first + 1, second - first - 1));
  WEFT_TRY_ASSIGN(update.header, UpdateHeaderFromJson(view.substr(second + 1)));
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
    const std::string name = StateName(header.run, header.round);
    store.RemoveBlob(DigestName(name), step(false));  // of an earlier try at this round
    store.WriteBlob(name, local_state, step(false));
    store.WriteBlob(DigestName(name), Blob::Adopt(Sha256Hex(local_state.span())), step(false));
  }
  DropOtherStates(header.run, header.round);
  store.WriteBlob(kHeaderBlob, HeaderText(update), step(true));
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
  std::vector<std::string> before = context_.env.store.ListBlobs(StatePrefix(run));
  std::erase_if(before, [&](const std::string& name) { return name >= wanted; });
  for (auto name = before.rbegin(); name != before.rend(); ++name) {
    Result<Blob> state = ReadState(*name);
    if (state.ok()) return std::move(*state);
    context_.env.log.Error("local state is damaged; the one before is used, if there is one",
                           {{"file", *name}, {"why", state.status()}});
  }
  return {};
}

Result<Blob> ClientDisk::ReadState(const std::string& name) const {
  WEFT_TRY_ASSIGN(Blob state, context_.env.store.ReadBlob(name));
  const Result<Blob> digest = context_.env.store.ReadBlob(DigestName(name));
  if (!digest.ok()) return state;  // written before there were any, or the process died in between
  const std::string got = Sha256Hex(state.span());
  if (got == digest->view()) return state;
  return DataLoss(Str("SHA-256 is ", got, ", wanted ", digest->view()));
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
    context_.env.store.RemoveBlob(DigestName(name), context_.Track({}));
  }
}

}  // namespace weft
