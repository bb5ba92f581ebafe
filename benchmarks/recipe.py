"""Quality of a recipe's scores: noise between seeds, differences between architectures, and rank correlation.

    python benchmarks/recipe.py train DATA --results FILE [--ways WAY ...] [--image-size PX] [--architectures N]
                                      [--seeds N] [--jobs N]
    python benchmarks/recipe.py table --results FILE

`train` trains a fixed sample of architectures of nearly equal GFLOPs, the stock model among them, in each of the ways
below with each seed, and appends one line per result to FILE. It skips results that FILE has, so it may be stopped at
any time and run on any number of machines. `table` reads FILE and prints the table.

Each way is compared with the longest training from scratch at its image size. A way that inherits weights starts from a
stock model that is trained once per seed, so two seeds are two independent repetitions of a whole study. The stock
models are in a folder next to FILE, with its name.
"""

import argparse
import os
import random
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_VERBOSE", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy.stats import kendalltau
from ultralytics.utils.torch_utils import ModelEMA

from benchmarks import results_file
from benchmarks.other_averages import accuracies_of
from search_spaces import Architecture, SearchSpace, load
from trials import Budget, Recipe
from trials.budget import Precision
from trials.costing.cost import CostTable
from trials.data import datasets
from trials.training import short_training, trainer_patches
from trials.training.ema import decay
from trials.training.norm_statistics import re_estimate
from trials.training.short_training import ShortTraining
from trials.weights import save

SPACE, WITHIN = "v9", 0.05
STOCK_PROBABILITIES = (0.9, 0.75, 0.55, 0.35)
"""Probabilities, in turn, that a slot of a sampled architecture keeps its stock layer: few to many are replaced."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """Way to train and score an architecture.

    Attributes:
        base: way in which the stock model that it inherits from is trained, with the same seed; None for from scratch.
    """

    epochs: int
    recipe: Recipe
    base: str | None = None
    precision: Precision = "fp32"


FROM_SCRATCH = Recipe(bn_momentum=0.1, warmup_epochs=1.0)
INHERITED = Recipe(bn_momentum=0.1, learning_rate=1e-3)
LONG = "long"
BASES = {
    "base-24": Way(epochs=24, recipe=FROM_SCRATCH),
    "base-24-bf16": Way(epochs=24, recipe=FROM_SCRATCH, precision="bf16"),
    "base-60": Way(epochs=60, recipe=FROM_SCRATCH),
}
WAYS = {
    "inherit-8": Way(epochs=8, recipe=INHERITED, base="base-24"),
    "inherit-8-new-4": Way(epochs=8, recipe=INHERITED.model_copy(update={"new_rate": 4.0}), base="base-24"),
    "inherit-8-bf16": Way(epochs=8, recipe=INHERITED, base="base-24-bf16", precision="bf16"),
    "inherit-20": Way(epochs=20, recipe=INHERITED, base="base-60"),
    "scratch-8": Way(epochs=8, recipe=FROM_SCRATCH),
    LONG: Way(epochs=30, recipe=FROM_SCRATCH),
}
HORIZONS = {"average-26": 26, "average-78": 78}
"""Time constants of additional EMAs of the weights, in steps; an epoch has 26."""
AS_TRAINED, RE_ESTIMATED = "as-trained", "bn-16"
BN_BATCHES = 16


class Readings(ShortTraining):
    """Training whose final model is validated with several averages of weights and statistics.

    Attributes:
        readings: mAP50-95 and mAP50 by the name of the average.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.readings: dict[str, tuple[float, float]] = {}
        self._averages: dict[str, ModelEMA] = {}

    def _setup_train(self) -> None:
        super()._setup_train()
        for name, horizon in HORIZONS.items():
            self._averages[name] = ModelEMA(self.model)
            self._averages[name].decay = partial(decay, horizon)

    def optimizer_step(self) -> None:
        """Update the additional EMAs, too."""
        super().optimizer_step()
        for average in self._averages.values():
            average.update(self.model)

    def _finish_epoch(self) -> None:
        super()._finish_epoch()
        if self.epoch + 1 < self.epochs:
            return
        self.readings[AS_TRAINED] = short_training.accuracies(self.metrics)
        for name, average in self._averages.items():
            self.readings[name] = accuracies_of(self, average)
        with self.ema.applied() as averaged:
            re_estimated = ModelEMA(averaged)
        re_estimate(re_estimated.ema, self.images(BN_BATCHES))
        self.readings[RE_ESTIMATED] = accuracies_of(self, re_estimated)


@dataclass(frozen=True, kw_only=True)
class Result:
    """Line of the results file: one reading of one training."""

    way: str
    image_size: int
    reading: str
    fingerprint: str
    seed: int
    summary: str
    replaced: int
    inherited: float
    gflops: float
    map50_95: float
    map50: float
    cpu_seconds: float

    @property
    def training(self) -> tuple[str, int, str, int]:
        """Key of the training, equal for its readings."""
        return self.way, self.image_size, self.fingerprint, self.seed


def drawn(space: SearchSpace, classes: int, count: int) -> list[Architecture]:
    """Return the stock model and random architectures within 5 % of its GFLOPs, the same in every call."""
    table, rng = CostTable(space, classes, 640), random.Random(0)
    stock = table.cost(space.stock).gflops
    found = {space.stock.fingerprint: space.stock}
    while len(found) < count:
        stock_probability = STOCK_PROBABILITIES[len(found) % len(STOCK_PROBABILITIES)]
        sampled = space.choices(space.sample(rng))
        slots = {slot.name: slot for slot in space.slots}
        choices = {
            name: choice
            for name, choice in sampled.items()
            if not any(each.is_stock for each in slots[name].choices) or rng.random() > stock_probability
        }
        architecture = space.of(choices)
        if abs(table.cost(architecture).gflops / stock - 1) <= WITHIN:
            found.setdefault(architecture.fingerprint, architecture)
    return list(found.values())


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training of the architecture at `index` of the `count` sampled ones."""

    way: str
    index: int
    count: int
    seed: int
    image_size: int


def measured(job: Job, data_path: Path, bases: Path) -> list[Result]:
    """Train, and return all readings."""
    way, seed = job.way, job.seed
    data = datasets.load(data_path)
    space, classes = load(SPACE), len(data.classes)
    architecture = drawn(space, classes, job.count)[job.index]
    settings = (BASES | WAYS)[way]
    budget = Budget(
        data=data.path,
        epochs=settings.epochs,
        image_size=job.image_size,
        batch=8,
        seed=seed,
        recipe=settings.recipe,
        precision=settings.precision,
        weights=_base(bases, settings.base, job.image_size, seed) if settings.base else None,
    )
    began = time.process_time()
    with TemporaryDirectory() as folder, trainer_patches.one_thread_on_cpu("cpu"):
        trained = Readings(architecture.document(classes), budget, data, Path(folder), lambda *_: True)
        trained.train()
    if way in BASES:
        bases.mkdir(exist_ok=True)
        with trained.ema.applied() as averaged:
            save(averaged, vars(trained.args), _base(bases, way, job.image_size, seed))
    seconds = time.process_time() - began
    return [
        Result(
            way=way,
            image_size=job.image_size,
            reading=reading,
            fingerprint=architecture.fingerprint,
            seed=seed,
            summary=architecture.summary(),
            replaced=len(architecture.picks),
            inherited=round(trained.coverage.share, 4),
            gflops=round(CostTable(space, classes, 640).cost(architecture).gflops, 3),
            map50_95=round(map50_95, 5),
            map50=round(map50, 5),
            cpu_seconds=round(seconds, 1),
        )
        for reading, (map50_95, map50) in trained.readings.items()
    ]


def _base(bases: Path, way: str, image_size: int, seed: int) -> Path:
    return bases / f"{way}-{image_size}-{seed}.pt"


def train(options: argparse.Namespace) -> None:
    """Train all that the results file lacks."""
    data = datasets.load(options.data)
    architectures = drawn(load(SPACE), len(data.classes), options.architectures)
    finished = {result.training for result in results_file.read(options.results, Result)}
    job_of = partial(Job, count=len(architectures), image_size=options.image_size)
    missing = [
        job_of(way=way, index=index, seed=seed)
        for way in options.ways
        for seed in range(options.seeds)
        for index, architecture in enumerate(architectures)
        if (way, options.image_size, architecture.fingerprint, seed) not in finished
    ]
    bases = options.results.with_suffix(".bases")
    needed = {(base, job.seed) for job in missing if (base := WAYS[job.way].base)}
    missing_bases = sorted(
        (base, seed) for base, seed in needed if not _base(bases, base, options.image_size, seed).is_file()
    )
    first = [job_of(way=base, index=0, seed=seed) for base, seed in missing_bases]
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        for jobs in (first, missing):
            futures = [pool.submit(measured, job, options.data, bases) for job in jobs]
            for done, future in enumerate(as_completed(futures), 1):
                results = future.result()
                if results[0].training not in finished:
                    results_file.append(options.results, results)
                line = f"seed {results[0].seed}  {results[0].map50_95:.4f}  {results[0].summary}"
                print(f"{done}/{len(jobs)}  {results[0].way}  {line}", flush=True)


COLUMNS = (
    "way",
    "px",
    "reading",
    "CPU-s",
    "mean",
    "stock",
    "sd of the stock models",
    "noise sd",
    "sd of the difference to stock",
    "architecture sd",
    "architecture / difference",
    "tau of repeats",
    "tau with long",
    "bias per replaced layer",
)


def table(options: argparse.Namespace) -> None:
    """Print the table, as Markdown."""
    by_way: dict[tuple[str, int, str], list[Result]] = {}
    for result in results_file.read(options.results, Result):
        if result.way not in BASES:
            by_way.setdefault((result.way, result.image_size, result.reading), []).append(result)
    print(f"| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|")
    for (way, image_size, reading), results in sorted(by_way.items()):
        grid, long = _grid(results), _grid(by_way.get((LONG, image_size, AS_TRAINED), []))
        if grid is not None:
            print(f"| {way} | {image_size} | {reading} | {' | '.join(_row(results, grid, long))} |")


@dataclass(frozen=True)
class Grid:
    """Scores by architecture and seed; the stock model first."""

    fingerprints: list[str]
    replaced: np.ndarray
    scores: np.ndarray


def _grid(results: Sequence[Result]) -> Grid | None:
    """Return the scores for seeds that all architectures have; None for fewer than two seeds or three architectures."""
    scores = {(result.fingerprint, result.seed): result.map50_95 for result in results}
    replaced = {result.fingerprint: result.replaced for result in results}
    names = sorted(replaced, key=lambda name: replaced[name])
    seeds = [
        seed for seed in sorted({result.seed for result in results}) if all((name, seed) in scores for name in names)
    ]
    if len(names) < 3 or len(seeds) < 2:
        return None
    return Grid(
        names,
        np.array([replaced[name] for name in names]),
        np.array([[scores[name, seed] for seed in seeds] for name in names]),
    )


def _row(results: Sequence[Result], grid: Grid, long: Grid | None) -> list[str]:
    scores = grid.scores
    spreads = _spreads(scores)
    draws = (spread for draw in _draws(len(scores)) if (spread := _spreads(scores[[0, *draw]])).difference > 0)
    low, high = np.quantile([spread.architecture / spread.difference for spread in draws], [0.025, 0.975])
    repeats = [
        kendalltau(scores[:, seed], np.delete(scores, seed, axis=1).mean(axis=1)).statistic
        for seed in range(scores.shape[1])
    ]
    return [
        f"{np.median([result.cpu_seconds for result in results]):.0f}",
        f"{scores.mean():.3f}",
        f"{scores[0].mean():.3f}",
        f"{spreads.base:.4f}",
        f"{spreads.noise:.4f}",
        f"{spreads.difference:.4f}",
        f"{spreads.architecture:.4f}",
        f"{spreads.architecture / spreads.difference:.2f} ({low:.2f} to {high:.2f})",
        f"{np.mean(repeats):.2f}",
        *_against(grid, long),
    ]


@dataclass(frozen=True)
class Spreads:
    """Standard deviations of scores, by source of variance.

    Attributes:
        base: between seeds, common to all architectures: that of the inherited stock model.
        noise: between seeds, of single architectures (the interaction).
        difference: between seeds, of the difference to the stock model with the same seed.
        architecture: between architectures, without the part that noise explains.
    """

    base: float
    noise: float
    difference: float
    architecture: float


def _spreads(scores: np.ndarray) -> Spreads:
    """Two-way analysis of variance of scores `(architectures, seeds)`, the stock model in the first row."""
    architectures, seeds = scores.shape
    rest = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0) + scores.mean()
    noise = (rest**2).sum() / ((architectures - 1) * (seeds - 1))
    base = scores.mean(axis=0).var(ddof=1) - noise / architectures
    architecture = scores.mean(axis=1).var(ddof=1) - noise / seeds
    difference = (scores[1:] - scores[:1]).var(axis=1, ddof=1).mean()
    return Spreads(*(float(np.sqrt(max(0.0, variance))) for variance in (base, noise, difference, architecture)))


def _draws(count: int) -> list[np.ndarray]:
    """Return bootstrap samples of the architectures' indices, for confidence intervals."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, count, count) for _ in range(2000)]


def _against(grid: Grid, long: Grid | None) -> tuple[str, str]:
    """Return Kendall's tau with the long trainings and its 95 % interval, and the bias per replaced layer."""
    common = [] if long is None else [name for name in grid.fingerprints if name in long.fingerprints]
    if long is None or len(common) < 5:
        return "-", "-"
    short_means = np.array([grid.scores[grid.fingerprints.index(name)].mean() for name in common])
    long_means = np.array([long.scores[long.fingerprints.index(name)].mean() for name in common])
    replaced = np.array([grid.replaced[grid.fingerprints.index(name)] for name in common])
    tau = kendalltau(short_means, long_means).statistic
    taus = [kendalltau(short_means[draw], long_means[draw]).statistic for draw in _draws(len(common))]
    low, high = np.nanquantile(taus, [0.025, 0.975])
    left, right = np.triu_indices(len(common), 1)
    different = replaced[left] != replaced[right]
    left, right = left[different], right[different]
    excess = short_means - long_means
    slopes = (excess[right] - excess[left]) / (replaced[right] - replaced[left])
    slope = np.median(slopes)  # Theil-Sen estimator: robust against a failed training
    return f"{tau:.2f} ({low:.2f} to {high:.2f})", f"{slope:+.4f}"


def main() -> None:
    """Run the command line."""
    parser, command = results_file.commands(__doc__, None, train=train, table=table)
    command["train"].add_argument("data", type=Path)
    command["train"].add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS))
    command["train"].add_argument("--image-size", type=int, default=128)
    command["train"].add_argument("--architectures", type=int, default=13)
    command["train"].add_argument("--seeds", type=int, default=3)
    command["train"].add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
