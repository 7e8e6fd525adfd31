#include "aggregator/publisher.h"

#include <memory>
#include <utility>

#include "aggregator/jobs.h"
#include "aggregator/node_jobs.h"
#include "common/base/failpoint.h"
#include "common/base/str.h"

namespace weft {
namespace {

// An adapter of some ranks that lives in one direction: the others are carried for nothing.
constexpr double kCollapsed = 0.95;
constexpr size_t kRanksToCollapse = 4;
constexpr Nanos kExportAgainAfter = std::chrono::seconds(10);

void TellOfMerge(Office& office, const Certificate& certificate) {
  for (const std::string& note : certificate.notes) {
    office.env.log.Warn("robust rule", {{"note", note}});
  }
  for (const auto& [client, remark] : certificate.client_remarks) {
    office.env.log.Info("update weighed", {{"client", client}, {"why", remark}});
  }
  const auto& energies = certificate.energy_by_rank;
  if (energies.size() >= kRanksToCollapse && energies.front().second > kCollapsed) {
    office.env.log.Warn("ranks collapse: nearly all of the global adapter is in one of them",
                        {{"share", energies.front().second}, {"ranks", energies.size()}});
  }
}

}  // namespace

struct Publisher::Work {
  NewVersion next;
  std::vector<RunEvent> before;
  std::function<void()> done;
  RoundPublished event;
  int open = 2;  // the state's digest and its writing
};

void Publisher::Publish(NewVersion version, std::vector<RunEvent> before,
                        std::function<void()> done) {
  TellOfMerge(office_, version.certificate);
  auto work = std::make_shared<Work>();
  work->event.round = work->event.version = version.version;
  work->event.adapter_sha256 = version.adapter_sha256;
  work->event.certificate = version.certificate;
  work->event.kernels = version.kernels;
  work->event.merge_s = version.merge_s;
  work->event.updates_kept = version.updates_kept;
  work->event.adopted = version.adopted;
  work->event.state = {
      .name = StateBlobName(version.version), .bytes = version.state.size(), .sha256 = {}};
  work->next = std::move(version);
  work->before = std::move(before);
  work->done = std::move(done);
  Submit<DigestJob>(office_.env.executor, DigestJob{work->next.state}, Nanos{0},
                    std::make_shared<JobControl>(), [this, work](Result<std::string> digest) {
                      if (office_.over()) return;
                      if (!digest.ok()) return office_.GiveUp(digest.status());
                      work->event.state.sha256 = std::move(*digest);
                      OnStored(work);
                    });
  office_.env.store.WriteBlob(
      work->event.state.name, work->next.state, [this, work](const Status& status) {
        if (office_.over()) return;
        if (!status.ok()) {
          return office_.GiveUp(status.Within(Str("[publish] version ", work->next.version)));
        }
        Pass(Failpoint::kStateWritten);
        OnStored(work);
      });
}

void Publisher::OnStored(const std::shared_ptr<Work>& work) {
  if (--work->open == 0) Export(work);
}

void Publisher::Export(const std::shared_ptr<Work>& work) {
  if (office_.options.run_dir.empty()) return Record(work);
  work->event.peft_folder = "adapters/" + RoundName(work->next.version);
  ExportJob job{.state = work->next.state,
                .folder = office_.options.run_dir + "/" + work->event.peft_folder,
                .base_model = office_.options.base_model};
  Submit<ExportJob>(office_.env.executor, std::move(job), Nanos{0}, std::make_shared<JobControl>(),
                    [this, work](Result<ExportJob::Output> exported) {
                      if (office_.over()) return;
                      if (exported.status().code() == Code::kResourceExhausted) {
                        return ExportLater(work, exported.status());
                      }
                      if (!exported.ok()) {
                        return office_.GiveUp(
                            exported.status().Within(Str("[export] version ", work->next.version)));
                      }
                      Pass(Failpoint::kAdapterExported);
                      ListExported(work);
                    });
}

// A full disk, which the store waits for likewise.
void Publisher::ExportLater(const std::shared_ptr<Work>& work, const Status& why) {
  office_.env.log.Error("the adapter cannot be written; tried again until it can",
                        {{"version", work->next.version}, {"why", why}});
  office_.env.clock.At(office_.env.clock.Now() + kExportAgainAfter,
                       [this, work, alive = std::weak_ptr<bool>(alive_)] {
                         if (!alive.expired() && !office_.over()) Export(work);
                       });
}

void Publisher::ListExported(const std::shared_ptr<Work>& work) {
  ListFilesJob job{.root = office_.options.run_dir, .folder = work->event.peft_folder};
  Submit<ListFilesJob>(office_.env.executor, std::move(job), Nanos{0},
                       std::make_shared<JobControl>(),
                       [this, work](Result<std::vector<FileRef>> files) {
                         if (office_.over()) return;
                         if (!files.ok()) return office_.GiveUp(files.status());
                         work->event.peft_files = std::move(*files);
                         Record(work);
                       });
}

void Publisher::Record(const std::shared_ptr<Work>& work) {
  std::vector<RunEvent> events = std::move(work->before);
  events.emplace_back(work->event);
  office_.Record(std::move(events), [this, work] {
    Pass(Failpoint::kVersionRecorded);
    if (office_.over()) return;
    office_.version = work->event.version;
    office_.state_blob = work->event.state.name;
    work->done();
  });
}

}  // namespace weft
