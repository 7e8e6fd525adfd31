// Fused loops over rows for the parts between the products: each reads its inputs once, keeps its
// temporaries in registers and computes in float32 whatever the storage.

#include "common/model/kernels_cpu.h"

#include <cmath>
#include <vector>

#include "common/base/check.h"
#include "common/tensor/cpu_vector.h"

namespace weft::cpu {
namespace {

// Elements one thread should have before a second one is worth waking.
constexpr int64_t kGrain = 16384;

int64_t RowGrain(int64_t columns) {
  return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, columns));
}

// ---- RMSNorm ----

template <typename T>
WEFT_INLINE float MeanSquare(const T* x, int64_t columns) {
  float sum = 0;
  for (int64_t i = 0; i < columns; ++i) {
    const float value = Load(x[i]);
    sum += value * value;
  }
  return sum / static_cast<float>(columns);
}

template <typename T>
WEFT_INLINE void ScaleRow(const T* x, const T* w, float rstd, int64_t columns, T* y) {
  for (int64_t i = 0; i < columns; ++i) Store(y[i], Load(x[i]) * rstd * Load(w[i]));
}

// dx += rstd·(dy·w − x̂·mean(dy·w·x̂)).
template <typename T>
WEFT_INLINE void NormBackwardRow(const T* x, const T* w, const T* dy, float rstd, int64_t columns,
                                 T* dx) {
  float along = 0;
  for (int64_t i = 0; i < columns; ++i) along += Load(dy[i]) * Load(w[i]) * Load(x[i]);
  const float back = along * rstd * rstd / static_cast<float>(columns);
  for (int64_t i = 0; i < columns; ++i) {
    Store(dx[i], Load(dx[i]) + rstd * (Load(dy[i]) * Load(w[i]) - Load(x[i]) * back));
  }
}

struct NormRows {
  int64_t begin, end, columns;
  float eps;
};

template <typename T>
WEFT_INLINE void NormLoop(const NormRows& rows, const T* x, const T* w, T* y, float* rstd,
                          bool known) {
  for (int64_t r = rows.begin; r < rows.end; ++r) {
    const T* const row = x + r * rows.columns;
    if (!known) rstd[r] = 1.0F / std::sqrt(MeanSquare(row, rows.columns) + rows.eps);
    ScaleRow(row, w, rstd[r], rows.columns, y + r * rows.columns);
  }
}
WEFT_MULTIVERSION void NormLoopOf(const NormRows& rows, const float* x, const float* w, float* y,
                                  float* rstd, bool known) {
  NormLoop(rows, x, w, y, rstd, known);
}
WEFT_MULTIVERSION void NormLoopOf(const NormRows& rows, const uint16_t* x, const uint16_t* w,
                                  uint16_t* y, float* rstd, bool known) {
  NormLoop(rows, x, w, y, rstd, known);
}

template <typename T>
WEFT_INLINE void NormBackwardLoop(const NormRows& rows, const T* x, const T* w, const T* dy,
                                  const float* rstd, T* dx) {
  for (int64_t r = rows.begin; r < rows.end; ++r) {
    const int64_t at = r * rows.columns;
    NormBackwardRow(x + at, w, dy + at, rstd[r], rows.columns, dx + at);
  }
}
WEFT_MULTIVERSION void NormBackwardLoopOf(const NormRows& rows, const float* x, const float* w,
                                          const float* dy, const float* rstd, float* dx) {
  NormBackwardLoop(rows, x, w, dy, rstd, dx);
}
WEFT_MULTIVERSION void NormBackwardLoopOf(const NormRows& rows, const uint16_t* x,
                                          const uint16_t* w, const uint16_t* dy, const float* rstd,
                                          uint16_t* dx) {
  NormBackwardLoop(rows, x, w, dy, rstd, dx);
}

// ---- rotation ----

struct RotateRows {
  int64_t begin, end;
  int64_t heads, half, stride;  // heads turned, D/2, features of a token
  int64_t first;
  float sign;  // −1 turns back
  const int64_t* positions;
  const float* cos;
  const float* sin;
};

template <typename T>
WEFT_INLINE void RotateLoop(const RotateRows& rows, T* data) {
  for (int64_t n = rows.begin; n < rows.end; ++n) {
    const int64_t at = (rows.positions[n] - rows.first) * rows.half;
    const float* const cos = rows.cos + at;
    const float* const sin = rows.sin + at;
    T* x = data + n * rows.stride;
    for (int64_t h = 0; h < rows.heads; ++h, x += 2 * rows.half) {
      for (int64_t i = 0; i < rows.half; ++i) {
        const float a = Load(x[i]), b = Load(x[i + rows.half]), s = sin[i] * rows.sign;
        Store(x[i], a * cos[i] - b * s);
        Store(x[i + rows.half], b * cos[i] + a * s);
      }
    }
  }
}
WEFT_MULTIVERSION void RotateLoopOf(const RotateRows& rows, float* data) { RotateLoop(rows, data); }
WEFT_MULTIVERSION void RotateLoopOf(const RotateRows& rows, uint16_t* data) {
  RotateLoop(rows, data);
}

// ---- SwiGLU ----

WEFT_INLINE Lane SwiGlu(Lane gate, Lane value) { return gate / (1.0F + Exp(-gate)) * value; }

template <typename T>
WEFT_INLINE void SwiGluLoop(int64_t begin, int64_t end, int64_t inner, const T* up, T* s) {
  for (int64_t r = begin; r < end; ++r) {
    const T* const g = up + r * 2 * inner;
    const T* const u = g + inner;
    T* const y = s + r * inner;
    int64_t i = 0;
    for (; i + kLane <= inner; i += kLane) {
      StoreLane(y + i, SwiGlu(LoadLane(g + i), LoadLane(u + i)));
    }
    const int64_t rest = inner - i;
    if (rest > 0) {
      StorePart(y + i, SwiGlu(LoadPart(g + i, rest, 0), LoadPart(u + i, rest, 0)), rest);
    }
  }
}
WEFT_MULTIVERSION void SwiGluLoopOf(int64_t begin, int64_t end, int64_t inner, const float* up,
                                    float* s) {
  SwiGluLoop(begin, end, inner, up, s);
}
WEFT_MULTIVERSION void SwiGluLoopOf(int64_t begin, int64_t end, int64_t inner, const uint16_t* up,
                                    uint16_t* s) {
  SwiGluLoop(begin, end, inner, up, s);
}

// s = g·σ·u: dg = ds·u·σ·(1 + g·(1 − σ)), du = ds·g·σ.
struct SwiGluGradient {
  Lane dgate, dvalue, s;
};
WEFT_INLINE SwiGluGradient GradientOf(Lane gate, Lane value, Lane out) {
  const Lane sigma = 1.0F / (1.0F + Exp(-gate));
  const Lane active = gate * sigma;
  return {out * value * sigma * (1.0F + gate * (1.0F - sigma)), out * active, active * value};
}

template <typename T>
WEFT_INLINE void SwiGluBackwardLoop(int64_t begin, int64_t end, int64_t inner, T* up, T* ds) {
  for (int64_t r = begin; r < end; ++r) {
    T* const g = up + r * 2 * inner;
    T* const u = g + inner;
    T* const d = ds + r * inner;
    int64_t i = 0;
    for (; i + kLane <= inner; i += kLane) {
      const SwiGluGradient back = GradientOf(LoadLane(g + i), LoadLane(u + i), LoadLane(d + i));
      StoreLane(g + i, back.dgate);
      StoreLane(u + i, back.dvalue);
      StoreLane(d + i, back.s);
    }
    const int64_t rest = inner - i;
    if (rest == 0) continue;
    const SwiGluGradient back =
        GradientOf(LoadPart(g + i, rest, 0), LoadPart(u + i, rest, 0), LoadPart(d + i, rest, 0));
    StorePart(g + i, back.dgate, rest);
    StorePart(u + i, back.dvalue, rest);
    StorePart(d + i, back.s, rest);
  }
}
WEFT_MULTIVERSION void SwiGluBackwardLoopOf(int64_t begin, int64_t end, int64_t inner, float* up,
                                            float* ds) {
  SwiGluBackwardLoop(begin, end, inner, up, ds);
}
WEFT_MULTIVERSION void SwiGluBackwardLoopOf(int64_t begin, int64_t end, int64_t inner, uint16_t* up,
                                            uint16_t* ds) {
  SwiGluBackwardLoop(begin, end, inner, up, ds);
}

// ---- cross-entropy ----

struct LossRows {
  int64_t begin, end, vocabulary;
  const int64_t* labels;
  bool with_gradient;
};

// Beyond this many the sum of a row is taken in pieces, each in float32, added in double.
constexpr int64_t kSumPiece = 4096;

template <typename T>
WEFT_INLINE float LogSumExp(const T* row, int64_t count) {
  constexpr float kLowest = -3.0e38F;
  const int64_t whole = count / kLane * kLane, rest = count - whole;
  Lane high = LoadPart(row + whole, rest, kLowest);
  for (int64_t i = 0; i < whole; i += kLane) high = Larger(LoadLane(row + i), high);
  const float largest = Largest(high);
  double sum = 0;
  for (int64_t piece = 0; piece < whole; piece += kSumPiece) {
    const int64_t end = piece + kSumPiece < whole ? piece + kSumPiece : whole;
    Lane part{};
    for (int64_t i = piece; i < end; i += kLane) part += Exp(LoadLane(row + i) - largest);
    sum += static_cast<double>(Sum(part));
  }
  if (rest > 0) {
    const Lane part = Exp(LoadPart(row + whole, rest, kLowest) - largest);
    for (int64_t i = 0; i < rest; ++i) sum += static_cast<double>(part[i]);
  }
  return largest + static_cast<float>(std::log(sum));
}

template <typename T>
WEFT_INLINE void LossLoop(const LossRows& rows, T* logits, double* losses) {
  const int64_t whole = rows.vocabulary / kLane * kLane, rest = rows.vocabulary - whole;
  for (int64_t r = rows.begin; r < rows.end; ++r) {
    T* const row = logits + r * rows.vocabulary;
    const float lse = LogSumExp(row, rows.vocabulary);
    const float at_label = Load(row[rows.labels[r]]);
    losses[r] = static_cast<double>(lse - at_label);
    if (!rows.with_gradient) continue;
    for (int64_t i = 0; i < whole; i += kLane) StoreLane(row + i, Exp(LoadLane(row + i) - lse));
    if (rest > 0) StorePart(row + whole, Exp(LoadPart(row + whole, rest, 0) - lse), rest);
    Store(row[rows.labels[r]], Exp(Spread(at_label - lse))[0] - 1.0F);
  }
}
WEFT_MULTIVERSION void LossLoopOf(const LossRows& rows, float* logits, double* losses) {
  LossLoop(rows, logits, losses);
}
WEFT_MULTIVERSION void LossLoopOf(const LossRows& rows, uint16_t* logits, double* losses) {
  LossLoop(rows, logits, losses);
}

// Calls `body` with a null pointer of the element type of x.
template <typename Body>
void ForElement(const at::Tensor& x, const Body& body) {
  if (x.scalar_type() == at::kFloat) {
    body(static_cast<float*>(nullptr));
  } else {
    body(static_cast<uint16_t*>(nullptr));
  }
}

at::Tensor NormWith(const Norm& norm, const at::Tensor& x_NE, const at::Tensor& rstd_N1,
                    bool known) {
  at::Tensor y_NE = at::empty_like(x_NE);
  const int64_t columns = x_NE.size(1);
  ForElement(x_NE, [&]<typename T>(T*) {
    const T* const x = DataOf<T>(x_NE);
    const T* const w = DataOf<T>(norm.weight_E);
    T* const y = MutableDataOf<T>(y_NE);
    float* const rstd = MutableDataOf<float>(rstd_N1);
    at::parallel_for(0, x_NE.size(0), RowGrain(columns), [&](int64_t begin, int64_t end) {
      NormLoopOf({begin, end, columns, static_cast<float>(norm.eps)}, x, w, y, rstd, known);
    });
  });
  return y_NE;
}

}  // namespace

bool Handles(const at::Tensor& x) {
  return x.is_cpu() && x.is_contiguous() &&
         (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

at::Tensor RmsNormForward(const Norm& norm, const at::Tensor& x_NE, at::Tensor* rstd_N1) {
  *rstd_N1 = at::empty({x_NE.size(0), 1}, at::kFloat);
  return NormWith(norm, x_NE, *rstd_N1, false);
}

at::Tensor RmsNormAgain(const Norm& norm, const at::Tensor& x_NE, const at::Tensor& rstd_N1) {
  return NormWith(norm, x_NE, rstd_N1, true);
}

void RmsNormBackward(const Norm& norm, const at::Tensor& x_NE, const at::Tensor& rstd_N1,
                     const at::Tensor& dy_NE, const at::Tensor& dx_NE) {
  WEFT_CHECK(dy_NE.is_contiguous() && dx_NE.is_contiguous());
  const int64_t columns = x_NE.size(1);
  ForElement(x_NE, [&]<typename T>(T*) {
    const T* const x = DataOf<T>(x_NE);
    const T* const w = DataOf<T>(norm.weight_E);
    const T* const dy = DataOf<T>(dy_NE);
    T* const dx = MutableDataOf<T>(dx_NE);
    const float* const rstd = DataOf<float>(rstd_N1);
    at::parallel_for(0, x_NE.size(0), RowGrain(columns), [&](int64_t begin, int64_t end) {
      NormBackwardLoopOf({begin, end, columns, 0}, x, w, dy, rstd, dx);
    });
  });
}

void Rotate(const RopeTable& table, const at::Tensor& positions_N, const HeadLayout& layout,
            bool inverse, const at::Tensor& qkv_NC) {
  RotateRows rows{};
  rows.heads = layout.heads + layout.kv_heads;
  rows.half = layout.head_dim / 2;
  rows.stride = layout.features();
  rows.first = table.first;
  rows.sign = inverse ? -1.0F : 1.0F;
  rows.positions = DataOf<int64_t>(positions_N);
  rows.cos = DataOf<float>(table.cos_TP);
  rows.sin = DataOf<float>(table.sin_TP);
  ForElement(qkv_NC, [&]<typename T>(T*) {
    T* const data = MutableDataOf<T>(qkv_NC);
    at::parallel_for(0, qkv_NC.size(0), RowGrain(rows.stride), [&](int64_t begin, int64_t end) {
      RotateRows own = rows;
      own.begin = begin;
      own.end = end;
      RotateLoopOf(own, data);
    });
  });
}

at::Tensor SwiGluForward(const at::Tensor& up_NG) {
  const int64_t inner = up_NG.size(1) / 2;
  at::Tensor s_NF = at::empty({up_NG.size(0), inner}, up_NG.options());
  ForElement(up_NG, [&]<typename T>(T*) {
    const T* const up = DataOf<T>(up_NG);
    T* const s = MutableDataOf<T>(s_NF);
    at::parallel_for(0, up_NG.size(0), RowGrain(inner),
                     [&](int64_t begin, int64_t end) { SwiGluLoopOf(begin, end, inner, up, s); });
  });
  return s_NF;
}

void SwiGluBackward(const at::Tensor& up_NG, const at::Tensor& ds_NF) {
  WEFT_CHECK(ds_NF.is_contiguous());
  const int64_t inner = up_NG.size(1) / 2;
  ForElement(up_NG, [&]<typename T>(T*) {
    T* const up = MutableDataOf<T>(up_NG);
    T* const ds = MutableDataOf<T>(ds_NF);
    at::parallel_for(0, up_NG.size(0), RowGrain(inner), [&](int64_t begin, int64_t end) {
      SwiGluBackwardLoopOf(begin, end, inner, up, ds);
    });
  });
}

double CrossEntropySum(const at::Tensor& logits_LV, const at::Tensor& labels_L,
                       bool with_gradient) {
  const int64_t count = logits_LV.size(0), vocabulary = logits_LV.size(1);
  const int64_t* const labels = DataOf<int64_t>(labels_L);
  for (int64_t r = 0; r < count; ++r) {
    TORCH_CHECK(labels[r] >= 0 && labels[r] < vocabulary, "label ", labels[r],
                " is outside the vocabulary of ", vocabulary);
  }
  std::vector<double> losses(static_cast<size_t>(count));
  ForElement(logits_LV, [&]<typename T>(T*) {
    T* const logits = MutableDataOf<T>(logits_LV);
    at::parallel_for(0, count, RowGrain(vocabulary), [&](int64_t begin, int64_t end) {
      LossLoopOf({begin, end, vocabulary, labels, with_gradient}, logits, losses.data());
    });
  });
  double sum = 0;
  for (double loss : losses) sum += loss;
  return sum;
}

}  // namespace weft::cpu
