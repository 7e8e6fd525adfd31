#include "common/formats/file_io.h"

#include <csignal>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "tests/support/temp_folder.h"

namespace weft {
namespace {

using ::testing::HasSubstr;
using testing::TempFolder;

size_t FilesIn(const std::filesystem::path& folder) {
  size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    (void)entry;
    ++count;
  }
  return count;
}

TEST(FileIoTest, AFileIsReplacedWholeAndLeavesNoTemporaryBehind) {
  const TempFolder folder;
  const auto path = folder.Write("x.txt", "old content that is longer");
  const std::vector<ByteSpan> parts = {AsBytes("new "), {}, AsBytes("text")};
  ASSERT_EQ(WriteFileAtomically(path, parts), OkStatus());
  EXPECT_EQ(folder.Read("x.txt"), "new text");
  EXPECT_EQ(FilesIn(folder.path()), 1u);
}

TEST(FileIoTest, AFailedWriteNamesTheFileAndKeepsTheOldOne) {
  const TempFolder folder;
  const auto nowhere = WriteFileAtomically(folder.path() / "no" / "x.txt", "text");
  EXPECT_EQ(nowhere.code(), Code::kNotFound);
  EXPECT_THAT(nowhere.message(), HasSubstr("no/x.txt"));
  std::filesystem::create_directory(folder.path() / "taken");
  folder.Write("taken/inside", "kept");
  EXPECT_FALSE(WriteFileAtomically(folder.path() / "taken", "text").ok());
  EXPECT_EQ(folder.Read("taken/inside"), "kept");
  EXPECT_EQ(FilesIn(folder.path()), 1u);
}

TEST(FileIoTest, ReadingHasALimitAndSaysSo) {
  const TempFolder folder;
  const auto path = folder.Write("x.txt", "0123456789");
  EXPECT_EQ(ReadFile(path, 10).value(), "0123456789");
  const auto over = ReadFile(path, 9);
  EXPECT_EQ(over.status().code(), Code::kResourceExhausted);
  EXPECT_THAT(over.status().message(), HasSubstr("x.txt: got 10 bytes, wanted at most 9"));
}

// A limit on the size of files stands for a full disk: both fail in the middle of a write.
TEST(FileIoTest, AWriteThatRunsOutOfSpaceKeepsTheOldFileAndSaysSo) {
  const TempFolder folder;
  const auto path = folder.Write("x.txt", "old");
  struct rlimit before {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const struct rlimit small { 4096, before.rlim_max };
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const Status status = WriteFileAtomically(path, std::string(100000, 'x'));
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(status.code(), Code::kResourceExhausted) << status;
  EXPECT_THAT(status.message(), HasSubstr("x.txt: cannot be written"));
  EXPECT_EQ(folder.Read("x.txt"), "old");
  EXPECT_EQ(FilesIn(folder.path()), 1u);
}

TEST(FileIoTest, FoldersPipesAndMissingFilesAreRefused) {
  const TempFolder folder;
  EXPECT_EQ(ReadFile(folder.path() / "no.txt", 10).status().code(), Code::kNotFound);
  EXPECT_THAT(ReadFile(folder.path(), 10).status().message(), HasSubstr("got a folder"));
  const auto pipe = folder.path() / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THAT(ReadFile(pipe, 10).status().message(), HasSubstr("got a device or pipe"));
  EXPECT_THAT(MappedFile::Open(pipe).status().message(), HasSubstr("wanted a regular file"));
  EXPECT_EQ(MappedFile::Open(folder.path() / "no.txt").status().code(), Code::kNotFound);
}

TEST(FileIoTest, AMappingOutlivesItsFileAndIsSharedByBlobs) {
  const TempFolder folder;
  const auto path = folder.Write("x.bin", "mapped bytes");
  auto mapped = MappedFile::Open(path);
  ASSERT_TRUE(mapped.ok()) << mapped.status();
  const Blob blob = MappedFile::AsBlob(std::move(mapped).value());
  std::filesystem::remove(path);
  EXPECT_EQ(blob.Slice(7, 5).view(), "bytes");
  const auto empty = MappedFile::Open(folder.Write("empty.bin", ""));
  ASSERT_TRUE(empty.ok());
  EXPECT_TRUE(empty.value()->span().empty());
}

}  // namespace
}  // namespace weft
