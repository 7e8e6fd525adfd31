// Greedy answers: what is right, what a continuation is, and that batches change nothing.

#include "common/evaluate/answers.h"

#include <gtest/gtest.h>

#include "common/model/generate.h"
#include "tests/support/small_model.h"
#include "tests/support/temp_folder.h"

namespace weft {
namespace {

class AnswersTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const testing::TempFolder folder;
    testing::WriteSmallConfig(folder.path());
    model_ = *Model::Load(folder.path(), {.init_seed = 3});
  }

  std::vector<int32_t> Generated(const std::vector<int32_t>& prompt, int64_t length) const {
    const std::vector<int64_t> ids(prompt.begin(), prompt.end());
    const std::vector<int64_t> made = *Generate(*model_, {}, ids, {.max_new_tokens = length});
    return {made.begin(), made.end()};
  }

  std::vector<bool> Right(const std::vector<TokenRow>& rows, int64_t batch) const {
    JobControl control;
    const Result<std::vector<bool>> right = AnswersAreLabels(*model_, {}, rows, batch, control);
    EXPECT_TRUE(right.ok()) << right.status();
    return *right;
  }

  const std::vector<std::vector<int32_t>> prompts_ = {{5, 9, 200}, {31}, {7, 7, 7, 8, 40, 99, 3}};
  std::shared_ptr<Model> model_;
};

TEST_F(AnswersTest, GreedyAnswersAreWhatGenerationWrites) {
  for (const int64_t batch : {1, 2, 16}) {
    JobControl control;
    const std::vector<TokenRow> rows = *GreedyAnswers(*model_, {}, prompts_, 4, batch, control);
    ASSERT_EQ(rows.size(), 3u);
    for (size_t i = 0; i < rows.size(); ++i) {
      const std::vector<int32_t> made(rows[i].ids.end() - 4, rows[i].ids.end());
      EXPECT_EQ(made, Generated(prompts_[i], 4));
      EXPECT_EQ(rows[i].num_labels(), 4);
      EXPECT_EQ(rows[i].labels.back(), rows[i].ids.back());
      EXPECT_EQ(rows[i].labels[prompts_[i].size() - 1], kNoLabel);
    }
    EXPECT_EQ(Right(rows, batch), (std::vector<bool>{true, true, true}));
  }
}

TEST_F(AnswersTest, OneWrongTokenMakesItsRowWrongAndNoOther) {
  JobControl control;
  std::vector<TokenRow> rows = *GreedyAnswers(*model_, {}, prompts_, 3, 16, control);
  const size_t first = prompts_[1].size();
  rows[1].labels[first] = rows[1].ids[first] = (rows[1].ids[first] + 1) % 512;
  rows[2].labels.back() = rows[2].ids.back() = (rows[2].ids.back() + 1) % 512;
  for (const int64_t batch : {1, 2, 3}) {
    EXPECT_EQ(Right(rows, batch), (std::vector<bool>{true, false, false}));
  }
  // Labels that do not count are not asked about.
  rows[2].labels.back() = kNoLabel;
  EXPECT_EQ(Right(rows, 3), (std::vector<bool>{true, false, true}));
}

TEST_F(AnswersTest, NoRowsAreNoAnswersAndARequestToStopIsHeard) {
  EXPECT_TRUE(Right({}, 4).empty());
  JobControl control;
  control.cancelled = true;
  EXPECT_EQ(GreedyAnswers(*model_, {}, prompts_, 2, 4, control).status().code(), Code::kCancelled);
}

}  // namespace
}  // namespace weft
