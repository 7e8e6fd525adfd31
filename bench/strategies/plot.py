"""Held-out loss against bytes moved, of the runs that compare.py kept: OUT/decoder.json → docs/strategies.svg. Needs matplotlib.

    python3 bench/strategies/plot.py OUT/decoder.json docs/strategies.svg
"""
import json
import statistics
import sys

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "weft"  # the same file for the same runs
import matplotlib.pyplot as plt  # noqa: E402

source, target = sys.argv[1:]
with open(source) as runs:
    settings = json.load(runs)
figure, axes = plt.subplots(1, len(settings), figsize=(6 * len(settings), 6), sharey=True)
for axis, (setting, rows) in zip(axes, settings.items()):
    ranked = sorted(rows.items(), key=lambda item: statistics.median(losses[-1] for losses in item[1]["loss"]))
    for place, (name, row) in enumerate(ranked):
        losses = [statistics.median(values) for values in zip(*row["loss"])]
        moved = [round_ * (row["up"] + row["down"]) / 1e6 for round_ in range(len(losses))]
        axis.plot(moved, losses, marker=".", linewidth=1.5 if place < 6 else 0.6, alpha=1 if place < 6 else 0.5, label=name)
    axis.set_title(setting)
    axis.set_xlabel("MB up and down, of one client")
    axis.set_yscale("log")
    axis.legend(fontsize=6)
axes[0].set_ylabel("held-out loss (median of seeds)")
figure.tight_layout()
figure.savefig(target, metadata={"Date": None})
