# Adapters as bytes: what an adapter is (AdapterSpec) and the manifest of a TensorBlock (docs/formats.md, common/wire/tensor_block.h).
# Fields are only ever added, with the next number; a reader ignores those it does not know. Numbers are never reused.
@0xe1792fe9a3df78fa;

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("weft::proto");

struct IntPattern {
  pattern @0 :Text;
  value @1 :Int64;
}

struct FloatPattern {
  pattern @0 :Text;
  value @1 :Float64;
}

struct TextOption {
  key @0 :Text;
  value @1 :Text;
}

# One linear layer that can carry an adapter: y[out] = W[out x in] x[in].
struct LinearSite {
  path @0 :Text;
  in @1 :Int64;
  out @2 :Int64;
}

struct AdapterSpec {
  method @0 :Text;
  rank @1 :Int64;
  alpha @2 :Float64;
  rslora @3 :Bool;
  dropout @4 :Float64;
  targetModules @5 :List(Text);
  targetRegex @6 :Text;
  excludeModules @7 :List(Text);
  layersToTransform @8 :List(Int64);
  layersPattern @9 :Text;
  rankPattern @10 :List(IntPattern);
  alphaPattern @11 :List(FloatPattern);
  modulesToSave @12 :List(Text);
  # Those with the key "label" are no options of the method but the names of the classes by id, of an adapter that classifies
  # rows: they came later, and a field of their own would change the bytes, and so the hash, of every adapter without them.
  options @13 :List(TextOption);
}

# One tensor of a block. Its data lie at `offset` from the start of the block's data, which follows the manifest; the length
# is the product of the shape times the size of the type. Offsets are what the order of the manifest implies, so that the
# same adapter always has the same bytes; a reader checks that.
struct Tensor {
  name @0 :Text;
  dtype @1 :Text;   # safetensors' word: "F32", "BF16", ...
  shape @2 :List(Int64);
  offset @3 :UInt64;
  # 0: a tensor of its own. n: the tensor of the same name that site n - 1, an earlier one, holds; it has no data here.
  sharedWith @4 :UInt32;
  # "": plain. Else how the data are packed (common/codec); the length is then packedBytes.
  packing @5 :Text;
  packedBytes @6 :UInt64;
}

struct SiteTensors {
  site @0 :LinearSite;
  tensors @1 :List(Tensor);
}

struct Section {
  role @0 :Text;    # "adapter", "frozen"
  spec @1 :AdapterSpec;
  sites @2 :List(SiteTensors);
  dense @3 :List(Tensor);
  delta @4 :Bool;   # the tensors are what changed in those that were sent, to be added to them
  codec @5 :Text;   # of this section; "": the block's
}

struct TensorManifest {
  version @0 :UInt16;
  codec @1 :Text;
  sections @2 :List(Section);
}
