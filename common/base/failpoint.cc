#include "common/base/failpoint.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <csignal>
#include <string>

#include <unistd.h>

#include "common/base/str.h"

namespace weft {
namespace {

using F = Failpoint;

constexpr std::array kPoints = {
    FailpointInfo{F::kRoundRecorded, "aggregator.round-recorded", "aggregator",
                  "the round's opening is on disk"},
    FailpointInfo{F::kOfferSent, "aggregator.offer-sent", "aggregator",
                  "a client was offered the round"},
    FailpointInfo{F::kUpdateOffered, "aggregator.update-offered", "aggregator",
                  "a client offers its update"},
    FailpointInfo{F::kChunkCame, "aggregator.chunk-came", "aggregator",
                  "a chunk of an update is here"},
    FailpointInfo{F::kChunkWritten, "aggregator.chunk-written", "aggregator",
                  "a chunk is in the spool"},
    FailpointInfo{F::kUpdateSealed, "aggregator.update-sealed", "aggregator",
                  "an update is whole and on disk"},
    FailpointInfo{F::kUpdateAdmitted, "aggregator.update-admitted", "aggregator",
                  "an update was checked, and is not recorded yet"},
    FailpointInfo{F::kUpdateRecorded, "aggregator.update-recorded", "aggregator",
                  "its acceptance is on disk, and its client does not know"},
    FailpointInfo{F::kVerdictSent, "aggregator.verdict-sent", "aggregator", "the client was told"},
    FailpointInfo{F::kRoundClosed, "aggregator.round-closed", "aggregator",
                  "the round takes no more updates"},
    FailpointInfo{F::kRoundMerged, "aggregator.round-merged", "aggregator",
                  "the merge is done, and nothing of it is on disk"},
    FailpointInfo{F::kStateWritten, "aggregator.state-written", "aggregator",
                  "the new state is on disk, and no event says so"},
    FailpointInfo{F::kAdapterExported, "aggregator.adapter-exported", "aggregator",
                  "the PEFT folder is there as well"},
    FailpointInfo{F::kVersionRecorded, "aggregator.version-recorded", "aggregator",
                  "the version is published, and nobody acts on it yet"},
    FailpointInfo{F::kSpoolRemoved, "aggregator.spool-removed", "aggregator",
                  "the merged updates were taken away"},
    FailpointInfo{F::kEvaluationRecorded, "aggregator.evaluation-recorded", "aggregator",
                  "a client's evaluation is noted"},
    FailpointInfo{F::kOfferHeard, "client.offer-heard", "client", "a round was offered"},
    FailpointInfo{F::kBundlePulled, "client.bundle-pulled", "client", "what to start from is here"},
    FailpointInfo{F::kUpdateTrained, "client.update-trained", "client",
                  "trained, and nothing of it is on disk"},
    FailpointInfo{F::kUpdateKept, "client.update-kept", "client", "the update is on disk"},
    FailpointInfo{F::kUpdateOfferSent, "client.update-offer-sent", "client",
                  "the update was offered"},
    FailpointInfo{F::kChunksSent, "client.chunks-sent", "client", "some of it was sent"},
    FailpointInfo{F::kVerdictHeard, "client.verdict-heard", "client",
                  "it was accepted, and is still kept"},
    FailpointInfo{F::kUpdateForgotten, "client.update-forgotten", "client",
                  "and is asked to be removed"},
    FailpointInfo{F::kUpdateForwarded, "relay.update-forwarded", "relay",
                  "what its members changed is one update on disk"},
    FailpointInfo{F::kBeforeCommit, "store.before-commit", "all",
                  "events are about to be committed"},
    FailpointInfo{F::kAfterCommit, "store.after-commit", "all",
                  "they are on disk, and not acknowledged"},
    FailpointInfo{F::kBeforeRename, "store.before-rename", "all",
                  "a file is written and synced under its temporary name"},
    FailpointInfo{F::kAfterRename, "store.after-rename", "all",
                  "it has its name, and is not acknowledged"},
};

std::atomic<int64_t> left{0};

}  // namespace

std::span<const FailpointInfo> Failpoints() { return kPoints; }

bool Passes(std::string_view process, const FailpointInfo& point) {
  return point.process == process || point.process == "all" || process == "relay";
}

Status ArmFailpoint(std::string_view text, std::string_view process) {
  const size_t colon = text.find(':');
  const std::string_view name = text.substr(0, colon);
  int64_t nth = 1;
  if (colon != std::string_view::npos) {
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data() + colon + 1, end, nth);
    if (error != std::errc() || stop != end || nth < 1) {
      return InvalidArgument(
          Str("[failpoint] got \"", text, "\", wanted NAME or NAME:N, N from 1"));
    }
  }
  const auto found = std::find_if(kPoints.begin(), kPoints.end(),
                                  [&](const FailpointInfo& each) { return each.name == name; });
  if (found == kPoints.end()) {
    return NotFound(Str("[failpoint] none is called \"", name, "\"; see --list-failpoints"));
  }
  if (!Passes(process, *found)) {
    return InvalidArgument(Str("[failpoint] ", name, " is passed by the ", found->process,
                               " alone, this is the ", process));
  }
  left = nth;
  internal::armed_failpoint = static_cast<int>(found->point);
  return OkStatus();
}

void internal::PassArmed() {
  if (left.fetch_sub(1) != 1) return;
  ::kill(::getpid(), SIGKILL);
  for (;;) ::pause();  // the signal is on its way
}

}  // namespace weft
