#!/usr/bin/env bash
# Cross-builds the torch-free core for 64-bit Arm and runs its tests under qemu, to keep the promise that an aarch64 edge box is a normal
# client. Libraries of the target are unpacked into .deps/sysroot-aarch64; the system's own packages stay as they are. Debian 12.
#
#   scripts/cross_aarch64.sh          build, and run the unit tests of the core under qemu-user
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf 'cross: %s\n' "$*"; }

scripts/setup.sh --core --no-build
root=(); [ "$(id -u)" = 0 ] || root=(sudo)
for name in g++-aarch64-linux-gnu qemu-user; do
  dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q "install ok installed" ||
    { say "installing $name"; "${root[@]}" apt-get install -y -qq --no-install-recommends "$name" >/dev/null; }
done

sysroot="$PWD/.deps/sysroot-aarch64"
if [ ! -e "$sysroot/.complete" ]; then
  say "unpacking arm64 libraries into .deps/sysroot-aarch64"
  state="$PWD/.deps/apt-aarch64"
  mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$sysroot"
  : >"$state/status"
  options=(-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o "Dir::State::Lists=$state/lists" -o "Dir::State::status=$state/status"
    -o "Dir::Cache=$state/cache" -o Debug::NoLocking=1 -o APT::Sandbox::User=root)
  apt-get "${options[@]}" update -qq
  apt-get "${options[@]}" install -y -qq --download-only --no-install-recommends libc6-dev libstdc++-12-dev libzmq3-dev cppzmq-dev \
    libcapnp-dev libssl-dev libspdlog-dev libgtest-dev libgmock-dev libsqlite3-dev libsqlitecpp-dev libpcre2-dev libutf8proc-dev \
    libsentencepiece-dev libxxhash-dev libzstd-dev libjemalloc-dev >/dev/null
  for package in "$state"/cache/archives/*.deb; do dpkg -x "$package" "$sysroot"; done
  # Header-only and architecture-independent packages come from the host.
  for header in CLI nlohmann toml++; do cp -r "/usr/include/$header" "$sysroot/usr/include/"; done
  for package in nlohmann_json CLI11; do
    found=$(find /usr/share/cmake /usr/lib -maxdepth 3 -type d -name "$package" | head -n 1)
    [ -z "$found" ] || { mkdir -p "$sysroot/usr/share/cmake"; cp -r "$found" "$sysroot/usr/share/cmake/"; }
  done
  touch "$sysroot/.complete"
fi

say "configuring build/core-aarch64"
cmake --preset core-aarch64 >/dev/null
say "building"
cmake --build build/core-aarch64 -j "$(nproc)" -- --quiet
say "running the core's tests under qemu-aarch64"
QEMU_LD_PREFIX="$sysroot" ctest --test-dir build/core-aarch64 -L core -j "$(nproc)" --output-on-failure -E 'Kill|Fork|Rlimit'
