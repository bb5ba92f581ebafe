"""Run a study that is made: take it up, supervise its workers, train its stock model, track it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

from nas import signals
from nas.execution.supervisor import Supervisor
from nas.study import identity
from nas.study.folders import runs_option
from nas.study.stock_training import BaseTraining
from nas.study.study import Study
from search_spaces.errors import EnvironmentProblem, StudyError
from trials import Epoch

if TYPE_CHECKING:
    from nas.tracking.tracker import Tracker
from nas.workflows.plan import _log


def supervise(study: Study, *, show: Callable[[Study], None] = lambda _: None) -> None:
    """Run a study's workers until its number of trials is reached.

    Args:
        show: called about once a second.

    Raises:
        StudyError: another process runs this study, or it cannot go on.
        KeyboardInterrupt: after everything was put in order.
    """
    with (
        study.supervision.held_at_once(study.is_running()),
        signals.as_ctrl_c(),
        ThreadPoolExecutor(max_workers=1) as aside,
    ):
        identity.settle(study)
        tracker = aside.submit(tracker_of, study)  # ready when the workers are
        status = "KILLED"

        def tick() -> None:
            records = study.records()
            study.keep_records()
            if (ready := tracker.result()) is not None:
                ready.sync(records)
            study.tidy(records)
            with suppress(OSError):  # the terminal may be gone: a search goes on without it
                show(study)

        try:
            Supervisor(study, tick).run()
            status = "FINISHED"
        finally:
            if (ready := tracker.result()) is not None:
                ready.finish(status)


def sync(study: Study) -> None:
    """Write into MLflow what is missing there of a study, and end its runs.

    Raises:
        StudyError: a process runs the study, and does so itself.
        EnvironmentProblem: MLflow cannot be used.
    """
    running = StudyError(f"{study.name} is running in another process, which sends what is missing itself")
    with study.supervision.held_at_once(running):
        identity.settle(study)
        tracker = tracker_of(study)
        if tracker is None:
            raise EnvironmentProblem("MLflow cannot be imported; pip install mlflow")
        records = study.records()
        at_work = any(record.state == "running" for record in records)
        tracker.send(records, unfinished=at_work or study.places(records) > 0)


def train_stock_model(study: Study, show: Callable[[int], None] = lambda _: None) -> BaseTraining:
    """Train a study's stock model in this process, unless that is done.

    Args:
        show: called with the number of epochs, as they are trained.

    Raises:
        StudyError: the study's trials start elsewhere, another process is at it, or it could not be trained.
    """
    training = study.base
    if training is None:
        start = study.settings.budget.weights or "random weights"
        raise StudyError(f"{study.name}: its trials start from {start}, and no stock model is trained before them")
    if training.is_done:
        return training

    def go_on(number: int, epoch: Epoch) -> bool:
        training.files.write_epoch(epoch)
        show(number)
        return True

    running = study.is_running()
    with study.supervision.held_at_once(running), training.lock.held_at_once(running):
        training.forget_failure()
        training.train(go_on, study.costs(training.stock))
    if training.failure:
        raise StudyError(training.failure)
    return training


def tracker_of(study: Study, *, activity: str = "the search") -> "Tracker | None":
    """Return what writes a study into MLflow; None, and a line that says so, where MLflow itself is broken.

    Args:
        study: whose identity is settled.
        activity: what goes on without MLflow.
    """
    try:
        from nas.tracking.tracker import Tracker  # noqa: PLC0415 - MLflow takes seconds to import
    except Exception as problem:  # noqa: BLE001 - a search does not end because of its log, whatever an import raises
        line = " ".join(str(problem).split())
        _log.warning("MLflow cannot be imported: %s (pip install mlflow); %s goes on without it", line, activity)
        return None
    file, runs = study.file, study.folder.parent
    identity.keep_artifacts_own(file.tracking)
    where = runs_option(runs)
    commands = {
        "resume": f"nas resume {study.name}{where}",
        "export": f"nas export {study.name} --best map{where}",
    }
    return Tracker(
        file.tracking,
        study.folder,
        experiment=f"nas/{file.settings.space}",
        study=study.name,
        settings=file.settings.flat(),
        objectives=file.settings.objectives,
        commands=commands,
        sync_command=f"nas sync {study.name}{where}",
        activity=activity,
    )
