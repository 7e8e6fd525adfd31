#include "common/runtime/kept_rounds.h"

#include <algorithm>
#include <utility>

#include <nlohmann/json.hpp>

#include "common/base/str.h"

namespace weft {

Status KeptRounds::Add(const LedgerEvent& row, const RunEvent& event) {
  if (const auto* started = std::get_if<RunStarted>(&event)) {
    settings_toml_ = started->settings_toml;
  } else if (const auto* resumed = std::get_if<RunResumed>(&event)) {
    if (!resumed->settings_toml.empty()) settings_toml_ = resumed->settings_toml;
  } else if (const auto* opened = std::get_if<RoundOpened>(&event)) {
    opened_ = *opened;
  } else if (const auto* update = std::get_if<UpdateAccepted>(&event)) {
    accepted_[update->header.client] = *update;
  } else if (const auto* lost = std::get_if<UpdateLost>(&event)) {
    accepted_.erase(lost->client);
  } else if (const auto* published = std::get_if<RoundPublished>(&event)) {
    return Publish(row, *published);
  } else if (std::holds_alternative<PosteriorFitted>(event)) {
    accepted_.clear();
    ++measured_;
  } else if (const auto* removed = std::get_if<BlobsRemoved>(&event)) {
    removed_.insert(removed->blobs.begin(), removed->blobs.end());
  }
  return OkStatus();
}

Status KeptRounds::Publish(const LedgerEvent& row, const RoundPublished& event) {
  std::map<ClientId, UpdateAccepted> accepted = std::exchange(accepted_, {});
  const std::string before = std::exchange(state_blob_, event.state.name);
  if (event.version.number == 0 || event.adopted) return OkStatus();
  ++merged_;
  if (!event.updates_kept) return OkStatus();
  if (opened_.plan.round != event.round || before.empty()) {
    return DataLoss(Str("[ledger] row ", row.seq, " ", row.kind, ": round ", event.round,
                        " says that its updates are kept, and was never opened"));
  }
  const nlohmann::json body = nlohmann::json::parse(row.body, nullptr, false);
  KeptRound round{.seq = row.seq,
                  .published = event,
                  .certificate = body.at("certificate").dump(),
                  .opened = opened_,
                  .state_blob = before,
                  .updates = {},
                  .settings_toml = settings_toml_};
  // An update of an earlier try counts where its client is asked again.
  for (const ClientPlan& client : opened_.plan.cohort) {
    const auto update = accepted.find(client.client);
    if (update != accepted.end()) round.updates.push_back(std::move(update->second));
  }
  std::sort(round.updates.begin(), round.updates.end(),
            [](const UpdateAccepted& a, const UpdateAccepted& b) {
              return a.header.client < b.header.client;
            });
  kept_.push_back(std::move(round));
  return OkStatus();
}

std::vector<const KeptRound*> KeptRounds::rounds() const {
  std::vector<const KeptRound*> rounds;
  for (const KeptRound& round : kept_) {
    const bool whole =
        removed_.count(round.state_blob) == 0 &&
        std::none_of(round.updates.begin(), round.updates.end(),
                     [&](const UpdateAccepted& update) { return removed_.count(update.blob) > 0; });
    if (whole) rounds.push_back(&round);
  }
  return rounds;
}

}  // namespace weft
