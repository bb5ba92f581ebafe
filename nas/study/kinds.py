"""Kinds of studies: a search, and the studies that train models of one again."""

from enum import StrEnum
from pathlib import Path

from nas.study.ablations import ablated_trial
from nas.study.confirmation import is_confirmation
from nas.study.folders import runs_option
from nas.study.study_file import StudyFile
from nas.study.trained_again import measures_noise
from search_spaces.errors import StudyError


class Kind(StrEnum):
    """What a study is for; a stored tag of MLflow's runs."""

    SEARCH = "search"
    CONFIRM = "confirm"
    ABLATE = "ablate"
    CALIBRATE = "calibrate"
    LONGER = "longer"


_NAMES = {Kind.CONFIRM: "confirmation", Kind.ABLATE: "ablation", Kind.CALIBRATE: "calibration"}


def kind_of(file: StudyFile) -> Kind:
    """Return the kind of a study."""
    if file.settings.confirms is None:
        return Kind.SEARCH
    if is_confirmation(file):
        return Kind.CONFIRM
    if ablated_trial(file) is not None:
        return Kind.ABLATE
    return Kind.CALIBRATE if measures_noise(file) else Kind.LONGER


def require_search(folder: Path, file: StudyFile, command: str, *, stock_only: bool = False) -> None:
    """Refuse a study that trains chosen models of a search again: it has no front that a search has found.

    Trainings of a front that are only longer are allowed.

    Args:
        folder: of the study.
        file: of the study.
        command: that is refused, such as `confirm`.
        stock_only: whether the command can be given a study of stock models alone.

    Raises:
        StudyError: the study is a confirmation, an ablation or a calibration, or has only stock models.
    """
    if not stock_only:
        require_candidates(folder, file, command)
    name = _NAMES.get(kind_of(file))
    if name is not None:
        search = str(file.settings.confirms).removesuffix("-calibrate")
        where = runs_option(folder.parent)
        raise StudyError(
            f"{folder.name}: is itself the {name} of {search}, and has no front; did you mean: nas {command} "
            f"{search}{where}"
        )


def require_candidates(folder: Path, file: StudyFile, command: str) -> None:
    """Refuse a study of stock models alone; arguments as of `require_search`.

    Raises:
        StudyError: the study is one.
    """
    if file.settings.stock_only:
        raise StudyError(
            f"{folder.name}: has stock models alone, and no candidate for nas {command} (nas search --space "
            f"{','.join(file.settings.members)} proposes some)"
        )
