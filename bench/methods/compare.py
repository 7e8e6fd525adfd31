"""Runs weft-sim once for each method, learning rate and seed, and prints the tables of run.sh.

Each run's report is kept in OUT/runs.jsonl; a run found there is not run again, so what was interrupted goes on where it was.
"""
import json
import os
import statistics
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from runs import Runs, arguments  # noqa: E402

BIN = os.environ["BIN"]
RUNS = Runs(os.environ["OUT"], os.path.join(BIN, "weft-sim"))
SEEDS = [int(seed) for seed in os.environ["SEEDS"].split()]
ROUNDS, STEPS, STRATEGY = os.environ["ROUNDS"], os.environ["STEPS"], os.environ["STRATEGY"]
CLIENTS = 3
SITTINGS = 3

# name, method, rank, options, learning rates to choose from
DECODER = [
    ("LoRA r=1", "lora", 1, {}, (1e-3, 3e-3, 1e-2, 3e-2)),
    ("LoRA r=8", "lora", 8, {}, (1e-3, 3e-3, 1e-2)),
    ("NOLA r=8 k=32", "nola", 8, {"nola.k": 32}, (1e-2, 3e-2, 1e-1)),
    ("MSPLoRA r=8", "msplora", 8, {}, (1e-3, 3e-3, 1e-2)),
    ("RoseLoRA r=8 5 %", "roselora", 8, {"roselora.keep": 0.05}, (3e-3, 1e-2, 3e-2)),
    ("RoseLoRA r=8 12.5 % (r=1's non-zeros)", "roselora", 8, {"roselora.keep": 0.125}, (3e-3, 1e-2, 3e-2)),
    ("KaSA r=8", "kasa", 8, {}, (1e-3, 3e-3, 1e-2)),
]
ENCODER = [
    ("LoRA r=1", "lora", 1, {}, (1e-3, 3e-3)),
    ("LoRA r=8", "lora", 8, {}, (1e-3, 3e-3)),
    ("NOLA r=8 k=64", "nola", 8, {"nola.k": 64}, (1e-2, 3e-2)),
    ("MSPLoRA r=8", "msplora", 8, {}, (1e-3, 3e-3)),
    ("RoseLoRA r=8 5 %", "roselora", 8, {"roselora.keep": 0.05}, (3e-3, 1e-2)),
    ("RoseLoRA r=8 12.5 % (r=1's non-zeros)", "roselora", 8, {"roselora.keep": 0.125}, (3e-3, 1e-2)),
    ("KaSA r=8", "kasa", 8, {}, (1e-3, 3e-3)),
]


# Methods that strategy native merges in their own coordinates, and what they need for it.
NATIVE = {"nola": {"nola.rounds": '"alternate"'}, "msplora": {}, "kasa": {}}


def placed(method, options):
    """The strategy of a method and its options under it; "own": the methods' own where there is one."""
    if STRATEGY != "own":
        return STRATEGY, options
    return ("native", options | NATIVE[method]) if method in NATIVE else ("exact-svd", options)


def settings(task, strategy, rank, options, lr, rounds, steps):
    chosen = {
        "run.num-server-rounds": rounds, "adapter.rank": rank, "adapter.alpha": 2 * rank, "train.local-steps": steps,
        "train.lr": lr, "strategy.name": strategy, "sim.clients": CLIENTS, "cohort.fraction-evaluate": 0,
        "cohort.min-available-nodes": CLIENTS, "cohort.min-train-nodes": CLIENTS,
    }
    if options:
        chosen["adapter.options"] = "{ " + ", ".join(f"{key} = {value}" for key, value in options.items()) + " }"
    if task == "decoder":
        chosen |= {"train.batch-size": 8, "train.max-len": 256, "sim.eval-rows": 200}
    else:
        chosen |= {"train.batch-size": 16, "train.max-len": 64, "sim.eval-rows": 400, "adapter.target-modules": "query,value",
                   "adapter.modules-to-save": "classifier", "adapter.labels": os.environ.get("LABELS", "0,1")}
    return chosen


def run(task, model, rows, method, rank, options, lr, seed, rounds=ROUNDS, steps=STEPS, sitting=None):
    strategy, options = placed(method, options)
    chosen = {"adapter.method": method} | settings(task, strategy, rank, options, lr, rounds, steps)
    return RUNS.report(arguments(model, rows, seed, chosen), f"sitting {sitting}" if sitting is not None else None)


def seconds_a_step(task, model, rows, methods):
    """Medians over sittings in which all methods take turns: the machine's own moods fall on all alike."""
    times = {name: [] for name, *_ in methods}
    for sitting in range(SITTINGS):
        for name, method, rank, options, rates in methods:
            report = run(task, model, rows, method, rank, options, rates[0], 0, "1", "10", sitting)
            times[name].append(1 / report["client_steps_per_s"])
    return {name: statistics.median(values) for name, values in times.items()}


def count(model, method, rank, options, targets):
    command = [f"{BIN}/weft", "bench", "count", "--model", model, "--method", method, "--rank", str(rank), "--json"]
    if targets:
        command += ["--target-modules", targets]
    for key, value in options.items():
        command += ["--option", f"{key}={value}"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def bytes_up(report):
    """Of one client in one round."""
    return sum(row["bytes_up"] for row in report["shipped"]) / sum(row["updates"] for row in report["shipped"])


def score(task, report):
    return report["eval_accuracy"][-1] if task == "encoder" else report["eval_loss"][-1]


def compare(task, model, rows):
    better = max if task == "encoder" else min
    methods = DECODER if task == "decoder" else ENCODER
    results = []
    for name, method, rank, options, rates in methods:
        tried = {lr: run(task, model, rows, method, rank, options, lr, 0) for lr in rates}
        lr = better(tried, key=lambda rate: score(task, tried[rate]))
        results.append((lr, [run(task, model, rows, method, rank, options, lr, seed) for seed in SEEDS]))
    seconds = seconds_a_step(task, model, rows, methods)
    head = "accuracy" if task == "encoder" else "loss"
    print(f"\n{task}: {CLIENTS} clients, {ROUNDS} rounds of {STEPS} steps, {STRATEGY}, seeds {SEEDS}\n")
    print(f"| method | lr | scalars | bytes up | of LoRA's | held-out {head} (median; range) | s/step | error |")
    print("|---|---|---|---|---|---|---|---|")
    plain = {rank: bytes_up(reports[0]) for (_, method, rank, *_), (_, reports) in zip(methods, results) if method == "lora"}
    for (name, method, rank, options, _), (lr, reports) in zip(methods, results):
        scores = [score(task, report) for report in reports]
        each = bytes_up(reports[0])
        scalars = count(model, method, rank, options, "query,value" if task == "encoder" else "")["parameters"]
        error = max(max(report["error_published"]) for report in reports)
        print(f"| {name} | {lr:g} | {scalars:,} | {each:,.0f} | {each / plain[rank]:.3f} | {statistics.median(scores):.4f} "
              f"({min(scores):.4f}–{max(scores):.4f}) | {seconds[name]:.3f} | {error:.1e} |")


def counts():
    shapes = os.path.join(os.path.dirname(__file__), "shapes")
    rows = [
        ("SmolLM2-135M", "smollm2-135m", "", "LoRA r=8", "lora", 8, {}, None),
        ("SmolLM2-135M", "smollm2-135m", "", "NOLA k=512", "nola", 8, {"k": 512}, None),
        ("SmolLM2-135M", "smollm2-135m", "", "MSPLoRA r=8", "msplora", 8, {}, None),
        ("SmolLM2-135M", "smollm2-135m", "", "KaSA r=8", "kasa", 8, {}, None),
        ("RoBERTa-base q,v", "roberta-base", "query,value", "LoRA r=8", "lora", 8, {}, 294912),
        ("RoBERTa-base q,v", "roberta-base", "query,value", "MSPLoRA r=8", "msplora", 8, {}, 135168),
        ("RoBERTa-base q,v", "roberta-base", "query,value", "KaSA r=8", "kasa", 8, {}, 295104),
        ("LLaMA-2-7B q,v", "llama-2-7b", "q_proj,v_proj", "LoRA r=64", "lora", 64, {}, 33554432),
        ("LLaMA-2-7B q,v", "llama-2-7b", "q_proj,v_proj", "MSPLoRA r=64", "msplora", 64, {}, 11010048),
        ("LLaMA-2-7B", "llama-2-7b", "", "LoRA r=1", "lora", 1, {}, 2498560),
        ("LLaMA-2-7B", "llama-2-7b", "", "NOLA r=16 k=128", "nola", 16, {"k": 128}, 57344),
    ]
    print("\n| model | method | scalars | published | bytes up (float32) | of LoRA's scalars |\n|---|---|---|---|---|---|")
    for model, folder, targets, name, method, rank, options, published in rows:
        got = count(os.path.join(shapes, folder), method, rank, options, targets)
        known = f"{published:,}" if published else "–"
        print(f"| {model} | {name} | {got['parameters']:,} | {known} | {got['bytes_float32']:,} | {got['ratio']:.4f} |")


if sys.argv[1] == "count":
    counts()
else:
    compare(sys.argv[1], sys.argv[2], sys.argv[3])
