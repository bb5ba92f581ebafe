"""Which learning rate goes with a batch of 8, 16 and 32: none other, its root, or the batch times as much?

    python -m benchmarks.batch train [--data bccd digits] [--seeds N] [--jobs N] [--results FILE]
    python -m benchmarks.batch table [--results FILE]

`train` trains the stock model of the space `v5` once, and from its weights again with each batch, learning rate and
seed below: always for the same number of images, so that twice the batch has half the steps. With each seed all see the
same images, so that differences are paired. It appends one line per training to FILE and skips those that FILE has, so
it may be stopped at any time. A seed on BCCD takes about 2 minutes of one core; the stock model, which is in a folder
next to FILE, half a minute. Data sets that are not here are skipped.

`table` prints the mean of each, its difference to a batch of 8, and the differences between the rules.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_VERBOSE", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy import stats

from benchmarks import results_file
from search_spaces import cache_folder, load
from trials import Budget, recipes
from trials.budget import Recipe
from trials.data import datasets, digit_scenes
from trials.training import short_training

SPACE, USUAL = "v5", 8
FACTORS = {8: (1.0, 0.5, 2.0), 16: (1.0, math.sqrt(2), 2.0), 32: (1.0, 2.0, 4.0)}
"""Learning rates to try with each batch, as multiples of the recipe's, which is that of a batch of 8."""
RULES = ("as with 8", "root", "linear")
"""Rules that say which of these a batch larger than 8 has: its factors, in this order."""
BASE_SEED = 0
BCCD = Path(__file__).parents[1].parent / "shared" / "data" / "bccd" / "data.yaml"
RESULTS = Path(__file__).with_name("results") / "batch.csv"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Trainings on one data set.

    Attributes:
        base_epochs: of the stock model from whose weights the others start.
        scenes: drawn to train on and to validate on; None for a data set that is not drawn.
    """

    image_size: int
    base_epochs: int
    epochs: int
    scratch: Recipe
    inherited: Recipe
    scenes: tuple[int, int] | None = None


PLANS = {
    "bccd": Plan(image_size=96, base_epochs=24, epochs=12, scratch=recipes.SCRATCH, inherited=recipes.INHERITED),
    "digits": Plan(
        image_size=64,
        base_epochs=6,
        epochs=2,
        scratch=recipes.DIGITS_SCRATCH,
        inherited=recipes.DIGITS_INHERITED,
        scenes=(2000, 300),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Result:
    """One training; that of the stock model has the factor 0."""

    data: str
    batch: int
    factor: float
    seed: int
    learning_rate: float
    steps: int
    map50_95: float
    map50: float
    cpu_seconds: float

    @property
    def job(self) -> "Job":
        """What was trained."""
        return Job(self.data, self.batch, self.factor, self.seed)


@dataclass(frozen=True)
class Job:
    """One training of the stock model, from random weights where the factor is 0."""

    data: str
    batch: int
    factor: float
    seed: int

    @property
    def is_base(self) -> bool:
        """Whether the others start from its weights."""
        return not self.factor


def data_file(name: str) -> Path | None:
    """Return the data.yaml of a data set; None if it is not here."""
    if scenes := PLANS[name].scenes:
        return digit_scenes.draw(cache_folder.path().absolute(), train=scenes[0], val=scenes[1])
    return BCCD if BCCD.is_file() else None


def jobs_of(name: str, seeds: int) -> Iterator[Job]:
    """Yield the trainings that start from the stock model, seed by seed."""
    for seed in range(BASE_SEED + 1, BASE_SEED + 1 + seeds):
        for batch, factors in FACTORS.items():
            for factor in factors:
                yield Job(name, batch, round(factor, 4), seed)


def measured(job: Job, file: Path, weights: Path) -> Result:
    """Train once; the stock model's training writes the weights, all others start from them."""
    plan, space, data = PLANS[job.data], load(SPACE), datasets.load(file)
    recipe = plan.scratch if job.is_base else plan.inherited
    recipe = recipe.model_copy(update={"learning_rate": recipe.learning_rate * (job.factor or 1.0)})
    budget = Budget(
        data=data.path,
        epochs=plan.base_epochs if job.is_base else plan.epochs,
        image_size=plan.image_size,
        batch=job.batch,
        seed=job.seed,
        recipe=recipe,
        weights=None if job.is_base else weights,
    )
    began = time.process_time()
    with TemporaryDirectory() as folder:
        document = space.stock.document(len(data.classes))
        to = weights if job.is_base else Path(folder) / "weights.pt"
        trained = short_training.train(document, budget, data, Path(folder), lambda *_: True, weights=to)
    last = trained.epochs[-1]
    return Result(
        data=job.data,
        batch=job.batch,
        factor=job.factor,
        seed=job.seed,
        learning_rate=float(f"{recipe.learning_rate:.4g}"),
        steps=budget.epochs * math.ceil(data.train_images / job.batch),
        map50_95=round(last.map50_95 or 0.0, 5),
        map50=round(last.map50 or 0.0, 5),
        cpu_seconds=round(time.process_time() - began, 1),
    )


def train(options: argparse.Namespace) -> None:
    """Train all that the results file lacks, the stock models first."""
    finished = {one.job for one in results_file.read(options.results, Result)}
    bases = options.results.with_suffix(".bases")
    bases.mkdir(parents=True, exist_ok=True)
    found = {name: data_file(name) for name in options.data}
    files = {name: file for name, file in found.items() if file is not None}
    for name in found.keys() - files.keys():
        print(f"{name}: skipped, there is no {BCCD}", file=sys.stderr)
    weights = {name: bases / f"{name}.pt" for name in files}
    first = [Job(name, USUAL, 0.0, BASE_SEED) for name in files if not weights[name].is_file()]
    rest = [job for name in files for job in jobs_of(name, options.seeds) if job not in finished]
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        for jobs in (first, rest):
            futures = [pool.submit(measured, job, files[job.data], weights[job.data]) for job in jobs]
            for done, future in enumerate(as_completed(futures), 1):
                result = future.result()
                if result.job not in finished:
                    results_file.append(options.results, [result])
                what = f"batch {result.batch}  rate {result.learning_rate:g}  seed {result.seed}"
                line = f"{result.map50_95:.4f}  {result.cpu_seconds:.0f} s"
                print(f"{done}/{len(jobs)}  {result.data}  {what}  {line}", flush=True)


def scores_of(results: Sequence[Result], name: str) -> dict[tuple[int, float], np.ndarray]:
    """Return mAP50-95 in points by batch and factor: one for each seed with which all of them were trained."""
    found = {(one.batch, one.factor, one.seed): 100 * one.map50_95 for one in results if one.data == name}
    ways = [(batch, round(factor, 4)) for batch, factors in FACTORS.items() for factor in factors]
    seeds = sorted({seed for _, factor, seed in found if factor})
    whole = [seed for seed in seeds if all((*way, seed) in found for way in ways)]
    return {way: np.array([found[(*way, seed)] for seed in whole]) for way in ways}


def table(options: argparse.Namespace) -> None:
    """Print the tables, as Markdown."""
    results = results_file.read(options.results, Result)
    for name in PLANS:
        scores = scores_of(results, name)
        seeds = len(scores[USUAL, 1.0])
        if seeds < 2:
            continue
        print(f"\n{name}, {seeds} seeds\n")
        print("| batch | learning rate times | steps | mAP50-95 | difference to batch 8 (95 %) |")
        print("|---|---|---|---|---|")
        for (batch, factor), points in scores.items():
            steps = next(one.steps for one in results if (one.data, one.batch) == (name, batch) and one.factor)
            is_usual = (batch, factor) == (USUAL, 1.0)
            difference = "" if is_usual else interval(points - scores[USUAL, 1.0])
            print(f"| {batch} | {factor:.3g} | {steps} | {points.mean():.2f} | {difference} |")
        print("\n| batch | rules | difference (95 %) |\n|---|---|---|")
        for batch, (one, other) in product((16, 32), ((1, 0), (1, 2))):
            factors = [round(factor, 4) for factor in FACTORS[batch]]
            difference = scores[batch, factors[one]] - scores[batch, factors[other]]
            print(f"| {batch} | {RULES[one]} less {RULES[other]} | {interval(difference)} |")


def interval(differences: np.ndarray) -> str:
    """Return the mean of paired differences with the 95 % interval of Student's t."""
    mean, count = differences.mean(), len(differences)
    half = stats.t.ppf(0.975, count - 1) * differences.std(ddof=1) / math.sqrt(count)
    return f"{mean:+.2f} ({mean - half:+.2f} to {mean + half:+.2f})"


def main() -> None:
    """Run the command line."""
    parser, command = results_file.commands(__doc__, RESULTS, train=train, table=table)
    command["train"].add_argument("--data", nargs="*", default=["bccd"], choices=list(PLANS))
    command["train"].add_argument("--seeds", type=int, default=5)
    command["train"].add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
