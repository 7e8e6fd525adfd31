// `weft bench load` with a few members, so that it stays able to run with thousands.

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/integration/bad_input/command.h"

namespace weft::testing {
namespace {

using Json = nlohmann::json;

TEST(BenchLoadTest, AFewMembersAreMeasuredAtRestUnderSilentPeersAndWhileTheyUpload) {
  const Ran ran = Execute(
      "weft",
      {"bench", "load", "--members", "30", "--cohort", "6", "--rounds", "2", "--payload-mb", "0.1",
       "--silent", "10", "--bare", "--measure-s", "1.5", "--limit-s", "120", "--json"},
      {.limit_s = 150});
  ASSERT_TRUE(Succeeded(ran));
  const Json json = Json::parse(ran.out);
  EXPECT_EQ(json["members"], 30);
  EXPECT_EQ(json["cohort"], 6);
  EXPECT_EQ(json["rounds"], 2);
  EXPECT_GT(json["round_s"].get<double>(), 0);
  EXPECT_GT(json["server_rss_idle_mb"].get<double>(), json["server_rss_before_mb"].get<double>());
  EXPECT_GT(json["kib_per_bare_connection"].get<double>(), 0);
  for (const char* span : {"idle", "silent", "rounds"}) {
    const Json& beats = json["heartbeat"][span];
    EXPECT_GT(beats["samples"].get<int>(), 0) << span;
    EXPECT_GT(beats["p50_ms"].get<double>(), 0) << span;
    EXPECT_GE(beats["p99_ms"].get<double>(), beats["p50_ms"].get<double>()) << span;
  }
  EXPECT_GT(json["join"]["silent"]["samples"].get<int>(), 0);
  EXPECT_GE(json["silent_opened"].get<int>(), 30) << "ten in each of three spans";
}

TEST(BenchLoadTest, WhatCannotBeIsRefusedAndWhatTakesTooLongIsEndedAndSaysWhere) {
  EXPECT_TRUE(Refused(Execute("weft", {"bench", "load", "--members", "3", "--cohort", "5"}),
                      {"--cohort", "got 5", "at most the 3"}));
  EXPECT_TRUE(Refused(Execute("weft", {"bench", "load", "--members", "2", "--cohort", "1",
                                       "--strategy", "median-of-votes"}),
                      {"median-of-votes"}));
  EXPECT_TRUE(Refused(Execute("weft", {"bench", "load", "--members", "4", "--cohort", "2",
                                       "--limit-s", "2", "--measure-s", "60"}),
                      {"--limit-s", "2 s are over", "latencies were measured"}));
}

}  // namespace
}  // namespace weft::testing
