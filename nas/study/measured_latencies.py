"""Latencies of trials' models that were measured on the idle device after the search."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from search_spaces.files import read_json, write_atomically


@dataclass(frozen=True)
class MeasuredLatencies:
    """`measured.json` in a study's folder, `{"7": 12.3}`: milliseconds by trial. Samplers do not read it."""

    path: Path

    def read(self) -> dict[str, float]:
        """Return the latencies in ms by trial; an invalid entry is left out, so that it is measured again."""
        stored = read_json(self.path)
        if not isinstance(stored, dict):
            return {}
        return {
            trial: float(ms)
            for trial, ms in stored.items()
            if trial.isdecimal() and type(ms) in {int, float} and 0 < ms < math.inf
        }

    def add(self, trial: int, milliseconds: float) -> None:
        """Store the latency of one trial's model."""
        write_atomically(self.path, json.dumps(self.read() | {str(trial): milliseconds}))
