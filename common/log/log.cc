#include "common/log/log.h"

#include <array>
#include <chrono>
#include <mutex>
#include <vector>

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

namespace weft::log {
namespace {

constexpr std::array<std::string_view, 5> kLevelNames = {"debug", "info", "warn", "error", "off"};
constexpr const char* kPattern = "%Y-%m-%dT%H:%M:%S.%e%z %^%-5l%$ [%n] %v";

spdlog::level::level_enum ToSpdlog(Level level) {
  switch (level) {
    case Level::kDebug:
      return spdlog::level::debug;
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarn:
      return spdlog::level::warn;
    case Level::kError:
      return spdlog::level::err;
    case Level::kOff:
      return spdlog::level::off;
  }
  return spdlog::level::info;
}

// spdlog stamps messages itself; we hand its sinks a message that carries the caller's time.
class SpdlogSink : public Sink {
 public:
  explicit SpdlogSink(const std::string& file) {
    sinks_.push_back(std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
    if (!file.empty()) sinks_.push_back(std::make_shared<spdlog::sinks::basic_file_sink_mt>(file));
    for (const auto& sink : sinks_) sink->set_pattern(kPattern);
  }

  void Write(Level level, int64_t wall_us, std::string_view name, std::string_view line) override {
    const spdlog::log_clock::time_point time{
        std::chrono::duration_cast<spdlog::log_clock::duration>(
            std::chrono::microseconds(wall_us))};
    const spdlog::details::log_msg message(time, spdlog::source_loc{}, {name.data(), name.size()},
                                           ToSpdlog(level), {line.data(), line.size()});
    for (const auto& sink : sinks_) {
      sink->log(message);
      sink->flush();
    }
  }

 private:
  std::vector<spdlog::sink_ptr> sinks_;
};

// ASCII's control characters, and the bytes C2 80 to C2 9F: U+009B opens a terminal's escape
// sequences as ESC [ does.
bool IsControl(std::string_view value, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(value[i]); };
  if (byte(at) < 0x20 || byte(at) == 0x7F) return true;
  const bool second = at > 0 && byte(at - 1) == 0xC2;
  const bool first = byte(at) == 0xC2 && at + 1 < value.size();
  return (second && byte(at) >= 0x80 && byte(at) < 0xA0) ||
         (first && byte(at + 1) >= 0x80 && byte(at + 1) < 0xA0);
}

bool NeedsQuotes(std::string_view value) {
  if (value.empty() || value.find_first_of(" \"=") != std::string_view::npos) return true;
  for (size_t i = 0; i < value.size(); ++i) {
    if (IsControl(value, i)) return true;
  }
  return false;
}

// A value may be a peer's text: it must not be able to end the line or to speak to the terminal.
void AppendValue(std::string& line, std::string_view value) {
  if (!NeedsQuotes(value)) {
    line += value;
    return;
  }
  line += '"';
  for (size_t i = 0; i < value.size(); ++i) {
    const char c = value[i];
    if (c == '"' || c == '\\') {
      line += '\\';
      line += c;
    } else if (c == '\n') {
      line += "\\n";
    } else if (IsControl(value, i)) {
      constexpr std::string_view kDigits = "0123456789abcdef";
      const auto byte = static_cast<unsigned char>(c);
      line += "\\x";
      line += kDigits[byte >> 4];
      line += kDigits[byte & 0xF];
    } else {
      line += c;
    }
  }
  line += '"';
}

}  // namespace

Logger::Logger(std::string name, std::shared_ptr<Sink> sink, std::function<int64_t()> wall_us,
               Level level)
    : name_(std::move(name)), sink_(std::move(sink)), wall_us_(std::move(wall_us)), level_(level) {}

void Logger::Write(Level level, std::string_view text, std::initializer_list<Field> fields) const {
  if (level < level_) return;
  std::string line(text);
  for (const Field& field : fields) {
    line += ' ';
    line += field.key;
    line += '=';
    AppendValue(line, field.value);
  }
  sink_->Write(level, wall_us_(), name_, line);
}

void Logger::Debug(std::string_view text, std::initializer_list<Field> fields) const {
  Write(Level::kDebug, text, fields);
}
void Logger::Info(std::string_view text, std::initializer_list<Field> fields) const {
  Write(Level::kInfo, text, fields);
}
void Logger::Warn(std::string_view text, std::initializer_list<Field> fields) const {
  Write(Level::kWarn, text, fields);
}
void Logger::Error(std::string_view text, std::initializer_list<Field> fields) const {
  Write(Level::kError, text, fields);
}

std::shared_ptr<Sink> StderrSink(const std::string& file) {
  return std::make_shared<SpdlogSink>(file);
}

struct MemorySink::State {
  std::mutex mutex;
  std::string text;
};

std::shared_ptr<MemorySink::State> MemorySink::MakeState() { return std::make_shared<State>(); }

void MemorySink::Write(Level level, int64_t wall_us, std::string_view name, std::string_view line) {
  const std::scoped_lock lock(state_->mutex);
  state_->text +=
      Str(wall_us, " ", kLevelNames.at(static_cast<size_t>(level)), " [", name, "] ", line, "\n");
}

std::string MemorySink::Text() const {
  const std::scoped_lock lock(state_->mutex);
  return state_->text;
}

Level LevelFromName(std::string_view name) {
  for (size_t i = 0; i < kLevelNames.size(); ++i) {
    if (kLevelNames[i] == name) return static_cast<Level>(i);
  }
  return Level::kInfo;
}

}  // namespace weft::log
