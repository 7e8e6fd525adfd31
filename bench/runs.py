"""Runs of weft-sim whose reports are kept: what was interrupted goes on where it was."""
import json
import os
import subprocess
import sys
import time


def arguments(model, rows, seed, settings):
    """The command line of a run with these settings ("section.key": value)."""
    return ["--model", model, "--data", rows, "--seed", str(seed), "--json"] + [
        word for name, value in settings.items() for word in ("--set", f"{name}={value}")]


class Runs:
    """Rows of OUT/runs.jsonl, {"key", "report"}, by the arguments that made them."""

    def __init__(self, folder, program):
        self.program = program
        self.path = os.path.join(folder, "runs.jsonl")
        self.settings = os.path.join(folder, "empty.toml")
        os.makedirs(folder, exist_ok=True)
        open(self.settings, "w").close()
        self.rows = {}
        if os.path.exists(self.path):
            with open(self.path) as lines:
                self.rows = {json.dumps(row["key"]): row for row in map(json.loads, lines)}

    def find(self, key):
        """The row of that key, or None."""
        return self.rows.get(json.dumps(key))

    def keep(self, row):
        with open(self.path, "a") as lines:
            lines.write(json.dumps(row) + "\n")
        self.rows[json.dumps(row["key"])] = row
        return row

    def run(self, words):
        """(seconds, what came of weft-sim with these arguments)"""
        started = time.monotonic()
        done = subprocess.run([self.program, self.settings] + words, capture_output=True, text=True)
        return round(time.monotonic() - started, 1), done

    def report(self, words, mark=None):
        """The report of a run with these arguments, kept or made now; `mark` tells apart runs of the same ones."""
        key = words + ([mark] if mark is not None else [])
        row = self.find(key)
        if row is None:
            _, done = self.run(words)
            if done.returncode != 0:
                sys.exit(f"{self.program} {' '.join(words)}\n{done.stderr}")
            row = self.keep({"key": key, "report": report_of(done)})
        return row["report"]


def report_of(done):
    return json.loads(done.stdout.strip().splitlines()[-1])
