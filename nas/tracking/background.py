"""Tracking in a thread of its own: a search neither stops nor slows when MLflow is slow or away."""

import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from nas.records.record import Record
from search_spaces.errors import unwrapped

_log = logging.getLogger(__name__)

END_SECONDS = 120.0
"""How long the end of a search waits for MLflow."""
_REQUEST_SECONDS = 60
"""How long a request waits for a slow server, unless the user has set it: nobody waits for the request."""


class Synchronising(Protocol):
    """What is needed of a tracker; see `Tracker`."""

    def sync(self, records: Sequence[Record]) -> None:
        """Write what is new."""

    def finish(self, status: str, records: Sequence[Record] | None = None) -> None:
        """Write the rest, and end the runs."""

    def unsent(self, records: Sequence[Record]) -> str:
        """Return what MLflow lacks, in words."""


class BackgroundTracker:
    """Tracker that is made and called in a thread of its own, with the latest records of all trials.

    While a call lasts, newer records replace those that wait: a tracker writes what MLflow lacks, so none is lost. The
    thread ends with the process, also within a call that hangs.

    Args:
        make: returns the tracker, after seconds, since MLflow is imported; None if there is none.
        sync_command: command that sends later what is missing.
    """

    def __init__(self, make: Callable[[], Synchronising | None], sync_command: str) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(_REQUEST_SECONDS))
        self._make, self._sync_command = make, sync_command
        self._tracker: Synchronising | None = None
        self._changed = threading.Condition()
        self._records: Sequence[Record] | None = None
        self._latest: Sequence[Record] = ()
        self._status = ""
        self._ended = threading.Event()
        threading.Thread(target=self._run, daemon=True, name="tracking").start()

    def sync(self, records: Sequence[Record]) -> None:
        """Let the tracker write what is new in the records of all trials; return at once."""
        with self._changed:
            self._records = self._latest = records
            self._changed.notify()

    def finish(self, status: str) -> None:
        """Let the tracker write the rest and end its runs; wait for that, but at most `END_SECONDS`.

        Args:
            status: of the study's run.
        """
        with self._changed:
            self._status = status
            self._changed.notify()
        if self._ended.wait(END_SECONDS):
            return
        tracker = self._tracker
        lacks = "" if tracker is None else f" ({tracker.unsent(self._latest)})"
        _log.warning(
            "MLflow has not taken everything within %.0f s; what is missing there%s is sent by: %s",
            END_SECONDS,
            lacks,
            self._sync_command,
        )

    def _run(self) -> None:
        try:
            self._tracker = self._make()
            while self._tracker is not None and not self._ended.is_set():
                self._call(self._tracker)
        except Exception as problem:  # noqa: BLE001 - no failure of the tracking ends a search
            _log.warning(
                "MLflow: %s; the search goes on without it, and what is missing there is sent by: %s",
                unwrapped(problem),
                self._sync_command,
            )
        finally:
            self._ended.set()

    def _call(self, tracker: Synchronising) -> None:
        """Wait for records or for the end; write them."""
        with self._changed:
            self._changed.wait_for(lambda: self._records is not None or self._status)
            records, self._records, status = self._records, None, self._status
        if status:
            tracker.finish(status, records or self._latest)
            self._ended.set()
        elif records is not None:
            tracker.sync(records)
