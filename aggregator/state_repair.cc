#include "aggregator/state_repair.h"

#include <memory>
#include <utility>

#include "aggregator/cohort.h"
#include "aggregator/jobs.h"
#include "aggregator/node_jobs.h"
#include "common/adapters/match.h"
#include "common/base/str.h"
#include "common/config/load.h"
#include "common/crypto/digest.h"

namespace weft {
namespace {

std::vector<SpooledUpdate> SpooledOf(const std::vector<UpdateAccepted>& updates) {
  std::vector<SpooledUpdate> spooled;
  for (const UpdateAccepted& update : updates) {
    spooled.push_back(
        {.header = update.header, .blob = update.blob, .update_norm = update.update_norm});
  }
  return spooled;
}

// As the run began: what it took out of the base model since is computed anew.
AdapterSpec AtTheStart(AdapterSpec spec) {
  std::erase_if(spec.options, [](const auto& option) { return option.first == kBaseChangeOption; });
  return spec;
}

}  // namespace

bool StateRepair::Whole(const RunPosition& position) const {
  const FileRef& wanted = position.published->state;
  const Result<Blob> state = office_.env.store.ReadBlob(wanted.name);
  Status why = state.status();
  if (state.ok()) {
    const std::string got = Sha256Hex(state->span());
    if (got == wanted.sha256) return true;
    why = DataLoss(Str(state->size(), " bytes with SHA-256 ", got, ", the ledger says ",
                       wanted.bytes, " bytes with ", wanted.sha256));
  }
  office_.env.log.Error(
      "the newest version's state is damaged; it is made again from the one "
      "before and the updates that were merged",
      {{"version", position.published->version}, {"file", wanted.name}, {"why", why}});
  return false;
}

void StateRepair::Run(const RunPosition& position, std::function<void()> done) {
  const FileRef wanted = position.published->state;
  // Those in effect when it was made, not those of this start.
  const Result<Settings> recorded =
      SettingsFromToml(position.settings_toml, "the settings in the ledger");
  if (!recorded.ok()) return OnMade(wanted, recorded.status(), {});
  const Settings& settings = *recorded;
  const auto made = [this, wanted, done = std::move(done)](auto output) {
    if (office_.over()) return;
    OnMade(wanted, output.ok() ? Result<Blob>(std::move(output->state)) : output.status(), done);
  };
  if (position.published->version.number == 0) {
    InitJob job{.strategy = settings.strategy,
                .adapter = AtTheStart(position.started->adapter),
                .methods = MethodsOfRun(settings),
                .sites = office_.sites,
                .base_sites = office_.options.base.sites,
                .seed = settings.run.seed};
    return Submit<InitJob>(office_.env.executor, std::move(job), Nanos{0},
                           std::make_shared<JobControl>(), made);
  }
  if (!position.merged_from) {
    return OnMade(wanted, NotFound("the ledger does not say what it was merged from"), {});
  }
  const MergedFrom& from = *position.merged_from;
  CheckSpoolJob check{.updates = SpooledOf(from.updates), .store = &office_.env.store};
  MergeJob merge =
      MakeMergeJob(settings, from.plan, from.state_blob, check.updates, office_.env.store);
  Submit<CheckSpoolJob>(
      office_.env.executor, std::move(check), Nanos{0}, std::make_shared<JobControl>(),
      [this, wanted, made, merge = std::move(merge)](Result<CheckSpoolJob::Output> damaged) {
        if (office_.over()) return;
        if (!damaged.ok()) return OnMade(wanted, damaged.status(), {});
        if (!damaged->empty()) {
          return OnMade(wanted,
                        DataLoss(Str("the update of ", damaged->front(), " (one of ",
                                     damaged->size(), ") is gone or damaged, too")),
                        {});
        }
        Submit<MergeJob>(office_.env.executor, merge, Nanos{0}, std::make_shared<JobControl>(),
                         made);
      });
}

void StateRepair::OnMade(const FileRef& wanted, Result<Blob> made, std::function<void()> done) {
  Status why = made.status();
  if (made.ok()) {
    const std::string got = Sha256Hex(made->span());
    if (got != wanted.sha256) {
      why = DataLoss(Str("made again it has SHA-256 ", got, ", the ledger says ", wanted.sha256,
                         ": settings or software are not those of its merge"));
    }
  }
  if (!why.ok()) {
    return office_.GiveUp(
        DataLoss(Str("[run] ", wanted.name,
                     " is damaged and cannot be made "
                     "again: ",
                     why.message(), "; put a copy of the file back, or use another run.dir")));
  }
  office_.env.store.WriteBlob(
      wanted.name, std::move(*made), [this, wanted, done = std::move(done)](const Status& status) {
        if (office_.over()) return;
        if (!status.ok()) return office_.GiveUp(status.Within(Str("[run] ", wanted.name)));
        office_.env.log.Info("the state is whole again", {{"file", wanted.name}});
        done();
      });
}

}  // namespace weft
