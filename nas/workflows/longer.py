"""Train the members of a Pareto front longer, and compare their order with that of the short trainings.

The budget grows for the front alone, and only while that changes its order: its members and the stock model (of several
spaces those of `with_stocks`) are trained three times as long, in another study; if one has overtaken another, the
front of that study is trained longer once more. Each training starts from the beginning, with another seed, since a
budget's learning rate decays to its end.

Source: Bohdal and others 2022, "PASHA: efficient HPO and NAS with progressive resource allocation" (arXiv 2207.06940),
which grows the largest budget until the ranking stays, up to differences that are noise.
"""

from collections.abc import Sequence
from itertools import permutations
from typing import Any, NamedTuple

from nas.algorithms.seed_noise import estimate
from nas.records.record import Record, mean_over_seeds
from nas.study.kinds import require_search
from nas.study.study import Study
from nas.workflows.begin import require_same_data
from nas.workflows.confirm import with_stocks
from nas.workflows.derived import derived_study

_DEGREES = 4
"""Degrees of freedom from which a deviation is used; its relative error is then a third."""


class Finalist(NamedTuple):
    """Records of one architecture in two studies, with the means over its seeds."""

    shorter: Record
    longer: Record

    @property
    def accuracies(self) -> tuple[float, float]:
        """Accuracies after the shorter and the longer training."""
        return self.shorter.map50_95 or 0.0, self.longer.map50_95 or 0.0


def longer(before: Study, *, eta: int, **changes: Any) -> Study:
    """Create or resume the study that trains a study's front for `eta` times as many epochs.

    Args:
        changes: to the run settings: workers, device, timeout or trial_memory.

    Raises:
        DataError: the data set cannot be trained on any more.
        StudyError: the front is the stock model alone, or empty, or in a study of stock models one model; the data set
            has changed; a study of that name exists with other settings.
        SpecError: more workers than cores.
    """
    require_search(before.folder, before.file, "confirm", stock_only=True)
    models = with_stocks(before, before.front())
    require_same_data(before)
    budget = before.settings.budget
    grown = budget.model_copy(update={"epochs": budget.epochs * eta, "seed": budget.seed + 1, "rungs": ()})
    changed = {"budget": grown, "stopping": None, "seeds": 1, "confirms": before.name}
    settings = before.settings.model_copy(update=changed)
    study = derived_study(before, f"{before.name}-x{eta}", settings, trials=len(models), changes=changes)
    enqueued = {record.fingerprint for record in study.records()}
    for architecture in models:
        if architecture.fingerprint not in enqueued:  # includes members that are new since the study was created
            study.enqueue(architecture, role="stock" if architecture.is_stock else "start")
    return study


def finalists(before: Sequence[Record], after: Sequence[Record]) -> list[Finalist]:
    """Return the architectures that finished in both studies, most accurate after the longer training first.

    Args:
        before: all records of the shorter study.
        after: all records of the longer study.
    """
    shorter = {record.fingerprint: record for record in mean_over_seeds(before)}
    both = [
        Finalist(shorter[record.fingerprint], record)
        for record in mean_over_seeds(after)
        if record.fingerprint in shorter
    ]
    return sorted(both, key=lambda finalist: finalist.accuracies[1], reverse=True)


def unfinished(after: Sequence[Record]) -> list[Record]:
    """Return the last records of the architectures whose longer training ended early."""
    ended = {record.fingerprint: record for record in after if record.ending is not None}
    return [record for record in ended.values() if not record.finished]


def noise_of(before: Sequence[Record], default: float) -> float:
    """Return which difference between two accuracies is taken for noise: twice the deviation between seeds.

    Args:
        before: all records of the shorter study.
        default: deviation where the study has too few repeats.
    """
    return 2 * (measured_deviation(before) or default)


def measured_deviation(records: Sequence[Record]) -> float | None:
    """Return the standard deviation of mAP50-95 between seeds of one architecture; None while repeats are too few."""
    trained = {
        (record.fingerprint, record.repeat): record.map50_95
        for record in records
        if record.finished and record.map50_95 is not None
    }
    noise = estimate([trained])
    return noise.deviation if noise is not None and noise.degrees_of_freedom >= _DEGREES else None


def rank_inversions(both: Sequence[Finalist], noise: float) -> list[tuple[Finalist, Finalist]]:
    """Return the pairs whose order the longer training inverted, the overtaking one first.

    Args:
        noise: an order counts if the accuracies before differ by more than this.
    """
    pairs = ((one, other, *one.accuracies, *other.accuracies) for one, other in permutations(both, 2))
    return [
        (one, other)
        for one, other, one_before, one_after, other_before, other_after in pairs
        if one_after > other_after and one_before < other_before - noise
    ]
