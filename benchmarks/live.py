"""Samplers compared in real searches: the same space, data, budgets, seeds and number of trials.

    python benchmarks/live.py DATA --runs FOLDER [--samplers ours random] [--seeds 3] [--trials 16] [--epochs 4]

Each search is `nas search` in a separate study, by default with two workers; the same command resumes an interrupted
one. Samplers with the same seed start from the same trained stock model, and share the score cache, so an architecture
has one score, whichever sampler proposes it.

Printed are, after each quarter of the trials, the hypervolume of accuracy and log GFLOPs, as a share of that of all
searches with the same seed together (reference point: the worst corner of all trials of all searches, extended by 5 %);
and for each seed the GFLOPs that the cheapest model saves that is at most one point less accurate than the stock model.
"""

import argparse
import math
import statistics
import subprocess
import sys
from pathlib import Path

from nas.algorithms.hypervolume import hypervolume, reference_point
from nas.algorithms.pareto import Point, directions_for, pareto_front
from nas.records.record import Record, cheapest_as_accurate, pareto_front_of, stock_of
from nas.study.study import Study

BOTH = directions_for(costs=1)


def main(options: argparse.Namespace) -> None:
    records = {
        (sampler, seed): _run_search(options, sampler, seed)
        for seed in range(options.seeds)
        for sampler in options.samplers
    }
    every = [point for found in records.values() for point in _points(found)]
    corner = reference_point(every, BOTH)
    whole = {
        seed: hypervolume(
            [p for (_, its), found in records.items() if its == seed for p in _points(found)], BOTH, corner
        )
        for seed in range(options.seeds)
    }
    looks = [math.ceil(options.trials * quarter / 4) for quarter in (1, 2, 3, 4)]
    print(f"{options.seeds} seeds, {options.trials} trials of {options.epochs} epochs, {options.workers} workers")
    for sampler in options.samplers:
        shares = [
            [hypervolume(_points(records[sampler, seed])[:look], BOTH, corner) / whole[seed] for look in looks]
            for seed in range(options.seeds)
        ]
        progress = "  ".join(
            f"after {look} {_spread([of[index] for of in shares])}" for index, look in enumerate(looks)
        )
        saved = ", ".join(_saved(records[sampler, seed]) for seed in range(options.seeds))
        size = ", ".join(str(len(pareto_front(_points(records[sampler, seed]), BOTH))) for seed in range(options.seeds))
        print(f"{sampler:<8} {progress}  within a point of stock: {saved}  on the front: {size}")


def _run_search(options: argparse.Namespace, sampler: str, seed: int) -> list[Record]:
    """Run or resume one search and return its finished trials, in order."""
    name = f"live-{sampler}-{seed}"
    values = {
        "space": options.space,
        "data": options.data,
        "runs": options.runs,
        "study": name,
        "sampler": sampler,
        "seed": seed,
        "trials": options.trials,
        "epochs": options.epochs,
        "base-epochs": options.base_epochs,
        "image-size": options.image_size,
        "workers": options.workers,
    }
    flags = [text for flag, value in values.items() for text in (f"--{flag}", str(value))]
    subprocess.run([sys.executable, "-c", "from nas.cli import main; main()", "search", *flags], check=True)
    return [record for record in Study.open((options.runs / name).absolute()).records() if record.finished]


def _points(records: list[Record]) -> list[Point]:
    return [(record.map50_95 or 0.0, math.log(record.gflops or 1.0)) for record in records]


def _saved(records: list[Record]) -> str:
    stock = stock_of(records)
    bargain = stock and cheapest_as_accurate(pareto_front_of(records, ("map50_95", "gflops")), stock)
    return f"-{1 - (bargain.gflops or 0.0) / (stock.gflops or 1.0):.1%}" if stock and bargain else "none"


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="an Ultralytics data.yaml")
    parser.add_argument("--runs", type=Path, required=True, help="where the studies lie, or are put")
    parser.add_argument("--space", default="v9")
    parser.add_argument("--samplers", nargs="*", default=["ours", "random"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--base-epochs", type=int, default=16)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--workers", type=int, default=2)
    main(parser.parse_args())
