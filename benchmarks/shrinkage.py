"""Coverage of the predicted shrinkage of a front, on simulated studies whose truth is known.

    python benchmarks/shrinkage.py [--studies N] [--further]

Each study scores architectures of random cost with one seed, takes its Pareto front (at most eight members), and is
confirmed with five fresh seeds. The prediction knows the noise from a few repeats only. Printed is, for each setting:
the mean of the predicted and of the measured shrinkage in points, and in how many studies the 95 % interval contained
what the confirmation measured.

With `--further` two studies, each with repeats, predict the shrinkage of a third of which nothing is known. Its front
is taken with the stock model, as that of a search is. A third with no other model on its front is left out, for it is
not confirmed.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nas.algorithms.accuracy_model import Scored
from nas.algorithms.arrays import FloatArray
from nas.algorithms.further_search import Searched, predict_further
from nas.algorithms.pareto import Direction, pareto_front
from nas.algorithms.seed_noise import SeedNoise, estimate
from nas.algorithms.shrinkage import predict
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


Row = tuple[float, float, bool, float]
"""Predicted and measured shrinkage, whether the interval contains the latter, and its width."""


def study(setting: Setting, rng: np.random.Generator) -> Row:
    """Simulate a study and its confirmation, and predict what the latter measures."""
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
    return found.expected, measured, found.low <= measured <= found.high, found.high - found.low


def further(setting: Setting, rng: np.random.Generator) -> Row:
    """Simulate three studies, and predict from two of them what the confirmation of the third measures."""
    offset = setting.spread * rng.normal()  # of the stock model, which is the same in all
    measured = None
    while measured is None:
        measured = _confirmed(*_searched(setting, offset, rng), setting, rng)
    searches = [_as_known(*_searched(setting, offset, rng)[::2]) for _ in range(2)]
    found = predict_further(searches, _noise(setting, rng, studies=2), seeds=SEEDS, most=MOST_FINALISTS)
    if found is None:
        raise RuntimeError("no prediction")
    return found.expected, measured, found.low <= measured <= found.high, found.high - found.low


def _searched(setting: Setting, offset: float, rng: np.random.Generator) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return scores, true accuracies and costs of a search, the stock model first."""
    cost = rng.uniform(6, 9, 1 + setting.architectures)
    cost[0] = 7.5
    truth = setting.trend * np.log(cost / 7.5) + setting.spread * rng.normal(size=len(cost))
    truth[0] = offset
    truth[1 : 1 + setting.failed] -= 10
    truth += 5 * rng.normal()  # the level that the weights give which all start from
    return truth + setting.noise(rng, truth.shape), truth, cost


def _as_known(scores: FloatArray, cost: FloatArray) -> Searched:
    """Return what is known of a search."""
    reference, *others = (
        Scored(accuracy=score, seeds=1, cost=each) for score, each in zip(scores.tolist(), cost.tolist(), strict=True)
    )
    return Searched(architectures=others, reference=reference, seeds=1)


def _confirmed(
    scores: FloatArray, truth: FloatArray, cost: FloatArray, setting: Setting, rng: np.random.Generator
) -> float | None:
    """Return the shrinkage that five fresh seeds measure; None if the stock model is alone on the front."""
    points = list(zip(scores.tolist(), cost.tolist(), strict=True))
    front = [one for one in pareto_front(points, [Direction.MAXIMIZE, Direction.MINIMIZE]) if one]
    selected = sorted(front, key=lambda index: -scores[index])[:MOST_FINALISTS]
    if not selected:
        return None
    trained = [0, *selected]
    fresh = (truth[trained][:, None] + setting.noise(rng, (len(trained), SEEDS))).mean(axis=1)
    return float((scores[selected].mean() - scores[0]) - (fresh[1:].mean() - fresh[0]))


def _noise(setting: Setting, rng: np.random.Generator, *, studies: int = 1) -> SeedNoise:
    """Estimate the noise from the repeats of so many studies, as `nas trust` does."""
    layouts = [setting.noise(rng, (setting.repeated, 2)) + rng.normal(size=(1, 2)) for _ in range(studies)]
    found = estimate(
        {(str(model), seed): float(values[model, seed]) for model, seed in np.ndindex(values.shape)}
        for values in layouts
    )
    if found is None:
        raise RuntimeError("no repeats")
    return found


COLUMNS = (
    "architectures",
    "spread",
    "trend",
    "df of noise",
    "noise",
    "predicted",
    "measured",
    "within the interval",
    "its mean width",
)
"""Rows of the table; degrees of freedom are those of one study."""


def main() -> None:
    """Print the table, as Markdown; the unit is the standard deviation of the noise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=400)
    parser.add_argument("--further", action="store_true", help="predict a third study from two others")
    options = parser.parse_args()
    simulate = further if options.further else study
    print(f"| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|")
    for setting in SETTINGS:
        rng = np.random.default_rng(0)
        predicted, measured, covered, width = np.array([simulate(setting, rng) for _ in range(options.studies)]).T
        cells = (f"{predicted.mean():.2f}", f"{measured.mean():.2f}", f"{covered.mean():.1%}", f"{width.mean():.1f}")
        print(f"| {setting.name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
