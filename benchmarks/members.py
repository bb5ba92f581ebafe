"""Compare what the surrogate learns across members with what it learns where a part of that is removed.

    python -m benchmarks.members predict [--seeds 8] [--results FILE]
    python -m benchmarks.members search [--seeds 8] [--trials 30] [--results FILE]
    python -m benchmarks.members table [--results FILE]

`predict` and `search` go on where they were stopped.

Accuracies are made up (`benchmarks/made_up_members.py`), in worlds in which members agree about operators more or less.

- `ours`: members share costs, scaling factors, and operators by region as far as the trials say so;
- `regions alike`: an operator in a region of one member always counts in the others;
- `regions apart`: it never does;
- `apart`: nothing says anything of another member, costs neither.

`predict` fits the surrogate to the stock models and to architectures that were drawn, and compares its predictions of
others with the truth: the root of the mean squared error, in points.

`search` searches as the command does: the stock models, then proposals of `ours`. A search is scored by the hypervolume
of true accuracies and GFLOPs after 10, 20 and all trials, as a share of that which all four searches of one seed have
found together.
"""

import argparse
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import optuna
from scipy.stats import t as student

from benchmarks import results_file
from benchmarks.made_up_members import (
    AGREEMENTS,
    APART,
    CLASSES,
    NOISE,
    OURS,
    PIXELS,
    WAYS,
    Apart,
    Point,
    Truth,
    costs,
    learning,
    space,
)
from nas.algorithms.gaussian_process import Surrogate
from nas.algorithms.hypervolume import hypervolume, reference_point
from nas.algorithms.pareto import directions_for
from nas.records.trial_attributes import ACCURACY, FINGERPRINT
from nas.samplers.encoding import Encoding
from nas.samplers.factory import make_sampler
from nas.samplers.feasibility import FeasibilityFilter
from nas.samplers.suggest import suggest
from nas.settings import Settings
from search_spaces import Architecture
from trials import Budget, Limits

RESULTS = Path("benchmarks/results/members.csv")
AFTER = (10, 20)
FITTED_TO, PREDICTED, CHANGED = (15, 30, 60, 120), 200, 0.4
"""Architectures that the surrogate is fitted to, and that it predicts; share of slots whose choice is drawn."""


@dataclass(frozen=True)
class Search:
    """Result of one search: a row of the file.

    Attributes:
        way: what the surrogate learns across members, one of `WAYS`.
        trials: after which the share is that of the hypervolume.
    """

    agreement: float
    seed: int
    way: str
    trials: int
    share: float


@dataclass(frozen=True)
class Prediction:
    """Error of one surrogate: a row of the file of predictions.

    Attributes:
        way: what the surrogate learns across members, one of `WAYS`.
        trials: which it is fitted to.
        error: root of the mean squared difference to the true accuracies, in points.
        transfer: between members, as fitted.
    """

    agreement: float
    seed: int
    way: str
    trials: int
    error: float
    transfer: float


def predictions_file(results: Path) -> Path:
    """Return the file of predictions beside that of searches."""
    return results.with_name(f"{results.stem}-predictions.csv")


def predict(options: argparse.Namespace) -> None:
    """Fit and compare the surrogates that the file lacks."""
    file = predictions_file(options.results)
    there = {(row.agreement, row.seed) for row in results_file.read(file, Prediction)}
    for truth in _worlds(options.seeds, there):
        results_file.append(file, list(_predictions(truth)))


def _predictions(truth: Truth) -> Iterator[Prediction]:
    """Yield the errors in one world, of surrogates that are fitted to the same architectures."""
    rng, joined = random.Random(truth.seed), space()
    drawn = [*joined.stocks, *(_drawn(rng) for _ in range(max(FITTED_TO) + PREDICTED))]
    accuracies = np.array([truth.measured(one) for one in drawn])
    true = np.array([truth.point(one)[0] for one in drawn[-PREDICTED:]])
    feasible = FeasibilityFilter(joined, costs, Limits())
    for way in WAYS:
        kind = Apart if way == APART else Encoding
        features = kind(joined, feasible.extremes(), feasible.figures, ("gflops",)).of(drawn).features
        for count in FITTED_TO:
            with learning(way):
                surrogate = Surrogate.fit(features[np.arange(count)], accuracies[:count], NOISE)
            means, _ = surrogate.predict(features[np.arange(len(drawn) - PREDICTED, len(drawn))])
            error = 100 * sqrt(fmean((means - true) ** 2))
            yield Prediction(truth.agreement, truth.seed, way, count, round(error, 4), surrogate.transfer)


def _drawn(rng: random.Random) -> Architecture:
    """Return an architecture of any member, some slots of which have another operator or choice."""
    member = rng.choice(space().members)
    return member.of({slot.name: rng.choice(slot.choices) for slot in member.slots if rng.random() < CHANGED})


def search(options: argparse.Namespace) -> None:
    """Make the searches that the file lacks."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    there = {(row.agreement, row.seed) for row in results_file.read(options.results, Search)}
    for truth in _worlds(options.seeds, there):
        results_file.append(options.results, list(_searches(truth, options.trials)))


def _worlds(seeds: int, there: set[tuple[float, int]]) -> Iterator[Truth]:
    """Yield the worlds that a file lacks."""
    for seed, agreement in product(range(seeds), AGREEMENTS):
        if (agreement, seed) not in there:
            yield Truth(agreement=agreement, seed=seed)


def _searches(truth: Truth, trials: int) -> Iterator[Search]:
    """Yield the results of one world, searched in every way."""
    found = {way: searched(truth, way, trials) for way in WAYS}
    together = [point for points in found.values() for point in points]
    directions, reference = directions_for(costs=1), reference_point(together, directions_for(costs=1))
    whole = hypervolume(together, directions, reference)
    for (way, points), after in product(found.items(), sorted({*AFTER, trials})):
        share = hypervolume(points[:after], directions, reference) / whole
        yield Search(truth.agreement, truth.seed, way, after, round(share, 4))


def searched(truth: Truth, way: str, trials: int) -> list[Point]:
    """Search, and return the true points of what was trained, in order."""
    joined = space()
    settings = Settings.model_validate(
        {
            "space": joined.name,
            "scale": joined.scale,
            "space_hash": joined.hash,
            "members": joined.member_names,
            "data": "made up",
            "data_fingerprint": "0",
            "classes": tuple(str(number) for number in range(CLASSES)),
            "budget": Budget(data="made-up.yaml", epochs=1, deploy_size=PIXELS, seed=truth.seed),
        }
    )
    feasible = FeasibilityFilter(joined, costs, Limits())
    sampler = make_sampler(settings, joined, feasible, trials=trials)
    study = optuna.create_study(directions=[each.value for each in directions_for(costs=1)], sampler=sampler)
    for stock in joined.stocks:
        study.enqueue_trial(joined.values(stock))
    points = []
    with learning(way):
        for _ in range(trials):
            trial = study.ask()
            architecture = suggest(trial, joined)
            point, accuracy = truth.point(architecture), truth.measured(architecture)
            trial.set_user_attr(FINGERPRINT, architecture.fingerprint)
            trial.set_user_attr(ACCURACY, accuracy)
            study.tell(trial, (accuracy, point[1]))
            points.append(point)
    return points


def table(options: argparse.Namespace) -> None:
    """Print errors and shares, and the differences to `ours`, paired by world."""
    predictions = results_file.read(predictions_file(options.results), Prediction)
    _compare("error, points", [(row, row.error) for row in predictions])
    found: dict[tuple[float, int], list[float]] = defaultdict(list)
    for row in predictions:
        if row.way == OURS:
            found[row.agreement, row.trials].append(row.transfer)
    for (agreement, trials), transfers in sorted(found.items()):
        print(f"mean transfer that `ours` finds, agreement {agreement:g}, {trials} trials: {fmean(transfers):.2f}")
    _compare("share", [(row, row.share) for row in results_file.read(options.results, Search)])


def _compare(name: str, results: Iterable[tuple[Prediction | Search, float]]) -> None:
    """Print a table of a result by agreement and number of trials."""
    cells: dict[tuple[str, int, str], list[float]] = defaultdict(list)
    for row, result in sorted(results, key=lambda one: (one[0].seed, one[0].agreement)):
        for agreement in (f"{row.agreement:g}", "any"):
            cells[agreement, row.trials, row.way].append(result)
    others = "".join(f" {way} | less `ours` |" for way in WAYS[1:])
    print(f"\n| agreement | trials | worlds | {name}: ours |{others}")
    print("|---" * (4 + 2 * len(WAYS[1:])) + "|")
    for agreement, trials in dict.fromkeys((agreement, trials) for agreement, trials, _ in sorted(cells)):
        ours, *compared = (cells[agreement, trials, way] for way in WAYS)
        line = [agreement, str(trials), str(len(ours)), f"{fmean(ours):.3f}"]
        for other in compared:
            line += [f"{fmean(other):.3f}", _difference([one - our for one, our in zip(other, ours, strict=True)])]
        print(f"| {' | '.join(line)} |")


def _difference(differences: Sequence[float]) -> str:
    """Return the mean of differences with its 95 % interval (Student's t)."""
    half = float(student.ppf(0.975, len(differences) - 1)) * stdev(differences) / sqrt(len(differences))
    mean = fmean(differences)
    return f"{mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f})"


def main() -> None:
    """Run the script."""
    parser, found = results_file.commands(__doc__, RESULTS, predict=predict, search=search, table=table)
    for name in ("predict", "search"):
        found[name].add_argument("--seeds", type=int, default=8)
    found["search"].add_argument("--trials", type=int, default=30)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
