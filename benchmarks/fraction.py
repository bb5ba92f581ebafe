"""Does a tenth of the images rank architectures as all of them do, as well as repeats agree?

    python benchmarks/fraction.py train [--results FILE] [--ways WAY ...] [--seeds N]
    python benchmarks/fraction.py table [--results FILE]

`train` draws 4,000 digit scenes to train on and 500 to validate on, and trains 12 random architectures of the space
`v5`, the stock model among them, in each of the ways below with each seed. It appends one line per training to FILE and
skips those that FILE has, so it may be stopped at any time. Each seed has a stock model of its own, from which all its
architectures start, and chooses its images: two seeds are two independent repeats of a whole study. The stock models
are in a folder next to FILE, with its name.

`table` compares the orders of two trainings of each architecture with different seeds: both on all images, both on a
tenth, and one on each. Intervals are bootstrapped over architectures.
"""

import argparse
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_VERBOSE", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy.stats import kendalltau, spearmanr

from benchmarks import results_file
from nas.algorithms.rank_agreement import agreement
from search_spaces import Architecture, SearchSpace, cache_folder, load
from trials import Budget, recipes
from trials.budget import Subset
from trials.costing.cost import CostTable
from trials.data import datasets, digit_scenes
from trials.data.datasets import DataSet
from trials.training import short_training

SPACE, ARCHITECTURES, IMAGE_SIZE, BATCH = "v5", 12, 64, 16
SCENES, VALIDATION = 4000, 500
STOCK_PROBABILITIES = (0.9, 0.75, 0.55, 0.35)
"""Probabilities, in turn, that a slot of a sampled architecture keeps its stock layer: few to many are replaced."""
RESULTS = Path(__file__).with_name("results") / "fraction.csv"


@dataclass(frozen=True, kw_only=True)
class Way:
    """Amount of training.

    Attributes:
        images: that are trained on.
        base_epochs: of the stock model.
        epochs: of each architecture, which starts from it.
    """

    images: int
    base_epochs: int
    epochs: int


WAYS = {
    "whole": Way(images=SCENES, base_epochs=4, epochs=1),
    "tenth": Way(images=400, base_epochs=12, epochs=3),
    "tenth-long": Way(images=400, base_epochs=40, epochs=10),
}
"""`tenth-long` reads as many images as `whole`, each ten times as often."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One training; `epochs` 0 stands for that of the stock model from which the others start."""

    way: str
    seed: int
    fingerprint: str
    summary: str
    gflops: float
    map50_95: float
    map50: float
    cpu_seconds: float
    is_base: int = 0


def drawn(space: SearchSpace, classes: int) -> list[tuple[Architecture, float]]:
    """Return the stock model and random architectures with their GFLOPs, the same in every call."""
    table, rng = CostTable(space, classes, 640), random.Random(0)
    found = {space.stock.fingerprint: space.stock}
    while len(found) < ARCHITECTURES:
        probability = STOCK_PROBABILITIES[len(found) % len(STOCK_PROBABILITIES)]
        slots = {slot.name: slot for slot in space.slots}
        choices = {
            name: choice
            for name, choice in space.choices(space.sample(rng)).items()
            if not any(each.is_stock for each in slots[name].choices) or rng.random() > probability
        }
        architecture = space.of(choices)
        found.setdefault(architecture.fingerprint, architecture)
    return [(one, table.cost(one).gflops) for one in found.values()]


def data_of(way: Way, seed: int) -> DataSet:
    """Return the scenes of a way; a seed chooses the same ones for all its architectures."""
    subset = Subset(seed=seed, train=way.images, val=VALIDATION, of_train=SCENES, of_val=VALIDATION)
    file = digit_scenes.draw(cache_folder.path().absolute(), train=SCENES, val=VALIDATION)
    return datasets.load(file, subset=subset)


def measured(
    way: str, seed: int, architecture: Architecture, gflops: float, weights: Path, *, is_base: bool = False
) -> Result:
    """Train once; the stock model's training writes the weights, all others start from them."""
    settings = WAYS[way]
    data = data_of(settings, seed)
    recipe = recipes.DIGITS_SCRATCH if is_base else recipes.DIGITS_INHERITED
    budget = Budget(
        data=data.path,
        epochs=settings.base_epochs if is_base else settings.epochs,
        image_size=IMAGE_SIZE,
        batch=BATCH,
        seed=seed,
        recipe=recipe.model_copy(update={"average_epochs": 1.0}),  # as the presets' recipes have it
        weights=None if is_base else weights,
    )
    began = time.process_time()
    with TemporaryDirectory() as folder:
        trained = short_training.train(
            architecture.document(len(data.classes)),
            budget,
            data,
            Path(folder),
            lambda *_: True,
            weights=weights if is_base else Path(folder) / "weights.pt",
        )
    last = trained.epochs[-1]
    return Result(
        way=way,
        seed=seed,
        fingerprint=architecture.fingerprint,
        summary=architecture.summary(),
        gflops=round(gflops, 3),
        map50_95=round(last.map50_95 or 0.0, 5),
        map50=round(last.map50 or 0.0, 5),
        cpu_seconds=round(time.process_time() - began, 1),
        is_base=int(is_base),
    )


def train(options: argparse.Namespace) -> None:
    """Train all that the results file lacks, seed by seed; a stock model again if others need its weights."""
    space = load(SPACE)
    architectures = drawn(space, digit_scenes.CLASSES)
    bases = options.results.with_suffix(".bases")
    bases.mkdir(exist_ok=True)
    finished = {(one.way, one.seed, one.fingerprint, one.is_base) for one in results_file.read(options.results, Result)}
    for seed, way in product(range(options.seeds), options.ways):
        weights = bases / f"{way}-{seed}.pt"
        jobs = list(enumerate([(*architectures[0], True), *((*one, False) for one in architectures)]))
        missing = [one for one in jobs if (way, seed, one[1][0].fingerprint, int(one[1][2])) not in finished]
        if missing and not missing[0][1][2] and not weights.is_file():
            measured(way, seed, *architectures[0], weights, is_base=True)  # its line is there, its weights are not
        for done, (architecture, gflops, is_base) in missing:
            result = measured(way, seed, architecture, gflops, weights, is_base=is_base)
            results_file.append(options.results, [result])
            line = f"{result.map50_95:.4f}  {result.cpu_seconds:.0f} s  {result.summary}"
            print(f"{way}  seed {seed}  {done}/{ARCHITECTURES}  {line}", flush=True)


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores `(seeds, architectures)` of a way, and GFLOPs."""

    accuracy: np.ndarray
    gflops: np.ndarray


def scores_of(results: Sequence[Result], way: str) -> Scores:
    """Return the scores of the seeds with which all architectures were trained."""
    of_way = [one for one in results if one.way == way and not one.is_base]
    gflops = {one.fingerprint: one.gflops for one in of_way}
    found = {(one.seed, one.fingerprint): one.map50_95 for one in of_way}
    seeds = [seed for seed in sorted({one.seed for one in of_way}) if all((seed, name) in found for name in gflops)]
    rows = [[found[seed, name] for name in gflops] for seed in seeds]
    return Scores(accuracy=np.array(rows), gflops=np.array(list(gflops.values())))


def pairs(results: Sequence[Result]) -> Iterator[tuple[str, list[tuple[np.ndarray, np.ndarray]]]]:
    """Yield what is compared, and the pairs of trainings with different seeds."""
    whole = scores_of(results, "whole").accuracy
    yield "whole, other seeds", list(combinations(whole, 2))
    for way in [way for way in WAYS if way != "whole"]:
        part = scores_of(results, way).accuracy
        yield f"{way}, other seeds", list(combinations(part, 2))
        yield (
            f"{way} against whole",
            [(a, b) for (i, a), (j, b) in product(enumerate(whole), enumerate(part)) if i != j],
        )
        if len(part) > 1:
            yield f"{way} against whole, mean of all repeats of each", [(whole.mean(0), part.mean(0))]


def table(options: argparse.Namespace) -> None:
    """Print the tables, as Markdown."""
    results = results_file.read(options.results, Result)
    print("| images | trainings | CPU-s each | mean mAP50-95 | sd between architectures | sd between seeds |")
    print("|---|---|---|---|---|---|")
    for way in WAYS:
        print(f"| {way} | {figures(results, way)} |")
    print("\n| two trainings of each architecture | pairs | Kendall's tau | given GFLOPs | Spearman's rho |")
    print("|---|---|---|---|---|")
    gflops = list(scores_of(results, "whole").gflops)
    for what, compared in pairs(results):
        if compared:
            found = [agreement(list(a), list(b), gflops) for a, b in compared]
            partial = np.mean([one.partial for one in found if one is not None and one.partial is not None])
            tau, rho = (in_words(compared, statistic) for statistic in (kendalltau, spearmanr))
            print(f"| {what} | {len(compared)} | {tau} | {partial:.2f} | {rho} |")


def figures(results: Sequence[Result], way: str) -> str:
    """Return cells of a table: trainings, CPU-seconds of one, mean, deviations between architectures and seeds."""
    accuracy = scores_of(results, way).accuracy
    seconds = np.median([one.cpu_seconds for one in results if one.way == way and not one.is_base])
    noise = accuracy.std(axis=0, ddof=1).mean() if len(accuracy) > 1 else np.nan
    spread = accuracy.mean(axis=0).std(ddof=1)
    return f"{accuracy.size} | {seconds:.0f} | {accuracy.mean():.3f} | {spread:.4f} | {noise:.4f}"


def in_words(compared: Sequence[tuple[np.ndarray, np.ndarray]], statistic: Callable[..., Any]) -> str:
    """Return the mean of a coefficient over pairs of trainings, with a 95 % interval over architectures."""
    rng, count = np.random.default_rng(0), len(compared[0][0])

    def mean(chosen: np.ndarray) -> float:
        return float(np.mean([statistic(a[chosen], b[chosen]).statistic for a, b in compared]))

    low, high = np.nanquantile([mean(rng.integers(0, count, count)) for _ in range(2000)], [0.025, 0.975])
    return f"{mean(np.arange(count)):.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    """Run the command line."""
    parser, command = results_file.commands(__doc__, RESULTS, train=train, table=table)
    command["train"].add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS))
    command["train"].add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
