// Attention within rows on the CPU, causal or in both directions. One task per (row, key head): its
// keys and values are copied once into float32 panels, then blocks of queries run through score,
// softmax and value products that skip what the mask hides. The backward pass recomputes the
// probabilities from the kept log-sum-exp (Dao et al. 2022). Tasks write disjoint outputs, so the
// result does not depend on which thread takes which.
//
// Shape legend: T tokens of the row, P = T padded to a multiple of 16, D head dimension, E = D
// padded likewise, M queries of a block.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#include "common/model/kernels_cpu.h"
#include "common/tensor/cpu_vector.h"

namespace weft::cpu {
namespace {

constexpr int64_t kBlockMax = 48;  // queries of a block
constexpr int64_t kTile = 6;       // rows of C held in registers

int64_t Padded(int64_t n) { return (n + kLane - 1) / kLane * kLane; }

// A element (i, k) lies at a[i·row + k·column].
struct Strided {
  const float* a;
  int64_t row;
  int64_t column;
};

template <int kRows>
WEFT_INLINE void MultiplyTile(const Strided& A, const float* b, int64_t ldb, int64_t depth,
                              float* c, int64_t ldc, bool add) {
  Lane sum[kRows];
  for (int i = 0; i < kRows; ++i) sum[i] = add ? LoadLane(c + i * ldc) : Lane{};
  for (int64_t k = 0; k < depth; ++k) {
    const Lane row = LoadLane(b + k * ldb);
    for (int i = 0; i < kRows; ++i) sum[i] += A.a[i * A.row + k * A.column] * row;
  }
  for (int i = 0; i < kRows; ++i) StoreLane(c + i * ldc, sum[i]);
}

struct Product {
  int64_t rows, columns, depth;  // columns: a multiple of 16
  int64_t ldb, ldc;
  bool add;
};

// C[rows×columns] (+)= A[rows×depth] · B[depth×columns].
WEFT_INLINE void Multiply(const Strided& A, const float* b, float* c, const Product& p) {
  for (int64_t j = 0; j < p.columns; j += kLane) {
    int64_t i = 0;
    for (; i + kTile <= p.rows; i += kTile) {
      MultiplyTile<kTile>({A.a + i * A.row, A.row, A.column}, b + j, p.ldb, p.depth,
                          c + i * p.ldc + j, p.ldc, p.add);
    }
    const Strided rest{A.a + i * A.row, A.row, A.column};
    float* const to = c + i * p.ldc + j;
    switch (p.rows - i) {
      case 5:
        MultiplyTile<5>(rest, b + j, p.ldb, p.depth, to, p.ldc, p.add);
        break;
      case 4:
        MultiplyTile<4>(rest, b + j, p.ldb, p.depth, to, p.ldc, p.add);
        break;
      case 3:
        MultiplyTile<3>(rest, b + j, p.ldb, p.depth, to, p.ldc, p.add);
        break;
      case 2:
        MultiplyTile<2>(rest, b + j, p.ldb, p.depth, to, p.ldc, p.add);
        break;
      case 1:
        MultiplyTile<1>(rest, b + j, p.ldb, p.depth, to, p.ldc, p.add);
        break;
      default:
        break;
    }
  }
}

// One row of tokens and one key head with the query heads that share it.
struct Task {
  int64_t begin = 0;   // the row's first token
  int64_t tokens = 0;  // T
  int64_t head = 0;    // of keys
};

struct Geometry {
  int64_t heads, kv_heads, dim, stride, out_stride;  // stride of a token in qkv and in o
  int64_t total;                                     // tokens of the batch (rows of lse)
  int64_t window;
  float scale;
  bool causal;
};

// Scratch of one thread.
struct Scratch {
  std::vector<float> keys_TE, keys_DP, values_TE, values_DP, queries_ME, grads_ME, scores_MP,
      dscores_MP, out_ME, dkeys_TE, dvalues_TE;
};

void Size(std::vector<float>& buffer, int64_t size) {
  if (buffer.size() < static_cast<size_t>(size)) buffer.resize(static_cast<size_t>(size));
}

// rows×dim elements at `from` as float32 with padded columns.
template <typename T>
WEFT_INLINE void Unpack(const T* from, int64_t stride, int64_t rows, int64_t dim, float scale,
                        float* to_TE) {
  const int64_t padded = (dim + kLane - 1) / kLane * kLane;
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t d = 0; d < dim; ++d) to_TE[t * padded + d] = Load(from[t * stride + d]) * scale;
    for (int64_t d = dim; d < padded; ++d) to_TE[t * padded + d] = 0;
  }
}

template <typename T>
WEFT_INLINE void UnpackTransposed(const T* from, int64_t stride, int64_t rows, int64_t dim,
                                  float* to_DP) {
  const int64_t padded = (rows + kLane - 1) / kLane * kLane;
  for (int64_t d = 0; d < dim; ++d) {
    for (int64_t t = 0; t < rows; ++t) to_DP[d * padded + t] = Load(from[t * stride + d]);
    for (int64_t t = rows; t < padded; ++t) to_DP[d * padded + t] = 0;
  }
}

template <typename T>
WEFT_INLINE void PackInto(const float* from_TE, int64_t rows, int64_t dim, float scale, T* to,
                          int64_t stride) {
  const int64_t padded = (dim + kLane - 1) / kLane * kLane;
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t d = 0; d < dim; ++d) Store(to[t * stride + d], from_TE[t * padded + d] * scale);
  }
}

// What a block of queries [first, first + count) can see: columns [low, end), padded to [low,
// high), both multiples of 16.
struct Block {
  int64_t first, count, low, end, high;
};

// Small blocks compute less that the mask hides, large ones load keys and values less often.
WEFT_INLINE Block BlockAt(int64_t first, int64_t tokens, const Geometry& g) {
  const int64_t size = tokens > 256 ? kBlockMax : (g.dim >= 32 ? kBlockMax / 2 : kBlockMax / 4);
  Block block{};
  block.first = first;
  block.count = tokens - first < size ? tokens - first : size;
  block.low = g.window > 0 && first + 1 > g.window ? (first + 1 - g.window) / kLane * kLane : 0;
  block.end = g.causal ? first + block.count : tokens;
  block.high = (block.end + kLane - 1) / kLane * kLane;
  return block;
}

// Columns [low, high) of a row of scores, both multiples of 16, of which [from, to) are visible.
struct Span {
  int64_t low, high, from, to;
};

// All bits of the first n of sixteen places.
alignas(64) constexpr uint32_t kFirstPlaces[2 * kLane] = {~0U, ~0U, ~0U, ~0U, ~0U, ~0U, ~0U, ~0U,
                                                          ~0U, ~0U, ~0U, ~0U, ~0U, ~0U, ~0U, ~0U};
WEFT_INLINE BitLane FirstPlaces(int64_t n) {
  const int64_t count = n < 0 ? 0 : (n < kLane ? n : kLane);
  return *reinterpret_cast<const BitLane*>(kFirstPlaces + kLane - count);
}

// With masks of bits: g++ 12 turns a choice by comparing places into sixteen scalar ones.
WEFT_INLINE Lane Visible(const Span& span, int64_t j, Lane x, float hidden) {
  if (j >= span.from && j + kLane <= span.to) return x;
  const BitLane seen = FirstPlaces(span.to - j) & ~FirstPlaces(span.from - j);
  const BitLane other = reinterpret_cast<BitLane>(Spread(hidden)) & ~seen;
  return reinterpret_cast<Lane>((reinterpret_cast<BitLane>(x) & seen) | other);
}

WEFT_INLINE float LargestVisible(const float* row, const Span& span) {
  Lane high = Spread(-3.0e38F);
  for (int64_t j = span.low; j < span.high; j += kLane) {
    high = Larger(Visible(span, j, LoadLane(row + j), -3.0e38F), high);
  }
  return Largest(high);
}

// exp(score − shift) where visible, 0 elsewhere, in place; returns the sum.
WEFT_INLINE float Exponentials(float* row, const Span& span, float shift) {
  Lane sum{};
  for (int64_t j = span.low; j < span.high; j += kLane) {
    const Lane p = Visible(span, j, Exp(LoadLane(row + j) - shift), 0.0F);
    StoreLane(row + j, p);
    sum += p;
  }
  return Sum(sum);
}

// What one token of a block can see.
WEFT_INLINE Span SpanOf(const Block& block, int64_t token, const Geometry& g) {
  return {block.low, block.high, g.window > 0 && token + 1 > g.window ? token + 1 - g.window : 0,
          g.causal ? token + 1 : block.end};
}

template <typename T>
WEFT_INLINE void ForwardTask(const Geometry& g, const Task& task, const T* qkv, T* o, float* lse,
                             Scratch& s) {
  const int64_t E = (g.dim + kLane - 1) / kLane * kLane;
  const int64_t P = (task.tokens + kLane - 1) / kLane * kLane;
  const T* const row = qkv + task.begin * g.stride;
  const T* const keys = row + (g.heads + task.head) * g.dim;
  const T* const values = row + (g.heads + g.kv_heads + task.head) * g.dim;
  UnpackTransposed(keys, g.stride, task.tokens, g.dim, s.keys_DP.data());
  Unpack(values, g.stride, task.tokens, g.dim, 1.0F, s.values_TE.data());
  const int64_t share = g.heads / g.kv_heads;
  for (int64_t h = task.head * share; h < (task.head + 1) * share; ++h) {
    float* const head_lse = lse + h * g.total + task.begin;
    for (int64_t first = 0; first < task.tokens;) {
      const Block block = BlockAt(first, task.tokens, g);
      Unpack(row + first * g.stride + h * g.dim, g.stride, block.count, g.dim, g.scale,
             s.queries_ME.data());
      float* const scores = s.scores_MP.data();
      float inverse[kBlockMax];
      Multiply({s.queries_ME.data(), E, 1}, s.keys_DP.data() + block.low, scores + block.low,
               {block.count, block.high - block.low, g.dim, P, P, false});
      for (int64_t i = 0; i < block.count; ++i) {
        float* const line = scores + i * P;
        const int64_t token = first + i;
        const Span span = SpanOf(block, token, g);
        const float largest = LargestVisible(line, span);
        const float sum = Exponentials(line, span, largest);
        inverse[i] = 1.0F / sum;
        head_lse[token] = largest + std::log(sum);
      }
      const int64_t depth = block.end - block.low;
      Multiply({scores + block.low, P, 1}, s.values_TE.data() + block.low * E, s.out_ME.data(),
               {block.count, E, depth, E, E, false});
      for (int64_t i = 0; i < block.count; ++i) {
        PackInto(s.out_ME.data() + i * E, 1, g.dim, inverse[i],
                 o + (task.begin + first + i) * g.out_stride + h * g.dim, g.out_stride);
      }
      first += block.count;
    }
  }
}

WEFT_MULTIVERSION void ForwardTaskOf(const Geometry& g, const Task& task, const float* qkv,
                                     float* o, float* lse, Scratch& s) {
  ForwardTask(g, task, qkv, o, lse, s);
}
WEFT_MULTIVERSION void ForwardTaskOf(const Geometry& g, const Task& task, const uint16_t* qkv,
                                     uint16_t* o, float* lse, Scratch& s) {
  ForwardTask(g, task, qkv, o, lse, s);
}

template <typename T>
struct BackwardPointers {
  const T* qkv;
  const T* o;
  const T* d_o;
  const float* lse;
  T* dqkv;
};

// With P = exp(S − lse): dV += Pᵀ dO, dP = dO Vᵀ, dS = P·(dP − Σ dO·O), dQ = dS K, dK += dSᵀ Q.
template <typename T>
WEFT_INLINE void BackwardBlock(const Geometry& g, const Task& task, const Block& block, int64_t h,
                               const BackwardPointers<T>& at, Scratch& s) {
  const int64_t E = (g.dim + kLane - 1) / kLane * kLane;
  const int64_t P = (task.tokens + kLane - 1) / kLane * kLane;
  const int64_t token0 = task.begin + block.first;
  float* const scores = s.scores_MP.data();
  float* const dscores = s.dscores_MP.data();
  const int64_t width = block.high - block.low;
  const int64_t depth = block.end - block.low;
  Unpack(at.qkv + token0 * g.stride + h * g.dim, g.stride, block.count, g.dim, g.scale,
         s.queries_ME.data());
  const T* const grads = at.d_o + token0 * g.out_stride + h * g.dim;
  const T* const outs = at.o + token0 * g.out_stride + h * g.dim;
  Unpack(grads, g.out_stride, block.count, g.dim, 1.0F, s.grads_ME.data());
  Multiply({s.queries_ME.data(), E, 1}, s.keys_DP.data() + block.low, scores + block.low,
           {block.count, width, g.dim, P, P, false});
  Multiply({s.grads_ME.data(), E, 1}, s.values_DP.data() + block.low, dscores + block.low,
           {block.count, width, g.dim, P, P, false});
  for (int64_t i = 0; i < block.count; ++i) {
    float delta = 0;
    for (int64_t d = 0; d < g.dim; ++d) {
      delta += Load(grads[i * g.out_stride + d]) * Load(outs[i * g.out_stride + d]);
    }
    float* const p = scores + i * P;
    float* const dp = dscores + i * P;
    const int64_t token = block.first + i;
    const Span span = SpanOf(block, token, g);
    (void)Exponentials(p, span, at.lse[h * g.total + task.begin + token]);
    for (int64_t j = block.low; j < block.high; j += kLane) {
      StoreLane(dp + j, LoadLane(p + j) * (LoadLane(dp + j) - delta));
    }
  }
  Multiply({scores + block.low, 1, P}, s.grads_ME.data(), s.dvalues_TE.data() + block.low * E,
           {depth, E, block.count, E, E, true});
  Multiply({dscores + block.low, 1, P}, s.queries_ME.data(), s.dkeys_TE.data() + block.low * E,
           {depth, E, block.count, E, E, true});
  Multiply({dscores + block.low, P, 1}, s.keys_TE.data() + block.low * E, s.out_ME.data(),
           {block.count, E, depth, E, E, false});
  PackInto(s.out_ME.data(), block.count, g.dim, g.scale, at.dqkv + token0 * g.stride + h * g.dim,
           g.stride);
}

template <typename T>
WEFT_INLINE void BackwardTask(const Geometry& g, const Task& task, const BackwardPointers<T>& at,
                              Scratch& s) {
  const int64_t E = (g.dim + kLane - 1) / kLane * kLane;
  const T* const row = at.qkv + task.begin * g.stride;
  const int64_t key_at = (g.heads + task.head) * g.dim;
  const int64_t value_at = (g.heads + g.kv_heads + task.head) * g.dim;
  UnpackTransposed(row + key_at, g.stride, task.tokens, g.dim, s.keys_DP.data());
  Unpack(row + key_at, g.stride, task.tokens, g.dim, 1.0F, s.keys_TE.data());
  UnpackTransposed(row + value_at, g.stride, task.tokens, g.dim, s.values_DP.data());
  for (int64_t i = 0; i < task.tokens * E; ++i) s.dkeys_TE[static_cast<size_t>(i)] = 0;
  for (int64_t i = 0; i < task.tokens * E; ++i) s.dvalues_TE[static_cast<size_t>(i)] = 0;
  const int64_t share = g.heads / g.kv_heads;
  for (int64_t h = task.head * share; h < (task.head + 1) * share; ++h) {
    for (int64_t first = 0; first < task.tokens;) {
      const Block block = BlockAt(first, task.tokens, g);
      BackwardBlock(g, task, block, h, at, s);
      first += block.count;
    }
  }
  T* const drow = at.dqkv + task.begin * g.stride;
  // The scale is already in the queries that made dK.
  PackInto(s.dkeys_TE.data(), task.tokens, g.dim, 1.0F, drow + key_at, g.stride);
  PackInto(s.dvalues_TE.data(), task.tokens, g.dim, 1.0F, drow + value_at, g.stride);
}

WEFT_MULTIVERSION void BackwardTaskOf(const Geometry& g, const Task& task,
                                      const BackwardPointers<float>& at, Scratch& s) {
  BackwardTask(g, task, at, s);
}
WEFT_MULTIVERSION void BackwardTaskOf(const Geometry& g, const Task& task,
                                      const BackwardPointers<uint16_t>& at, Scratch& s) {
  BackwardTask(g, task, at, s);
}

Geometry GeometryOf(const AttentionShape& shape, int64_t total) {
  const HeadLayout& heads = shape.layout;
  return {heads.heads,        heads.kv_heads, heads.head_dim, heads.features(),
          heads.q_features(), total,          shape.window,   static_cast<float>(shape.scale),
          shape.causal};
}

// Longest rows first, so that the threads end together.
std::vector<Task> TasksOf(const RowIndex& rows, int64_t kv_heads) {
  std::vector<Task> tasks;
  for (size_t r = 0; r + 1 < rows.starts.size(); ++r) {
    for (int64_t head = 0; head < kv_heads; ++head) {
      tasks.push_back({rows.starts[r], rows.starts[r + 1] - rows.starts[r], head});
    }
  }
  std::stable_sort(tasks.begin(), tasks.end(),
                   [](const Task& a, const Task& b) { return a.tokens > b.tokens; });
  return tasks;
}

void SizeScratch(Scratch& s, const Geometry& g, int64_t longest) {
  const int64_t E = Padded(g.dim), P = Padded(longest);
  Size(s.keys_DP, g.dim * P);
  Size(s.values_DP, g.dim * P);
  Size(s.keys_TE, P * E);
  Size(s.values_TE, P * E);
  Size(s.dkeys_TE, P * E);
  Size(s.dvalues_TE, P * E);
  Size(s.queries_ME, kBlockMax * E);
  Size(s.grads_ME, kBlockMax * E);
  Size(s.out_ME, kBlockMax * E);
  Size(s.scores_MP, kBlockMax * P);
  Size(s.dscores_MP, kBlockMax * P);
}

// Threads take the next task until none is left.
template <typename Body>
void ForEachTask(const std::vector<Task>& tasks, const Geometry& g, int64_t longest,
                 const Body& body) {
  std::atomic<size_t> next{0};
  const auto drain = [&](int64_t, int64_t) {
    thread_local Scratch scratch;
    SizeScratch(scratch, g, longest);
    const FlushDenormals flush;
    for (size_t i = next++; i < tasks.size(); i = next++) body(tasks[i], scratch);
  };
  const auto threads = std::min<int64_t>(at::get_num_threads(), static_cast<int64_t>(tasks.size()));
  at::parallel_for(0, threads, 1, drain);
}

}  // namespace

at::Tensor AttentionForward(const AttentionShape& shape, const RowIndex& rows,
                            const at::Tensor& qkv_NC, at::Tensor* lse_HN) {
  const int64_t total = qkv_NC.size(0);
  const Geometry g = GeometryOf(shape, total);
  at::Tensor o_NQ = at::empty({total, g.out_stride}, qkv_NC.options());
  *lse_HN = at::empty({g.heads, total}, at::kFloat);
  float* const lse = MutableDataOf<float>(*lse_HN);
  const std::vector<Task> tasks = TasksOf(rows, g.kv_heads);
  const auto run = [&]<typename T>(T* o) {
    const T* const qkv = DataOf<T>(qkv_NC);
    ForEachTask(tasks, g, rows.longest, [&](const Task& task, Scratch& scratch) {
      ForwardTaskOf(g, task, qkv, o, lse, scratch);
    });
  };
  if (qkv_NC.scalar_type() == at::kFloat) {
    run(MutableDataOf<float>(o_NQ));
  } else {
    run(MutableDataOf<uint16_t>(o_NQ));
  }
  return o_NQ;
}

at::Tensor AttentionBackward(const AttentionShape& shape, const RowIndex& rows,
                             const at::Tensor& qkv_NC, const at::Tensor& o_NQ,
                             const at::Tensor& lse_HN, const at::Tensor& do_NQ) {
  const Geometry g = GeometryOf(shape, qkv_NC.size(0));
  at::Tensor dqkv_NC = at::empty_like(qkv_NC);
  const float* const lse = DataOf<float>(lse_HN);
  const std::vector<Task> tasks = TasksOf(rows, g.kv_heads);
  const auto run = [&]<typename T>(T* dqkv) {
    const BackwardPointers<T> at{DataOf<T>(qkv_NC), DataOf<T>(o_NQ), DataOf<T>(do_NQ), lse, dqkv};
    ForEachTask(tasks, g, rows.longest,
                [&](const Task& task, Scratch& scratch) { BackwardTaskOf(g, task, at, scratch); });
  };
  if (qkv_NC.scalar_type() == at::kFloat) {
    run(MutableDataOf<float>(dqkv_NC));
  } else {
    run(MutableDataOf<uint16_t>(dqkv_NC));
  }
  return dqkv_NC;
}

}  // namespace weft::cpu
