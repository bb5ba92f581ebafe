"""Choose trials and epochs of a search so that it ends within some hours: `nas search --hours 8`."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from nas.words import with_unit
from nas.workflows import timing
from nas.workflows.check_cache import CheckCache
from nas.workflows.estimate import of_times
from nas.workflows.plan import Plan
from nas.workflows.planned_search import PlannedSearch
from nas.workflows.request import Request
from nas.workflows.timing_process import ProcessTimes
from nas.workflows.timing_run import Report
from search_spaces.errors import SpecError
from trials import Budget

LEAST_TRIALS, MOST_TRIALS = 12, 200
"""Fewest trials that are chosen, and most."""
SHORTEST = 0.25
"""Smallest share of the preset's epochs that is chosen."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Request with trials and epochs that fit, and the reason in words."""

    request: Request
    reason: str


def fitted(request: Request, plan: Plan, cache: CheckCache, *, report: Report = lambda *_: None) -> Fitted:
    """Return the request with the trials and epochs that fit into its hours.

    Trials come first: as many as fit at the preset's epochs, from 12 to 200. Where 12 do not fit, epochs of a trial and
    of the stock model shrink together, to a quarter at the least. What the request sets stays.

    Args:
        plan: of the request, which has `hours`.

    Raises:
        SpecError: not even the least fits; says how long that takes.
        EstimateError: trainings cannot be timed.
    """
    assert request.hours is not None  # noqa: S101 - else there is nothing to fit
    settings, run = plan.file.settings, plan.file.run
    search = PlannedSearch.of_settings(settings, run, plan.data, plan.sealed)
    times = timing.measure(plan.space, search, cache, report=report)
    least, most = (request.trials,) * 2 if request.trials else (LEAST_TRIALS, MOST_TRIALS)
    shorter = search
    for shorter in _shorter(search, request):
        trials = _trials_that_fit(shorter, times, request.hours, most)
        if trials >= least:
            return _chosen(request, search, shorter, trials)
    smallest = replace(shorter, trials=least)
    hours = of_times(smallest, times).seconds / 3600
    raise SpecError(
        f"hours: the least that is chosen, {with_unit(least, 'trial')} of "
        f"{with_unit(shorter.budget.epochs, 'epoch')}, takes about {_upwards(hours):g} h here, got {request.hours:g} "
        f"(--hours {_upwards(hours):g}; or set --trials, --epochs or --image-size)"
    )


def _shorter(search: PlannedSearch, request: Request) -> Iterator[PlannedSearch]:
    """Yield the search, then with fewer and fewer epochs, where the request sets none and nothing depends on them."""
    epochs, base = search.budget.epochs, search.base
    least = epochs if request.epochs is not None else max(1, math.ceil(epochs * SHORTEST))
    for count in range(epochs, least - 1, -1):
        rungs = search.stopping.rungs(count) if search.stopping else ()
        budget = search.budget.model_copy(update={"epochs": count, "rungs": rungs})
        yield replace(search, budget=budget, base=_shrunk(base, count / epochs, request))


def _shrunk(base: Budget | None, share: float, request: Request) -> Budget | None:
    if base is None or request.base_epochs is not None:
        return base
    return base.model_copy(update={"epochs": max(1, round(base.epochs * share))})


def _trials_that_fit(search: PlannedSearch, times: ProcessTimes, hours: float, most: int) -> int:
    """Return the largest number of trials whose expected time is within some hours; 0 if there is none."""
    fitting = [n for n in range(1, most + 1) if of_times(replace(search, trials=n), times).seconds <= hours * 3600]
    return fitting[-1] if fitting else 0


def _chosen(request: Request, search: PlannedSearch, shorter: PlannedSearch, trials: int) -> Fitted:
    trials = request.trials or trials
    epochs, base = shorter.budget.epochs, shorter.base
    is_shorter = epochs < search.budget.epochs
    new = replace(
        request,
        hours=None,
        trials=trials,
        timeout=request.timeout or request.hours * 3600 if request.hours else None,
        epochs=epochs if is_shorter else request.epochs,
        base_epochs=base.epochs if is_shorter and base else request.base_epochs,
    )
    flags = [f"--trials {trials}"]
    if is_shorter:
        flags += [*([f"--base-epochs {base.epochs}"] if base else []), f"--epochs {epochs}"]
    why = f" instead of {search.budget.epochs}: {LEAST_TRIALS} trials of those do not fit" if is_shorter else ""
    if trials == MOST_TRIALS and not request.trials:
        why = f" (at most {MOST_TRIALS}; give --trials or --epochs for more)"
    return Fitted(request=new, reason=f"{' '.join(flags)}{why}; no trial begins after {request.hours:g} h")


def _upwards(hours: float) -> float:
    """Return hours with two digits, rounded up."""
    step = 10.0 ** (math.floor(math.log10(hours)) - 1)
    return round(math.ceil(hours / step) * step, 6)
