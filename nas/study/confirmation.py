"""Find the confirmation of a search: the study beside it that trains its finalists with fresh seeds."""

from pathlib import Path

from nas.settings import Settings
from nas.study.folders import STUDY
from nas.study.study_file import StudyFile

FIRST_SEED = 1000
"""Difference between the first seed of a confirmation and that of its search, which has at most so many seeds."""
_SUFFIX = "-confirm"
_SAME = ("space_hash", "scale", "data_fingerprint", "classes", "objectives", "reward", "limits", "latency")
"""Settings that a study has from the search whose models it trains again."""


def name_of(search: str) -> str:
    """Return the name of a search's confirmation."""
    return f"{search}{_SUFFIX}"


def is_confirmation(file: StudyFile) -> bool:
    """Return whether a study trains finalists with fresh seeds, rather than longer."""
    return file.settings.confirms is not None and file.name == name_of(file.settings.confirms)


def confirmation_of(search: Path, file: StudyFile) -> Path | None:
    """Return the folder of the confirmation beside a search; None if there is none, or it is another search's.

    Args:
        search: folder of the search.
        file: of the search.

    Raises:
        StudyError: the confirmation's `study.json` cannot be read.
    """
    beside = search.with_name(name_of(search.name))
    is_there = (beside / STUDY).is_file()
    return beside if is_there and _belongs(StudyFile.read(beside), search.name, file.settings) else None


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
    """Return whether the settings are equal that a study has from the search whose models it trains again."""
    return all(getattr(before, name) == getattr(after, name) for name in _SAME)
