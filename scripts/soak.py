#!/usr/bin/env python3
"""A federation that is left alone with its accidents: an aggregator and three clients over CURVE on 127.0.0.1, as many short rounds as fit
into the time, and processes that are killed (-9) or ended (SIGTERM) and started again as drawn from a seed. Nothing may be lost, nothing may
stand, nothing may grow.

  scripts/soak.py build/release --minutes 60 --out soak.json [--seed N] [--folder DIR] [--compare ROUNDS]

In the first half only clients are restarted, and one of them is spared: the aggregator's and its memory and descriptors are measured over one
long life. In the second half everybody's turn comes. At the end the ledger is read: every round has each client's update once, and
`weft runs verify` agrees. --compare also asks weft-sim for the hashes of an undisturbed run's first rounds.
"""
import argparse
import http.client
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time

SITES = {"harbour": 2, "hospital": 4, "weaver": 8}  # name and rank
SPARED = "weaver"  # in the first half
SAMPLE_S = 5
WALK_S = 60  # between two looks at every file of the run folder
PAGE = 1 << 20
# Short rounds of small adapters: each round leaves its PEFT folder behind, and an hour has very many.
SETTINGS = ["run.num-server-rounds=1000000", "adapter.rank=8", "adapter.alpha=16", "adapter.target-modules=q_proj,v_proj",
            "strategy.global-rank=8", "train.local-steps=1", "train.batch-size=4", "evaluate.max-rows=12", "server.heartbeat-s=1",
            "cohort.join-deadline-s=0", "cohort.round-retries=1000"]


class Lost(Exception):
    """What ends the soak: one sentence."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Daemon:
    """One of the four processes: its lives, and what it takes."""

    def __init__(self, name, command, log):
        self.name, self.command, self.log = name, command, log
        self.process = None
        self.started = self.restart_at = None
        self.allowed = set()  # exit codes that are no surprise now
        self.life, self.restarts, self.samples = 0, {"SIGKILL": 0, "SIGTERM": 0, "told": 0}, []

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=log)
        self.started, self.restart_at, self.allowed, self.life = time.monotonic(), None, set(), self.life + 1

    @property
    def up(self):
        return self.process is not None and self.process.poll() is None

    def end(self, number, away_s):
        """It is started again when it has ended and `away_s` are over."""
        self.allowed = {-number} if number == signal.SIGKILL else {4}
        self.restarts[signal.Signals(number).name] += 1
        self.restart_at = time.monotonic() + away_s
        self.process.send_signal(number)

    def look_after(self):
        if self.up or self.process is None:
            return
        code = self.process.returncode
        if code not in self.allowed:
            raise Lost(f"{self.name} ended unexpectedly with {code}; its log is {self.log}")
        if self.restart_at is None:  # told to stop by its aggregator
            self.restarts["told"] += 1
            self.restart_at = time.monotonic() + 1
        if time.monotonic() >= self.restart_at:
            self.start()

    def sample(self, at_s, version):
        try:
            status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
            descriptors = len(os.listdir(f"/proc/{self.process.pid}/fd"))
            read = {key: int(value.split()[0]) for key, value in
                    (line.split(":", 1) for line in status.splitlines() if line.startswith(("VmRSS", "RssAnon", "Threads")))}
            self.samples.append({"at_s": round(at_s, 1), "life": self.life, "age_s": round(time.monotonic() - self.started, 1), "version": version,
                                 "rss_mb": read["VmRSS"] / 1024, "anon_mb": read["RssAnon"] / 1024, "fds": descriptors, "threads": read["Threads"]})
        except (OSError, KeyError, ValueError):
            pass  # it has just ended

    def stop(self):
        if self.up:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Soak:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.random = random.Random(options.seed)
        self.run_folder = folder / "run"
        self.metrics_port = free_port()
        self.disk, self.version, self.unanswered = [], 0, 0
        self.restart_s = []  # from an aggregator's start to its first answer
        self.began = self.published_at = time.monotonic()
        self.end_s = options.minutes * 60
        self.members, self.answered_life = 0, 0
        self.set_up()

    # --- the federation

    def program(self, name):
        return str(self.options.build / "bin" / name)

    def set_up(self):
        tiny = pathlib.Path(self.options.example).resolve()
        sets = SETTINGS + [f"server.metrics-bind=127.0.0.1:{self.metrics_port}"]
        subprocess.run([self.program("weft"), "init", "--model", str(tiny / "model"), "--config", str(tiny / "run.toml"), "--sites", ",".join(SITES),
                        "--server", f"tcp://127.0.0.1:{free_port()}", "--out", str(self.folder / "federation"),
                        *(word for each in sets for word in ("--set", each))], check=True, stdout=subprocess.DEVNULL)
        nice = ["nice", "-n", str(self.options.nice)]
        self.aggregator = Daemon("aggregator", [*nice, self.program("weft-aggregator"), str(self.folder / "federation/run.toml"),
                                                "--set", f"run.dir={self.run_folder}"], self.folder / "aggregator.log")
        self.clients, self.site_settings = {}, []
        for site, rank in SITES.items():
            own = [f"data={tiny}/data/{site}/train.jsonl", f"valid={tiny}/data/{site}/valid.jsonl", f"rank={rank}", "max-rows=40"]
            self.site_settings += [f"client.{site}.{each}" for each in own]
            sets = [f"client.{each}" for each in own] + [f"client.dir={self.folder}/client-{site}"]
            self.clients[site] = Daemon(site, [*nice, self.program("weft-client"), str(self.folder / f"federation/{site}.toml"),
                                               *(word for each in sets for word in ("--set", each))], self.folder / f"{site}.log")

    def everybody(self):
        return [self.aggregator, *self.clients.values()]

    # --- accidents

    def gap_s(self, low_s, high_s):
        return self.random.uniform(low_s, high_s) * min(1, self.options.minutes / 10)

    def disturb_client(self, half):
        site = self.random.choice([each for each in SITES if half == 2 or each != SPARED])
        number = self.random.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        away_s = self.random.uniform(0, 5)
        if self.clients[site].up and self.clients[site].restart_at is None:
            self.say(f"{signal.Signals(number).name} to {site}, away for {away_s:.1f} s")
            self.clients[site].end(number, away_s)

    def disturb_aggregator(self):
        number = self.random.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        away_s = self.random.uniform(0, 5)
        if not self.aggregator.up:
            return
        self.say(f"{signal.Signals(number).name} to the aggregator, away for {away_s:.1f} s")
        self.aggregator.end(number, away_s)
        if number == signal.SIGTERM:
            for client in self.clients.values():
                client.allowed = client.allowed | {4}

    # --- what is looked at

    def now_s(self):
        return time.monotonic() - self.began

    def say(self, text):
        print(f"soak: {self.now_s():7.1f} s, round {self.version}: {text}", file=sys.stderr, flush=True)

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    @property
    def awaiting_answer(self):
        return self.answered_life < self.aggregator.life

    def ask(self):
        """The newest version by /metrics; a version that was published is not taken back."""
        if not self.aggregator.up or self.aggregator.restart_at is not None:
            return  # it ends, or is away
        try:
            health, page = self.get("/healthz"), self.get("/metrics")
        except (OSError, http.client.HTTPException):
            self.unanswered += 0 if self.awaiting_answer else 1
            return
        if health[0] != 200:
            raise Lost(f"/healthz says {health[0]}: {health[1].strip()}")
        values = dict(line.rsplit(" ", 1) for line in page[1].splitlines() if not line.startswith("#"))
        version, self.members = int(float(values.get("weft_version", 0))), int(float(values.get("weft_members", 0)))
        if self.awaiting_answer and "weft_version" in values:
            self.answered_life = self.aggregator.life
            self.restart_s.append(round(time.monotonic() - self.aggregator.started, 2))
        if version < self.version:
            raise Lost(f"round {self.version} was published, and now the newest is {version}")
        if version > self.version:
            self.version, self.published_at = version, time.monotonic()

    def measure_disk(self):
        files = size = 0
        for folder, _, names in os.walk(self.run_folder):
            for name in names:
                try:
                    size += os.stat(os.path.join(folder, name)).st_size
                    files += 1
                except OSError:
                    pass  # removed since
        folders = {each: len(os.listdir(self.run_folder / each)) for each in ("adapters", "spool", "state") if (self.run_folder / each).is_dir()}
        ledger = self.run_folder / "run.db"
        self.disk.append({"at_s": round(self.now_s(), 1), "version": self.version, "files": files, "mb": size / PAGE, "entries": folders,
                          "ledger_mb": ledger.stat().st_size / PAGE if ledger.exists() else 0})

    # --- the hour

    def run(self):
        for daemon in self.everybody():
            daemon.start()
        sample_at, walk_at, client_at, aggregator_at = 0, 0, self.gap_s(60, 120), self.end_s / 2
        while self.now_s() < self.end_s:
            time.sleep(0.2)
            for daemon in self.everybody():
                daemon.look_after()
            now_s = self.now_s()
            if now_s >= client_at:
                self.disturb_client(1 if now_s < self.end_s / 2 else 2)
                client_at = now_s + self.gap_s(60, 120)
            if now_s >= aggregator_at:
                self.disturb_aggregator()
                aggregator_at = now_s + self.gap_s(240, 360)
            if self.awaiting_answer or now_s >= sample_at:
                self.ask()
            if now_s >= sample_at:
                for daemon in self.everybody():
                    if daemon.up:
                        daemon.sample(now_s, self.version)
                sample_at = now_s + SAMPLE_S
            if now_s >= walk_at:
                self.measure_disk()
                walk_at = now_s + WALK_S
            if time.monotonic() - self.published_at > self.options.stall_s:
                raise Lost(f"no round was published for {self.options.stall_s:.0f} s; the logs are in {self.folder}")

    def wind_up(self):
        """Everybody is told to stop; then the folder is looked at."""
        for daemon in self.everybody():
            if not daemon.up:
                daemon.start()  # who is away would not hear it
        self.members, deadline = 0, time.monotonic() + self.options.stall_s
        while self.members < len(SITES):
            if time.monotonic() > deadline:
                raise Lost(f"only {self.members} clients were there at the end; the logs are in {self.folder}")
            time.sleep(0.2)
            self.ask()
        self.aggregator.process.send_signal(signal.SIGTERM)
        for daemon in self.everybody():
            try:
                code = daemon.process.wait(30)
            except subprocess.TimeoutExpired:
                raise Lost(f"{daemon.name} did not end when the run was stopped")
            if code != 4:
                raise Lost(f"{daemon.name} ended with {code} when the run was stopped; its log is {daemon.log}")
        self.measure_disk()
        self.check_ledger()
        verify = subprocess.run([self.program("weft"), "runs", "verify", str(self.run_folder)], capture_output=True, text=True)
        if verify.returncode != 0:
            raise Lost(f"weft runs verify: {verify.stdout}{verify.stderr}")
        self.verified = verify.stdout.strip()

    def check_ledger(self):
        """Each round that was published has taken each client's update once."""
        counted, self.hashes, misses = {}, [], 0
        with sqlite3.connect(f"file:{self.run_folder}/run.db?mode=ro", uri=True) as ledger:
            for kind, body in ledger.execute("SELECT kind, body FROM events WHERE kind IN "
                                             "('update-accepted', 'update-lost', 'round-published', 'round-failed') ORDER BY seq"):
                event = json.loads(body)
                if kind == "round-failed":
                    misses += 1
                elif kind == "round-published":
                    self.hashes.append(event["adapter_sha256"])
                    if event["round"] != len(self.hashes) - 1:
                        raise Lost(f"version {event['round']} was published after version {len(self.hashes) - 2}")
                    took = counted.pop(event["round"], {})
                    if event["round"] > 0 and took != dict.fromkeys(SITES, 1):
                        raise Lost(f"round {event['round']} took {took}, wanted each client's update once")
                else:
                    of = event["header"] if kind == "update-accepted" else event
                    taken = counted.setdefault(of["round"], {})
                    taken[of["client"]] = taken.get(of["client"], 0) + (1 if kind == "update-accepted" else -1)
        self.missed = misses
        if len(self.hashes) - 1 < self.version:
            raise Lost(f"round {self.version} was published, and the ledger ends at {len(self.hashes) - 1}")

    def compare(self):
        """The first rounds' hashes are those of an undisturbed run."""
        rounds = min(self.options.compare, len(self.hashes) - 1)
        if rounds <= 0:
            return
        sets = [*self.site_settings, f"run.num-server-rounds={rounds}", f"run.dir={self.folder}/calm"]
        calm = subprocess.run([self.program("weft-sim"), str(self.folder / "federation/run.toml"), "--json",
                               *(word for each in sets for word in ("--set", each))], capture_output=True, text=True)
        if calm.returncode != 0:
            raise Lost(f"weft-sim: {calm.stderr.strip()}")
        hashes = json.loads(calm.stdout)["adapter_sha256"]
        for number, (one, other) in enumerate(zip(self.hashes, hashes)):
            if one != other:
                raise Lost(f"version {number} is not the undisturbed run's")
        self.compared = len(hashes) - 1


# --- figures


def slope(points):
    """Least squares: what y rises by for each x."""
    n = len(points)
    mean_x, mean_y = (sum(each) / n for each in zip(*points))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def figures(daemon, warm_up_s):
    """Of its longest life, past the warm-up: what it takes, and how that grows."""
    if not daemon.samples:
        return {"lives": daemon.life, "restarts": daemon.restarts}
    oldest = max(daemon.samples, key=lambda each: each["age_s"])
    life = [each for each in daemon.samples if each["life"] == oldest["life"] and each["age_s"] >= warm_up_s]
    out = {"lives": daemon.life, "restarts": daemon.restarts, "longest_life_s": oldest["age_s"],
           "rss_mb_max": round(max(each["rss_mb"] for each in daemon.samples), 1),
           "fds": [min(each["fds"] for each in daemon.samples), max(each["fds"] for each in daemon.samples)],
           "threads": [min(each["threads"] for each in daemon.samples), max(each["threads"] for each in daemon.samples)]}
    if len(life) >= 12:
        third = len(life) // 3
        out["steady"] = {
            "minutes": round((life[-1]["at_s"] - life[0]["at_s"]) / 60, 1), "rounds": life[-1]["version"] - life[0]["version"],
            "rss_mb": [round(life[0]["rss_mb"], 1), round(life[-1]["rss_mb"], 1)],
            "rss_mb_per_hour": round(slope([(each["at_s"] / 3600, each["rss_mb"]) for each in life]), 2),
            "anon_mb_per_hour": round(slope([(each["at_s"] / 3600, each["anon_mb"]) for each in life]), 2),
            "rss_mb_per_100_rounds": round(slope([(each["version"] / 100, each["rss_mb"]) for each in life]), 4),
            "fds_first_third": max(each["fds"] for each in life[:third]), "fds_last_third": max(each["fds"] for each in life[-third:])}
    return out


def judge(report, options):
    """What grew beyond its bound."""
    for name in ("aggregator", *SITES):
        steady = report[name].get("steady")
        if steady is None:
            continue
        if steady["fds_last_third"] > steady["fds_first_third"] + 4:
            yield f"{name}'s descriptors grew from {steady['fds_first_third']} to {steady['fds_last_third']}"
        # Shorter stretches say nothing about an hour.
        per_hour, per_100_rounds = steady["rss_mb_per_hour"], steady["rss_mb_per_100_rounds"]
        if steady["minutes"] >= 10 and per_hour > options.mb_per_hour and per_100_rounds > options.mb_per_100_rounds:
            yield (f"{name}'s memory grows by {per_hour} MB an hour, {per_100_rounds} MB in 100 rounds "
                   f"(bounds: {options.mb_per_hour} and {options.mb_per_100_rounds})")


def summarise(report):
    print(f"soak: {report['minutes']:.1f} minutes, {report['rounds']} rounds ({report['missed']} tries missed), seed {report['seed']}, "
          f"restart of the aggregator until it answers: {report['aggregator_restart_s']} s")
    for name in ("aggregator", *SITES):
        one, steady = report[name], report[name].get("steady")
        print(f"  {name:10}  lives {one['lives']:3}  " + "  ".join(f"{key} {value}" for key, value in one["restarts"].items())
              + f"  descriptors {one.get('fds')}  threads {one.get('threads')}  rss max {one.get('rss_mb_max')} MB")
        if steady:
            print(f"  {'':10}  over {steady['minutes']} minutes and {steady['rounds']} rounds: {steady['rss_mb_per_hour']:+.2f} MB an hour, "
                  f"{steady['rss_mb_per_100_rounds']:+.4f} MB in 100 rounds ({steady['rss_mb'][0]} to {steady['rss_mb'][1]} MB)")
    if report["disk"]:
        last = report["disk"][-1]
        print(f"  run folder  {last['files']} files, {last['mb']:.0f} MB, ledger {last['ledger_mb']:.0f} MB, entries {last['entries']}")
    print(f"  {report['verified']}" + (f"; {report['compared']} rounds have an undisturbed run's hashes" if report["compared"] else ""))
    for line in report["failed"]:
        print(f"soak: failed: {line}")
    print("soak: " + ("failed" if report["failed"] else "ok"))


def read_options():
    here = pathlib.Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path, help="folder with bin/weft-aggregator and the others")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--out", type=pathlib.Path, help="JSON with all figures and samples")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=pathlib.Path, help="keep everything here; else it is temporary, and kept when the soak fails")
    parser.add_argument("--example", default=here / "examples/tiny", help="model and rows")
    parser.add_argument("--compare", type=int, default=0, help="rounds to compare with weft-sim's")
    parser.add_argument("--stall-s", type=float, default=60, help="so long without a new version is a failure")
    parser.add_argument("--mb-per-hour", type=float, default=30, help="memory may grow by this, or by --mb-per-100-rounds")
    parser.add_argument("--mb-per-100-rounds", type=float, default=0.5)
    parser.add_argument("--nice", type=int, default=0, help="of the four processes")
    return parser.parse_args()


def main():
    options = read_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("soak: ended by SIGTERM"))  # so that everybody is stopped
    folder = pathlib.Path(options.folder or tempfile.mkdtemp(prefix="weft-soak-")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    soak = Soak(options, folder)
    soak.verified, soak.compared, soak.missed, failed = "not verified", 0, 0, []
    try:
        soak.run()
        soak.wind_up()
        soak.compare()
    except Lost as lost:
        failed.append(str(lost))
    except KeyboardInterrupt:
        failed.append("interrupted")
    finally:
        for daemon in soak.everybody():
            daemon.stop()
    warm_up_s = min(300, options.minutes * 60 / 12)
    report = {"seed": options.seed, "minutes": soak.now_s() / 60, "rounds": soak.version, "missed": soak.missed,
              "aggregator_restart_s": soak.restart_s, "unanswered": soak.unanswered, "verified": soak.verified, "compared": soak.compared,
              **{daemon.name: figures(daemon, warm_up_s) for daemon in soak.everybody()}, "disk": soak.disk}
    report["failed"] = failed + list(judge(report, options))
    summarise(report)
    if options.out:
        report["samples"] = {daemon.name: daemon.samples for daemon in soak.everybody()}
        options.out.write_text(json.dumps(report, indent=1))
    if options.folder is None and not report["failed"]:
        shutil.rmtree(folder)
    sys.exit(1 if report["failed"] else 0)


if __name__ == "__main__":
    main()
