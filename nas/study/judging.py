"""Images that judge a confirmation: found, compared with those of its beginning, and what its trainings scored on them.

The verdict of a confirmation stands on them alone.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nas.algorithms.arrays import FloatArray
from nas.records.record import Record
from nas.records.trial_files import TrialFiles
from nas.settings import Judging, Settings
from search_spaces.errors import DataError, ScoreError, StudyError
from trials.accuracy.judged import Judged
from trials.data.holdout import LEAST_JUDGING
from trials.data.unseen_images import JudgingImages, judging_images, validation_images


def images_to_begin_with(data: str, sealed: Path | None) -> Judging | None:
    """Return the images by which a new confirmation judges: those that no search reads, else those of `val`.

    Args:
        data: name or path of the data set.
        sealed: file with the images that the search has sealed; None if it has not.

    Returns:
        None if `val` has a single image, which shows no variance between images.

    Raises:
        DataError: the images cannot be used, or are too few.
    """
    found = judging_images(data, sealed)
    if found is None:
        chosen_by = validation_images(data)
        return settings_of(chosen_by) if len(chosen_by.images) >= LEAST_JUDGING else None
    if len(found.images) < LEAST_JUDGING:
        raise DataError(
            f"{found.images[0]}: the only image of {found.source}; two are the least that judge, 50 are few"
        )
    return settings_of(found)


def settings_of(found: JudgingImages | None) -> Judging | None:
    """Return what a confirmation stores of the images that judge it."""
    if found is None:
        return None
    return Judging.model_validate(
        {"source": found.source, "images": len(found.images), "fingerprint": found.fingerprint}
    )


def require_unchanged(name: str, judging: Judging | None, found: JudgingImages | None) -> None:
    """Refuse to judge some trainings of a confirmation by other images than the rest.

    Args:
        name: of the confirmation.
        judging: as stored when it was begun; None if its trainings store no matches.

    Raises:
        StudyError: images or labels have changed.
    """
    if judging is None or judging == settings_of(found):
        return
    now = "there are none now" if found is None else f"{len(found.images)} now"
    if found is not None and len(found.images) == judging.images:
        now = "other files or labels now"
    raise StudyError(
        f"{name}: the images of {judging.source} that judge it have changed since it was begun: {judging.images} then, "
        f"{now} (put them back as they were, or rename the folder of {name} and begin another confirmation)"
    )


def images_that_judge(name: str, settings: Settings, sealed: Path | None) -> JudgingImages | None:
    """Return the images by which a study judges; None if it has none.

    Raises:
        DataError: they cannot be used.
        StudyError: they have changed since the study was begun.
    """
    if settings.judging is None:
        return None
    is_unseen = settings.judging.is_unseen
    found = judging_images(settings.data, sealed) if is_unseen else validation_images(settings.data)
    require_unchanged(name, settings.judging, found)
    return found


def has_judged(files: TrialFiles, judging: Judging) -> bool:
    """Return whether a trial has its accuracy on these images."""
    try:
        return Judged.read(files.judged).fingerprint == judging.fingerprint
    except ScoreError:
        return False


def judged_records(
    records: Sequence[Record], settings: Settings, folder: Path, search: str
) -> tuple[list[Record], dict[int, FloatArray]]:
    """Return the records of a confirmation with their accuracies on the images that judge, and the resampled ones.

    Args:
        folder: of the confirmation.
        search: command that trains a lost result again.

    Returns:
        The records, unchanged if no matches are stored; mAP50-95 on each resample of the images, by trial.

    Raises:
        ScoreError: a result is missing or damaged, or of other images.
    """
    if settings.judging is None:
        return list(records), {}
    replaced, resampled = [], {}
    last = {(record.fingerprint, record.repeat): record.trial for record in records if record.finished}
    for record in records:
        is_last = last.get((record.fingerprint, record.repeat)) == record.trial
        if not record.finished or not is_last:
            replaced += [] if record.finished else [record]
            continue
        judged = _read(TrialFiles.of(folder, record.trial), settings.judging, search)
        replaced.append(replace(record, map50_95=judged.map50_95, map50=judged.map50))
        resampled[record.trial] = judged.resampled
    return replaced, resampled


def _read(files: TrialFiles, judging: Judging, search: str) -> Judged:
    remedy = f"(train it again with: nas confirm {search})"
    try:
        judged = Judged.read(files.judged)
    except ScoreError as error:
        raise ScoreError(f"{error} {remedy}") from None
    if judged.fingerprint != judging.fingerprint:
        raise ScoreError(f"{files.judged}: of other images than the study's {remedy}")
    return judged
