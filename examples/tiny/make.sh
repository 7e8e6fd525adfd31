#!/usr/bin/env bash
# Makes everything in this folder again, same bytes: data, tokenizer, and the tiny base model, trained from random weights on the corpus.
# Needs a build (scripts/setup.sh); takes a few minutes on 2 cores.
set -euo pipefail
cd "$(dirname "$0")"
weft=../../build/release/bin/weft
python3 make_data.py data
python3 make_tokenizer.py data model
rm -f model/model.safetensors model/weft-base-hash.json
"$weft" train --full --init-seed 1 --model model --data data/corpus.jsonl --batch 32 --steps 400 --lr 3e-3 --warmup 40 --schedule linear \
  --grad-clip 1 --seed 1 --threads 1 --out trained --json | tail -n 1 | cut -c 1-200
mv trained/model.safetensors model/model.safetensors
rm -rf trained
