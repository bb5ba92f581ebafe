"""How often the verdict of a confirmation is right, on simulated studies of which the truth is known.

python benchmarks/verdict.py [--studies 2000] [--seeds 5]

Simulated: mAP50-95 in points; the standard deviation of a paired difference is 0.19 points, which the verdict is not
told; a seed moves all models of a study alike, by another 0.1. Noise: normal; Student's t with three degrees of freedom
and the same deviation ("heavy"); normal with deviations that differ up to fourfold between architectures
("unequal"). The verdict is `nas.algorithms.paired_comparison.compare`, from which `nas.report.verdict` takes every
finding.

The old rule (until December 2026) is beside it: the seeds that put an architecture on the Pareto front also judge it,
and a gain is claimed where the best one is above the stock model with each of three seeds.

Not simulated: the sampling of test images, several searches of one data set.
"""

import argparse
import time
from collections.abc import Callable
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from nas.algorithms.paired_comparison import Finding, compare
from nas.report.defaults import MARGIN

FloatArray = NDArray[np.float64]
PAIRED_DEVIATION, SEED_EFFECT = 0.19, 0.1
FINALISTS, GAINS = (3, 5, 10, 20), (0.1, 0.2, 0.3, 0.5)
OLD_SEEDS = 3


def normal(rng: np.random.Generator, models: int, seeds: int) -> FloatArray:
    return rng.standard_normal((models, seeds))


def heavy(rng: np.random.Generator, models: int, seeds: int) -> FloatArray:
    return rng.standard_t(3, (models, seeds)) / sqrt(3)


def unequal(rng: np.random.Generator, models: int, seeds: int) -> FloatArray:
    """Return noise of which each architecture has its own deviation, with the usual one in the mean of squares."""
    deviations = np.exp(rng.uniform(-np.log(2), np.log(2), (models, 1)))
    deviations[0] = 1.0
    return rng.standard_normal((models, seeds)) * deviations / np.sqrt((deviations**2).mean())


NOISES: dict[str, Callable[[np.random.Generator, int, int], FloatArray]] = {
    "normal": normal,
    "heavy": heavy,
    "unequal": unequal,
}


def accuracies(rng: np.random.Generator, noise: str, finalists: int, seeds: int, gain: float = 0.0) -> FloatArray:
    """Return accuracies of a study, `(1 + finalists, seeds)`: the first finalist has a true gain, the others none."""
    values = NOISES[noise](rng, 1 + finalists, seeds) * PAIRED_DEVIATION / sqrt(2)
    values += rng.standard_normal(seeds) * SEED_EFFECT
    values[1] += gain
    return values


def old_rule(values: FloatArray) -> bool:
    """Whether the rule until December 2026 claims a gain."""
    differences = values[1:] - values[0]
    return bool(differences[differences.mean(axis=1).argmax()].min() > 0)


def wilson(successes: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927)."""
    z, share = 1.96, successes / total
    middle = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    reach = z / (1 + z**2 / total) * sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    return middle - reach, middle + reach


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    studies, seeds = arguments.studies, arguments.seeds
    rng, began = np.random.default_rng(0), time.monotonic()
    print(f"{studies} studies a row, {seeds} paired seeds; share of studies in %, with its 95 % interval\n")
    print("No difference between architectures: a gain is claimed")
    print(f"{'finalists':>9}  {'noise':8}  {'verdict':>18}  {'old rule':>18}  {'intervals that hold 0':>22}")
    for finalists in FINALISTS:
        for noise in NOISES:
            claims = old = covered = 0
            for _ in range(studies):
                results = compare(accuracies(rng, noise, finalists, seeds), margin=MARGIN)
                claims += any(one.finding is Finding.BETTER for one in results)
                covered += sum(one.low <= 0 <= one.high for one in results)
                old += old_rule(accuracies(rng, noise, finalists, OLD_SEEDS))
            shown = "  ".join(f"{shown_share(count, studies):>18}" for count in (claims, old))
            print(f"{finalists:9}  {noise:8}  {shown}  {shown_share(covered, studies * finalists):>22}")
    print("\nOne finalist with a true gain, in points: found, and said to be better")
    print(f"{'finalists':>9}  {'noise':8}  " + "  ".join(f"{gain:>18}" for gain in GAINS) + f"  {'coverage':>18}")
    for finalists in (1, *FINALISTS):
        for noise in NOISES:
            found, covered = [], 0
            for gain in GAINS:
                first = [
                    compare(accuracies(rng, noise, finalists, seeds, gain), margin=MARGIN)[0] for _ in range(studies)
                ]
                found.append(sum(one.finding is Finding.BETTER for one in first))
                covered += sum(one.low <= gain <= one.high for one in first)
            shares = "  ".join(f"{shown_share(count, studies):>18}" for count in found)
            print(f"{finalists:9}  {noise:8}  {shares}  {shown_share(covered, studies * len(GAINS)):>18}")
    print(f"\n{time.monotonic() - began:.0f} s")


def shown_share(count: int, total: int) -> str:
    low, high = wilson(count, total)
    return f"{count / total:.1%} ({low:.1%}-{high:.1%})".replace("%", "")


if __name__ == "__main__":
    main()
