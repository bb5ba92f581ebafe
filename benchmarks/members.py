"""Compare searches of several members with and without learning across them, on accuracies that are made up.

    python -m benchmarks.members search [--seeds 8] [--trials 30] [--results FILE]     # goes on where it was stopped
    python -m benchmarks.members table [--results FILE]

No table of trained models has both families and operators at slots, so what is true is made up, and known. Accuracy is
that of the member's stock model, 7 points for a factor of e in GFLOPs, and the worth of the operator in each slot; on
it lies noise between seeds. *Agreement* is the share of the variance of worth that belongs to an operator in a region
(backbone or neck, at one resolution), and so is the same in all members; the rest belongs to the operator in the slot
of one member.

The search is that of the command: the stock models, then proposals of `ours`. It is compared with the same one of which
a part is removed:

- `ours`: members share columns for operators by region, costs and scaling factors;
- `regions apart`: an operator in a region of one member says nothing of the others;
- `apart`: nothing says anything of another member, costs neither.

A search is scored by the hypervolume of true accuracies and GFLOPs after 10, 20 and all trials, as a share of that
which all three searches of one seed have found together.
"""

import argparse
import random
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from math import log, sqrt
from pathlib import Path
from statistics import fmean, stdev
from unittest import mock

import numpy as np
import optuna
from scipy.stats import t as student

from benchmarks import results_file
from nas.algorithms.hypervolume import hypervolume, reference_point
from nas.algorithms.pareto import directions_for
from nas.algorithms.proposer import Candidates
from nas.records.trial_attributes import ACCURACY, FINGERPRINT
from nas.samplers.categories import JoinedCategories, Row
from nas.samplers.encoding import Encoding
from nas.samplers.factory import make_sampler
from nas.samplers.feasibility import FeasibilityFilter
from nas.samplers.suggest import suggest
from nas.settings import Settings
from search_spaces import Architecture, JoinedSpace, joined_file
from search_spaces import base as bases
from trials import Budget, Limits
from trials.costing import space_costs

SPACES, CLASSES, PIXELS = "v8n,v9t,v11n,v26n", 3, 640
AGREEMENTS = (0.0, 0.5, 1.0)
AFTER = (10, 20)
WAYS = ("ours", "regions apart", "apart")
RESULTS = Path("benchmarks/results/members.csv")
STOCKS, WORTH, OWN, NOISE = 0.01, 0.008, 0.003, 0.005
"""Standard deviations: of the stock models beside their costs, of the worth of all slots together, of what one
architecture has for itself, and of the noise of a training."""
_FAR = 1000.0
"""Distance at which the surrogate's kernel is 0, whatever its length scales are."""

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Truth:
    """True accuracies and costs of the architectures in one made-up world.

    Attributes:
        agreement: between members, 0 to 1.
        seed: of this world.
    """

    agreement: float
    seed: int

    def point(self, architecture: Architecture) -> Point:
        """Return true accuracy and GFLOPs."""
        member, gflops = space().member_of(architecture), costs().cost(architecture).gflops
        name, choices = member.short_name, member.choices(architecture)
        worth = sum(self._worth(name, slot, choice.operator) for slot, choice in choices.items())
        bought = 0.07 * log(gflops / 7)
        stock, own = self._about(name, STOCKS), self._about(architecture.fingerprint, OWN)
        return 0.4 + stock + bought + worth / sqrt(len(choices)) + own, gflops

    def measured(self, architecture: Architecture) -> float:
        """Return the accuracy of one training."""
        return self.point(architecture)[0] + self._about(f"noise {architecture.fingerprint}", NOISE)

    def _worth(self, member: str, slot: str, operator: str) -> float:
        if operator == "stock":
            return 0.0
        region = regions()[member, slot]
        shared = self._about(f"{region} {operator}", WORTH)
        own = self._about(f"{member} {slot} {operator}", WORTH)
        return sqrt(self.agreement) * shared + sqrt(1 - self.agreement) * own

    def _about(self, name: str, deviation: float) -> float:
        """Return the same number for the same name, 0 on average."""
        return random.Random(zlib.crc32(f"{self.seed} {name}".encode())).gauss(0.0, deviation)


@cache
def space() -> JoinedSpace:
    """Return the space that is searched."""
    loaded = joined_file.load(SPACES)
    if not isinstance(loaded, JoinedSpace):
        raise TypeError(f"several spaces are expected, got {SPACES}")
    return loaded


@cache
def costs() -> space_costs.SpaceCosts:
    """Return the costs of the space."""
    return space_costs.table(space(), CLASSES, PIXELS)


@cache
def regions() -> dict[tuple[str, str], str]:
    """Return the region of each slot of each member."""
    found = {}
    for member in space().members:
        base = bases.load(member.base, member.scale)
        for slot in member.slots:
            found[member.short_name, slot.name] = f"{base.section(slot.layer)} {base.stage(slot.layer)}"
    return found


class RegionsApart(JoinedCategories):
    """Columns of which operators by region are each member's own."""

    def of(self, architecture: Architecture) -> Row:
        """Return the row of an architecture; each member has a copy of all columns."""
        place = self._space.member_names.index(self._space.member_name(architecture))
        return {place * self._count + column: weight for column, weight in super().of(architecture).items()}

    def __len__(self) -> int:
        return len(self._space.members) * self._count


class Apart(Encoding):
    """Encoding with a further continuous feature, by which members lie far from each other."""

    def of(self, architectures: Sequence[Architecture]) -> Candidates:
        """Encode architectures, one row each."""
        found, names = super().of(architectures), self._space.member_names
        places = [_FAR * names.index(self._space.member_of(one).short_name) for one in architectures]
        continuous = np.column_stack([found.features.continuous, places])
        return replace(found, features=replace(found.features, continuous=continuous))


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
    with _learning(way):
        for _ in range(trials):
            trial = study.ask()
            architecture = suggest(trial, joined)
            point, accuracy = truth.point(architecture), truth.measured(architecture)
            trial.set_user_attr(FINGERPRINT, architecture.fingerprint)
            trial.set_user_attr(ACCURACY, accuracy)
            study.tell(trial, (accuracy, point[1]))
            points.append(point)
    return points


@contextmanager
def _learning(way: str) -> Iterator[None]:
    """Let the sampler learn across members as a way says."""
    with ExitStack() as patched:
        if way != "ours":
            patched.enter_context(mock.patch("nas.samplers.encoding.categories_of", RegionsApart))
        if way == "apart":
            patched.enter_context(mock.patch("nas.samplers.ehvi_sampler.Encoding", Apart))
        yield


def search(options: argparse.Namespace) -> None:
    """Make the searches that the file lacks."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    there = {(row.agreement, row.seed) for row in results_file.read(options.results, Search)}
    for seed, agreement in product(range(options.seeds), AGREEMENTS):
        if (agreement, seed) in there:
            continue
        truth = Truth(agreement=agreement, seed=seed)
        results_file.append(options.results, list(_compared(truth, options.trials)))


def _compared(truth: Truth, trials: int) -> Iterator[Search]:
    """Yield the results of one world, searched in every way."""
    found = {way: searched(truth, way, trials) for way in WAYS}
    together = [point for points in found.values() for point in points]
    directions, reference = directions_for(costs=1), reference_point(together, directions_for(costs=1))
    whole = hypervolume(together, directions, reference)
    for (way, points), after in product(found.items(), sorted({*AFTER, trials})):
        share = hypervolume(points[:after], directions, reference) / whole
        yield Search(truth.agreement, truth.seed, way, after, round(share, 4))


def table(options: argparse.Namespace) -> None:
    """Print the shares, and the differences to `ours`, paired by seed."""
    shares: dict[tuple[str, int, str], list[float]] = defaultdict(list)
    for row in sorted(results_file.read(options.results, Search), key=lambda one: (one.seed, one.agreement)):
        for agreement in (f"{row.agreement:g}", "any"):
            shares[agreement, row.trials, row.way].append(row.share)
    print("| agreement | trials | worlds | ours | regions apart | less ours | apart | less ours |")
    print("|---|---|---|---|---|---|---|---|")
    for agreement, after in dict.fromkeys((agreement, after) for agreement, after, _ in sorted(shares)):
        ours, *others = (shares[agreement, after, way] for way in WAYS)
        cells = [agreement, str(after), str(len(ours)), f"{fmean(ours):.3f}"]
        for other in others:
            cells += [f"{fmean(other):.3f}", _difference([one - our for one, our in zip(other, ours, strict=True)])]
        print(f"| {' | '.join(cells)} |")


def _difference(differences: Sequence[float]) -> str:
    """Return the mean of differences with its 95 % interval (Student's t)."""
    half = float(student.ppf(0.975, len(differences) - 1)) * stdev(differences) / sqrt(len(differences))
    mean = fmean(differences)
    return f"{mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f})"


def main() -> None:
    """Run the script."""
    parser, found = results_file.commands(__doc__, RESULTS, search=search, table=table)
    found["search"].add_argument("--seeds", type=int, default=8)
    found["search"].add_argument("--trials", type=int, default=30)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
