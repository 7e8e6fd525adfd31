#pragma once
// The client as a process: settings in, a member of a run out; and --check, which tries everything
// short of joining and says what would leave the site.

#include <iosfwd>
#include <string>

#include "client/load_site.h"
#include "client/rank_plan.h"
#include "common/base/result.h"
#include "common/config/settings.h"

namespace weft {

struct ClientDaemon {
  Settings settings;      // [model], [server]
  ClientSettings client;  // the site's own
  double link_mbps = 0;   // for rank = "auto"; 0: what the network card says
};

/// The site to run: the [[client]] of that name, or the only one there is.
[[nodiscard]] Result<ClientSettings> ChooseClient(const Settings& settings,
                                                  const std::string& name);

/// The rank the site offers: its number, or the plan for "auto", told to `out`.
[[nodiscard]] Result<int64_t> DecideRank(const ClientDaemon& daemon, const SharedBase& shared,
                                         std::ostream& out);

/// Runs until the run has ended or a signal stops it. `refused` is set when the aggregator would
/// not have this client. kCancelled: stopped.
[[nodiscard]] Status RunClientDaemon(const ClientDaemon& daemon, bool* refused);

/// Data, memory, key and link, one line each on `out`, then what would leave this site. The first
/// failure is returned; nothing is joined. `refused`: the aggregator does not know the key.
[[nodiscard]] Status CheckClient(const ClientDaemon& daemon, std::ostream& out, bool* refused);

}  // namespace weft
