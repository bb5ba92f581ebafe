"""At which slope of the stock model the order of short and long trainings begins to agree.

    python benchmarks/slope.py train DATA --results FILE [--space NAME] [--scale S] [--image-size PX]
                               [--epochs N,N,...] [--base-factor N] [--architectures N] [--seeds N] [--jobs N]
                               [--few-images]
    python benchmarks/slope.py table --results FILE
    python benchmarks/slope.py recipes --results benchmarks/results/recipe-bccd.csv

`train` trains, for each number of epochs, the stock model for twice as many, or `--base-factor` times as many; from its
weights a fixed sample of architectures, the stock model among them, for as many; and all of them for three times as
many. It appends one line per training to FILE, and skips those that FILE has, so it may be stopped at any time. DATA is
a data.yaml, or digits; `benchmarks/shape_scenes.py` draws another one. `--few-images` takes the learning rates of the
digit scenes.

`table` prints a row for each budget: the slope (what the stock model gains in a candidate's epochs), the median
difference between two architectures, their ratio, and Kendall's tau of short and long trainings, and given cost.
The stock models are in a folder next to FILE, with its name.

`recipes` prints the same of the trainings of `benchmarks/recipe.py`, whose longer trainings start from stock models of
their own, or from scratch.
"""

import argparse
import csv
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, median

os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_VERBOSE", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks import one_training, results_file
from nas.algorithms.rank_agreement import agreement
from search_spaces import Architecture, load
from trials import Budget, Costs, recipes
from trials.costing import cost
from trials.data import datasets
from trials.data.datasets import DIGITS

BASE, SHORT, LONG = "base", "short", "long"
LONG_FACTOR = 3
FEW_SCRATCH, FEW_INHERITED = (
    one.model_copy(update={"fliplr": 0.5}) for one in (recipes.DIGITS_SCRATCH, recipes.DIGITS_INHERITED)
)
"""Recipes for few images that may be mirrored."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Line of the results file: one training, of a search of which candidates have so many epochs."""

    data: str
    model: str
    image_size: int
    base_epochs: int
    epochs: int
    seed: int
    length: str
    fingerprint: str
    summary: str
    gflops: float
    map50_95: float
    seconds: float

    @property
    def search(self) -> tuple[str, str, int, int, int, int]:
        """Key of the search that it belongs to."""
        return self.data, self.model, self.image_size, self.base_epochs, self.epochs, self.seed

    @property
    def training(self) -> tuple[object, ...]:
        """Key of the training."""
        return (*self.search, self.length, self.fingerprint)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training; `index` is that of the architecture in the sample."""

    data: str
    space: str
    scale: str
    image_size: int
    base_epochs: int
    epochs: int
    seed: int
    length: str
    index: int
    count: int
    few_images: bool


def sample(job: Job) -> list[Architecture]:
    """Return the stock model and random architectures, the same in every call."""
    space, rng = load(job.space, scale=job.scale), random.Random(0)
    found = {space.stock.fingerprint: space.stock}
    while len(found) < job.count:
        architecture = space.sample(rng)
        if not space.scaling_factors or space.incompatibility(architecture) is None:
            found.setdefault(architecture.fingerprint, architecture)
    return list(found.values())


def trained(job: Job, weights: Path) -> Result:
    """Train, and return the score; the stock model's weights are written to, or read from, `weights`."""
    data, is_base = datasets.load(job.data), job.length == BASE
    space = load(job.space, scale=job.scale)
    architecture = sample(job)[job.index]
    scratch, inherited = (
        (recipes.DIGITS_SCRATCH, recipes.DIGITS_INHERITED)
        if job.data == DIGITS
        else (FEW_SCRATCH, FEW_INHERITED)
        if job.few_images
        else (recipes.SCRATCH, recipes.INHERITED)
    )
    budget = Budget(
        data=data.path,
        epochs={BASE: job.base_epochs, SHORT: job.epochs, LONG: LONG_FACTOR * job.epochs}[job.length],
        image_size=job.image_size,
        seed=job.seed,
        weights=None if is_base else weights,
        recipe=scratch if is_base else inherited,
    )
    counted = cost.table(space, len(data.classes), budget.deploy_size).cost(architecture)
    costs = Costs(params=counted.params, gflops=counted.gflops)
    outcome, scores = one_training.run(architecture, budget, costs=costs, keep=weights if is_base else None)
    return Result(
        data=Path(job.data).parent.name if job.data != DIGITS else DIGITS,
        model=f"{job.space}{job.scale}",
        image_size=job.image_size,
        base_epochs=job.base_epochs,
        epochs=job.epochs,
        seed=job.seed,
        length=job.length,
        fingerprint=architecture.fingerprint,
        summary=architecture.summary(),
        gflops=round(counted.gflops, 3),
        map50_95=round(scores.map50_95, 5),
        seconds=round(outcome.seconds, 1),
    )


def train(options: argparse.Namespace) -> None:
    """Train all that the results file lacks, the stock models of a seed first."""
    finished = {(*one.search[2:], one.length, one.fingerprint) for one in _of(options)}
    folder = options.results.with_suffix(".bases")
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        for jobs in _jobs(options):
            missing = [
                job
                for job in jobs
                if (*_numbers(job), job.length, sample(job)[job.index].fingerprint) not in finished
                or (job.length == BASE and not _weights(folder, job).is_file())
            ]
            futures = [pool.submit(trained, job, _weights(folder, job)) for job in missing]
            for done, future in enumerate(as_completed(futures), 1):
                result = future.result()
                if (*result.search[2:], result.length, result.fingerprint) not in finished:
                    results_file.append(options.results, [result])
                line = f"{result.epochs} epochs, seed {result.seed}, {result.length}: {result.map50_95:.4f}"
                print(f"{done}/{len(missing)}  {line}  {result.summary}", flush=True)


def _of(options: argparse.Namespace) -> list[Result]:
    """Return the results of this data set and model."""
    name = Path(options.data).parent.name if options.data != DIGITS else DIGITS
    model = f"{options.space}{options.scale}"
    return [one for one in results_file.read(options.results, Result) if (one.data, one.model) == (name, model)]


def _jobs(options: argparse.Namespace) -> Iterator[list[Job]]:
    """Yield the trainings that can run at once, the cheapest budgets first."""
    for seed in range(options.seeds):
        for epochs in map(int, options.epochs.split(",")):
            for lengths in ([BASE], [SHORT, LONG]):
                yield [
                    Job(
                        data=options.data,
                        space=options.space,
                        scale=options.scale,
                        image_size=options.image_size,
                        base_epochs=options.base_factor * epochs,
                        epochs=epochs,
                        seed=seed,
                        length=length,
                        index=index,
                        count=options.architectures,
                        few_images=options.few_images,
                    )
                    for length in lengths
                    for index in range(1 if length == BASE else options.architectures)
                ]


def _numbers(job: Job) -> tuple[int, int, int, int]:
    """Return the numbers that tell its search from others of the same data set and model."""
    return job.image_size, job.base_epochs, job.epochs, job.seed


def _weights(folder: Path, job: Job) -> Path:
    data = Path(job.data).parent.name if job.data != DIGITS else DIGITS
    return folder / f"{data}-{job.space}{job.scale}-{'-'.join(map(str, _numbers(job)))}.pt"


COLUMNS = (
    "data",
    "model",
    "px",
    "base + epochs",
    "seeds",
    "stock",
    "slope",
    "between candidates",
    "ratio",
    "tau with 3 times as long",
    "given cost",
    "pairs alike / inverted",
)


def table(options: argparse.Namespace) -> None:
    """Print the table, as Markdown; accuracies are means over seeds, in points."""
    results = results_file.read(options.results, Result)
    print(f"| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|")
    for key in sorted({one.search[:-1] for one in results}):
        row = _row([one for one in results if one.search[:-1] == key])
        if row:
            data, model, image_size, base_epochs, epochs = key
            print(f"| {' | '.join([data, model, str(image_size), f'{base_epochs} + {epochs}', *row])} |")


LONGER = (("base-24", "inherit-8", "inherit-20"), ("base-24", "inherit-8", "long"), ("base-60", "inherit-20", "long"))
"""Ways of `benchmarks/recipe.py`: the stock model, candidates from it, and the longer trainings."""


def recipes_table(options: argparse.Namespace) -> None:
    """Print the table of the trainings of `benchmarks/recipe.py`, as Markdown."""
    print("| way | longer | slope | between candidates | ratio | tau | given cost | pairs alike / inverted |")
    print("|---|---|---|---|---|---|---|---|")
    with options.results.open(newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if (row["image_size"], row["reading"]) == ("128", "average-26")]
    stock = next(row["fingerprint"] for row in rows if row["summary"] == "stock")
    costs = {row["fingerprint"]: float(row["gflops"]) for row in rows}
    for base, way, longer in LONGER:
        before, short, long = (_of_way(rows, name) for name in (base, way, longer))
        cells = _cells(before[stock], short, long, costs, stock)
        print(f"| {base}, {way} | {longer} | {' | '.join(cells)} |")


def _of_way(rows: Sequence[Mapping[str, str]], way: str) -> dict[str, float]:
    """Return the mean accuracy of each architecture that was trained so."""
    each: dict[str, list[float]] = {}
    for row in rows:
        if row["way"] == way:
            each.setdefault(row["fingerprint"], []).append(float(row["map50_95"]))
    return {name: fmean(accuracies) for name, accuracies in each.items()}


def _row(results: Sequence[Result]) -> list[str]:
    """Return the cells of a budget; empty while a training of every seed is missing."""
    short, long = (_means(results, length) for length in (SHORT, LONG))
    base = _means(results, BASE)
    if not base or len(long) < 4 or set(short) != set(long):
        return []
    (stock,) = base
    costs = {one.fingerprint: one.gflops for one in results}
    return [
        str(len({one.seed for one in results})),
        f"{100 * base[stock]:.1f}, {100 * short[stock]:.1f}, {100 * long[stock]:.1f}",
        *_cells(base[stock], short, long, costs, stock),
    ]


def _cells(
    base: float, short: Mapping[str, float], long: Mapping[str, float], costs: Mapping[str, float], stock: str
) -> list[str]:
    """Return slope, median difference, their ratio, and how the orders agree, as text."""
    names = sorted(short.keys() & long.keys())
    slope = 100 * (short[stock] - base)
    between = 100 * median(abs(short[one] - short[other]) for one, other in combinations(names, 2))
    found = agreement([short[one] for one in names], [long[one] for one in names], [costs[one] for one in names])
    if found is None:
        return [f"{slope:.1f}", f"{between:.2f}", f"{slope / between:.1f}", "", "", ""]
    partial = "" if found.partial is None else f"{found.partial:.2f}"
    orders = [f"{found.tau:.2f}", partial, f"{found.same} / {found.inverted}"]
    return [f"{slope:.1f}", f"{between:.2f}", f"{slope / between:.1f}", *orders]


def _means(results: Sequence[Result], length: str) -> Mapping[str, float]:
    """Return the mean accuracy of each architecture that has all seeds."""
    seeds = {one.seed for one in results if one.length == BASE}
    each: dict[str, dict[int, float]] = {}
    for one in results:
        if one.length == length:
            each.setdefault(one.fingerprint, {})[one.seed] = one.map50_95
    return {name: fmean(by_seed.values()) for name, by_seed in each.items() if by_seed.keys() == seeds}


def main() -> None:
    """Run the command line."""
    parser, command = results_file.commands(__doc__, None, train=train, table=table, recipes=recipes_table)
    command["train"].add_argument("data")
    command["train"].add_argument("--space", default="v8")
    command["train"].add_argument("--scale", default="n")
    command["train"].add_argument("--image-size", type=int, default=64)
    command["train"].add_argument("--epochs", default="2,4,8,16")
    command["train"].add_argument("--base-factor", type=int, default=2)
    command["train"].add_argument("--architectures", type=int, default=6)
    command["train"].add_argument("--seeds", type=int, default=1)
    command["train"].add_argument("--jobs", type=int, default=1)
    command["train"].add_argument("--few-images", action="store_true")
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
