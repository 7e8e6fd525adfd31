#!/usr/bin/env bash
# The codecs side by side: one federation (3 clients, LoRA of rank 8), run once for each codec, with whole updates and with deltas,
# with top-k and with a rounded downlink. One table: bytes of a client's update and of what it is sent, held-out loss.
#
#   bench/codecs/run.sh STORIES_MODEL STORIES_ROWS.jsonl
#
# Variables: BIN (build/release/bin), OUT (bench/codecs/out), SEEDS ("1 2 3"), ROUNDS (3), STEPS (30 in a round), STRATEGIES ("exact-svd fedavg"),
# WIRES (.*: a regular expression of the settings' names in compare.py; float32, the first, is what others are compared with)
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
cd "$here/../.."
[ $# -eq 2 ] || { sed -n '2,9p' "$0"; exit 2; }
export BIN="${BIN:-build/release/bin}" OUT="${OUT:-bench/codecs/out}" SEEDS="${SEEDS:-1 2 3}" ROUNDS="${ROUNDS:-3}" STEPS="${STEPS:-30}"
export STRATEGIES="${STRATEGIES:-exact-svd fedavg}" WIRES="${WIRES:-.*}"
mkdir -p "$OUT"
python3 "$here/compare.py" "$1" "$2"
