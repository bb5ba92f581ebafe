"""Estimate the trust in a further search of a kind: pure functions of what earlier ones have trained."""

from collections.abc import Sequence
from dataclasses import dataclass

from nas.algorithms.accuracy_model import Scored
from nas.algorithms.further_search import FurtherShrinkage, Searched, predict_further
from nas.algorithms.pareto import main_cost
from nas.algorithms.seed_noise import SeedNoise, estimate
from nas.defaults import MOST_FINALISTS, SEEDS
from nas.records.record import mean_over_seeds, stock_of
from nas.report.further_trust import FurtherTrust, Measured
from nas.report.trusting import layouts, noise_of, scored
from nas.report.verdict import Verdict
from nas.study.trained_again import Trained


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """A search of the kind.

    Attributes:
        search: the search.
        again: studies that train models of it again.
        verdict: of its confirmation; None before it.
        measure: command that measures noise.
    """

    search: Trained
    again: Sequence[Trained]
    verdict: Verdict | None
    measure: str


def further_trust(studies: Sequence[Earlier]) -> FurtherTrust:
    """Return how far the ranking of a further search of the same kind can be believed.

    Args:
        studies: one or more, of equal settings but for their seed.
    """
    noise = estimate([layout for one in studies for layout in layouts(one.search, one.again)])
    settings = studies[0].search.settings
    return FurtherTrust(
        architectures={one.search.name: len(mean_over_seeds(one.search.records)) for one in studies},
        cost=main_cost(settings.objectives),
        epochs=settings.budget.epochs,
        base_epochs=settings.base.epochs if settings.base is not None else None,
        seeds=settings.seeds,
        noise=noise,
        shrinkage=None if noise is None else _shrinkage([one.search for one in studies], noise),
        measured={one.search.name: found for one in studies if (found := _measured(one)) is not None},
        measure=tuple(one.measure for one in studies if noise_of(one.search, one.again) is None),
    )


def _shrinkage(searches: Sequence[Trained], noise: SeedNoise) -> FurtherShrinkage | None:
    """Return what the confirmation of a further search will measure; None where a search lacks trainings."""
    found = [_searched(one) for one in searches]
    whole = [one for one in found if one is not None]
    if len(whole) < len(found):
        return None
    return predict_further(whole, noise, seeds=SEEDS, most=MOST_FINALISTS)


def _searched(search: Trained) -> Searched | None:
    """Return the scores of a search; None before its stock model is scored."""
    stock = stock_of(search.records)
    if stock is None or stock.map50_95 is None:
        return None
    cost = float(getattr(stock, main_cost(search.settings.objectives)))
    reference = Scored(accuracy=100 * stock.map50_95, seeds=stock.seeds, cost=cost)
    return Searched(architectures=scored(search), reference=reference, seeds=search.settings.seeds)


def _measured(one: Earlier) -> Measured | None:
    """Return what a confirmation has measured; None before it."""
    if one.verdict is None or not one.verdict.finalists or one.verdict.shrinkage is None:
        return None
    before, after = one.verdict.shrinkage
    return Measured(before=before, after=after, remark=", ".join(one.verdict.changes))
