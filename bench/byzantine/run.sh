#!/usr/bin/env bash
# Robust rules against hostile clients: 20 clients with real training, f of them hostile, every attack against every rule, one seed. One table:
# held-out loss by f, and the f from which a rule loses more than half of what it learns without attackers.
#
#   bench/byzantine/run.sh STORIES_MODEL ROWS.jsonl
#
# Variables: BIN (build/release/bin), OUT (bench/byzantine/out), RULES and ATTACKS (names of matrix.py with commas between; all),
# COUNTS (f; "2 4 6 8"), SEED (1), ROUNDS (4), STEPS (6 in a round), NORM_MAX (12, of the rule "norm bound"), WORKERS (2), BUDGET_S (start no more
# runs after so many seconds; 0: never stop), RETRY (1: run again what failed).
# A run that OUT/runs.jsonl holds is not run again: start it again to go on. TABLE=1 prints the table of what is there and runs nothing.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
cd "$here/../.."
[ $# -eq 2 ] || { sed -n '2,11p' "$0"; exit 2; }
export BIN="${BIN:-build/release/bin}" OUT="${OUT:-bench/byzantine/out}" SEED="${SEED:-1}" ROUNDS="${ROUNDS:-4}" STEPS="${STEPS:-6}"
export WORKERS="${WORKERS:-2}" BUDGET_S="${BUDGET_S:-0}" RETRY="${RETRY:-0}" TABLE="${TABLE:-0}" COUNTS="${COUNTS:-2 4 6 8}"
mkdir -p "$OUT"
python3 "$here/matrix.py" "$1" "$2"
