#pragma once
// From settings to the Site a client works on, and to what the client offers when it joins. The
// same for a daemon's one site and for many in one process.

#include <memory>
#include <vector>

#include "client/options.h"
#include "client/site.h"
#include "common/config/settings.h"

namespace weft {

/// What all sites of a process share: the base model (loaded on first use) and its tokenizer.
struct SharedBase {
  std::shared_ptr<ModelShelf> models;
  std::shared_ptr<const Tokenizer> tokenizer;
  ChatChoice chat_template = NoChatTemplate();
  BaseDescription base;
  int64_t context = 0;      // the longest row the base takes, in tokens
  bool classifies = false;  // rows have a class; which ones there are, the plan says
};
[[nodiscard]] Result<SharedBase> LoadSharedBase(const ModelSettings& model);

/// Reads the client's rows: `valid` where given, else the last `valid_fraction` of `data`.
[[nodiscard]] Result<std::shared_ptr<Site>> LoadSite(const ClientSettings& client,
                                                     const SharedBase& shared);

/// The site made of rows already read.
[[nodiscard]] std::shared_ptr<Site> MakeSite(const ClientId& client, const SharedBase& shared,
                                             std::vector<Row> train, std::vector<Row> validation);

/// What the site offers: its rows, device, memory, the largest rank it trains, and its method
/// (empty: any there is).
[[nodiscard]] ClientOptions MakeClientOptions(const Site& site, const SharedBase& shared,
                                              const std::string& device, int64_t rank_max,
                                              const std::string& method = "");

}  // namespace weft
