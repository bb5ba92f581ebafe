"""Coverage of the predicted shrinkage of a front, on simulated studies whose truth is known.

    python benchmarks/shrinkage.py [--studies N]

Each study scores architectures of random cost with one seed, takes its Pareto front (at most eight members), and is
confirmed with five fresh seeds. The prediction knows the noise from a few repeats only. Printed is, for each setting:
the mean of the predicted and of the measured shrinkage in points, and in how many studies the 95 % interval contained
what the confirmation measured.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nas.algorithms.arrays import FloatArray
from nas.algorithms.pareto import Direction, pareto_front
from nas.algorithms.seed_noise import SeedNoise, estimate
from nas.algorithms.shrinkage import Scored, predict
from nas.defaults import MOST_FINALISTS, SEEDS

Draw = Callable[[np.random.Generator, tuple[int, ...]], FloatArray]


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
    """Draw normal noise of deviation 1."""
    return rng.normal(size=shape)


def heavy_tailed(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
    """Draw Student t noise with 4 degrees of freedom, scaled to a deviation of 1."""
    return np.asarray(rng.standard_t(4, size=shape) / np.sqrt(2))


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Kind of studies.

    Attributes:
        spread: standard deviation of true accuracies around the trend, in those of the noise.
        trend: true points for a cost larger by a factor of e.
        repeated: architectures, the stock model among them, that have two seeds: by them the noise is estimated.
        failed: architectures that lie ten deviations below the others.
    """

    architectures: int
    spread: float
    trend: float = 0.0
    repeated: int = 3
    failed: int = 0
    noise: Draw = normal

    @property
    def name(self) -> str:
        """Setting in words."""
        tails = "heavy tails" if self.noise is heavy_tailed else "normal"
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.architectures} | {self.spread:g} | {self.trend:g} | {self.repeated - 1} | {tails}{failed}"


SETTINGS = (
    Setting(architectures=10, spread=0.0),
    Setting(architectures=10, spread=1.0),
    Setting(architectures=10, spread=3.0),
    Setting(architectures=30, spread=0.0, repeated=6),
    Setting(architectures=30, spread=1.0, repeated=6),
    Setting(architectures=30, spread=1.0, trend=5.0, repeated=6),
    Setting(architectures=30, spread=1.0, trend=5.0, repeated=6, failed=3),
    Setting(architectures=30, spread=1.0, repeated=6, noise=heavy_tailed),
)


def study(setting: Setting, rng: np.random.Generator) -> tuple[float, float, bool]:
    """Simulate a study and its confirmation; return predicted and measured shrinkage, and whether they agree."""
    cost = rng.uniform(6, 9, setting.architectures)
    truth = setting.trend * np.log(cost / 7.5) + setting.spread * rng.normal(size=len(cost))
    truth[: setting.failed] -= 10
    reference = setting.spread * rng.normal()
    scores, level = truth + setting.noise(rng, truth.shape), float(reference + setting.noise(rng, (1,))[0])
    points = list(zip(scores.tolist(), cost.tolist(), strict=True))
    front = pareto_front(points, [Direction.MAXIMIZE, Direction.MINIMIZE])
    selected = sorted(front, key=lambda index: -scores[index])[:MOST_FINALISTS]
    architectures = [
        Scored(accuracy=score, seeds=1, cost=each, is_selected=index in selected)
        for index, (score, each) in enumerate(points)
    ]
    found = predict(architectures, (level, 1), _noise(setting, rng), seeds=SEEDS)
    if found is None:
        raise RuntimeError("no prediction")
    fresh = truth[selected][:, None] + setting.noise(rng, (len(selected), SEEDS))
    measured = found.difference - float(fresh.mean() - reference - setting.noise(rng, (SEEDS,)).mean())
    return found.expected, measured, found.low <= measured <= found.high


def _noise(setting: Setting, rng: np.random.Generator) -> SeedNoise:
    """Estimate the noise from repeats, as `nas trust` does."""
    values = setting.noise(rng, (setting.repeated, 2)) + rng.normal(size=(1, 2))
    found = estimate([{(str(model), seed): float(values[model, seed]) for model, seed in np.ndindex(values.shape)}])
    if found is None:
        raise RuntimeError("no repeats")
    return found


def main() -> None:
    """Print the table, as Markdown; the unit is the standard deviation of the noise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=400)
    options = parser.parse_args()
    print("| architectures | spread | trend | df of noise | noise | predicted | measured | within the interval |")
    print("|---|---|---|---|---|---|---|---|")
    for setting in SETTINGS:
        rng = np.random.default_rng(0)
        predicted, measured, covered = np.array([study(setting, rng) for _ in range(options.studies)]).T
        share = f"{covered.mean():.1%}"
        print(f"| {setting.name} | {predicted.mean():.2f} | {measured.mean():.2f} | {share} |", flush=True)


if __name__ == "__main__":
    main()
