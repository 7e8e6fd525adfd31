#include "tests/fuzz/smoke/mutate.h"

#include <array>
#include <cstring>

namespace weft::fuzz {
namespace {

struct Stretch {
  size_t begin;
  size_t length;
};

Stretch RandomStretch(std::string_view text, RandomStream& random) {
  const size_t begin = random.Below(text.size() + 1);
  const size_t most = std::min<size_t>(text.size() - begin, 64);
  return {begin, random.Below(most + 1)};
}

// A number at a limit of its width, as bytes or as digits.
std::string LimitNumber(RandomStream& random) {
  constexpr std::array<uint64_t, 9> kNumbers = {
      0, 1, 127, 128, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, ~uint64_t{0}};
  const uint64_t number = kNumbers[random.Below(kNumbers.size())];
  if (random.Below(2) == 0) return std::to_string(number);
  std::string bytes(sizeof(number), '\0');
  std::memcpy(bytes.data(), &number, sizeof(number));
  return bytes.substr(0, size_t{1} << random.Below(4));
}

void Change(std::string& text, std::string_view other, std::span<const std::string_view> words,
            RandomStream& random) {
  const Stretch at = RandomStretch(text, random);
  switch (random.Below(8)) {
    case 0:
      if (!text.empty()) text[random.Below(text.size())] ^= static_cast<char>(1 << random.Below(8));
      return;
    case 1:
      if (!text.empty()) text[random.Below(text.size())] = static_cast<char>(random.NextU32());
      return;
    case 2:
      text.erase(at.begin, at.length);
      return;
    case 3:
      text.insert(at.begin, std::string(text, at.begin, at.length));
      return;
    case 4: {
      const std::string moved(text, at.begin, at.length);
      text.erase(at.begin, at.length);
      text.insert(random.Below(text.size() + 1), moved);
      return;
    }
    case 5: {
      const Stretch from = RandomStretch(other, random);
      text.replace(at.begin, at.length, other.substr(from.begin, from.length));
      return;
    }
    case 6:
      text.replace(at.begin, std::min<size_t>(at.length, 8), LimitNumber(random));
      return;
    default:
      if (words.empty()) return text.resize(at.begin);
      text.insert(at.begin, words[random.Below(words.size())]);
  }
}

}  // namespace

std::string Mutated(std::string input, std::string_view other,
                    std::span<const std::string_view> words, size_t size_max,
                    RandomStream& random) {
  for (uint64_t changes = 1 + random.Below(8); changes > 0; --changes) {
    Change(input, other, words, random);
  }
  if (input.size() > size_max) input.resize(size_max);
  return input;
}

}  // namespace weft::fuzz
