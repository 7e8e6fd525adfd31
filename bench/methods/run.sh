#!/usr/bin/env bash
# The adapter methods side by side: federated (3 clients, the same rows, steps and rounds), learning rates chosen on seed 0 from a grid,
# then run with other seeds. One table for each task: trained scalars, bytes up per client and round, held-out loss or accuracy, seconds
# a step, aggregation error. Then what each method trains and ships on the shapes of larger models (no training).
#
#   bench/methods/run.sh STORIES_MODEL STORIES_ROWS.jsonl [ENCODER_MODEL CLASSIFIED_ROWS.jsonl]
#
# Variables: BIN (build/release/bin), OUT (bench/methods/out), SEEDS ("1 2 3"), ROUNDS (3), STEPS (30 in a round), STRATEGY (flora;
# own: native for the methods that it merges, exact-svd for the others)
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
cd "$here/../.."
[ $# -eq 2 ] || [ $# -eq 4 ] || { sed -n '2,9p' "$0"; exit 2; }
export BIN="${BIN:-build/release/bin}" OUT="${OUT:-bench/methods/out}" SEEDS="${SEEDS:-1 2 3}" ROUNDS="${ROUNDS:-3}" STEPS="${STEPS:-30}"
export STRATEGY="${STRATEGY:-flora}"
mkdir -p "$OUT"
python3 "$here/compare.py" decoder "$1" "$2"
[ $# -eq 2 ] || python3 "$here/compare.py" encoder "$3" "$4"
python3 "$here/compare.py" count
