#include "cli/progress.h"

#include <algorithm>
#include <iostream>

#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/table.h"
#include "common/base/str.h"

namespace weft::cli {
namespace {

constexpr size_t kColumnsFallback = 80;
constexpr std::chrono::milliseconds kRedraw{100};

size_t TerminalColumns() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kColumnsFallback;
  return size.ws_col;
}

// Cuts to `columns` code points.
std::string Cut(const std::string& text, size_t columns) {
  size_t bytes = 0;
  for (size_t seen = 0; bytes < text.size(); ++bytes) {
    const bool starts = (static_cast<unsigned char>(text[bytes]) & 0xC0) != 0x80;
    if (starts && seen++ == columns) break;
  }
  return text.substr(0, bytes);
}

}  // namespace

std::string ProgressLine(const std::string& label, uint64_t done, uint64_t total,
                         const std::string& suffix, size_t columns) {
  const std::string tail = suffix.empty() ? "" : "  " + OneLine(suffix);
  if (total == 0) return Cut(Str(OneLine(label), "  ", done, tail), columns);
  done = std::min(done, total);
  const std::string percent = std::to_string(done * 100 / total);
  const std::string numbers =
      Str("  ", std::string(3 - percent.size(), ' '), percent, " %  ", done, "/", total, tail);
  const std::string head = OneLine(label) + "  ";
  constexpr size_t kBarMin = 6;
  constexpr size_t kBarMax = 40;
  const size_t used = TextWidth(head) + TextWidth(numbers) + 2;  // the brackets
  if (used + kBarMin > columns) return Cut(head + numbers.substr(2), columns);
  const size_t bar = std::min(columns - used, kBarMax);
  const auto full = static_cast<size_t>(static_cast<double>(bar) * static_cast<double>(done) /
                                        static_cast<double>(total));
  std::string fill(full, '=');
  if (full < bar) fill += ">" + std::string(bar - full - 1, ' ');
  return Str(head, "[", fill, "]", numbers);
}

Progress::Progress(std::string label, uint64_t total)
    : label_(std::move(label)), total_(total), shown_(::isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() { Wipe(); }

void Progress::Wipe() {
  if (drawn_) std::cerr << "\r\x1b[K" << std::flush;
  drawn_ = false;
}

void Progress::Update(uint64_t done, const std::string& suffix) {
  if (!shown_) return;
  const auto now = std::chrono::steady_clock::now();
  if (now < next_ && (total_ == 0 || done < total_)) return;
  next_ = now + kRedraw;
  drawn_ = true;
  // One column stays free: some terminals wrap a full line.
  std::cerr << "\r" << ProgressLine(label_, done, total_, suffix, TerminalColumns() - 1) << "\x1b[K"
            << std::flush;
}

void Progress::Line(std::ostream& out, const std::string& text) {
  Wipe();
  out << text << std::endl;
  next_ = {};
}

}  // namespace weft::cli
