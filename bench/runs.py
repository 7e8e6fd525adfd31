"""Runs of weft-sim whose reports are kept: what was interrupted goes on where it was."""
import json
import os
import subprocess
import sys


class Runs:
    """Reports in OUT/runs.jsonl, by the arguments that made them."""

    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        self.path = os.path.join(folder, "runs.jsonl")
        self.settings = os.path.join(folder, "empty.toml")
        os.makedirs(folder, exist_ok=True)
        open(self.settings, "w").close()
        self.kept = {}
        if os.path.exists(self.path):
            with open(self.path) as lines:
                self.kept = {json.dumps(row["key"]): row["report"] for row in map(json.loads, lines)}

    def report(self, model, rows, seed, settings):
        """The report of a run with these settings ("section.key": value)."""
        key = ["--model", model, "--data", rows, "--seed", str(seed), "--json"]
        key += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        if json.dumps(key) not in self.kept:
            done = subprocess.run([self.program, self.settings] + key, capture_output=True, text=True)
            if done.returncode != 0:
                sys.exit(f"{self.program} {' '.join(key)}\n{done.stderr}")
            report = json.loads(done.stdout.strip().splitlines()[-1])
            with open(self.path, "a") as lines:
                lines.write(json.dumps({"key": key, "report": report}) + "\n")
            self.kept[json.dumps(key)] = report
        return self.kept[json.dumps(key)]
