// Statuses, checks and the small words around them: what the whole system tells its users with.

#include "common/base/status.h"

#include <memory>
#include <set>
#include <sstream>
#include <type_traits>

#include <gtest/gtest.h>

#include "common/base/check.h"
#include "common/base/ids.h"
#include "common/base/result.h"
#include "common/base/str.h"

namespace weft {
namespace {

// These names are on the wire and in ledgers of runs that are long over: they never change.
TEST(StatusTest, TheNamesOfCodesAreWhatOldLedgersAndOtherVersionsSay) {
  const std::pair<Code, const char*> names[] = {{Code::kOk, "ok"},
                                                {Code::kInvalidArgument, "invalid-argument"},
                                                {Code::kNotFound, "not-found"},
                                                {Code::kAlreadyExists, "already-exists"},
                                                {Code::kFailedPrecondition, "failed-precondition"},
                                                {Code::kPermissionDenied, "permission-denied"},
                                                {Code::kResourceExhausted, "resource-exhausted"},
                                                {Code::kDeadlineExceeded, "deadline-exceeded"},
                                                {Code::kUnavailable, "unavailable"},
                                                {Code::kDataLoss, "data-loss"},
                                                {Code::kCancelled, "cancelled"},
                                                {Code::kInternal, "internal"}};
  for (const auto& [code, name] : names) {
    EXPECT_EQ(CodeName(code), name);
    EXPECT_EQ(CodeFromName(name), code);
  }
  for (const char* other : {"", "OK", "Ok", "invalid_argument", "internal ", "ok\n"}) {
    EXPECT_EQ(CodeFromName(other), Code::kInternal) << other;
  }
}

TEST(StatusTest, EachMakerGivesItsCode) {
  const std::pair<Status, Code> made[] = {{InvalidArgument("m"), Code::kInvalidArgument},
                                          {NotFound("m"), Code::kNotFound},
                                          {AlreadyExists("m"), Code::kAlreadyExists},
                                          {FailedPrecondition("m"), Code::kFailedPrecondition},
                                          {PermissionDenied("m"), Code::kPermissionDenied},
                                          {ResourceExhausted("m"), Code::kResourceExhausted},
                                          {DeadlineExceeded("m"), Code::kDeadlineExceeded},
                                          {Unavailable("m"), Code::kUnavailable},
                                          {DataLoss("m"), Code::kDataLoss},
                                          {Cancelled("m"), Code::kCancelled},
                                          {Internal("m"), Code::kInternal}};
  for (const auto& [status, code] : made) {
    EXPECT_EQ(status.code(), code);
    EXPECT_EQ(status.message(), "m");
    EXPECT_FALSE(status.ok());
    EXPECT_EQ(status.ToString(), std::string(CodeName(code)) + ": m");
  }
  EXPECT_TRUE(OkStatus().ok());
  EXPECT_EQ(OkStatus().ToString(), "ok");
  EXPECT_EQ(OkStatus().message(), "");
}

TEST(StatusTest, ContextsStandOutermostFirstAndLeaveSuccessAlone) {
  const Status status = NotFound("no such file").Within("run.toml").Within("[config]");
  EXPECT_EQ(status.message(), "[config]: run.toml: no such file");
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_EQ(OkStatus().Within("anything"), OkStatus());
}

TEST(StatusTest, EqualityLooksAtCodeAndMessage) {
  EXPECT_EQ(DataLoss("x"), DataLoss("x"));
  EXPECT_NE(DataLoss("x"), DataLoss("y"));
  EXPECT_NE(DataLoss("x"), Internal("x"));
  std::ostringstream out;
  out << DataLoss("x") << "|" << OkStatus();
  EXPECT_EQ(out.str(), "data-loss: x|ok");
}

TEST(CheckTest, AFailureSaysWhereWhatAndWithWhichValues) {
  try {
    const int rank = 3;
    WEFT_CHECK(rank == 4, "rank ", rank, " of ", 1.5);
    FAIL() << "it must not go on";
  } catch (const CheckFailure& failure) {
    const std::string what = failure.what();
    EXPECT_NE(what.find("status_test.cc:"), std::string::npos) << what;
    EXPECT_NE(what.find("check failed: rank == 4"), std::string::npos) << what;
    EXPECT_NE(what.find("| rank 3 of 1.5"), std::string::npos) << what;
  }
  try {
    WEFT_CHECK(1 > 2);
    FAIL();
  } catch (const CheckFailure& failure) {
    EXPECT_EQ(std::string(failure.what()).find('|'), std::string::npos) << "no values, no bar";
  }
}

TEST(CheckTest, ItsConditionRunsOnceAndItsValuesOnlyOnFailure) {
  int conditions = 0, values = 0;
  const auto holds = [&] { return ++conditions > 0; };
  const auto value = [&] { return ++values; };
  WEFT_CHECK(holds(), value());
  EXPECT_EQ(conditions, 1);
  EXPECT_EQ(values, 0);
  if (conditions == 0)
    WEFT_CHECK(false);
  else
    ++conditions;  // the macro is one statement: this else belongs to the if above
  EXPECT_EQ(conditions, 2);
}

Result<std::unique_ptr<int>> MakeOwned(int value) {
  if (value < 0) return InvalidArgument("negative");
  return std::make_unique<int>(value);
}

Result<int> Sum(int a, int b) {
  WEFT_TRY_ASSIGN(const auto first, MakeOwned(a));
  WEFT_TRY_ASSIGN(const auto second, MakeOwned(b));  // two in one scope: their names must differ
  return *first + *second;
}

Status Both(int a, int b) {
  WEFT_TRY(MakeOwned(a).status());
  WEFT_TRY(MakeOwned(b).status().Within("second"));
  return OkStatus();
}

TEST(ResultTest, WhatCanOnlyBeMovedGoesThrough) {
  EXPECT_EQ(*Sum(2, 3), 5);
  EXPECT_EQ(Sum(-1, 3).status(), InvalidArgument("negative"));
  EXPECT_EQ(Sum(2, -3).status(), InvalidArgument("negative"));
  EXPECT_TRUE(Both(1, 1).ok());
  EXPECT_EQ(Both(1, -1).message(), "second: negative");
  Result<std::unique_ptr<int>> owned = MakeOwned(7);
  ASSERT_TRUE(owned.ok());
  const std::unique_ptr<int> taken = std::move(owned).value();
  EXPECT_EQ(*taken, 7);
}

TEST(ResultTest, AFailureHasAStatusAndNoValue) {
  const Result<std::string> failed = DataLoss("gone");
  EXPECT_FALSE(failed.ok());
  EXPECT_EQ(failed.status(), DataLoss("gone"));
  EXPECT_THROW((void)*failed, CheckFailure);
  EXPECT_THROW((void)failed->size(), CheckFailure);
  try {
    (void)failed.value();
  } catch (const CheckFailure& failure) {
    EXPECT_NE(std::string(failure.what()).find("data-loss: gone"), std::string::npos)
        << "the bug's message says what had failed: " << failure.what();
  }
  const Result<std::string> good = std::string("here");
  EXPECT_EQ(good.status(), OkStatus());
  EXPECT_EQ(good->size(), 4u);
}

// A Result of a type that a Status could be made from must not take one for the other.
TEST(ResultTest, AValueThatIsAStatusLikeTextStaysAValue) {
  const Result<std::string> text = std::string("not-found: a text");
  EXPECT_TRUE(text.ok());
  const Result<bool> no = false;
  ASSERT_TRUE(no.ok());
  EXPECT_FALSE(*no);
}

TEST(StrTest, ConcatenatesWhatStreamsPrint) {
  EXPECT_EQ(Str("rank ", 8, " of ", std::string("q_proj"), ' ', true), "rank 8 of q_proj 1");
  EXPECT_EQ(Str(0.1), "0.1");
  EXPECT_EQ(Str(1.0 / 3), "0.333333333") << "nine digits: enough to tell floats apart";
  EXPECT_EQ(Str(uint64_t{18446744073709551615u}), "18446744073709551615");
  EXPECT_EQ(Str(int64_t{-9223372036854775807} - 1), "-9223372036854775808");
  EXPECT_EQ(Str(std::string_view("a\0b", 3)).size(), 3u);
}

TEST(IdsTest, IdsAreTypesOfTheirOwnAndOrderByTheirContent) {
  static_assert(!std::is_convertible_v<RoundId, uint32_t>);
  static_assert(!std::is_convertible_v<std::string, ClientId>);
  static_assert(!std::is_convertible_v<ClientId, RunId>);
  EXPECT_LT(ClientId{"a"}, ClientId{"b"});
  EXPECT_LT(ClientId{"B"}, ClientId{"a"}) << "by bytes, the same in every locale";
  EXPECT_LT(RoundId{9}, RoundId{10});
  EXPECT_EQ(Str(ClientId{"harbour"}, " ", RoundId{3}, " ", RunId{"demo"}), "harbour 3 demo");
  const std::set<ClientId> clients = {{"c10"}, {"c2"}, {"c1"}};
  EXPECT_EQ(clients.begin()->name, "c1");
  EXPECT_EQ(clients.rbegin()->name, "c2");
}

}  // namespace
}  // namespace weft
