# The messages between clients and the aggregator. README.md says who may send what when, and what is bounded by what.
# Fields are only ever added, with the next number; a reader ignores those it does not know. Numbers are never reused.
@0xc0f4216724910eeb;

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("weft::proto");

using import "tensors.capnp".AdapterSpec;
using import "tensors.capnp".LinearSite;

# The control frame of every message. A kind the receiver does not know is answered by ignoring it (and a line in the log);
# the first message of a connection is always hello or a refusal, whose fields never change their meaning.
struct Envelope {
  protocol @0 :UInt16;   # version the sender speaks
  body :union {
    none @1 :Void;       # what an empty envelope says; never sent
    hello @2 :Hello;
    heartbeat @3 :Heartbeat;
    updateOffer @4 :UpdateOffer;
    roundFailed @5 :RoundFailed;
    evalReply @6 :EvalReport;
    welcome @7 :Welcome;
    refusal @8 :Refusal;
    roundOffer @9 :RoundOffer;
    roundClosed @10 :RoundClosed;
    updateVerdict @11 :UpdateVerdict;
    evalRequest @12 :EvalRequest;
    runEnded @13 :RunEnded;
    chunkRequest @14 :ChunkRequest;
    chunk @15 :Chunk;
    goodbye @16 :Goodbye;
  }
}

# Codes are the lower-case names of common/base/status.h ("permission-denied"); an unknown one reads as "internal".

struct PayloadOffer {
  sha256 @0 :Text;       # 64 lower-case hexadecimal digits, of the whole payload
  bytes @1 :UInt64;
}

struct Capabilities {
  software @0 :Text;
  device @1 :Text;
  memoryMb @2 :UInt64;
  rankMax @3 :Int64;
  numExamples @4 :UInt64;
  evalExamples @5 :UInt64;
  methods @6 :List(Text);
  codecs @7 :List(Text);
  members @8 :UInt32;    # of a relay: the clients that its updates are made of; 0: it is a client itself
}

struct Hello {
  protocol @0 :UInt16;
  baseHash @1 :Text;
  sites @2 :List(LinearSite);
  capabilities @3 :Capabilities;
}

struct Heartbeat {
  round @0 :UInt32;
  phase @1 :Text;
  progress @2 :Float32;
}

struct Metric {
  name @0 :Text;
  value @1 :Float64;     # may be NaN or infinite: it is a measurement
}

struct PhaseTimes {
  waitS @0 :Float64;
  downloadS @1 :Float64;
  trainS @2 :Float64;
  uploadS @3 :Float64;
  evaluateS @4 :Float64;
}

struct UpdateHeader {
  run @0 :Text;
  round @1 :UInt32;
  client @2 :Text;
  version @3 :UInt32;
  baseHash @4 :Text;
  spec @5 :AdapterSpec;
  codec @6 :Text;
  numExamples @7 :UInt64;
  labelTokens @8 :UInt64;
  steps @9 :UInt64;
  trainLoss @10 :Float64;
  metrics @11 :List(Metric);
  times @12 :PhaseTimes;
  payloadBytes @13 :UInt64;
  payloadSha256 @14 :Text;
}

struct UpdateOffer {
  header @0 :UpdateHeader;
  payload @1 :PayloadOffer;
}

struct RoundFailed {
  round @0 :UInt32;
  code @1 :Text;
  reason @2 :Text;
}

struct EvalReport {
  run @0 :Text;
  version @1 :UInt32;
  client @2 :Text;
  loss @3 :Float64;
  labelTokens @4 :UInt64;
  numExamples @5 :UInt64;
  evaluateS @6 :Float64;
}

struct Welcome {
  protocol @0 :UInt16;
  run @1 :Text;
  version @2 :UInt32;
  numServerRounds @3 :UInt32;
  heartbeatMs @4 :UInt32;
  goneAfterMs @5 :UInt32;
}

struct Refusal {
  code @0 :Text;
  reason @1 :Text;
  retry @2 :Bool;
}

struct LocalTraining {
  objective @0 :Text;
  fedproxMu @1 :Float64;
  localSteps @2 :Int64;
  localEpochs @3 :Int64;
  batchSize @4 :Int64;
  microBatchSize @5 :Int64;
  maxLen @6 :Int64;
  packing @7 :Bool;
  longRows @8 :Text;
  dtype @9 :Text;
  gradientCheckpointing @10 :Bool;
  optimizer @11 :Text;
  lr @12 :Float64;
  beta1 @13 :Float64;
  beta2 @14 :Float64;
  eps @15 :Float64;
  weightDecay @16 :Float64;
  gradClip @17 :Float64;
  schedule @18 :Text;
  warmupSteps @19 :Int64;
  scheduleSteps @20 :Int64;
  stepsDone @21 :Int64;
  keepOptimizer @22 :Bool;
  rowOrder @23 :Text = "shuffle";
}

struct ClientPlan {
  client @0 :Text;
  adapter @1 :AdapterSpec;
  merged @2 :UInt32;   # the last round that merged an update of this client, 0: none
  asked @3 :UInt32;    # the earlier round whose update it is still at, 0: this round's
}

struct RoundPlan {
  run @0 :Text;
  round @1 :UInt32;
  version @2 :UInt32;
  numServerRounds @3 :UInt32;
  baseHash @4 :Text;
  seed @5 :UInt64;
  strategy @6 :Text;
  codec @7 :Text;
  training @8 :LocalTraining;
  cohort @9 :List(ClientPlan);
  evaluators @10 :List(Text);
  deadlineS @11 :Float64;
  delta @12 :Bool;   # updates are what changed in the adapter of the bundle
  topK @13 :Float64 = 1;   # share of each tensor's change that is sent
  errorFeedback @14 :Bool;   # the rest is added to the next update's change
  compress @15 :Bool;   # lossless compression where it pays
  downCodec @16 :Text = "float32";   # of the bundle, which says so itself
  maxStaleness @17 :UInt32;   # by so many rounds an update may be late and still count
  stalenessExponent @18 :Float64 = 0.5;
}

struct RoundOffer {
  plan @0 :RoundPlan;
  payload @1 :PayloadOffer;
}

struct RoundClosed {
  round @0 :UInt32;
  reason @1 :Text;
}

struct UpdateVerdict {
  round @0 :UInt32;
  code @1 :Text;
  reason @2 :Text;
}

struct EvalRequest {
  run @0 :Text;
  version @1 :UInt32;
  deadlineS @2 :Float64;
  payload @3 :PayloadOffer;
}

struct RunEnded {
  state @0 :Text;
  reason @1 :Text;
}

struct ChunkRequest {
  sha256 @0 :Text;
  first @1 :UInt64;
  count @2 :UInt32;
}

# The chunk's bytes are the message's second frame.
struct Chunk {
  sha256 @0 :Text;
  index @1 :UInt64;
  xxh3 @2 :UInt64;
}

struct Goodbye {
  reason @0 :Text;
}
