#!/usr/bin/env bash
# The strategies side by side, on real training: equal ranks; ranks 2, 4, 8, 16; the same ranks with each client's rows of its own kind. The
# same rows, steps and rounds for all; learning rates chosen for each strategy on mixed ranks with seed 0, then that seed for all and
# three more for the best six. One table for each setting and one plot, loss against bytes. With an encoder and rows of {"text", "label"} the same
# for seven of them on classification, skewed by Dirichlet(0.1) over the labels.
#
#   bench/strategies/run.sh STORIES_MODEL E2E_ROWS.jsonl [ENCODER_MODEL CLASSIFIED_ROWS.jsonl]
#
# Variables: BIN (build/release/bin), OUT (bench/strategies/out), ROUNDS (6), STEPS (15 in a round)
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
cd "$here/../.."
[ $# -eq 2 ] || [ $# -eq 4 ] || { sed -n '2,9p' "$0"; exit 2; }
export BIN="${BIN:-build/release/bin}" OUT="${OUT:-bench/strategies/out}" ROUNDS="${ROUNDS:-6}" STEPS="${STEPS:-15}"
mkdir -p "$OUT"
python3 "$here/compare.py" decoder "$1" "$2"
[ $# -eq 2 ] || python3 "$here/compare.py" encoder "$3" "$4"
