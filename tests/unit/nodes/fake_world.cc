#include "tests/unit/nodes/fake_world.h"

#include <algorithm>
#include <utility>

#include "aggregator/node_jobs.h"
#include "common/base/str.h"
#include "common/config/load.h"
#include "common/crypto/digest.h"

namespace weft::testing {

/// Runs a job when the queue comes to it; what is done stays undelivered if its process died.
class FakeWorld::QueuedExecutor : public Executor {
 public:
  QueuedExecutor(FakeWorld& world, std::string name, std::weak_ptr<bool> alive)
      : world_(world), name_(std::move(name)), alive_(std::move(alive)) {}

  void SubmitAny(std::any job, Nanos /*modelled_cost*/, std::shared_ptr<JobControl> control,
                 std::function<void(std::any)> done) override {
    const bool training = std::any_cast<TrainJob>(&job) != nullptr;
    auto run = [this, job = std::move(job), control = std::move(control), done = std::move(done),
                alive = alive_] {
      if (!alive.expired()) done(world_.table.Run(job, *control));
    };
    if (training && world_.hold_training.contains(name_)) {
      world_.held_.push_back(std::move(run));
    } else {
      world_.Post(std::move(run));
    }
  }

 private:
  FakeWorld& world_;
  std::string name_;
  std::weak_ptr<bool> alive_;
};

/// One end of the wire.
class FakeWorld::Link : public Transport {
 public:
  Link(FakeWorld& world, ClientId self) : world_(world), self_(std::move(self)) {}

  void SetReceiver(Receiver* receiver) override { receiver_ = receiver; }
  Status Send(const ClientId& to, Frames frames) override {
    const bool to_aggregator = to == kAggregator;
    world_.Deliver(to_aggregator ? self_ : to, to_aggregator, std::move(frames));
    return OkStatus();
  }
  void Cut(const ClientId& peer, const Status& why) override {
    world_.cut[peer.name] = why.message();
  }

  Receiver* receiver_ = nullptr;

 private:
  FakeWorld& world_;
  ClientId self_;
};

/// What every process has of its own; dies with it.
struct FakeWorld::Parts {
  Parts(FakeWorld& world, const std::string& name, std::shared_ptr<RecordingStore> disk_in)
      : disk(std::move(disk_in)),
        link(world, ClientId{name}),
        executor(world, name, alive),
        entropy(RandomStream::Derive(7, {name})),
        logger(
            name, world.log_lines, [&world] { return world.clock.WallMicros(); },
            log::Level::kDebug) {
    disk->owner = alive;
  }
  Env MakeEnv(FakeWorld& world) { return Env{world.clock, link, executor, *disk, entropy, logger}; }

  std::shared_ptr<bool> alive = std::make_shared<bool>(true);
  std::shared_ptr<RecordingStore> disk;
  Link link;
  QueuedExecutor executor;
  RandomStream entropy;
  log::Logger logger;
};

struct FakeWorld::AggregatorProcess {
  AggregatorProcess(FakeWorld& world, AggregatorOptions options)
      : parts(world, "aggregator", world.disk), node(parts.MakeEnv(world), std::move(options)) {}
  Parts parts;
  AggregatorNode node;
};

struct FakeWorld::ClientProcess {
  ClientProcess(FakeWorld& world, std::shared_ptr<RecordingStore> disk, ClientOptions options)
      : parts(world, options.name.name, std::move(disk)),
        node(parts.MakeEnv(world), std::move(options)) {}
  Parts parts;
  ClientNode node;
};

FakeWorld::FakeWorld(Settings settings_in) : settings(std::move(settings_in)) {
  base.hash = Sha256Hex(AsBytes("the base model"));
  base.sites = {{.path = "model.layers.0.self_attn.q_proj", .in = 32, .out = 32},
                {.path = "model.layers.0.mlp.up_proj", .in = 32, .out = 64}};
  disk = NewDisk();
  RegisterWork();
}

FakeWorld::~FakeWorld() = default;

std::shared_ptr<RecordingStore> FakeWorld::NewDisk() {
  return std::make_shared<RecordingStore>(
      [this](std::function<void()> task) { Post(std::move(task)); },
      [this] { return clock.WallMicros(); });
}

AggregatorNode& FakeWorld::aggregator() { return aggregator_->node; }
ClientNode& FakeWorld::client(const std::string& name) { return clients_.at(name)->node; }

// ---- processes ----

Status FakeWorld::StartAggregator() {
  AggregatorOptions options;
  options.settings = settings;
  options.settings_toml = ToToml(settings, true);
  options.base = base;
  options.base_model = "base";
  options.evaluate_here = on_evaluate_here != nullptr;
  options.stop_requested = [this] {
    return stop_requested ? stop_requested() : std::optional<std::string>();
  };
  aggregator_ = std::make_unique<AggregatorProcess>(*this, std::move(options));
  return aggregator_->node.Start();
}

void FakeWorld::KillAggregator() { aggregator_.reset(); }

void FakeWorld::StartClient(const std::string& name, int64_t rank, uint64_t examples) {
  if (!client_disks.contains(name)) client_disks[name] = NewDisk();
  ClientOptions options;
  options.name = ClientId{name};
  options.base = base;
  options.offer = Capabilities{.software = "weft test",
                               .device = "cpu",
                               .memory_mb = 1,
                               .rank_max = rank,
                               .num_examples = examples,
                               .eval_examples = 5,
                               .methods = {"lora"},
                               .codecs = {"float32"}};
  clients_[name] = std::make_unique<ClientProcess>(*this, client_disks[name], std::move(options));
  (void)clients_[name]->node.Start();
}

void FakeWorld::KillClient(const std::string& name) { clients_.erase(name); }

// ---- messages ----

void FakeWorld::Deliver(const ClientId& client, bool to_aggregator, Frames frames) {
  Post([this, client, to_aggregator, frames = std::move(frames)] {
    const Result<Message> message = DecodeMessage(frames.control);
    if (message.ok() && filter && !filter(client, to_aggregator, *message)) return;
    if (!to_aggregator && message.ok()) sent_to.emplace_back(client.name, *message);
    if (to_aggregator) {
      if (aggregator_) aggregator_->node.OnFrames(client, frames);
    } else if (const auto it = clients_.find(client.name); it != clients_.end()) {
      it->second->node.OnFrames(kAggregator, frames);
    }
  });
}

void FakeWorld::Inject(const std::string& client, const Message& message, const Blob& chunk) {
  Deliver(ClientId{client}, true, Frames{EncodeMessage(message), chunk});
}

void FakeWorld::InjectRaw(const std::string& client, Blob control) {
  Deliver(ClientId{client}, true, Frames{std::move(control), Blob()});
}

// ---- time ----

bool FakeWorld::RunUntil(const std::function<bool()>& done, double limit_s) {
  const Nanos limit = clock.Now() + Seconds(limit_s);
  while (!done()) {
    if (!queue_.empty()) {
      const std::function<void()> task = std::move(queue_.front());
      queue_.pop_front();
      task();
    } else if (!clock.Step(limit)) {
      return done();
    }
  }
  return true;
}

bool FakeWorld::RunToEnd(double limit_s) {
  return RunUntil([this] { return aggregator_->node.Finished(); }, limit_s);
}

void FakeWorld::ReleaseTraining() {
  hold_training.clear();
  for (auto& run : held_) Post(std::move(run));
  held_.clear();
}

int FakeWorld::trained(const std::string& client) const {
  const auto it = trained_.find(client);
  return it == trained_.end() ? 0 : it->second;
}

// ---- what happened ----

std::vector<LedgerEvent> FakeWorld::Ledger() const { return disk->ReadLedger().value(); }

std::vector<std::string> FakeWorld::Hashes() const {
  std::vector<std::string> hashes;
  for (const RoundPublished& event : Events<RoundPublished>()) {
    hashes.push_back(event.adapter_sha256);
  }
  return hashes;
}

// ---- work ----

namespace {

std::string Digest(const std::string& text) { return Sha256Hex(AsBytes(text)).substr(0, 24); }

Result<MergeJob::Output> FakeMerge(const MergeJob& job) {
  WEFT_TRY_ASSIGN(const Blob state, job.store->ReadBlob(job.state_blob));
  std::string text = Str(state.view(), "|", job.plan.round, "|");
  std::string last;
  for (const SpooledUpdate& update : job.updates) {
    WEFT_CHECK(last < update.header.client.name, "updates are ordered by client");
    last = update.header.client.name;
    WEFT_TRY_ASSIGN(const Blob payload, job.store->ReadBlob(update.blob));
    text += Str(last, ":", update.header.num_examples, ":", payload.view(), "|");
  }
  MergeJob::Output output;
  output.state = Blob::Adopt("state " + Digest(text));
  output.adapter_sha256 = Sha256Hex(output.state.span());
  for (const SpooledUpdate& update : job.updates) {
    output.certificate.client_norms.emplace_back(update.header.client.name, 1.0);
  }
  return output;
}

}  // namespace

void FakeWorld::RegisterWork() {
  RegisterNodeJobs(table);
  table.On<InitJob>([](const InitJob& job, JobControl&) -> Result<InitJob::Output> {
    InitJob::Output output;
    output.state = Blob::Adopt(Str("state ", job.seed, " rank ", job.adapter.rank));
    output.adapter_sha256 = Sha256Hex(output.state.span());
    return output;
  });
  table.On<CutJob>([](const CutJob& job, JobControl&) -> Result<CutJob::Output> {
    return CutJob::Output{Blob::Adopt(
        Str(job.state.view(), job.whole ? " whole" : Str(" cut to ", job.client.adapter.rank)))};
  });
  table.On<AdmitJob>([this](const AdmitJob& job, JobControl&) -> Result<AdmitJob::Output> {
    return AdmitJob::Output{on_admit ? on_admit(job) : OkStatus(), 1.0};
  });
  table.On<MergeJob>([](const MergeJob& job, JobControl&) { return FakeMerge(job); });
  table.On<TrainJob>([this](const TrainJob& job, JobControl&) -> Result<TrainJob::Output> {
    ++trained_[job.client.name];
    if (on_train) WEFT_TRY(on_train(job));
    std::string text =
        Digest(Str(job.bundle.view(), job.client, job.plan.round, job.plan.seed,
                   local_state_counts ? job.local_state.view() : std::string_view()));
    text.resize(payload_bytes, 'x');
    TrainJob::Output output;
    output.payload = Blob::Adopt(std::move(text));
    output.local_state = Blob::Adopt(Str("left by round ", job.plan.round));
    output.header.spec = job.plan.cohort.front().adapter;
    output.header.codec = job.plan.codec;
    output.header.num_examples = 10;
    output.header.label_tokens = 100;
    output.header.train_loss = 2.5;
    output.header.payload_bytes = output.payload.size();
    output.header.payload_sha256 = Sha256Hex(output.payload.span());
    return output;
  });
  table.On<ServerEvaluateJob>(
      [this](const ServerEvaluateJob& job, JobControl&) { return on_evaluate_here(job); });
  table.On<ClientEvaluateJob>(
      [this](const ClientEvaluateJob& job, JobControl&) -> Result<EvalReport> {
        if (on_evaluate) return on_evaluate(job);
        EvalReport report;
        report.loss = 4.0 / (1.0 + job.version.number);
        report.label_tokens = 50;
        report.num_examples = 5;
        return report;
      });
}

}  // namespace weft::testing
