"""Find the confirmations of a search: the studies beside it that train its finalists with fresh seeds.

There are several where trainings of other lengths, or from other initial weights, were asked for. The first one has no
number in its name.
"""

import glob
import re
from collections.abc import Iterator
from pathlib import Path

from nas.settings import Settings
from nas.study.folders import STUDY
from nas.study.study_file import StudyFile
from trials.budget import Subset

FIRST_SEED = 1000
"""Difference between the first seed of a confirmation and that of its search, which has at most so many seeds."""
_NAME = re.compile(r"(?P<search>.+)-confirm(-(?P<number>[2-9]|[1-9]\d+))?")
_SAME = ("space_hash", "scale", "classes", "objectives", "reward", "limits", "latency")
"""Settings that a study has from the search whose models it trains again."""


def name_of(search: str, number: int = 1) -> str:
    """Return the name of a search's confirmation, which are numbered from 1."""
    return f"{search}-confirm" if number == 1 else f"{search}-confirm-{number}"


def number_of(search: str, name: str) -> int | None:
    """Return the number of a search's confirmation by its name; None for any other name."""
    found = _NAME.fullmatch(name)
    return int(found["number"] or 1) if found and found["search"] == search else None


def is_confirmation(file: StudyFile) -> bool:
    """Return whether a study trains finalists with fresh seeds, rather than longer."""
    return file.settings.confirms is not None and number_of(file.settings.confirms, file.name) is not None


def named_as_confirmations(search: Path) -> list[Path]:
    """Return the folders of the studies beside a search that have the name of a confirmation, first begun first."""
    numbered = ((number_of(search.name, path.parent.name), path.parent) for path in _study_files(search))
    return [folder for _, folder in sorted((number, folder) for number, folder in numbered if number is not None)]


def confirmations_of(search: Path, file: StudyFile) -> list[Path]:
    """Return the folders of the confirmations beside a search, without those of another search of that name.

    Args:
        search: folder of the search.
        file: of the search.

    Raises:
        StudyError: the `study.json` of a confirmation cannot be read.
    """
    beside = named_as_confirmations(search)
    return [folder for folder in beside if _belongs(StudyFile.read(folder), search.name, file.settings)]


def options_of(confirmation: Settings, search: Settings) -> str:
    """Return the options, with a leading space, by which `nas confirm` goes on with this confirmation of a search."""
    scratch = " --from-scratch" if search.inherits and not confirmation.inherits else ""
    return f" --epochs {confirmation.budget.epochs}{scratch}{fraction_option(confirmation.subset, search.subset)}"


def fraction_option(subset: Subset | None, of_search: Subset | None) -> str:
    """Return the option, with a leading space, by which trainings read these images; empty if the search does."""
    if subset == of_search:
        return ""
    return f" --fraction {1.0 if subset is None else subset.train / subset.of_train:.9g}"


def _study_files(search: Path) -> Iterator[Path]:
    return search.parent.glob(f"{glob.escape(search.name)}-confirm*/{STUDY}")


def search_of(confirmation: Path, file: StudyFile) -> Path | None:
    """Return the folder of the search beside its confirmation; None if it is not there any more.

    Args:
        confirmation: folder of the confirmation.
        file: of the confirmation.

    Raises:
        StudyError: the search's `study.json` cannot be read.
    """
    if not is_confirmation(file):
        return None
    beside = confirmation.with_name(str(file.settings.confirms))
    is_there = (beside / STUDY).is_file()
    return beside if is_there and _belongs(file, beside.name, StudyFile.read(beside).settings) else None


def _belongs(confirmation: StudyFile, name: str, before: Settings) -> bool:
    """Return whether a study is the confirmation of the search with this name and these settings."""
    after = confirmation.settings
    return (
        is_confirmation(confirmation)
        and after.confirms == name
        and after.budget.seed == before.budget.seed + FIRST_SEED
        and have_in_common(before, after)
    )


def have_in_common(before: Settings, after: Settings) -> bool:
    """Return whether the settings are equal that a study has from the search whose models it trains again.

    A study that reads another part of the images has another fingerprint of them.
    """
    is_of_same_images = before.subset != after.subset or before.data_fingerprint == after.data_fingerprint
    return is_of_same_images and all(getattr(before, name) == getattr(after, name) for name in _SAME)
