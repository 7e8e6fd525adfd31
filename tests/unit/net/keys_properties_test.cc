// Keys, names and allow-lists beyond their usual forms: what is accepted can be used, what cannot
// be used is refused, and any order of allowing and revoking leaves what a map would hold.

#include <filesystem>
#include <map>

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "common/base/limits.h"
#include "common/base/random.h"
#include "common/base/str.h"
#include "common/net/keys.h"
#include "tests/support/temp_folder.h"

namespace weft {
namespace {

using weft::testing::TempFolder;

constexpr std::string_view kZ85 =
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

std::string NewKey() { return NewKeyPair().value().public_key; }

TEST(KeyTextTest, OnlyFortyCharactersOfTheAlphabetAreAKey) {
  const std::string key = NewKey();
  ASSERT_TRUE(IsKeyText(key));
  EXPECT_EQ(key.find_first_not_of(kZ85), std::string::npos);
  EXPECT_FALSE(IsKeyText(key.substr(0, 39)));
  EXPECT_FALSE(IsKeyText(key + "0"));
  EXPECT_FALSE(IsKeyText(""));
  for (size_t at = 0; at < key.size(); at += 3) {
    for (const char odd : {' ', '"', '\'', ',', ';', '\\', '`', '|', '~', '_', '\n', '\x80'}) {
      std::string other = key;
      other[at] = odd;
      EXPECT_FALSE(IsKeyText(other)) << at << " " << static_cast<int>(odd);
    }
  }
}

// libzmq reads keys as C strings: a NUL after a whole number of groups would leave a shorter text
// that decodes well, and a key whose last bytes are whatever lay in memory.
TEST(KeyTextTest, ANulAnywhereInItIsNoKey) {
  const std::string key = NewKey();
  for (size_t at = 0; at < key.size(); ++at) {
    std::string other = key;
    other[at] = '\0';
    EXPECT_FALSE(IsKeyText(other)) << at;
    EXPECT_FALSE(AllowList::Parse(other + " alpha\n", "f").ok()) << at;
  }
}

TEST(KeyTextTest, ManyFreshPairsAreDistinctAndComputeTheirPublicHalf) {
  const TempFolder folder;
  std::map<std::string, int> seen;
  for (int i = 0; i < 20; ++i) {
    const KeyPair pair = NewKeyPair().value();
    ++seen[pair.public_key];
    ++seen[std::string(pair.secret_key.view())];
    const auto file = folder.Write(Str(i, ".secret"), pair.secret_key.view());
    ASSERT_EQ(chmod(file.c_str(), 0600), 0);
    EXPECT_EQ(LoadSecretKey(file)->public_key, pair.public_key);
  }
  EXPECT_EQ(seen.size(), 40u);
}

TEST(SecretFileTest, ErrorsNeverShowTheSecret) {
  const TempFolder folder;
  const std::string almost = "a-secret-that-is-not-quite-a-key-of-forty";
  const auto file = folder.Write("s.secret", almost);
  ASSERT_EQ(chmod(file.c_str(), 0600), 0);
  EXPECT_EQ(LoadSecretKey(file).status().message().find("a-secret"), std::string::npos);
  ASSERT_EQ(chmod(file.c_str(), 0644), 0);
  EXPECT_EQ(LoadSecretKey(file).status().message().find("a-secret"), std::string::npos);
}

TEST(SecretFileTest, LargeFilesAndFoldersAreNoKeys) {
  const TempFolder folder;
  const auto large = folder.Write("l.secret", std::string(5000, ' ') + NewKey());
  ASSERT_EQ(chmod(large.c_str(), 0600), 0);
  EXPECT_EQ(LoadSecretKey(large).status().code(), Code::kInvalidArgument);
  EXPECT_FALSE(LoadPublicKey(large.string()).ok());
  const auto directory = folder.path() / "d";
  std::filesystem::create_directory(directory);
  ASSERT_EQ(chmod(directory.c_str(), 0700), 0);
  EXPECT_EQ(LoadSecretKey(directory).status().code(), Code::kNotFound);
  EXPECT_FALSE(LoadPublicKey(directory.string()).ok());
}

TEST(WriteKeyPairTest, APlaceThatCannotBeWrittenIsNamedAndHoldsNothing) {
  const TempFolder folder;
  const auto in_the_way = folder.Write("file", "x");
  const Status status = WriteKeyPair(NewKeyPair().value(), in_the_way / "key");
  EXPECT_FALSE(status.ok());
  EXPECT_NE(status.message().find((in_the_way / "key.secret").string()), std::string::npos)
      << status;
  EXPECT_EQ(folder.Read("file"), "x");
}

TEST(SiteNameTest, NamesAreFitForFilesLogsAndSettings) {
  for (const char* good : {"a", "7", "harbour", "site-07.eu_west", "A.b-c_d", "a..b", "a-",
                           "Aggregator", "aggregator2"}) {
    EXPECT_TRUE(CheckSiteName(good).ok()) << good;
  }
  for (const std::string& bad :
       {std::string(), std::string("-a"), std::string(".a"), std::string("_a"), std::string("a b"),
        std::string("a/b"), std::string("a\\b"), std::string("a\n"), std::string("ä"),
        std::string("aggregator"), std::string("a\0b", 3), std::string("a:b"), std::string("..")}) {
    const Status status = CheckSiteName(bad);
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << bad;
    EXPECT_NE(status.message().find("site name"), std::string::npos) << status;
  }
}

// Whoever the settings name can be allowed: LoadTest has the other half.
TEST(SiteNameTest, ANameMayBeAsLongAsInTheSettings) {
  const std::string longest(limits::kPlainNameBytesMax, 'n');
  EXPECT_TRUE(CheckSiteName(longest).ok()) << CheckSiteName(longest);
  const Status status = CheckSiteName(longest + "n");
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_NE(status.message().find("got 129 characters, wanted 1 to 128 letters"), std::string::npos)
      << status;
  const TempFolder folder;
  const std::string key = NewKey();
  ASSERT_TRUE(AllowKey(folder.path() / "allow", key, ClientId{longest}).ok());
  const Result<AllowList> list = AllowList::Load(folder.path() / "allow");
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_EQ(list->KeyOf(ClientId{longest}), key);
}

// Against a model: name → key, and no key twice.
TEST(AllowListModelTest, AnyOrderOfAllowingAndRevokingLeavesWhatAMapWouldHold) {
  const TempFolder folder;
  const auto file = folder.Write("allow", "# kept\n");
  std::vector<std::string> keys;
  for (int i = 0; i < 6; ++i) keys.push_back(NewKey());
  std::map<std::string, std::string> model;
  const auto owner = [&](const std::string& key) {
    for (const auto& [name, held] : model) {
      if (held == key) return name;
    }
    return std::string();
  };
  RandomStream random(8);
  for (int turn = 0; turn < 300; ++turn) {
    const std::string name = Str("site-", random.Below(6));
    const std::string& key = keys[random.Below(keys.size())];
    if (random.Below(2) == 0) {
      const Status status = AllowKey(file, key, ClientId{name});
      const bool same = model.contains(name) && model[name] == key;
      const bool free = !model.contains(name) && owner(key).empty();
      ASSERT_EQ(status.ok(), same || free) << status;
      if (!status.ok()) {
        ASSERT_EQ(status.code(), Code::kAlreadyExists);
      }
      if (status.ok()) model[name] = key;
    } else {
      const bool by_key = random.Below(2) == 0;
      const std::string target = by_key ? owner(key) : name;
      const Status status = RevokeKey(file, by_key ? key : name);
      ASSERT_EQ(status.ok(), !target.empty() && model.contains(target)) << status;
      if (!status.ok()) {
        ASSERT_EQ(status.code(), Code::kNotFound);
      }
      model.erase(target);
    }
    const auto list = AllowList::Load(file);
    ASSERT_TRUE(list.ok()) << list.status();
    ASSERT_EQ(list->entries().size(), model.size());
    for (const auto& [held, held_key] : model) {
      ASSERT_EQ(list->KeyOf(ClientId{held}), held_key);
      ASSERT_EQ(list->NameOf(held_key), ClientId{held});
    }
  }
  EXPECT_TRUE(folder.Read("allow").starts_with("# kept\n"));
}

TEST(AllowListTest, AFileThatIsWrongIsNotMadeWorse) {
  const TempFolder folder;
  const std::string broken = Str(NewKey(), " alpha\nnonsense here\n");
  const auto file = folder.Write("allow", broken);
  EXPECT_NE(AllowKey(file, NewKey(), ClientId{"beta"}).message().find("allow:2"),
            std::string::npos);
  EXPECT_FALSE(RevokeKey(file, "alpha").ok());
  EXPECT_EQ(folder.Read("allow"), broken);
}

TEST(AllowListTest, WindowsLineEndsAndAMissingLastNewlineAreFine) {
  const std::string a = NewKey(), b = NewKey();
  const auto list = AllowList::Parse(Str("# x\r\n", a, " alpha\r\n\r\n", b, " beta"), "f");
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_EQ(list->KeyOf(ClientId{"alpha"}), a);
  EXPECT_EQ(list->KeyOf(ClientId{"beta"}), b);
  EXPECT_TRUE(AllowList::Parse("", "f")->entries().empty());
}

TEST(AllowListTest, AHugeFileIsRefusedBySize) {
  const TempFolder folder;
  const auto file = folder.Write("allow", "");
  std::filesystem::resize_file(file, (8 << 20) + 1);
  EXPECT_EQ(AllowList::Load(file).status().code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace weft
