// The calls that files are made durable with: every failure is a Status that names path and action,
// and none leaves half of anything behind.

#include "common/runtime/durable_file.h"

#include <cerrno>
#include <filesystem>
#include <fstream>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "common/base/str.h"
#include "common/runtime/blob_name.h"
#include "common/runtime/run_lock.h"
#include "tests/support/temp_folder.h"

namespace weft {
namespace {

namespace fs = std::filesystem;
using testing::TempFolder;

size_t FilesIn(const fs::path& folder) {
  return static_cast<size_t>(std::distance(fs::recursive_directory_iterator(folder), {}));
}

TEST(ErrnoStatusTest, TheSystemsErrorsHaveTheCodesThatCallersBranchOn) {
  const std::pair<int, Code> codes[] = {
      {ENOSPC, Code::kResourceExhausted}, {EDQUOT, Code::kResourceExhausted},
      {EFBIG, Code::kResourceExhausted},  {EMFILE, Code::kResourceExhausted},
      {ENFILE, Code::kResourceExhausted}, {ENOMEM, Code::kResourceExhausted},
      {ENOENT, Code::kNotFound},          {ENOTDIR, Code::kNotFound},
      {EACCES, Code::kPermissionDenied},  {EPERM, Code::kPermissionDenied},
      {EROFS, Code::kPermissionDenied},   {EIO, Code::kInternal},
      {EINVAL, Code::kInternal}};
  for (const auto& [error, code] : codes) {
    const Status status = ErrnoStatus("/run/folder/x", "write", error);
    EXPECT_EQ(status.code(), code) << error;
    EXPECT_NE(status.message().find("[store] /run/folder/x: write: "), std::string::npos) << status;
  }
  EXPECT_NE(ErrnoStatus("x", "write", ENOSPC).message().find("free space"), std::string::npos)
      << "a full disk says what to do";
  EXPECT_EQ(ErrnoStatus("x", "open", EMFILE).message().find("free space"), std::string::npos)
      << "too many open files is no matter of space";
}

TEST(FileHandleTest, MovingHandsTheDescriptorOnAndItIsClosedOnce) {
  const TempFolder folder;
  const fs::path path = folder.Write("f", "text");
  int fd = -1;
  {
    FileHandle first = OpenFile(path, O_RDONLY).value();
    fd = first.fd();
    EXPECT_TRUE(first.open());
    const FileHandle second(std::move(first));
    EXPECT_FALSE(first.open());  // NOLINT(bugprone-use-after-move): the contract under test
    EXPECT_EQ(second.fd(), fd);
    EXPECT_NE(::fcntl(fd, F_GETFD), -1) << "still open";
    EXPECT_NE(::fcntl(fd, F_GETFD) & FD_CLOEXEC, 0) << "no child process inherits it";
  }
  EXPECT_EQ(::fcntl(fd, F_GETFD), -1) << "closed";
  EXPECT_FALSE(FileHandle().open());
}

TEST(WriteAtTest, WritesWhereItIsToldAndLeavesTheRest) {
  const TempFolder folder;
  const fs::path path = folder.Write("f", "0123456789");
  const FileHandle file = OpenFile(path, O_RDWR).value();
  ASSERT_TRUE(WriteAt(file, path, 3, AsBytes("abc")).ok());
  ASSERT_TRUE(WriteAt(file, path, 12, AsBytes("z")).ok());
  ASSERT_TRUE(WriteAt(file, path, 0, {}).ok());
  EXPECT_EQ(folder.Read("f"), std::string("012abc6789\0\0z", 13));
  ASSERT_TRUE(SyncFile(file, path).ok());
  const FileHandle read_only = OpenFile(path, O_RDONLY).value();
  const Status status = WriteAt(read_only, path, 0, AsBytes("x"));
  EXPECT_NE(status.message().find(path.string() + ": write"), std::string::npos) << status;
}

TEST(ReplaceFileTest, HoldsTheNewContentOrTheOldAndNoTemporaryFile) {
  const TempFolder folder;
  const fs::path path = folder.Write("f", "old");
  ASSERT_TRUE(ReplaceFile(path, folder.path() / "f.tmp", AsBytes("new")).ok());
  EXPECT_EQ(folder.Read("f"), "new");
  EXPECT_EQ(FilesIn(folder.path()), 1u);
  // The rename fails: a folder that is not empty stands in its place.
  folder.Write("taken/inside", "x");
  const Status status = ReplaceFile(folder.path() / "taken", folder.path() / "t.tmp", AsBytes("y"));
  EXPECT_FALSE(status.ok());
  EXPECT_NE(status.message().find("rename to taken"), std::string::npos) << status;
  EXPECT_FALSE(fs::exists(folder.path() / "t.tmp"));
  EXPECT_EQ(folder.Read("taken/inside"), "x");
  EXPECT_EQ(ReplaceFile(folder.path() / "no/f", folder.path() / "no/t", AsBytes("y")).code(),
            Code::kNotFound);
}

TEST(ReplaceFileTest, AMappingOfTheOldFileKeepsTheOldBytes) {
  const TempFolder folder;
  const fs::path path = folder.Write("f", "old content");
  const Blob before = *MapFile(path);
  ASSERT_TRUE(ReplaceFile(path, folder.path() / "t", AsBytes("new")).ok());
  EXPECT_EQ(before.view(), "old content");
  EXPECT_EQ(MapFile(path)->view(), "new");
  ASSERT_TRUE(RemoveFile(path).ok());
  EXPECT_EQ(before.view(), "old content");
}

TEST(MapFileTest, EmptyFilesFoldersAndNothing) {
  const TempFolder folder;
  EXPECT_EQ(MapFile(folder.Write("empty", ""))->size(), 0u);
  EXPECT_EQ(MapFile(folder.path()).status().code(), Code::kNotFound);
  EXPECT_EQ(MapFile(folder.path() / "none").status().code(), Code::kNotFound);
  EXPECT_EQ(MapFile(folder.path() / "empty" / "below").status().code(), Code::kNotFound)
      << "a path through a file leads nowhere";
}

TEST(MakeFoldersTest, MakesWhatIsMissingAndStopsAtFiles) {
  const TempFolder folder;
  const fs::path deep = folder.path() / "a" / "b" / "c";
  ASSERT_TRUE(MakeFolders(deep).ok());
  ASSERT_TRUE(MakeFolders(deep).ok()) << "again is fine";
  EXPECT_TRUE(fs::is_directory(deep));
  EXPECT_TRUE(MakeFolders("").ok());
  folder.Write("file", "x");
  for (const char* below : {"file", "file/x", "file/x/y"}) {
    const Status status = MakeFolders(folder.path() / below);
    EXPECT_FALSE(status.ok()) << below;
    EXPECT_NE(status.message().find("file"), std::string::npos) << status;
  }
}

TEST(RemoveFileTest, AbsentIsFineAndAFolderIsNot) {
  const TempFolder folder;
  EXPECT_TRUE(RemoveFile(folder.path() / "none").ok());
  EXPECT_TRUE(RemoveFile(folder.Write("f", "x") / "below").ok());
  EXPECT_TRUE(fs::exists(folder.path() / "f"));
  EXPECT_TRUE(RemoveFile(folder.path() / "f").ok());
  EXPECT_FALSE(fs::exists(folder.path() / "f"));
  EXPECT_FALSE(RemoveFile(folder.path()).ok());
}

TEST(SyncFolderTest, AFolderCanBeSyncedAndAFileCannot) {
  const TempFolder folder;
  EXPECT_TRUE(SyncFolder(folder.path()).ok());
  EXPECT_FALSE(SyncFolder(folder.Write("f", "x")).ok());
  EXPECT_EQ(SyncFolder(folder.path() / "none").code(), Code::kNotFound);
}

// ---- names and locks ----

TEST(BlobNameTest, WhatIsAllowedStaysBelowTheFolder) {
  const fs::path folder = "/run/folder";
  for (const char* name : {"a", "a/b", "spool/round-0001/harbour", "..a", "a..", "a/..b", ".hidden",
                           "run/db", "locks", "ä/日"}) {
    ASSERT_TRUE(CheckBlobName(name).ok()) << name << CheckBlobName(name);
    const std::string path = (folder / name).lexically_normal().string();
    EXPECT_TRUE(path.starts_with("/run/folder/")) << path;
  }
}

TEST(BlobNameTest, WhatIsRefusedSaysWhy) {
  const std::pair<std::string, const char*> names[] = {
      {"", "empty"},
      {"/a", "a component is empty"},
      {"a//b", "a component is empty"},
      {"a/", "a component is empty"},
      {"./a", "a component is . or .."},
      {"a/../b", "a component is . or .."},
      {"a\nb", "control character"},
      {"a\x7F", "control character"},
      {"a\\b", "backslash"},
      {"a.part", "ends in .part or .weft-tmp"},
      {"a.part/b", "ends in .part or .weft-tmp"},
      {"a.weft-tmp", "ends in .part or .weft-tmp"},
      {"run.db", "a file of the run folder itself"},
      {"run.db-shm/x", "a file of the run folder itself"},
      {"lock", "a file of the run folder itself"},
      {"stop-request", "a file of the run folder itself"},
      {std::string(kBlobPartBytesMax + 1, 'p'), "a component has 241 bytes, at most 240"},
      {std::string(kBlobNameBytesMax + 1, 'n'), "1025 bytes, at most 1024"}};
  for (const auto& [name, why] : names) {
    const Status status = CheckBlobName(name);
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << name;
    EXPECT_NE(status.message().find(why), std::string::npos) << status;
  }
  EXPECT_TRUE(CheckBlobName(std::string(kBlobPartBytesMax, 'p')).ok());
  EXPECT_TRUE(CheckBlobName("state/lock").ok()) << "only at the top";
  std::string longest = std::string(kBlobPartBytesMax, 'a');
  while (longest.size() + 2 <= kBlobNameBytesMax) longest += "/b";
  EXPECT_TRUE(CheckBlobName(longest).ok());
}

TEST(RunLockTest, OneHoldsItOthersSeeWhoAndItGoesWithItsOwner) {
  const TempFolder folder;
  EXPECT_EQ(RunLockOwner(folder.path()), std::nullopt) << "no lock file yet";
  {
    const Result<RunLock> first = RunLock::Acquire(folder.path());
    ASSERT_TRUE(first.ok()) << first.status();
    EXPECT_EQ(RunLockOwner(folder.path()), int64_t{::getpid()});
    const Status second = RunLock::Acquire(folder.path()).status();
    EXPECT_EQ(second.code(), Code::kAlreadyExists);
    EXPECT_NE(second.message().find(Str("in use by process ", ::getpid())), std::string::npos)
        << second;
    EXPECT_NE(second.message().find("run.dir"), std::string::npos) << "and what to do";
  }
  EXPECT_EQ(RunLockOwner(folder.path()), std::nullopt);
  EXPECT_TRUE(RunLock::Acquire(folder.path()).ok()) << "an old file is no lock";
}

TEST(RunLockTest, AFileWithNonsenseInItIsTakenOverAndAMissingFolderIsNamed) {
  const TempFolder folder;
  folder.Write(kLockFile, "not a number and far too long for one ..................");
  const Result<RunLock> lock = RunLock::Acquire(folder.path());
  ASSERT_TRUE(lock.ok());
  EXPECT_EQ(folder.Read(kLockFile), Str(::getpid(), "\n"));
  EXPECT_EQ(RunLock::Acquire(folder.path() / "none").status().code(), Code::kNotFound);
}

}  // namespace
}  // namespace weft
