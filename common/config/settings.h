#pragma once
// Settings: every setting of Weft once, with its default. One struct serves the aggregator, the
// clients, the simulator and `weft train`; each reads the sections it needs. VisitSettings
// (settings.cc) is the single table of keys, defaults and descriptions behind the TOML reader,
// --set section.key=value, WEFT_SECTION_KEY variables, unknown-key errors with the nearest known
// key, printing, and docs/configuration.md.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "common/plan/adapter_spec.h"
#include "common/plan/round_plan.h"

namespace weft {

/// [run]
struct RunSettings {
  std::string name = "run";
  uint64_t seed = 1;
  int64_t num_server_rounds = 5;  // Flower's word
  std::string dir;                // run folder of the aggregator; empty: "runs/<name>"
  bool keep_updates = false;      // merged updates and the states they changed stay in it
  std::string log_level = "info";
};

/// [model]
struct ModelSettings {
  std::string path;  // HF folder; the aggregator may do without weights when `base` is given
  std::string base;  // base.json (hash, layers), written by `weft init`
  std::string device = "auto";  // cpu | cuda | cuda:N | auto
  int64_t threads = 0;          // torch threads; 0: all cores (weft-sim: cores / workers)
  std::string chat_template;    // a name that ChatTemplate knows; empty: the tokenizer's own
};

/// [robust]: what keeps one client from bending the merge. All but the clip replace the mean, and
/// act on what each client changed, D_k = ΔW_k − sent_k, in product space.
struct RobustSettings {
  std::string rule = "none";
  int64_t byzantine = 0;      // f: how many clients may lie (krum, multi-krum, bulyan)
  int64_t keep = 0;           // multi-krum: how many updates are averaged; 0: clients − f
  double trim = 0.2;          // trimmed-mean: the share cut off at each end
  double min_cosine = 0;      // cosine: less than this to the robust mean is left out
  std::string trusted;        // fltrust: the client whose update the others are measured by
  std::string clip = "none";  // "none", "fixed" at clip_norm, or "median" of the round's norms
  double clip_norm = 1;
};

/// [server-optimizer]: how the global adapter follows what a round would change (Reddi et al.
/// 2021).
struct ServerOptimizerSettings {
  std::string name = "none";  // "momentum", "adam", "yogi", "adagrad"
  double lr = 1;
  double beta1 = 0.9;
  double beta2 = 0.99;
  double tau = 1e-3;  // of adam, yogi, adagrad: added to √v, in units of the change's first rms
};

/// [strategy], and the steps around it.
struct StrategySettings {
  std::string name = "exact-svd";
  int64_t global_rank = 0;  // rank kept; 0: the largest rank of any client
  double energy = 0;  // keep the least rank with this share of Σσ²; 0: global_rank alone decides
  bool carry = true;  // exact-svd: carry the tail that low-rank clients were not sent
  // Which slots a low-rank client trains: "top", "random", or "auto": random ones where the rule
  // knows of such and the tail is carried, else top ones.
  std::string slots = "auto";
  bool tail_on_client = false;  // slots that a client does not train lie frozen beside its own
  std::string split =
      "left";  // how singular values are shared: "left" (B = U·S) or "balanced" (√S on both)
  int64_t stack_budget_mb = 64;  // frozen stacks are recompressed beyond this
  std::string absorb =
      "B";  // fedavg: where a client's α/r goes: "B", "sqrt" (both), "raw" (nowhere)
  std::string norm_scope = "model";  // hetlora: norms of the whole "model" or of each "layer"
  double ridge = 0.01;               // lora-fair: λ
  double soften = 0.5;               // fedrot: share of the rotation in its mix with the identity
  int64_t oversample = 8;            // fedask: columns of the sketch beyond the rank
  int64_t period = 1;                // fedsvd: rounds between two new bases
  RobustSettings robust = {};
  ServerOptimizerSettings optimizer = {};
};

/// [wire]
struct WireSettings {
  std::string codec = "float32";       // of updates
  bool delta = false;                  // updates are what changed in what was sent
  double top_k = 1;                    // share of each tensor's change that is sent; 1: all
  bool error_feedback = true;          // what was not sent is added to the next change
  bool compress = false;               // lossless compression where it pays, both ways
  std::string down_codec = "float32";  // of what clients are sent to train from
};

/// [cohort]
struct CohortSettings {
  double fraction_train = 1.0;
  double fraction_evaluate = 1.0;
  int64_t min_train_nodes = 1;
  int64_t min_available_nodes = 1;
  double quorum = 1.0;      // share of the cohort whose updates let a round close at its deadline
  double deadline_s = 600;  // of a round
  double grace_s =
      0;  // after quorum is reached, how long stragglers are waited for; 0: until the deadline
  double evaluate_deadline_s = 120;
  double join_deadline_s =
      600;  // how long to wait for min-available-nodes before the run fails; 0: for ever
  uint64_t max_examples = 1000000;     // num-examples of one client counts at most this much
  std::string weighting = "examples";  // "examples", "tokens" or "uniform"
  double update_norm_max = 0;  // an update with a larger ‖ΔW − sent‖_F is refused; 0: no bound
  double update_norm_ratio_max = 1000;  // likewise, in medians of the newest version's updates
  int64_t buffer = 0;               // so many updates close a round at once; 0: the whole cohort's
  int64_t max_staleness = 0;        // rounds by which an update may be late and count; 0: none may
  double staleness_exponent = 0.5;  // an update τ rounds late counts by (1 + τ)^−this
  int64_t round_retries =
      2;  // a round that misses its quorum is tried again this often before the run fails
};

/// [evaluate]: on the aggregator; clients evaluate on their own validation split.
struct EvaluateSettings {
  std::string data;
  int64_t max_rows = 0;  // 0: all
  int64_t batch_size = 16;
};

/// [laplace]: a Laplace posterior over the final adapter (Laplace-LoRA), of statistics that clients
/// measure on their training rows after the last round.
struct LaplaceSettings {
  bool fit = false;
  double precision = 0;  // prior precision λ; 0: that of the largest evidence
};

/// [server]
struct ServerSettings {
  std::string bind = "tcp://127.0.0.1:7711";
  std::string address;     // what clients connect to; empty: bind
  std::string secret_key;  // file, mode 0600, from `weft keys new`
  std::string public_key;  // text (Z85) or file; for clients
  std::string allow_list;  // file of "public-key name" lines, re-read while running
  double heartbeat_s = 5;
  double gone_after_s = 20;
  int64_t uploads_at_once = 8;  // updates pulled at the same time
  std::string metrics_bind;
};

/// One site: [[client]] of a run file, or [client] of a site's own file.
struct ClientSettings {
  std::string name;
  std::string data;           // training rows, JSONL
  std::string valid;          // validation rows; empty: `valid_fraction` of data
  double valid_fraction = 0;  // the last rows of data kept out of training
  std::string rank = "auto";  // number, or "auto": planned from memory and link speed
  std::string method;         // adapter method this site trains; empty: the run's
  std::string secret_key;
  std::string dir;  // local state; empty: "client-<name>"
  int64_t max_rows = 0;
};

/// [relay]: what a relay is to the aggregator above; [server] is what it is to its own members.
struct RelaySettings {
  std::string name;        // on the allow-list above
  std::string address;     // tcp://host:port of the aggregator above
  std::string public_key;  // its public key, text (Z85) or file
  std::string secret_key;  // the relay's file as that aggregator's client
  int64_t rank = 0;        // that its updates are cut to; 0: none is cut
};

/// [sim]
struct SimSettings {
  int64_t clients = 0;  // virtual clients made by partitioning `data`; 0: the [[client]] tables
  std::string data;
  std::string partition = "iid";  // iid | round-robin | dirichlet | field | shard | size
  std::string field;              // for dirichlet and field
  double dirichlet_alpha = 0.5;
  int64_t shards_per_client = 2;
  int64_t eval_rows = 0;             // first rows of data kept for evaluation on the aggregator
  std::vector<int64_t> ranks;        // given to clients in turn; empty: adapter.rank
  std::vector<std::string> methods;  // likewise; empty: adapter.method
  int64_t relays = 0;                // between the aggregator and the clients; 0: none
  int64_t workers = 0;               // 0: all cores
  std::string world =
      "virtual";          // "virtual" (simulated time and network) or "inproc" (real time, queues)
  double latency_ms = 5;  // one way
  double bandwidth_mbps = 100;  // per client
  double step_cost_ms = 100;    // modelled cost of one optimiser step
  double step_cost_spread = 0;  // each client's is this times exp(spread·z), z of N(0, 1)
  int64_t memory_mb = 0;        // refuse to start above this plan; 0: 90 % of what is free
  std::string attack = "none";  // what hostile clients ship; a name of sim/attack.h
  int64_t attackers = 0;        // how many of the clients, the last ones by name, are hostile
  double attack_scale = 0;      // the one number of the attack; 0: its usual one
};

/// Where an adapter sits unless the settings say otherwise.
[[nodiscard]] inline AdapterSpec OnEveryLinearLayer() {
  AdapterSpec spec;
  spec.target_modules = {"all-linear"};
  return spec;
}

struct Settings {
  RunSettings run;
  ModelSettings model;
  AdapterSpec adapter = OnEveryLinearLayer();
  LocalTraining train;
  StrategySettings strategy;
  WireSettings wire;
  CohortSettings cohort;
  EvaluateSettings evaluate;
  LaplaceSettings laplace;
  ServerSettings server;
  std::vector<ClientSettings> clients;
  RelaySettings relay;
  SimSettings sim;
};

}  // namespace weft
