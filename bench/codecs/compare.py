"""Runs weft-sim once for each setting of [wire] and seed, and prints the table of run.sh.

Each run's report is kept in OUT/runs.jsonl; a run found there is not run again, so what was interrupted goes on where it was.
"""
import json
import os
import re
import statistics
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from runs import Runs, arguments  # noqa: E402

RUNS = Runs(os.environ["OUT"], os.path.join(os.environ["BIN"], "weft-sim"))
SEEDS = [int(seed) for seed in os.environ["SEEDS"].split()]
ROUNDS, STEPS = os.environ["ROUNDS"], os.environ["STEPS"]
CLIENTS = 3
CODECS = ("float32", "float16", "bfloat16", "int8", "int4", "nf4")


def wires():
    """(name, settings of [wire])"""
    for codec in CODECS:
        yield codec, {"codec": codec}
        yield f"{codec}, delta", {"codec": codec, "delta": True}
    for codec in ("float32", "bfloat16"):
        yield f"{codec}, delta, compressed", {"codec": codec, "delta": True, "compress": True}
    for share in (0.25, 0.1):
        for codec in ("float16", "int8"):
            for feedback in (True, False):
                name = f"{codec}, delta, top {share:.0%}" + ("" if feedback else ", no feedback")
                yield name, {"codec": codec, "delta": True, "top-k": share, "error-feedback": feedback}
    for down in ("bfloat16", "int8", "nf4"):
        yield f"int8, delta, down {down}", {"codec": "int8", "delta": True, "down-codec": down}


def run(model, rows, strategy, wire, seed):
    chosen = {
        "run.num-server-rounds": ROUNDS, "adapter.rank": 8, "adapter.alpha": 16, "train.local-steps": STEPS, "train.lr": 1e-2,
        "train.batch-size": 8, "train.max-len": 256, "strategy.name": strategy, "sim.clients": CLIENTS, "sim.eval-rows": 200,
        "cohort.fraction-evaluate": 0, "cohort.min-available-nodes": CLIENTS, "cohort.min-train-nodes": CLIENTS,
    } | {f"wire.{key}": json.dumps(value).strip('"') for key, value in wire.items()}
    return RUNS.report(arguments(model, rows, seed, chosen))


def each(report, way):
    """Bytes of one client in one round."""
    return sum(report[way]) / int(ROUNDS) / CLIENTS


def main(model, rows):
    for strategy in os.environ["STRATEGIES"].split():
        print(f"\n{strategy}: {CLIENTS} clients, {ROUNDS} rounds of {STEPS} steps, seeds {SEEDS}\n")
        print("| wire | bytes up | of float32's | bytes down | held-out loss (median; range) | to float32's, same seed |")
        print("|---|---|---|---|---|---|")
        plain = None
        for name, wire in wires():
            if not re.fullmatch(os.environ["WIRES"], name):
                continue
            if strategy != "fedavg" and wire.get("error-feedback") is False:
                continue  # there is none in a basis of every round's own
            reports = [run(model, rows, strategy, wire, seed) for seed in SEEDS]
            losses = [report["eval_loss"][-1] for report in reports]
            up = sum(row["bytes_up"] for row in reports[0]["shipped"]) / sum(row["updates"] for row in reports[0]["shipped"])
            plain = plain or (up, losses)
            off = statistics.median(loss - base for loss, base in zip(losses, plain[1]))
            down = each(reports[0], "bytes_down") if "bytes_down" in reports[0] else float("nan")
            print(f"| {name} | {up:,.0f} | {up / plain[0]:.3f} | {down:,.0f} | {statistics.median(losses):.4f} "
                  f"({min(losses):.4f}–{max(losses):.4f}) | {off:+.4f} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
