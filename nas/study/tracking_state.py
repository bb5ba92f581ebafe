"""State of the tracking of a study, in a file of its folder."""

import json
import logging
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from nas.study.folders import TRACKING_STATE
from search_spaces.files import read_json, write_atomically

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrackingState:
    """State that the tracker keeps of a study beside MLflow; stored before MLflow is written to.

    Attributes:
        study_id: unique for this folder, and a tag of all its runs: a study that was deleted and begun again under
            its old name must not continue the old runs.
        finished: trials in the order in which they were found to be finished.
        stock: costs of the stock model, as first measured; None until then.
        status: final status of the study's run; empty while it runs, and after its process was killed.
        ended: end time in milliseconds since 1970.
    """

    study_id: str
    finished: tuple[int, ...] = ()
    stock: Mapping[str, float] | None = None
    status: str = ""
    ended: int | None = None

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Read the state of a folder; create one if the file is missing or damaged.

        Raises:
            OSError: the file cannot be read, or none can be written.
        """
        stored = cls.read(folder)
        if stored is None:
            if (path := folder / TRACKING_STATE).is_file():
                _log.warning("%s: cannot be read; the study gets a new run in MLflow", path)
            stored = cls(study_id=uuid.uuid4().hex)
            stored.write(folder)
        return stored

    @classmethod
    def set_study_id(cls, folder: Path, study_id: str) -> None:
        """Set the id in a folder's state, which keeps its other fields; create one if it cannot be read."""
        try:
            stored = cls.read(folder)
        except OSError:
            stored = None
        if stored is None:
            cls(study_id=study_id).write(folder)
        elif stored.study_id != study_id:
            replace(stored, study_id=study_id).write(folder)

    @classmethod
    def begin_again(cls, folder: Path, study_id: str) -> None:
        """Set an id in a folder's state under which MLflow has no runs yet, so that none has ended."""
        stored = cls.read(folder) or cls(study_id=study_id)
        replace(stored, study_id=study_id, status="", ended=None).write(folder)

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Return the state in a folder's file; None if there is no file, or a damaged one."""
        path = folder / TRACKING_STATE
        if not path.is_file():
            return None
        try:
            return cls._parsed(read_json(path))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
            return None

    @classmethod
    def _parsed(cls, stored: Mapping[str, Any]) -> Self:
        stock = stored["stock"]
        return cls(
            study_id=str(stored["study_id"]),
            finished=tuple(int(trial) for trial in stored["finished"]),
            stock=None if stock is None else {name: float(cost) for name, cost in stock.items()},
            status=str(stored.get("status", "")),
            ended=None if stored.get("ended") is None else int(stored["ended"]),
        )

    def write(self, folder: Path) -> None:
        """Write the state atomically to a folder, which is created if it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / TRACKING_STATE, json.dumps(asdict(self), indent=1))
