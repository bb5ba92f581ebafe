"""Refuse studies of several members for tasks that are not yet done with several."""

from nas.settings import Settings
from search_spaces.errors import StudyError


def require_one_member(name: str, settings: Settings, task: str) -> None:
    """Refuse a study of several members.

    Args:
        name: of the study.
        settings: of the study.
        task: that is refused, such as `nas confirm`.

    Raises:
        StudyError: it has several.
    """
    if settings.members:
        raise StudyError(f"{name}: {task} is not yet possible for a study of several members ({settings.space})")
