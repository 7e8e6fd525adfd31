#!/usr/bin/env bash
# Builds and tests everything: the torch-free core under ASan and UBSan first, then all tests of the release build.
# Ends with ctest's own summary. Variables of scripts/setup.sh apply; WEFT_SKIP_ASAN=1 leaves the sanitizer pass out.
set -euo pipefail
cd "$(dirname "$0")"
scripts/setup.sh --tests
jobs="$(nproc)"
if [ "${WEFT_SKIP_ASAN:-}" != 1 ]; then
  echo "test: core tests under AddressSanitizer and UndefinedBehaviorSanitizer"
  [ -e build/asan/CMakeCache.txt ] || cmake --preset asan >/dev/null
  cmake --build build/asan -j "$jobs" -- --quiet
  ctest --test-dir build/asan -j "$jobs" --output-on-failure --progress -Q || {
    ctest --test-dir build/asan --rerun-failed --output-on-failure; exit 1; }
fi
echo "test: all tests of build/release"
ctest --test-dir build/release -j "$jobs" --output-on-failure
