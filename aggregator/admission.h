#pragma once
// What the aggregator checks of a message before it costs anything: who may join, which update may
// be pulled. Pure functions of the message and of what was asked for.

#include <optional>
#include <string>

#include "common/plan/base_description.h"
#include "common/plan/round_plan.h"
#include "common/wire/messages.h"

namespace weft {

/// What a member must be able to do.
struct JoinTerms {
  const BaseDescription& base;
  std::string method;
  int64_t rank = 0;            // that everybody must train; 0: ranks may differ
  bool mixed_methods = false;  // may another method do?
  std::string codec;
  std::string down_codec = "float32";
  std::string no_relays = {};  // why relays may not join; empty: they may
};

/// Why this client may not join; none if it may.
[[nodiscard]] std::optional<Refusal> CheckHello(const ClientId& from, const Hello& hello,
                                                const JoinTerms& terms);

/// Ok if the update is what `plan` asked `own` for, as far as its header says. The tensors are
/// looked at by AdmitJob, once they are here.
[[nodiscard]] Status CheckUpdateOffer(const ClientId& from, const UpdateOffer& offer,
                                      const RoundPlan& plan, const ClientPlan& own,
                                      uint64_t payload_bytes_max);

/// Largest encoding of an update of this spec on these sites, of a base with those: no codec takes
/// more than 8 bytes an element beside its manifest.
[[nodiscard]] uint64_t UpdateBytesMax(const AdapterSpec& spec, const std::vector<LinearSite>& sites,
                                      const std::vector<LinearSite>& base_sites);

/// What an update of a plain LoRA of the same ranks, with the same whole modules, takes in float32.
[[nodiscard]] uint64_t PlainLoraUpdateBytes(const AdapterSpec& spec,
                                            const std::vector<LinearSite>& sites,
                                            const std::vector<LinearSite>& base_sites);

/// Ok if the report answers the question and can be averaged.
[[nodiscard]] Status CheckEvalReport(const ClientId& from, const EvalReport& report,
                                     const RunId& run, RoundId version);

}  // namespace weft
