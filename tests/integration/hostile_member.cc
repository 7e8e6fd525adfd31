#include "tests/integration/hostile_member.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <utility>

#include <gtest/gtest.h>

#include "common/base/limits.h"
#include "common/crypto/checksum.h"
#include "common/formats/base_hash.h"
#include "common/wire/message_codec.h"

namespace weft::testing {
namespace {

Nanos SteadyNow() {
  return std::chrono::duration_cast<Nanos>(std::chrono::steady_clock::now().time_since_epoch());
}

const ClientSettings& SettingsOf(const Settings& settings, const std::string& site) {
  const auto found = std::find_if(settings.clients.begin(), settings.clients.end(),
                                  [&](const ClientSettings& one) { return one.name == site; });
  WEFT_CHECK(found != settings.clients.end(), site);
  return *found;
}

}  // namespace

bool Turn(EventLoop& loop, const std::function<bool()>& holds, double limit_s) {
  const Nanos end = SteadyNow() + Seconds(limit_s);
  while (!holds()) {
    if (SteadyNow() > end) return false;
    loop.RunOnce(Seconds(0.02));
  }
  return true;
}

TestMember::TestMember(EventLoop& loop, const Federation& federation, std::string site)
    : loop_(loop),
      federation_(federation),
      site_(std::move(site)),
      base_(DescribeBase(federation.settings().model.path).value()) {}

Hello TestMember::MakeHello() const {
  const std::string& rank = SettingsOf(federation_.settings(), site_).rank;
  Hello hello;
  hello.base_hash = base_.hash;
  hello.sites = base_.sites;
  std::from_chars(rank.data(), rank.data() + rank.size(), hello.capabilities.rank_max);
  hello.capabilities.software = "a test";
  hello.capabilities.num_examples = 40;
  hello.capabilities.methods = {federation_.settings().adapter.method};
  hello.capabilities.codecs = {"float32"};
  return hello;
}

void TestMember::Join() {
  link_.reset();
  joined_ = asked_ = false;
  Result<std::unique_ptr<ZmqClient>> link =
      ZmqClient::Connect(loop_, {.endpoint = federation_.endpoint(),
                                 .keys = LoadSecretKey(federation_.File(site_ + ".secret")).value(),
                                 .server_key = federation_.settings().server.public_key,
                                 .linger = Nanos{0}});
  ASSERT_TRUE(link.ok()) << link.status();
  link_ = std::move(*link);
  link_->SetReceiver(this);
  ASSERT_TRUE(Turn(loop_, [&] { return link_->connected(); })) << site_;
  Send(EncodeMessage(MakeHello()));
  ASSERT_TRUE(Turn(loop_, [&] { return joined_; })) << site_;
}

void TestMember::Send(Blob control, Blob chunk) {
  sent_ = SteadyNow();
  const Status sent = link_->Send(kAggregator, {std::move(control), std::move(chunk)});
  EXPECT_TRUE(sent.ok()) << sent;
}

void TestMember::Deliver(Delivery delivery) {
  delivery_ = std::move(delivery);
  verdict_.reset();
  asked_ = false;
  Send(delivery_.frame);
}

void TestMember::OnFrames(const ClientId& /*from*/, Frames frames) {
  const Result<Message> message = DecodeMessage(frames.control);
  ASSERT_TRUE(message.ok()) << message.status();
  if (std::holds_alternative<Welcome>(*message)) joined_ = true;
  if (std::holds_alternative<RunEnded>(*message)) ended_ = true;
  if (const auto* offer = std::get_if<RoundOffer>(&*message)) On(*offer);
  if (const auto* chunk = std::get_if<Chunk>(&*message)) On(*chunk, frames.chunk);
  if (const auto* request = std::get_if<ChunkRequest>(&*message)) On(*request);
  if (const auto* verdict = std::get_if<UpdateVerdict>(&*message)) {
    verdict_s_ = ToSeconds(SteadyNow() - sent_);
    verdict_ = *verdict;
  }
}

void TestMember::On(const RoundOffer& offer) {
  plan_ = offer.plan;
  asked_ = false;
  coming_.emplace(offer.payload, PayloadReceiver::Options{});
  buffer_.emplace(PayloadBuffer::Make(offer.payload.bytes).value());
  Send(EncodeMessage(Heartbeat{.round = plan_.round, .phase = "download"}));
  Send(EncodeMessage(*coming_->NextRequest()));
}

void TestMember::On(const Chunk& chunk, const Blob& bytes) {
  const Result<uint64_t> offset = coming_->Accept(chunk, bytes);
  ASSERT_TRUE(offset.ok()) << offset.status();
  buffer_->Write(*offset, bytes.span());
  if (const auto request = coming_->NextRequest()) Send(EncodeMessage(*request));
  if (!coming_->complete()) return;
  ASSERT_TRUE(coming_->Finish().ok());
  bundle_ = buffer_->Share(coming_->offer().bytes);
  asked_ = true;
}

// A chunk that lies behind the payload's end is not sent, one that holds its end is cut there; the
// last that the offer has may be longer than the offer.
void TestMember::On(const ChunkRequest& request) {
  constexpr uint64_t kChunk = limits::kChunkBytes;
  for (uint64_t index = request.first; index < request.first + request.count; ++index) {
    if (index * kChunk >= delivery_.payload.size()) return;
    const Blob bytes = delivery_.payload.Slice(
        index * kChunk, std::min<uint64_t>(kChunk, delivery_.payload.size() - index * kChunk));
    Send(EncodeMessage(Chunk{.sha256 = request.sha256, .index = index, .xxh3 = Xxh3(bytes.span())}),
         bytes);
  }
}

}  // namespace weft::testing
