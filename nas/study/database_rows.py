"""Rows of a study in a database that is not in its folder: what `nas clean --all` deletes there."""

from dataclasses import dataclass

from nas import addresses
from nas.study.storage import study_id
from nas.study.stored_study import StoredStudy
from nas.study.stored_trials import machines_at_work
from search_spaces.errors import StudyError


@dataclass(frozen=True)
class DatabaseRows:
    """Rows of a study: its trials, and the files and machines that are stored beside them.

    Attributes:
        study: of whose folder this machine has the lock.
        others: host names of the other machines that have taken part, if the rows stay for them.
    """

    study: StoredStudy
    others: tuple[str, ...] = ()

    def sentence(self, *, dry_run: bool) -> str:
        """Return what happens to the rows, for the user."""
        where = addresses.without_password(self.study.file.storage)
        if self.others:
            return (
                f"its trials stay in {where}, for other machines have taken part: {', '.join(self.others)} "
                "(--everywhere deletes them, too)"
            )
        return f"{'would delete' if dry_run else 'deleting'} its trials in {where}"

    def delete(self) -> None:
        """Delete the rows, unless they stay for other machines; rows of ours go with Optuna's study."""
        if not self.others:
            self.study.storage.delete_study(study_id(self.study.storage, self.study.file.name))


def rows_of(study: StoredStudy, *, everywhere: bool) -> DatabaseRows | None:
    """Return the rows of a study outside of its folder; None if there are none.

    Args:
        everywhere: whether they are deleted although other machines have taken part.

    Raises:
        StudyError: one of these is at work, so that its trials would vanish under it; or the database lacks the study.
    """
    if not study.shares_storage:
        return None
    others: tuple[str, ...] = ()
    if study.shared is not None:
        if everywhere and (busy := machines_at_work(study)):
            raise StudyError(f"{study.name} is running on {', '.join(busy)}; stop it there first")
        machines = study.shared.machines
        others = tuple(one.host for one in machines.all() if one.id != machines.id)
    return DatabaseRows(study, () if everywhere else others)
