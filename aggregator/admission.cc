#include "aggregator/admission.h"

#include <algorithm>
#include <cmath>

#include "common/adapters/adapter.h"
#include "common/adapters/dense.h"
#include "common/adapters/method_spec.h"
#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/codec/layout.h"
#include "common/wire/tensor_block.h"

namespace weft {
namespace {

bool Has(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string Listed(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? "none" : text;
}

/// The first layer in which the two differ.
std::string SiteDifference(const std::vector<LinearSite>& got,
                           const std::vector<LinearSite>& wanted) {
  if (got.size() != wanted.size()) {
    return Str("got ", got.size(), " linear layers, wanted ", wanted.size());
  }
  for (size_t i = 0; i < got.size(); ++i) {
    if (got[i] == wanted[i]) continue;
    return Str("layer ", i, ": got ", got[i].path, " [", got[i].out, "x", got[i].in, "], wanted ",
               wanted[i].path, " [", wanted[i].out, "x", wanted[i].in, "]");
  }
  return "";
}

std::string Short(const std::string& hash) { return hash.empty() ? "none" : hash.substr(0, 16); }

/// Why none of the methods a client offers will do, or nothing.
std::string MethodRefusal(const std::vector<std::string>& offered, const JoinTerms& terms) {
  if (Has(offered, terms.method)) return "";
  const std::string got = Str("got ", Listed(offered), ", wanted ", terms.method);
  if (!terms.mixed_methods) return got + "; the run's strategy merges one method only";
  if (offered.empty() || !FindAdapter(offered.front()).ok()) {
    return got + " or another that this aggregator knows";
  }
  return "";
}

Status Mismatch(std::string_view what, const std::string& got, const std::string& wanted) {
  return FailedPrecondition(Str(what, ": got ", got, ", wanted ", wanted));
}

}  // namespace

std::optional<Refusal> CheckHello(const ClientId& from, const Hello& hello,
                                  const JoinTerms& terms) {
  const auto refuse = [&](Code code, std::string reason) {
    return Refusal{.code = code, .reason = Str("[join] client ", from, ": ", reason)};
  };
  // A newer peer speaks the older version to us, if it can.
  if (hello.protocol + 1 < kProtocolVersion || hello.protocol > kProtocolVersion + 1) {
    return refuse(Code::kFailedPrecondition,
                  Str("protocol: got version ", hello.protocol, ", wanted ", kProtocolVersion,
                      " or one beside it; install the aggregator's version of weft"));
  }
  if (hello.base_hash != terms.base.hash) {
    return refuse(Code::kFailedPrecondition,
                  Str("base model: got hash ", Short(hello.base_hash), "…, wanted ",
                      Short(terms.base.hash), "…; point [model] path at the run's base model"));
  }
  if (hello.sites != terms.base.sites) {
    return refuse(Code::kFailedPrecondition,
                  Str("base model: ", SiteDifference(hello.sites, terms.base.sites)));
  }
  if (hello.capabilities.members > 0 && !terms.no_relays.empty()) {
    return refuse(Code::kFailedPrecondition, "it is a relay: " + terms.no_relays);
  }
  if (const std::string why = MethodRefusal(hello.capabilities.methods, terms); !why.empty()) {
    return refuse(Code::kFailedPrecondition, "adapter method: " + why);
  }
  for (const std::string& codec : {terms.codec, terms.down_codec}) {
    if (Has(hello.capabilities.codecs, codec)) continue;
    return refuse(Code::kFailedPrecondition,
                  Str("codec: got ", Listed(hello.capabilities.codecs), ", wanted ", codec));
  }
  if (hello.capabilities.rank_max < 0 || hello.capabilities.rank_max > limits::kRankMax) {
    return refuse(Code::kInvalidArgument, Str("rank: got ", hello.capabilities.rank_max,
                                              ", wanted 1 to ", limits::kRankMax));
  }
  if (hello.capabilities.rank_max > 0 && hello.capabilities.rank_max < terms.rank) {
    return refuse(Code::kFailedPrecondition,
                  Str("rank: got at most ", hello.capabilities.rank_max, ", wanted ", terms.rank,
                      "; the run's strategy merges one rank only, use exact-svd or flora"));
  }
  return std::nullopt;
}

Status CheckUpdateOffer(const ClientId& from, const UpdateOffer& offer, const RoundPlan& plan,
                        const ClientPlan& own, uint64_t payload_bytes_max) {
  const UpdateHeader& header = offer.header;
  const auto check = [&]() -> Status {
    if (header.client != from) return Mismatch("client", header.client.name, from.name);
    if (header.run != plan.run) return Mismatch("run", header.run.name, plan.run.name);
    if (header.round != plan.round) return Mismatch("round", Str(header.round), Str(plan.round));
    if (header.version != plan.version) {
      return Mismatch("version it started from", Str(header.version), Str(plan.version));
    }
    if (header.base_hash != plan.base_hash) {
      return Mismatch("base model", Short(header.base_hash), Short(plan.base_hash));
    }
    if (header.codec != plan.codec) return Mismatch("codec", header.codec, plan.codec);
    WEFT_TRY(CheckSameSpec(header.spec, own.adapter));
    if (header.num_examples == 0 || header.num_examples > limits::kExamplesMax) {
      return InvalidArgument(
          Str("num-examples: got ", header.num_examples, ", wanted 1 to ", limits::kExamplesMax));
    }
    if (!std::isfinite(header.train_loss)) {
      return InvalidArgument(Str("train_loss: got ", header.train_loss, ", wanted a number"));
    }
    if (header.payload_sha256 != offer.payload.sha256 ||
        header.payload_bytes != offer.payload.bytes) {
      return InvalidArgument("payload: its header and its offer name different payloads");
    }
    if (offer.payload.bytes == 0 || offer.payload.bytes > payload_bytes_max) {
      return ResourceExhausted(
          Str("payload: got ", offer.payload.bytes, " bytes, wanted 1 to ", payload_bytes_max));
    }
    return OkStatus();
  };
  const Status status = check();
  return status.ok() ? status
                     : status.Within(Str("[admission] client ", from, " round ", plan.round));
}

uint64_t UpdateBytesMax(const AdapterSpec& spec, const std::vector<LinearSite>& sites,
                        const std::vector<LinearSite>& base_sites) {
  const Result<std::vector<TensorLayout>> dense = DenseLayout(spec, base_sites);
  if (!dense.ok()) return limits::kPayloadBytesMax;
  const Result<const Adapter*> method = FindAdapter(spec.method);
  if (!method.ok()) return limits::kPayloadBytesMax;
  const Result<std::vector<SiteLayout>> layout = (*method)->Layout(spec, sites);
  if (!layout.ok()) return limits::kPayloadBytesMax;
  uint64_t bytes = limits::kManifestBytesMax;
  for (size_t i = 0; i < layout->size(); ++i) {
    for (const TensorLayout& tensor : (*layout)[i]) {
      if (tensor.owner == i) bytes += PackedBytesMax(DType::kFloat64, tensor.shape);
    }
  }
  for (const TensorLayout& tensor : *dense) bytes += PackedBytesMax(DType::kFloat64, tensor.shape);
  return std::min(bytes, limits::kPayloadBytesMax);
}

uint64_t PlainLoraUpdateBytes(const AdapterSpec& spec, const std::vector<LinearSite>& sites,
                              const std::vector<LinearSite>& base_sites) {
  int64_t numbers = 0;
  const Result<std::vector<TensorLayout>> dense = DenseLayout(spec, base_sites);
  if (dense.ok()) {
    for (const TensorLayout& tensor : *dense) numbers += c10::multiply_integers(tensor.shape);
  }
  return PlainLoraBytes(spec, sites) + static_cast<uint64_t>(numbers) * sizeof(float);
}

Status CheckEvalReport(const ClientId& from, const EvalReport& report, const RunId& run,
                       RoundId version) {
  const auto check = [&]() -> Status {
    if (report.client != from) return Mismatch("client", report.client.name, from.name);
    if (report.run != run) return Mismatch("run", report.run.name, run.name);
    if (report.version != version) {
      return Mismatch("version", Str(report.version), Str(version));
    }
    if (!std::isfinite(report.loss)) {
      return InvalidArgument(Str("loss: got ", report.loss, ", wanted a number"));
    }
    if (report.label_tokens == 0 || report.label_tokens > limits::kExamplesMax) {
      return InvalidArgument(
          Str("label tokens: got ", report.label_tokens, ", wanted 1 to ", limits::kExamplesMax));
    }
    return OkStatus();
  };
  const Status status = check();
  return status.ok() ? status : status.Within(Str("[evaluation] client ", from));
}

}  // namespace weft
