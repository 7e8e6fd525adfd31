#include "aggregator/members.h"

#include <algorithm>
#include <utility>

namespace weft {

void Members::Join(const ClientId& client, Capabilities offer, Nanos now) {
  Member& member = members_[client];
  member.offer = std::move(offer);
  if (!std::exchange(member.present, true)) ++present_;
  member.heard = now;
  member.phase = "wait";
  member.busy_with = RoundId{};
  expected_.erase(client);
}

void Members::Leave(const ClientId& client) {
  Member* member = Find(client);
  if (member != nullptr && std::exchange(member->present, false)) --present_;
}

Member* Members::Find(const ClientId& client) {
  const auto it = members_.find(client);
  return it == members_.end() ? nullptr : &it->second;
}

const Member* Members::Find(const ClientId& client) const {
  const auto it = members_.find(client);
  return it == members_.end() ? nullptr : &it->second;
}

bool Members::Present(const ClientId& client) const {
  const Member* member = Find(client);
  return member != nullptr && member->present;
}

std::vector<ClientId> Members::PresentNames() const {
  std::vector<ClientId> names;
  for (const auto& [client, member] : members_) {
    if (member.present) names.push_back(client);
  }
  return names;
}

std::vector<ClientId> Members::Silent(Nanos now, Nanos gone_after) const {
  std::vector<ClientId> silent;
  for (const auto& [client, member] : members_) {
    if (member.present && now - member.heard > gone_after) silent.push_back(client);
  }
  return silent;
}

void Members::Expect(const ClientId& client) {
  if (!Present(client)) expected_.insert(client);
}

std::set<ClientId> Members::Away() const {
  std::set<ClientId> away = expected_;
  for (const auto& [client, member] : members_) {
    if (!member.present) away.insert(client);
  }
  return away;
}

std::string Names(const std::vector<ClientId>& clients) {
  constexpr size_t kShown = 8;
  if (clients.empty()) return "nobody";
  std::string text;
  for (size_t i = 0; i < std::min(clients.size(), kShown); ++i) {
    if (i > 0) text += ", ";
    text += clients[i].name;
  }
  if (clients.size() > kShown) text += " and " + std::to_string(clients.size() - kShown) + " more";
  return text;
}

std::string Names(const std::set<ClientId>& clients) {
  return Names(std::vector<ClientId>(clients.begin(), clients.end()));
}

}  // namespace weft
