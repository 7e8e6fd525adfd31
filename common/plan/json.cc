#include "common/plan/json.h"

#include "common/plan/fields.h"

namespace weft {

std::string ToJson(const AdapterSpec& spec) { return ToJsonText(spec); }
std::string ToJson(const LocalTraining& training) { return ToJsonText(training); }
std::string ToJson(const ClientPlan& plan) { return ToJsonText(plan); }
std::string ToJson(const RoundPlan& plan) { return ToJsonText(plan); }
std::string ToJson(const UpdateHeader& header) { return ToJsonText(header); }
std::string ToJson(const EvalReport& report) { return ToJsonText(report); }
std::string ToJson(const Capabilities& offer) { return ToJsonText(offer); }
std::string ToJson(const Certificate& certificate) { return ToJsonText(certificate); }

Result<AdapterSpec> AdapterSpecFromJson(std::string_view text) {
  return FromJsonText<AdapterSpec>(text);
}
Result<LocalTraining> LocalTrainingFromJson(std::string_view text) {
  return FromJsonText<LocalTraining>(text);
}
Result<ClientPlan> ClientPlanFromJson(std::string_view text) {
  return FromJsonText<ClientPlan>(text);
}
Result<RoundPlan> RoundPlanFromJson(std::string_view text) { return FromJsonText<RoundPlan>(text); }
Result<UpdateHeader> UpdateHeaderFromJson(std::string_view text) {
  return FromJsonText<UpdateHeader>(text);
}
Result<EvalReport> EvalReportFromJson(std::string_view text) {
  return FromJsonText<EvalReport>(text);
}
Result<Capabilities> CapabilitiesFromJson(std::string_view text) {
  return FromJsonText<Capabilities>(text);
}
Result<Certificate> CertificateFromJson(std::string_view text) {
  return FromJsonText<Certificate>(text);
}

}  // namespace weft
