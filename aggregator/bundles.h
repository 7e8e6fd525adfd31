#pragma once
// Bundles: what clients are sent, cut from one state; clients whose cut is the same share the
// bytes. Owned by whoever runs a round or an evaluation; lives as long as that.

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "aggregator/office.h"
#include "common/base/bytes.h"

namespace weft {

struct Bundle {
  Blob bytes;
  PayloadOffer offer;
};

/// One set of cuts. Destroying it forgets cuts under way.
class Bundles {
 public:
  /// `codec` and `compress` as CutJob has them.
  Bundles(Office& office, std::string codec, bool compress)
      : office_(office), codec_(std::move(codec)), compress_(compress) {}

  /// Cuts a bundle for each client; `done` is called once, in the loop, with all of them or with
  /// the first failure. `whole`: the global adapter uncut, for evaluation. `older`: states of the
  /// versions that clients of earlier rounds start from.
  void Cut(const Blob& state, const std::vector<ClientPlan>& clients, bool whole,
           std::function<void(Status)> done, const std::map<RoundId, Blob>& older = {});

  /// The bundle of a client that was cut for.
  [[nodiscard]] const Bundle& For(const ClientId& client) const;

  /// Expires with this object: callbacks that belong to its round hold it weakly.
  [[nodiscard]] const std::shared_ptr<bool>& alive() const { return alive_; }

 private:
  struct Piece {
    std::shared_ptr<Bundle> bundle = std::make_shared<Bundle>();
    ClientPlan receiver;
  };
  void CutPiece(const Blob& state, const Piece& piece, bool whole);
  void Digest(const Piece& piece, Blob bytes);
  void Settle(Status status);

  Office& office_;
  std::string codec_;
  bool compress_;
  std::map<std::string, Piece> pieces_;
  std::map<ClientId, std::shared_ptr<Bundle>> by_client_;
  size_t open_ = 0;
  std::function<void(Status)> done_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace weft
