"""Runs weft-sim once for each rule, attack and number of attackers, and prints the table of run.sh.

Each run's report, or why it failed, is kept in OUT/runs.jsonl, so what was interrupted goes on where it was.
"""
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from runs import Runs, arguments, report_of  # noqa: E402

SEED, ROUNDS, STEPS = (os.environ[name] for name in ("SEED", "ROUNDS", "STEPS"))
RUNS = Runs(os.environ["OUT"], os.path.join(os.environ["BIN"], "weft-sim"))
COUNTS = [int(count) for count in os.environ["COUNTS"].split()]
CLIENTS = 20
BROKEN = 0.5  # share of what is learnt without attackers

# Settings of each rule for f attackers. A rule is told the true f, or the largest number that its proof allows among 20 clients.
RULES = {
    # "norm bound" refuses at admission; honest updates have norms of about 6 here.
    "none": lambda f: {},
    "norm bound": lambda f: {"cohort.update-norm-max": os.environ.get("NORM_MAX", "12")},
    "median clip": lambda f: {"robust.clip": '"median"'},
    "krum": lambda f: robust("krum", byzantine=f),
    "multi-krum": lambda f: robust("multi-krum", byzantine=f),
    "geometric-median": lambda f: robust("geometric-median"),
    "bulyan": lambda f: robust("bulyan", byzantine=min(f, (CLIENTS - 3) // 4)),
    "median": lambda f: robust("median"),
    "trimmed-mean": lambda f: robust("trimmed-mean", trim=f / CLIENTS),
    "fltrust": lambda f: robust("fltrust", trusted='"client-00"'),
    "cosine": lambda f: robust("cosine"),
}
# Name in the table: attack and its scale; 0: as usual for it (alie: the paper's z from K and f). Those that tell rules apart come first.
ATTACKS = {
    "sign-flip": ("sign-flip", 10), "alie": ("alie", 0), "inner-product": ("inner-product", 1), "sybil": ("sybil", 10),
    "gaussian": ("gaussian", 10), "inner-product x5": ("inner-product", 5), "alie z=2": ("alie", 2), "gauge-bomb": ("gauge-bomb", 1e9),
    "rank-inflation": ("rank-inflation", 2), "overflow": ("overflow", 1e20),
}
# The numbers that tell most come first.
ORDER = [4, 8, 2, 6]


def robust(rule, **keys):
    return {"robust.rule": f'"{rule}"'} | {f"robust.{key}": value for key, value in keys.items()}


def chosen(name, known):
    names = [each.strip() for each in os.environ.get(name, "").split(",") if each.strip()] or list(known)
    unknown = [each for each in names if each not in known]
    if unknown:
        sys.exit(f"{name}: {unknown[0]} is none of {', '.join(known)}")
    return names


def cell(model, rows, rule, attack, f):
    settings = {
        "run.num-server-rounds": ROUNDS, "model.threads": 1, "adapter.rank": 8, "adapter.alpha": 16, "train.local-steps": STEPS,
        "train.lr": "1e-2", "train.batch-size": 4, "train.max-len": 128, "strategy.name": "exact-svd", "sim.clients": CLIENTS,
        "sim.partition": "iid", "sim.eval-rows": 100, "cohort.fraction-evaluate": 0, "cohort.min-available-nodes": CLIENTS,
        "cohort.min-train-nodes": CLIENTS, "cohort.weighting": "uniform",
        "cohort.quorum": 0.5,  # a round goes on without the refused, of whom there are at most 8
        "run.log-level": "error",
    } | RULES[rule](f)
    if f > 0:
        name, scale = ATTACKS[attack]
        settings |= {"sim.attack": name, "sim.attackers": f, "sim.attack-scale": scale}
    return arguments(model, rows, SEED, settings)


def run(key, workers):
    seconds, done = RUNS.run(["--workers", workers] + key)
    row = {"key": key, "seconds": seconds}
    if done.returncode == 0:
        row["report"] = report_of(done)
    elif done.returncode == 1 and "no such se" not in done.stderr:  # not a setting or section unknown to this build, but the run's own outcome
        row["error"] = done.stderr.strip().splitlines()[-1]
    else:
        sys.exit(f"{RUNS.program} {' '.join(key)}\n{done.stderr}")
    return RUNS.keep(row)


def cells(rules, attacks):
    """The clean runs, then by f; within one f all rules against the attack that does most harm first."""
    for rule in rules:
        yield rule, "none", 0
    for f in [f for f in ORDER if f in COUNTS] + [f for f in COUNTS if f not in ORDER]:
        for attack in attacks:
            for rule in rules:
                yield rule, attack, f


def loss(row):
    return None if row is None or "report" not in row else row["report"]["eval_loss"][-1]


def shown(row, clean, start):
    if row is None:
        return "?"
    got = loss(row)
    if got is None:
        return "fails"
    text = f"{got:.2f}" if got < 1000 else f"{got:.0e}"
    return f"**{text}**" if broken(got, clean, start) else text


def broken(got, clean, start):
    return not got - clean <= BROKEN * (start - clean)  # also where it is no number


def table(rows, rules, attacks):
    counts = sorted(COUNTS)
    print(f"{CLIENTS} clients, {ROUNDS} rounds of {STEPS} steps, exact-svd, seed {SEED}: held-out loss with f = {', '.join(map(str, counts))} attackers; "
          f"bold: more than half of what is learnt without attackers is lost.\n")
    print("| rule | no attack | " + " | ".join(attacks) + " |")
    print("|---" * (len(attacks) + 2) + "|")
    for rule in rules:
        clean_row = rows.get((rule, "none", 0))
        clean = loss(clean_row)
        if clean is None:
            if clean_row is not None:
                print(f"| {rule} | fails |" + " |" * len(attacks))
            continue
        start = clean_row["report"]["eval_loss"][0]
        cells = [" ".join(shown(rows.get((rule, attack, f)), clean, start) for f in counts) for attack in attacks]
        print(f"| {rule} | {clean:.2f} | " + " | ".join(cells) + " |")


def main(model, rows_file):
    rules, attacks = chosen("RULES", RULES), chosen("ATTACKS", ATTACKS)
    started, budget = time.monotonic(), float(os.environ["BUDGET_S"])
    rows, left = {}, 0
    for rule, attack, f in cells(rules, attacks):
        key = cell(model, rows_file, rule, attack, f)
        row = RUNS.find(key)
        if row is not None and "error" in row and os.environ["RETRY"] == "1":
            row = None
        if row is None:
            if os.environ["TABLE"] == "1" or (budget and time.monotonic() - started > budget):
                left += 1
                continue
            row = run(key, os.environ["WORKERS"])
            print(f"{rule}, {attack}, f = {f}: {loss(row)} in {row['seconds']} s", file=sys.stderr, flush=True)
        rows[rule, attack, f] = row
    table(rows, rules, attacks)
    if left:
        print(f"\n{left} runs are still to be done.")


main(*sys.argv[1:])
