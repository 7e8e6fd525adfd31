#include "tests/integration/hostile_rows.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/wire/message_codec.h"

namespace weft::testing {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr uint64_t kTwoTo63 = uint64_t{1} << 63;
constexpr size_t kLongName = 64 * 1024;

using Rows = std::vector<HostileRow>;
using Good = const GoodUpdate&;

HostileRow State(std::string name, std::string words, std::function<void(AdapterState&)> spoil) {
  return {std::move(name), Code::kInvalidArgument, std::move(words),
          [spoil = std::move(spoil)](Good good) { return good.WithState(spoil); }};
}

HostileRow Block(std::string name, std::string words, std::function<void(TensorBlock&)> spoil) {
  return {std::move(name), Code::kInvalidArgument, std::move(words),
          [spoil = std::move(spoil)](Good good) { return good.WithBlock(spoil); }};
}

HostileRow Section(std::string name, std::string words, std::function<void(BlockSection&)> spoil) {
  return Block(std::move(name), std::move(words),
               [spoil = std::move(spoil)](TensorBlock& block) { spoil(block.sections[0]); });
}

HostileRow Site(std::string name, std::string words, std::function<void(BlockSite&)> spoil) {
  return Section(std::move(name), std::move(words),
                 [spoil = std::move(spoil)](BlockSection& section) { spoil(section.sites[1]); });
}

/// Tensor 0 of a site is its A, tensor 1 its B.
HostileRow Tensor(std::string name, std::string words, std::function<void(BlockTensor&)> spoil) {
  return Site(std::move(name), std::move(words),
              [spoil = std::move(spoil)](BlockSite& site) { spoil(site.tensors[0]); });
}

HostileRow Manifest(std::string name, std::string words,
                    std::function<void(proto::TensorManifest::Builder)> spoil) {
  return {std::move(name), Code::kInvalidArgument, std::move(words),
          [spoil = std::move(spoil)](Good good) { return good.WithManifest(spoil); }};
}

/// Ten tensors of nothing on each of so many sites, whose manifest packs to next to nothing.
void Crowd(TensorBlock& block, size_t sites) {
  BlockSection& section = block.sections[0];
  BlockTensor nothing = section.sites[0].tensors[0];
  nothing.shape = {0};
  nothing.bytes = Blob();
  section.sites.clear();
  for (size_t i = 0; i < sites; ++i) {
    BlockSite& site = section.sites.emplace_back(
        BlockSite{.site = {.path = Str("layer.", i), .in = 1, .out = 1}, .tensors = {}});
    for (int t = 0; t < 10; ++t) {
      site.tensors.push_back(nothing);
      site.tensors.back().name = Str("t", t);
    }
  }
}

/// The A of the second site, so that something lies before it.
HostileRow Entry(std::string name, std::string words,
                 std::function<void(proto::Tensor::Builder)> spoil) {
  return Manifest(std::move(name), std::move(words),
                  [spoil = std::move(spoil)](proto::TensorManifest::Builder manifest) {
                    spoil(manifest.getSections()[0].getSites()[1].getTensors()[0]);
                  });
}

HostileRow Bytes(std::string name, std::string words,
                 std::function<void(std::vector<std::byte>&)> spoil) {
  return {std::move(name), Code::kInvalidArgument, std::move(words),
          [spoil = std::move(spoil)](Good good) { return good.WithBytes(spoil); }};
}

HostileRow Offer(std::string name, Code code, std::string words,
                 std::function<void(UpdateOffer&)> spoil) {
  return {std::move(name), code, std::move(words),
          [spoil = std::move(spoil)](Good good) { return good.WithOffer(spoil); }};
}

/// An offer that does not pass the wire's own limits.
HostileRow NoMessage(std::string name, std::string words, std::function<void(UpdateOffer&)> spoil) {
  HostileRow row =
      Offer(std::move(name), Code::kInvalidArgument, std::move(words), std::move(spoil));
  row.answer = Answer::kCut;
  return row;
}

HostileRow Frame(std::string name, std::string words, std::function<Blob()> make) {
  return {std::move(name), Code::kInvalidArgument, std::move(words),
          [make = std::move(make)](Good) {
            return Delivery{make(), {}};
          },
          Answer::kCut};
}

/// The tensor with another shape, of ones.
void Reshape(BlockTensor& tensor, std::vector<int64_t> shape) {
  size_t count = 1;
  for (const int64_t side : shape) count *= static_cast<size_t>(side);
  tensor.shape = std::move(shape);
  tensor.bytes = Blob::Adopt(std::vector<std::byte>(count * sizeof(float)));
  SetFloats(tensor, 1, 0, count);
}

Rows ValueRows() {
  const auto one = [](float value) {
    return [value](BlockTensor& tensor) { SetFloats(tensor, value, 7, 1); };
  };
  const auto all = [](float value) {
    return [value](TensorBlock& block) { SetAllFloats(block, value); };
  };
  return {Tensor("NaN", "NaN or an infinity", one(kNan)),
          Tensor("+Inf", "NaN or an infinity", one(kInfinity)),
          Tensor("-Inf", "NaN or an infinity", one(-kInfinity)),
          Block("all 0", "every value of every tensor is zero", all(0.0F)),
          Block("all -0", "every value of every tensor is zero", all(-0.0F)),
          Block("all 1e30, a product beyond float32", "their norm is no number", all(1e30F)),
          State("over 1000 times the median", "times the median", [](AdapterState& state) {
            for (SiteState& site : state.sites) site.Get("B").add_(1e3);
          })};
}

Rows ShapeRows() {
  const auto shaped = [](std::vector<int64_t> shape) {
    return [shape = std::move(shape)](BlockTensor& tensor) { Reshape(tensor, shape); };
  };
  return {
      Section("rank 0, said so", "rank is 0, the plan says 4",
              [](BlockSection& section) {
                section.spec.rank = 0;
                for (BlockSite& site : section.sites) {
                  Reshape(site.tensors[0], {0, site.site.in});
                  Reshape(site.tensors[1], {site.site.out, 0});
                }
              }),
      Tensor("rank 0", "A is [0×128], the plan says [4×128]", shaped({0, 128})),
      Tensor("rank over min(m, n)", "A is [200×128], the plan says [4×128]", shaped({200, 128})),
      Section("rank over min(m, n), said so", "rank is 200, the plan says 4",
              [](BlockSection& section) { section.spec.rank = 200; }),
      Section("rank other than declared", "rank is 5, the plan says 4",
              [](BlockSection& section) { section.spec.rank = 5; }),
      Tensor("tensors of another rank", "A is [5×128], the plan says [4×128]", shaped({5, 128})),
      Tensor("transposed", "A is [128×4], the plan says [4×128]", shaped({128, 4})),
      Tensor("of one dimension", "A is [512], the plan says [4×128]", shaped({512})),
      Site("m wrong", "is 129×128 (out×in), the model says 128×128",
           [](BlockSite& site) { site.site.out = 129; }),
      Site("n wrong", "is 128×64 (out×in), the model says 128×128",
           [](BlockSite& site) { site.site.in = 64; }),
      Site("n 0", "site in: got 0, wanted 1 to", [](BlockSite& site) { site.site.in = 0; }),
      Entry("negative side", "its shape is negative or larger than any payload",
            [](auto tensor) { tensor.getShape().set(0, -4); }),
      Entry("side of 2^62", "its shape is negative or larger than any payload",
            [](auto tensor) { tensor.getShape().set(0, int64_t{1} << 62); }),
      Entry("nine dimensions", "shape: got 9 elements, wanted at most 8", [](auto tensor) {
        auto shape = tensor.initShape(9);
        for (unsigned i = 0; i < shape.size(); ++i) shape.set(i, 1);
      })};
}

Rows NameRows() {
  Rows rows = {
      Site("tensor twice", "got tensor \"A\" twice",
           [](BlockSite& site) { site.tensors[1] = site.tensors[0]; }),
      Site("tensor missing", "tensor \"B\" is missing",
           [](BlockSite& site) { site.tensors.pop_back(); }),
      Site("extra tensor", "tensor \"C\" is one too many",
           [](BlockSite& site) {
             site.tensors.push_back(site.tensors[0]);
             site.tensors.back().name = "C";
           }),
      Site("tensors swapped", "tensor \"B\" stands where \"A\" is wanted",
           [](BlockSite& site) { std::swap(site.tensors[0], site.tensors[1]); }),
      Section("site twice", "twice",
              [](BlockSection& section) { section.sites[1] = section.sites[0]; }),
      Section("site missing", "is missing",
              [](BlockSection& section) { section.sites.pop_back(); }),
      Section("extra site", "lm_head is one too many",
              [](BlockSection& section) {
                section.sites.push_back(section.sites[0]);
                section.sites.back().site.path = "lm_head";
              }),
      Section("extra whole module", "the plan trains no whole modules", [](BlockSection& section) {
        section.dense.push_back(section.sites[0].tensors[0]);
        section.dense.back().name = "lm_head.weight";
      })};
  const std::vector<std::pair<std::string, std::string>> names = {
      {"..", "got a name with a slash or of dots alone"},
      {"../../state/round-0001", "got a name with a slash or of dots alone"},
      {std::string("A\0B", 3), "got control characters or bytes that are not UTF-8"},
      {"\xff", "got control characters or bytes that are not UTF-8"},
      {"", "got nothing, wanted a name"},
      {std::string(kLongName, 'A'), "a manifest of 6"}};
  const std::vector<std::string> called = {"..",        "../..", "with NUL",
                                           "not UTF-8", "empty", "64 KB"};
  for (size_t i = 0; i < names.size(); ++i) {
    const auto& [name, words] = names[i];
    rows.push_back(Tensor(Str("tensor name ", called[i]), words,
                          [name = name](BlockTensor& tensor) { tensor.name = name; }));
    rows.push_back(Site(Str("site path ", called[i]), words,
                        [name = name](BlockSite& site) { site.site.path = name; }));
  }
  return rows;
}

Rows SpecRows() {
  const auto alpha = [](double value) {
    return [value](BlockSection& section) { section.spec.alpha = value; };
  };
  return {Section("alpha 0", "alpha is 0, the plan says 8", alpha(0)),
          Section("alpha -1", "alpha is -1, the plan says 8", alpha(-1)),
          Section("alpha NaN", "alpha: got NaN or an infinity", alpha(kNan)),
          Section("alpha 1e300", "alpha is 1e+300, the plan says 8", alpha(1e300)),
          Section("another method", "method is nola, the plan says lora",
                  [](BlockSection& section) { section.spec.method = "nola"; }),
          Section("a delta", "the update is a delta, the plan wants a whole adapter",
                  [](BlockSection& section) { section.delta = true; }),
          Block("another codec", "the payload is of codec bfloat16, the offer said float32",
                [](TensorBlock& block) { block.codec = "bfloat16"; }),
          Section("another codec for its section", "its section is of codec bfloat16",
                  [](BlockSection& section) { section.codec = "bfloat16"; }),
          Block("no section", "got 0 sections", [](TensorBlock& block) { block.sections.clear(); }),
          Block("two sections", "got 2 sections",
                [](TensorBlock& block) {
                  block.sections.push_back(block.sections[0]);
                  block.sections.back().role = "frozen";
                }),
          Section("a section of another role", "got 1 sections, the first frozen",
                  [](BlockSection& section) { section.role = "frozen"; })};
}

Rows HeaderRows() {
  const auto length = [](uint64_t value) {
    return [value](std::vector<std::byte>& bytes) { PutLittleEndian(bytes, 8, value); };
  };
  const auto offset = [](int64_t more) {
    return [more](proto::Tensor::Builder tensor) {
      tensor.setOffset(tensor.getOffset() + static_cast<uint64_t>(more));
    };
  };
  HostileRow newer = Manifest("manifest of version 2", "got version 2",
                              [](auto manifest) { manifest.setVersion(2); });
  newer.code = Code::kFailedPrecondition;
  HostileRow cut = Bytes("cut short", "end behind the block's",
                         [](auto& bytes) { bytes.resize(bytes.size() - 100); });
  const auto crowd = [](size_t sites) {
    return [sites](Good good) {
      return good.WithBlock([sites](TensorBlock& block) { Crowd(block, sites); },
                            BlockForm::kCompact);
    };
  };
  return {
      newer,
      cut,
      {"164000 empty tensors, compressed", Code::kInvalidArgument, "a manifest of 5",
       crowd(limits::kSitesMax)},
      {"4000 empty tensors, compressed", Code::kInvalidArgument,
       "a compressed manifest of unknown size, or of more than", crowd(400)},
      Bytes("another mark", "no tensor block", [](auto& bytes) { bytes[0] = std::byte{'w'}; }),
      Bytes("shorter than a header", "got 9 bytes without the mark",
            [](auto& bytes) { bytes.resize(9); }),
      Bytes("header length 0", "the padding behind the manifest is not zero", length(0)),
      Bytes("header length 8", "the padding behind the manifest is not zero", length(8)),
      Bytes("header length 2^63", "a manifest of 9223372036854775808 bytes", length(kTwoTo63)),
      Bytes("header length 2^64-1", "a manifest of 18446744073709551615 bytes",
            length(~uint64_t{0})),
      Bytes(
          "header of noise", "[wire] malformed message",
          [](auto& bytes) { std::fill(bytes.begin() + 16, bytes.begin() + 400, std::byte{0xa5}); }),
      Bytes("bytes behind the last tensor", "the manifest says",
            [](auto& bytes) { bytes.resize(bytes.size() + 64); }),
      Entry("overlapping offsets", "got offset 0, wanted", [](auto t) { t.setOffset(0); }),
      Entry("a gap", ": tensors lie in order", offset(64)),
      Entry("misaligned", ": tensors lie in order", offset(1)),
      Entry("offset 2^63", "got offset 9223372036854775808", [](auto t) { t.setOffset(kTwoTo63); }),
      Entry("dtype unknown", "unknown dtype \"F31\"", [](auto t) { t.setDtype("F31"); }),
      Tensor("dtype another", "A is BF16, the codec stores F32",
             [](BlockTensor& tensor) {
               tensor.dtype = DType::kBFloat16;
               tensor.bytes = tensor.bytes.Slice(0, tensor.bytes.size() / 2);
             }),
      Tensor("packing unknown",
             "is packed as \"tar\"; known:", [](BlockTensor& tensor) { tensor.packing = "tar"; }),
      Tensor("sparse of noise", "[packing]",
             [](BlockTensor& tensor) {
               tensor.packing = "sparse";
               tensor.bytes = Blob::Copy(std::string(40, '\x5a'));
             }),
      Entry("packed to 2^63 bytes", "more than it can need",
            [](auto t) {
              t.setPacking("sparse");
              t.setPackedBytes(kTwoTo63);
            }),
      Entry("shared with a later site", "no earlier one", [](auto t) { t.setSharedWith(3); }),
      Tensor("shared with another site", "A is that of site 0, its method says site 1",
             [](BlockTensor& tensor) { tensor.shared_with = 0; })};
}

/// An offer of another round than the open one.
HostileRow Stray(std::string name, Code code, std::string words,
                 std::function<void(UpdateOffer&)> spoil) {
  HostileRow row = Offer(std::move(name), code, std::move(words), std::move(spoil));
  row.answer = Answer::kStray;
  return row;
}

Rows OfferRows() {
  constexpr Code kPrecondition = Code::kFailedPrecondition;
  constexpr Code kInvalid = Code::kInvalidArgument;
  const auto alpha = [](double value) { return [value](auto& o) { o.header.spec.alpha = value; }; };
  return {
      Offer("n_k 0", kInvalid, "num-examples: got 0, wanted 1 to",
            [](auto& o) { o.header.num_examples = 0; }),
      Offer("label tokens 0", kInvalid, "label_tokens is 0, wanted 1 to",
            [](auto& o) { o.header.label_tokens = 0; }),
      Offer("train loss NaN", kInvalid, "train_loss: got nan, wanted a number",
            [](auto& o) { o.header.train_loss = kNan; }),
      Offer("offered: alpha 0", kInvalid, "alpha is 0, the plan says 8", alpha(0)),
      Offer("offered: alpha -1", kInvalid, "alpha is -1, the plan says 8", alpha(-1)),
      Offer("offered: alpha 1e300", kInvalid, "alpha is 1e+300, the plan says 8", alpha(1e300)),
      Offer("offered: rank 0", kInvalid, "rank is 0, the plan says 4",
            [](auto& o) { o.header.spec.rank = 0; }),
      Offer("offered: rank 64", kInvalid, "rank is 64, the plan says 4",
            [](auto& o) { o.header.spec.rank = 64; }),
      Offer("version from the future", kPrecondition, "version it started from: got 99999, wanted",
            [](auto& o) { o.header.version.number = 99999; }),
      Offer("version of the past", kPrecondition, "version it started from: got ",
            [](auto& o) { --o.header.version.number; }),
      Stray("round from the future", kPrecondition, "round 99999, wanted run quick round",
            [](auto& o) { o.header.round.number = 99999; }),
      Stray("round replayed", Code::kDeadlineExceeded, "had closed before its update came",
            [](auto& o) { --o.header.round.number; }),
      Offer("another run", kPrecondition, "run: got other, wanted quick",
            [](auto& o) { o.header.run.name = "other"; }),
      Offer("another client's name", kPrecondition, "client: got weaver, wanted harbour",
            [](auto& o) { o.header.client.name = "weaver"; }),
      Offer("another base model", kPrecondition, "base model: got",
            [](auto& o) { o.header.base_hash = std::string(64, 'b'); }),
      Offer("offered: another codec", kPrecondition, "codec: got bfloat16, wanted float32",
            [](auto& o) { o.header.codec = "bfloat16"; }),
      Offer("a payload of 1 GiB", Code::kResourceExhausted, "payload: got 1073741824 bytes, wanted",
            [](auto& o) { o.header.payload_bytes = o.payload.bytes = uint64_t{1} << 30; })};
}

Rows MessageRows() {
  const auto examples = [](uint64_t value) {
    return [value](auto& o) { o.header.num_examples = value; };
  };
  Rows rows = {
      NoMessage("n_k 2^63", "num examples: got 9223372036854775808", examples(kTwoTo63)),
      NoMessage("n_k -1", "num examples: got 18446744073709551615", examples(~uint64_t{0})),
      NoMessage("offered: alpha NaN", "alpha: got NaN or an infinity",
                [](auto& o) { o.header.spec.alpha = kNan; }),
      NoMessage("offered: rank -1", "rank: got -1, wanted 0 to",
                [](auto& o) { o.header.spec.rank = -1; }),
      NoMessage("a payload of 2^63 bytes", "payload bytes: got 9223372036854775808",
                [](auto& o) { o.header.payload_bytes = o.payload.bytes = kTwoTo63; }),
      NoMessage("a payload of nothing", "payload bytes: got 0, wanted at least 1",
                [](auto& o) { o.header.payload_bytes = o.payload.bytes = 0; }),
      NoMessage("two payloads", "name different payloads",
                [](auto& o) { o.header.payload_sha256 = std::string(64, 'c'); }),
      NoMessage("client name ..", "a name with a slash or of dots alone",
                [](auto& o) { o.header.client.name = ".."; }),
      NoMessage("run name with NUL", "control characters",
                [](auto& o) { o.header.run.name = std::string("quick\0", 6); }),
      NoMessage("run name 64 KB", Str("run: got ", kLongName, " bytes"),
                [](auto& o) { o.header.run.name = std::string(kLongName, 'r'); }),
      NoMessage("65 metrics", "metrics: got 65 elements, wanted at most 64",
                [](auto& o) {
                  o.header.metrics.assign(65, {"loss", 1.0});
                }),
      Frame("a frame of noise", "[wire] malformed message",
            [] { return Blob::Copy(std::string(200, '\x5a')); }),
      Frame("an aggregator's message", "which only an aggregator may send",
            [] { return EncodeMessage(RoundClosed{}); })};
  return rows;
}

Rows TransferRows() {
  const auto serving = [](std::string name, Code code, std::string words,
                          std::function<void(std::vector<std::byte>&)> spoil) {
    return HostileRow{std::move(name), code, std::move(words),
                      [spoil = std::move(spoil)](Good good) { return good.Serving(spoil); }};
  };
  return {serving("a byte more than offered", Code::kInvalidArgument, "bytes, wanted",
                  [](auto& bytes) { bytes.push_back({}); }),
          serving("a byte less than offered", Code::kInvalidArgument, "bytes, wanted",
                  [](auto& bytes) { bytes.pop_back(); }),
          serving("bytes of another digest", Code::kDataLoss, "wanted",
                  [](auto& bytes) { bytes.back() ^= std::byte{1}; })};
}

}  // namespace

std::vector<HostileRow> HostileRows() {
  Rows rows;
  for (Rows (*const make)() : {ValueRows, ShapeRows, NameRows, SpecRows, HeaderRows, OfferRows,
                               MessageRows, TransferRows}) {
    Rows more = make();
    rows.insert(rows.end(), std::make_move_iterator(more.begin()),
                std::make_move_iterator(more.end()));
  }
  return rows;
}

}  // namespace weft::testing
