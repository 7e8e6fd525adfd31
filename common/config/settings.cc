// The single table of settings: key, place, description, rule. Defaults are those of settings.h,
// round_plan.h and adapter_spec.h.

#include "common/config/settings.h"

#include <algorithm>
#include <concepts>
#include <string>
#include <string_view>

#include "common/base/plain_name.h"
#include "common/config/binding.h"

namespace weft {
namespace {

constexpr Rule kAny;

Rule AtLeast(double min) {
  Rule rule;
  rule.min = min;
  return rule;
}
Rule Between(double min, std::convertible_to<double> auto max) {
  Rule rule = AtLeast(min);
  rule.max = static_cast<double>(max);
  return rule;
}
Rule Above(double min) {
  Rule rule = AtLeast(min);
  rule.above_min = true;
  return rule;
}
Rule AboveUpTo(double min, double max) {
  Rule rule = Above(min);
  rule.max = max;
  return rule;
}
Rule From(double min, double below) {
  Rule rule = Between(min, below);
  rule.below_max = true;
  return rule;
}
Rule OneOf(std::vector<std::string_view> words) {
  Rule rule;
  rule.words = std::move(words);
  return rule;
}
Rule Path() {
  Rule rule;
  rule.path = true;
  return rule;
}
Rule Form(bool (*form)(const std::string&), std::string_view wanted) {
  Rule rule;
  rule.form = form;
  rule.form_wanted = wanted;
  return rule;
}

constexpr std::string_view kDigits = "0123456789";

bool AllOf(std::string_view text, std::string_view allowed) {
  return text.find_first_not_of(allowed) == std::string_view::npos;
}

bool IsNumber(std::string_view text, size_t digits_max) {
  return !text.empty() && text.size() <= digits_max && AllOf(text, kDigits);
}

Rule Name() {
  static const std::string wanted =
      Str("a name of letters, digits, dots, dashes and underscores, at most ",
          limits::kPlainNameBytesMax, ", the first a letter or digit");
  return Form([](const std::string& text) { return IsPlainName(text); }, wanted);
}

bool IsDevice(const std::string& text) {
  constexpr std::string_view kNumbered = "cuda:";
  return text == "auto" || text == "cpu" || text == "cuda" ||
         (text.compare(0, kNumbered.size(), kNumbered) == 0 &&
          IsNumber(std::string_view(text).substr(kNumbered.size()), 3));
}

// HOST:PORT; IPv6 hosts are bracketed and hold colons themselves.
bool IsHostPort(const std::string& text) {
  constexpr int kPortMax = 65535;
  const size_t colon = text.rfind(':');
  return colon != std::string::npos && colon > 0 && text.find('/') == std::string::npos &&
         IsNumber(std::string_view(text).substr(colon + 1), 5) &&
         std::stoi(text.substr(colon + 1)) <= kPortMax;
}

// Other transports would carry no CURVE security. Port * lets the system choose one.
bool IsTcp(const std::string& text) {
  constexpr std::string_view kTcp = "tcp://";
  if (text.compare(0, kTcp.size(), kTcp) != 0) return false;
  std::string rest = text.substr(kTcp.size());
  if (!rest.empty() && rest.back() == '*') rest.back() = '0';
  return IsHostPort(rest);
}
constexpr std::string_view kTcpWanted = "tcp://HOST:PORT";

void BindRun(std::vector<Binding>& t, Settings& s) {
  t.push_back({"run", "name", &s.run.name, "Name of the run.", Name()});
  t.push_back({"run", "seed", &s.run.seed,
               "Everything random follows from it: cohorts, shuffling, initial adapters.", kAny});
  t.push_back({"run", "num-server-rounds", &s.run.num_server_rounds,
               "Rounds of training; round 0 is the initial adapter.", Between(0, 1e9)});
  t.push_back(
      {"run", "dir", &s.run.dir, "Run folder of the aggregator; empty: `runs/NAME`.", Path()});
  t.push_back({"run", "keep-updates", &s.run.keep_updates,
               "Keep every merged update and the state it was merged into, so that `weft runs "
               "verify` can merge each round again; a round then costs the disk its updates and a "
               "state.",
               kAny});
  t.push_back({"run", "log-level", &s.run.log_level, "Least severe lines that are logged.",
               OneOf({"debug", "info", "warn", "error", "off"})});
}

void BindModel(std::vector<Binding>& t, Settings& s) {
  t.push_back({"model", "path", &s.model.path, "Folder of the base model in Hugging Face's layout.",
               Path()});
  t.push_back({"model", "base", &s.model.base,
               "File that `weft init` wrote about the base model (hash, layers): with it the "
               "aggregator needs no weights.",
               Path()});
  t.push_back({"model", "device", &s.model.device,
               "Where to compute; `auto`: CUDA if there is one.",
               Form(IsDevice, "auto, cpu, cuda or cuda:N")});
  t.push_back({"model", "threads", &s.model.threads,
               "Threads of one computation; 0: all cores (in the simulator: cores / workers).",
               Between(0, 4096)});
  t.push_back({"model", "chat-template", &s.model.chat_template,
               "Template of `messages` rows; empty: the tokenizer's own.",
               OneOf({"", "chatml", "llama2", "llama3", "mistral", "qwen3", "smollm2"})});
}

void BindAdapter(std::vector<Binding>& t, Settings& s) {
  AdapterSpec& a = s.adapter;
  const Rule rank = Between(1, limits::kRankMax);
  t.push_back({"adapter", "method", &a.method, "Adapter method, a name of the registry.", kAny});
  t.push_back({"adapter", "rank", &a.rank,
               "Rank r of the factors; a client's own rank may differ (`client.rank`).", rank});
  t.push_back(
      {"adapter", "alpha", &a.alpha, "The adapter's output is scaled by alpha / r.", Above(0)});
  t.push_back({"adapter", "rslora", &a.rslora, "Scale by alpha / √r instead.", kAny});
  t.push_back(
      {"adapter", "dropout", &a.dropout, "On the adapter's input, while training.", From(0, 1)});
  t.push_back({"adapter", "target-modules", TargetsRef{&a.target_modules, &a.target_regex},
               "Linear layers that carry the adapter.", kAny});
  t.push_back({"adapter", "exclude-modules", &a.exclude_modules,
               "Layers that do not, by the same matching; wins over target-modules.", kAny});
  t.push_back({"adapter", "layers-to-transform", &a.layers_to_transform,
               "Numbers of the layers to adapt; empty: all.", AtLeast(0)});
  t.push_back({"adapter", "layers-pattern", &a.layers_pattern,
               "Name of the list of layers in the model; empty: found by itself.", kAny});
  t.push_back({"adapter", "rank-pattern", &a.rank_pattern,
               "Rank of layers whose path ends in the pattern; the first that matches wins.",
               rank});
  t.push_back({"adapter", "alpha-pattern", &a.alpha_pattern, "The same for alpha.", Above(0)});
  t.push_back({"adapter", "modules-to-save", &a.modules_to_save,
               "Whole modules trained and shipped beside the factors.", kAny});
  t.push_back({"adapter", "labels", &a.labels,
               "Names of the classes by id, of an encoder; its head is trained by modules-to-save.",
               kAny});
  t.push_back({"adapter", "options", &a.options, "Settings that only one method knows.", kAny});
}

void BindTraining(std::vector<Binding>& t, Settings& s) {
  LocalTraining& l = s.train;
  const Rule steps = Between(0, kTrainStepsMax);
  t.push_back({"train", "objective", &l.objective, "Local objective: `sft` or `fedprox`.", kAny});
  t.push_back(
      {"train", "fedprox-mu", &l.fedprox_mu, "µ of fedprox's ½µ‖θ − θ_sent‖².", AtLeast(0)});
  t.push_back({"train", "local-steps", &l.local_steps,
               "Optimiser steps in a round; 0: local-epochs passes over the data.", steps});
  t.push_back({"train", "local-epochs", &l.local_epochs, "Passes over the data in a round.",
               Between(1, kTrainEpochsMax)});
  t.push_back({"train", "batch-size", &l.batch_size, "Rows per optimiser step.",
               Between(1, kBatchRowsMax)});
  t.push_back({"train", "micro-batch-size", &l.micro_batch_size,
               "Rows per forward and backward pass; 0: planned from memory.",
               Between(0, kBatchRowsMax)});
  t.push_back({"train", "max-len", &l.max_len, "Tokens per row; 0: the model's context.",
               Between(0, kRowTokensMax)});
  t.push_back({"train", "packing", &l.packing,
               "Pack rows without padding (attention stays within a row); false: pad.", kAny});
  t.push_back({"train", "row-order", &l.row_order,
               "`shuffle` by (seed, client, round), or `file`: as they come.",
               OneOf({"shuffle", "file"})});
  t.push_back({"train", "long-rows", &l.long_rows, "Rows over max-len are cut there, or dropped.",
               OneOf({"cut", "drop"})});
  t.push_back({"train", "dtype", &l.dtype,
               "Of the computation, whatever the stored type; on a CPU without matrix units for "
               "bfloat16 its matrices are held and multiplied in float32.",
               OneOf({"float32", "bfloat16"})});
  t.push_back({"train", "gradient-checkpointing", &l.gradient_checkpointing,
               "Recompute activations in the backward pass: less memory, more time.", kAny});
  t.push_back({"train", "optimizer", &l.optimizer, "Optimiser.", OneOf({"adamw"})});
  t.push_back({"train", "lr", &l.lr, "Learning rate.", Above(0)});
  t.push_back({"train", "beta1", &l.beta1, "AdamW's β₁.", From(0, 1)});
  t.push_back({"train", "beta2", &l.beta2, "AdamW's β₂.", From(0, 1)});
  t.push_back({"train", "eps", &l.eps, "AdamW's ε.", Above(0)});
  t.push_back({"train", "weight-decay", &l.weight_decay, "Decoupled weight decay.", AtLeast(0)});
  t.push_back(
      {"train", "grad-clip", &l.grad_clip, "Largest global gradient norm; 0: none.", AtLeast(0)});
  t.push_back({"train", "schedule", &l.schedule, "Of the learning rate, over all rounds together.",
               OneOf({"constant", "linear", "cosine"})});
  t.push_back(
      {"train", "warmup-steps", &l.warmup_steps, "Steps over which the rate rises from 0.", steps});
  t.push_back({"train", "schedule-steps", &l.schedule_steps,
               "Length of the decay; 0: steps per round × rounds.", steps});
  t.push_back({"train", "keep-optimizer", &l.keep_optimizer,
               "Keep AdamW's moments over rounds, where the basis is unchanged.", kAny});
}

void BindStrategy(std::vector<Binding>& t, Settings& s) {
  StrategySettings& rule = s.strategy;
  t.push_back({"strategy", "name", &rule.name,
               "How updates are merged; docs/strategies.md says what each does.", kAny});
  t.push_back({"strategy", "global-rank", &rule.global_rank,
               "Rank kept; 0: the largest of any client.", Between(0, limits::kRankMax)});
  t.push_back({"strategy", "energy", &rule.energy,
               "Keep the least rank with this share of Σσ²; 0: global-rank decides.",
               Between(0, 1)});
  t.push_back({"strategy", "carry", &rule.carry,
               "exact-svd: carry the tail that clients of low rank were not sent.", kAny});
  t.push_back({"strategy", "slots", &rule.slots,
               "Which slots a client of low rank trains; `auto`: random ones in each round, the "
               "others frozen beside them (exact-svd with carry), else the top ones.",
               OneOf({"auto", "top", "random"})});
  t.push_back({"strategy", "tail-on-client", &rule.tail_on_client,
               "Slots that a client does not train lie frozen beside its own.", kAny});
  t.push_back({"strategy", "split", &rule.split,
               "Singular values go to B, or √ of them to both factors.",
               OneOf({"left", "balanced"})});
  t.push_back({"strategy", "stack-budget-mb", &rule.stack_budget_mb,
               "Frozen stacks are recompressed beyond this.", AtLeast(1)});
  t.push_back(
      {"strategy", "absorb", &rule.absorb,
       "fedavg: α/r of a client goes into its B, as a root into both, or nowhere (raw: only "
       "to compare with).",
       OneOf({"B", "sqrt", "raw"})});
  t.push_back({"strategy", "norm-scope", &rule.norm_scope,
               "hetlora: weights from norms of the whole model, or layer by layer.",
               OneOf({"model", "layer"})});
  t.push_back({"strategy", "ridge", &rule.ridge, "lora-fair: λ.", Above(0)});
  t.push_back({"strategy", "soften", &rule.soften,
               "fedrot: share of the rotation, the rest is the identity.", Between(0, 1)});
  t.push_back({"strategy", "oversample", &rule.oversample,
               "fedask: columns of the sketch beyond the rank.", Between(0, limits::kRankMax)});
  t.push_back(
      {"strategy", "period", &rule.period, "fedsvd: rounds between two bases.", AtLeast(1)});
}

void BindRobust(std::vector<Binding>& t, Settings& s) {
  RobustSettings& r = s.strategy.robust;
  t.push_back({"robust", "rule", &r.rule, "What replaces the mean of what clients changed.",
               OneOf({"none", "krum", "multi-krum", "bulyan", "geometric-median", "median",
                      "trimmed-mean", "fltrust", "cosine"})});
  t.push_back({"robust", "byzantine", &r.byzantine,
               "How many clients may lie (krum, multi-krum, bulyan).", AtLeast(0)});
  t.push_back({"robust", "keep", &r.keep,
               "multi-krum: updates that are averaged; 0: all but `byzantine`.", AtLeast(0)});
  t.push_back(
      {"robust", "trim", &r.trim, "trimmed-mean: share cut off at each end.", From(0, 0.5)});
  t.push_back({"robust", "min-cosine", &r.min_cosine,
               "cosine: a client further from the geometric median is left out.", Between(-1, 1)});
  t.push_back({"robust", "trusted", &r.trusted,
               "fltrust: name of the client that the others are measured by.", kAny});
  t.push_back({"robust", "clip", &r.clip,
               "Longer changes are shortened: to clip-norm, or to the round's median.",
               OneOf({"none", "fixed", "median"})});
  t.push_back({"robust", "clip-norm", &r.clip_norm, "Norm for `clip = \"fixed\"`.", Above(0)});
  ServerOptimizerSettings& o = s.strategy.optimizer;
  t.push_back({"server-optimizer", "name", &o.name,
               "How the global adapter follows what a round would change.",
               OneOf({"none", "momentum", "adam", "yogi", "adagrad"})});
  t.push_back({"server-optimizer", "lr", &o.lr, "Step.", Above(0)});
  t.push_back({"server-optimizer", "beta1", &o.beta1, "Decay of the momentum.", From(0, 1)});
  t.push_back(
      {"server-optimizer", "beta2", &o.beta2, "Decay of the squares (adam, yogi).", From(0, 1)});
  t.push_back({"server-optimizer", "tau", &o.tau,
               "Added to √v, in units of the first change's root mean square.", Above(0)});
}

void BindWire(std::vector<Binding>& t, Settings& s) {
  t.push_back(
      {"wire", "codec", &s.wire.codec,
       "Precision of updates on the wire: `float32`, `float16`, `bfloat16`, `int8`, `int4`, "
       "`nf4`; `uniform8` and `uniform4` for few, alike numbers.",
       kAny});
  t.push_back({"wire", "delta", &s.wire.delta,
               "Updates hold what changed in the adapter that was sent, not the adapter.", kAny});
  t.push_back({"wire", "top-k", &s.wire.top_k,
               "With delta: the share of each tensor's change that is sent, the largest; 1: all.",
               AboveUpTo(0, 1)});
  t.push_back({"wire", "error-feedback", &s.wire.error_feedback,
               "With delta: a client adds what codec and top-k left out to its next change, where "
               "the strategy keeps the adapter's basis (fedavg).",
               kAny});
  t.push_back({"wire", "compress", &s.wire.compress,
               "Compress exponents by zstd where it pays, both ways; nothing is lost.", kAny});
  t.push_back({"wire", "down-codec", &s.wire.down_codec,
               "Precision of the adapters that clients are sent to train from.", kAny});
}

void BindCohort(std::vector<Binding>& t, Settings& s) {
  CohortSettings& c = s.cohort;
  t.push_back({"cohort", "fraction-train", &c.fraction_train,
               "Share of the members asked to train in a round.", Between(0, 1)});
  t.push_back({"cohort", "fraction-evaluate", &c.fraction_evaluate,
               "Share of the members asked to evaluate each version.", Between(0, 1)});
  t.push_back({"cohort", "min-train-nodes", &c.min_train_nodes,
               "At least this many train, whatever fraction-train says.",
               Between(1, limits::kPeersMax)});
  t.push_back({"cohort", "min-available-nodes", &c.min_available_nodes,
               "Members that must be there before a round opens.", Between(1, limits::kPeersMax)});
  t.push_back({"cohort", "quorum", &c.quorum,
               "Share of the cohort whose updates let a round close at its deadline.",
               Between(0, 1)});
  t.push_back({"cohort", "deadline-s", &c.deadline_s, "Seconds a round may take.", Above(0)});
  t.push_back({"cohort", "grace-s", &c.grace_s,
               "Seconds that stragglers are waited for once the quorum is reached; 0: until the "
               "deadline.",
               AtLeast(0)});
  t.push_back({"cohort", "evaluate-deadline-s", &c.evaluate_deadline_s,
               "Seconds that evaluations are waited for.", Above(0)});
  t.push_back({"cohort", "join-deadline-s", &c.join_deadline_s,
               "Seconds to wait for min-available-nodes before the run fails; 0: for ever.",
               AtLeast(0)});
  t.push_back({"cohort", "max-examples", &c.max_examples,
               "num-examples of one client counts at most this much.",
               Between(1, limits::kExamplesMax)});
  t.push_back({"cohort", "weighting", &c.weighting, "Weight of an update in the mean.",
               OneOf({"examples", "tokens", "uniform"})});
  t.push_back({"cohort", "update-norm-max", &c.update_norm_max,
               "An update with a larger ‖ΔW − sent‖ is refused; 0: no bound.", AtLeast(0)});
  t.push_back({"cohort", "update-norm-ratio-max", &c.update_norm_ratio_max,
               "An update that is longer than so many times the median of those in the newest "
               "version is refused; 0: no bound. Round 1 has none.",
               AtLeast(0)});
  t.push_back({"cohort", "buffer", &c.buffer,
               "So many updates close a round at once (FedBuff); 0: those of the whole cohort.",
               Between(0, limits::kPeersMax)});
  t.push_back({"cohort", "max-staleness", &c.max_staleness,
               "Clients that are not done when a round closes go on, and count if they are at most "
               "so many rounds late; 0: they are sent home.",
               Between(0, 1000)});
  t.push_back({"cohort", "staleness-exponent", &c.staleness_exponent,
               "What changed in an update that is τ rounds late counts by (1 + τ) to minus this.",
               AtLeast(0)});
  t.push_back({"cohort", "round-retries", &c.round_retries,
               "Further tries of a round that misses its quorum, before the run fails.",
               Between(0, 1000)});
  t.push_back({"evaluate", "data", &s.evaluate.data,
               "JSONL rows on which the aggregator evaluates each version; empty: it does not.",
               Path()});
  t.push_back({"evaluate", "max-rows", &s.evaluate.max_rows, "Rows used; 0: all.", AtLeast(0)});
  t.push_back({"evaluate", "batch-size", &s.evaluate.batch_size, "Rows per forward pass.",
               Between(1, 1 << 20)});
  t.push_back(
      {"laplace", "fit", &s.laplace.fit,
       "After the last round clients measure how sure the adapter may be of its classes, and "
       "the aggregator fits a posterior; for models that classify.",
       kAny});
  t.push_back({"laplace", "precision", &s.laplace.precision,
               "Prior precision; 0: the one of the largest evidence.", AtLeast(0)});
}

void BindServer(std::vector<Binding>& t, Settings& s) {
  ServerSettings& v = s.server;
  t.push_back(
      {"server", "bind", &v.bind, "Address the aggregator listens on.", Form(IsTcp, kTcpWanted)});
  t.push_back({"server", "address", &v.address, "Address clients connect to; empty: bind.",
               Form(IsTcp, kTcpWanted)});
  t.push_back({"server", "secret-key", &v.secret_key,
               "The aggregator's key file (mode 0600), from `weft keys new`.", Path()});
  t.push_back({"server", "public-key", &v.public_key,
               "The aggregator's public key, as text or file; for clients.", Path()});
  t.push_back({"server", "allow-list", &v.allow_list,
               "File of clients' keys and names, re-read while running.", Path()});
  t.push_back({"server", "heartbeat-s", &v.heartbeat_s, "Seconds between a client's heartbeats.",
               Between(0.01, 3600)});
  t.push_back({"server", "gone-after-s", &v.gone_after_s,
               "Seconds of silence after which a peer is taken for gone.", Between(0.02, 86400)});
  t.push_back({"server", "uploads-at-once", &v.uploads_at_once, "Updates pulled at the same time.",
               Between(1, 4096)});
  t.push_back({"server", "metrics-bind", &v.metrics_bind,
               "HOST:PORT of /metrics (Prometheus) and /healthz over HTTP; empty: none.",
               Form(IsHostPort, "HOST:PORT")});
}

void BindRelay(std::vector<Binding>& t, Settings& s) {
  RelaySettings& v = s.relay;
  t.push_back({"relay", "name", &v.name, "The relay's name on the allow-list above.", kAny});
  t.push_back({"relay", "address", &v.address, "Address of the aggregator above.",
               Form(IsTcp, kTcpWanted)});
  t.push_back({"relay", "public-key", &v.public_key,
               "Public key of the aggregator above, as text or file.", Path()});
  t.push_back({"relay", "secret-key", &v.secret_key,
               "The relay's key file (mode 0600) as a client of the aggregator above.", Path()});
  t.push_back({"relay", "rank", &v.rank,
               "Rank that the relay's updates are cut to, with the error in its ledger; 0: none is "
               "cut.",
               Between(0, limits::kRankMax)});
}

void BindSim(std::vector<Binding>& t, Settings& s) {
  SimSettings& m = s.sim;
  t.push_back({"sim", "clients", &m.clients,
               "Virtual clients made by partitioning `data`; 0: the [[client]] tables.",
               Between(0, 1e6)});
  t.push_back({"sim", "data", &m.data, "JSONL rows to partition.", Path()});
  t.push_back({"sim", "partition", &m.partition, "How rows are given to clients.",
               OneOf({"iid", "round-robin", "dirichlet", "field", "shard", "size"})});
  t.push_back({"sim", "field", &m.field, "Field of the rows, for dirichlet and field.", kAny});
  t.push_back(
      {"sim", "dirichlet-alpha", &m.dirichlet_alpha, "Small: clients differ much.", Above(0)});
  t.push_back({"sim", "shards-per-client", &m.shards_per_client, "For shard.", AtLeast(1)});
  t.push_back({"sim", "eval-rows", &m.eval_rows,
               "First rows of data kept for evaluation on the aggregator.", AtLeast(0)});
  t.push_back({"sim", "ranks", &m.ranks, "Given to clients in turn; empty: adapter.rank.",
               Between(1, limits::kRankMax)});
  t.push_back({"sim", "methods", &m.methods, "Likewise; empty: adapter.method.", kAny});
  t.push_back({"sim", "relays", &m.relays,
               "Relays between the aggregator and the clients, who are dealt to them in turn; 0: "
               "none.",
               Between(0, 4096)});
  t.push_back({"sim", "workers", &m.workers, "Threads that train clients; 0: all cores.",
               Between(0, 4096)});
  t.push_back({"sim", "world", &m.world,
               "`virtual`: simulated time and network; `inproc`: real time, queues.",
               OneOf({"virtual", "inproc"})});
  t.push_back({"sim", "latency-ms", &m.latency_ms, "Of a message, one way.", AtLeast(0)});
  t.push_back({"sim", "bandwidth-mbps", &m.bandwidth_mbps, "Of a client's link.", Above(0)});
  t.push_back(
      {"sim", "step-cost-ms", &m.step_cost_ms, "Modelled time of one optimiser step.", AtLeast(0)});
  t.push_back({"sim", "step-cost-spread", &m.step_cost_spread,
               "Clients differ in speed: a step takes each one step-cost-ms times exp(spread·z), "
               "z drawn from N(0, 1).",
               From(0, 5)});
  t.push_back({"sim", "memory-mb", &m.memory_mb,
               "Refuse to start if the plan needs more; 0: 90 % of what is free.", AtLeast(0)});
  t.push_back({"sim", "attack", &m.attack,
               "What hostile clients ship in place of their update (docs/attacks.md).",
               OneOf({"none", "sign-flip", "gaussian", "alie", "inner-product", "gauge-bomb",
                      "overflow", "rank-inflation", "sybil"})});
  t.push_back({"sim", "attackers", &m.attackers,
               "How many clients are hostile: the last ones by name.", AtLeast(0)});
  t.push_back({"sim", "attack-scale", &m.attack_scale,
               "How hard they attack, in the attack's own unit; 0: as usual for it.", AtLeast(0)});
}

}  // namespace

std::vector<Binding> BindSettings(Settings& settings) {
  std::vector<Binding> table;
  BindRun(table, settings);
  BindModel(table, settings);
  BindAdapter(table, settings);
  BindTraining(table, settings);
  BindStrategy(table, settings);
  BindRobust(table, settings);
  BindWire(table, settings);
  BindCohort(table, settings);
  BindServer(table, settings);
  BindRelay(table, settings);
  BindSim(table, settings);
  return table;
}

std::vector<Binding> BindClient(ClientSettings& c) {
  Rule rank = Between(1, limits::kRankMax);
  rank.words = {"auto"};
  return {
      {"client", "name", &c.name, "The site's name, as in the aggregator's allow-list.", Name()},
      {"client", "data", &c.data, "Training rows, JSONL.", Path()},
      {"client", "valid", &c.valid, "Validation rows; empty: the last valid-fraction of data.",
       Path()},
      {"client", "valid-fraction", &c.valid_fraction,
       "Share of data, its last rows, kept out of training.", From(0, 1)},
      {"client", "rank", NumberOrWordRef{&c.rank},
       "Largest rank this site trains; `auto`: planned from memory and link speed.", rank},
      {"client", "method", &c.method, "Adapter method this site trains; empty: the run's.", kAny},
      {"client", "secret-key", &c.secret_key, "The site's key file (mode 0600).", Path()},
      {"client", "dir", &c.dir, "Folder of local state; empty: `client-NAME`.", Path()},
      {"client", "max-rows", &c.max_rows, "Training rows used; 0: all.", AtLeast(0)},
  };
}

}  // namespace weft
