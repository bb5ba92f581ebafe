"""Verdicts on a Pareto front compared with the stock model, as text: pure functions of records and settings."""

from collections.abc import Sequence
from statistics import fmean

from nas.algorithms.seed_noise import SeedNoise, confirmed_difference, least_difference
from nas.defaults import SEEDS
from nas.records.record import Record, cheapest_as_accurate
from nas.report.verdict import SAMPLE_COUNTS
from nas.study.repeats import gains
from nas.words import with_unit

UNITS = {"gflops": "GFLOPs", "params": "parameters", "latency_ms": "ms"}
"""Unit of each cost."""
_WORDS = {"gflops": "fewer GFLOPs", "params": "fewer parameters", "latency_ms": "less latency"}
_ROUNDING = 0.0005
"""Half of the smallest difference that is shown: a tenth of a point of mAP."""


def gain(
    records: Sequence[Record],
    best: Record,
    stock: Record,
    *,
    noise: SeedNoise | None,
    finalists: int = 1,
    confirm: str,
    measure: str,
) -> str:
    """Return the gain of the most accurate model of a front over the stock model, and which difference can be told.

    A search shows the best of many scores, so its scores are no verdict: seeds that selected an architecture cannot
    judge it.

    Args:
        noise: between seeds, in points; None if it was not measured.
        finalists: that a confirmation would have.
        confirm: command that trains fresh seeds.
        measure: command that measures the noise.
    """
    if best.trial == stock.trial:
        detectable = _detectable(noise, best.seeds, finalists, measure)
        return f"Nothing that was tried is more accurate than the stock model; {detectable}."
    by_seed = gains(records, best, stock)
    difference = fmean(by_seed) if by_seed else (best.map50_95 or 0.0) - (stock.map50_95 or 0.0)
    single = "one short training each with one seed" if by_seed else "of trainings with different seeds"
    scored = (
        f"the mean of {len(by_seed)} seeds, {', '.join(f'{100 * one:+.1f}' for one in by_seed)}, which also chose it"
        if len(by_seed) > 1
        else single
    )
    detectable = _detectable(noise, len(by_seed), finalists, measure)
    beside = f"trial {best.trial}: {_scores(difference)} ({scored})"
    return f"{beside}: no verdict before fresh seeds judge ({confirm}); {detectable}."


def _scores(gained: float) -> str:
    """Return what a model scores beside stock, in points."""
    if gained >= _ROUNDING:
        return f"scores {100 * gained:.1f} points above stock"
    return "scores as stock does" if gained > -_ROUNDING else f"scores {-100 * gained:.1f} points below stock"


def _detectable(noise: SeedNoise | None, seeds: int, finalists: int, measure: str) -> str:
    """Return what the seeds of a search detect, and what fresh ones find among the finalists, as text."""
    if noise is None:
        return f"noise between seeds is not measured, so no difference can be told from it ({measure})"
    number = max(1, seeds)
    searched = least_difference(noise, number)
    fresh = confirmed_difference(noise, SEEDS, finalists=max(1, finalists))
    deviation = f"scores of one architecture deviate by {noise.deviation:.1f} points between seeds"
    shown = f"a search with {with_unit(number, 'seed')} shows true differences of {searched:.1f} points"
    found = f"a confirmation of {with_unit(max(1, finalists), 'finalist')} with {SEEDS} fresh seeds finds gains of"
    return f"{deviation}: {shown}, {found} {fresh:.1f} by that noise alone ({SAMPLE_COUNTS})"


def saving(front: Sequence[Record], stock: Record, cost: str) -> str | None:
    """Return the cheapest model of a front that is as accurate as the stock model, as text; None if there is none.

    Its cost is exact; its score is no verdict, as is added.
    """
    found = cheapest_as_accurate(front, stock, cost)
    if found is None or found.map50_95 is None or stock.map50_95 is None:
        return None
    seeds = min(found.seeds, stock.seeds)
    scored = "one short training each" if seeds == 1 else f"the mean of {seeds} seeds, which also chose it"
    less = f"{100 * (1 - getattr(found, cost) / getattr(stock, cost)):.1f} % {_WORDS[cost]}"
    saved = f"with {less} ({scored}: no verdict)"
    return f"trial {found.trial}: {_scores(found.map50_95 - stock.map50_95)}, {saved}"
