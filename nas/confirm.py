"""A front, trained longer: whether the order that short trainings found stays.

The budget grows for the front alone, and only while that changes its order: its members and the stock model are trained
three times as long, in a study of their own; if one has overtaken another, what is the front then is trained longer
once more. They begin anew each time, with another seed, since a budget's learning rate falls to its end.

Source: Bohdal and others 2022, "PASHA: efficient HPO and NAS with progressive resource allocation" (arXiv 2207.06940),
which grows the largest budget until the ranking stays, up to differences that are noise.
"""

from collections.abc import Sequence
from itertools import permutations
from typing import Any, NamedTuple

from nas import __version__
from nas.config import Run, StudyFile, study_folder
from nas.plan import is_there, taken_up
from nas.records import Record, averaged
from nas.request import require_cores, validated
from nas.study import Study
from search_spaces import space_file
from search_spaces.errors import StudyError
from trials import presets


class Finalist(NamedTuple):
    """An architecture in two studies, by the means over its seeds."""

    shorter: Record
    longer: Record


def longer(before: Study, *, eta: int, **changes: Any) -> Study:
    """The study that trains a study's front for `eta` times as many epochs: made, or taken up where it stopped.

    Args:
        changes: to how the study was run: workers, device, timeout or trial_memory.

    Raises:
        StudyError: the front is the stock model alone, or empty; a study of that name is there with other settings.
        SpecError: more workers than cores.
    """
    found, stock = [before.architecture(record) for record in before.front()], before.space.stock.fingerprint
    names = {architecture.fingerprint for architecture in found} | {stock}
    if names == {stock}:
        raise StudyError(f"{before.name}: nothing to confirm, its front holds no other model than the stock one")
    fields = before.file.run.model_dump() | {"timeout": None} | {k: v for k, v in changes.items() if v is not None}
    run = validated(Run, fields | {"trials": len(names), "earlier": 0})
    require_cores(run.device, run.workers)
    folder = study_folder(f"{before.name}-x{eta}", before.folder.parent)
    budget = before.settings.budget
    grown = budget.model_copy(update={"epochs": budget.epochs * eta, "seed": budget.seed + 1, "rungs": ()})
    changed = {"budget": grown, "stopping": None, "seeds": 1, "confirms": before.name}
    file = StudyFile(
        name=folder.name,
        settings=before.settings.model_copy(update=changed),
        run=run,
        storage=f"sqlite:///{folder / 'study.db'}" if before.database else before.file.storage,
        tracking=before.file.tracking,
        version=__version__,
    )
    if is_there(folder, file):
        study = taken_up(folder)
        study.set_run(run)
    else:
        table = before.latency_table
        text = space_file.text(before.folder / "space.yaml")
        study = Study.create(folder, file, text, table.recorded if table else None)
    known = {record.fingerprint for record in study.records()}
    for architecture in found:
        if architecture.fingerprint not in known:  # also what has come to the front since
            study.enqueue(architecture, role="start")
    return study


def finalists(before: Study, after: Study) -> list[Finalist]:
    """What has been trained to the end in both, the most accurate after the longer training first."""
    shorter = {record.fingerprint: record for record in averaged(before.records())}
    both = [Finalist(shorter[one.fingerprint], one) for one in averaged(after.records()) if one.fingerprint in shorter]
    return sorted(both, key=lambda one: -(one.longer.map50_95 or 0.0))


def overtaken(both: Sequence[Finalist], within: float) -> list[tuple[Finalist, Finalist]]:
    """Who passed whom: more accurate after the longer training, less before, by more than what is taken for noise."""
    return [
        (one, other)
        for one, other in permutations(both, 2)
        if _accuracy(one.longer) > _accuracy(other.longer)
        and _accuracy(one.shorter) < _accuracy(other.shorter) - within
    ]


def noise_of(study: Study) -> float:
    """By how much mAP50-95 two trainings may differ before it says anything: twice the deviation between seeds."""
    return 2 * (presets.NOISE_INHERITED if study.settings.inherits else presets.NOISE_SCRATCH)


def _accuracy(record: Record) -> float:
    return record.map50_95 or 0.0
