"""How often the verdict on a search of several members is right, on simulated studies of which the truth is known.

    python -m benchmarks.verdict_members [--part null|gains|images|front|looks] [--studies 1000] [--results FILE]

As in `benchmarks/verdict.py`: the verdict is spoken by `nas.report.judging.judge` from records that this script makes,
with the same noise between seeds and the same images. New is what a study of several members has:

- Stock models with their GFLOPs (640 px, 80 classes), of which some are better than others: the standard deviation of
  their true accuracies is `spread`, in points.
- Four finalists at 85 to 115 % of the cost of their members' stock models, each of a member drawn at random: of any, or
  of those whose stock models' scores in the search are on the Pareto front.
- Which stock models are trained with fresh seeds follows from their scores in the search, by `rivals_of`, the rule of
  `nas confirm`: one training each, on other images than those that judge where these are unseen.
- Where a seed moves the models of one member alike (`member`), by as much as each model for itself.

What is true: the *bar* of a finalist is the most accurate of all stock models of the study that cost no more, trained
again or not; if all cost more, that of its member. Without a gain a finalist is as good as the bar (`bar`), or, one in
two, only as good as the stock model of its member, where that is worse (`mixed`). False are claims that a finalist is
better than all stock models at its cost without being better than the bar, and that it beats its own stock model
without being better than that. A gain is over the bar; it is found if the first of these is claimed.

Beside it stands what would be claimed over all if only the stock models of the finalists' members and those on the
Pareto front of the stock models' scores were trained again, as until 29 November 2026.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import numpy as np

from benchmarks import results_file
from benchmarks.verdict import (
    IMAGES,
    LEVEL,
    NOISES,
    PAIRED_DEVIATION,
    SEED_EFFECT,
    SETTINGS,
    TRAINING_DEVIATION,
    FloatArray,
    on_images,
    on_resamples,
    share,
)
from nas.algorithms.paired_comparison import Finding
from nas.records.record import Record, pareto_front_of
from nas.report.judging import judge
from nas.report.stock_models import rivals_of
from nas.report.verdict import JudgedFinalist

GFLOPS = {"v26n": 5.48, "v11n": 6.54, "v10n": 6.76, "v12n": 7.47, "v5n": 7.72, "v9t": 8.23, "v8n": 8.74}
MEMBERS = {1: ("v8n",), 2: ("v9t", "v8n"), 4: ("v26n", "v11n", "v9t", "v8n"), 7: tuple(GFLOPS)}
FINALISTS, COSTS = 4, (0.85, 1.15)
SEEDS, GAINS = (3, 5), (0.5, 1.0, 2.0)


@dataclass(frozen=True, kw_only=True)
class Case:
    """Kind of studies.

    Attributes:
        members: their number.
        spread: standard deviation of the stock models' true accuracies, in points.
        null: what finalists without a gain are as good as: `bar`, or `mixed`.
        noise: between seeds; one of `benchmarks.verdict.NOISES`, or `member`.
        gain: true gain of the first finalist over its bar.
        of_front: whether the finalists are of members whose stock models' scores in the search are on their front.
        images: number of unseen ones.
        training: factor of the deviation that is left without the images.
        looks: numbers of seeds at which a study is judged.
    """

    members: int
    spread: float = 0.5
    null: str = "bar"
    noise: str = "normal"
    gain: float = 0.0
    of_front: bool = False
    images: int = 0
    training: float = 1.0
    looks: tuple[int, ...] = (5,)

    @property
    def deviation(self) -> float:
        """Standard deviation of one model between seeds, without what the images add."""
        return self.training * (TRAINING_DEVIATION if self.images else PAIRED_DEVIATION) / sqrt(2)


@dataclass(frozen=True, kw_only=True)
class Result:
    """Row of the results; shares are in per cent of the studies, with their 95 % intervals.

    Attributes:
        claimed_falsely: studies with a false claim of either kind.
        over_all: with a false claim to be better than all stock models at equal cost.
        over_own: with a false claim to beat the finalist's own stock model only.
        found: with the gain found.
        coverage: of the 95 % intervals of the differences to the named stock models.
        with_front_only: as `over_all`, if only the front of the stock models' scores were trained again.
        trained_stocks: mean number of stock models that were trained again.
    """

    studies: int
    members: int
    spread: float
    finalists_of: str
    null: str
    noise: str
    images: int
    training: float
    seeds: str
    gain: float
    claimed_falsely: str
    over_all: str
    over_own: str
    found: str
    coverage: str
    with_front_only: str
    trained_stocks: str


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """Study with its truth; the stock models are the first of its models.

    Attributes:
        members: of each model.
        gflops: of each model.
        truth: true accuracy of each model, in points.
        bars: that of each finalist's bar.
    """

    members: tuple[str, ...]
    gflops: tuple[float, ...]
    truth: FloatArray
    bars: FloatArray

    @classmethod
    def of(cls, case: Case, rng: np.random.Generator) -> "Simulated":
        """Draw a study, with finalists of any member."""
        stocks = LEVEL + case.spread * rng.standard_normal(case.members)
        return cls.with_finalists(case, rng, stocks, list(range(case.members)))

    @classmethod
    def with_finalists(cls, case: Case, rng: np.random.Generator, stocks: FloatArray, among: list[int]) -> "Simulated":
        """Draw finalists of some of the members, given the true accuracies of the stock models."""
        names = MEMBERS[case.members]
        costs = np.array([GFLOPS[name] for name in names])
        own = np.array(among)[rng.integers(len(among), size=FINALISTS)]
        its_costs = costs[own] * rng.uniform(*COSTS, FINALISTS)
        bars = np.array(
            [
                stocks[costs <= cost].max(initial=-np.inf) if (costs <= cost).any() else stocks[row]
                for row, cost in zip(own, its_costs, strict=True)
            ]
        )
        is_own = (rng.random(FINALISTS) < (0.5 if case.null == "mixed" else 0.0)).astype(bool)
        finalists = np.where(is_own, np.minimum(stocks[own], bars), bars)
        if case.gain:
            finalists[0] = bars[0] + case.gain
        return cls(
            members=(*names, *(names[row] for row in own)),
            gflops=(*costs.tolist(), *its_costs.tolist()),
            truth=np.array([*stocks, *finalists]),
            bars=bars,
        )

    @property
    def stocks(self) -> int:
        """Number of stock models."""
        return len(self.truth) - FINALISTS

    def trained(self, rng: np.random.Generator, case: Case, seeds: int) -> FloatArray:
        """Return accuracies without the effects of images, `(models, seeds)`, in points."""
        shape = (len(self.truth), seeds)
        noise = NOISES["normal" if case.noise == "member" else case.noise](rng, *shape)
        if case.noise == "member":
            names = MEMBERS[case.members]
            noise += rng.standard_normal((len(names), seeds))[[names.index(one) for one in self.members]]
        return self.truth[:, None] + case.deviation * noise + SEED_EFFECT * rng.standard_normal(seeds)

    def records(self, values: FloatArray, models: Sequence[int] | None = None) -> list[Record]:
        """Return the records of trainings, model by model, seed by seed.

        Args:
            values: accuracies in points, `(models, seeds)`.
            models: that are trained; None for all.
        """
        return [
            Record(
                trial=model * values.shape[1] + repeat,
                state="complete",
                ending="finished",
                map50_95=values[model, repeat] / 100,
                gflops=self.gflops[model],
                picks={},
                fingerprint=f"{model:03d}",
                repeat=repeat,
                member=self.members[model],
                role="stock" if model < self.stocks else "",
            )
            for model in (range(len(self.truth)) if models is None else models)
            for repeat in range(values.shape[1])
        ]


def judged(records: list[Record], case: Case, samples: dict[int, FloatArray] | None, look: int) -> list[JudgedFinalist]:
    """Return the finalists as judged, in the order of the models."""
    settings = SETTINGS[case.images]
    verdict = judge([], records, before=settings, after=settings, study="simulated", look=look, resampled=samples)
    return sorted(verdict.finalists, key=lambda one: one.fingerprint)


def first_claims(
    study: Simulated, case: Case, values: FloatArray, models: list[int], each: FloatArray | None
) -> list[JudgedFinalist]:
    """Return each finalist as judged at the first look that claims something of it, else at the last."""
    looks = []
    for look, seeds in enumerate(case.looks, 1):
        samples = None if each is None else on_resamples(each[:, :seeds])
        looks.append(judged(study.records(values[:, :seeds], models), case, samples, look))
    return [next((one for one in in_turn if claims(one)), in_turn[-1]) for in_turn in zip(*looks, strict=True)]


def claims(one: JudgedFinalist) -> bool:
    """Return whether a verdict says that a finalist is better than all stock models at its cost, or than its own."""
    return one.finding is Finding.BETTER or (one.own is not None and one.own.finding is Finding.BETTER)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Claims of the verdict on one study."""

    over_all: bool
    over_own: bool
    found: bool
    covered: int
    with_front_only: bool
    stocks: int


def simulate(rng: np.random.Generator, case: Case) -> Outcome:
    """Simulate a search and its confirmation."""
    study = Simulated.of(case, rng)
    searched = study.trained(rng, case, 1)
    if case.images:
        searched = on_images(rng, searched, case.images).mean(axis=2)
    settings, stocks = SETTINGS[case.images], study.records(searched)[: study.stocks]
    front = {one.trial for one in pareto_front_of(stocks, settings.objectives)}
    if case.of_front:
        study = Simulated.with_finalists(case, rng, study.truth[: study.stocks], sorted(front))
    values, each = study.trained(rng, case, max(case.looks)), None
    if case.images:
        each = on_images(rng, values, case.images)
        values = each.mean(axis=2)
    finalists = study.records(searched)[study.stocks :]
    rivals = {one.trial for one in rivals_of(finalists, stocks, settings)}
    front |= {one.trial for one in stocks if one.member in study.members[study.stocks :]}
    indices = [one.trial for one in finalists]
    found = first_claims(study, case, values, [*sorted(rivals), *indices], each)
    short = found if front == rivals else first_claims(study, case, values, [*sorted(front), *indices], each)
    return Outcome(
        over_all=any(is_false(study, one) for one in found),
        over_own=any(is_false_over_own(study, one) for one in found),
        found=found[0].finding is Finding.BETTER,
        covered=sum(is_covered(study, one) for one in found),
        with_front_only=any(is_false(study, one) for one in short),
        stocks=len(rivals),
    )


def is_false(study: Simulated, one: JudgedFinalist) -> bool:
    """Return whether a finalist is said to be better than all stock models at its cost, and is not."""
    model = int(one.fingerprint)
    return one.finding is Finding.BETTER and study.truth[model] <= study.bars[model - study.stocks]


def is_false_over_own(study: Simulated, one: JudgedFinalist) -> bool:
    """Return whether a finalist is said to beat its own stock model only, and does not."""
    model = int(one.fingerprint)
    own = study.truth[study.members.index(study.members[model])]
    is_said = one.own is not None and one.finding is not Finding.BETTER and one.own.finding is Finding.BETTER
    return is_said and bool(study.truth[model] <= own)


def is_covered(study: Simulated, one: JudgedFinalist) -> bool:
    """Return whether the interval holds the true difference to the stock model that is named."""
    named = study.members.index(one.stock or study.members[int(one.fingerprint)])
    return bool(one.low <= study.truth[int(one.fingerprint)] - study.truth[named] <= one.high)


def row_of(case: Case, *, studies: int) -> Result:
    """Return the counts of one kind of studies."""
    rng = np.random.default_rng(0)
    outcomes = [simulate(rng, case) for _ in range(studies)]
    return Result(
        studies=studies,
        members=case.members,
        spread=case.spread,
        finalists_of="front" if case.of_front else "any",
        null=case.null,
        noise=case.noise,
        images=case.images,
        training=case.training,
        seeds="+".join(map(str, case.looks)),
        gain=case.gain,
        claimed_falsely=share(sum(one.over_all or one.over_own for one in outcomes), studies),
        over_all=share(sum(one.over_all for one in outcomes), studies),
        over_own=share(sum(one.over_own for one in outcomes), studies),
        found=share(sum(one.found for one in outcomes), studies) if case.gain else "",
        coverage=share(sum(one.covered for one in outcomes), studies * FINALISTS),
        with_front_only=share(sum(one.with_front_only for one in outcomes), studies),
        trained_stocks=f"{sum(one.stocks for one in outcomes) / studies:.2f}",
    )


CASES = {
    "null": [
        Case(members=number, spread=spread, null=null, noise=noise, looks=(seeds,))
        for number in MEMBERS
        for spread, null in ((0.5, "bar"), (2.0, "mixed"))
        for noise in (*NOISES, "member")
        for seeds in SEEDS
        if number > 1 or (spread, null) == (0.5, "bar")
    ],
    "gains": [
        Case(members=number, gain=gain, images=images, training=training, looks=(seeds,))
        for images, training in ((0, 3.0), *((images, 1.0) for images in IMAGES))
        for number in MEMBERS
        for gain in GAINS
        for seeds in SEEDS
    ],
    "images": [
        Case(members=number, images=images, noise="heavy", looks=(seeds,))
        for images in IMAGES
        for number in MEMBERS
        for seeds in SEEDS
    ],
    "front": [
        Case(members=number, spread=spread, of_front=True, images=images, looks=(seeds,))
        for images, spread in ((0, 0.2), (0, 0.5), (max(IMAGES), 0.2), (max(IMAGES), 0.5), (min(IMAGES), 0.5))
        for number in MEMBERS
        for seeds in SEEDS
        if number > 1
    ],
    "looks": [Case(members=number, noise=noise, looks=(5, 10)) for number in MEMBERS for noise in ("normal", "heavy")],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000, help="of a row; a quarter of them where there is a gain")
    parser.add_argument("--part", choices=tuple(CASES), help="only these rows")
    parser.add_argument("--results", type=Path, help="a CSV file, to which rows are added as they come")
    arguments = parser.parse_args()
    began = time.monotonic()
    for number, case in enumerate(
        case for part in ([arguments.part] if arguments.part else CASES) for case in CASES[part]
    ):
        row = row_of(case, studies=arguments.studies // (4 if case.gain else 1))
        if not number:
            print("  ".join(f"{name:>15}" for name in vars(row)))
        print("  ".join(f"{value!s:>15}" for value in vars(row).values()), flush=True)
        if arguments.results:
            results_file.append(arguments.results, [row])
    print(f"\n{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
