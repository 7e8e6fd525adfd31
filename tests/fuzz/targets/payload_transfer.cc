// A transfer as a sequence of happenings on the link (tests/unit/wire/faulty_link.h): whatever they
// are, once the link is good the payload arrives whole.

#include <algorithm>

#include "common/base/random.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/unit/wire/faulty_link.h"

namespace weft::fuzz {
namespace {

void Run(std::string_view input) {
  if (input.size() < 2) return;
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(input[i]); };
  const size_t bytes = byte(0) % 5 * limits::kChunkBytes + byte(0) / 5 + 1;
  FaultyLink link(Blob::Adopt(std::string(bytes, 'w')), 1 + byte(1) % limits::kChunksInFlightMax);
  for (size_t i = 2; i < std::min<size_t>(input.size(), 200); ++i) link.Happen(byte(i));
  link.Finish();
}

Seeds MakeSeeds() {
  Seeds seeds;
  RandomStream random(7);
  for (int i = 0; i < 6; ++i) {
    std::string happenings;
    while (happenings.size() < 40) happenings += static_cast<char>(random.Below(256));
    seeds.push_back(std::string("\x04\x03", 2) + happenings);
  }
  return seeds;
}

}  // namespace

Target PayloadTransfer() { return {"payload_transfer", Run, MakeSeeds}; }

}  // namespace weft::fuzz
