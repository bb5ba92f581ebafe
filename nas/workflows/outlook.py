"""How long a planned search takes, by the best that is known: its trials so far, timed trainings, or a rough rate."""

from dataclasses import dataclass, replace
from statistics import fmean

from nas.records.pace import pace
from nas.study.folders import STUDY
from nas.study.score_cache import ScoreCache, training_key, weights_digest
from nas.study.stored_study import StoredStudy
from nas.workflows import timing
from nas.workflows.check_cache import CheckCache
from nas.workflows.estimate import Estimate, measure, rough_seconds
from nas.workflows.plan import Plan
from nas.workflows.planned_search import PlannedSearch
from nas.workflows.timing_run import Report
from search_spaces.errors import EstimateError

WORTH_TIMING = 600.0
"""Seconds of a search, roughly, from which on it is worth half a minute to time trainings before it begins."""
_BUSY = 1.3
"""Seconds of a step for each second of its CPU time from which on it is said that the machine is busy."""


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """Duration of a search, and how it is known.

    Attributes:
        seconds: expected; None if it is not known.
        range: least and most seconds; None without timed trainings.
        how: by what it is known, or why it is not, in words.
        estimate: of timed trainings; None if none were timed.
    """

    seconds: float | None
    range: tuple[float, float] | None = None
    how: str
    estimate: Estimate | None = None


def outlook(
    plan: Plan,
    cache: CheckCache,
    *,
    always: bool,
    elsewhere: bool = False,
    report: Report = lambda *_: None,
) -> Outlook:
    """Return how long a planned search takes.

    Args:
        cache: of earlier measurements.
        always: whether trainings are timed for a short search, too.
        elsewhere: whether the workers run on other machines.
        report: called with how many of how many architectures were timed.
    """
    left = _by_trials(plan)
    if left is not None:
        return left
    if elsewhere:
        return Outlook(seconds=None, how="not known: the workers run on other machines")
    search = PlannedSearch.of_settings(plan.file.settings, plan.file.run, plan.data, plan.sealed)
    rough = rough_seconds(search, fmean(one.gflops for one in plan.stocks))
    if not always and rough < WORTH_TIMING and not timing.is_measured(plan.space, search, cache):
        return Outlook(seconds=rough, how="by a rough rate; --dry-run times trainings")
    try:
        estimate = measure(plan.space, search, cache, report=report)
    except EstimateError as error:
        return Outlook(seconds=None, how=f"not known: {error}")
    if _stock_is_trained(plan):
        estimate = replace(estimate, base=0.0)
    low, high = estimate.hours
    processes = f"in {search.sharing} processes at once" if search.sharing > 1 else "in one process"
    how = f"by timed steps of {estimate.timed} architectures, {processes}, on {estimate.machine}"
    if estimate.busy > _BUSY:
        how += f"; it is busy: steps took {estimate.busy:.1f} times their CPU time"
    return Outlook(seconds=estimate.seconds, range=(low * 3600, high * 3600), how=how, estimate=estimate)


def _by_trials(plan: Plan) -> Outlook | None:
    """Return how long the remaining trials of an existing study take; None while none has ended."""
    if not (plan.folder / STUDY).is_file():
        return None
    study = StoredStudy.open(plan.folder)
    records = study.records()
    ended = sum(record.ending is not None for record in records)
    missing = max(0, plan.file.run.trials - ended)
    found = pace(records, workers=plan.file.run.workers, missing=missing)
    if found is None:
        return None
    return Outlook(seconds=found.seconds_left, how=f"for {missing} of {plan.file.run.trials} trials, by those before")


def _stock_is_trained(plan: Plan) -> bool:
    """Return whether the stock models' weights are in the score cache: earlier searches have trained them alike."""
    settings, cache = plan.file.settings, ScoreCache.of_user() if plan.file.run.cache else None
    if settings.base is None or cache is None:
        return False
    starts = ((one, settings.starting_at(settings.base, plan.space.member_name(one))) for one in plan.space.stocks)
    keys = (training_key(stock, base, plan.data, weights_digest(base.weights)) for stock, base in starts)
    return all((found := cache.read(key)) is not None and found.has_weights for key in keys)
