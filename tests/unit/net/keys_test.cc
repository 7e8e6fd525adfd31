#include "common/net/keys.h"

#include <fstream>

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "common/base/limits.h"
#include "common/base/str.h"
#include "tests/support/temp_folder.h"

namespace weft {
namespace {

using weft::testing::TempFolder;

// RFC 26's example key pair.
constexpr const char* kPublic = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID";
constexpr const char* kSecret = "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs";

mode_t ModeOf(const std::filesystem::path& file) {
  struct stat info {};
  EXPECT_EQ(stat(file.c_str(), &info), 0);
  return info.st_mode & 07777;
}

std::string Key() { return NewKeyPair().value().public_key; }

TEST(KeysTest, ANewPairIsWrittenAndReadBack) {
  const TempFolder folder;
  const KeyPair pair = NewKeyPair().value();
  EXPECT_TRUE(IsKeyText(pair.public_key));
  ASSERT_TRUE(WriteKeyPair(pair, folder.path() / "sub" / "alpha").ok());
  EXPECT_EQ(ModeOf(folder.path() / "sub" / "alpha.secret"), 0600u);
  const auto back = LoadSecretKey(folder.path() / "sub" / "alpha.secret");
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->public_key, pair.public_key);
  EXPECT_EQ(back->secret_key.view(), pair.secret_key.view());
  EXPECT_EQ(*LoadPublicKey((folder.path() / "sub" / "alpha.public").string()), pair.public_key);
  EXPECT_EQ(*LoadPublicKey(pair.public_key), pair.public_key);
}

TEST(KeysTest, TwoPairsDiffer) { EXPECT_NE(Key(), Key()); }

TEST(KeysTest, ThePublicKeyIsComputedFromTheSecretOne) {
  const TempFolder folder;
  const auto file = folder.Write("a.secret", Str("  ", kSecret, "\n"));
  ASSERT_EQ(chmod(file.c_str(), 0600), 0);
  const auto pair = LoadSecretKey(file);
  ASSERT_TRUE(pair.ok()) << pair.status();
  EXPECT_EQ(pair->public_key, kPublic);
}

TEST(KeysTest, KeysAreNeverOverwritten) {
  const TempFolder folder;
  const KeyPair pair = NewKeyPair().value();
  ASSERT_TRUE(WriteKeyPair(pair, folder.path() / "a").ok());
  EXPECT_EQ(WriteKeyPair(NewKeyPair().value(), folder.path() / "a").code(), Code::kAlreadyExists);
  std::filesystem::remove(folder.path() / "a.public");
  EXPECT_EQ(WriteKeyPair(NewKeyPair().value(), folder.path() / "a").code(), Code::kAlreadyExists);
  EXPECT_EQ(LoadSecretKey(folder.path() / "a.secret")->public_key, pair.public_key);
}

TEST(KeysTest, ASecretThatOthersCanReadIsRefusedWithTheFix) {
  const TempFolder folder;
  const auto file = folder.Write("a.secret", kSecret);
  for (const mode_t mode : {0640u, 0604u, 0660u, 0644u}) {
    ASSERT_EQ(chmod(file.c_str(), mode), 0);
    const Status status = LoadSecretKey(file).status();
    EXPECT_EQ(status.code(), Code::kPermissionDenied);
    EXPECT_NE(status.message().find("chmod 600 " + file.string()), std::string::npos) << status;
  }
}

TEST(KeysTest, MissingAndMalformedKeysSayWhatWasWanted) {
  const TempFolder folder;
  const Status missing = LoadSecretKey(folder.path() / "none.secret").status();
  EXPECT_EQ(missing.code(), Code::kNotFound);
  EXPECT_NE(missing.message().find("weft keys new --out"), std::string::npos);
  for (const std::string text : {"", "short", "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hI~~"}) {
    const auto file = folder.Write("bad.secret", text);
    ASSERT_EQ(chmod(file.c_str(), 0600), 0);
    EXPECT_EQ(LoadSecretKey(file).status().code(), Code::kInvalidArgument) << text;
    EXPECT_FALSE(LoadPublicKey(file.string()).ok());
  }
  EXPECT_EQ(LoadPublicKey("no such file").status().code(), Code::kInvalidArgument);
  EXPECT_FALSE(IsKeyText(std::string(40, ' ')));
}

TEST(AllowListTest, LinesCommentsAndBlanksAreRead) {
  const std::string a = Key();
  const auto list =
      AllowList::Parse(Str("# sites\n\n", a, "  alpha \r\n", kPublic, "\tbeta\n"), "f");
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_EQ(list->entries().size(), 2u);
  EXPECT_EQ(list->NameOf(a), ClientId{"alpha"});
  EXPECT_EQ(list->KeyOf(ClientId{"beta"}), kPublic);
  EXPECT_EQ(list->NameOf(Key()), std::nullopt);
}

TEST(AllowListTest, NoKeyBeginsLikeAComment) {
  EXPECT_FALSE(IsKeyText("#" + std::string(kPublic).substr(1)));
  EXPECT_FALSE(IsKeyText("#0000" + std::string(kPublic).substr(5)));
  EXPECT_EQ(AllowList::Parse(Str("#", kPublic, " alpha\n"), "f")->entries().size(), 0u);
}

TEST(AllowListTest, TwoKeysOfOneNameAndOneKeyTwiceAreRefusedByLine) {
  const std::string a = Key(), b = Key();
  const Status two_keys = AllowList::Parse(Str(a, " alpha\n", b, " alpha\n"), "f").status();
  EXPECT_EQ(two_keys.code(), Code::kAlreadyExists);
  EXPECT_NE(two_keys.message().find("f:2: site alpha has a key"), std::string::npos) << two_keys;
  const Status two_names = AllowList::Parse(Str(a, " alpha\n", a, " beta\n"), "f").status();
  EXPECT_EQ(two_names.code(), Code::kAlreadyExists);
  EXPECT_NE(two_names.message().find("f:2: this key is already site alpha's"), std::string::npos);
}

TEST(AllowListTest, MalformedLinesAreNamed) {
  const std::string a = Key();
  for (const std::string& line :
       {std::string("nonsense alpha"), a, a + " al pha", a + " ../x", a + " aggregator", a + " -x",
        a + " " + std::string(limits::kPlainNameBytesMax + 1, 'x')}) {
    const Status status = AllowList::Parse("# one\n" + line + "\n", "f").status();
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << line;
    EXPECT_NE(status.message().find("f:2"), std::string::npos) << status;
  }
}

TEST(AllowListTest, AllowAndRevokeKeepCommentsAndOtherSites) {
  const TempFolder folder;
  const auto file = folder.Write("allow", Str("# our sites\n", kPublic, " beta"));
  const std::string a = Key();
  ASSERT_TRUE(AllowKey(file, a, ClientId{"alpha"}).ok());
  EXPECT_EQ(folder.Read("allow"), Str("# our sites\n", kPublic, " beta\n", a, " alpha\n"));
  EXPECT_TRUE(AllowKey(file, a, ClientId{"alpha"}).ok()) << "the same again is fine";
  EXPECT_EQ(AllowKey(file, Key(), ClientId{"alpha"}).code(), Code::kAlreadyExists);
  EXPECT_EQ(AllowKey(file, a, ClientId{"gamma"}).code(), Code::kAlreadyExists);
  EXPECT_EQ(AllowKey(file, "x", ClientId{"gamma"}).code(), Code::kInvalidArgument);
  ASSERT_TRUE(RevokeKey(file, "beta").ok());
  EXPECT_EQ(folder.Read("allow"), Str("# our sites\n", a, " alpha\n"));
  ASSERT_TRUE(RevokeKey(file, a).ok()) << "by key as well";
  EXPECT_EQ(RevokeKey(file, "alpha").code(), Code::kNotFound);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1)
      << "no temporary file is left";
}

TEST(AllowListTest, AFileThatDoesNotExistIsMadeByAllowAndMissedByLoad) {
  const TempFolder folder;
  EXPECT_EQ(AllowList::Load(folder.path() / "allow").status().code(), Code::kNotFound);
  EXPECT_EQ(RevokeKey(folder.path() / "allow", "a").code(), Code::kNotFound);
  ASSERT_TRUE(AllowKey(folder.path() / "allow", Key(), ClientId{"alpha"}).ok());
  EXPECT_EQ(AllowList::Load(folder.path() / "allow")->entries().size(), 1u);
}

}  // namespace
}  // namespace weft
