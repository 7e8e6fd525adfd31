#pragma once
// The messages of the round protocol as plain structs. protocols/weft.capnp is their form on the
// wire, protocols/README.md says who may send what when. wire/codec turns one into the other and
// checks every limit.

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/plan/round_plan.h"

namespace weft {

/// Version of the protocol; peers of version N and N−1 understand each other.
inline constexpr uint16_t kProtocolVersion = 1;

/// A payload on offer: the receiver pulls its chunks. The digest is the payload's name, so a
/// transfer resumes after a reconnect, and after a restart, from the first chunk missing.
struct PayloadOffer {
  std::string sha256;  // hex, of the whole payload
  uint64_t bytes = 0;
  friend bool operator==(const PayloadOffer&, const PayloadOffer&) = default;
};

// ---- client → aggregator ----

/// First message of every connection.
struct Hello {
  uint16_t protocol = kProtocolVersion;
  std::string base_hash;
  std::vector<LinearSite> sites;  // layers an adapter may sit on; must equal the aggregator's
  Capabilities capabilities;
  friend bool operator==(const Hello&, const Hello&) = default;
};

/// Sent at the interval Welcome names, also while training.
struct Heartbeat {
  RoundId round;       // being worked on, 0: none
  std::string phase;   // "wait", "download", "train", "upload", "evaluate"
  float progress = 0;  // of the phase, 0 … 1
  friend bool operator==(const Heartbeat&, const Heartbeat&) = default;
};

/// The client has trained; the aggregator pulls the payload when it has room.
struct UpdateOffer {
  UpdateHeader header;
  PayloadOffer payload;
  friend bool operator==(const UpdateOffer&, const UpdateOffer&) = default;
};

/// The client cannot deliver this round (NaN loss, out of memory, data gone); it stays a member.
struct RoundFailed {
  RoundId round;
  Code code = Code::kInternal;
  std::string reason;
  friend bool operator==(const RoundFailed&, const RoundFailed&) = default;
};

struct EvalReply {
  EvalReport report;
  friend bool operator==(const EvalReply&, const EvalReply&) = default;
};

// ---- aggregator → client ----

struct Welcome {
  uint16_t protocol = kProtocolVersion;
  RunId run;
  RoundId version;  // newest published adapter
  uint32_t num_server_rounds = 0;
  uint32_t heartbeat_ms = 0;   // how often the client is to send one
  uint32_t gone_after_ms = 0;  // silence after which either side takes the other for gone
  friend bool operator==(const Welcome&, const Welcome&) = default;
};

/// Why the aggregator will not work with this client; the link is cut after it.
struct Refusal {
  Code code = Code::kPermissionDenied;
  std::string reason;
  bool retry = false;  // the client may try again later
  friend bool operator==(const Refusal&, const Refusal&) = default;
};

/// Train this. The payload is the adapter bundle this client starts from.
struct RoundOffer {
  RoundPlan plan;  // cohort holds the receiver's entry only
  PayloadOffer payload;
  friend bool operator==(const RoundOffer&, const RoundOffer&) = default;
};

/// The round is over without this client (late, quorum reached, refused update).
struct RoundClosed {
  RoundId round;
  std::string reason;
  friend bool operator==(const RoundClosed&, const RoundClosed&) = default;
};

/// What became of an update: code kOk = accepted and on disk.
struct UpdateVerdict {
  RoundId round;
  Code code = Code::kOk;
  std::string reason;
  friend bool operator==(const UpdateVerdict&, const UpdateVerdict&) = default;
};

/// Evaluate this published adapter on your validation split.
struct EvalRequest {
  RunId run;
  RoundId version;
  double deadline_s = 0;
  PayloadOffer payload;
  friend bool operator==(const EvalRequest&, const EvalRequest&) = default;
};

/// The run has ended (or pauses); the client leaves.
struct RunEnded {
  std::string state;  // "completed", "failed", "stopped"
  std::string reason;
  friend bool operator==(const RunEnded&, const RunEnded&) = default;
};

// ---- both ways ----

/// Pull chunks [first, first + count) of a payload on offer. count bounds what is in flight.
struct ChunkRequest {
  std::string sha256;
  uint64_t first = 0;
  uint32_t count = 0;
  friend bool operator==(const ChunkRequest&, const ChunkRequest&) = default;
};

/// One chunk; its bytes are the message's second frame. All but the last are limits::kChunkBytes
/// long.
struct Chunk {
  std::string sha256;  // of the whole payload: its name
  uint64_t index = 0;
  uint64_t xxh3 = 0;  // of the chunk's bytes
  friend bool operator==(const Chunk&, const Chunk&) = default;
};

struct Goodbye {
  std::string reason;
  friend bool operator==(const Goodbye&, const Goodbye&) = default;
};

using Message = std::variant<Hello, Heartbeat, UpdateOffer, RoundFailed, EvalReply, Welcome,
                             Refusal, RoundOffer, RoundClosed, UpdateVerdict, EvalRequest, RunEnded,
                             ChunkRequest, Chunk, Goodbye>;

/// The message's name as in protocols/README.md, e.g. "update-offer".
[[nodiscard]] std::string_view MessageName(const Message& message);

}  // namespace weft
