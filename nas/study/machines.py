"""Machines that work on a study together: a stored identity each, a heartbeat in the storage, and claims to tasks.

A machine is a folder of the study in which a supervisor runs, not a host name: containers may have one name. All
times are the database's, since clocks of machines differ.
"""

import json
import os
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import text

from nas.study.shared_tables import create_tables
from nas.study.storage_retries import RetryingStorage
from search_spaces.errors import SpecError
from search_spaces.files import read_mapping, write_atomically

MACHINE_FILE = "machine.json"
"""Identity of the machine whose folder of the study this is; a copy of the folder gets another."""
GRACE = "NAS_MACHINE_GRACE"
"""Environment variable: seconds without a heartbeat after which a machine counts as dead; equal on all machines."""
STOCK_TRAINING, TRACKING = "stock training", "tracking"
"""Tasks that one machine does for all."""
_GRACE_SECONDS, _BEAT_SECONDS = 300.0, 10.0
_BEATS = 3
"""Heartbeats that are missed before a machine is not trusted to be alive; so long is observed before it counts dead."""

_BEGIN = text("""\
INSERT INTO nas_machines (study_id, machine, host, process, workers)
VALUES (:study, :machine, :host, :process, :workers)
ON CONFLICT (study_id, machine) DO UPDATE SET host = excluded.host, process = excluded.process,
    workers = excluded.workers, began = clock_timestamp(), heartbeat = clock_timestamp(), ended = NULL""")
_BEAT = text("UPDATE nas_machines SET heartbeat = clock_timestamp() WHERE study_id = :study AND machine = :machine")
_END = text("UPDATE nas_machines SET ended = clock_timestamp() WHERE study_id = :study AND machine = :machine")
_ALL = text("""\
SELECT machine, host, process, workers, heartbeat, ended IS NOT NULL,
    EXTRACT(EPOCH FROM clock_timestamp() - heartbeat)::float
FROM nas_machines WHERE study_id = :study ORDER BY began""")
_CLAIM = text("""\
INSERT INTO nas_claims AS claim (study_id, task, machine) VALUES (:study, :task, :machine)
ON CONFLICT (study_id, task) DO UPDATE SET machine = excluded.machine
WHERE claim.machine = excluded.machine OR claim.machine = ANY(:lost) OR NOT EXISTS (
    SELECT 1 FROM nas_machines AS other
    WHERE other.study_id = claim.study_id AND other.machine = claim.machine AND other.ended IS NULL)
RETURNING machine""")
_HOLDER = text("SELECT machine FROM nas_claims WHERE study_id = :study AND task = :task")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Machine as the storage has it.

    Attributes:
        host: its name on the network.
        process: of its supervisor, as `_this_process` describes one.
        heartbeat: the last one.
        ended: whether its supervisor has ended in an orderly way.
        silent: seconds since the last heartbeat.
    """

    id: str
    host: str
    process: str
    workers: int
    heartbeat: Any
    ended: bool
    silent: float


def grace_seconds() -> float:
    """Return the seconds without a heartbeat after which a machine counts as dead.

    Raises:
        SpecError: the environment variable is no positive number.
    """
    given = os.environ.get(GRACE)
    try:
        seconds = _GRACE_SECONDS if given is None else float(given)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 1e6:
        raise SpecError(f"{GRACE}: input should be a number of seconds from 1 to 1000000, got {given!r} (such as 300)")
    return seconds


def machine_id(folder: Path) -> str:
    """Return the identity of the machine that works in a study's folder; create it if there is none or it is a copy."""
    stored = read_mapping(folder / MACHINE_FILE)
    machine = stored.get("machine")
    is_same = stored.get("inode") == folder.stat().st_ino  # a moved folder keeps it
    return machine if is_same and isinstance(machine, str) else new_machine_id(folder)


def stock_training_of(member: str) -> str:
    """Return the task to train the stock model of a member; without a name, the only one."""
    return f"{STOCK_TRAINING} {member}".rstrip()


def new_machine_id(folder: Path) -> str:
    """Give the machine that works in a study's folder a new identity."""
    machine = uuid.uuid4().hex
    identity = {"machine": machine, "inode": folder.stat().st_ino}
    write_atomically(folder / MACHINE_FILE, json.dumps(identity, indent=1))
    return machine


class Machines:
    """Machines of one study.

    Args:
        study: Optuna's number of it.
        machine: id of this one.
        sleep: pause in seconds.
        clock: in seconds, steady.
    """

    def __init__(
        self,
        storage: RetryingStorage,
        study: int,
        machine: str,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = machine
        self.grace = grace_seconds()
        self.beat_seconds = min(_BEAT_SECONDS, self.grace / 4)
        self._storage, self._study, self._sleep, self._clock = storage, study, sleep, clock
        self._observed: dict[str, tuple[Any, float]] = {}
        self._observed_at = -float("inf")
        create_tables(storage)

    def begin(self, workers: int) -> None:
        """Announce this machine; the caller holds the supervision lock of its folder."""
        values = {"host": socket.gethostname(), "process": _this_process(), "workers": workers}
        self._storage.written(_BEGIN, {**self._here, **values})

    def is_taken(self) -> bool:
        """Return whether another process has this machine's identity and is alive: of the original of a copied folder.

        A process of the same system is looked up; for the others' next heartbeat it is waited.
        """
        before = self._this_machine()
        if before is None or before.ended or before.process == _this_process():
            return False
        if before.silent > _BEATS * self.beat_seconds:
            return False
        is_alive = _is_alive(before.process)
        if is_alive is not None:
            return is_alive
        self._sleep(_BEATS * self.beat_seconds)
        after = self._this_machine()
        return after is not None and after.heartbeat != before.heartbeat

    def _this_machine(self) -> Machine | None:
        return next((machine for machine in self.all() if machine.id == self.id), None)

    def beat(self) -> None:
        """Store a heartbeat, by one attempt.

        Raises:
            SQLAlchemyError: the storage does not answer.
        """
        with self._storage.engine.begin() as connection:
            connection.execute(_BEAT, self._here)

    def end(self) -> None:
        """Say that this machine has ended in an orderly way."""
        self._storage.written(_END, self._here)

    def all(self) -> list[Machine]:
        """Return all machines, in the order in which they began."""
        return [
            Machine(
                id=id_, host=host, process=process, workers=workers, heartbeat=heartbeat, ended=ended, silent=silent
            )
            for id_, host, process, workers, heartbeat, ended, silent in self._storage.rows(
                _ALL, {"study": self._study}
            )
        ]

    def lost(self) -> set[str]:
        """Return the ids of the machines that count as dead: silent for the grace period, and while this one observed.

        Whoever was cut off from the storage has not observed the others, and nobody beats while it is away. So a
        machine counts as dead only after several of its heartbeats were missed in observations without a gap. If the
        server's clock was set back, its last heartbeat lies ahead: then it counts as dead when it was observed for the
        whole grace period.
        """
        machines, now = self.all(), self._clock()
        least = _BEATS * self.beat_seconds
        if now - self._observed_at > least:
            self._observed = {}
        self._observed_at = now
        before, self._observed = self._observed, {}
        for machine in machines:
            heartbeat, since = before.get(machine.id, (None, now))
            self._observed[machine.id] = machine.heartbeat, since if heartbeat == machine.heartbeat else now

        def is_lost(machine: Machine) -> bool:
            observed = now - self._observed[machine.id][1]
            return observed >= (min(least, self.grace) if machine.silent > self.grace else self.grace)

        return {machine.id for machine in machines if machine.id != self.id and is_lost(machine)}

    def at_rest(self) -> set[str]:
        """Watch the machines for a moment; return the ids of those that have ended or are lost: nothing runs there."""
        self.lost()
        for _ in range(_BEATS):
            self._sleep(self.beat_seconds)
            lost = self.lost()
        return lost | {machine.id for machine in self.all() if machine.ended}

    def claim(self, task: str, lost: set[str]) -> bool:
        """Take a task that one machine does for all; return False if a machine that may be alive has it.

        Args:
            lost: ids of the machines that count as dead.
        """
        return bool(self._storage.written(_CLAIM, {**self._here, "task": task, "lost": list(lost)}))

    def other_holder(self, task: str) -> str:
        """Return the host name of the other machine that has a task; empty if none has, or this one."""
        rows = self._storage.rows(_HOLDER, {"study": self._study, "task": task})
        hosts = {machine.id: machine.host for machine in self.all()} if rows else {}
        hosts.pop(self.id, None)
        return hosts.get(str(rows[0][0]), "") if rows else ""

    @property
    def _here(self) -> dict[str, Any]:
        return {"study": self._study, "machine": self.id}


def _this_process() -> str:
    """Return a description of this process: the system's boot, the process namespace, its id and start time."""
    return ":".join((*_system(), str(os.getpid()), _start_time(os.getpid())))


def _is_alive(process: str) -> bool | None:
    """Return whether a described process runs; None if it is one of another system, which cannot be known here."""
    boot, namespace, number, start = process.split(":")
    if (boot, namespace) != _system() or not boot:
        return None
    return bool(start) and _start_time(int(number)) == start


def _system() -> tuple[str, str]:
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return boot, str(Path("/proc/self/ns/pid").readlink()).replace(":", "-")
    return "", ""


def _start_time(process: int) -> str:
    """Return the start time of a process, in ticks since boot; empty if there is none."""
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    return ""
