"""Kinds of studies: a search, and the studies that train models of one again."""

from enum import StrEnum
from pathlib import Path

from nas.study.ablations import ablated_trial
from nas.study.confirmation import is_confirmation
from nas.study.folders import runs_option
from nas.study.one_member import require_one_member
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


def require_search(folder: Path, file: StudyFile, command: str, *, members: bool = False) -> None:
    """Refuse a study that trains chosen models of a search again: it has no front that a search has found.

    Trainings of a front that are only longer are allowed.

    Args:
        folder: of the study.
        file: of the study.
        command: that is refused, such as `confirm`.
        members: whether the command can be given a search of several members.

    Raises:
        StudyError: the study is a confirmation, an ablation or a calibration, has only stock models, or has several
            members.
    """
    if not members or file.settings.stock_only:
        require_one_member(folder.name, file.settings, f"nas {command}")
    name = _NAMES.get(kind_of(file))
    if name is not None:
        search = str(file.settings.confirms).removesuffix("-calibrate")
        where = runs_option(folder.parent)
        raise StudyError(
            f"{folder.name}: is itself the {name} of {search}, and has no front; did you mean: nas {command} "
            f"{search}{where}"
        )
