#pragma once
// AdapterSpec and LinearSite in and out of Cap'n Proto: what messages and tensor blocks share.
// Internal to common/wire: only its .cc files include this.

#include <string>
#include <vector>

#include <protocols/tensors.capnp.h>

#include "common/plan/adapter_spec.h"
#include "common/wire/decode.h"

namespace weft::wire {

[[nodiscard]] inline capnp::Text::Reader AsCapnp(const std::string& text) {
  return {text.c_str(), text.size()};
}

void WriteSite(proto::LinearSite::Builder out, const LinearSite& site);
[[nodiscard]] LinearSite ReadSite(FieldReader& fields, proto::LinearSite::Reader in);

void WriteSpec(proto::AdapterSpec::Builder out, const AdapterSpec& spec);
[[nodiscard]] AdapterSpec ReadSpec(FieldReader& fields, proto::AdapterSpec::Reader in);

void WriteTexts(capnp::List<capnp::Text>::Builder out, const std::vector<std::string>& texts);
[[nodiscard]] std::vector<std::string> ReadNames(FieldReader& fields,
                                                 capnp::List<capnp::Text>::Reader in,
                                                 uint64_t count_max, const char* field);

/// A list's length as Cap'n Proto counts; more than it can hold is a bug of ours.
[[nodiscard]] unsigned ListSize(size_t count);

}  // namespace weft::wire
