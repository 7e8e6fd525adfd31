#include "common/runtime/run_events.h"

#include <utility>

#include "common/plan/fields.h"

namespace weft {

template <typename V, FieldsOf<FileRef> S>
void VisitFields(V& visit, S& file) {
  visit.Required("name", file.name);
  visit.Required("bytes", file.bytes);
  visit.Required("sha256", file.sha256);
}

template <typename V, FieldsOf<RunStarted> S>
void VisitFields(V& visit, S& event) {
  visit.Required("run", event.run);
  visit.Required("settings_sha256", event.settings_sha256);
  visit.Required("base_hash", event.base_hash);
  visit.Required("seed", event.seed);
  visit.Required("num_server_rounds", event.num_server_rounds);
  visit.Required("strategy", event.strategy);
  visit.Required("adapter", event.adapter);
  visit.Required("sites", event.sites);
  visit.Required("software", event.software);
  visit.Required("protocol", event.protocol);
  visit.Optional("settings_toml", event.settings_toml);
}

template <typename V, FieldsOf<RunResumed> S>
void VisitFields(V& visit, S& event) {
  visit.Required("round", event.round);
  visit.Required("software", event.software);
  visit.Optional("settings_toml", event.settings_toml);
}

template <typename V, FieldsOf<MemberJoined> S>
void VisitFields(V& visit, S& event) {
  visit.Required("client", event.client);
  visit.Required("capabilities", event.capabilities);
  visit.Required("rank", event.rank);
}

template <typename V, FieldsOf<MemberGone> S>
void VisitFields(V& visit, S& event) {
  visit.Required("client", event.client);
  visit.Required("reason", event.reason);
}

template <typename V, FieldsOf<RoundOpened::Bundle> S>
void VisitFields(V& visit, S& event) {
  visit.Required("client", event.client);
  visit.Required("sha256", event.sha256);
  visit.Required("bytes", event.bytes);
}

template <typename V, FieldsOf<RoundOpened> S>
void VisitFields(V& visit, S& event) {
  visit.Required("plan", event.plan);
  visit.Required("attempt", event.attempt);
  visit.Required("bundles", event.bundles);
}

template <typename V, FieldsOf<BundleSent> S>
void VisitFields(V& visit, S& event) {
  visit.Required("round", event.round);
  visit.Required("client", event.client);
  visit.Required("bytes", event.bytes);
  visit.Required("download_s", event.download_s);
}

template <typename V, FieldsOf<UpdateAccepted> S>
void VisitFields(V& visit, S& event) {
  visit.Required("header", event.header);
  visit.Required("blob", event.blob);
  visit.Required("update_norm", event.update_norm);
  visit.Required("admit_s", event.admit_s);
  visit.Required("upload_s", event.upload_s);
  visit.Required("bytes", event.bytes);
  visit.Optional("lora_bytes", event.lora_bytes);
  visit.Optional("round", event.round);
}

template <typename V, FieldsOf<UpdateLost> S>
void VisitFields(V& visit, S& event) {
  visit.Required("round", event.round);
  visit.Required("client", event.client);
  visit.Required("blob", event.blob);
}

template <typename V, FieldsOf<UpdateRefused> S>
void VisitFields(V& visit, S& event) {
  visit.Required("round", event.round);
  visit.Required("client", event.client);
  visit.Required("code", event.code);
  visit.Required("reason", event.reason);
}

template <typename V, FieldsOf<UpdateLate> S>
void VisitFields(V& visit, S& event) {
  visit.Required("round", event.round);
  visit.Required("client", event.client);
}

template <typename V, FieldsOf<ClientDropped> S>
void VisitFields(V& visit, S& event) {
  visit.Required("round", event.round);
  visit.Required("client", event.client);
  visit.Required("reason", event.reason);
  visit.Required("phase", event.phase);
}

template <typename V, FieldsOf<MergeKernels> S>
void VisitFields(V& visit, S& kernels) {
  visit.Required("torch", kernels.torch);
  visit.Required("cpu", kernels.cpu);
  visit.Required("threads", kernels.threads);
}

template <typename V, FieldsOf<RoundPublished> S>
void VisitFields(V& visit, S& event) {
  visit.Required("round", event.round);
  visit.Required("version", event.version);
  visit.Required("state", event.state);
  visit.Required("adapter_sha256", event.adapter_sha256);
  visit.Required("certificate", event.certificate);
  visit.Required("merge_s", event.merge_s);
  visit.Optional("peft_folder", event.peft_folder);
  visit.Optional("peft_files", event.peft_files);
  visit.Optional("kernels", event.kernels);
  visit.Optional("updates_kept", event.updates_kept);
  visit.Optional("adopted", event.adopted);
}

template <typename V, FieldsOf<UpdateForwarded> S>
void VisitFields(V& visit, S& event) {
  visit.Required("round", event.round);
  visit.Required("file", event.file);
  visit.Required("header", event.header);
  visit.Required("bundle_sha256", event.bundle_sha256);
  visit.Required("error", event.error);
  visit.Required("merge_s", event.merge_s);
}

template <typename V, FieldsOf<PosteriorFitted> S>
void VisitFields(V& visit, S& event) {
  visit.Required("round", event.round);
  visit.Required("version", event.version);
  visit.Required("file", event.file);
  visit.Required("precision", event.precision);
  visit.Required("log_marginal", event.log_marginal);
  visit.Required("log_likelihood", event.log_likelihood);
  visit.Required("examples", event.examples);
  visit.Required("clients", event.clients);
  visit.Required("fit_s", event.fit_s);
}

template <typename V, FieldsOf<RoundMissed> S>
void VisitFields(V& visit, S& event) {
  visit.Required("round", event.round);
  visit.Required("attempt", event.attempt);
  visit.Required("reason", event.reason);
}

template <typename V, FieldsOf<EvalReported> S>
void VisitFields(V& visit, S& event) {
  visit.Required("report", event.report);
}

template <typename V, FieldsOf<ServerEvaluated> S>
void VisitFields(V& visit, S& event) {
  visit.Required("version", event.version);
  visit.Required("loss", event.loss);
  visit.Required("label_tokens", event.label_tokens);
  visit.Optional("metrics", event.metrics);
  visit.Optional("evaluate_s", event.evaluate_s);
}

template <typename V, FieldsOf<BestRound> S>
void VisitFields(V& visit, S& event) {
  visit.Required("version", event.version);
  visit.Required("loss", event.loss);
  visit.Optional("by", event.by);
}

template <typename V, FieldsOf<BlobsRemoved> S>
void VisitFields(V& visit, S& event) {
  visit.Required("blobs", event.blobs);
  visit.Optional("reason", event.reason);
}

template <typename V, FieldsOf<RunFinished> S>
void VisitFields(V& visit, S& event) {
  visit.Required("state", event.state);
  visit.Optional("reason", event.reason);
}

namespace {

// Tries the alternatives of RunEvent from index I on; monostate is skipped.
template <size_t I>
Result<RunEvent> ParseFrom(const LedgerEvent& event) {
  if constexpr (I == std::variant_size_v<RunEvent>) {
    return RunEvent(std::monostate());
  } else {
    using E = std::variant_alternative_t<I, RunEvent>;
    if (event.kind != E::kKind) return ParseFrom<I + 1>(event);
    Result<E> parsed = FromJsonText<E>(event.body);
    if (!parsed.ok()) {
      return DataLoss(
          Str("[ledger] row ", event.seq, " ", event.kind, ": ", parsed.status().message()));
    }
    return RunEvent(std::move(parsed).value());
  }
}

}  // namespace

EventDraft ToDraft(const RunEvent& event) {
  return std::visit(
      [](const auto& e) -> EventDraft {
        using E = std::decay_t<decltype(e)>;
        if constexpr (std::is_same_v<E, std::monostate>) {
          WEFT_CHECK(false, "an unknown event cannot be written");
          return {};
        } else {
          return {std::string(E::kKind), ToJsonText(e)};
        }
      },
      event);
}

Result<RunEvent> FromEvent(const LedgerEvent& event) { return ParseFrom<1>(event); }

}  // namespace weft
