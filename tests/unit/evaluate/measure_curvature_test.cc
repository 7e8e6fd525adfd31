// Curvature of real models' adapters, against gradients that autograd gives of whole losses.

#include "common/evaluate/measure_curvature.h"

#include <limits>

#include <gtest/gtest.h>

#include "common/adapters/adapter.h"
#include "common/base/str.h"
#include "common/data/batch.h"
#include "common/evaluate/posterior_classes.h"
#include "common/laplace/evidence.h"
#include "common/model/bind_dense.h"
#include "common/model/projection.h"
#include "tests/unit/model/tiny_model.h"

namespace weft {
namespace {

using testing::Random;
using testing::TinyModel;

// The model computes in float64; only its logits are handed out in float32.
constexpr double kLogitRounding = 2e-6;

const std::vector<int32_t> kAnswers = {7, 3, 20};

double Relative(const at::Tensor& got, const at::Tensor& wanted) {
  return ((got - wanted).norm() / wanted.norm()).item<double>();
}

AdapterState RandomAdapter(const Model& model, const std::vector<std::string>& targets) {
  AdapterSpec spec;
  spec.rank = 3;
  spec.alpha = 6;
  spec.dropout = 0.5;  // of training: nothing here may use it
  spec.target_modules = targets;
  const Adapter& lora = **FindAdapter("lora");
  AdapterState state = *lora.Init(spec, *MatchSites(spec, model.sites()), 3);
  uint64_t seed = 1;
  for (SiteState& site : state.sites) {
    for (NamedTensor& tensor : site.tensors) {
      tensor.value = Random(tensor.value.sizes(), seed++, 0.3);
    }
  }
  return state;
}

std::vector<TokenRow> Rows(const std::vector<int64_t>& lengths, int32_t classes) {
  RandomStream stream(4);
  std::vector<TokenRow> rows;
  for (const int64_t length : lengths) {
    TokenRow row;
    for (int64_t t = 0; t < length; ++t) row.ids.push_back(static_cast<int32_t>(stream.Below(31)));
    row.row_class = static_cast<int32_t>(rows.size()) % classes;
    rows.push_back(std::move(row));
  }
  return rows;
}

/// A model, a random adapter on it, rows; everything by autograd of whole losses.
struct Scene {
  std::shared_ptr<Model> model;
  AdapterState adapter;
  std::vector<int32_t> answers;
  AdapterBinding beside;
  int32_t classes = 0;

  [[nodiscard]] MeasuredAdapter measured() const { return {*model, adapter, beside, "hash"}; }

  /// −log p(class) of one row at given matrices, in their order.
  [[nodiscard]] at::Tensor Loss(const std::vector<at::Tensor>& matrices, const TokenRow& row,
                                int64_t row_class) const {
    AdapterState state = adapter;
    for (size_t m = 0; m < matrices.size(); ++m) {
      state.sites[m / 2].Get(m % 2 == 0 ? "A" : "B") = matrices[m];
    }
    const TokenRow* const rows[] = {&row};
    ClassBatch batch = *PackClassRows(*model, rows, answers);
    batch.packed.labels_L.fill_(row_class);
    AdapterBinding binding{*Apply(*model, state)};
    return model->LossSum(batch.packed, binding, {.answers_V = batch.answers_C});
  }

  /// ∂(−log p)/∂W of each matrix.
  [[nodiscard]] std::vector<at::Tensor> Gradients(const TokenRow& row, int64_t row_class) const {
    std::vector<at::Tensor> leaves;
    for (const at::Tensor& value : MatrixValues(adapter)) {
      leaves.push_back(value.clone().set_requires_grad(true));
    }
    Loss(leaves, row, row_class).backward();
    std::vector<at::Tensor> gradients;
    for (const at::Tensor& leaf : leaves) gradients.push_back(leaf.grad());
    return gradients;
  }
};

Scene Decoder(const std::vector<std::string>& targets = {"v_proj", "o_proj", "down_proj"}) {
  Scene scene;
  scene.model = TinyModel("llama", {.dtype = at::kDouble});
  scene.adapter = RandomAdapter(*scene.model, targets);
  scene.answers = kAnswers;
  scene.classes = 3;
  return scene;
}

Scene Encoder() {
  Scene scene;
  scene.model = TinyModel("roberta", {.dtype = at::kDouble});
  scene.adapter = RandomAdapter(*scene.model, {"query", "value", "attention.output.dense"});
  scene.classes = 5;
  return scene;
}

LaplaceStatistics Measure(const Scene& scene, std::span<const TokenRow> rows,
                          CurvatureSettings settings = {}) {
  JobControl control;
  settings.answers = scene.answers;
  Result<LaplaceStatistics> got = MeasureCurvature(scene.measured(), rows, settings, control);
  EXPECT_TRUE(got.ok()) << got.status();
  EXPECT_FLOAT_EQ(control.progress, 1);
  return std::move(got).value();
}

/// Keeps what each matrix of a single row reads, and its gradients.
class Recorder final : public MatrixObserver {
 public:
  explicit Recorder(const Scene& scene) : scene_(scene) {
    inputs.resize(2 * scene.adapter.sites.size());
    gradients.resize(inputs.size());
  }
  void OnA(size_t site, const at::Tensor& x, const at::Tensor& dz) override {
    Keep(site, 0, x, dz);
  }
  void OnB(size_t site, const at::Tensor& z, const at::Tensor& dy) override {
    Keep(site, 1, z, dy * ScalingFor(scene_.adapter.spec, scene_.model->sites()[site].path));
  }
  std::vector<at::Tensor> inputs;
  std::vector<at::Tensor> gradients;

 private:
  void Keep(size_t site, size_t which, const at::Tensor& input, const at::Tensor& gradient) {
    for (size_t i = 0; i < scene_.adapter.sites.size(); ++i) {
      if (scene_.adapter.sites[i].site.path != scene_.model->sites()[site].path) continue;
      inputs[2 * i + which] = input.clone();
      gradients[2 * i + which] = gradient.clone();
    }
  }
  const Scene& scene_;
};

Recorder Record(const Scene& scene, const TokenRow& row, int64_t row_class) {
  AdapterState leaves = scene.adapter;
  for (SiteState& site : leaves.sites) {
    for (NamedTensor& tensor : site.tensors) {
      tensor.value = tensor.value.clone().set_requires_grad(true);
    }
  }
  const TokenRow* const rows[] = {&row};
  ClassBatch batch = *PackClassRows(*scene.model, rows, scene.answers);
  batch.packed.labels_L.fill_(row_class);
  Recorder recorder(scene);
  const AdapterBinding binding{*Apply(*scene.model, leaves)};
  scene.model->LossSum(batch.packed, binding, {.answers_V = batch.answers_C, .observer = &recorder})
      .backward();
  return recorder;
}

class MeasureCurvatureTest : public ::testing::TestWithParam<bool> {
 protected:
  Scene scene_ = GetParam() ? Encoder() : Decoder();
};
INSTANTIATE_TEST_SUITE_P(Models, MeasureCurvatureTest, ::testing::Bool(),
                         [](const auto& which) { return which.param ? "encoder" : "decoder"; });

TEST_P(MeasureCurvatureTest, JacobiansAreTheGradientsOfEachRowsLogProbabilities) {
  const std::vector<TokenRow> rows = Rows({5, 1, 8}, scene_.classes);
  const Result<LogProbabilities> got =
      DifferentiateClasses(scene_.measured(), rows, scene_.answers);
  ASSERT_TRUE(got.ok()) << got.status();
  const std::vector<at::Tensor> values = MatrixValues(scene_.adapter);
  for (size_t i = 0; i < rows.size(); ++i) {
    for (int64_t c = 0; c < scene_.classes; ++c) {
      const auto row = static_cast<int64_t>(i);
      EXPECT_NEAR(got->log_p_LC[row][c].item<double>(),
                  -scene_.Loss(values, rows[i], c).item<double>(), 1e-5);
      const std::vector<at::Tensor> wanted = scene_.Gradients(rows[i], c);
      for (size_t m = 0; m < wanted.size(); ++m) {
        const at::Tensor own = got->jacobians_LCOI[m][row][c];
        EXPECT_LE((own + wanted[m]).abs().max().item<double>(), 1e-12) << i << " " << c << " " << m;
      }
    }
  }
}

// Of one row of one token the Kronecker product is no approximation.
TEST_P(MeasureCurvatureTest, OfOneTokenTheBlocksAreTheExactFisher) {
  const std::vector<TokenRow> rows = Rows({1}, scene_.classes);
  const LaplaceStatistics sums = Measure(scene_, rows);
  EXPECT_EQ(sums.examples, 1u);
  EXPECT_EQ(sums.adapter_hash, "hash");
  const std::vector<at::Tensor> values = MatrixValues(scene_.adapter);
  std::vector<at::Tensor> fisher(values.size());
  for (int64_t c = 0; c < scene_.classes; ++c) {
    const double p = std::exp(-scene_.Loss(values, rows[0], c).item<double>());
    const std::vector<at::Tensor> gradients = scene_.Gradients(rows[0], c);
    for (size_t m = 0; m < gradients.size(); ++m) {
      const at::Tensor flat = gradients[m].flatten();
      const at::Tensor own = p * at::outer(flat, flat);
      fisher[m] = fisher[m].defined() ? fisher[m] + own : own;
    }
  }
  for (size_t m = 0; m < fisher.size(); ++m) {
    const MatrixStatistics& matrix = sums.matrices[m];
    EXPECT_EQ(matrix.rows, 1u);
    const at::Tensor block = at::kron(matrix.output.Matrix(), matrix.input.Matrix());
    if (fisher[m].norm().item<double>() < 1e-12) {
      EXPECT_LE(block.norm().item<double>(), 1e-12) << matrix.name;  // attention to one token
      continue;
    }
    EXPECT_LE(Relative(block, fisher[m]), kLogitRounding) << matrix.name;
  }
  EXPECT_NEAR(sums.log_likelihood, -scene_.Loss(values, rows[0], rows[0].row_class).item<double>(),
              1e-5);
}

TEST_P(MeasureCurvatureTest, SumsAreOverAllTokensOfAllRowsWhateverTheBatches) {
  const std::vector<TokenRow> rows = Rows({4, 7, 2, 5}, scene_.classes);
  const std::vector<at::Tensor> values = MatrixValues(scene_.adapter);
  std::vector<Gram> inputs;
  std::vector<Gram> outputs;
  for (const at::Tensor& value : values) {
    inputs.push_back(Gram::Whole(value.size(1)));
    outputs.push_back(Gram::Whole(value.size(0)));
  }
  for (const TokenRow& row : rows) {
    for (int64_t c = 0; c < scene_.classes; ++c) {
      const double p = std::exp(-scene_.Loss(values, row, c).item<double>());
      const Recorder recorder = Record(scene_, row, c);
      const std::vector<at::Tensor> gradients = scene_.Gradients(row, c);
      for (size_t m = 0; m < values.size(); ++m) {
        // What was seen is what the gradient is made of.
        EXPECT_LE((at::mm(recorder.gradients[m].t(), recorder.inputs[m]) - gradients[m])
                      .abs()
                      .max()
                      .item<double>(),
                  1e-12);
        if (c == 0) inputs[m].Add(recorder.inputs[m]);
        outputs[m].Add(recorder.gradients[m] * std::sqrt(p));
      }
    }
  }
  for (const int64_t batch_rows : {1, 3, 100}) {
    const LaplaceStatistics sums = Measure(scene_, rows, {.batch_rows = batch_rows});
    EXPECT_EQ(sums.examples, 4u);
    for (size_t m = 0; m < values.size(); ++m) {
      const MatrixStatistics& matrix = sums.matrices[m];
      EXPECT_EQ(matrix.rows, 18u);
      EXPECT_LE(Relative(matrix.input.Matrix(), inputs[m].Matrix()), 1e-12) << matrix.name;
      EXPECT_LE(Relative(matrix.output.Matrix(), outputs[m].Matrix()), kLogitRounding)
          << matrix.name;
    }
  }
}

TEST_P(MeasureCurvatureTest, ClientsOfDisjointRowsAddUpToAllOfThem) {
  const std::vector<TokenRow> rows = Rows({4, 7, 2, 5, 3}, scene_.classes);
  // The first client has rows of one class alone. Drawn labels of a row are the same on any client.
  for (const int64_t exact_classes_max : {8, 2}) {
    const CurvatureSettings settings{.exact_classes_max = exact_classes_max, .seed = 5};
    const LaplaceStatistics all = Measure(scene_, rows, settings);
    const LaplaceStatistics one = Measure(scene_, std::span(rows).first(1), settings);
    const LaplaceStatistics two = Measure(scene_, std::span(rows).subspan(1), settings);
    const LaplaceStatistics sum =
        *MergeStatistics(std::vector<ClientStatistics>{{"one", &one}, {"two", &two}});
    EXPECT_EQ(sum.examples, all.examples);
    EXPECT_NEAR(sum.log_likelihood, all.log_likelihood, 1e-5);
    for (size_t m = 0; m < all.matrices.size(); ++m) {
      EXPECT_LE(Relative(sum.matrices[m].input.Matrix(), all.matrices[m].input.Matrix()), 1e-12);
      EXPECT_LE(Relative(sum.matrices[m].output.Matrix(), all.matrices[m].output.Matrix()),
                kLogitRounding);
    }
  }
}

TEST_P(MeasureCurvatureTest, DrawnLabelsGiveTheExactFisherOnAverage) {
  const std::vector<TokenRow> rows = Rows({3, 4}, scene_.classes);
  const LaplaceStatistics exact = Measure(scene_, rows);
  const LaplaceStatistics once =
      Measure(scene_, rows, {.batch_rows = 1, .exact_classes_max = 2, .seed = 1});
  const LaplaceStatistics again =
      Measure(scene_, rows, {.batch_rows = 2, .exact_classes_max = 2, .seed = 1});
  EXPECT_LE(Relative(again.matrices[1].output.Matrix(), once.matrices[1].output.Matrix()), 1e-12);
  EXPECT_LE(Relative(once.matrices[1].input.Matrix(), exact.matrices[1].input.Matrix()), 1e-12);
  at::Tensor sum = at::zeros_like(exact.matrices[1].output.Matrix());
  constexpr uint64_t kDraws = 60;
  for (uint64_t seed = 0; seed < kDraws; ++seed) {
    sum +=
        Measure(scene_, rows, {.exact_classes_max = 2, .seed = seed}).matrices[1].output.Matrix();
  }
  // The relative deviation of one draw is about 1, of their mean 1/√60 = 0.13.
  EXPECT_LE(Relative(sum / static_cast<double>(kDraws), exact.matrices[1].output.Matrix()), 0.4);
}

TEST_P(MeasureCurvatureTest, AveragesAreLessSureThanTheAdapterAndMeetItWhereThePriorIsSharp) {
  const std::vector<TokenRow> rows = Rows({4, 7, 2, 5, 3}, scene_.classes);
  const LaplaceStatistics sums = Measure(scene_, rows);
  const LaplacePosterior posterior =
      *MakePosterior(sums, MatrixValues(scene_.adapter), Normalization::kTokenRows);
  const PriorFit fit = *FitPrior(posterior, PriorSharing::kOne);
  JobControl control;
  PosteriorSettings settings{.answers = scene_.answers, .batch_rows = 2, .draws = {}};
  settings.draws.samples = 2000;
  const auto evaluate = [&](double precision) {
    return *EvaluatePosterior(scene_.measured(), posterior, std::vector<double>{precision}, rows,
                              settings, control);
  };
  const PosteriorClasses fitted = evaluate(fit.precisions.front());
  EXPECT_LE((fitted.average_LC.sum(1) - 1).abs().max().item<double>(), 1e-12);
  EXPECT_LT(std::get<0>(fitted.average_LC.max(1)).mean().item<double>(),
            std::get<0>(fitted.map_LC.max(1)).mean().item<double>());
  EXPECT_EQ(fitted.map.examples, rows.size());
  // Of the mean of 2,000 draws of logits 1e-3 apart (the jitter) nothing is left to see.
  const PosteriorClasses sharp = evaluate(1e12);
  EXPECT_LE((sharp.average_LC - sharp.map_LC).abs().max().item<double>(), 1e-4);
  settings.batch_rows = 5;
  const at::Tensor together = evaluate(1).average_LC;
  settings.batch_rows = 1;
  EXPECT_LE((together - evaluate(1).average_LC).abs().max().item<double>(), 1e-6);
  // By validation: the best of what is offered, at the same draws.
  const std::vector<double> candidates = {1e-6, 1, 100, 1e12};
  double least = std::numeric_limits<double>::infinity();
  double best = 0;
  for (const double candidate : candidates) {
    const double nll = evaluate(candidate).average.nll;
    if (nll < least) best = candidate;
    least = std::min(least, nll);
  }
  EXPECT_EQ(*ChoosePrecision(scene_.measured(), posterior, candidates, rows, settings, control),
            best);
  EXPECT_FALSE(ChoosePrecision(scene_.measured(), posterior, {}, rows, settings, control).ok());
  LaplacePosterior other = posterior;
  other.adapter_hash = "other";
  EXPECT_EQ(
      EvaluatePosterior(scene_.measured(), other, std::vector<double>{1}, rows, settings, control)
          .status()
          .code(),
      Code::kFailedPrecondition);
}

TEST(MeasureCurvatureRefusalTest, AnswersAreTheWholeSoftmaxOfALoss) {
  const Scene scene = Decoder();
  const std::vector<TokenRow> rows = Rows({6}, 3);
  const TokenRow* const pointers[] = {&rows[0]};
  const ClassBatch batch = *PackClassRows(*scene.model, pointers, kAnswers);
  const AdapterBinding binding{*Apply(*scene.model, scene.adapter)};
  const at::Tensor logits = scene.model->Logits(batch.packed, binding)[0];
  const at::Tensor chosen = logits.index_select(0, at::tensor({7, 3, 20}, at::kLong));
  const at::Tensor wanted = -at::log_softmax(chosen, 0);
  for (int64_t c = 0; c < 3; ++c) {
    EXPECT_NEAR(scene.Loss(MatrixValues(scene.adapter), rows[0], c).item<double>(),
                wanted[c].item<double>(), 1e-5);
  }
}

TEST(MeasureCurvatureRefusalTest, RowsWithoutAClassAndOddAnswersAreRefused) {
  const Scene scene = Decoder();
  JobControl control;
  const std::vector<TokenRow> good = Rows({3, 4}, 3);
  const auto refusal = [&](const std::vector<TokenRow>& rows, const std::vector<int32_t>& answers) {
    CurvatureSettings settings;
    settings.answers = answers;
    const Result<LaplaceStatistics> got =
        MeasureCurvature(scene.measured(), rows, settings, control);
    EXPECT_EQ(got.status().code(), Code::kInvalidArgument) << got.status();
    return got.status().message();
  };
  const auto expect = [](const std::string& message, const std::string& part) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  expect(refusal({}, kAnswers), "0 rows");
  expect(refusal(good, {}), "two or more");
  expect(refusal(good, {7, 7, 3}), "2 of them different");
  expect(refusal(good, {7, 31}), "vocabulary of 31");
  std::vector<TokenRow> odd = good;
  odd[1].row_class = 3;
  expect(refusal(odd, kAnswers), "row 1 of a batch");
  odd = good;
  odd[0].row_class = kNoLabel;
  expect(refusal(odd, kAnswers), "row 0 of a batch");
  const Scene encoder = Encoder();
  std::vector<TokenRow> beyond = good;
  beyond[0].row_class = 5;
  const Result<LaplaceStatistics> got = MeasureCurvature(encoder.measured(), beyond, {}, control);
  expect(got.status().message(), "class 5, the head tells 5");
}

TEST(MeasureCurvatureRefusalTest, OtherMethodsAndStoppedWorkAreRefused) {
  Scene scene = Decoder();
  const std::vector<TokenRow> rows = Rows({3, 4}, 3);
  CurvatureSettings settings;
  settings.answers = kAnswers;
  JobControl control;
  control.cancelled = true;
  EXPECT_EQ(MeasureCurvature(scene.measured(), rows, settings, control).status().code(),
            Code::kCancelled);
  control.cancelled = false;
  scene.adapter.spec.method = "nola";
  EXPECT_EQ(MeasureCurvature(scene.measured(), rows, settings, control).status().code(),
            Code::kInvalidArgument);
}

}  // namespace
}  // namespace weft
