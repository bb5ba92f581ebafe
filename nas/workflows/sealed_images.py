"""Images that a search seals: drawn for it, or those of the study that it refines or resumes."""

import os
from pathlib import Path

from nas.study.folders import STUDY, existing, study_folder
from nas.study.study import Study
from nas.study.study_file import StudyFile
from nas.workflows.request import Request
from search_spaces.errors import SpecError
from trials.data import holdout, sealing, unseen_images
from trials.data.holdout import Holdout
from trials.data.progress import Progress


def sealed_images(request: Request, progress: Progress | None = None) -> Holdout | None:
    """Return the images that no training of a search reads; None if it reads all.

    Args:
        request: after `resolve_space`, so that its data are those of a refined study.
        progress: called with how many of how many labels were read.

    Raises:
        SpecError: classes would vanish; the data set has a `test` split; the refined study has read all images.
        DataError: the data set has mistakes, or a study's list of sealed images is missing or damaged.
    """
    refined = None if request.refine is None else Study.open(existing(request.refine, request.runs_folder))
    if refined is not None and _names_data_of(request, refined):
        return _of_refined(request, refined)
    if request.holdout is None:
        return None
    if (stored := _of_resumed(request, request.holdout)) is not None:
        return stored
    if unseen := len(unseen_images.images_of_test(request.data_name)):
        raise SpecError(
            f"holdout: the data set has a test split of {unseen} images, which no search reads and by which "
            "nas confirm judges (leave --holdout out)"
        )
    return sealing.seal(request.data_name, request.holdout, request.seed, progress=progress)


def _names_data_of(request: Request, study: Study) -> bool:
    data = study.settings.data
    return request.data is None or os.fspath(request.data) == data or Path(request.data).absolute() == Path(data)


def _of_refined(request: Request, refined: Study) -> Holdout | None:
    """Return the images that the refined study has sealed: its front was not chosen by them, nor is the new one."""
    if refined.sealed is None:
        if request.holdout is None:
            return None
        raise SpecError(
            f"holdout: the front of {refined.name} was chosen by all images, so that none is left to be sealed "
            "(leave --holdout out; or name images that were never used as test: in the data.yaml)"
        )
    sealed = holdout.read(refined.sealed)
    if request.holdout not in {None, sealed.share}:
        raise SpecError(
            f"holdout: {refined.name} has sealed {len(sealed.images)} images, and they stay sealed, "
            f"got {100 * request.holdout:.3g}% (leave --holdout out)"
        )
    return sealed


def _of_resumed(request: Request, share: float) -> Holdout | None:
    """Return the images that the study of the requested name has sealed with this share and seed."""
    if request.study is None or not (study_folder(request.study, request.runs_folder) / STUDY).is_file():
        return None
    folder = study_folder(request.study, request.runs_folder)
    study = Study(folder, StudyFile.read(folder))
    sealed = None if study.sealed is None else holdout.read(study.sealed)
    return sealed if sealed is not None and (sealed.share, sealed.seed) == (share, request.seed) else None
