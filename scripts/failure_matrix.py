#!/usr/bin/env python3
"""docs/failures.md from what the tests say: each fault, what must come of it, the test that proves it and how it went.

  ctest --test-dir build/release --output-junit failures.xml -R 'FailpointTest|CrashTest|HalfARound|Publishing|Disk|Link|NetworkTest|HalfClosed|ResetsTest|CableTest|Keys|Start|Faults|Recovery|RelayTest|HostileTest|torture'
  build/release/bin/weft-sim torture --seeds 1..1000 --json > torture.json
  scripts/failure_matrix.py build/release torture.json failures.xml [later.xml …] > docs/failures.md
"""
import json
import re
import subprocess
import sys
import xml.etree.ElementTree

SAME = "goes on where it was; the final adapter has the bits of an undisturbed run, each update counts once"
LONGER = "the run takes longer; the final adapter has the bits of an undisturbed run, each update counts once"
# Of tests with names of their own: what goes wrong, and what must come of it. First match.
NAMED = [
    (r"HalfARoundTest\.AnAggregatorKilled", "aggregator killed in a round of which it has accepted some updates", SAME),
    (r"HalfARoundTest\.EverybodyKilled", "every process killed at once in the middle of a round", SAME),
    (r"HalfARoundTest\.AnAggregatorEndedBySigterm", "SIGTERM to the aggregator in the middle of a round", "everybody stops; the next start goes on"),
    (r"HalfARoundTest\.AStoppedRun", "weft runs stop, then weft runs resume on the folder alone", SAME),
    (r"HalfARoundTest\.FilesDamaged", "a bit of the newest state and of an accepted update flipped while the aggregator is down", "both named; the state is merged again, the update asked for again; same bits"),
    (r"RecoveryTest\.FromTheDiskAfterAnyWriteWithAnyOneFileDamaged", "aggregator killed after any write, and any one file of its disk damaged (in memory)", "same bits"),
    (r"RecoveryTest\.AStateThatCannot", "the newest state damaged, and its updates gone", "the run stops and names the file"),
    (r"PublishingTest\..*/(\w+)", "aggregator killed while a version is made: {0}", SAME),
    (r"CrashTest\.AClientKilledDuringItsUploadLeaves", "client killed during its upload, and away", "the round closes at its quorum; the client is in the next"),
    (r"CrashTest\.AClientKilledDuringItsUploadAndStarted", "client killed during its upload, and started again", "it delivers the rest of the same update"),
    (r"DiskTest\.FullInTheSpool", "disk full in the aggregator's spool", "the run pauses and says so; goes on, same bits, when there is space"),
    (r"DiskTest\.FullForTheLedger", "disk full for the aggregator's ledger", "the run pauses and says so; goes on, same bits, when there is space"),
    (r"DiskTest\.ARunThatIsPaused", "SIGTERM while the disk is full", "the process ends; the next start goes on, same bits"),
    (r"ClientDiskTest\.", "disk full at a client", "that client's round fails with the reason; the quorum goes on"),
    (r"FrozenLinkTest\.APeerThatStops", "a link stops in the middle of a chunk", "the round ends at its deadline"),
    (r"FrozenLinkTest\.APeerThatIsSilent", "a peer is silent in the middle of a chunk", "it is taken for gone"),
    (r"LinkTest\.AnUploadCut", "a link is cut in the middle of an upload", "resumes from the first missing chunk"),
    (r"LinkTest\.ALinkThatBreaks", "a link breaks again and again", "the run takes longer, same bits"),
    (r"NetworkTest\.LinksWithALatency", "200 ms of latency each way", LONGER),
    (r"NetworkTest\.ALinkThatTakesSecondsForAnUpdate", "a link that takes seconds for an update, longer than `gone-after-s`", LONGER + "; nothing is sent twice"),
    (r"NetworkTest\.ALinkThatTakesSecondsForAChunk", "a link that takes seconds for a chunk", LONGER + "; nothing is sent twice"),
    (r"NetworkTest\.AnUploadThatStands", "an upload stands for longer than everybody's patience, then goes on", LONGER),
    (r"NetworkTest\.ADownloadThatStands", "a download stands for longer than everybody's patience, then goes on", LONGER),
    (r"NetworkTest\.EveryLinkReset", "every client's link is reset at once in the middle of uploads", LONGER),
    (r"HalfClosedTest\..*/the_aggregator", "a link is half closed in the middle of an upload: only the aggregator is told", LONGER + "; the client makes a new one within 40 s"),
    (r"HalfClosedTest\..*/the_client", "a link is half closed in the middle of an upload: only the client is told", LONGER),
    (r"ResetsTest\..*/(\w+)", "every link is reset after every chunk and a half that goes {0}", LONGER),
    (r"CableTest\.", "the cable between two network namespaces is pulled in a round, and put back after everybody's patience", LONGER),
    (r"KeysTest\.AKeyThatIsNot", "a key that is not on the allow-list", "refused; both sides say so"),
    (r"KeysTest\.AWrongServerKey", "a wrong server key", "told from a wrong key of the site"),
    (r"KeysTest\.ASecretKey", "a secret key that others can read", "refused with the fix"),
    (r"KeysTest\.ARevokedClient", "a client's key is revoked while it is connected", "cut within five seconds; an allowed one is let in"),
    (r"KeysTest\.AClientWithAnotherBase", "a client with another base model", "refused with both hashes"),
    (r"KeysTest\.ARunIsNotGoneOn", "an aggregator started again with another base model", "refuses to go on"),
    (r"StartTest\.TwoAggregators", "two aggregators on one folder", "the second is refused, naming the first"),
    (r"StartTest\.APortInUse", "a port in use", "named"),
    (r"StartTest\.TwoClients", "two clients on one state folder", "the second is refused"),
    (r"RelayTest\.ARootThatWasKilled", "the aggregator above a tree of relays killed in a round", SAME),
    (r"RelayTest\.AStoppedRelay", "SIGTERM to a relay; it and its members started again", "everybody below stops; the tree goes on, same bits"),
    (r"RelayTest\.WhatDoesNotBelong", "a relay where updates weigh the same whoever sends them", "refused at the door with the reason"),
    (r"HostileTest\.EveryRow", "an update wrong in any of 105 ways, from a member with a good key", "refused with a code and the reason; the run is as if the site were not there"),
    (r"HostileTest\.ARoundInWhichEverything", "a round in which every update is refused", "the round misses its quorum and is tried again; same bits"),
    (r"FaultsTest\.DrawnFaults", "drawn faults of every kind (simulated, 24 seeds)", "same bits"),
    (r"FaultsTest\.AnAggregatorThatDies", "aggregator killed every 0.45 s of a round (simulated)", "same bits"),
    (r"FaultsTest\.AClientThatDies", "client killed every moment of a round (simulated)", "delivers, same bits"),
    (r"FaultsTest\.APartition", "partitions within and beyond the others' patience (simulated)", "waited out; same bits"),
    (r"FaultsTest\.AClientThatStaysAway", "a client that stays away (simulated)", "done without, where the quorum allows"),
    (r"FaultsTest\.ARunThatCannotGoOn", "nobody left to go on with (simulated)", "the run ends by its rules and says why"),
    (r"FaultsTest\.WithoutThePatience", "drawn faults without patience (simulated)", "every run ends by its rules"),
    (r"FaultsTest\.MessagesThatOvertake", "messages that overtake and repeat each other (simulated)", "same bits"),
    (r"FaultsTest\.WhatUpdatesLeaveOut", "crashes of both sides with error feedback (simulated)", "what is owed is neither lost nor counted twice"),
    (r"FaultsTest\.WhatRoundsKeep", "crashes with kept updates (simulated)", "every round is merged again to the same bits"),
    (r"FaultsTest\.HostileClients", "hostile clients and crashes (simulated)", "same bits as the same attack without crashes"),
]


def failpoints(build):
    points = {}
    for program in ("relay", "aggregator", "client"):
        listed = subprocess.run([f"{build}/bin/weft-{program}", "--list-failpoints"], capture_output=True, text=True, check=True).stdout
        for line in listed.splitlines():
            name, what = line.split("  ", 1)
            points[re.sub(r"[.-]", "_", name)] = (name, what)
    return points


def outcomes(junits):
    """Test and outcome; what a later file says of a test counts."""
    found = {}
    for junit in junits:
        for case in xml.etree.ElementTree.parse(junit).getroot().iter("testcase"):
            failed, skipped = case.find("failure") is not None, case.find("skipped") is not None
            found[case.get("name").split("  #")[0]] = "failed" if failed else "skipped" if skipped else "passed"
    return found


def rows(build, junits):
    points = failpoints(build)
    for name, outcome in outcomes(junits).items():
        killed = re.search(r"FailpointTest\..*/(\w+)$", name)
        if killed:
            of_client = killed[1].endswith("_of_a_client")
            who = "a relay" if "RelayFailpoint" in name else "a client" if of_client else "the aggregator"
            point, what = points[killed[1].removesuffix("_of_a_client")]
            yield f"kill −9 of {who} at `{point}`: {what}", SAME, name, outcome
            continue
        for pattern, fault, expected in NAMED:
            match = re.search(pattern, name)
            if match:
                yield fault.format(*match.groups()), expected, name, outcome
                break


def torture_rows(build, report):
    listed = subprocess.run([f"{build}/bin/weft-sim", "torture", "--list"], capture_output=True, text=True, check=True).stdout
    failed = {case["scenario"] for case in report["failed"]}
    each = report["cases"] // len(report["scenarios"])
    for line in listed.splitlines():
        name, what = line.split("  ", 1)
        if name in report["scenarios"]:
            yield (what, "every rule of docs/torture.md holds", f"weft-sim torture --scenario {name} ({each} seeds)",
                   "failed" if name in failed else "passed")


def main(build, torture, *junits):
    with open(torture) as lines:
        report = json.load(lines)
    table = list(rows(build, junits)) + list(torture_rows(build, report))
    print("# Failures\n")
    print("Each fault, what must come of it, and the test that proves it. Made by `scripts/failure_matrix.py` from what the tests said; those of the first part are real processes\n"
          "over CURVE on 127.0.0.1 unless marked simulated, those at the end many seeds of simulated federations (docs/torture.md).\n")
    print(f"{len(table)} rows; torture: {report['cases']} cases, {report['virtual_hours']:.1f} virtual hours, {report['crashes']} processes killed, "
          f"{report['messages']:,} messages, {len(report['failed'])} failed.\n")
    print("| fault | what must come of it | proved by | outcome |\n|---|---|---|---|")
    for fault, expected, test, outcome in table:
        print(f"| {fault} | {expected} | `{test}` | {outcome} |")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
