// The aggregator's small things: names of files, digests, lists of what was exported, its folder.

#include "aggregator/office.h"

#include <gtest/gtest.h>

#include "aggregator/daemon.h"
#include "aggregator/node_jobs.h"
#include "aggregator/premises.h"
#include "common/crypto/digest.h"
#include "common/runtime/blob_name.h"
#include "tests/support/temp_folder.h"

namespace weft {
namespace {

using testing::TempFolder;

template <typename J>
Result<typename J::Output> RunJob(const J& job) {
  WorkTable table;
  RegisterNodeJobs(table);
  JobControl control;
  const std::any result = table.Run(std::any(job), control);
  return std::any_cast<const Result<typename J::Output>&>(result);
}

TEST(OfficeTest, NamesSortByRoundAndArePlainFileNames) {
  EXPECT_EQ(RoundName(RoundId{3}), "round-0003");
  EXPECT_EQ(RoundName(RoundId{12345}), "round-12345");
  EXPECT_LT(StateBlobName(RoundId{9}), StateBlobName(RoundId{10}));
  EXPECT_EQ(SpoolName(RoundId{3}, {"harbour"}), "spool/round-0003/harbour");
  EXPECT_TRUE(CheckBlobName(StateBlobName(RoundId{0})).ok());
  EXPECT_TRUE(CheckBlobName(SpoolName(RoundId{1}, {"site-7"})).ok());
  EXPECT_FALSE(CheckBlobName(SpoolName(RoundId{1}, {".."})).ok());
}

TEST(NodeJobsTest, BytesAreNamedByTheirDigest) {
  EXPECT_EQ(*RunJob(DigestJob{Blob::Copy("abc")}), Sha256Hex(AsBytes("abc")));
}

TEST(NodeJobsTest, FilesAreListedBelowTheirFolderSortedWithSizeAndDigest) {
  const TempFolder folder;
  folder.Write("adapters/round-0001/b.safetensors", "weights");
  folder.Write("adapters/round-0001/adapter_config.json", "{}");
  folder.Write("adapters/round-0001/deep/er.txt", "x");
  folder.Write("adapters/round-0002/other", "y");
  const auto files = RunJob(ListFilesJob{folder.path().string(), "adapters/round-0001"});
  ASSERT_TRUE(files.ok()) << files.status();
  ASSERT_EQ(files->size(), 3u);
  EXPECT_EQ((*files)[0].name, "adapters/round-0001/adapter_config.json");
  EXPECT_EQ((*files)[1].name, "adapters/round-0001/b.safetensors");
  EXPECT_EQ((*files)[1].bytes, 7u);
  EXPECT_EQ((*files)[1].sha256, Sha256Hex(AsBytes("weights")));
  EXPECT_EQ((*files)[2].name, "adapters/round-0001/deep/er.txt");
  EXPECT_EQ(RunJob(ListFilesJob{folder.path().string(), "nothing"}).status().code(),
            Code::kNotFound);
}

TEST(DaemonSettingsTest, TheRunFolderIsNamedByTheRunUnlessSaid) {
  Settings settings;
  settings.run.name = "harvest";
  EXPECT_EQ(RunFolder(settings), "runs/harvest");
  settings.run.dir = "/data/run-7";
  EXPECT_EQ(RunFolder(settings), "/data/run-7");
}

TEST(DaemonSettingsTest, ABaseIsAFolderOrItsDescription) {
  ModelSettings model;
  const Status neither = DescribeBaseOf(model).status();
  EXPECT_NE(neither.message().find("base.json"), std::string::npos) << neither;
  model.base = "/no/such/base.json";
  EXPECT_FALSE(DescribeBaseOf(model).ok());
  model.base.clear();
  model.path = "/no/such/model";
  EXPECT_FALSE(DescribeBaseOf(model).ok());
}

}  // namespace
}  // namespace weft
