"""Enqueue trials that no sampler would propose: the extremes of the space, and repeats with another seed."""

import random
from collections.abc import Sequence

from nas.records.record import Record
from nas.records.trial_attributes import REPEAT
from nas.study.repeats import next_repeat
from nas.study.study import Study
from search_spaces.errors import StudyError


def enqueue_extremes(study: Study, records: Sequence[Record]) -> None:
    """Enqueue the cheapest and the costliest architecture within limits, where a search does not have them yet.

    Raises:
        StudyError: no architecture is within all limits.
    """
    if study.settings.confirms or study.settings.stock_only:
        return
    roles, fingerprints = {record.role for record in records}, {record.fingerprint for record in records}
    rng = random.Random(study.settings.budget.seed)  # noqa: S311 - proposals, not secrets
    for role in ("cheapest", "costliest"):
        if role in roles:
            continue
        extreme = study.feasible.extreme(rng, cheapest=role == "cheapest")
        if extreme is None:
            raise StudyError("no architecture of the space is within all limits at once; raise one of them")
        if extreme.fingerprint not in fingerprints:
            study.enqueue(extreme, role=role)
            fingerprints.add(extreme.fingerprint)


def enqueue_repeat(study: Study, records: Sequence[Record]) -> None:
    """Enqueue a further seed of the stock model or of a member of the Pareto front, if one has too few."""
    repeat = next_repeat(records, study.settings.objectives, study.settings.seeds)
    if repeat is not None:
        record, number = repeat
        study.enqueue(study.architecture(record), **{REPEAT: number})
