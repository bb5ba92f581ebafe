"""Find the confirmation of a search: the study beside it that trains its finalists with fresh seeds."""

from nas.settings import Settings
from nas.study.folders import STUDY
from nas.study.study import Study

FIRST_SEED = 1000
"""Difference between the first seed of a confirmation and that of its search, which has at most so many seeds."""
_SUFFIX = "-confirm"
_SAME = ("space_hash", "scale", "data_fingerprint", "classes", "objectives", "reward", "limits", "latency")
"""Settings that a confirmation has from its search."""


def name_of(search: str) -> str:
    """Return the name of a search's confirmation."""
    return f"{search}{_SUFFIX}"


def is_confirmation(study: Study) -> bool:
    """Return whether a study trains finalists with fresh seeds, rather than longer."""
    return study.settings.confirms is not None and study.file.name == name_of(study.settings.confirms)


def confirmation_of(search: Study) -> Study | None:
    """Return the confirmation beside a search; None if there is none, or that study belongs to another search.

    Raises:
        StudyError: its `study.json` cannot be read.
    """
    folder = search.folder.with_name(name_of(search.name))
    if not (folder / STUDY).is_file():
        return None
    found = Study.open(folder)
    return found if _belongs(found, search) else None


def search_of(confirmation: Study) -> Study | None:
    """Return the search beside its confirmation; None if it is not there any more."""
    if not is_confirmation(confirmation):
        return None
    folder = confirmation.folder.with_name(str(confirmation.settings.confirms))
    if not (folder / STUDY).is_file():
        return None
    found = Study.open(folder)
    return found if _belongs(confirmation, found) else None


def _belongs(confirmation: Study, search: Study) -> bool:
    after, before = confirmation.settings, search.settings
    return (
        is_confirmation(confirmation)
        and after.confirms == search.name
        and after.budget.seed == before.budget.seed + FIRST_SEED
        and _common(after) == _common(before)
    )


def _common(settings: Settings) -> list[object]:
    return [getattr(settings, name) for name in _SAME]
