#!/usr/bin/env bash
# Runs fuzz targets, each for a while, from their seeds and what earlier runs found interesting.
#
#   tests/fuzz/run.sh [SECONDS] [TARGET…]      default: 60 seconds for every target
#
# Corpora grow in build/fuzz/corpus. An input that ends a program is left in build/fuzz/found.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds="${1:-60}"
[ $# -eq 0 ] || shift
[ -e build/fuzz/CMakeCache.txt ] || cmake --preset fuzz >/dev/null
cmake --build build/fuzz --target fuzzers -- --quiet
build/fuzz/bin/fuzz_seeds build/fuzz/seeds >/dev/null
mkdir -p build/fuzz/found
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
  for folder in build/fuzz/seeds/*/; do targets+=("$(basename "$folder")"); done
fi
# Allocations of a library that fail are its own business; a check of ours is a std::logic_error and ends the program.
export ASAN_OPTIONS="allocator_may_return_null=1:${ASAN_OPTIONS:-}" UBSAN_OPTIONS="print_stacktrace=1:${UBSAN_OPTIONS:-}"
export seconds

fuzz_one() {
  target="$1" log="build/fuzz/found/$1.log"
  mkdir -p "build/fuzz/corpus/$target"
  known=(); [ ! -d "tests/fuzz/corpus/$target" ] || known=("tests/fuzz/corpus/$target")
  words=(); [ ! -s "build/fuzz/seeds/$target.dict" ] || words=(-dict="build/fuzz/seeds/$target.dict")
  if "build/fuzz/bin/fuzz_$target" "build/fuzz/corpus/$target" "build/fuzz/seeds/$target" "${known[@]}" "${words[@]}" \
    -max_total_time="$seconds" -max_len=16384 -timeout=20 -rss_limit_mb=2048 \
    -artifact_prefix="build/fuzz/found/$target-" -print_final_stats=1 >"$log" 2>&1; then
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    echo "fuzz: $target: $runs inputs, $(find "build/fuzz/corpus/$target" -type f | wc -l) kept"
  else
    echo "fuzz: $target: FOUND something, see $log"
    return 1
  fi
}
export -f fuzz_one
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} bash -c 'fuzz_one {}' || { echo "fuzz: failed"; exit 1; }
