#pragma once
// The plan's structs as one line of JSON each, and back. Doubles keep every bit, unknown fields are
// ignored, a missing required field is kInvalidArgument naming it. The field lists are in fields.h.

#include <string>
#include <string_view>

#include "common/base/result.h"
#include "common/plan/adapter_spec.h"
#include "common/plan/certificate.h"
#include "common/plan/round_plan.h"

namespace weft {

[[nodiscard]] std::string ToJson(const AdapterSpec& spec);
[[nodiscard]] std::string ToJson(const LocalTraining& training);
[[nodiscard]] std::string ToJson(const ClientPlan& plan);
[[nodiscard]] std::string ToJson(const RoundPlan& plan);
[[nodiscard]] std::string ToJson(const UpdateHeader& header);
[[nodiscard]] std::string ToJson(const EvalReport& report);
[[nodiscard]] std::string ToJson(const Capabilities& offer);
[[nodiscard]] std::string ToJson(const Certificate& certificate);

[[nodiscard]] Result<AdapterSpec> AdapterSpecFromJson(std::string_view text);
[[nodiscard]] Result<LocalTraining> LocalTrainingFromJson(std::string_view text);
[[nodiscard]] Result<ClientPlan> ClientPlanFromJson(std::string_view text);
[[nodiscard]] Result<RoundPlan> RoundPlanFromJson(std::string_view text);
[[nodiscard]] Result<UpdateHeader> UpdateHeaderFromJson(std::string_view text);
[[nodiscard]] Result<EvalReport> EvalReportFromJson(std::string_view text);
[[nodiscard]] Result<Capabilities> CapabilitiesFromJson(std::string_view text);
[[nodiscard]] Result<Certificate> CertificateFromJson(std::string_view text);

}  // namespace weft
