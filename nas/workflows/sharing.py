"""A machine's part in a study that machines share: what it stores for the others, and whether it tracks for all."""

import json
import logging
import time
from collections.abc import Callable, Collection

from nas.records.record import Record
from nas.study.conditions import conditions_here, differences, parse_conditions
from nas.study.machines import TRACKING
from nas.study.shared_definition import CONDITIONS, publish_definition
from nas.study.shared_study import SharedStudy
from nas.study.study import Study
from nas.tracking.background import BackgroundTracker
from search_spaces.errors import StudyError

_log = logging.getLogger(__name__)


def publish(study: Study) -> None:
    """Store what the others lack: the study's definition, and what trainings of this machine have left.

    Raises:
        StudyError: other machines work on the study with other code or versions.
    """
    shared = study.shared
    if shared is None:
        return
    publish_definition(study.folder, study.file, shared.files)
    _publish_conditions(study, shared)
    stored = {one.path for one in shared.files.listing()}
    for training in study.stock_trainings:
        if training.is_done:
            shared.publish_first(training.files)
    for record in study.records():
        if record.ending is not None and f"trials/{record.trial:04d}/outcome.json" not in stored:
            _publish_ended(study, shared, record)


def _publish_ended(study: Study, shared: SharedStudy, record: Record) -> None:
    files = study.files(record.trial)
    if files.outcome.is_file():
        shared.publish(files)


def _publish_conditions(study: Study, shared: SharedStudy) -> None:
    """Compare the conditions of the study's machines with those here; without other machines, those here count."""
    there, here = parse_conditions(shared.files.get(CONDITIONS)), conditions_here()
    different = differences(there, here)
    if not different:
        return
    machines = shared.machines
    others = [one for one in machines.all() if one.id != machines.id and not one.ended and one.silent < machines.grace]
    if others and differences(there, here, versions_may_differ=True):
        lines = "\n".join(f"  {line}" for line in different)
        raise StudyError(
            f"{study.name}: {others[0].host} works on it with other code:\n{lines}\n"
            "install the same version on all machines, or stop the others first"
        )
    if not others:
        shared.files.put(CONDITIONS, json.dumps(here, indent=1).encode())


def collector_of(study: Study) -> Callable[[Collection[int]], None]:
    """Return the function that deletes weights of some trials from what machines share."""
    return (lambda _: None) if study.shared is None else study.shared.delete_large


class MachineTracking:
    """Tracker of a study on this machine; of several machines that share a study, one tracks it.

    Args:
        begin: opens the tracker, in a thread of its own.
        wanted: whether this machine would track.
    """

    def __init__(self, study: Study, begin: Callable[[], BackgroundTracker], *, wanted: bool) -> None:
        self._study, self._begin, self._wanted = study, begin, wanted
        self._opened: BackgroundTracker | None = None
        self._not_before = -float("inf")
        self._open_if_free()

    def tracker(self) -> BackgroundTracker | None:
        """Return the tracker, with the files of other machines' trials in its reach; None if another machine tracks."""
        self._open_if_free()
        if self._opened is None:
            return None
        if self._study.shared is not None:
            self._study.shared.pull()  # a trial's files are stored before its ending
        return self._opened

    def _open_if_free(self) -> None:
        """Take over the tracking, unless a machine that may be alive has it."""
        shared, now = self._study.shared, time.monotonic()
        if self._opened is not None or not self._wanted or now < self._not_before:
            return
        if shared is not None:
            self._not_before = now + shared.machines.beat_seconds
            if not shared.machines.claim(TRACKING, shared.machines.lost()):
                return
        self._opened = self._begin()
