#!/usr/bin/env bash
# One command from a fresh machine to a federation: builds Weft, starts an aggregator daemon and three client processes (each with its own data
# and its own adapter rank) that fine-tune the tiny model of examples/tiny over CURVE-encrypted links, and compares the result with each site
# alone and with all data in one place. Variables of scripts/setup.sh apply.
set -euo pipefail
cd "$(dirname "$0")"
scripts/setup.sh

bin=build/release/bin
tiny=examples/tiny
sites=(harbour hospital weaver)
declare -A rank=([harbour]=4 [hospital]=8 [weaver]=16)
work=build/demo
rm -rf "$work" && mkdir -p "$work/logs"
started=$SECONDS
pids=()
cleanup() { for pid in "${pids[@]:-}"; do [ -z "$pid" ] || kill "$pid" 2>/dev/null || true; done; }
trap cleanup EXIT
fail() { printf 'demo: failed: %s (logs are in %s/logs)\n' "$1" "$work" >&2; tail -n 5 "$work"/logs/*.log >&2 || true; exit 1; }
field() { python3 -c 'import json,sys; print(json.loads(sys.stdin.read().strip().splitlines()[-1])[sys.argv[1]])' "$1"; }
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

echo "demo: keys for the aggregator and three sites, written to $work/federation"
"$bin/weft" init --model "$tiny/model" --config "$tiny/run.toml" --sites "$(IFS=,; echo "${sites[*]}")" --server "tcp://127.0.0.1:$port" \
  --out "$work/federation" >"$work/logs/init.log" 2>&1 || fail "weft init"

echo "demo: starting weft-aggregator and ${#sites[@]} weft-client processes on tcp://127.0.0.1:$port (CURVE)"
"$bin/weft-aggregator" "$work/federation/run.toml" --set "run.dir=$PWD/$work/run" 2>"$work/logs/aggregator.log" &
aggregator=$!; pids+=("$aggregator")
for site in "${sites[@]}"; do
  "$bin/weft-client" "$work/federation/$site.toml" --set "client.data=$PWD/$tiny/data/$site/train.jsonl" \
    --set "client.valid=$PWD/$tiny/data/$site/valid.jsonl" --set "client.rank=${rank[$site]}" --set "client.dir=$PWD/$work/client-$site" \
    2>"$work/logs/client-$site.log" &
  pids+=("$!")
done
wait "$aggregator" || fail "the aggregator did not complete the run"
for pid in "${pids[@]:1}"; do wait "$pid" || fail "a client did not complete the run"; done
pids=()
"$bin/weft" runs rounds "$work/run"
"$bin/weft" runs verify "$work/run"

echo "demo: each site alone, and all data in one place, with as many steps as the federation's clients took"
steps=$((6 * 20))
train() {  # name, data file, rank
  "$bin/weft" train --model "$tiny/model" --data "$2" --rank "$3" --alpha $((2 * $3)) --lr 3e-3 --grad-clip 1 --batch 16 --steps "$steps" --seed 7 \
    --threads 1 --out "$work/alone/$1" --json >"$work/logs/train-$1.json" 2>"$work/logs/train-$1.log" || fail "weft train $1"
}
evaluate() { "$bin/weft" eval --model "$tiny/model" --data "$tiny/data/heldout.jsonl" "$@" --json 2>/dev/null | field loss; }
for site in "${sites[@]}"; do train "$site" "$tiny/data/$site/train.jsonl" "${rank[$site]}" & done
train pooled "$tiny/data/pooled.jsonl" 16 &
for job in $(jobs -p); do wait "$job"; done

best=$(ls -d "$work"/run/adapters/round-* | sort | tail -n 1)
printf '\n%-34s %s\n' "held-out loss (questions of all sites)" "loss"
base=$(evaluate); printf '  %-32s %8.4f\n' "base model" "$base"
best_alone=9999
for site in "${sites[@]}"; do
  loss=$(evaluate --adapter "$work/alone/$site"); printf '  %-32s %8.4f\n' "$site alone (rank ${rank[$site]})" "$loss"
  best_alone=$(python3 -c "print(min($best_alone, $loss))")
done
federated=$(evaluate --adapter "$best"); printf '  %-32s %8.4f\n' "federated (ranks 4, 8, 16)" "$federated"
printf '  %-32s %8.4f\n\n' "all data in one place (rank 16)" "$(evaluate --adapter "$work/alone/pooled")"
python3 -c "import sys; sys.exit(0 if $federated < $best_alone else 1)" || fail "the federation is not better than every site alone"

ask() { "$bin/weft" generate --model "$tiny/model" --prompt "$1"$'\n' --max-new-tokens 40 --temperature 0 "${@:2}" 2>/dev/null; }
for question in "machine crane | code 4 7 | state smoking" "the loom shows 8 3 and is running"; do
  printf 'asked:   %s\n  before: %s\n  after:  %s\n' "$question" "$(ask "$question")" "$(ask "$question" --adapter "$best")"
done
cat <<END

The federated adapter is a PEFT folder: $best
The round log: $bin/weft runs show $work/run
Your own federation: $bin/weft init --model YOUR_MODEL --sites a,b,c --server tcp://HOST:7711 --out my-federation   (README, "Your own federation")
demo: took $((SECONDS - started)) s after the build
demo: ok
END
