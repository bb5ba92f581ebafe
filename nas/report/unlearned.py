"""Warn of a study whose stock model has learned nothing: a pure function of records and settings."""

from collections.abc import Sequence

from nas.records.record import LEARNED, Record, has_learned, stock_of
from nas.settings import Settings
from nas.words import with_unit


def nothing_learned(settings: Settings, records: Sequence[Record], base: float | None) -> list[str]:
    """Return a warning if the stock model has learned nothing, with possible causes and advice; empty if it has.

    It has learned by its trial, or while that has no score, by its training before all trials. Without either, the best
    trial counts.

    Args:
        settings: of the study.
        records: of all trials.
        base: mAP50-95 of the stock model after its training before all trials; None without one.
    """
    stock = stock_of(records)
    reference = base if stock is None else stock.map50_95
    best = max((one.map50_95 for one in records if one.map50_95 is not None), default=None)
    accuracy = reference if reference is not None else best
    if accuracy is None or has_learned(accuracy):
        return []
    budget, before = settings.budget, settings.base
    stock_model = "the best stock model" if settings.members else "the stock model"
    who = f"{stock_model}'s" if reference is not None else "the best"
    epochs = f"--epochs {budget.epochs}"
    if before is not None:
        epochs = f"--base-epochs {before.epochs}, {epochs}"
    if stock is not None and before is not None and base is not None and has_learned(base):
        trained = f"was {base:.4f} after --base-epochs {before.epochs}"
        spoiled = f"is {accuracy:.4f} after {with_unit(budget.epochs, 'epoch')} more (below {LEARNED})"
        return [
            f"Nothing can be compared: {stock_model}'s mAP50-95 {trained}, and {spoiled}.",
            "So short a training undoes what was learned: train candidates longer (--epochs).",
        ]
    scored = f"{who} mAP50-95 is {accuracy:.4f}, hardly more than that of random weights (below {LEARNED})"
    why = f"Too few epochs ({epochs}), images too few or too small (--image-size {budget.image_size}), or wrong labels?"
    return [
        f"Nothing was learned: {scored}, so nothing can be compared with it.",
        f"{why} Train longer, or look at the labels (nas data).",
    ]
