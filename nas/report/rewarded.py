"""Reward of a search as words, and the model that has the highest one."""

from collections.abc import Iterable

from nas.records.record import Record, mean_over_seeds
from nas.report.verdicts import UNITS
from nas.settings import Settings


def describe(settings: Settings) -> str:
    """Return a study's reward with its targets: `reward tunas, target 7 GFLOPs`; it must have one."""
    targets = " and ".join(f"{target:g} {UNITS[name]}" for name, target in settings.targets.items())
    return f"reward {settings.reward}, target {targets}"


def best_of(records: Iterable[Record], settings: Settings) -> tuple[Record, float] | None:
    """Return the model within the limits that has the highest reward, and that reward; scores are means over seeds.

    Returns:
        None if the study has no reward, or no such model has a score.
    """
    if settings.reward is None:
        return None
    rewarded = [
        (record, settings.rewarded(record.map50_95, {name: getattr(record, name) for name in settings.targets}))
        for record in mean_over_seeds(records)
        if record.within and record.map50_95 is not None
    ]
    return max(rewarded, key=lambda each: each[1], default=None)
