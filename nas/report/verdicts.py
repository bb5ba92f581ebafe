"""Verdicts on a Pareto front compared with the stock model, as text: pure functions of records and settings."""

from collections.abc import Sequence
from statistics import fmean

from nas.records.record import LEARNED, Record, cheapest_as_accurate, has_learned
from nas.settings import Settings
from nas.study.repeats import deviation, gains

_LEAST_SEEDS = 3
"""Fewest seeds for evidence: two that agree are as likely as not without any gain."""
UNITS = {"gflops": "GFLOPs", "params": "parameters", "latency_ms": "ms"}
"""Unit of each cost."""
_WORDS = {"gflops": "fewer GFLOPs", "params": "fewer parameters", "latency_ms": "less latency"}
_ROUNDING = 0.0005
"""Half of the smallest difference that is shown: a tenth of a point of mAP."""


def nothing_learned(settings: Settings, stock: float | None, best: float | None = None) -> list[str]:
    """Return a warning if the stock model has learned nothing, with possible causes and advice; empty if it has.

    Args:
        settings: of the study.
        stock: mAP50-95 of the stock model; None while it has none.
        best: highest mAP50-95 of the study.
    """
    accuracy = stock if stock is not None else best
    if accuracy is None or has_learned(accuracy):
        return []
    budget, base = settings.budget, settings.base
    who = "the stock model's" if stock is not None else "the best"
    epochs = f"--epochs {budget.epochs}" if base is None else f"--base-epochs {base.epochs}, --epochs {budget.epochs}"
    scored = f"{who} mAP50-95 is {accuracy:.4f}, as of a model that was never trained (below {LEARNED})"
    why = f"Too few epochs ({epochs}), images too few or too small (--image-size {budget.image_size}), or wrong labels?"
    return [
        f"Nothing was learned: {scored}, so nothing can be compared with it.",
        f"{why} Train longer, or look at the labels (nas data).",
    ]


def gain(records: Sequence[Record], best: Record, stock: Record) -> str:
    """Return the gain of the most accurate model of a front over the stock model, and how strong its evidence is."""
    if best.trial == stock.trial:
        return "No evidence of gain: nothing that was tried is more accurate than the stock model."
    by_seed = gains(records, best, stock)
    over = f"{fmean(by_seed):+.3f} over stock" if by_seed else "no seed in common with stock"
    if len(by_seed) <= 1:
        moved = deviation(records)
        noise = (
            f"between seeds, scores of this study deviate by {moved:.3f}."
            if moved is not None
            else "the seed alone moves such a score, by how much at this budget is not measured (--seeds 3 does)."
        )
        return f"No evidence of gain yet: {over} is one short training each with one seed; {noise}"
    each = ", ".join(f"{one:+.3f}" for one in by_seed)
    verdict = "Some evidence" if len(by_seed) >= _LEAST_SEEDS and min(by_seed) > 0 else "No evidence"
    return f"{verdict} of gain: {over}, the mean of {len(by_seed)} seeds ({each})."


def saving(front: Sequence[Record], stock: Record, cost: str) -> str | None:
    """Return the cheapest model of a front that is as accurate as the stock model, as text; None if there is none."""
    found = cheapest_as_accurate(front, stock, cost)
    if found is None or found.map50_95 is None or stock.map50_95 is None:
        return None
    saved = f"with {1 - getattr(found, cost) / getattr(stock, cost):.1%} {_WORDS[cost]}"
    gained = found.map50_95 - stock.map50_95
    if gained >= _ROUNDING:
        return f"trial {found.trial}: scores {100 * gained:.1f} points above stock, {saved}"
    if gained > -_ROUNDING:
        return f"trial {found.trial}: scores as stock does, {saved}"
    return f"trial {found.trial}: as accurate as stock within {-100 * gained:.1f} points, {saved}"


def with_unit(number: int, noun: str) -> str:
    """Return a number with its noun: `1 epoch`, `2 epochs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
