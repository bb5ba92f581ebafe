"""Verdict of a confirmation: each finalist compared with the stock model over fresh paired seeds.

Pure functions of records and settings. The tests and intervals are those of `nas.algorithms.paired_comparison`. A gain
is claimed here and nowhere else: scores by which a search selected an architecture cannot judge it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np

from nas.algorithms.paired_comparison import Comparison, Finding, compare, detectable, seeds_for
from nas.algorithms.pareto import main_cost
from nas.records.paired import failure, scores_by_repeat
from nas.records.record import LEARNED, Record, has_learned, mean_over_seeds, stock_of
from nas.report.defaults import MARGIN
from nas.report.words import duration
from nas.settings import Settings

LEAST_SEEDS, SIGN_TEST_SEEDS = 2, 5
"""Fewest pairs for a comparison; fewest with which a one-sided sign test can reach 5 %: 1 / 2 ** 5."""
_WORDS = {"gflops": ("fewer", "GFLOPs"), "params": ("fewer", "parameters"), "latency_ms": ("less", "latency")}
_LEAST_CHANGE = 0.0005
"""Half of the smallest change of a cost that is shown, a tenth of a per cent."""


@dataclass(frozen=True, kw_only=True)
class FurtherSeeds:
    """Trainings that would find a smaller gain.

    Attributes:
        seeds: in addition to those that are there; None if a thousand are too few.
        points: gain that they find in 80 % of comparisons.
        seconds: duration of their trainings, of all models; None if no duration is recorded.
    """

    seeds: int | None
    points: float
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class JudgedFinalist:
    """A finalist beside the stock model; accuracies are mAP50-95 in points.

    Attributes:
        trial: its number in the search; None if the search has no such trial.
        finding: better, worse, equivalent or undecided, at 5 % for all finalists together.
        difference: mean over the fresh seeds of its accuracy less the stock model's.
        low: lower end of the 95 % interval, for this finalist alone.
        high: upper end of it.
        p_better: of "not better", after Holm's correction; likewise `p_worse` and `p_equivalent`.
        search_difference: the same difference in the search, whose scores selected it; None if it has none there.
        cost: name of the cost that the search weighs against accuracy.
        cost_change: relative to the stock model's, -0.058 for 5.8 % less; None if it is not known.
        further: seeds that would tell more; None if it is told apart.
    """

    trial: int | None
    fingerprint: str
    summary: str
    finding: Finding
    difference: float
    low: float
    high: float
    p_better: float
    p_worse: float
    p_equivalent: float
    search_difference: float | None
    cost: str
    cost_change: float | None
    margin: float
    further: FurtherSeeds | None

    @property
    def sentence(self) -> str:
        """Finding in one line."""
        return f"{_named(self.trial, self.summary)}: {self._finding}"

    @property
    def _finding(self) -> str:
        digits = 1 if abs(self.difference) >= 0.1 else 2
        difference, low, high = (_plain(value, digits) for value in (self.difference, self.low, self.high))
        match self.finding:
            case Finding.BETTER:
                return f"better by {difference} points ({low} to {high}){self._cost}"
            case Finding.WORSE:
                difference, low, high = (_plain(-one, digits) for one in (self.difference, self.high, self.low))
                return f"worse by {difference} points ({low} to {high}){self._cost}"
            case Finding.EQUIVALENT:
                return f"as accurate within {self.margin:g} points{self._cost}"
            case _:
                sign = "" if difference.startswith("-") else "+"
                return f"not told apart ({sign}{difference}, {low} to {high}){self._further}"

    @property
    def _cost(self) -> str:
        if self.cost_change is None or abs(self.cost_change) < _LEAST_CHANGE:
            return ""
        less, noun = _WORDS[self.cost]
        return f", with {100 * abs(self.cost_change):.1f} % {less if self.cost_change < 0 else 'more'} {noun}"

    @property
    def _further(self) -> str:
        if self.further is None:
            return ""
        points = f"{_plain(self.further.points, 1 if self.further.points >= 0.1 else 2)} points"
        if self.further.seeds is None:
            return f": even a thousand seeds would not tell {points}"
        noun = "seed" if self.further.seeds == 1 else "seeds"
        took = "" if self.further.seconds is None else f", about {duration(self.further.seconds)}"
        return f": {self.further.seeds} more {noun} would tell {points}{took}"


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A finalist that is not compared, with the reason."""

    trial: int | None
    fingerprint: str
    summary: str
    reason: str

    @property
    def sentence(self) -> str:
        """Reason in one line."""
        return f"{_named(self.trial, self.summary)}: left out, {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Verdict of a confirmation.

    Attributes:
        study: name of the search.
        seeds: with which the stock model and every compared finalist were trained.
        planned: number of seeds that were enqueued.
        unfinished: number of trainings that have not ended.
        epochs: of each training.
        epochs_of_search: of each training of the search.
        margin: points within which accuracies count as equal.
        stock_map50_95: mean over the seeds; None while there is none.
        finalists: compared ones, most accurate first.
        left_out: others.
        reason: why no finalist is compared; empty if some are.
        images: which images the accuracies were measured on.
    """

    study: str
    seeds: tuple[int, ...]
    planned: int
    unfinished: int
    epochs: int
    epochs_of_search: int
    margin: float
    stock_map50_95: float | None
    finalists: tuple[JudgedFinalist, ...]
    left_out: tuple[LeftOut, ...]
    reason: str = ""
    images: str = "the images that the search chose by"

    @property
    def better(self) -> tuple[JudgedFinalist, ...]:
        """Finalists of which a gain is claimed."""
        return tuple(one for one in self.finalists if one.finding is Finding.BETTER)

    @property
    def shrinkage(self) -> tuple[float, float] | None:
        """Mean differences to the stock model in points: in the search, and with fresh seeds; None if not known."""
        both = [(one.search_difference, one.difference) for one in self.finalists if one.search_difference is not None]
        return (fmean(pair[0] for pair in both), fmean(pair[1] for pair in both)) if both else None

    def lines(self) -> list[str]:
        """Return the verdict in words."""
        out = [one.sentence for one in self.left_out]
        if self.reason:
            return [f"No verdict on {self.study}: {self.reason}", *out]
        number = str(len(self.seeds)) if len(self.seeds) == self.planned else f"{len(self.seeds)} of {self.planned}"
        trained = f"{self.epochs} epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        heading = f"Verdict on {self.study}, beside the stock model: {number} fresh seeds, {trained}, 95 % intervals"
        return [heading, *(one.sentence for one in self.finalists), *out, *self._remarks()]

    def _remarks(self) -> list[str]:
        remarks = []
        if self.shrinkage is not None:
            before, after = self.shrinkage
            longer = ""
            if self.epochs != self.epochs_of_search:
                longer = f" (after {self.epochs} epochs, not {self.epochs_of_search})"
            remarks.append(
                f"search scores of the finalists over stock were {before:+.1f} points in the mean, "
                f"fresh ones {after:+.1f}{longer}"
            )
        remarks.append(f"judged on {self.images}: there are no others yet")
        if len(self.seeds) < SIGN_TEST_SEEDS:
            remarks.append(
                f"{len(self.seeds)} seeds: the intervals rest on noise being normal; a sign test reaches 5 % "
                f"with {SIGN_TEST_SEEDS} only"
            )
        return remarks

    def as_document(self) -> dict[str, Any]:
        """Return the verdict as values for JSON, with its words."""
        judged = [{**asdict(one), "finding": str(one.finding), "sentence": one.sentence} for one in self.finalists]
        left_out = [{**asdict(one), "sentence": one.sentence} for one in self.left_out]
        before, after = self.shrinkage or (None, None)
        return {
            **asdict(self),
            "seeds": list(self.seeds),
            "finalists": judged,
            "left_out": left_out,
            "mean_search_difference": before,
            "mean_difference": after,
            "lines": self.lines(),
        }


def judge(
    searched: Sequence[Record],
    fresh: Sequence[Record],
    *,
    before: Settings,
    after: Settings,
    study: str,
    margin: float = MARGIN,
    workers: int = 1,
) -> Verdict:
    """Judge the finalists of a search.

    Compared are the seeds with which the stock model and all finalists have finished. A finalist with a training that
    ended without a score is left out; a seed with which the stock model has none counts for no finalist.

    Args:
        searched: all records of the search.
        fresh: all records of its confirmation.
        before: settings of the search.
        after: settings of the confirmation.
        study: name of the search.
        margin: points of mAP50-95 within which two models are equally accurate.
        workers: that train at once, for the duration of further seeds.
    """
    stock = next((record.fingerprint for record in fresh if record.role == "stock"), "")
    models = {record.fingerprint: record for record in reversed(fresh) if record.fingerprint}
    numbers = {record.fingerprint: record.trial for record in reversed(searched) if record.finished}
    failed = {name: reason for name in models if name != stock and (reason := failure(fresh, name))}
    candidates = [name for name in models if name not in {stock, *failed}]
    compared = sorted(candidates, key=lambda name: (numbers.get(name, len(searched)), name))
    rows = [scores_by_repeat(fresh, name) for name in ([stock] if stock else []) + compared]
    common = sorted(set(rows[0]).intersection(*rows[1:])) if rows else []
    planned = 1 + max((record.repeat for record in fresh), default=-1)
    values = np.array([[100 * row[repeat] for repeat in common] for row in rows], dtype=np.float64)
    level = float(values[0].mean()) / 100 if common else None
    reason = _reason(len(compared), len(common), planned, level)
    judged: list[JudgedFinalist] = []
    if not reason:
        cost, gains = main_cost(after.objectives), _gains(searched)
        seconds = _seconds_per_seed(fresh, [stock, *compared], workers)
        judged = [
            _judged(
                models[name],
                result,
                trial=numbers.get(name),
                search_difference=gains.get(name),
                cost=cost,
                cost_change=_cost_change(fresh, name, stock, cost),
                margin=margin,
                further=_further(result, len(common), len(compared), margin, seconds),
            )
            for name, result in zip(compared, compare(values, margin=margin), strict=True)
        ]
    return Verdict(
        study=study,
        seeds=tuple(after.budget.seed + repeat for repeat in common),
        planned=planned,
        unfinished=sum(record.state in {"waiting", "running"} for record in fresh),
        epochs=after.budget.epochs,
        epochs_of_search=before.budget.epochs,
        margin=margin,
        stock_map50_95=level,
        finalists=tuple(sorted(judged, key=lambda one: -one.difference)),
        left_out=tuple(
            LeftOut(trial=numbers.get(name), fingerprint=name, summary=models[name].summary, reason=why)
            for name, why in failed.items()
        ),
        reason=reason,
    )


def _judged(record: Record, result: Comparison, **further: Any) -> JudgedFinalist:
    """Return a finalist with the results of its comparison."""
    return JudgedFinalist(
        fingerprint=record.fingerprint,
        summary=record.summary,
        finding=result.finding,
        difference=result.difference,
        low=result.low,
        high=result.high,
        p_better=result.p_better,
        p_worse=result.p_worse,
        p_equivalent=result.p_equivalent,
        **further,
    )


def _reason(compared: int, seeds: int, planned: int, stock: float | None) -> str:
    """Return why no finalist can be compared; empty if all can."""
    if not compared:
        return "no finalist has a score with every seed"
    if seeds < LEAST_SEEDS:
        return f"all models have finished with {seeds} of {planned} seeds; the least are {LEAST_SEEDS}"
    if not has_learned(stock):
        return f"the stock model has learned nothing (mAP50-95 below {LEARNED})"
    return ""


def _gains(searched: Sequence[Record]) -> Mapping[str, float]:
    """Return the differences to the stock model in a search, in points, by fingerprint."""
    stock = stock_of(searched)
    if stock is None or stock.map50_95 is None:
        return {}
    return {
        record.fingerprint: 100 * (record.map50_95 - stock.map50_95)
        for record in mean_over_seeds(searched)
        if record.map50_95 is not None
    }


def _cost_change(records: Sequence[Record], fingerprint: str, stock: str, cost: str) -> float | None:
    """Return the relative difference of a cost to the stock model's, each the mean over its trainings."""
    costs = [
        [value for record in records if record.fingerprint == one and (value := getattr(record, cost)) is not None]
        for one in (fingerprint, stock)
    ]
    if not all(costs):
        return None
    finalist, reference = (fmean(each) for each in costs)
    return finalist / reference - 1 if reference else None


def _seconds_per_seed(records: Sequence[Record], models: Sequence[str], workers: int) -> float | None:
    """Return the duration of one more seed of all models; None if a model has no recorded duration."""
    each = [
        [record.seconds for record in records if record.fingerprint == one and record.finished and record.seconds > 0]
        for one in models
    ]
    return sum(fmean(seconds) for seconds in each) / workers if all(each) else None


def _further(
    result: Comparison, seeds: int, finalists: int, margin: float, seconds: float | None
) -> FurtherSeeds | None:
    """Return the seeds that would tell the margin, or as many again if those that are there would tell it already."""
    if result.finding is not Finding.UNDECIDED:
        return None
    deviation = result.standard_error * float(np.sqrt(seeds))
    if detectable(deviation, seeds, candidates=finalists) <= margin:
        more, points = seeds, detectable(deviation, 2 * seeds, candidates=finalists)
    else:
        needed = seeds_for(margin, deviation, candidates=finalists)
        if needed is None:
            return FurtherSeeds(seeds=None, points=margin, seconds=None)
        more, points = needed - seeds, margin
    return FurtherSeeds(seeds=more, points=points, seconds=None if seconds is None else more * seconds)


def _named(trial: int | None, summary: str) -> str:
    return f"trial {trial}" if trial is not None else summary


def _plain(value: float, digits: int) -> str:
    """Format a number without the sign of a zero."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text
