#include "aggregator/bundles.h"

#include <utility>

#include "aggregator/cohort.h"
#include "aggregator/jobs.h"
#include "aggregator/node_jobs.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/str.h"

namespace weft {

void Bundles::Cut(const Blob& state, const std::vector<ClientPlan>& clients, bool whole,
                  std::function<void(Status)> done, const std::map<RoundId, Blob>& older) {
  WEFT_CHECK(!clients.empty() && open_ == 0);
  done_ = std::move(done);
  for (const ClientPlan& client : clients) {
    Piece& piece = pieces_[whole ? "whole" : CutKey(client)];
    if (piece.receiver.client.name.empty()) piece.receiver = client;
    by_client_[client.client] = piece.bundle;
  }
  open_ = pieces_.size();
  for (const auto& [key, piece] : pieces_) {
    const RoundId asked = piece.receiver.asked;
    CutPiece(asked.number > 0 ? older.at(StartOf(asked)) : state, piece, whole);
  }
}

void Bundles::CutPiece(const Blob& state, const Piece& piece, bool whole) {
  CutJob job = MakeCutJob(office_.options.settings, state, piece.receiver);
  job.whole = whole;
  job.codec = codec_;
  job.compress = compress_;
  Submit<CutJob>(office_.env.executor, std::move(job), Nanos{0}, std::make_shared<JobControl>(),
                 [this, piece, alive = std::weak_ptr<bool>(alive_)](Result<CutJob::Output> cut) {
                   if (alive.expired() || office_.over()) return;
                   if (!cut.ok()) return Settle(cut.status());
                   Digest(piece, std::move(cut->bundle));
                 });
}

void Bundles::Digest(const Piece& piece, Blob bytes) {
  if (bytes.size() > limits::kPayloadBytesMax) {
    return Settle(ResourceExhausted(Str("[bundle] got ", bytes.size(), " bytes, wanted at most ",
                                        limits::kPayloadBytesMax, "; lower the ranks")));
  }
  piece.bundle->bytes = bytes;
  piece.bundle->offer.bytes = bytes.size();
  Submit<DigestJob>(office_.env.executor, DigestJob{std::move(bytes)}, Nanos{0},
                    std::make_shared<JobControl>(),
                    [this, bundle = piece.bundle,
                     alive = std::weak_ptr<bool>(alive_)](Result<std::string> digest) {
                      if (alive.expired() || office_.over()) return;
                      if (digest.ok()) bundle->offer.sha256 = *digest;
                      Settle(digest.status());
                    });
}

void Bundles::Settle(Status status) {
  if (!done_) return;  // a failure was already told
  if (status.ok() && --open_ > 0) return;
  std::exchange(done_, nullptr)(std::move(status));
}

const Bundle& Bundles::For(const ClientId& client) const {
  const auto it = by_client_.find(client);
  WEFT_CHECK(it != by_client_.end(), "no bundle was cut for ", client);
  return *it->second;
}

}  // namespace weft
