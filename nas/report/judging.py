"""Judge the finalists of a search: each is compared with the stock model over fresh paired seeds.

Pure functions of records and settings. The tests and intervals are those of `nas.algorithms.paired_comparison`. A gain
is claimed here and nowhere else: scores by which a search selected an architecture cannot judge it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from nas.algorithms.arrays import FloatArray
from nas.algorithms.image_variance import image_variances
from nas.algorithms.paired_comparison import Comparison, level_of_look
from nas.algorithms.pareto import main_cost
from nas.algorithms.several_references import compare_with_all, compare_with_own, rows_beside
from nas.defaults import MARGIN
from nas.records.paired import PairedTrainings, failure
from nas.records.record import LEARNED, Record, has_learned, mean_over_seeds, stock_of, stocks_of
from nas.report.confirmations import is_from_scratch
from nas.report.further_seeds import FurtherSeeds, further_seeds
from nas.report.other_images import change_in_words
from nas.report.stock_models import why_no_bar
from nas.report.verdict import CHOSEN_BY, CheapestStock, JudgedFinalist, LeftOut, OwnStock, Verdict
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
    """Judge the finalists of a search; of a study of stock models alone, each beside those that cost no more.

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
    cost = main_cost(after.objectives)
    confirmed = _stock_models(searched, fresh, cost) if before.stock_only else _confirmed(searched, fresh)
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
        stock_map50_95_by_seed=confirmed.by_seed,
        stocks=len(paired.names) if before.stock_only else max(1, confirmed.stocks),
        not_compared={} if before.stock_only else _not_compared(searched, fresh, before),
        cheapest=confirmed.cheapest,
        finalists=tuple(sorted(finalists, key=lambda one: -_rank(one))),
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
        scores: accuracy in the search, in points.
        stocks: number of stock models that are no finalists, which are the first of the trainings.
        of_stocks: whether the finalists are stock models themselves, in the order of their costs.
        failed: finalists that are left out, with the reason.
        paired: trainings that are compared, those of the stock model first.
    """

    models: Mapping[str, Record]
    numbers: Mapping[str, int]
    scores: Mapping[str, float]
    stocks: int
    of_stocks: bool = False
    failed: Mapping[str, str]
    paired: PairedTrainings

    @property
    def best_stock(self) -> int:
        """Row of the stock model, of several that of the most accurate one; only with accuracies."""
        stocks = len(self.paired.names) if self.of_stocks else self.stocks
        return int(self.paired.accuracies[:stocks].mean(axis=1).argmax())

    @property
    def level(self) -> float | None:
        """Mean accuracy of that stock model; None while there is none."""
        has_accuracies = self.stocks and self.paired.repeats
        return float(self.paired.accuracies[self.best_stock].mean()) / 100 if has_accuracies else None

    @property
    def by_seed(self) -> tuple[float, ...]:
        """Accuracies of that stock model, in the order of the seeds; empty while there are none."""
        return () if self.level is None else self.paired.by_seed(self.paired.names[self.best_stock])

    @property
    def finalists(self) -> Sequence[str]:
        """Models that are compared."""
        return self.paired.names[self.stocks :]

    @property
    def cheapest(self) -> CheapestStock | None:
        """The model that no other is compared with, where the finalists are stock models; None without a score."""
        if not self.of_stocks or not self.finalists or not self.paired.repeats:
            return None
        name = self.paired.names[0]
        return CheapestStock(
            trial=self.numbers.get(name),
            member=self.models[name].member,
            fingerprint=name,
            map50_95_by_seed=self.paired.by_seed(name),
        )

    def cost_of(self, name: str, cost: str) -> float | None:
        """Return the mean cost of a model's trainings; None if it is not known."""
        found = [value for one in self.paired.trainings[name].values() if (value := getattr(one, cost)) is not None]
        return fmean(found) if found else None

    def rows_of(self, name: str, cost: str) -> list[int]:
        """Return the stock models that cost at most as much as a finalist; if there are none, that of its member.

        Of a finalist that costs less than all, and whose member's has failed, all.
        """
        if self.of_stocks:
            return list(range(self.paired.names.index(name)))
        its_cost = self.cost_of(name, cost)
        costs = [self.cost_of(stock, cost) for stock in self.paired.names[: self.stocks]]
        ceiling = -1.0 if its_cost is None else its_cost
        affordable = [row for row, value in enumerate(costs) if value is not None and value <= ceiling]
        own = self.own_row(name)
        return affordable or (list(range(self.stocks)) if own is None else [own])

    def own_row(self, name: str) -> int | None:
        """Return the stock model of a finalist's member; None if that has failed."""
        members = [self.models[stock].member for stock in self.paired.names[: self.stocks]]
        member = self.models[name].member
        return members.index(member) if member in members else None

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Finalists that are not compared."""
        return tuple(
            LeftOut(
                trial=self.numbers.get(name),
                fingerprint=name,
                summary=self.models[name].summary,
                reason=why,
                member=self.models[name].member if self.models[name].role == "stock" else "",
            )
            for name, why in self.failed.items()
        )

    @property
    def reason(self) -> str:
        """Why no finalist can be compared; empty if all can."""
        if not self.stocks or not self.finalists:
            return "no finalist has a score with every seed"
        if self.paired.shortage:
            return self.paired.shortage
        if has_learned(self.level):
            return ""
        which = "best stock model" if self.stocks > 1 or self.of_stocks else "stock model"
        scored = f"with fresh seeds the {which}'s mAP50-95 is {self.level:.4f}"
        return f"{scored}, hardly more than that of random weights (below {LEARNED}); train longer (--epochs)"


def _confirmed(searched: Sequence[Record], fresh: Sequence[Record]) -> _Confirmed:
    """Return the finalists of a confirmation and their trainings."""
    stock = {record.fingerprint: record.trial for record in fresh if record.role == "stock"}
    models = {record.fingerprint: record for record in reversed(fresh) if record.fingerprint}
    numbers = {record.fingerprint: record.trial for record in reversed(searched) if record.finished}
    several = len(stock) > 1
    failed = {name: why for name in models if (several or name not in stock) and (why := failure(fresh, name))}
    stocks = [name for name in stock if name not in failed]
    candidates = [name for name in models if name not in {*stock, *failed}]
    in_order = sorted(candidates, key=lambda name: (numbers.get(name, len(searched)), name))
    return _Confirmed(
        models=models,
        numbers=numbers,
        scores=_scores(searched),
        stocks=len(stocks),
        failed=failed,
        paired=PairedTrainings.of(fresh, [*stocks, *in_order] if stocks else []),
    )


def _stock_models(searched: Sequence[Record], fresh: Sequence[Record], cost: str) -> _Confirmed:
    """Return the stock models of a confirmation, the cheapest first, and their trainings."""
    found = _confirmed(searched, fresh)
    names = [name for name in found.models if name not in found.failed]
    whole = replace(found, stocks=min(1, len(names)), of_stocks=True, paired=PairedTrainings.of(fresh, names))
    by_cost = sorted(names, key=lambda name: (whole.cost_of(name, cost) or 0.0, name))
    return replace(whole, paired=PairedTrainings.of(fresh, by_cost))


def _not_compared(searched: Sequence[Record], fresh: Sequence[Record], before: Settings) -> dict[str, str]:
    """Return why the stock models of a search that are not in its confirmation are not, by the member's name."""
    there = {one.member for one in fresh if one.role == "stock"}
    last = {one.member: one for one in searched if one.role == "stock" and one.member}
    trained = {one.fingerprint: one for one in reversed([*searched, *fresh]) if one.finished}
    finalists = [trained[name] for name in {one.fingerprint for one in fresh if one.role != "stock"} & trained.keys()]
    finished = {one.member: one for one in stocks_of(searched)}
    return {
        member: why_no_bar(finished.get(member, one), finalists, list(finished.values()), before)
        for member, one in last.items()
        if member not in there
    }


def _compared(
    confirmed: _Confirmed,
    after: Settings,
    *,
    margin: float,
    resampled: Mapping[int, FloatArray],
    level: float | None,
) -> tuple[list[tuple[int, Comparison]], list[Comparison | None]]:
    """Return each finalist's comparison with the stock models that cost no more, and with its own if there are several.

    Both parts of the noise count where matches are stored.
    """
    paired, names, cost, sampled = confirmed.paired, confirmed.finalists, main_cost(after.objectives), None
    references, own = [confirmed.rows_of(name, cost) for name in names], [confirmed.own_row(name) for name in names]
    if after.judging is not None:
        samples, images = paired.table(lambda record: 100 * resampled[record.trial]), after.judging.images
        with_own = [rows if row is None else [*rows, row] for rows, row in zip(references, own, strict=True)]
        beside = rows_beside(len(samples), with_own)
        sampled = {row: image_variances(samples[[row, *rows]], images) for row, rows in beside.items()}
    values = paired.accuracies
    found = compare_with_all(values, references, margin=margin, sampled=sampled, level=level)
    if confirmed.stocks == 1:
        return found, [None] * len(names)
    overall = [one for _, one in found]
    return found, compare_with_own(values, references, own, overall, margin=margin, sampled=sampled, level=level)


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
    level = None if paired.unfinished else level_of_look(look)
    results, owns = _compared(confirmed, after, margin=margin, resampled=resampled, level=level)
    seeds, seconds, next_level = len(paired.repeats), paired.seconds_per_seed(workers), level_of_look(look + 1)
    return [
        _finalist(
            confirmed,
            name,
            paired.names[row],
            result,
            after=after,
            own=own,
            margin=margin,
            further=further_seeds(result, seeds, len(results), margin, seconds, level=next_level),
        )
        for name, (row, result), own in zip(confirmed.finalists, results, owns, strict=True)
    ]


def _finalist(
    confirmed: _Confirmed,
    name: str,
    stock: str,
    result: Comparison,
    *,
    after: Settings,
    own: Comparison | None,
    margin: float,
    further: FurtherSeeds | None,
) -> JudgedFinalist:
    """Return a finalist with the results of its comparison."""
    cost, scores = main_cost(after.objectives), confirmed.scores
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
        search_difference=scores[name] - scores[stock] if name in scores and stock in scores else None,
        cost=cost,
        cost_change=_cost_change(confirmed, name, stock, cost),
        margin=margin,
        further=further,
        stock=confirmed.models[stock].member,
        member=confirmed.models[name].member if confirmed.of_stocks else "",
        own=None if own is None else OwnStock.of(own, confirmed.models[name].member),
    )


def _rank(one: JudgedFinalist) -> float:
    """Return by what finalists are ordered: the difference; of stock models, each beside another, the accuracy."""
    return fmean(one.map50_95_by_seed) if one.member else one.difference


def images_in_words(judging: Judging | None) -> str:
    """Return the images that judge in words."""
    if judging is None:
        return CHOSEN_BY
    return _IMAGES[judging.source].format("1 image" if judging.images == 1 else f"{judging.images} images")


def _scores(searched: Sequence[Record]) -> Mapping[str, float]:
    """Return the accuracies in a search, in points, by fingerprint; none before a stock model has finished."""
    if stock_of(searched) is None:
        return {}
    scored = mean_over_seeds(searched)
    return {one.fingerprint: 100 * one.map50_95 for one in scored if one.map50_95 is not None}


def _cost_change(confirmed: _Confirmed, name: str, stock: str, cost: str) -> float | None:
    """Return the relative difference of a cost to that of a stock model, each the mean over its trainings."""
    finalist, reference = (confirmed.cost_of(one, cost) for one in (name, stock))
    return finalist / reference - 1 if finalist is not None and reference else None
