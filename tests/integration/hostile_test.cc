// A member with a good key and a bad update, on a live aggregator over CURVE: every way in which an
// update may be wrong is refused with a typed reason, costs nearly nothing, leaves nothing in the
// spool, and the round ends as if the site had not been there. WEFT_PRINT_MATRIX=1 prints what each
// row took, as docs/attacks.md has it.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <optional>

#include <gtest/gtest.h>

#include "aggregator/office.h"
#include "common/base/str.h"
#include "common/codec/adapter_block.h"
#include "common/wire/message_codec.h"
#include "tests/integration/hostile_rows.h"

namespace weft::testing {
namespace {

namespace fs = std::filesystem;

const std::string kHostile = "harbour";
const std::vector<std::string> kHonest = {"hospital", "weaver"};

/// Small and quick: one layer kind, nobody evaluates, two of three are enough.
Settings MatrixSettings(size_t rounds) {
  Settings settings = QuickSettings();
  settings.run.num_server_rounds = static_cast<int64_t>(rounds);
  settings.adapter.target_modules = {"q_proj"};
  settings.cohort.quorum = 0.6;
  settings.cohort.min_available_nodes = 2;
  settings.evaluate.data.clear();
  for (ClientSettings& client : settings.clients) client.rank = client.name == kHostile ? "4" : "8";
  return settings;
}

Settings WithoutTheHostileSite(Settings settings) {
  std::erase_if(settings.clients, [](const auto& client) { return client.name == kHostile; });
  return settings;
}

/// A line of the process's /proc status that is in kB.
double StatusKb(pid_t pid, const std::string& key) {
  std::ifstream in(Str("/proc/", pid, "/status"));
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(key + ":")) return std::strtod(&line[key.size() + 1], nullptr);
  }
  return 0;
}

/// An aggregator and members that a test plays.
class Play {
 public:
  explicit Play(const Settings& settings)
      : federation_(settings), aggregator_(federation_.Aggregator()) {
    for (const ClientSettings& client : settings.clients) {
      members_.emplace(client.name, std::make_unique<TestMember>(loop_, federation_, client.name));
      members_.at(client.name)->Join();
    }
  }

  [[nodiscard]] Federation& federation() { return federation_; }
  [[nodiscard]] Process& aggregator() { return *aggregator_; }
  [[nodiscard]] TestMember& member(const std::string& site) { return *members_.at(site); }

  [[nodiscard]] bool Asked(const std::string& site, uint32_t round) {
    return Turn(loop_,
                [&] { return member(site).asked() && member(site).plan().round.number == round; });
  }
  [[nodiscard]] GoodUpdate Good(const std::string& site) {
    return {member(site).plan(), member(site).bundle()};
  }
  [[nodiscard]] bool Answered(const std::string& site) {
    return Turn(
        loop_, [&] { return member(site).verdict().has_value(); }, 20);
  }
  /// Everybody honest delivers.
  void Honestly(uint32_t round) {
    for (const std::string& site : kHonest) {
      ASSERT_TRUE(Asked(site, round)) << site << " " << round << aggregator_->log();
      member(site).Deliver(Good(site).Whole());
    }
    for (const std::string& site : kHonest) {
      ASSERT_TRUE(Answered(site)) << site << " " << round << aggregator_->log();
      EXPECT_EQ(member(site).verdict()->code, Code::kOk) << member(site).verdict()->reason;
    }
  }
  /// All three, each what `make` makes of its good update.
  template <typename Make>
  void Everybody(uint32_t round, const Make& make, Code code) {
    for (const auto& [site, member] : members_) {
      ASSERT_TRUE(Asked(site, round)) << site << " " << round << aggregator_->log();
      member->Deliver(std::invoke(make, Good(site)));
      ASSERT_TRUE(Answered(site)) << site << " " << round << aggregator_->log();
      EXPECT_EQ(CodeName(member->verdict()->code), CodeName(code)) << member->verdict()->reason;
    }
  }
  void Fail(const std::string& site, uint32_t round) {
    member(site).Send(EncodeMessage(
        RoundFailed{.round = RoundId{round}, .code = Code::kCancelled, .reason = "a test"}));
  }
  void ExpectCompleted() {
    for (const auto& [site, member] : members_) {
      EXPECT_TRUE(Turn(loop_, [&member = *member] { return member.ended(); })) << site;
      member->Send(EncodeMessage(Goodbye{.reason = "the run has ended"}));
    }
    EXPECT_EQ(aggregator_->Wait(), 0) << aggregator_->log();
    EXPECT_TRUE(federation_.Verified());
  }

 private:
  EventLoop loop_;
  Federation federation_;
  std::unique_ptr<Process> aggregator_;
  std::map<std::string, std::unique_ptr<TestMember>> members_;
};

/// What a row took.
struct Measured {
  std::string code;
  double ms = 0;
  double grown_kb = 0;
};

class HostileTest : public ::testing::Test {
 protected:
  static void ExpectRefused(Play& play, const HostileRow& row, Measured& measured);
  static void ExpectCut(Play& play, const HostileRow& row, const Delivery& spoilt,
                        Measured& measured);
  static void CheckRow(Play& play, const HostileRow& row, uint32_t round);
  static void Note(const HostileRow& row, const Measured& measured);
};

void HostileTest::ExpectRefused(Play& play, const HostileRow& row, Measured& measured) {
  TestMember& hostile = play.member(kHostile);
  ASSERT_TRUE(play.Answered(kHostile)) << "no verdict" << play.aggregator().log();
  const UpdateVerdict& verdict = *hostile.verdict();
  EXPECT_EQ(CodeName(verdict.code), CodeName(row.code)) << verdict.reason;
  EXPECT_NE(verdict.reason.find(row.words), std::string::npos) << verdict.reason;
  measured.code = CodeName(verdict.code);
  measured.ms = 1000 * hostile.verdict_s();
  EXPECT_EQ(verdict.round == hostile.plan().round, row.answer == Answer::kVerdict);
  EXPECT_TRUE(
      row.answer == Answer::kStray ||
      play.aggregator().WaitForLine({"update refused", "client=" + kHostile, measured.code}, 10))
      << play.aggregator().log();
}

// The peer learns that the link is closed, the reason is in the log.
void HostileTest::ExpectCut(Play& play, const HostileRow& row, const Delivery& spoilt,
                            Measured& measured) {
  const auto began = std::chrono::steady_clock::now();
  play.member(kHostile).Deliver(spoilt);
  EXPECT_TRUE(play.aggregator().WaitForLine(
      {"peer cut off", "peer=" + kHostile, std::string(CodeName(row.code)), row.words}, 10))
      << play.aggregator().log();
  measured.code = CodeName(row.code);
  measured.ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - began).count();
}

void HostileTest::CheckRow(Play& play, const HostileRow& row, uint32_t round) {
  TestMember& hostile = play.member(kHostile);
  ASSERT_TRUE(play.Asked(kHostile, round)) << play.aggregator().log();
  const Delivery spoilt = row.spoil(play.Good(kHostile));
  const pid_t pid = play.aggregator().pid();
  std::ofstream(Str("/proc/", pid, "/clear_refs")) << "5";
  const double before = StatusKb(pid, "VmHWM");
  Measured measured;
  if (row.answer == Answer::kCut) {
    ExpectCut(play, row, spoilt, measured);
  } else {
    hostile.Deliver(spoilt);
    ExpectRefused(play, row, measured);
  }
  measured.grown_kb = StatusKb(pid, "VmHWM") - before;
  EXPECT_LT(measured.grown_kb, 16 * 1024) << "far more than any row takes, sanitizers included";
  Note(row, measured);
  const fs::path spooled =
      play.federation().run_folder() / SpoolName(RoundId{round}, ClientId{kHostile});
  EXPECT_TRUE(Eventually(
      [&] { return !fs::exists(spooled) && !fs::exists(spooled.string() + ".part"); }, 10))
      << spooled;
  if (row.answer == Answer::kVerdict) return play.Honestly(round);
  hostile.Join();  // the round still waits for it, and offers itself again
}

void HostileTest::Note(const HostileRow& row, const Measured& measured) {
  const std::string text =
      Str(measured.code, row.answer == Answer::kCut ? ", cut" : "", " | ",
          std::round(measured.ms * 10) / 10, " | ", std::round(measured.grown_kb));
  RecordProperty(row.name, text);
  if (std::getenv("WEFT_PRINT_MATRIX") != nullptr) {
    std::cout << "| " << row.name << " | " << text << " |" << std::endl;
  }
}

TEST_F(HostileTest, EveryRowOfTheMatrixIsRefusedAndTheRunIsAsIfTheSiteWereNotThere) {
  const std::vector<HostileRow> rows = HostileRows();
  ASSERT_EQ(rows.back().answer, Answer::kVerdict) << "the last round has to end";
  const auto rounds =
      1 + static_cast<uint32_t>(std::count_if(rows.begin(), rows.end(), [](const HostileRow& row) {
        return row.answer == Answer::kVerdict;
      }));
  const Settings settings = MatrixSettings(rounds);
  Play play(settings);
  ASSERT_TRUE(play.Asked(kHostile, 1)) << play.aggregator().log();
  // The first round has no median yet, and what runs for the first time takes longer.
  play.Fail(kHostile, 1);
  play.Honestly(1);
  uint32_t round = 2;
  for (const HostileRow& row : rows) {
    SCOPED_TRACE(row.name);
    CheckRow(play, row, round);
    ASSERT_FALSE(HasFatalFailure());
    if (row.answer == Answer::kVerdict) ++round;
  }
  play.ExpectCompleted();

  Play without(WithoutTheHostileSite(settings));
  for (round = 1; round <= rounds; ++round) without.Honestly(round);
  without.ExpectCompleted();
  EXPECT_EQ(play.federation().Hashes(), without.federation().Hashes());
}

/// Zeros of the other sign and numbers below float32's normal range, in both factors.
Delivery WithOddNumbers(const GoodUpdate& good) {
  return good.WithBlock([](TensorBlock& block) {
    for (BlockSite& site : block.sections[0].sites) {
      for (BlockTensor& tensor : site.tensors) {
        SetFloats(tensor, -0.0F, 0, 3);
        SetFloats(tensor, 1e-45F, 3, 3);
        SetFloats(tensor, -1e-40F, 6, 3);
      }
    }
  });
}

TEST_F(HostileTest, NegativeZerosAndDenormalsAreTakenAndAReplayOfThemCountsNoSecondTime) {
  Play play(MatrixSettings(3));
  TestMember& odd = play.member(kHostile);
  ASSERT_TRUE(play.Asked(kHostile, 1));
  const Delivery update = WithOddNumbers(play.Good(kHostile));
  odd.Deliver(update);
  ASSERT_TRUE(play.Answered(kHostile));
  EXPECT_EQ(odd.verdict()->code, Code::kOk) << odd.verdict()->reason;
  play.Honestly(1);

  ASSERT_TRUE(play.Asked(kHostile, 2));
  EXPECT_TRUE(DecodeBundle(odd.bundle(), at::kCPU).ok()) << "it is finite";
  odd.Deliver(update);
  ASSERT_TRUE(play.Answered(kHostile));
  EXPECT_EQ(odd.verdict()->code, Code::kOk) << "as if the first verdict had been lost";
  EXPECT_EQ(odd.verdict()->round, RoundId{1});
  play.Fail(kHostile, 2);
  play.Honestly(2);
  ASSERT_TRUE(play.Asked(kHostile, 3));
  play.Fail(kHostile, 3);
  play.Honestly(3);
  play.ExpectCompleted();
  EXPECT_EQ(play.federation().AcceptedIn(1).front(), kHostile);
  EXPECT_EQ(play.federation().AcceptedIn(2).size(), 2U);
  EXPECT_EQ(play.federation().AcceptedIn(3).size(), 2U);
}

TEST_F(HostileTest, ARoundInWhichEverythingIsRefusedIsTriedAgainAndLeavesNoTrace) {
  const Settings settings = MatrixSettings(2);
  const auto zero = [](const GoodUpdate& good) {
    return good.WithBlock([](TensorBlock& block) { SetAllFloats(block, 0); });
  };
  const auto nan = [](const GoodUpdate& good) {
    return good.WithBlock([](TensorBlock& block) { SetAllFloats(block, std::nanf("")); });
  };
  const auto weightless = [](const GoodUpdate& good) {
    return good.WithOffer([](UpdateOffer& offer) { offer.header.num_examples = 0; });
  };
  Play play(settings);
  play.Everybody(1, nan, Code::kInvalidArgument);
  EXPECT_TRUE(play.aggregator().WaitForLine({"round missed its quorum", "attempt=1"}));
  play.Everybody(1, weightless, Code::kInvalidArgument);
  EXPECT_TRUE(play.aggregator().WaitForLine({"round missed its quorum", "attempt=2"}));
  play.Everybody(1, &GoodUpdate::Whole, Code::kOk);
  play.Everybody(2, zero, Code::kInvalidArgument);
  EXPECT_TRUE(play.aggregator().WaitForLine({"round missed its quorum", "attempt=1"}));
  play.Everybody(2, &GoodUpdate::Whole, Code::kOk);
  play.ExpectCompleted();

  Play undisturbed(settings);
  undisturbed.Everybody(1, &GoodUpdate::Whole, Code::kOk);
  undisturbed.Everybody(2, &GoodUpdate::Whole, Code::kOk);
  undisturbed.ExpectCompleted();
  EXPECT_EQ(play.federation().Hashes(), undisturbed.federation().Hashes());
}

/// B·A of every site; the factors' scale is the same for all here.
std::vector<at::Tensor> Products(const Blob& bundle) {
  const AdapterState state = *DecodeBundle(bundle, at::kCPU).value().adapter;
  std::vector<at::Tensor> products;
  for (const SiteState& site : state.sites) products.push_back(site.Get("B").mm(site.Get("A")));
  return products;
}

TEST_F(HostileTest, UpdatesThatAreAllEqualMergeToThatUpdate) {
  Settings settings = MatrixSettings(2);
  for (ClientSettings& client : settings.clients) client.rank = "8";
  Play play(settings);
  ASSERT_TRUE(play.Asked(kHostile, 1));
  const Blob equal = play.Good(kHostile).Whole().payload;
  play.Everybody(
      1, [&](const GoodUpdate& good) { return good.Of(equal); }, Code::kOk);
  ASSERT_TRUE(play.Asked(kHostile, 2));
  const std::vector<at::Tensor> wanted = Products(equal);
  const std::vector<at::Tensor> got = Products(play.member(kHostile).bundle());
  ASSERT_EQ(got.size(), wanted.size());
  for (size_t i = 0; i < got.size(); ++i) {
    // One rounding of the factors to float32 and back.
    EXPECT_LE((got[i] - wanted[i]).norm().item<double>(), 1e-5 * wanted[i].norm().item<double>());
  }
}

}  // namespace
}  // namespace weft::testing
