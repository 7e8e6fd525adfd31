#pragma once
// The client's side of the wire as a process has it: its key, the server's, the link; and what is
// said about it before joining.

#include <iosfwd>
#include <memory>
#include <string>
#include <vector>

#include "client/options.h"
#include "common/base/result.h"
#include "common/config/settings.h"
#include "common/net/zmq_client.h"

namespace weft {

/// server.address, or server.bind where there is none.
[[nodiscard]] std::string ServerAddress(const Settings& settings);

/// Starts connecting with the site's key to the server of the settings.
[[nodiscard]] Result<std::unique_ptr<ZmqClient>> ConnectTo(EventLoop& loop,
                                                           const Settings& settings,
                                                           const ClientSettings& client);

/// Tries key and handshake, without a message. `refused`: the server does not let the key in.
[[nodiscard]] Status ProbeLink(const Settings& settings, const ClientSettings& client,
                               std::ostream& out, bool* refused);

/// Every field and every tensor that a site of these options sends, and how much.
void PrintWhatLeaves(const ClientOptions& options, const std::vector<LinearSite>& sites,
                     int64_t rank, std::ostream& out);

}  // namespace weft
