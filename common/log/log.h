#pragma once
// Logging: constant text and fields, no formatting at call sites, never tensors, text or keys.
//
//   log.Info("round closed", {{"round", 3}, {"accepted", 5}, {"bytes", n}});
//
// Time comes from the caller's clock, so simulated logs carry virtual time and can be compared line
// by line.

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>

#include "common/base/str.h"

namespace weft::log {

enum class Level { kDebug, kInfo, kWarn, kError, kOff };

struct Field {
  template <Printable T>
  Field(std::string_view key_in, const T& value_in) : key(key_in), value(Str(value_in)) {}
  std::string_view key;
  std::string value;
};

/// Where lines go. Implementations: spdlog (stderr and an optional file), memory (tests,
/// simulation).
class Sink {
 public:
  virtual ~Sink() = default;
  virtual void Write(Level level, int64_t wall_us, std::string_view name,
                     std::string_view line) = 0;
};

/// A named logger; cheap to make, thread-safe if its sink is (both given ones are).
class Logger {
 public:
  Logger(std::string name, std::shared_ptr<Sink> sink, std::function<int64_t()> wall_us,
         Level level = Level::kInfo);

  void Debug(std::string_view text, std::initializer_list<Field> fields = {}) const;
  void Info(std::string_view text, std::initializer_list<Field> fields = {}) const;
  void Warn(std::string_view text, std::initializer_list<Field> fields = {}) const;
  void Error(std::string_view text, std::initializer_list<Field> fields = {}) const;

  [[nodiscard]] const std::string& name() const { return name_; }

 private:
  void Write(Level level, std::string_view text, std::initializer_list<Field> fields) const;

  std::string name_;
  std::shared_ptr<Sink> sink_;
  std::function<int64_t()> wall_us_;
  Level level_;
};

/// stderr (coloured on a terminal) and, where `file` is not empty, that file too.
[[nodiscard]] std::shared_ptr<Sink> StderrSink(const std::string& file = "");

/// Lines in memory, for tests.
class MemorySink : public Sink {
 public:
  void Write(Level level, int64_t wall_us, std::string_view name, std::string_view line) override;
  [[nodiscard]] std::string Text() const;

 private:
  struct State;
  std::shared_ptr<State> state_ = MakeState();
  static std::shared_ptr<State> MakeState();
};

/// "debug", "info", "warn", "error", "off"; kInfo for anything else.
[[nodiscard]] Level LevelFromName(std::string_view name);

}  // namespace weft::log
