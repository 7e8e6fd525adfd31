#include "aggregator/open_round.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/base/check.h"
#include "common/base/str.h"

namespace weft {
namespace {

bool MayDeliver(const Seat& seat) {
  return seat.standing == Standing::kWorking || seat.standing == Standing::kUploading;
}

}  // namespace

OpenRound::OpenRound(RoundPlan plan, uint32_t attempt, Nanos opened)
    : plan_(std::move(plan)), attempt_(attempt), opened_(opened) {
  for (const ClientPlan& client : plan_.cohort) seats_[client.client].plan = client;
  common_ = plan_;
  common_.cohort.clear();
  common_.evaluators.clear();
}

Seat* OpenRound::Find(const ClientId& client) {
  const auto it = seats_.find(client);
  return it == seats_.end() ? nullptr : &it->second;
}

void OpenRound::Accept(const ClientId& client, SpooledUpdate update, Nanos now) {
  Seat* seat = Find(client);
  WEFT_CHECK(seat != nullptr, client, " is not in the cohort of round ", plan_.round);
  WEFT_CHECK(seat->standing != Standing::kAccepted, "the update of ", client, " counts once");
  seat->standing = Standing::kAccepted;
  seat->update = std::move(update);
  accepted_at_.push_back(now);
}

void OpenRound::Settle(const ClientId& client, Standing standing, std::string reason) {
  Seat* seat = Find(client);
  if (seat == nullptr || seat->standing == Standing::kAccepted) return;
  seat->standing = standing;
  seat->reason = std::move(reason);
}

void OpenRound::Away(const ClientId& client, Nanos now) {
  Seat* seat = Find(client);
  if (seat == nullptr || seat->away) return;
  seat->away = true;
  seat->away_since = now;
  if (seat->standing == Standing::kUploading) seat->standing = Standing::kWorking;
}

void OpenRound::Back(const ClientId& client) {
  Seat* seat = Find(client);
  if (seat == nullptr) return;
  seat->away = false;
  if (seat->standing == Standing::kDropped) seat->standing = Standing::kWorking;
}

size_t OpenRound::CountOf(Standing standing) const {
  return static_cast<size_t>(std::count_if(seats_.begin(), seats_.end(), [&](const auto& entry) {
    return entry.second.standing == standing;
  }));
}

size_t OpenRound::Wanted(const CohortSettings& cohort) const {
  const auto buffer = static_cast<size_t>(std::max<int64_t>(cohort.buffer, 0));
  return buffer == 0 ? seats_.size() : std::min(buffer, seats_.size());
}

size_t OpenRound::QuorumSize(const CohortSettings& cohort) const {
  const size_t wanted = Wanted(cohort);
  const double share = std::ceil(cohort.quorum * static_cast<double>(wanted) - 1e-9);
  return std::clamp<size_t>(static_cast<size_t>(std::max(share, 0.0)), 1, wanted);
}

std::vector<ClientId> OpenRound::Awaited() const {
  std::vector<ClientId> awaited;
  for (const auto& [client, seat] : seats_) {
    if (MayDeliver(seat)) awaited.push_back(client);
  }
  return awaited;
}

std::vector<ClientId> OpenRound::LongAway(Nanos now, Nanos patience) const {
  std::vector<ClientId> gone;
  for (const auto& [client, seat] : seats_) {
    if (MayDeliver(seat) && seat.away && now - seat.away_since > patience) gone.push_back(client);
  }
  return gone;
}

std::vector<SpooledUpdate> OpenRound::Updates() const {
  std::vector<SpooledUpdate> updates;
  for (const auto& [client, seat] : seats_) {
    if (seat.standing == Standing::kAccepted) updates.push_back(seat.update);
  }
  return updates;
}

OpenRound::Decision OpenRound::Judge(const CohortSettings& cohort, Nanos now) const {
  const bool nobody_awaited = std::none_of(
      seats_.begin(), seats_.end(), [](const auto& entry) { return MayDeliver(entry.second); });
  const bool overdue = now - opened_ >= Seconds(plan_.deadline_s);
  const size_t accepted = CountOf(Standing::kAccepted);
  const size_t quorum = QuorumSize(cohort);
  if (accepted < quorum) {
    return nobody_awaited || overdue ? Decision::kMiss : Decision::kWait;
  }
  const bool grace_over =
      cohort.grace_s > 0 && now - accepted_at_[quorum - 1] >= Seconds(cohort.grace_s);
  const bool full = accepted >= Wanted(cohort);
  return nobody_awaited || overdue || grace_over || full ? Decision::kClose : Decision::kWait;
}

std::string OpenRound::Describe() const {
  std::string text = Str(CountOf(Standing::kAccepted), " of ", seats_.size(), " accepted");
  for (const auto& [client, seat] : seats_) {
    if (seat.standing == Standing::kAccepted) continue;
    text += Str("; ", client, ": ", MayDeliver(seat) ? "awaited" : seat.reason);
  }
  return text;
}

}  // namespace weft
