"""Accuracy of narrowed models before and after a short tuning, by which channels they inherit.

    python benchmarks/width.py train --results FILE [--spaces v8 v9] [--epochs N] [--widths W ...] [--ways WAY ...]
                                     [--seeds N] [--untuned]
    python benchmarks/width.py table --results FILE

`train` trains the stock model of each space on the built-in digits at 128 px, once per space, and narrows it by each
width factor in each of the ways below. It reads mAP50-95 before any tuning, the same with batch norm's statistics
re-estimated on training batches, and after 1 and 3 epochs of tuning. It appends a line per reading to FILE, and skips
what FILE has; with `--untuned` it only reads. `table` prints the table of docs/recipes.md.
"""

import argparse
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import product, starmap
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_VERBOSE", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from ultralytics.utils.torch_utils import ModelEMA

from benchmarks import results_file
from benchmarks.other_averages import accuracies_of
from search_spaces import Architecture, load
from trials import Budget, evaluate, recipes
from trials.budget import Channels
from trials.data.datasets import DataSet
from trials.data.datasets import load as load_data
from trials.scores import Costs
from trials.training import inheritance, short_training, trainer_patches
from trials.training.norm_statistics import re_estimate
from trials.training.short_training import ShortTraining

IMAGE_SIZE, BN_BATCHES, TUNING = 128, 24, 3
_STATISTICS = ", statistics"
WAYS: dict[str, Channels] = {
    "first": "first",
    "first of each group": "important",
    "important": "important",
    f"first of each group{_STATISTICS}": "important",
    f"important{_STATISTICS}": "important",
}
"""`first of each group` knows the groups and the head, but no importance: what the groups alone bring. The last two
are validated with batch norm's statistics re-estimated; the last is what trials do.
"""
STOCK = "stock"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Line of the results file.

    Attributes:
        reading: `untuned`, `re-estimated`, `epoch 1` or `epoch 3`.
        inherited: share of the parameters.
    """

    space: str
    width: float
    way: str
    seed: int
    reading: str
    inherited: float
    map50_95: float


class _UntunedError(Exception):
    """The untuned model has been read, and nothing else was asked for."""


class Tuning(ShortTraining):
    """Training that is read before its first epoch, too; `readings` has mAP50-95 by name."""

    def __init__(self, *arguments: Any, untuned: bool) -> None:
        super().__init__(*arguments)
        self.untuned = untuned
        self.readings: dict[str, float] = {}

    def run_callbacks(self, event: str) -> None:
        """Read the untuned model where the first epoch begins."""
        if event == "on_train_epoch_start" and self.epoch == 0:
            self.loss, self.loss_items = (
                torch.zeros(1),
                dict.fromkeys(("box_loss", "cls_loss", "dfl_loss"), torch.zeros(1)),
            )
            self.readings["untuned"] = accuracies_of(self, ModelEMA(self.model))[0]
            re_estimated = ModelEMA(self.model)
            re_estimate(re_estimated.ema, self.images(BN_BATCHES))
            self.readings["re-estimated"] = accuracies_of(self, re_estimated)[0]
            if self.untuned:
                raise _UntunedError
        super().run_callbacks(event)


def budget_of(data: DataSet, epochs: int, seed: int, **others: Any) -> Budget:
    """Return the budget of a training on the digits."""
    return Budget(data=data.path, epochs=epochs, image_size=IMAGE_SIZE, batch=8, seed=seed, **others)


def stock_weights(space_name: str, epochs: int, data: DataSet, folder: Path) -> tuple[Path, float | None]:
    """Train the stock model unless its weights are there; return their path, and mAP50-95 if it was trained now."""
    folder = folder / f"{space_name}-{epochs}"
    if (folder / "weights.pt").is_file():
        return folder / "weights.pt", None
    budget = budget_of(data, epochs, 0, recipe=recipes.DIGITS_SCRATCH)
    outcome = evaluate(load(space_name).stock, budget, folder, lambda *_: True, costs=Costs(params=1, gflops=1.0))
    if outcome.weights is None or outcome.scores is None:
        raise RuntimeError(f"the stock model of {space_name} was not trained: {outcome.detail}")
    return outcome.weights, outcome.scores.map50_95


@contextmanager
def only(way: str) -> Iterator[None]:
    """Leave out what a way does not have: importance, so that the first of each group are selected, or statistics."""
    with ExitStack() as patches:
        if way.startswith("first of each group"):
            equal = mock.patch.object(inheritance, "importance", lambda graph, _: dict.fromkeys(_channels(graph), 1.0))
            patches.enter_context(equal)
        if not way.endswith(_STATISTICS):
            patches.enter_context(mock.patch.object(short_training, "re_estimate"))
        yield


def _channels(graph: Any) -> Iterator[int]:
    for channels in graph.axes.values():
        yield from channels


@dataclass(frozen=True)
class Job:
    """One narrowed model that is read and tuned."""

    space: str
    width: float
    way: str
    seed: int


def measured(job: Job, weights: Path, data: DataSet, *, untuned: bool) -> list[Reading]:
    """Narrow, read, tune and read."""
    stock = load(job.space).stock
    architecture = Architecture.of(stock.base, stock.scale, {}, macro={"width": job.width})
    inheriting = {"weights": weights, "channels": WAYS[job.way], "recipe": recipes.DIGITS_INHERITED}
    budget = budget_of(data, TUNING, job.seed, rungs=(1,), **inheriting)
    document = architecture.document(len(data.classes))
    with TemporaryDirectory() as folder, trainer_patches.one_thread_on_cpu("cpu"), only(job.way):
        trained = Tuning(document, budget, data, Path(folder), lambda *_: True, untuned=untuned)
        with suppress(_UntunedError):
            trained.train()
    tuned = {f"epoch {epoch.epoch}": epoch.map50_95 for epoch in trained.epochs_done if epoch.map50_95 is not None}
    inherited = round(trained.coverage.share, 4)
    return [
        Reading(**vars(job), reading=name, inherited=inherited, map50_95=round(value, 5))
        for name, value in (trained.readings | tuned).items()
    ]


def train(options: argparse.Namespace) -> None:
    """Measure all that the results file lacks."""
    data = load_data(Path("digits"))
    for space_name in options.spaces:
        weights, accuracy = stock_weights(space_name, options.epochs, data, options.results.with_suffix(".bases"))
        if accuracy is not None:
            common = {"space": space_name, "width": 1.0, "way": STOCK, "seed": 0, "inherited": 0.0}
            results_file.append(options.results, [Reading(**common, reading=STOCK, map50_95=accuracy)])
        jobs = product([space_name], options.widths, options.ways, range(options.seeds))
        for job in sorted(starmap(Job, jobs), key=lambda job: job.seed):
            rows = results_file.read(options.results, Reading)
            results = [one for one in rows if Job(one.space, one.width, one.way, one.seed) == job]
            done = {one.reading for one in results}
            if ("untuned" if options.untuned else f"epoch {TUNING}") not in done:
                readings = measured(job, weights, data, untuned=options.untuned)
                results_file.append(options.results, [one for one in readings if one.reading not in done])
                print(job, {one.reading: one.map50_95 for one in readings}, flush=True)


COLUMNS = ("untuned", "re-estimated", "epoch 1", "epoch 3")


def table(options: argparse.Namespace) -> None:
    """Print the means over seeds, as Markdown."""
    readings = results_file.read(options.results, Reading)
    stock = {one.space: one.map50_95 for one in readings if one.way == STOCK}
    print(f"| stock model | width | channels | inherited | {' | '.join(COLUMNS)} | seeds |")
    print("|---" * (len(COLUMNS) + 5) + "|")
    rows = sorted({(one.space, -one.width, list(WAYS).index(one.way)) for one in readings if one.way != STOCK})
    for space, width, number in rows:
        way = list(WAYS)[number]
        found = [one for one in readings if (one.space, one.width, one.way) == (space, -width, way)]
        by_name = {name: [one.map50_95 for one in found if one.reading == name] for name in COLUMNS}
        seeds = len({one.seed for one in found})
        figures = " | ".join(f"{mean(values):.3f}" if values else "-" for values in by_name.values())
        inherited = f"{mean(one.inherited for one in found):.0%}"
        print(f"| {space} {stock[space]:.3f} | {-width:g} | {way} | {inherited} | {figures} | {seeds} |")


def main() -> None:
    """Run the command line."""
    parser, command = results_file.commands(__doc__, None, train=train, table=table)
    command["train"].add_argument("--spaces", nargs="+", default=["v8", "v9"])
    command["train"].add_argument("--epochs", type=int, default=24)
    command["train"].add_argument("--widths", nargs="+", type=float, default=[0.875, 0.75, 0.5])
    command["train"].add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    command["train"].add_argument("--seeds", type=int, default=1)
    command["train"].add_argument("--untuned", action="store_true")
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
