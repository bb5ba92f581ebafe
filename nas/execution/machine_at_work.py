"""Presence of this machine in a study that machines share: announced, with a heartbeat, until its supervisor ends."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy.exc import SQLAlchemyError

from nas.study.machines import Machines
from nas.study.study import Study

_log = logging.getLogger(__name__)


@contextmanager
def at_work(study: Study) -> Iterator[None]:
    """Announce this machine in a `with` block; the caller holds the supervision lock. Nothing if it is not shared."""
    if study.shared is None:
        yield
        return
    if study.shared.machines.is_taken():
        study.shared.become_another_machine()
        _log.warning("%s is a copy of another machine's folder; from here on a machine by itself", study.folder)
    machines = study.shared.machines
    machines.begin(study.file.run.workers)
    ended = threading.Event()
    thread = threading.Thread(target=_beat, args=(machines, ended), name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(SQLAlchemyError):  # while the storage is away; the others notice by the heartbeat
            machines.end()


def _beat(machines: Machines, ended: threading.Event) -> None:
    """Store a heartbeat now and then; while the storage is away the next one is tried at its time."""
    while not ended.wait(machines.beat_seconds):
        with suppress(SQLAlchemyError):
            machines.beat()
