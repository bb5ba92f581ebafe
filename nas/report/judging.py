"""Judge the finalists of a search: each is compared with the stock model over fresh paired seeds.

Pure functions of records and settings. The tests and intervals are those of `nas.algorithms.paired_comparison`. A gain
is claimed here and nowhere else: scores by which a search selected an architecture cannot judge it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from nas.algorithms.arrays import FloatArray
from nas.algorithms.image_variance import image_variances
from nas.algorithms.paired_comparison import Comparison, compare, level_of_look
from nas.algorithms.pareto import main_cost
from nas.defaults import MARGIN
from nas.records.paired import PairedTrainings, failure
from nas.records.record import LEARNED, Record, has_learned, mean_over_seeds, stock_of
from nas.report.confirmations import is_from_scratch
from nas.report.further_seeds import FurtherSeeds, further_seeds
from nas.report.other_images import change_in_words
from nas.report.verdict import CHOSEN_BY, JudgedFinalist, LeftOut, Verdict
from nas.settings import Judging, Settings

_IMAGES = {
    "test": "{} of test, which no search has read",
    "holdout": "{} that were sealed before the search, which no search has read",
    "val": "{} that the search chose by",
}
"""Images that judge in words, by their source."""


def judge(
    searched: Sequence[Record],
    fresh: Sequence[Record],
    *,
    before: Settings,
    after: Settings,
    study: str,
    confirmation: str = "",
    others: Sequence[str] = (),
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
        confirmation: name of the confirmation.
        others: the other confirmations of the search, in words.
        margin: points of mAP50-95 within which two models are equally accurate.
        workers: that train at once, for the duration of further seeds.
        look: how often a verdict on the search was due, this time included: once, and once more whenever seeds or
            finalists were added, or another confirmation was begun.
        resampled: mAP50-95 on each resample of the images, by trial of the confirmation; where the settings name
            images that judge.
    """
    confirmed = _confirmed(searched, fresh)
    paired = confirmed.paired
    finalists: list[JudgedFinalist] = []
    if not confirmed.reason:
        finalists = _finalists(confirmed, after, resampled or {}, margin=margin, look=look, workers=workers)
    return Verdict(
        study=study,
        confirmation=confirmation,
        others=tuple(others),
        from_scratch=is_from_scratch(after, before),
        other_images=change_in_words(before.subset, after.subset),
        seeds=tuple(after.budget.seed + repeat for repeat in paired.repeats),
        planned=paired.planned,
        unfinished=paired.unfinished,
        look=look,
        epochs=after.budget.epochs,
        epochs_of_search=before.budget.epochs,
        margin=margin,
        stock_map50_95=confirmed.level,
        stock_map50_95_by_seed=paired.by_seed(paired.names[0]) if paired.names else (),
        finalists=tuple(sorted(finalists, key=lambda one: -one.difference)),
        left_out=confirmed.left_out,
        reason=confirmed.reason,
        images=images_in_words(after.judging),
        judged=after.judging is not None and after.judging.is_unseen,
        counts_images=after.judging is not None,
    )


@dataclass(frozen=True, kw_only=True)
class _Confirmed:
    """Finalists of a confirmation.

    Attributes:
        models: first record of each architecture, by fingerprint.
        numbers: number of its trial in the search.
        gains: difference to the stock model in the search, in points.
        failed: finalists that are left out, with the reason.
        paired: trainings that are compared, those of the stock model first.
    """

    models: Mapping[str, Record]
    numbers: Mapping[str, int]
    gains: Mapping[str, float]
    failed: Mapping[str, str]
    paired: PairedTrainings

    @property
    def level(self) -> float | None:
        """Mean accuracy of the stock model; None while there is none."""
        return float(self.paired.accuracies[0].mean()) / 100 if self.paired.repeats else None

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Finalists that are not compared."""
        return tuple(
            LeftOut(trial=self.numbers.get(name), fingerprint=name, summary=self.models[name].summary, reason=why)
            for name, why in self.failed.items()
        )

    @property
    def reason(self) -> str:
        """Why no finalist can be compared; empty if all can."""
        if len(self.paired.names) < 2:
            return "no finalist has a score with every seed"
        if self.paired.shortage:
            return self.paired.shortage
        if has_learned(self.level):
            return ""
        scored = f"with fresh seeds the stock model's mAP50-95 is {self.level:.4f}"
        return f"{scored}, hardly more than that of random weights (below {LEARNED}); train longer (--epochs)"


def _confirmed(searched: Sequence[Record], fresh: Sequence[Record]) -> _Confirmed:
    """Return the finalists of a confirmation and their trainings."""
    stock = next((record.fingerprint for record in fresh if record.role == "stock"), "")
    models = {record.fingerprint: record for record in reversed(fresh) if record.fingerprint}
    numbers = {record.fingerprint: record.trial for record in reversed(searched) if record.finished}
    failed = {name: why for name in models if name != stock and (why := failure(fresh, name))}
    candidates = [name for name in models if name not in {stock, *failed}]
    in_order = sorted(candidates, key=lambda name: (numbers.get(name, len(searched)), name))
    return _Confirmed(
        models=models,
        numbers=numbers,
        gains=_gains(searched),
        failed=failed,
        paired=PairedTrainings.of(fresh, [stock, *in_order] if stock else []),
    )


def _compared(
    paired: PairedTrainings, after: Settings, margin: float, resampled: Mapping[int, FloatArray], level: float | None
) -> list[tuple[str, Comparison]]:
    """Return each finalist with its comparison; both parts of the noise count where matches are stored."""
    sampled = None
    if after.judging is not None:
        samples = paired.table(lambda record: 100 * resampled[record.trial])
        sampled = image_variances(samples, after.judging.images)
    results = compare(paired.accuracies, margin=margin, sampled=sampled, level=level)
    return list(zip(paired.names[1:], results, strict=True))


def _finalists(
    confirmed: _Confirmed,
    after: Settings,
    resampled: Mapping[int, FloatArray],
    *,
    margin: float,
    look: int,
    workers: int,
) -> list[JudgedFinalist]:
    """Return the finalists that can be compared, with the seeds that would tell more at the next look."""
    paired = confirmed.paired
    results = _compared(paired, after, margin, resampled, None if paired.unfinished else level_of_look(look))
    seeds, seconds, level = len(paired.repeats), paired.seconds_per_seed(workers), level_of_look(look + 1)
    return [
        _finalist(
            confirmed,
            name,
            result,
            after=after,
            margin=margin,
            further=further_seeds(result, seeds, len(results), margin, seconds, level=level),
        )
        for name, result in results
    ]


def _finalist(
    confirmed: _Confirmed,
    name: str,
    result: Comparison,
    *,
    after: Settings,
    margin: float,
    further: FurtherSeeds | None,
) -> JudgedFinalist:
    """Return a finalist with the results of its comparison."""
    cost = main_cost(after.objectives)
    return JudgedFinalist(
        trial=confirmed.numbers.get(name),
        fingerprint=name,
        summary=confirmed.models[name].summary,
        finding=result.finding,
        difference=result.difference,
        low=result.low,
        high=result.high,
        seed_error=result.seed_error,
        image_error=None if after.judging is None else result.image_error,
        p_better=result.p_better,
        p_worse=result.p_worse,
        p_equivalent=result.p_equivalent,
        map50_95_by_seed=confirmed.paired.by_seed(name),
        search_difference=confirmed.gains.get(name),
        cost=cost,
        cost_change=_cost_change(confirmed.paired, name, cost),
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


def _cost_change(paired: PairedTrainings, name: str, cost: str) -> float | None:
    """Return the relative difference of a cost to the stock model's, each the mean over its trainings."""
    costs = [
        [value for record in paired.trainings[one].values() if (value := getattr(record, cost)) is not None]
        for one in (name, paired.names[0])
    ]
    if not all(costs):
        return None
    finalist, reference = (fmean(each) for each in costs)
    return finalist / reference - 1 if reference else None
