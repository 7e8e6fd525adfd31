#pragma once
// RoundPlan: all that makes a round reproducible. UpdateHeader: all that one client says about one
// round except its tensors. Capabilities: what a site offers. Plain data, torch-free; the
// vocabulary of the round protocol.

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/base/ids.h"
#include "common/plan/adapter_spec.h"

namespace weft {

/// Bounds of LocalTraining's counts, for settings, flags and plans alike: far above any use, and
/// low enough that no product of theirs overflows.
inline constexpr int64_t kBatchRowsMax = int64_t{1} << 20;
inline constexpr int64_t kRowTokensMax = int64_t{1} << 24;
inline constexpr int64_t kTrainStepsMax = int64_t{1} << 40;
inline constexpr int64_t kTrainEpochsMax = int64_t{1} << 20;

/// How a client trains locally in one round. Defaults are AdamW's and PEFT's usual ones.
struct LocalTraining {
  std::string objective = "sft";  // a name of the objective registry: "sft", "fedprox"
  double fedprox_mu = 0.01;  // µ of ½µ‖θ − θ_sent‖² (Li et al. 2020), for "fedprox"
  int64_t local_steps = 0;   // optimiser steps in the round; 0: local_epochs passes over the data
  int64_t local_epochs = 1;
  int64_t batch_size = 8;  // rows per optimiser step
  int64_t micro_batch_size =
      0;                // rows per forward/backward; 0: planned from memory, at most batch_size
  int64_t max_len = 0;  // tokens per row; 0: the model's context
  bool packing = true;  // pack rows without padding, attention per row; false: pad to the longest
  std::string row_order = "shuffle";  // by (seed, client, round); "file": as they come, wrapping
  std::string long_rows =
      "cut";  // rows over max_len: "cut" at max_len, or "drop"; both are counted
  std::string dtype = "float32";  // of the computation
  bool gradient_checkpointing = false;

  std::string optimizer = "adamw";
  double lr = 1e-4;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;
  double grad_clip = 0;               // maximum global gradient norm; 0: none
  std::string schedule = "constant";  // "constant", "linear", "cosine": over all rounds together
  int64_t warmup_steps = 0;
  int64_t schedule_steps = 0;  // length of the decay; 0: steps per round × number of rounds
  int64_t steps_done = 0;      // optimiser steps this schedule has already taken in earlier rounds
  bool keep_optimizer =
      false;  // keep AdamW's moments over rounds (only where the basis is unchanged)

  friend bool operator==(const LocalTraining&, const LocalTraining&) = default;
};

/// The objective of a round that trains nothing: clients measure the curvature of the adapter they
/// are sent (Laplace-LoRA) and send its statistics in place of an update.
inline constexpr const char* kMeasureObjective = "laplace";

[[nodiscard]] inline bool Measures(const LocalTraining& training) {
  return training.objective == kMeasureObjective;
}

/// What one member of the cohort is asked to train.
struct ClientPlan {
  ClientId client;
  AdapterSpec adapter;  // rank already planned for this site
  /// The last round that merged an update of this client; 0: none did. What its update left out of
  /// that round it owes to the next.
  RoundId merged = {};
  /// The earlier round that asked it for the update it is still at; 0: this round asks.
  RoundId asked = {};

  friend bool operator==(const ClientPlan&, const ClientPlan&) = default;
};

struct RoundPlan {
  RunId run;
  RoundId round;
  RoundId version;  // the global adapter the cohort starts from (round that published it)
  uint32_t num_server_rounds = 0;
  std::string base_hash;  // SHA-256 hex of the base model
  uint64_t seed = 0;
  std::string strategy;           // a name of the strategy registry
  std::string codec = "float32";  // a name of the codec registry, for uploads
  LocalTraining training;
  std::vector<ClientPlan> cohort;    // ordered by client name; a client is sent only its own entry
  std::vector<ClientId> evaluators;  // clients asked to evaluate what the round publishes
  double deadline_s = 600;           // from the plan's sending to the last accepted update
  /// An update holds what changed in the adapter that its client was sent; where it was sent none
  /// to start from, all of it.
  bool delta = false;
  double top_k = 1;                    // share of each tensor's change that is sent, the largest
  bool error_feedback = false;         // what was not sent is added to the next update's change
  bool compress = false;               // lossless compression where it pays
  std::string down_codec = "float32";  // of the adapters that the cohort is sent
  /// Updates that come this many rounds late or fewer still count, the change of one that is τ
  /// rounds late by (1 + τ)^−staleness_exponent (FedBuff, Nguyen et al. 2022). 0: none does.
  uint32_t max_staleness = 0;
  double staleness_exponent = 0.5;

  friend bool operator==(const RoundPlan&, const RoundPlan&) = default;
};

/// The round whose plan a member of the cohort works by.
[[nodiscard]] inline RoundId AskedIn(const RoundPlan& plan, const ClientPlan& client) {
  return client.asked.number > 0 ? client.asked : plan.round;
}

/// The version that those asked in that round start from.
[[nodiscard]] inline RoundId StartOf(RoundId asked) { return RoundId{asked.number - 1}; }

/// Named numbers, in the order reported.
using Metrics = std::vector<std::pair<std::string, double>>;

/// Seconds a client spent in the phases of one round.
struct PhaseTimes {
  double wait_s = 0;
  double download_s = 0;
  double train_s = 0;
  double upload_s = 0;
  double evaluate_s = 0;

  friend bool operator==(const PhaseTimes&, const PhaseTimes&) = default;
};

struct UpdateHeader {
  RunId run;
  RoundId round;
  ClientId client;
  RoundId version;  // the version it started from
  std::string base_hash;
  AdapterSpec spec;  // what it trained
  std::string codec;
  uint64_t num_examples = 0;  // rows used, counted once per use
  uint64_t label_tokens = 0;  // tokens that carried loss
  uint64_t steps = 0;         // optimiser steps taken
  double train_loss = 0;      // mean over the round's label tokens
  Metrics metrics;            // first_loss, last_loss, update_norm, rows_cut …
  PhaseTimes times;
  uint64_t payload_bytes = 0;
  std::string payload_sha256;  // hex

  friend bool operator==(const UpdateHeader&, const UpdateHeader&) = default;
};

/// What a site offers when it joins.
struct Capabilities {
  std::string software;  // "weft 0.1.0"
  std::string device;    // "cpu", "cuda:0"
  uint64_t memory_mb = 0;
  int64_t rank_max = 0;        // largest rank it will train
  uint64_t num_examples = 0;   // training rows it holds
  uint64_t eval_examples = 0;  // validation rows; 0: it cannot evaluate
  std::vector<std::string> methods;
  std::vector<std::string> codecs;
  uint32_t members = 0;  // of a relay: the clients that its updates are made of; 0: it is a client

  friend bool operator==(const Capabilities&, const Capabilities&) = default;
};

/// What a client reports about one published adapter on its own validation split.
struct EvalReport {
  RunId run;
  RoundId version;
  ClientId client;
  double loss = 0;  // mean over label tokens
  uint64_t label_tokens = 0;
  uint64_t num_examples = 0;
  double evaluate_s = 0;

  friend bool operator==(const EvalReport&, const EvalReport&) = default;
};

}  // namespace weft
