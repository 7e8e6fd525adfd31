#include "client/daemon.h"

#include <charconv>
#include <filesystem>
#include <iostream>
#include <random>
#include <utility>

#include "client/client_node.h"
#include "client/connect.h"
#include "client/memory_plan.h"
#include "client/train_work.h"
#include "common/adapters/adapter.h"
#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/net/event_loop.h"
#include "common/net/signal_watcher.h"
#include "common/net/thread_executor.h"
#include "common/runtime/file_store.h"
#include "common/tensor/device.h"

namespace weft {
namespace {

uint64_t WeightBytes(const std::string& folder) {
  uint64_t bytes = 0;
  std::error_code error;
  std::filesystem::directory_iterator file(folder, error);
  for (; !error && file != std::filesystem::directory_iterator(); file.increment(error)) {
    if (file->path().extension() == ".safetensors") bytes += file->file_size(error);
  }
  return bytes;
}

/// The layers that would carry an adapter as far as this file says; the run's plan decides.
Result<std::vector<LinearSite>> LikelySites(const Settings& settings, const SharedBase& shared) {
  AdapterSpec spec = settings.adapter;
  if (spec.target_modules.empty() && spec.target_regex.empty()) {
    spec.target_modules = {"all-linear"};
  }
  return MatchSites(spec, shared.base.sites);
}

/// What becomes of the site's rows when they are tokens.
Status DescribeRows(Site& site, const SharedBase& shared, std::ostream& out) {
  const auto describe = [&](Site::Split split, const char* name) -> Status {
    WEFT_TRY_ASSIGN(const auto tokens, site.Tokens(split, shared.context, "cut"));
    out << "data    ok   " << name << ": " << tokens->summary.Text(shared.context) << "\n";
    return OkStatus();
  };
  WEFT_TRY(describe(Site::Split::kTrain, "training"));
  if (site.num_validation() == 0) return OkStatus();
  return describe(Site::Split::kValidation, "validation");
}

}  // namespace

Result<ClientSettings> ChooseClient(const Settings& settings, const std::string& name) {
  std::string known;
  for (const ClientSettings& client : settings.clients) {
    if (client.name == name) return client;
    known += (known.empty() ? "" : ", ") + client.name;
  }
  if (name.empty() && settings.clients.size() == 1) return settings.clients.front();
  if (settings.clients.empty()) {
    ClientSettings client;
    client.name = name;
    if (!name.empty()) return client;
    return InvalidArgument("[client] name: got none, wanted --name or a [client] table");
  }
  return NotFound(
      Str("[client] name: got \"", name, "\", wanted one of ", known, "; say which with --name"));
}

Result<int64_t> DecideRank(const ClientDaemon& daemon, const SharedBase& shared,
                           std::ostream& out) {
  const std::string& text = daemon.client.rank;
  if (text != "auto") {
    int64_t rank = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), rank);
    if (error != std::errc() || end != text.data() + text.size() || rank < 1 ||
        rank > limits::kRankMax) {
      return InvalidArgument(
          Str("[client] rank: got \"", text, "\", wanted auto or 1 to ", limits::kRankMax));
    }
    return rank;
  }
  WEFT_TRY_ASSIGN(const std::vector<LinearSite> sites, LikelySites(daemon.settings, shared));
  WEFT_TRY_ASSIGN(const at::Device device, ParseDevice(daemon.settings.model.device));
  const RankPlan plan =
      PlanRank({.sites = sites,
                .base_bytes = WeightBytes(daemon.settings.model.path),
                .free_bytes = static_cast<uint64_t>(std::max<int64_t>(AvailableMemory(device), 0)),
                .link_mbps = daemon.link_mbps > 0 ? daemon.link_mbps
                                                  : LinkSpeedMbps(ServerAddress(daemon.settings))});
  out << plan.text << "\n";
  return plan.rank;
}

Status RunClientDaemon(const ClientDaemon& daemon, bool* refused) {
  const Settings& settings = daemon.settings;
  const ClientSettings& client = daemon.client;
  if (settings.model.threads > 0) at::set_num_threads(static_cast<int>(settings.model.threads));

  EventLoop loop;
  ClientNode* running = nullptr;
  std::string stop_early;
  SignalWatcher signals(loop, [&](int number) {
    stop_early = Str("signal ", number);
    if (running != nullptr) running->Stop(Cancelled(stop_early));
  });
  WEFT_TRY_ASSIGN(const SharedBase shared, LoadSharedBase(settings.model));
  WEFT_TRY_ASSIGN(const std::shared_ptr<Site> site, LoadSite(client, shared));
  WEFT_TRY_ASSIGN(const int64_t rank, DecideRank(daemon, shared, std::cerr));
  log::Logger logger(
      "client-" + client.name, log::StderrSink(), [&loop] { return loop.WallMicros(); },
      log::LevelFromName(settings.run.log_level));
  const std::string folder = client.dir.empty() ? "client-" + client.name : client.dir;
  WEFT_TRY_ASSIGN(
      const std::unique_ptr<FileStore> store,
      FileStore::Open({.folder = folder,
                       .post = [&loop](std::function<void()> done) { loop.Post(std::move(done)); },
                       .wall_us = [&loop] { return loop.WallMicros(); }}));
  WorkTable table;
  RegisterTrainWork(
      table, {.sites = {site}, .on_notice = [&logger](const ClientId&, const std::string& text) {
                logger.Info(text);
              }});
  ThreadExecutor executor(loop, table, 1, [threads = settings.model.threads] {
    if (threads > 0) at::set_num_threads(static_cast<int>(threads));
  });
  WEFT_TRY_ASSIGN(const std::unique_ptr<ZmqClient> link, ConnectTo(loop, settings, client));

  std::random_device device;
  RandomStream entropy((uint64_t{device()} << 32) | device());
  ClientOptions options =
      MakeClientOptions(*site, shared, settings.model.device, rank, client.method);
  ClientNode node(Env{loop, *link, executor, *store, entropy, logger}, std::move(options));
  running = &node;
  WEFT_TRY(node.Start());
  if (!stop_early.empty()) node.Stop(Cancelled(stop_early));
  loop.RunUntil([&] { return node.Finished(); });
  running = nullptr;
  *refused = node.Refused();
  return node.Outcome();
}

Status CheckClient(const ClientDaemon& daemon, std::ostream& out, bool* refused) {
  const Settings& settings = daemon.settings;
  const ClientSettings& client = daemon.client;
  WEFT_TRY_ASSIGN(const SharedBase shared, LoadSharedBase(settings.model));
  out << "model   ok   " << settings.model.path << ", base hash " << shared.base.hash.substr(0, 16)
      << "…, " << shared.base.sites.size() << " linear layers\n";
  WEFT_TRY_ASSIGN(const std::shared_ptr<Site> site, LoadSite(client, shared));
  WEFT_TRY(DescribeRows(*site, shared, out));
  out << "memory  ok   ";
  WEFT_TRY_ASSIGN(const int64_t rank, DecideRank(daemon, shared, out));
  if (client.rank != "auto") out << "rank " << rank << " as configured\n";
  WEFT_TRY(ProbeLink(settings, client, out, refused));
  WEFT_TRY_ASSIGN(const std::vector<LinearSite> sites, LikelySites(settings, shared));
  const ClientOptions options =
      MakeClientOptions(*site, shared, settings.model.device, rank, client.method);
  PrintWhatLeaves(options, sites, rank, out);
  return OkStatus();
}

}  // namespace weft
