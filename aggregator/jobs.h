#pragma once
// The aggregator's long work, as plain data for the Executor. Bytes in, bytes out: the node never
// sees a tensor.

#include <string>
#include <utility>
#include <vector>

#include "common/base/bytes.h"
#include "common/config/settings.h"
#include "common/plan/certificate.h"
#include "common/plan/round_plan.h"
#include "common/runtime/executor.h"
#include "common/runtime/run_events.h"
#include "common/runtime/store.h"

namespace weft {

/// One accepted update waiting in the spool.
struct SpooledUpdate {
  UpdateHeader header;
  std::string blob;        // name in the store
  double update_norm = 0;  // ‖ΔW − the adapter it was sent‖_F, measured at admission
};

/// Server state of the strategy before round 1.
struct InitJob {
  struct Output {
    Blob state;                      // TensorBlock bytes
    std::string adapter_sha256;      // the global adapter's hash
    std::string base_change_sha256;  // of what the methods take out of the base; empty: nothing
  };
  StrategySettings strategy;
  AdapterSpec adapter;                      // global rank already decided, options of all methods
  std::vector<std::string> methods = {};    // that sites train
  std::vector<LinearSite> sites;            // already matched
  std::vector<LinearSite> base_sites = {};  // all of the base's, its head's last
  uint64_t seed = 0;
};

/// Merges a round's updates, ordered by client name, into the next state.
struct MergeJob {
  struct Output {
    Blob state;
    std::string adapter_sha256;
    Certificate certificate;
    MergeKernels kernels;
    double merge_s = 0;
  };
  StrategySettings strategy;
  std::string weighting;  // "examples", "tokens", "uniform"
  uint64_t max_examples = 0;
  RoundPlan plan;
  std::string state_blob;  // state the cohort started from
  std::vector<SpooledUpdate> updates;
  const BlobSource* store = nullptr;  // read from worker threads
};

/// The merge of a round under these settings. Who merges a round again asks for it here, too, so
/// that both mean the same.
[[nodiscard]] inline MergeJob MakeMergeJob(const Settings& settings, RoundPlan plan,
                                           std::string state_blob,
                                           std::vector<SpooledUpdate> updates,
                                           const BlobSource& store) {
  return {.strategy = settings.strategy,
          .weighting = settings.cohort.weighting,
          .max_examples = settings.cohort.max_examples,
          .plan = std::move(plan),
          .state_blob = std::move(state_blob),
          .updates = std::move(updates),
          .store = &store};
}

/// A relay's state: the global adapter that the aggregator above sent it.
struct AdoptJob {
  struct Output {
    Blob state;
    std::string adapter_sha256;
  };
  std::string strategy;           // of the run
  AdapterSpec adapter;            // the global adapter's, as the run began with it
  std::vector<LinearSite> sites;  // already matched
  Blob bundle;
};

/// What a relay's members changed, Σ p_k (ΔW_k − sent_k), as one update of the relay.
struct ForwardJob {
  struct Output {
    UpdateHeader header;  // run, round, client and base are who sends it's
    Blob payload;
    double error = 0;  // ‖payload's change − the sum‖_F / ‖the sum‖_F
    double merge_s = 0;
  };
  MergeJob round;    // strategy and state are what the members' cuts were made with
  AdapterSpec spec;  // of the update
  int64_t rank = 0;  // that it is cut to; 0: to the spec's, which all of the sum fits into
};

/// Merges the statistics that a round measured and fits a posterior to them.
struct FitJob {
  struct Output {
    Blob file;           // as `weft laplace predict` reads it
    std::string sha256;  // of the file
    double precision = 0;
    double log_marginal = 0;
    double log_likelihood = 0;
    uint64_t examples = 0;
    std::vector<ClientId> clients;  // by name
    double fit_s = 0;
  };
  std::string strategy;
  double precision = 0;    // 0: that of the largest evidence
  std::string state_blob;  // of the version that was measured
  std::vector<SpooledUpdate> updates = {};
  const BlobSource* store = nullptr;
};

/// What one client is sent: its bundle (TensorBlock with "adapter", "frozen" or both). With `whole`
/// the bundle holds the global adapter uncut, as "frozen": what an evaluator needs.
struct CutJob {
  struct Output {
    Blob bundle;
  };
  StrategySettings strategy;
  Blob state;
  ClientPlan client;  // rank and scaling of the receiver
  bool whole = false;
  std::string codec = "float32";  // of what the client trains from and of what lies beside it
  bool compress = false;
};

/// What a client is sent of `state` under these settings; see MakeMergeJob.
[[nodiscard]] inline CutJob MakeCutJob(const Settings& settings, Blob state, ClientPlan client) {
  return {.strategy = settings.strategy,
          .state = std::move(state),
          .client = std::move(client),
          .codec = settings.wire.down_codec,
          .compress = settings.wire.compress};
}

/// Checks one received update against its plan: structure, names, shapes, dtype, finiteness, norm.
/// State is not touched.
struct AdmitJob {
  struct Output {
    Status verdict;  // ok, or why it is refused
    double update_norm = 0;
  };
  ClientPlan client;
  UpdateHeader header;
  std::vector<LinearSite> sites;  // matched sites of the global adapter
  std::string blob;
  Blob bundle;                // what the client was sent
  bool measured = false;      // the payload is the statistics of the bundle's adapter, no update
  double norm_max = 0;        // of ‖ΔW − the adapter it was sent‖_F; 0: no bound
  double norm_ratio_max = 0;  // of the same to norm_median; 0: no bound
  double norm_median = 0;     // of the newest version's updates; 0: there were none
  const BlobSource* store = nullptr;
  bool delta = false;  // the plan's: what changed in the bundle's adapter, if it has one
};

/// Writes the global adapter as a PEFT folder.
struct ExportJob {
  struct Output {
    std::string folder;
  };
  Blob state;
  std::string folder;
  std::string base_model;  // for adapter_config.json
};

/// Evaluates the global adapter on the aggregator's own rows.
struct ServerEvaluateJob {
  struct Output {
    double loss = 0;
    uint64_t label_tokens = 0;
    Metrics metrics = {};  // accuracy and so on, where rows are classified
  };
  Blob state;
  RoundId version;
};

}  // namespace weft
