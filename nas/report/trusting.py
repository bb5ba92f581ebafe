"""Estimate the trust in the ranking of a search: pure functions of what was trained."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean
from typing import Any

from nas.algorithms.accuracy_model import Scored
from nas.algorithms.paired_comparison import Finding
from nas.algorithms.pareto import main_cost
from nas.algorithms.rank_agreement import agreement
from nas.algorithms.seed_noise import SeedNoise, Trainings, estimate, estimate_with_seeds
from nas.algorithms.shrinkage import Reference, Shrinkage, predict_groups
from nas.defaults import MOST_FINALISTS, SEEDS
from nas.records.record import Record, its_stock, mean_over_seeds, pareto_front_of, stock_of, stocks_of
from nas.report.few_images import subset_in_words
from nas.report.slope import End, Slope, decisive, slope
from nas.report.stock_front import bars
from nas.report.trust import FINDINGS, Order, Trust
from nas.report.unlearned import nothing_learned
from nas.report.unmeasured import why_no_noise, why_no_slope
from nas.report.verdict import Verdict
from nas.study.trained_again import Trained


def trust(
    search: Trained,
    again: Sequence[Trained],
    *,
    measure: str,
    confirm: str,
    verdict: Verdict | None = None,
) -> Trust:
    """Return how far the ranking of a search can be believed.

    Args:
        search: the search.
        again: studies that train models of it again.
        measure: command that measures noise and slope.
        confirm: command that judges the front.
        verdict: of the confirmation; None before it.
    """
    again = [one for one in again if one.settings.subset == search.settings.subset]  # others differ by more than length
    noise, noise_epochs = noise_of(search, again), None
    if noise is None and (elsewhere := _noise_of_other_epochs(search, again)) is not None:
        noise, noise_epochs = elsewhere
    slopes = slopes_of(search, again, measure=measure)
    front = pareto_front_of(search.records, search.settings.objectives)
    others = [one for one in front if one.role != "stock"]
    best, stock, difference = _best(search, others)
    is_above = difference is not None and difference > 0
    fewest = min(one.seeds for one in (best, stock)) if best is not None and stock is not None else 1
    confirmed = verdict if verdict is not None and verdict.finalists else None
    return Trust(
        study=search.name,
        architectures=len(mean_over_seeds(search.records)),
        seeds=search.settings.seeds,
        epochs=search.epochs,
        base_epochs=search.settings.base.epochs if search.settings.base is not None else None,
        noise=noise,
        noise_epochs=noise_epochs,
        image_error=_image_error(confirmed),
        changes=confirmed.changes if confirmed else (),
        best=best.trial if best is not None and is_above else None,
        best_difference=difference,
        best_seeds=fewest,
        shrinkage=None if noise is None else _shrinkage(search, others, noise, confirmed),
        measured=confirmed.shrinkage if confirmed else None,
        confirmed_epochs=confirmed.epochs if confirmed else None,
        findings=_findings(confirmed),
        orders=tuple(_orders(search, again)),
        slope=slopes.decisive,
        slopes=tuple(slopes.found) if search.settings.members else (),
        members=search.settings.members,
        finalists=len(confirmed.finalists) if confirmed else number_of_finalists(front),
        measure=measure,
        confirm=confirm,
        nothing_learned=tuple(nothing_learned(search.settings, search.records, search.base)),
        images=subset_in_words(search.settings.subset),
        no_noise="" if noise else why_no_noise(again),
        no_slope=slopes.missing,
    )


def _best(search: Trained, others: Sequence[Record]) -> tuple[Record | None, Record | None, float | None]:
    """Return the model with the largest gain, what it is compared with, and that gain in points.

    Args:
        others: models of the front without the stock models.

    Returns:
        Without a stock model to compare with, the most accurate one alone.
    """
    stocks, cost = stocks_of(search.records), main_cost(search.settings.objectives)
    compared = [(one, stock) for one in others if (stock := reference_of(one, stocks, cost)) is not None]
    if not compared:
        return max(others, key=lambda one: one.map50_95 or 0.0, default=None), None, None

    def gain(pair: tuple[Record, Record]) -> float:
        return 100 * ((pair[0].map50_95 or 0.0) - (pair[1].map50_95 or 0.0))

    best = max(compared, key=gain)
    return *best, gain(best)


def reference_of(record: Record, stocks: Sequence[Record], cost: str) -> Record | None:
    """Return the stock model that a model is compared with: of several the most accurate one that costs no more.

    If all cost more, that of its member; None if that has not finished.
    """
    own = its_stock(record, stocks)
    return next((bar.best or own for bar in bars([record], stocks, cost)), own)


def number_of_finalists(front: Sequence[Record]) -> int:
    """Return how many models of a front a confirmation would judge."""
    return min(sum(record.role != "stock" for record in front), MOST_FINALISTS)


def noise_of(search: Trained, again: Sequence[Trained]) -> SeedNoise | None:
    """Return the noise between seeds in points, pooled over all repeats with the budget of the search.

    The seeds of the search and of a calibration are one layout, those of a confirmation another: what was selected by
    its first score would seem to fall with the fresh ones.
    """
    return estimate(layouts(search, again))


def layouts(search: Trained, again: Sequence[Trained]) -> list[Trainings]:
    """Return the trainings with the budget of the search: those of its seeds, and of each study with fresh ones."""
    selecting = [search, *(one for one in again if one.repeats and one.selects)]
    fresh = [one for one in again if one.repeats and not one.selects]
    return [_layout(selecting), *(_layout([one]) for one in fresh)]


def _noise_of_other_epochs(search: Trained, again: Sequence[Trained]) -> tuple[SeedNoise, int] | None:
    """Return the noise of trainings of another length, and their epochs; None without repeats.

    Those of a calibration, whose result has set the epochs of the search; of several the longest.
    """
    for one in sorted(again, key=lambda one: -one.epochs):
        noise = estimate([_layout([one])]) if one.settings.inherits == search.settings.inherits else None
        if noise is not None:
            return noise, one.epochs
    return None


def _layout(studies: Sequence[Trained]) -> Trainings:
    """Return accuracies in points by architecture and seed; the same training in two studies counts once."""
    return {
        (record.fingerprint, study.settings.budget.seed + record.repeat): 100 * record.map50_95
        for study in studies
        for record in study.records
        if record.finished and record.map50_95 is not None
    }


@dataclass(frozen=True, kw_only=True)
class Slopes:
    """Slopes of the stock models of a search.

    Attributes:
        found: those that are measured.
        missing: why one is not measured; empty if all are.
    """

    found: Sequence[Slope]
    missing: str

    @property
    def decisive(self) -> Slope | None:
        """The one that decides on the budget; None while one that is missing may ask for more epochs."""
        one = decisive(self.found)
        return None if one is not None and self.missing and not one.favours_fast else one


def slopes_of(search: Trained, again: Sequence[Trained], *, measure: str = "") -> Slopes:
    """Return the slope of the stock model, or those of all members whose stock model has finished."""
    names = [one.member for one in stocks_of(search.records)] or list(search.settings.members[:1]) or [""]
    slopes = {name: slope_of(search, again, measure=measure, member=name) for name in names}
    whose = next((name for name, found in slopes.items() if found is None), None)
    why = ""
    if whose is not None:
        why = why_no_slope(search.of_member(whose), [one.of_member(whose) for one in again])
        why = f"{whose}: {why}" if whose else why
    return Slopes(found=[one for one in slopes.values() if one is not None], missing=why)


def slope_of(search: Trained, again: Sequence[Trained], *, measure: str = "", member: str = "") -> Slope | None:
    """Return the slope of the stock model, with its longer trainings from the same weights.

    Args:
        measure: command that measures a longer training.
        member: whose stock model, of several.
    """
    own = search.of_member(member)
    longer = [
        End(one.epochs, stock.map50_95, stock.seeds)
        for one in (each.of_member(member) for each in again)
        if one.epochs > search.epochs
        and one.settings.base == search.settings.base
        and (stock := stock_of(one.records)) is not None
        and stock.map50_95 is not None
    ]
    noise = estimate_with_seeds(layouts(search, again))
    return slope(
        search.settings, own.records, base=own.base, longer=longer, noise=noise, measure=measure, member=member
    )


def _findings(confirmed: Verdict | None) -> Mapping[Finding, int]:
    """Return the numbers of finalists by what the verdict says of them, the best first; empty before a verdict."""
    if confirmed is None or not confirmed.is_final:
        return {}
    counts = Counter(one.finding for one in confirmed.finalists)
    return {finding: counts[finding] for finding in FINDINGS if finding in counts}


def _image_error(confirmed: Verdict | None) -> float | None:
    """Return the standard error of a difference from the sample of images, root mean square over the finalists."""
    errors = [one.image_error for one in confirmed.finalists if one.image_error is not None] if confirmed else []
    return sqrt(fmean(error**2 for error in errors)) if errors else None


def _shrinkage(
    search: Trained, front: Sequence[Record], noise: SeedNoise, confirmed: Verdict | None
) -> Shrinkage | None:
    """Return what the finalists lose with fresh seeds, in points; before a confirmation, the front by search scores.

    The front by expected scores, which a confirmation trains, takes the space and its costs, so PyTorch.
    """
    selected = {one.fingerprint for one in sorted(front, key=lambda one: -(one.map50_95 or 0.0))[:MOST_FINALISTS]}
    if confirmed is not None:
        selected = {one.fingerprint for one in confirmed.finalists}
    seeds = SEEDS if confirmed is None else len(confirmed.seeds)
    references = _references(search, selected, confirmed)
    groups = [scored(search.of_member(member), selected) for member in search.settings.members or ("",)]
    return predict_groups(groups, references, noise, seeds=seeds) if references else None


def _references(search: Trained, selected: Collection[str], confirmed: Verdict | None) -> list[Reference]:
    """Return the stock models that the selected architectures are compared with; in a confirmation as it has done."""
    stocks, cost = stocks_of(search.records), main_cost(search.settings.objectives)
    judged = {one.fingerprint: one.stock for one in confirmed.finalists} if confirmed else {}
    found = [
        next((stock for stock in stocks if stock.member == judged[one.fingerprint]), None)
        if one.fingerprint in judged
        else reference_of(one, stocks, cost)
        for one in mean_over_seeds(search.records)
        if one.fingerprint in selected and one.role != "stock"
    ]
    compared = Counter(stock.fingerprint for stock in found if stock is not None)
    return [
        Reference(100 * (one.map50_95 or 0.0), one.seeds, compared[one.fingerprint] / compared.total())
        for one in stocks
        if one.fingerprint in compared
    ]


def scored(search: Trained, selected: Collection[str] = ()) -> list[Scored]:
    """Return the architectures of a search that have scores, without the stock models; accuracies in points.

    Args:
        selected: fingerprints of those that are trained again.
    """
    cost, stocks = main_cost(search.settings.objectives), {one.fingerprint for one in stocks_of(search.records)}
    return [
        Scored(
            accuracy=100 * one.map50_95,
            seeds=one.seeds,
            cost=float(getattr(one, cost)),
            is_selected=one.fingerprint in selected,
        )
        for one in mean_over_seeds(search.records)
        if one.map50_95 is not None and getattr(one, cost) and one.fingerprint not in stocks
    ]


def _orders(search: Trained, again: Sequence[Trained]) -> Iterator[Order]:
    """Yield how the orders after rungs, and after longer trainings, agree with that of the search."""
    cost = main_cost(search.settings.objectives)
    finished = [record for record in search.records if record.finished and not record.repeat]
    for rung in sorted({epoch for epochs in search.rungs.values() for epoch in epochs if epoch < search.epochs}):
        pairs: list[tuple[Any, Any, Any]] = [
            (search.rungs[record.trial][rung], record.map50_95, getattr(record, cost))
            for record in finished
            if rung in search.rungs.get(record.trial, {})
        ]
        yield from _order(pairs, rung, search.epochs, "rung")
    short = {record.fingerprint: record for record in mean_over_seeds(search.records)}
    for one in again:
        if one.epochs > search.epochs:
            pairs = [
                (short[record.fingerprint].map50_95, record.map50_95, getattr(record, cost))
                for record in mean_over_seeds(one.records)
                if record.fingerprint in short
            ]
            yield from _order(pairs, search.epochs, one.epochs, one.name)


def _order(pairs: Sequence[tuple[Any, Any, Any]], shorter: int, longer: int, where: str) -> Iterator[Order]:
    """Yield the agreement of two orders given cost, if they can be compared."""
    whole = [pair for pair in pairs if all(value is not None for value in pair)]
    first, second, cost = ([float(pair[at]) for pair in whole] for at in range(3))
    found = agreement(first, second, cost)
    if found is not None:
        yield Order(shorter=shorter, longer=longer, where=where, agreement=found)
