"""Worker in which every fourth architecture misbehaves, and the others are scored by a formula.

`python saboteur.py FOLDER ...`, as `nas.execution.worker`. All else of a worker is real, and so is all of
`evaluate` but costs and trainings. SABOTAGE names a folder in which architectures are numbered in the order of their
first trial; SABOTAGE_ALWAYS is the one kind of misbehaviour of all architectures.
"""

import ctypes
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from nas.execution import worker
from trials import Budget, Costs, Epoch, evaluation
from trials.data.datasets import DataSet
from trials.data.unseen_images import JudgingImages
from trials.scores import Coverage, GoOn
from trials.training import short_training
from trials.training.short_training import DivergedError, TrainingResult

KINDS = ("raises", "nan", "allocates", "exits", "hangs", "segfaults")
EVERY = 4


def misbehave(kind: str) -> None:
    """Misbehave in one of the ways in which a candidate may."""
    match kind:
        case "raises":
            raise KeyError("x")
        case "nan":
            raise DivergedError("box_loss is nan in epoch 1")
        case "allocates":
            hoard = []
            while True:
                hoard.append(torch.ones(2**22))
        case "exits":
            os._exit(0)  # as if all were well
        case "hangs":
            while True:
                time.sleep(1)
        case "segfaults":
            ctypes.string_at(0)


def kind_of(digest: str) -> str | None:
    """Return how the architecture misbehaves; None if it does not."""
    order = Path(os.environ["SABOTAGE"])
    calls = sorted(order.iterdir(), key=lambda path: int(path.read_text()))
    names = [path.name for path in calls]
    if digest not in names:
        (order / digest).write_text(str(len(names)))
        names.append(digest)
    if always := os.environ.get("SABOTAGE_ALWAYS"):
        return always
    turn, rest = divmod(names.index(digest), EVERY)
    return KINDS[turn % len(KINDS)] if rest == EVERY - 1 else None


def train(
    document: Mapping[str, Any],
    budget: Budget,
    data: DataSet,  # noqa: ARG001 - a training's arguments
    folder: Path,  # noqa: ARG001
    go_on: GoOn,
    *,
    weights: Path,
    checkpoint_path: Path | None = None,  # noqa: ARG001
    judging: JudgingImages | None = None,  # noqa: ARG001
) -> TrainingResult:
    """Stand-in for a training: an accuracy that depends on the architecture alone."""
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    if "SABOTAGE" in os.environ and (kind := kind_of(digest)):
        misbehave(kind)
    accuracy = int(digest[:4], 16) / 16**4
    weights.write_bytes(b"weights")
    epoch = Epoch(epoch=budget.epochs, losses={"box_loss": 1.0}, map50_95=accuracy, map50=accuracy, seconds=0.1)
    go_on(budget.epochs, epoch)
    return TrainingResult(epochs=(epoch,), stopped=False, coverage=Coverage())


def measure_costs(document: dict[str, Any], budget: Budget, classes: int) -> Costs:  # noqa: ARG001
    """Stand-in for counting and measuring costs."""
    return Costs(params=1000, gflops=1.0, latency_ms=1.0, latency_spread_ms=0.1, latency_steady=True)


if __name__ == "__main__":
    evaluation._load_data = lambda *_: SimpleNamespace(classes=("a", "b"), fingerprint="")  # type: ignore[assignment]
    evaluation.measure_costs = measure_costs
    short_training.train = train
    worker.main()
