#!/usr/bin/env bash
# Makes a fresh Debian 12 or Ubuntu 24.04 ready and builds Weft: packages, LibTorch, configure, build. Safe and quick to repeat.
#
#   scripts/setup.sh            packages, LibTorch, the release build of the programs
#   scripts/setup.sh --tests    the same and the tests
#   scripts/setup.sh --core     packages and the torch-free core only
#   scripts/setup.sh --no-build everything but the build
#
# Variables:
#   TORCH_DIR         a LibTorch folder (or a wheel's torch/ folder) to use instead of installing one
#   WEFT_TORCH_INDEX  index to install the torch wheel from, e.g. one that has CPU-only or CUDA wheels (default: pip's own)
#   WEFT_TORCH        version of torch (default 2.13.0)
#   WEFT_JOBS         parallel compile jobs (default: cores, at most one per 2 GB of memory)
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }

mode=release build=yes targets=(weft weft-aggregator weft-client weft-relay weft-sim)
for word in "$@"; do
  case "$word" in
    --core) mode=core targets=() ;;
    --tests) targets=() ;;
    --no-build) build=no ;;
    *) die "unknown option $word (wanted --tests, --core or --no-build)" ;;
  esac
done

packages=(build-essential cmake ninja-build ccache pkg-config python3 python3-pip ca-certificates
  libzmq3-dev cppzmq-dev libcapnp-dev capnproto libssl-dev libspdlog-dev libgtest-dev libgmock-dev librapidcheck-dev libbenchmark-dev
  libcli11-dev libtomlplusplus-dev nlohmann-json3-dev libsqlite3-dev libsqlitecpp-dev libpcre2-dev libutf8proc-dev
  libsentencepiece-dev libxxhash-dev libzstd-dev libjemalloc-dev libcpp-httplib-dev sqlite3)

missing=()
for name in "${packages[@]}"; do
  [ "$(dpkg-query -W -f='${Status}' "$name" 2>/dev/null)" = "install ok installed" ] || missing+=("$name")
done
if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || die "apt-get not found: install these by hand: ${missing[*]}"
  root=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "not root and no sudo; ask an administrator to install: ${missing[*]}"
    root=(sudo)
  fi
  say "installing packages: ${missing[*]}"
  "${root[@]}" apt-get update -qq
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
else
  say "packages are there"
fi

if [ "$mode" = release ]; then
  torch="${TORCH_DIR:-$PWD/.deps/python/torch}"
  if [ -e "$torch/include/ATen/ATen.h" ]; then
    say "LibTorch is at $torch"
  elif [ -n "${TORCH_DIR:-}" ]; then
    die "TORCH_DIR=$TORCH_DIR holds no LibTorch (wanted include/ATen/ATen.h below it)"
  else
    version="${WEFT_TORCH:-2.13.0}"
    index=()
    [ -z "${WEFT_TORCH_INDEX:-}" ] || index=(--index-url "$WEFT_TORCH_INDEX")
    say "installing torch $version into .deps/python (the default index may hold the large CUDA build; set WEFT_TORCH_INDEX or TORCH_DIR to choose)"
    rm -rf .deps/python.new
    # Dependencies come along only where the wheel needs libraries of its own (CUDA); Weft itself uses no Python package.
    python3 -m pip install -q --disable-pip-version-check --no-deps --target .deps/python.new "${index[@]}" "torch==$version" ||
      die "could not install torch $version (network? set WEFT_TORCH_INDEX to another index or TORCH_DIR to a LibTorch folder)"
    if [ -e .deps/python.new/torch/lib/libtorch_cuda.so ]; then
      say "this wheel has CUDA; installing its CUDA libraries as well"
      python3 -m pip install -q --disable-pip-version-check --target .deps/python.new --upgrade "${index[@]}" "torch==$version"
    fi
    rm -rf .deps/python && mv .deps/python.new .deps/python
    torch="$PWD/.deps/python/torch"
  fi
  export TORCH_DIR="$torch"
fi

[ "$build" = yes ] || exit 0
cores=$(nproc)
memory_gb=$(awk '/MemAvailable/ {print int($2 / 2097152) + 1}' /proc/meminfo)
jobs="${WEFT_JOBS:-$((cores < memory_gb ? cores : memory_gb))}"
if [ "$mode" = release ] && ! grep -qs "TORCH_DIR:PATH=$TORCH_DIR\$" build/release/CMakeCache.txt; then
  say "configuring build/release"
  cmake --preset release -DTORCH_DIR="$TORCH_DIR" -DWEFT_WERROR=OFF >/dev/null
elif [ ! -e "build/$mode/CMakeCache.txt" ]; then
  say "configuring build/$mode"
  cmake --preset "$mode" -DWEFT_WERROR=OFF >/dev/null
fi
say "building build/$mode with $jobs jobs"
cmake --build "build/$mode" -j "$jobs" ${targets[@]+--target "${targets[@]}"} -- --quiet
say "done: binaries are in build/$mode/bin"
