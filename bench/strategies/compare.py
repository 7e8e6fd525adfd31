"""Runs weft-sim for each strategy, setting, learning rate and seed, and prints the tables of run.sh."""
import json
import os
import random
import statistics
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from runs import Runs, arguments  # noqa: E402

ROUNDS, STEPS = os.environ["ROUNDS"], os.environ["STEPS"]
RUNS = Runs(os.environ["OUT"], os.path.join(os.environ["BIN"], "weft-sim"))
CLIENTS = 4
BEST = 6
MORE_SEEDS = (1, 2, 3)

# name in the tables, settings of the strategy, can it merge different ranks
STRATEGIES = [
    ("exact-svd", {"name": "exact-svd", "slots": "random"}, True),
    ("exact-svd, top slots", {"name": "exact-svd", "slots": "top"}, True),
    ("exact-svd, top slots, tail on client", {"name": "exact-svd", "slots": "top", "tail-on-client": "true"}, True),
    ("exact-svd, no carry (FlexLoRA)", {"name": "exact-svd", "carry": "false"}, True),
    ("flora", {"name": "flora"}, True),
    ("fedavg (zero-pad)", {"name": "fedavg"}, True),
    ("fedavg, raw", {"name": "fedavg", "absorb": "raw"}, True),
    ("hetlora", {"name": "hetlora"}, True),
    ("rbla", {"name": "rbla"}, True),
    ("raflora", {"name": "raflora"}, True),
    ("florist", {"name": "florist"}, True),
    ("fedex", {"name": "fedex"}, True),
    ("fedmomentum", {"name": "fedmomentum"}, True),
    ("lora-fair", {"name": "lora-fair"}, True),
    ("fedrot", {"name": "fedrot"}, False),
    ("fedask", {"name": "fedask"}, True),
    ("ffa", {"name": "ffa"}, True),
    ("rolora", {"name": "rolora"}, True),
    ("fedsvd", {"name": "fedsvd"}, True),
]
# The six best on mixed ranks of the decoder, and what all are measured by.
OF_ENCODER = ("exact-svd", "exact-svd, top slots", "fedex", "fedmomentum", "flora", "florist", "fedavg (zero-pad)")
RATES = {"decoder": (2e-3, 5e-3, 1e-2), "encoder": (1e-3, 3e-3, 1e-2)}
EQUAL, MIXED, SKEWED = "equal ranks", "ranks 2, 4, 8, 16", "ranks 2, 4, 8, 16, skewed rows"


def with_place(rows):
    """The e2e rows with the restaurant's name as a field of its own, to share them out by it."""
    out = os.path.join(os.environ["OUT"], "rows-by-place.jsonl")
    with open(rows) as lines, open(out, "w") as written:
        for row in map(json.loads, lines):
            pairs = dict(part.split(" : ", 1) for part in row["context"].split(" | ") if " : " in part)
            row["place"] = next((value.strip() for key, value in pairs.items() if key.strip().lower() == "name"), "none")
            written.write(json.dumps(row, ensure_ascii=False) + "\n")
    return out


def shuffled(rows):
    """The rows in an order of no meaning, for the first of them are evaluated on, and the names of their classes."""
    out = os.path.join(os.environ["OUT"], "rows-shuffled.jsonl")
    with open(rows) as lines:
        all_rows = [json.loads(line) for line in lines]
    random.Random(0).shuffle(all_rows)
    with open(out, "w") as written:
        written.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in all_rows)
    return out, json.dumps(sorted({row["label"] for row in all_rows}))


def settings(task, strategy, setting, rate, labels):
    chosen = {
        "run.num-server-rounds": ROUNDS, "train.local-steps": STEPS, "train.lr": rate, "adapter.rank": 8, "adapter.alpha": 16,
        "sim.clients": CLIENTS, "cohort.fraction-evaluate": 0, "cohort.min-available-nodes": CLIENTS, "cohort.min-train-nodes": CLIENTS,
    }
    chosen |= {f"strategy.{key}": value for key, value in strategy.items()}
    if setting != EQUAL:
        chosen |= {"adapter.rank": 16, "adapter.alpha": 32, "sim.ranks": "2,4,8,16"}
    if task == "decoder":
        chosen |= {"train.batch-size": 8, "train.max-len": 256, "sim.eval-rows": 200}
        if setting == SKEWED:
            chosen |= {"sim.partition": "field", "sim.field": "place"}
    else:
        chosen |= {"train.batch-size": 16, "train.max-len": 64, "sim.eval-rows": 500, "adapter.target-modules": "query,value",
                   "adapter.modules-to-save": "classifier", "adapter.labels": labels}
        if setting == SKEWED:
            chosen |= {"sim.partition": "dirichlet", "sim.field": "label", "sim.dirichlet-alpha": 0.1}
    return chosen


def score(report):
    return report["eval_loss"][-1]


def shown(report, task):
    return report["eval_accuracy"][-1] if task == "encoder" else score(report)


def bytes_moved(report):
    """Up and down of one client in one round."""
    return tuple(sum(report[way]) / len(report[way]) / CLIENTS for way in ("bytes_up", "bytes_down"))


def compare(task, model, rows, labels=""):
    table = {}
    names = [entry for entry in STRATEGIES if task == "decoder" or entry[0] in OF_ENCODER]

    def run(entry, setting, rate, seed):
        report = RUNS.report(arguments(model, rows, seed, settings(task, entry[1], setting, rate, labels)))
        print(f"{task}: {entry[0]}, {setting}, lr {rate}, seed {seed}: {score(report):.4f}", file=sys.stderr, flush=True)
        return report

    rates = {}
    for entry in names:
        tuned_on = MIXED if entry[2] else EQUAL
        rates[entry[0]] = min(RATES[task], key=lambda rate: score(run(entry, tuned_on, rate, 0)))
    for setting in (MIXED, SKEWED, EQUAL):
        able = [entry for entry in names if entry[2] or setting == EQUAL]
        first = {entry[0]: run(entry, setting, rates[entry[0]], 0) for entry in able}
        best = sorted(first, key=lambda name: score(first[name]))[:BEST]
        table[setting] = {}
        for entry in able:
            reports = [first[entry[0]]]
            if entry[0] in best:
                reports += [run(entry, setting, rates[entry[0]], seed) for seed in MORE_SEEDS]
            table[setting][entry[0]] = (rates[entry[0]], reports)
        print_table(task, setting, table[setting])
    with open(os.path.join(os.environ["OUT"], f"{task}.json"), "w") as out:
        json.dump({setting: {name: {"lr": rate, "loss": [report["eval_loss"] for report in reports],
                                    "up": bytes_moved(reports[0])[0], "down": bytes_moved(reports[0])[1]}
                             for name, (rate, reports) in rows.items()} for setting, rows in table.items()}, out)


def print_table(task, setting, rows):
    measure = "held-out accuracy" if task == "encoder" else "held-out loss"
    print(f"\n| {task}, {setting} | lr | {measure} | seeds | bytes up | bytes down | error to ideal | server s |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (rate, reports) in sorted(rows.items(), key=lambda item: statistics.median(map(score, item[1][1]))):
        values = [shown(report, task) for report in reports]
        spread = f" ({min(values):.4f}–{max(values):.4f})" if len(values) > 1 else ""
        up, down = bytes_moved(reports[0])
        error = statistics.median(reports[0]["error_to_ideal"])
        seconds = statistics.median(reports[0]["merge_s"])
        print(f"| {name} | {rate} | {statistics.median(values):.4f}{spread} | {len(values)} | {up:,.0f} | {down:,.0f} | {error:.1e} |"
              f" {seconds:.3f} |")
    sys.stdout.flush()


if __name__ == "__main__":
    kind, base, data = sys.argv[1:]
    if kind == "decoder":
        compare(kind, base, with_place(data))
    else:
        compare(kind, base, *shuffled(data))
