#include "aggregator/premises.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <utility>

#include "aggregator/evaluate_work.h"
#include "aggregator/merge_work.h"
#include "aggregator/metrics_server.h"
#include "aggregator/node_jobs.h"
#include "common/base/str.h"
#include "common/model/base_weights.h"
#include "common/net/descriptors.h"
#include "common/net/keys.h"
#include "common/runtime/run_events.h"
#include "common/tensor/torch.h"

namespace weft {
namespace {

// A run is worth waiting for whoever makes room.
constexpr std::chrono::hours kFullDiskPatience{24};

void TellOfDisk(log::Logger& logger, const Status& why) {
  if (why.ok()) {
    logger.Info("there is space again: the run goes on");
  } else {
    logger.Error("the run is paused: its folder takes no more, and it goes on when there is space",
                 {{"why", why}, {"at_most_h", static_cast<int64_t>(kFullDiskPatience.count())}});
  }
}

}  // namespace

// Beats in the loop; others hear how long ago it did.
class Premises::Heart {
 public:
  explicit Heart(EventLoop& loop) : loop_(loop) { Beat(); }
  ~Heart() { loop_.Cancel(timer_); }
  Heart(const Heart&) = delete;
  Heart& operator=(const Heart&) = delete;

  [[nodiscard]] double AgeSeconds() const {
    return std::chrono::duration<double>(Steady::now().time_since_epoch() - beat_.load()).count();
  }

 private:
  void Beat() {
    beat_ = Steady::now().time_since_epoch();
    timer_ = loop_.At(loop_.Now() + std::chrono::seconds(1), [this] { Beat(); });
  }

  using Steady = std::chrono::steady_clock;

  EventLoop& loop_;
  std::atomic<Steady::duration> beat_{};
  TimerId timer_;
};

std::string RunFolder(const Settings& settings) {
  return settings.run.dir.empty() ? "runs/" + settings.run.name : settings.run.dir;
}

uint64_t SystemEntropy() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

// The bits of a merge must not depend on how many cores this machine has. Torch counts threads per
// thread, so the worker needs to be told as well.
Premises::Premises(Settings settings, const std::string& name)
    : settings_(std::move(settings)),
      folder_(RunFolder(settings_)),
      threads_(settings_.model.threads > 0 ? static_cast<int>(settings_.model.threads) : 1),
      signals_(loop_,
               [this](int number) {
                 stopped_ = Cancelled(Str("signal ", number));
                 if (store_ != nullptr) store_->StopWaiting();
                 if (stop_) stop_(*stopped_);
               }),
      logger_(std::make_unique<log::Logger>(
          name, log::StderrSink(), [this] { return loop_.WallMicros(); },
          log::LevelFromName(settings_.run.log_level))),
      entropy_(SystemEntropy()) {
  at::set_num_threads(threads_);
}

Premises::~Premises() = default;

Status Premises::Open(bool evaluate_here) {
  const uint64_t descriptors = RaiseDescriptorLimit();
  WEFT_TRY(OpenStore());
  WEFT_TRY(RegisterWork(evaluate_here));
  executor_ = std::make_unique<ThreadExecutor>(
      loop_, table_, 1, [threads = threads_] { at::set_num_threads(threads); });
  WEFT_TRY(Listen());
  logger_->Info(
      "listening",
      {{"endpoint", server_->endpoint()}, {"run_folder", folder_}, {"descriptors", descriptors}});
  heart_ = std::make_unique<Heart>(loop_);
  if (settings_.server.metrics_bind.empty()) return OkStatus();
  WEFT_TRY_ASSIGN(metrics_, MetricsServer::Start(settings_.server.metrics_bind, folder_, [this] {
                    return Pulse{heart_->AgeSeconds(), paused_};
                  }));
  logger_->Info("metrics", {{"address", metrics_->address()}});
  return OkStatus();
}

Status Premises::OpenStore() {
  WEFT_TRY_ASSIGN(
      store_,
      FileStore::Open({.folder = folder_,
                       .post = [this](std::function<void()> done) { loop_.Post(std::move(done)); },
                       .wall_us = [this] { return loop_.WallMicros(); },
                       .full_disk_patience = kFullDiskPatience,
                       .on_waiting =
                           [this](const Status& why) {
                             paused_ = !why.ok();
                             TellOfDisk(*logger_, why);
                           }}));
  return OkStatus();
}

Status Premises::RegisterWork(bool evaluate_here) {
  RegisterMergeWork(
      table_, settings_.model.path.empty() ? NoBaseWeights() : BaseWeights(settings_.model.path));
  RegisterNodeJobs(table_);
  if (!evaluate_here) return OkStatus();
  WEFT_TRY_ASSIGN(ServerEvaluation evaluation, LoadServerEvaluation(settings_));
  RegisterServerEvaluation(table_, std::move(evaluation));
  return OkStatus();
}

Status Premises::Listen() {
  const ServerSettings& server = settings_.server;
  if (server.secret_key.empty()) {
    return InvalidArgument(
        "[server] secret-key: got none, wanted the server's .secret file; make one with `weft "
        "keys new` or a whole federation with `weft init`");
  }
  if (server.allow_list.empty()) {
    return InvalidArgument(
        "[server] allow-list: got none, wanted a file of \"public-key name\" lines; add clients "
        "with `weft keys allow`");
  }
  ZmqServer::Options options;
  options.endpoint = server.bind;
  options.allow_list = server.allow_list;
  options.log = logger_.get();
  WEFT_TRY_ASSIGN(options.keys, LoadSecretKey(server.secret_key));
  WEFT_TRY_ASSIGN(server_, ZmqServer::Bind(loop_, std::move(options)));
  return OkStatus();
}

void Premises::OnStop(std::function<void(const Status& why)> stop) {
  stop_ = std::move(stop);
  if (stopped_ && stop_) stop_(*stopped_);
}

std::optional<std::string> Premises::StopRequest() const {
  std::ifstream file(std::filesystem::path(folder_) / kStopRequestFile, std::ios::binary);
  if (!file) return std::nullopt;
  std::string reason((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  reason.resize(std::min<size_t>(reason.size(), 200));
  while (!reason.empty() && (reason.back() == '\n' || reason.back() == ' ')) reason.pop_back();
  return reason.empty() ? "asked to stop" : reason;
}

// One that stays would only stop the next start at once.
void Premises::ForgetStopRequest() const {
  std::error_code ignored;
  std::filesystem::remove(std::filesystem::path(folder_) / kStopRequestFile, ignored);
}

}  // namespace weft
