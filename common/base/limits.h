#pragma once
// Every bound that protects a process from what a peer or a file says, in one table, enforced
// before memory is taken. protocols/README.md prints the same table.

#include <cstddef>
#include <cstdint>

namespace weft::limits {

// ---- on the wire ----
inline constexpr size_t kControlBytesMax = 256 * 1024;  // one control frame (Cap'n Proto)
inline constexpr size_t kChunkBytes = 256 * 1024;       // payload bytes in one chunk frame
inline constexpr size_t kFrameBytesMax = 512 * 1024;    // ZMQ_MAXMSGSIZE: larger ones cut the peer
inline constexpr size_t kFramesPerMessageMax = 2;       // control + at most one chunk
inline constexpr uint64_t kPayloadBytesMax = uint64_t{8} << 30;         // one adapter, encoded
inline constexpr uint64_t kChunksMax = kPayloadBytesMax / kChunkBytes;  // chunks of one payload
inline constexpr uint32_t kChunksInFlightMax = 16;          // chunks one request may ask for
inline constexpr size_t kManifestBytesMax = 16 << 20;       // names and shapes of one tensor block
inline constexpr size_t kPeersMax = 16384;                  // connected at once
inline constexpr size_t kCapnpWordsMax = kControlBytesMax;  // traversal limit (8 bytes a word)
inline constexpr int kCapnpNestingMax = 16;                 // pointers below pointers

// ---- names and lists ----
inline constexpr size_t kNameBytesMax = 256;       // site path, tensor name, client name, run name
inline constexpr size_t kPlainNameBytesMax = 128;  // client and run in settings and allow-lists
inline constexpr size_t kTextBytesMax = 4096;      // reasons, free text
inline constexpr size_t kSitesMax = 16384;         // adapted layers in one adapter
inline constexpr size_t kTensorsPerSiteMax = 64;   // factors of one adapted layer
inline constexpr size_t kMetricsMax = 64;          // named numbers in one update
inline constexpr size_t kOptionsMax = 64;  // settings of one method, methods, codecs, saved modules
inline constexpr size_t kSectionsMax = 8;  // parts of one tensor block
inline constexpr size_t kDenseTensorsMax = 4096;   // tensors of whole modules in one section
inline constexpr size_t kTensorDimensionsMax = 8;  // length of a tensor's shape

// ---- numbers ----
inline constexpr int64_t kRankMax = 65536;                   // of an adapter
inline constexpr int64_t kDimensionMax = int64_t{1} << 24;   // one side of a linear layer
inline constexpr int64_t kLabelsMax = 1024;                  // classes of a classification head
inline constexpr uint64_t kExamplesMax = uint64_t{1} << 40;  // rows a client may claim

// ---- files ----
inline constexpr uint64_t kSafetensorsHeaderMax = uint64_t{100} << 20;  // JSON header of one file
inline constexpr size_t kJsonBytesMax = size_t{256} << 20;  // largest tokenizer.json: ~20 MB
inline constexpr int kJsonNestingMax = 64;                  // arrays and objects within each other
inline constexpr int32_t kTokenIdMax = (1 << 22) - 1;  // the largest vocabularies have 2^18 tokens
inline constexpr size_t kJsonlLineBytesMax = size_t{16} << 20;  // one row of data

}  // namespace weft::limits
