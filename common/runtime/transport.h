#pragma once
// Transport: the seam that carries bytes between named peers; it knows no messages. Production:
// ZeroMQ ROUTER/DEALER over tcp with CURVE and a ZAP allow-list; one process: queues; simulation:
// the same frames through delay, loss, partition.
//
// A peer is named by what was authenticated (the allow-list's name for its key), never by what it
// says about itself. On a client the one peer is kAggregator.

#include <memory>
#include <string>

#include "common/base/bytes.h"
#include "common/base/ids.h"
#include "common/base/status.h"

namespace weft {

inline const ClientId kAggregator{"aggregator"};

/// One message: a control part (Cap'n Proto, ≤ limits::kControlBytesMax) and, for a chunk, its
/// bytes.
struct Frames {
  Blob control;
  Blob chunk;
};

class Transport {
 public:
  class Receiver {
   public:
    virtual ~Receiver() = default;
    /// A message from an authenticated peer; a peer is first known by its first message.
    virtual void OnFrames(const ClientId& from, Frames frames) = 0;
    /// The link to the peer is known to be gone, was cut, or (client) was refused; `why` says
    /// which.
    virtual void OnPeerGone(const ClientId& peer, const Status& why) = 0;
  };

  virtual ~Transport() = default;

  /// Who gets what arrives; set once, before the loop runs.
  virtual void SetReceiver(Receiver* receiver) = 0;

  /// Queues a message. kUnavailable: no such peer; kResourceExhausted: its queue is full (try again
  /// later); kInvalidArgument: over a limit. Frames to one peer arrive in order or not at all.
  virtual Status Send(const ClientId& to, Frames frames) = 0;

  /// Drops the link to a peer (protocol violation, revoked key); its messages in flight are not
  /// delivered.
  virtual void Cut(const ClientId& peer, const Status& why) = 0;
};

}  // namespace weft
