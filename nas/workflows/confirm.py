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

from nas._version import __version__
from nas.records.record import Record, mean_over_seeds
from nas.study.folders import default_storage, study_folder
from nas.study.repeats import deviation
from nas.study.study import Study
from nas.study.study_file import StudyFile
from nas.workflows.begin import changed_run, create_or_resume, require_same_data
from search_spaces import space_file
from search_spaces.errors import StudyError


class Finalist(NamedTuple):
    """An architecture in two studies, by the means over its seeds."""

    shorter: Record
    longer: Record

    @property
    def accuracies(self) -> tuple[float, float]:
        """After the shorter training and after the longer one."""
        return self.shorter.map50_95 or 0.0, self.longer.map50_95 or 0.0


def longer(before: Study, *, eta: int, **changes: Any) -> Study:
    """The study that trains a study's front for `eta` times as many epochs: made, or taken up where it stopped.

    Args:
        changes: to how the study was run: workers, device, timeout or trial_memory.

    Raises:
        DataError: the data set cannot be trained on any more.
        StudyError: the front is the stock model alone, or empty; the data set has changed; a study of that name is
            there with other settings.
        SpecError: more workers than cores.
    """
    found, stock = [before.architecture(record) for record in before.front()], before.space.stock.fingerprint
    names = {architecture.fingerprint for architecture in found} | {stock}
    if names == {stock}:
        raise StudyError(f"{before.name}: nothing to confirm, its front holds no other model than the stock one")
    require_same_data(before)
    folder = study_folder(f"{before.name}-x{eta}", before.folder.parent)
    budget = before.settings.budget
    grown = budget.model_copy(update={"epochs": budget.epochs * eta, "seed": budget.seed + 1, "rungs": ()})
    changed = {"budget": grown, "stopping": None, "seeds": 1, "confirms": before.name}
    file = StudyFile(
        name=folder.name,
        settings=before.settings.model_copy(update=changed),
        run=changed_run(before.file.run, {**changes, "trials": len(names), "earlier": 0}),
        storage=default_storage(folder) if before.database else before.file.storage,
        tracking=before.file.tracking,
        version=__version__,
    )
    table = before.latency_table
    study = create_or_resume(
        folder, file, space_file.text(before.folder / "space.yaml"), table.recorded if table else None
    )
    known = {record.fingerprint for record in study.records()}
    for architecture in found:
        if architecture.fingerprint not in known:  # also what has come to the front since
            study.enqueue(architecture, role="start")
    return study


def finalists(before: Study, after: Study) -> list[Finalist]:
    """What has been trained to the end in both, the most accurate after the longer training first."""
    shorter = {record.fingerprint: record for record in mean_over_seeds(before.records())}
    both = [
        Finalist(shorter[one.fingerprint], one)
        for one in mean_over_seeds(after.records())
        if one.fingerprint in shorter
    ]
    return sorted(both, key=lambda one: one.accuracies[1], reverse=True)


def fallen(after: Study) -> list[Record]:
    """Who was trained longer, and did not get to the end."""
    ended = {record.fingerprint: record for record in after.records() if record.ending is not None}  # the last one's
    return [record for record in ended.values() if not record.finished]


def noise_of(before: Study) -> float:
    """What is taken for noise between two accuracies: twice the deviation between seeds, the study's own if known."""
    return 2 * (deviation(before.records()) or before.settings.noise)


def overtaken(both: Sequence[Finalist], within: float) -> list[tuple[Finalist, Finalist]]:
    """Who passed whom: more accurate after the longer training, less before, by more than what is taken for noise."""
    pairs = ((one, other, *one.accuracies, *other.accuracies) for one, other in permutations(both, 2))
    return [(one, other) for one, other, had, has, theirs, now in pairs if has > now and had < theirs - within]
