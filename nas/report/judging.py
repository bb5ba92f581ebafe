"""Judge the finalists of a search: each is compared with the stock model over fresh paired seeds.

Pure functions of records and settings. The tests and intervals are those of `nas.algorithms.paired_comparison`. A gain
is claimed here and nowhere else: scores by which a search selected an architecture cannot judge it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from nas.algorithms.arrays import FloatArray
from nas.algorithms.image_variance import image_variances
from nas.algorithms.paired_comparison import Comparison, compare, level_of_look
from nas.algorithms.pareto import main_cost
from nas.defaults import MARGIN
from nas.records.paired import failure
from nas.records.record import LEARNED, Record, has_learned, mean_over_seeds, stock_of
from nas.report.further_seeds import FurtherSeeds, further_seeds
from nas.report.verdict import CHOSEN_BY, LEAST_SEEDS, JudgedFinalist, LeftOut, Verdict
from nas.settings import Judging, Settings

_IMAGES = {
    "test": "{} of test, which no search has read",
    "holdout": "{} that were sealed before the search, which no search has read",
}
"""Images that judge in words, by their source."""


def judge(
    searched: Sequence[Record],
    fresh: Sequence[Record],
    *,
    before: Settings,
    after: Settings,
    study: str,
    margin: float = MARGIN,
    workers: int = 1,
    look: int = 1,
    resampled: Mapping[int, FloatArray] | None = None,
) -> Verdict:
    """Judge the finalists of a search.

    Compared are the seeds with which the stock model and all finalists have finished. A finalist with a training that
    ended without a score is left out; a seed with which the stock model has none counts for no finalist. While
    trainings run or wait, differences are shown and nothing is claimed.

    Args:
        searched: all records of the search.
        fresh: all records of its confirmation, with the accuracies that are to be compared.
        before: settings of the search.
        after: settings of the confirmation.
        study: name of the search.
        margin: points of mAP50-95 within which two models are equally accurate.
        workers: that train at once, for the duration of further seeds.
        look: how often a verdict was due, this time included: once, and once more whenever seeds were added to it.
        resampled: mAP50-95 on each resample of the images, by trial of the confirmation; where the settings name
            images that judge.
    """
    pairs = _pairs(searched, fresh)
    unfinished = sum(record.state in {"waiting", "running"} for record in fresh)
    level = None if unfinished else level_of_look(look)
    judged = [] if pairs.reason else _compared(pairs, after, margin, resampled or {}, level)
    finalists = [
        _finalist(
            pairs,
            name,
            result,
            searched=searched,
            after=after,
            margin=margin,
            further=further_seeds(
                result,
                len(pairs.repeats),
                len(pairs.names) - 1,
                margin,
                pairs.seconds_per_seed(workers),
                level=level_of_look(look + 1),
            ),
        )
        for name, result in judged
    ]
    return Verdict(
        study=study,
        seeds=tuple(after.budget.seed + repeat for repeat in pairs.repeats),
        planned=pairs.planned,
        unfinished=unfinished,
        look=look,
        epochs=after.budget.epochs,
        epochs_of_search=before.budget.epochs,
        margin=margin,
        stock_map50_95=pairs.level,
        finalists=tuple(sorted(finalists, key=lambda one: -one.difference)),
        left_out=tuple(
            LeftOut(trial=pairs.numbers.get(name), fingerprint=name, summary=pairs.models[name].summary, reason=why)
            for name, why in pairs.failed.items()
        ),
        reason=pairs.reason,
        images=images_in_words(after.judging),
        judged=after.judging is not None,
    )


@dataclass(frozen=True, kw_only=True)
class _Pairs:
    """Trainings of a confirmation that are compared.

    Attributes:
        models: first record of each architecture, by fingerprint.
        numbers: number of its trial in the search.
        failed: finalists that are left out, with the reason.
        names: fingerprints of the compared models, the stock model first.
        repeats: with which all of them have finished, in order.
        trainings: record of each training, by model and repeat, the latest where there are two.
        planned: number of seeds that were enqueued.
    """

    models: Mapping[str, Record]
    numbers: Mapping[str, int]
    failed: Mapping[str, str]
    names: Sequence[str]
    repeats: Sequence[int]
    trainings: Mapping[str, Mapping[int, Record]]
    planned: int

    @property
    def accuracies(self) -> FloatArray:
        """Accuracies in points, `(models, seeds)`, the stock model first."""
        return self.table(lambda record: 100 * (record.map50_95 or 0.0))

    def table(self, value: Callable[[Record], Any]) -> FloatArray:
        """Return a value of each training, `(models, seeds, ...)`."""
        rows = [[value(self.trainings[name][repeat]) for repeat in self.repeats] for name in self.names]
        return np.array(rows, dtype=np.float64)

    @property
    def level(self) -> float | None:
        """Mean accuracy of the stock model; None while there is none."""
        return float(self.accuracies[0].mean()) / 100 if self.repeats else None

    @property
    def reason(self) -> str:
        """Why no finalist can be compared; empty if all can."""
        if len(self.names) < 2:
            return "no finalist has a score with every seed"
        if len(self.repeats) < LEAST_SEEDS:
            finished = f"{len(self.repeats)} of {self.planned} seeds"
            return f"all models have finished with {finished}; the least are {LEAST_SEEDS}"
        if not has_learned(self.level):
            return f"the stock model has learned nothing (mAP50-95 below {LEARNED})"
        return ""

    def seconds_per_seed(self, workers: int) -> float | None:
        """Duration of one more seed of all models; None if a model has no recorded duration."""
        each = [
            [record.seconds for record in self.trainings[name].values() if record.seconds > 0] for name in self.names
        ]
        return sum(fmean(seconds) for seconds in each) / workers if all(each) else None


def _pairs(searched: Sequence[Record], fresh: Sequence[Record]) -> _Pairs:
    """Return the trainings of a confirmation that are compared."""
    stock = next((record.fingerprint for record in fresh if record.role == "stock"), "")
    models = {record.fingerprint: record for record in reversed(fresh) if record.fingerprint}
    numbers = {record.fingerprint: record.trial for record in reversed(searched) if record.finished}
    failed = {name: why for name in models if name != stock and (why := failure(fresh, name))}
    candidates = [name for name in models if name not in {stock, *failed}]
    in_order = sorted(candidates, key=lambda name: (numbers.get(name, len(searched)), name))
    names = [stock, *in_order] if stock else []
    trainings = {name: _by_repeat(fresh, name) for name in names}
    common = set.intersection(*(set(each) for each in trainings.values())) if trainings else set()
    return _Pairs(
        models=models,
        numbers=numbers,
        failed=failed,
        names=names,
        repeats=sorted(common),
        trainings=trainings,
        planned=1 + max((record.repeat for record in fresh), default=-1),
    )


def _by_repeat(records: Sequence[Record], fingerprint: str) -> dict[int, Record]:
    """Return the finished trainings of an architecture by the number of the repeat."""
    return {
        record.repeat: record
        for record in records
        if record.fingerprint == fingerprint and record.finished and record.map50_95 is not None
    }


def _compared(
    pairs: _Pairs, after: Settings, margin: float, resampled: Mapping[int, FloatArray], level: float | None
) -> list[tuple[str, Comparison]]:
    """Return each finalist with its comparison; both parts of the noise count where images judge."""
    if after.judging is None:
        results = compare(pairs.accuracies, margin=margin, level=level)
    else:
        images = after.judging.images
        samples = pairs.table(lambda record: 100 * resampled[record.trial])
        variances = image_variances(samples, images)
        results = compare(pairs.accuracies, margin=margin, image_variances=variances, images=images, level=level)
    return list(zip(pairs.names[1:], results, strict=True))


def _finalist(
    pairs: _Pairs,
    name: str,
    result: Comparison,
    *,
    searched: Sequence[Record],
    after: Settings,
    margin: float,
    further: FurtherSeeds | None,
) -> JudgedFinalist:
    """Return a finalist with the results of its comparison."""
    cost = main_cost(after.objectives)
    return JudgedFinalist(
        trial=pairs.numbers.get(name),
        fingerprint=name,
        summary=pairs.models[name].summary,
        finding=result.finding,
        difference=result.difference,
        low=result.low,
        high=result.high,
        seed_error=result.seed_error,
        image_error=None if after.judging is None else result.image_error,
        p_better=result.p_better,
        p_worse=result.p_worse,
        p_equivalent=result.p_equivalent,
        search_difference=_gains(searched).get(name),
        cost=cost,
        cost_change=_cost_change(pairs, name, cost),
        margin=margin,
        further=further,
    )


def images_in_words(judging: Judging | None) -> str:
    """Return the images that judge in words."""
    if judging is None:
        return CHOSEN_BY
    return _IMAGES[judging.source].format("1 image" if judging.images == 1 else f"{judging.images} images")


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


def _cost_change(pairs: _Pairs, name: str, cost: str) -> float | None:
    """Return the relative difference of a cost to the stock model's, each the mean over its trainings."""
    costs = [
        [value for record in pairs.trainings[one].values() if (value := getattr(record, cost)) is not None]
        for one in (name, pairs.names[0])
    ]
    if not all(costs):
        return None
    finalist, reference = (fmean(each) for each in costs)
    return finalist / reference - 1 if reference else None
