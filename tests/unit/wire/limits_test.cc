// Every limit of the wire that common/base/limits.h names, at the limit (taken) and one beyond
// (refused by name): a row a limit. Those of files are in tests/unit/formats, those of links in
// tests/unit/net; the last test here keeps the list whole.

#include "common/base/limits.h"

#include <fstream>
#include <functional>
#include <set>
#include <sstream>

#include <capnp/serialize.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <protocols/weft.capnp.h>

#include "common/wire/decode.h"
#include "common/wire/message_codec.h"
#include "common/wire/payload.h"
#include "common/wire/tensor_block.h"
#include "tests/unit/wire/random_messages.h"

namespace weft {
namespace {

using ::testing::HasSubstr;

const std::string kDigest(64, 'a');

EvalReply SomeReply() {
  EvalReply reply;
  reply.report.run.name = "r";
  reply.report.client.name = "c";
  return reply;
}

UpdateOffer SomeOffer() {
  UpdateOffer offer;
  offer.header.run.name = "r";
  offer.header.client.name = "c";
  offer.header.payload_sha256 = offer.payload.sha256 = kDigest;
  offer.header.payload_bytes = offer.payload.bytes = 1;
  return offer;
}

RoundOffer SomeRound() {
  RoundOffer offer;
  offer.plan.run.name = "r";
  offer.payload = {kDigest, 1};
  return offer;
}

template <typename T>
void Fill(std::vector<T>& list, size_t count, const T& value) {
  list.assign(count, value);
}

// A limit and the message that has `amount` of what it bounds.
struct Case {
  const char* limit;
  uint64_t most;
  std::function<Message(uint64_t amount)> make;
  const char* refusal;  // what the error says
};

std::vector<Case> Cases() {
  using namespace limits;  // NOLINT: this file is about them
  const LinearSite site{"s", 1, 1};
  return {
      {"kNameBytesMax", kNameBytesMax,
       [](uint64_t n) {
         EvalReply reply = SomeReply();
         reply.report.client.name = std::string(n, 'c');
         return Message(reply);
       },
       "eval-reply: client: got 257 bytes, wanted at most 256"},
      {"kNameBytesMax", kNameBytesMax,
       [site](uint64_t n) {
         Hello hello;
         hello.sites = {site};
         hello.sites[0].path = std::string(n, 'p');
         return Message(hello);
       },
       "hello: site path: got 257 bytes"},
      {"kTextBytesMax", kTextBytesMax,
       [](uint64_t n) {
         UpdateOffer offer = SomeOffer();
         offer.header.spec.target_regex = std::string(n, 'x');
         return Message(offer);
       },
       "update-offer: target regex: got 4097 bytes, wanted at most 4096"},
      {"kMetricsMax", kMetricsMax,
       [](uint64_t n) {
         UpdateOffer offer = SomeOffer();
         offer.header.metrics.assign(n, {"m", 1.0});
         return Message(offer);
       },
       "update-offer: metrics: got 65 elements, wanted at most 64"},
      {"kOptionsMax", kOptionsMax,
       [](uint64_t n) {
         UpdateOffer offer = SomeOffer();
         offer.header.spec.options.assign(n, {"k", "v"});
         return Message(offer);
       },
       "update-offer: options: got 65 elements"},
      {"kOptionsMax", kOptionsMax,
       [](uint64_t n) {
         UpdateOffer offer = SomeOffer();
         Fill(offer.header.spec.modules_to_save, n, std::string("m"));
         return Message(offer);
       },
       "modules to save: got 65 elements"},
      {"kLabelsMax", static_cast<uint64_t>(kLabelsMax),
       [](uint64_t n) {
         UpdateOffer offer = SomeOffer();
         Fill(offer.header.spec.labels, n, std::string("class"));
         return Message(offer);
       },
       "update-offer: labels: got 1025 elements, wanted at most 1024"},
      {"kOptionsMax", kOptionsMax,
       [](uint64_t n) {
         Hello hello;
         Fill(hello.capabilities.codecs, n, std::string("c"));
         return Message(hello);
       },
       "hello: codecs: got 65 elements"},
      {"kRankMax", static_cast<uint64_t>(kRankMax),
       [](uint64_t n) {
         UpdateOffer offer = SomeOffer();
         offer.header.spec.rank = static_cast<int64_t>(n);
         return Message(offer);
       },
       "update-offer: rank: got 65537, wanted 0 to 65536"},
      {"kRankMax", static_cast<uint64_t>(kRankMax),
       [](uint64_t n) {
         Hello hello;
         hello.capabilities.rank_max = static_cast<int64_t>(n);
         return Message(hello);
       },
       "hello: rank max: got 65537"},
      {"kDimensionMax", static_cast<uint64_t>(kDimensionMax),
       [site](uint64_t n) {
         Hello hello;
         hello.sites = {site};
         hello.sites[0].out = static_cast<int64_t>(n);
         return Message(hello);
       },
       "hello: site out: got 16777217"},
      {"kExamplesMax", kExamplesMax,
       [](uint64_t n) {
         UpdateOffer offer = SomeOffer();
         offer.header.num_examples = n;
         return Message(offer);
       },
       "update-offer: num examples: got 1099511627777"},
      {"kExamplesMax", kExamplesMax,
       [](uint64_t n) {
         EvalReply reply = SomeReply();
         reply.report.num_examples = n;
         return Message(reply);
       },
       "eval-reply: num examples: got"},
      {"kPayloadBytesMax", kPayloadBytesMax,
       [](uint64_t n) {
         RoundOffer offer = SomeRound();
         offer.payload.bytes = n;
         return Message(offer);
       },
       "round-offer: payload bytes: got 8589934593"},
      {"kPayloadBytesMax", kPayloadBytesMax,
       [](uint64_t n) {
         UpdateOffer offer = SomeOffer();
         offer.header.payload_bytes = offer.payload.bytes = n;
         return Message(offer);
       },
       "update-offer: header payload bytes: got 8589934593"},
      {"kChunksMax", kChunksMax,
       [](uint64_t n) { return Message(Chunk{.sha256 = kDigest, .index = n, .xxh3 = 0}); },
       "chunk: chunk index: got 32769"},
      {"kChunksMax", kChunksMax,
       [](uint64_t n) { return Message(ChunkRequest{.sha256 = kDigest, .first = n, .count = 1}); },
       "chunk-request: first chunk: got 32769"},
      {"kChunksInFlightMax", kChunksInFlightMax,
       [](uint64_t n) {
         return Message(
             ChunkRequest{.sha256 = kDigest, .first = 0, .count = static_cast<uint32_t>(n)});
       },
       "chunk-request: chunks requested: got 17"},
  };
}

TEST(WireLimitsTest, WhatIsAtALimitIsTakenAndOneMoreIsRefusedByName) {
  for (const Case& c : Cases()) {
    const Result<Message> at = DecodeMessage(EncodeMessage(c.make(c.most)));
    EXPECT_TRUE(at.ok()) << c.limit << ": " << at.status();
    const Result<Message> beyond = DecodeMessage(EncodeMessage(c.make(c.most + 1)));
    ASSERT_FALSE(beyond.ok()) << c.limit << " " << c.refusal;
    EXPECT_EQ(beyond.status().code(), Code::kInvalidArgument);
    EXPECT_THAT(beyond.status().message(), HasSubstr(c.refusal)) << c.limit;
  }
}

// Lists so long that a frame that holds them passes the frame's own limit: elements of no size
// stand for them, as a hostile peer would send them.
template <typename Build>
std::string RefusalOf(Build build) {
  capnp::MallocMessageBuilder builder;
  build(builder.initRoot<proto::Envelope>().getBody());
  const kj::Array<capnp::word> words = capnp::messageToFlatArray(builder);
  const auto bytes = words.asBytes();
  const Blob frame = Blob::Copy(std::as_bytes(std::span(bytes.begin(), bytes.size())));
  EXPECT_LE(frame.size(), limits::kControlBytesMax) << "another limit answers first";
  const Status status = DecodeMessage(frame).status();
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  return status.message();
}

// A list of `count` structs without a single byte of contents.
template <typename Parent>
void InitEmptyStructs(Parent parent, unsigned pointer, unsigned count) {
  capnp::AnyStruct::Builder any = capnp::toAny(parent);
  any.getPointerSection()[pointer].initAsListOfAnyStruct(0, 0, count);
}

TEST(WireLimitsTest, ListsThatNoFrameCouldHoldAreCountedBeforeTheyAreRead) {
  using limits::kPeersMax, limits::kSitesMax;
  EXPECT_THAT(RefusalOf([](auto body) { InitEmptyStructs(body.initHello(), 1, kSitesMax + 1); }),
              HasSubstr("hello: sites: got 16385 elements, wanted at most 16384"));
  EXPECT_THAT(RefusalOf([](auto body) {
                auto plan = body.initRoundOffer().initPlan();
                plan.setRun("r");
                plan.initTraining().setBatchSize(1);
                capnp::AnyStruct::Builder any = capnp::toAny(plan);
                const auto pointers = any.getPointerSection();
                // The cohort is the list pointer behind run, base hash, strategy, codec, training.
                any.getPointerSection()[5].initAsListOfAnyStruct(0, 0, kPeersMax + 1);
                EXPECT_GT(pointers.size(), 5u);
              }),
              HasSubstr("round-offer: cohort: got 16385 elements, wanted at most 16384"));
  EXPECT_THAT(RefusalOf([](auto body) {
                auto header = body.initUpdateOffer().initHeader();
                header.setRun("r");
                header.setClient("c");
                header.initSpec().setMethod("lora");
                header.getSpec().initLayersToTransform(kSitesMax + 1);
              }),
              HasSubstr("update-offer: layers to transform: got 16385 elements"));
}

TEST(WireLimitsTest, AFrameAtItsLimitIsReadAndALargerOneIsNot) {
  EXPECT_THAT(
      DecodeMessage(Blob::Adopt(std::string(limits::kControlBytesMax, '\0'))).status().message(),
      ::testing::Not(HasSubstr("wanted at most")));
  EXPECT_THAT(DecodeMessage(Blob::Adopt(std::string(limits::kControlBytesMax + 8, '\0')))
                  .status()
                  .message(),
              HasSubstr("control frame: got 262152 bytes, wanted at most 262144"));
}

TEST(WireLimitsTest, PointersBelowPointersEndAtTheNestingLimit) {
  // A chain of structs, each holding the next, in the place of a hello's capabilities.
  for (const int depth : {limits::kCapnpNestingMax - 4, 4 * limits::kCapnpNestingMax}) {
    capnp::MallocMessageBuilder builder;
    auto hello = builder.initRoot<proto::Envelope>().getBody().initHello();
    capnp::AnyStruct::Builder any = capnp::toAny(hello);
    auto next = any.getPointerSection()[2].initAsAnyStruct(5, 4);
    for (int i = 0; i < depth; ++i) next = next.getPointerSection()[0].initAsAnyStruct(0, 1);
    const kj::Array<capnp::word> words = capnp::messageToFlatArray(builder);
    const auto bytes = words.asBytes();
    // The first pointer should be a text: it is refused as such, never followed.
    EXPECT_EQ(DecodeMessage(Blob::Copy(std::as_bytes(std::span(bytes.begin(), bytes.size()))))
                  .status()
                  .code(),
              Code::kInvalidArgument);
  }
  // The door itself, at its edge.
  capnp::MallocMessageBuilder builder;
  auto next = builder.getRoot<capnp::AnyPointer>().initAsAnyStruct(0, 1);
  for (int i = 0; i < 40; ++i) next = next.getPointerSection()[0].initAsAnyStruct(0, 1);
  const kj::Array<capnp::word> words = capnp::messageToFlatArray(builder);
  const auto bytes = words.asBytes();
  int reached = 0;
  const Status status =
      wire::ReadAtDoor(std::as_bytes(std::span(bytes.begin(), bytes.size())),
                       {.words_max = 1 << 20, .nesting_max = limits::kCapnpNestingMax},
                       [&](capnp::MessageReader& reader) {
                         auto at = reader.getRoot<capnp::AnyStruct>();
                         for (; reached < 100; ++reached) {
                           at = at.getPointerSection()[0].template getAs<capnp::AnyStruct>();
                         }
                         return OkStatus();
                       });
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("nest"));
  EXPECT_LT(reached, limits::kCapnpNestingMax);
}

TEST(WireLimitsTest, ReadingTheSameWordsAgainAndAgainEndsAtTheTraversalLimit) {
  capnp::MallocMessageBuilder builder;
  builder.initRoot<proto::Envelope>().getBody().initHello().initSites(100);
  const kj::Array<capnp::word> words = capnp::messageToFlatArray(builder);
  const auto bytes = words.asBytes();
  uint64_t visits = 0;
  const Status status = wire::ReadAtDoor(
      std::as_bytes(std::span(bytes.begin(), bytes.size())),
      {.words_max = limits::kCapnpWordsMax, .nesting_max = limits::kCapnpNestingMax},
      [&](capnp::MessageReader& reader) {
        for (; visits < 10 * limits::kCapnpWordsMax; ++visits) {
          (void)reader.getRoot<proto::Envelope>().getBody().getHello().getSites().size();
        }
        return OkStatus();
      });
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("limit"));
  EXPECT_GT(visits, 10u);
  EXPECT_LT(visits * words.size(), 3 * limits::kCapnpWordsMax);
}

// ---- tensor blocks ----

BlockTensor Tiny(std::string name) { return {std::move(name), DType::kUInt8, {0}, Blob()}; }

TensorBlock BlockWith(const std::function<void(BlockSection&)>& change) {
  TensorBlock block;
  BlockSection& section = block.sections.emplace_back();
  section.role = "adapter";
  change(section);
  return block;
}

std::string Answer(const TensorBlock& block) {
  const Result<TensorBlock> back = DecodeTensorBlock(EncodeTensorBlock(block));
  return back.ok() ? "taken" : back.status().message();
}

TEST(BlockLimitsTest, SectionsSitesTensorsAndDimensionsAreCounted) {
  const auto sections = [](size_t count) {
    TensorBlock block;
    for (size_t i = 0; i < count; ++i) block.sections.emplace_back().role = Str("s", i);
    return Answer(block);
  };
  EXPECT_EQ(sections(limits::kSectionsMax), "taken");
  EXPECT_THAT(sections(limits::kSectionsMax + 1), HasSubstr("sections: got 9 elements"));

  const auto tensors = [](size_t count) {
    return Answer(BlockWith([&](BlockSection& section) {
      BlockSite& site = section.sites.emplace_back();
      site.site = {"s", 1, 1};
      for (size_t i = 0; i < count; ++i) site.tensors.push_back(Tiny(Str("t", i)));
    }));
  };
  EXPECT_EQ(tensors(limits::kTensorsPerSiteMax), "taken");
  EXPECT_THAT(tensors(limits::kTensorsPerSiteMax + 1), HasSubstr("tensors: got 65 elements"));

  const auto dense = [](size_t count) {
    return Answer(BlockWith([&](BlockSection& section) {
      for (size_t i = 0; i < count; ++i) section.dense.push_back(Tiny(Str("t", i)));
    }));
  };
  EXPECT_EQ(dense(limits::kDenseTensorsMax), "taken");
  EXPECT_THAT(dense(limits::kDenseTensorsMax + 1), HasSubstr("tensors: got 4097 elements"));

  const auto sides = [](size_t count) {
    return Answer(BlockWith([&](BlockSection& section) {
      BlockTensor tensor = Tiny("t");
      tensor.shape.assign(count, 0);
      section.dense.push_back(tensor);
    }));
  };
  EXPECT_EQ(sides(limits::kTensorDimensionsMax), "taken");
  EXPECT_THAT(sides(limits::kTensorDimensionsMax + 1), HasSubstr("shape: got 9 elements"));

  const auto sites = [](size_t count) {
    return Answer(BlockWith([&](BlockSection& section) {
      for (size_t i = 0; i < count; ++i) section.sites.push_back({{Str("s", i), 1, 1}, {}});
    }));
  };
  EXPECT_EQ(sites(limits::kSitesMax), "taken");
  EXPECT_THAT(sites(limits::kSitesMax + 1), HasSubstr("sites: got 16385 elements"));
}

TEST(BlockLimitsTest, NamesAndSidesOfLayersAreBounded) {
  const auto site = [](const std::string& path, int64_t in, int64_t out) {
    return Answer(BlockWith([&](BlockSection& section) {
      section.sites.push_back({{path, in, out}, {}});
    }));
  };
  const std::string longest(limits::kNameBytesMax, 'p');
  EXPECT_EQ(site(longest, limits::kDimensionMax, 1), "taken");
  EXPECT_THAT(site(longest + "p", 1, 1), HasSubstr("site path: got 257 bytes"));
  EXPECT_THAT(site("s", limits::kDimensionMax + 1, 1), HasSubstr("site in: got 16777217"));
  EXPECT_THAT(site("s", 1, 0), HasSubstr("site out: got 0, wanted 1 to"));
  EXPECT_THAT(site("", 1, 1), HasSubstr("site path: got nothing"));
  EXPECT_THAT(site("../s", 1, 1), HasSubstr("site path: got a name with a slash"));
  const auto tensor = [](const std::string& name) {
    return Answer(BlockWith([&](BlockSection& section) { section.dense.push_back(Tiny(name)); }));
  };
  EXPECT_EQ(tensor(longest), "taken");
  EXPECT_THAT(tensor(longest + "n"), HasSubstr("tensor name: got 257 bytes"));
}

TEST(BlockLimitsTest, AManifestLengthBeyondTheLimitIsRefusedInABlockThatIsLargeEnough) {
  std::string block = "WEFTTB01";
  const uint64_t length = limits::kManifestBytesMax + 8;
  block.append(reinterpret_cast<const char*>(&length), 8);
  block.resize(16 + length + 64, '\0');
  EXPECT_THAT(DecodeTensorBlock(Blob::Adopt(std::move(block))).status().message(),
              HasSubstr(Str("a manifest of ", length, " bytes")));
}

// ---- payloads ----

TEST(PayloadLimitsTest, ChunksArePaidForByTheirSize) {
  EXPECT_EQ(ChunkCount(0), 0u);
  EXPECT_EQ(ChunkCount(1), 1u);
  EXPECT_EQ(ChunkCount(limits::kChunkBytes), 1u);
  EXPECT_EQ(ChunkCount(limits::kChunkBytes + 1), 2u);
  EXPECT_EQ(ChunkCount(limits::kPayloadBytesMax), limits::kChunksMax);
}

TEST(PayloadLimitsTest, MemoryBeyondTheLimitIsRefusedWithoutBeingTriedFor) {
  const Status status = PayloadBuffer::Make(limits::kPayloadBytesMax + 1).status();
  EXPECT_EQ(status.code(), Code::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("wanted at most 8589934592"));
}

// ---- the list ----

TEST(LimitsTest, EveryLimitIsNamedInATest) {
  std::set<std::string> names;
  std::istringstream header([] {
    std::ostringstream text;
    text << std::ifstream(std::string(WEFT_SOURCE_DIR) + "/common/base/limits.h").rdbuf();
    return std::move(text).str();
  }());
  for (std::string word, type; header >> word;) {
    if (word == "constexpr" && header >> type >> word) names.insert(word);
  }
  ASSERT_GT(names.size(), 20u);
  std::string tests;
  for (const char* path : {"unit/wire/limits_test.cc", "unit/wire/message_codec_test.cc",
                           "unit/formats/limits_test.cc", "unit/net/zmq_transport_test.cc",
                           "unit/base/json_depth_test.cc", "unit/nodes/protocol_test.cc",
                           "unit/net/keys_properties_test.cc"}) {
    std::ostringstream text;
    text << std::ifstream(std::string(WEFT_SOURCE_DIR) + "/tests/" + path).rdbuf();
    tests += text.str();
  }
  for (const std::string& name : names) {
    EXPECT_NE(tests.find(name), std::string::npos) << name << " has no test";
  }
}

}  // namespace
}  // namespace weft
