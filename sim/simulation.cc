#include "sim/simulation.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <thread>
#include <utility>

#include <sys/resource.h>

#include "aggregator/aggregator_node.h"
#include "aggregator/evaluate_work.h"
#include "aggregator/merge_work.h"
#include "aggregator/node_jobs.h"
#include "aggregator/strategies/strategy.h"
#include "client/client_node.h"
#include "client/memory_plan.h"
#include "client/train_work.h"
#include "common/adapters/adapter.h"
#include "common/config/load.h"
#include "common/model/base_weights.h"
#include "common/tensor/device.h"
#include "common/wire/message_codec.h"
#include "relay/relay_node.h"
#include "sim/attackers.h"
#include "sim/invariants.h"
#include "sim/run_folder.h"
#include "sim/sites.h"
#include "sim/virtual_world.h"

namespace weft::sim {
namespace {

using Steady = std::chrono::steady_clock;

double SecondsSince(Steady::time_point start) {
  return std::chrono::duration<double>(Steady::now() - start).count();
}

uint64_t PeakRssMb() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<uint64_t>(usage.ru_maxrss) / 1024;
}

class Simulation {
 public:
  explicit Simulation(SimulationOptions options)
      : options_(std::move(options)), settings_(options_.settings), start_(Steady::now()) {}

  Result<SimulationReport> Run() {
    WEFT_TRY(Load());
    WEFT_TRY(CheckMemory());
    WEFT_TRY(Build());
    report_.load_s = SecondsSince(start_);
    const Status outcome = RunNodes();
    // Also of a run that failed, to be looked at: a daemon's store is its run folder.
    const Status written =
        options_.out_dir.empty()
            ? OkStatus()
            : WriteRunFolder(world_->MakeEnv(kAggregator).store, options_.out_dir);
    WEFT_TRY(outcome);
    WEFT_TRY(written);
    WEFT_TRY(Collect());
    return std::move(report_);
  }

 private:
  Status Load() {
    if (!options_.out_dir.empty()) WEFT_TRY(CheckNoRunIn(options_.out_dir));
    WEFT_TRY_ASSIGN(shared_, LoadSharedBase(settings_.model));
    WEFT_TRY_ASSIGN(population_, MakePopulation(settings_, shared_));
    workers_ = settings_.sim.workers > 0 ? static_cast<size_t>(settings_.sim.workers)
                                         : std::max<size_t>(1, std::thread::hardware_concurrency());
    report_.clients = population_.clients.size();
    report_.workers = workers_;
    WEFT_TRY_ASSIGN(attack_, PlanAttack(settings_, population_));
    report_.attack = settings_.sim.attack;
    report_.attack_scale = attack_.scale;
    for (const ClientId& client : attack_.attackers) report_.attackers.push_back(client.name);
    return OkStatus();
  }

  // One base, and what each worker trains on top of it at a time.
  Status CheckMemory() {
    WEFT_TRY_ASSIGN(const std::shared_ptr<const Model> model,
                    shared_.models->Get(settings_.train.dtype));
    int64_t parameters = 0;
    WEFT_TRY_ASSIGN(const std::vector<LinearSite> sites,
                    MatchSites(settings_.adapter, model->sites()));
    for (const LinearSite& site : sites) {
      parameters += (site.in + site.out) * RankFor(settings_.adapter, site.path);
    }
    MemoryRequest request;
    request.trained_parameters = parameters;
    request.longest_row =
        LongestRow(population_, MaxRowTokens(settings_.train, *model), settings_.train.long_rows);
    request.available_bytes = AvailableMemory(model->device());
    const MemoryPlan plan = PlanMemory(*model, settings_.train, request);
    const auto workers = static_cast<int64_t>(workers_);
    const int64_t updates =
        static_cast<int64_t>(population_.clients.size()) * parameters * int64_t{sizeof(float)};
    const int64_t needed = plan.base_bytes + workers * plan.training_bytes() + updates;
    const int64_t allowed = settings_.sim.memory_mb > 0 ? settings_.sim.memory_mb << 20
                                                        : request.available_bytes / 10 * 9;
    Notice(Str("memory plan: base ", plan.base_bytes >> 20, " MB once, ", workers,
               " workers × at most ", plan.training_bytes() >> 20, " MB for rows of ",
               plan.row_tokens, " tokens at most, updates of ", population_.clients.size(),
               " clients ", updates >> 20, " MB; allowed ", allowed >> 20, " MB"));
    if (allowed > 0 && needed > allowed) {
      return ResourceExhausted(
          Str("[sim] memory plan is ", needed >> 20, " MB, allowed are ", allowed >> 20,
              " MB: fewer [sim] workers, a smaller train.batch-size or max-len, "
              "or a larger [sim] memory-mb"));
    }
    return OkStatus();
  }

  Status Build() {
    WEFT_TRY(RegisterWork());
    WEFT_TRY(MakeWorld());
    clients_.resize(population_.clients.size());
    relays_.resize(RelayCount());
    return OkStatus();
  }

  Status MakeWorld() {
    const bool faulty = options_.faults || options_.fault_seed;
    WorldOptions world;
    world.sim = settings_.sim;
    world.seed = settings_.run.seed;
    world.workers = workers_;
    world.work = &table_;
    const int threads = settings_.model.threads > 0 ? static_cast<int>(settings_.model.threads) : 1;
    world.on_worker_start = [threads] { at::set_num_threads(threads); };
    world.log_sink = log::StderrSink();
    world.log_level = log::LevelFromName(settings_.run.log_level);
    // Without crashes nobody would see the difference.
    if (faulty) world.write_time = options_.write_time;
    world.disk_bug = options_.disk_bug;
    if (settings_.sim.world == "inproc") {
      if (faulty) return InvalidArgument("[sim] faults need the virtual world, not \"inproc\"");
      world_ = MakeInprocWorld(std::move(world));
      AttachToRelays();
      return OkStatus();
    }
    auto made = std::make_unique<VirtualWorld>(std::move(world));
    virtual_ = made.get();
    world_ = std::move(made);
    AttachToRelays();
    if (faulty) PlanFaults();
    return OkStatus();
  }

  // ---- relays ----

  [[nodiscard]] size_t RelayCount() const {
    return sim::RelayCount(settings_, population_.clients.size());
  }
  void AttachToRelays() {
    for (size_t i = 0; i < population_.clients.size() && RelayCount() > 0; ++i) {
      world_->Attach(population_.clients[i].site->client(), RelayName(i % RelayCount()));
    }
  }
  // Whom each of the processes that merge waits for.
  [[nodiscard]] Settings SettingsFor(size_t members) const {
    Settings settings = settings_;
    if (options_.out_dir.empty()) settings.run.keep_updates = false;  // for nobody to read
    if (RelayCount() == 0) return settings;
    settings.cohort.min_available_nodes = static_cast<int64_t>(members);
    settings.cohort.min_train_nodes =
        std::min(settings.cohort.min_train_nodes, settings.cohort.min_available_nodes);
    return settings;
  }

  // ---- processes ----

  Status StartAggregator() {
    AggregatorOptions options;
    options.settings = SettingsFor(RelayCount());
    options.settings_toml = ToToml(settings_, true);
    options.base = shared_.base;
    options.base_model = settings_.model.path;
    options.run_dir = options_.out_dir;
    options.evaluate_here = !population_.evaluation.empty();
    WEFT_TRY(FindStrategy(settings_.strategy.name).status());
    aggregator_ =
        std::make_unique<AggregatorNode>(world_->MakeEnv(kAggregator), std::move(options));
    return aggregator_->Start();
  }

  Status StartRelay(size_t index) {
    const size_t clients = population_.clients.size();
    const ClientId name = RelayName(index);
    RelayOptions options;
    options.below.settings = SettingsFor((clients - index + RelayCount() - 1) / RelayCount());
    options.below.settings.run.keep_updates = false;
    options.below.settings_toml = ToToml(settings_, true);
    options.below.base = shared_.base;
    options.above.name = name;
    options.above.base = shared_.base;
    relays_[index] = std::make_unique<RelayNode>(
        world_->MakeRelayEnv(name), [this, name] { return Result<Env>(world_->MakeEnv(name)); },
        std::move(options));
    return relays_[index]->Start();
  }

  // By how much longer than usual the site's machine takes.
  [[nodiscard]] double SlownessOf(const Site& site) const {
    RandomStream stream =
        RandomStream::Derive(settings_.run.seed, {"step-cost", site.client().name});
    return std::exp(settings_.sim.step_cost_spread * stream.Normal());
  }

  Status StartClient(size_t index) {
    const VirtualClient& client = population_.clients[index];
    ClientOptions options = MakeClientOptions(*client.site, shared_, settings_.model.device,
                                              client.rank, client.method);
    options.step_cost = Seconds(settings_.sim.step_cost_ms / 1000 * SlownessOf(*client.site));
    const ClientId name = options.name;
    clients_[index] = std::make_unique<ClientNode>(world_->MakeEnv(name), std::move(options));
    return clients_[index]->Start();
  }

  // ---- faults ----

  void PlanFaults() {
    std::vector<ClientId> names;
    for (const VirtualClient& client : population_.clients) names.push_back(client.site->client());
    for (size_t i = 0; i < RelayCount(); ++i) names.push_back(RelayName(i));
    const FaultPlan plan =
        options_.faults ? *options_.faults : DrawFaultPlan(*options_.fault_seed, names);
    Notice(plan.Text());
    virtual_->network().SetWeather(WeatherOf(plan, virtual_->queue()));
    virtual_->network().SetDamage(DamageOf(plan));
    bit_flips_ = plan.bit_flips;
    checker_.emplace(settings_, !plan.clock_jumps.empty());
    virtual_->network().SetTap([this](const ClientId& from, const ClientId& to,
                                      const Frames& frames) { OnMessage(from, to, frames); });
    for (auto& [relay, star] : virtual_->stars()) {
      star->SetWeather(WeatherOf(plan, virtual_->queue()));
      star->SetDamage(DamageOf(plan));
      star->SetTap(
          [this, name = relay](const ClientId& from, const ClientId& to, const Frames& frames) {
            OnMembersMessage(name, from, to, frames);
          });
    }
    for (const Crash& crash : plan.crashes) {
      virtual_->At(crash.at, [this, crash] { Kill(crash); });
    }
    for (const ClockJump& jump : plan.clock_jumps) {
      virtual_->At(jump.at, [this, jump] {
        virtual_->JumpClock(jump.node, jump.by_s);
        Event(Str("the wall clock of ", jump.node, " jumps by ", jump.by_s, " s"));
      });
    }
    for (const DiskStall& stall : plan.disk_stalls) {
      virtual_->At(stall.begin, [this, stall] {
        virtual_->StallDisk(stall.node, stall.end);
        Event(Str("the disk of ", stall.node, " is full until ", ToSeconds(stall.end), " s"));
      });
    }
  }

  void OnMessage(const ClientId& from, const ClientId& to, const Frames& frames) {
    ++report_.messages;
    if (from != kAggregator && !options_.on_event) return;
    const Result<Message> message = DecodeMessage(frames.control);
    if (!message.ok()) return;
    if (options_.on_event) Event(Str(from, " to ", to, ": ", MessageName(*message)));
    if (from == kAggregator) checker_->OnSent(to, *message, virtual_->disk(kAggregator));
  }

  // Between a relay and its members.
  void OnMembersMessage(const ClientId& relay, const ClientId& from, const ClientId& to,
                        const Frames& frames) {
    ++report_.messages;
    if (!options_.on_event) return;
    const Result<Message> message = DecodeMessage(frames.control);
    if (!message.ok()) return;
    const auto named = [&](const ClientId& node) { return node == kAggregator ? relay : node; };
    Event(Str(named(from), " to ", named(to), ": ", MessageName(*message)));
  }

  void Event(const std::string& what) const {
    if (options_.on_event) options_.on_event(Str(world_->Elapsed(), " s  ", what));
  }

  void Kill(const Crash& crash) {
    if (crash.node == kAggregator) {
      if (aggregator_ == nullptr || aggregator_->Finished()) return;
      aggregator_.reset();
    } else if (const std::optional<size_t> relay = RelayIndexOf(crash.node)) {
      if (relays_[*relay] == nullptr || relays_[*relay]->Finished()) return;
      relays_[*relay].reset();
    } else {
      const size_t index = IndexOf(crash.node);
      if (clients_[index] == nullptr || clients_[index]->Finished()) return;
      clients_[index].reset();
    }
    virtual_->Kill(crash.node);
    ++report_.crashes;
    Event(Str(crash.node, " dies"));
    FlipABit(crash.node);
    if (crash.node == kAggregator) checker_->Look(virtual_->disk(kAggregator));
    virtual_->At(virtual_->queue().now() + crash.down, [this, node = crash.node] {
      Event(Str(node, " starts again"));
      const Status started = StartAgain(node);
      if (!started.ok() && broken_.ok()) broken_ = started.Within(Str("[sim] ", node, " again"));
    });
  }

  // What was planned for the node's first death from now on.
  void FlipABit(const ClientId& node) {
    const auto flip = std::find_if(bit_flips_.begin(), bit_flips_.end(), [&](const BitFlip& each) {
      return each.node == node && virtual_->queue().now() >= each.after;
    });
    if (flip == bit_flips_.end()) return;
    bit_flips_.erase(flip);
    const std::string file = virtual_->FlipABit(node);
    if (file.empty()) return;
    ++report_.bit_flips;
    if (node == kAggregator) checker_->OnDamaged(file);
    Event(Str(file, " of ", node, " has another bit"));
  }

  Status StartAgain(const ClientId& node) {
    if (node == kAggregator) return StartAggregator();
    if (const std::optional<size_t> relay = RelayIndexOf(node)) return StartRelay(*relay);
    return StartClient(IndexOf(node));
  }

  [[nodiscard]] std::optional<size_t> RelayIndexOf(const ClientId& node) const {
    for (size_t i = 0; i < RelayCount(); ++i) {
      if (RelayName(i) == node) return i;
    }
    return std::nullopt;
  }

  size_t IndexOf(const ClientId& client) const {
    const auto at =
        std::find_if(population_.clients.begin(), population_.clients.end(),
                     [&](const VirtualClient& each) { return each.site->client() == client; });
    WEFT_CHECK(at != population_.clients.end(), "no client ", client);
    return static_cast<size_t>(at - population_.clients.begin());
  }

  /// What ends a run that does not end by itself.
  bool Hopeless() {
    if (!checker_) return false;
    if (broken_.ok()) broken_ = checker_->status();
    if (broken_.ok() && world_->Elapsed() > options_.virtual_s_max) {
      broken_ = Internal(Str("[invariant] the run has not ended after ", options_.virtual_s_max,
                             " s of its own time"));
    }
    return !broken_.ok();
  }

  Status RegisterWork() {
    RegisterMergeWork(table_, BaseWeights(settings_.model.path));
    RegisterNodeJobs(table_);
    TrainWorkOptions work;
    for (const VirtualClient& client : population_.clients) work.sites.push_back(client.site);
    RegisterTrainWork(table_, std::move(work));
    if (!attack_.attackers.empty()) RegisterAttack(table_, attack_);
    if (options_.spoil) options_.spoil(table_);
    if (population_.evaluation.empty()) return OkStatus();
    ServerEvaluation evaluation;
    WEFT_TRY_ASSIGN(evaluation.model, shared_.models->Get(settings_.train.dtype));
    TokenizeOptions tokens;
    tokens.max_len = MaxRowTokens(settings_.train, *evaluation.model);
    tokens.labels = settings_.adapter.labels;
    tokens.chat_template = shared_.chat_template;
    WEFT_TRY_ASSIGN(TokenRows rows,
                    TokenizeRows(population_.evaluation, *shared_.tokenizer, tokens));
    evaluation.rows = std::make_shared<const TokenRows>(std::move(rows));
    evaluation.batch_size = settings_.evaluate.batch_size;
    evaluation.labels = settings_.adapter.labels;
    RegisterServerEvaluation(table_, std::move(evaluation));
    return OkStatus();
  }

  Status RunNodes() {
    WEFT_TRY(StartAggregator());
    for (size_t i = 0; i < relays_.size(); ++i) WEFT_TRY(StartRelay(i));
    for (size_t i = 0; i < clients_.size(); ++i) WEFT_TRY(StartClient(i));
    Steady::time_point last = Steady::now();
    uint32_t seen = 0;
    const auto done = [&] {
      if (Hopeless()) return true;
      if (aggregator_ == nullptr) return false;
      if (aggregator_->version().number > seen) {
        seen = aggregator_->version().number;
        report_.round_wall_s.push_back(SecondsSince(last));
        last = Steady::now();
        Notice(Str("round ", seen, " of ", settings_.run.num_server_rounds, " published after ",
                   report_.round_wall_s.back(), " s"));
      }
      return aggregator_->Finished();
    };
    WEFT_TRY(world_->RunUntil(done));
    report_.virtual_s = world_->Elapsed();
    WEFT_TRY(CheckRelays());
    if (checker_) {
      checker_->Look(virtual_->disk(kAggregator));
      report_.looks = checker_->looks();
      if (broken_.ok()) broken_ = checker_->status();
      WEFT_TRY(broken_);
    }
    return aggregator_->Outcome();
  }

  // Of their members' updates, too, each counts once.
  Status CheckRelays() {
    for (size_t i = 0; i < relays_.size(); ++i) {
      WEFT_TRY_ASSIGN(const std::vector<LedgerEvent> ledger,
                      world_->MakeRelayEnv(RelayName(i)).store.ReadLedger());
      WEFT_TRY(CheckRelayLedger(ledger, settings_).Within(Str("[sim] ", RelayName(i))));
    }
    return OkStatus();
  }

  Status Collect() {
    WEFT_TRY_ASSIGN(const std::vector<LedgerEvent> ledger,
                    world_->MakeEnv(kAggregator).store.ReadLedger());
    RunFold fold;
    for (const LedgerEvent& event : ledger) WEFT_TRY(fold.Add(event));
    report_.run = fold.view();
    uint64_t steps = 0;
    for (const RoundRow& round : report_.run.rounds) {
      if (round.measures) continue;
      report_.adapter_sha256.push_back(round.adapter_sha256);
      const std::optional<double> loss = round.server_loss ? round.server_loss : round.clients_loss;
      if (loss) report_.eval_loss.push_back(*loss);
      for (const ClientRow& client : round.clients) steps += client.steps;
    }
    std::vector<double> walls = report_.round_wall_s;
    if (!walls.empty()) {
      std::nth_element(walls.begin(), walls.begin() + static_cast<std::ptrdiff_t>(walls.size() / 2),
                       walls.end());
      const double per_round = static_cast<double>(steps) / static_cast<double>(walls.size());
      report_.client_steps_per_s = per_round / walls[walls.size() / 2];
    }
    report_.wall_s = SecondsSince(start_);
    report_.peak_rss_mb = PeakRssMb();
    return OkStatus();
  }

  void Notice(const std::string& line) const {
    if (options_.on_notice) options_.on_notice(line);
  }

  const SimulationOptions options_;
  const Settings& settings_;
  const Steady::time_point start_;
  SimulationReport report_;
  size_t workers_ = 1;
  SharedBase shared_;
  Population population_;
  AttackPlan attack_;
  WorkTable table_;
  std::unique_ptr<World> world_;
  VirtualWorld* virtual_ = nullptr;  // world_, where it is that one
  std::optional<InvariantChecker> checker_;
  std::vector<BitFlip> bit_flips_;  // that have not happened yet
  Status broken_;
  std::unique_ptr<AggregatorNode> aggregator_;
  std::vector<std::unique_ptr<RelayNode>> relays_;
  std::vector<std::unique_ptr<ClientNode>> clients_;
};

}  // namespace

size_t RelayCount(const Settings& settings, size_t clients) {
  return std::min(static_cast<size_t>(settings.sim.relays), clients);
}

ClientId RelayName(size_t index) { return ClientId{Str("relay-", index < 10 ? "0" : "", index)}; }

Result<SimulationReport> Simulate(SimulationOptions options) {
  return Simulation(std::move(options)).Run();
}

}  // namespace weft::sim
