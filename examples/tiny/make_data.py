#!/usr/bin/env python3
"""Writes the demo's text: a corpus for the tiny base model, and three sites' data. Standard library only; same bytes every time.

A network of repair shops: a machine shows a two-digit fault code, the answer names the part and what to do. For each machine family the first
digit chooses the part and the second the action, by tables of that family. The base model reads about eight families; the three sites each
hold the log book of one family that the base model has never seen (crane, boiler, loom) and that no other site has. So a site alone can learn
one third of the held-out questions, and only a federation, or data in one place, all of them. Held-out rows are codes no site trained on.

usage: make_data.py OUT_FOLDER
"""
import json
import pathlib
import random
import sys

PARTS = ["belt", "valve", "brake", "filter", "bearing", "sensor", "pump", "switch", "hose", "gear", "fan", "seal", "motor", "spring", "cable",
         "lamp", "clutch", "piston", "nozzle", "roller"]
ACTIONS = ["replace it", "clean it with oil", "tighten the two bolts", "let it cool down", "read the gauge again", "cut the power first",
           "call the night shift", "drain the water", "order a new one", "turn it a quarter left", "wipe off the dust", "note the time",
           "measure the gap", "reset the counter", "lower the speed", "open the side door"]
BASE_FAMILIES = ["press", "mixer", "mill", "oven", "drill", "lift", "saw", "chiller"]
SITE_FAMILIES = {"harbour": "crane", "hospital": "boiler", "weaver": "loom"}
STATES = {"running": "then start slowly", "stopped": "then start as usual", "smoking": "then keep away"}
ASK = ["machine {m} | code {c} | state {s}", "the {m} shows {c} and is {s}", "{s} {m} , code {c} : what now ?"]


def tables(family):
    draw = random.Random("tables of " + family)
    return draw.sample(PARTS, 10), draw.sample(ACTIONS, 10)


def answer(family, code, state):
    parts, actions = tables(family)
    return f"check the {parts[code // 10]} and {actions[code % 10]} , {STATES[state]} ."


def rows(family, codes, draw):
    out = []
    for code in codes:
        for state in STATES:
            ask = draw.choice(ASK).format(m=family, c=f"{code // 10} {code % 10}", s=state)
            out.append({"family": family, "prompt": ask, "completion": answer(family, code, state)})
    draw.shuffle(out)
    return out


def write(path, items):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="\n") as out:
        for item in items:
            out.write(json.dumps(item) + "\n")


def main():
    out = pathlib.Path(sys.argv[1])
    draw = random.Random("the base model's corpus")
    corpus = []
    for family in BASE_FAMILIES:
        for _ in range(4):
            corpus += rows(family, range(100), draw)
    draw.shuffle(corpus)
    write(out / "corpus.jsonl", corpus)
    heldout = []
    for site, family in SITE_FAMILIES.items():
        draw = random.Random("log book of " + site)
        codes = list(range(100))
        draw.shuffle(codes)
        write(out / site / "train.jsonl", rows(family, codes[:70], draw))
        write(out / site / "valid.jsonl", rows(family, codes[70:80], draw))
        heldout += rows(family, codes[80:], draw)
    random.Random("held out").shuffle(heldout)
    write(out / "heldout.jsonl", heldout)
    write(out / "pooled.jsonl", [json.loads(line) for site in SITE_FAMILIES for line in open(out / site / "train.jsonl", encoding="utf-8")])


if __name__ == "__main__":
    main()
