#pragma once
// What the methods' specs have in common: the checks that every method of factors makes, and the
// options that only one method knows. An option is called "<method>.<name>" ("nola.k"), so that one
// [adapter] table serves a federation of several methods.

#include <initializer_list>
#include <span>
#include <string>
#include <string_view>

#include "common/base/result.h"
#include "common/plan/adapter_spec.h"

namespace weft {

/// kInvalidArgument naming the field unless ranks and alphas (those of patterns too), dropout and
/// targets can be used, and every option is one of `options` (names without the method's).
[[nodiscard]] Status CheckMethodSpec(const AdapterSpec& spec,
                                     std::initializer_list<std::string_view> options);

/// Is the rank one that an adapter can have? `where` names it in the error.
[[nodiscard]] Status CheckRank(int64_t rank, const std::string& where);

/// The spec's option "<method>.<name>" as a whole number within bounds; `standard` where it has
/// none.
[[nodiscard]] Result<int64_t> IntegerOption(const AdapterSpec& spec, std::string_view name,
                                            int64_t standard, int64_t low, int64_t high);

/// The same as a finite number.
[[nodiscard]] Result<double> NumberOption(const AdapterSpec& spec, std::string_view name,
                                          double standard, double low, double high);

/// The same as one of some words, the first of which is the standard.
[[nodiscard]] Result<std::string> WordOption(const AdapterSpec& spec, std::string_view name,
                                             std::initializer_list<std::string_view> words);

/// Sets the spec's option "<method>.<name>".
void SetOption(AdapterSpec& spec, std::string_view name, std::string value);

/// Bytes of a plain LoRA of the spec's ranks on these layers, in float32: what a method's are measured
/// against.
[[nodiscard]] uint64_t PlainLoraBytes(const AdapterSpec& spec, std::span<const LinearSite> sites);

/// The spec with another method: options of other methods are left out.
[[nodiscard]] AdapterSpec ForMethod(const AdapterSpec& spec, std::string_view method);

}  // namespace weft
