"""A search in which every fourth candidate is sabotaged, from the command line, with real trainings."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

NAS = [sys.executable, "-c", "from nas.cli import main; main()"]
SMALL = ["--epochs", "1", "--image-size", "64", "--deploy-size", "64", "--workers", "1", "--device", "cpu"]

TRAPS = """\
import ctypes
import os
import time

import torch
from torch import nn

from search_spaces.operators import Operator, Parameter, SiteKind

KINDS = ("raises", "nan", "allocates", "hangs", "exits", "segfaults")


class Trap(nn.Module):
    def __init__(self, conv, kind):
        super().__init__()
        self.conv, self.kind = conv, kind

    def forward(self, x):
        armed = "SABOTAGE" in os.environ and self.training and x.device.type == "cpu"
        return spring(self.kind, self.conv(x)) if armed else self.conv(x)


def spring(kind, x):
    if kind == "raises":
        raise KeyError("x")
    if kind == "nan":
        return x * float("nan")
    if kind == "allocates":
        hoard = []
        while True:
            hoard.append(torch.ones(2**24))
    if kind == "hangs":
        while True:
            time.sleep(1)
    if kind == "exits":
        os._exit(3)
    ctypes.string_at(0)


TRAP = Operator(
    name="Trap",
    module=Trap,
    parameters=(Parameter(name="kind", default=KINDS[0], allowed=KINDS),),
    kinds=(SiteKind.LAYER,),
    build=lambda site, *, kind: Trap(
        nn.Conv2d(site.c_in, site.c_out, 3, stride=site.stride, padding=1), kind
    ),
    reference="none, arXiv 0000.00000",
)
"""
SPACE = """\
name: traps
base: yolov5n.yaml
modules: [traps.py]
slots:
  - at: {layers: [7]}
    choices:
      Trap: {kind: [raises, nan, allocates, hangs, exits, segfaults]}
      UIB: {start_kernel: [0, 3, 5], mid_kernel: [0, 3, 5], expansion: [2, 4]}
"""
ARCHITECTURES, TRAPPED = 23, 6


def search(study: str, folder: Path, **environment: str) -> list[dict[str, Any]]:
    """Search the whole space, and give back the trials."""
    limits = ["--trial-timeout", "60s", "--trial-memory", "1G"]
    asked = ["search", "--space", "traps.yaml", "--study", study, "--trials", str(ARCHITECTURES), *SMALL, *limits]
    for arguments in (asked, ["trials", study, "--format", "json"]):
        ran = subprocess.run(
            [*NAS, *arguments],
            cwd=folder,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr[-3000:]
    return [row for row in json.loads(ran.stdout) if row["fingerprint"]]  # the last one may say: nothing is left


def test_sabotaged_candidates_do_not_change_the_scores_of_others(tmp_path: Path) -> None:
    (tmp_path / "traps.py").write_text(TRAPS)
    (tmp_path / "traps.yaml").write_text(SPACE)
    rows = search("sabotaged", tmp_path, SABOTAGE="1")
    assert {row["state"] for row in rows} == {"complete", "pruned", "fail"}
    ended = {kind_of(row): row["ending"] for row in rows if row["ending"]}
    assert ended == {
        "": "finished",
        "raises": "broken",
        "nan": "diverged",
        "allocates": "out_of_memory",
        "hangs": "timed_out",
        "exits": "crashed",
        "segfaults": "crashed",
    }
    tries = Counter(kind_of(row) for row in rows)
    assert tries.pop("") == ARCHITECTURES - TRAPPED
    assert tries == {"raises": 2, "nan": 1, "allocates": 1, "hangs": 1, "exits": 2, "segfaults": 2}

    scores = {row["fingerprint"]: row["map50_95"] for row in search("clean", tmp_path)}
    assert len(scores) == ARCHITECTURES
    finished = {row["fingerprint"]: row["map50_95"] for row in rows if row["ending"] == "finished"}
    assert finished == {fingerprint: scores[fingerprint] for fingerprint in finished}


def kind_of(row: dict[str, Any]) -> str:
    """What the candidate does; empty if it behaves."""
    return str(row["picks"].get("7", {}).get("Trap", {}).get("kind", ""))
