#!/usr/bin/env bash
# kill −9 at every failpoint, with real processes, once for each seed: which pass of it, and which client. Goes on where it was.
#
#   scripts/kill_everywhere.sh LOG FIRST LAST     seeds FIRST to LAST, both included; LOG gets a line a case
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -eq 3 ] || { sed -n '2,5p' "$0"; exit 2; }
program=build/release/bin/integration
touch "$1"
mapfile -t cases < <("$program" --gtest_list_tests --gtest_filter='*FailpointTest*' | sed -n 's/^  \([^ ]*\).*/\1/p')
for seed in $(seq "$2" "$3"); do
  for each in "${cases[@]}"; do
    grep -qF "seed $seed $each " "$1" && continue
    if WEFT_KILL_SEED="$seed" "$program" --gtest_filter="Everywhere/FailpointTest.$each" >/dev/null 2>&1; then outcome=ok; else outcome=FAILED; fi
    echo "seed $seed $each $outcome" >>"$1"
  done
done
echo "$(grep -c ' ok$' "$1") cases ok, $(grep -c ' FAILED$' "$1" || true) failed"
