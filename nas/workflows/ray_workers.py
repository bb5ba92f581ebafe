"""Workers of a study as tasks on a Ray cluster: Ray places them, and restarts those whose node is lost.

The only module that imports Ray, and only when it is used. A task is what `nas worker` is on a machine: it joins the
study in a folder of its own, and everything that another task needs lies in the study's database.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from nas import signals
from nas.execution.lost_machines import recover_lost
from nas.records.record import Record
from nas.study.machines import GRACE
from nas.study.study import Study
from nas.workflows.join import join
from nas.workflows.ray_cluster import RayCluster
from nas.workflows.running import SupervisorOf, supervise
from nas.workflows.scratch import scratch_folder
from search_spaces.errors import EnvironmentProblem, NasError, StudyError, unwrapped

_log = logging.getLogger(__name__)

_TICK_SECONDS = 1.0
_LOOK_SECONDS = 10.0
"""After which it is looked whether a worker has begun."""
_STOP_SECONDS = 60.0
"""In which tasks stop their trainings and store what they have."""
_BEGIN_SECONDS = 30 * 60.0
"""In which a first worker begins: an autoscaler starts a machine in minutes."""
_PASSED_ON = (GRACE, "NAS_CACHE")
"""Environment variables that tasks get from the process that begins them."""


def supervisor_on(cluster: RayCluster | None) -> SupervisorOf | None:
    """Return what runs the workers of a study on a Ray cluster; None without one."""
    return None if cluster is None else partial(RaySupervisor, cluster)


class RaySupervisor:
    """Runs a study's workers as Ray tasks until its number of trials is reached.

    Args:
        cluster: with what each worker needs of it.
        study: whose supervision lock this process holds, and as one of whose machines it is at work.
        on_tick: called about once a second with the records of all trials.
    """

    def __init__(self, cluster: RayCluster, study: Study, on_tick: Callable[[Sequence[Record]], None]) -> None:
        self._study, self._on_tick, self._cluster = study, on_tick, cluster
        self._looked_at = -float("inf")
        self._problem = ""
        self._has_worker = False

    def run(self) -> None:
        """Begin the tasks and return when they have ended.

        Raises:
            KeyboardInterrupt: after the tasks were stopped and their trials enqueued again.
            EnvironmentProblem: the cluster does not answer, or no task can work on its node.
            StudyError: the circuit breaker stops the study.
        """
        import ray  # noqa: PLC0415 - an extra, which nothing else needs

        where = self._cluster.address
        try:
            with _connected(ray, where):
                self._work(ray)
        except (ConnectionError, ray.exceptions.RayError) as problem:
            raise EnvironmentProblem(
                f"ray: the cluster at {where} does not answer: {unwrapped(problem)[:200]} (is it up? ray status; "
                "nas resume with --ray continues)"
            ) from None
        records = self._study.records()
        if reason := self._study.reason_to_stop(records):
            raise StudyError(f"the study stopped: {reason}")
        if self._problem and self._study.unfinished_trials(records):
            raise EnvironmentProblem(f"ray: the last worker has ended early: {self._problem}")

    def _work(self, ray: Any) -> None:
        tasks, began = self._begin(ray), time.monotonic()
        try:
            while tasks:
                self._require_worker(ray, time.monotonic() - began)
                done, tasks = ray.wait(tasks, num_returns=len(tasks), timeout=_TICK_SECONDS)
                for task in done:
                    self._note_end(ray, task)
                self._recover_lost_machines()
                self._on_tick(self._study.records())
        finally:
            for task in tasks:
                with suppress(Exception):  # the cluster may be gone
                    ray.cancel(task)
            if tasks:
                ray.wait(tasks, num_returns=len(tasks), timeout=_STOP_SECONDS)
            self._on_tick(self._study.records())

    def _begin(self, ray: Any) -> list[Any]:
        """Hand the workers to Ray as tasks; those for which there is no room wait, and an autoscaler makes room."""
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        name, storage = self._study.file.name, self._study.file.storage
        trusts = any((self._study.folder / "modules").glob("*"))  # this study's, which the user has trusted here
        task = ray.remote(work)
        return [
            task.options(
                name=f"nas worker {name} {index}",
                num_cpus=1,
                num_gpus=self._cluster.gpus,
                max_retries=-1,  # of a task whose node or process is lost; not of one that ends by an error
                scheduling_strategy="SPREAD",
            ).remote(name, storage, environment, trusts)
            for index in range(self._study.file.run.workers)
        ]

    def _require_worker(self, ray: Any, waited: float) -> None:
        """Stop waiting for the first worker after a time limit: it has no room, or cannot start.

        Args:
            waited: seconds since the tasks were handed to Ray.

        Raises:
            EnvironmentProblem: none has begun in time.
        """
        if self._has_worker or self._study.shared is None or waited < _LOOK_SECONDS:
            return
        here = self._study.shared.machines.id
        self._has_worker = any(one.id != here for one in self._study.shared.machines.all())
        if not self._has_worker and waited > _BEGIN_SECONDS:
            needs = f"1 CPU{f' and {self._cluster.gpus:g} GPU' if self._cluster.gpus else ''} each"
            free = ", ".join(f"{name} {ray.available_resources().get(name, 0):g}" for name in ("CPU", "GPU"))
            raise EnvironmentProblem(
                f"ray: no worker has begun within {_BEGIN_SECONDS / 60:.0f} min; they need {needs}, and free are: "
                f"{free} (ray status, and the logs in /tmp/ray/session_latest/logs, show why)"
            )

    def _note_end(self, ray: Any, task: Any) -> None:
        """Log why a task has ended, if that was not the end of the study."""
        try:
            ray.get(task)
        except ray.exceptions.RayTaskError as problem:
            self._problem = unwrapped(problem.cause) if problem.cause else unwrapped(problem)
            _log.warning("a worker on the Ray cluster has ended: %s", self._problem)

    def _recover_lost_machines(self) -> None:
        """Retry the trials of machines that are lost, also while no other task runs."""
        shared, now = self._study.shared, time.monotonic()
        if shared is not None and now - self._looked_at >= shared.machines.beat_seconds:
            self._looked_at = now
            recover_lost(self._study)


def _connected(ray: Any, where: str) -> Any:
    """Return the connection to a cluster, a context manager.

    Raises:
        ConnectionError: it does not answer.
        EnvironmentProblem: it has another version of Ray or Python, or Ray does not accept the address.
    """
    try:
        with signals.handlers_restored():  # Ray 2.60 sets a handler of SIGTERM that ends the process at once
            return ray.init(address=where, log_to_driver=False, logging_level=logging.ERROR)
    except (RuntimeError, ValueError) as problem:
        reason = unwrapped(problem)[:300]
        raise EnvironmentProblem(
            f"ray: the cluster at {where} cannot be used: {reason} (Ray and Python need the same versions on all nodes)"
        ) from None


class WorkerEndedError(Exception):
    """Raised in a task whose worker cannot go on, with the node's name; our own errors do not leave a process."""


def work(study: str, storage: str, environment: dict[str, str], trusts: bool) -> None:  # noqa: FBT001 - Ray calls it
    """Join a study on this node and train its trials until it ends; a Ray task.

    Args:
        study: its name.
        storage: address with the password.
        environment: variables to set.
        trusts: whether to run the study's own operator files.

    Raises:
        WorkerEndedError: this node cannot train, or the study is not there.
    """
    import ray  # noqa: PLC0415 - an extra, which nothing else needs

    os.environ.update(environment)
    gpus = ray.get_gpu_ids()
    device = "0" if gpus else "cpu"
    try:
        with scratch_folder("ray") as folder:
            joined = join(study, storage=storage, runs=folder, trust=trusts, patient=True, device=device, workers=1)
            supervise(joined, tracks=False)
    except NasError as problem:
        raise WorkerEndedError(f"{socket.gethostname()}: {unwrapped(problem)}") from None
