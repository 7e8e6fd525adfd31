// A peer's control frame: what decodes must encode to a frame that decodes to the same bytes again,
// within the limits, and every name in it must be fit for a file name, a log and a terminal.

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/wire/message_codec.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/unit/wire/random_messages.h"

namespace weft::fuzz {
namespace {

void CheckName(const std::string& name) {
  WEFT_CHECK(!name.empty() && name.size() <= limits::kNameBytesMax, name.size());
  WEFT_CHECK(name.find_first_of(std::string_view("/\\\0\n\r\t\x1B\x7F", 8)) == std::string::npos);
  WEFT_CHECK(name != "." && name != "..");
}

void Run(std::string_view input) {
  const Result<Message> message = DecodeMessage(Blob::Copy(input));
  if (!message.ok()) {
    WEFT_CHECK(!message.status().message().empty());
    return;
  }
  if (const auto* reply = std::get_if<EvalReply>(&*message)) CheckName(reply->report.client.name);
  if (const auto* offer = std::get_if<UpdateOffer>(&*message)) {
    CheckName(offer->header.client.name);
    CheckName(offer->header.run.name);
    WEFT_CHECK(offer->payload.bytes <= limits::kPayloadBytesMax);
    WEFT_CHECK(offer->header.metrics.size() <= limits::kMetricsMax);
  }
  if (const auto* hello = std::get_if<Hello>(&*message)) {
    for (const LinearSite& site : hello->sites) CheckName(site.path);
  }
  const Blob once = EncodeMessage(*message);
  // A frame may say one thing often by pointing to it; written out it can pass the frame's limit.
  if (once.size() > limits::kControlBytesMax) return;
  const Result<Message> again = DecodeMessage(once);
  WEFT_CHECK(again.ok(), again.status());
  WEFT_CHECK(EncodeMessage(*again).view() == once.view(), MessageName(*message));
}

Seeds MakeSeeds() {
  Seeds seeds;
  RandomStream random(1);
  for (size_t kind = 0; kind < 3 * kMessageKinds; ++kind) {
    seeds.emplace_back(EncodeMessage(RandomMessage(random, kind % kMessageKinds)).view());
  }
  return seeds;
}

}  // namespace

Target ControlMessage() { return {"control_message", Run, MakeSeeds}; }

}  // namespace weft::fuzz
