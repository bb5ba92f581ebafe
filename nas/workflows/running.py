"""Run a study: supervise its workers, train its stock model, track it in MLflow."""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Protocol

from nas import signals
from nas.execution.machine_at_work import at_work
from nas.execution.supervisor import Supervisor
from nas.locks import is_held
from nas.records.record import Record, find_record
from nas.study import identity
from nas.study.cleaning import delete_leftovers
from nas.study.fetching import fetched
from nas.study.folders import STUDY, SUPERVISOR_LOCK, SYSTEM_METRICS, runs_option
from nas.study.garbage import WeightCollector
from nas.study.links import require_no_links_out
from nas.study.stock_training import StockTraining
from nas.study.study import Study
from nas.study.tracking_state import TrackingState
from nas.study.trained_again import trained_again
from nas.tracking.background import BackgroundTracker
from nas.tracking.system_metrics import SystemSampler, is_enabled_by_environment
from nas.workflows.findings import findings_of, stage_of
from nas.workflows.sharing import MachineTracking, collector_of, publish
from nas.workflows.tracked import context_of
from search_spaces.errors import EnvironmentProblem, NasError, StudyError, unwrapped
from trials import Epoch
from trials.scores import GoOn

if TYPE_CHECKING:
    from nas.tracking.tracker import Tracker

_log = logging.getLogger(__name__)


class Runs(Protocol):
    """Something that runs a study's workers."""

    def run(self) -> None:
        """Run them until the study's number of trials is reached."""


SupervisorOf = Callable[[Study, Callable[[Sequence[Record]], None]], Runs]
"""Makes what runs the workers of a study; its second argument is called about once a second."""


def supervise(
    study: Study,
    *,
    show: Callable[[Study, Sequence[Record]], None] = lambda _study, _records: None,
    tracks: bool = True,
    supervisor: SupervisorOf | None = None,
) -> None:
    """Run a study's workers until its number of trials is reached.

    Args:
        show: called about once a second, with the records of all trials.
        tracks: whether this machine tracks the study in MLflow; of several machines one does.
        supervisor: what starts the workers and watches them; None for processes of this machine.

    Raises:
        StudyError: another process runs this study, it cannot go on, or a link leads out of its folder.
        KeyboardInterrupt: after the workers were stopped and the tracker's runs ended.
    """
    with (
        study.supervision_lock.held_at_once(study.already_running()),
        signals.as_ctrl_c(),
        ExitStack() as stack,
    ):
        require_no_links_out(study.folder)
        identity.verify(study)
        stack.enter_context(at_work(study))
        delete_leftovers(study.folder)
        publish(study)

        def begin_tracking() -> BackgroundTracker:
            if study.file.run.system_metrics or is_enabled_by_environment():
                stack.enter_context(SystemSampler(study.folder / SYSTEM_METRICS))
            return BackgroundTracker(partial(tracker_of, study), _sync_command(study))

        tracking = MachineTracking(study, begin_tracking, wanted=tracks and _may_track(study))
        weights = WeightCollector(study.folder, study.settings.objectives, collector_of(study))
        status = "KILLED"

        def tick(records: Sequence[Record]) -> None:
            study.read_number_of_trials()
            study.save_records()
            if (ready := tracking.tracker()) is not None:
                ready.sync(records)
            weights.collect(records)
            with suppress(OSError):  # the terminal may be closed: the search continues without it
                show(study, records)

        try:
            (supervisor or Supervisor)(study, tick).run()
            status = "FINISHED"
        finally:
            if (ready := tracking.tracker()) is not None:
                ready.finish(status)
    _report_to_search(study)
    if ready is not None:
        _send_beside(study)


def _may_track(study: Study) -> bool:
    """Return whether the user has named the study's MLflow; if not, log it: a search goes on without."""
    try:
        _ = study.tracking
    except StudyError as problem:
        _log.warning("%s; until then it is not tracked in MLflow", problem)
        return False
    return True


def _report_to_search(study: Study) -> None:
    """Write into MLflow's run of a search what the study that trained its models again has found.

    A search that runs at this time writes it at its end; a problem is logged, for the trainings are done.
    """
    stage = stage_of(study)
    if stage is None or not (stage.folder / STUDY).is_file():
        return
    try:
        sync(fetched(Study.open(stage.folder)))
    except NasError as problem:
        _log.warning(
            "MLflow's run of %s lacks what %s has found: %s", stage.folder.name, study.name, unwrapped(problem)
        )


def _send_beside(study: Study) -> None:
    """Send what MLflow lacks of the studies beside a study: of an archive, of a copy, after a kill.

    One that runs at this time sends its own; a problem is logged, for the trainings are done.
    """
    name = f"the studies beside {study.name}"
    try:
        for folder in dict.fromkeys(trained_again(study.folder, study.settings)):
            state, name = TrackingState.read(folder), folder.name
            if state is None or is_held(folder / SUPERVISOR_LOCK):
                continue
            beside = Study.open(folder)
            if not state.status or identity.is_copy(beside):
                sync(fetched(beside))
    except (NasError, OSError) as problem:
        _log.warning("MLflow lacks the runs of %s: %s", name, unwrapped(problem))


def sync(study: Study) -> None:
    """Write what MLflow lacks of a study, and end its runs there.

    Raises:
        StudyError: another process runs the study, and writes it itself.
        EnvironmentProblem: MLflow cannot be used.
    """
    running = StudyError(f"{study.name} is running in another process, which sends what is missing itself")
    with study.supervision_lock.held_at_once(running):
        identity.verify(study)
        send_missing(study, study.records())


def send_missing(study: Study, records: Sequence[Record]) -> None:
    """Write what MLflow lacks of a study's records, and end its runs there; the supervision lock is held.

    Raises:
        EnvironmentProblem: MLflow cannot be used.
    """
    _tracker(study, _tracker_class()).send(records, unfinished=study.unfinished_trials(records) > 0)


def register(study: Study, trial: int, name: str) -> str:
    """Register the model of a trial in MLflow under a name; return its version there.

    Args:
        trial: number of a finished trial whose weights are there.
        name: of the registered model; it gets a further version if it exists.

    Raises:
        EnvironmentProblem: MLflow cannot be used, or does not have the trial yet.
    """
    identity.verify_unless_running(study)
    tracker = _tracker(study, _tracker_class())
    return tracker.register(find_record(study.records(), trial, study=study.name), name)


def train_stock_models(
    study: Study, show: Callable[[StockTraining, int], None] = lambda *_: None
) -> tuple[StockTraining, ...]:
    """Train a study's stock models in this process, one for each member, unless that is done.

    Args:
        show: called after every epoch with the training and its number.

    Raises:
        StudyError: candidates do not start from a stock model, another process trains one, or all trainings failed.
    """
    trainings = tuple(study.stock_trainings)
    if not trainings:
        named = ", ".join(str(one.path) for one in study.settings.member_weights)
        start = study.settings.budget.weights or named or "random weights"
        raise StudyError(f"{study.name}: its trials start from {start}, and no stock model is trained before them")
    if all(training.is_done for training in trainings):
        return trainings
    running = study.already_running()
    with study.supervision_lock.held_at_once(running):
        require_no_links_out(study.folder)
        for training in trainings:
            with training.lock.held_at_once(running):
                training.prepare()
                if not training.is_done and training.left_out is None:
                    training.train(_epoch_callback(training, show), study.scoring.costs(training.stock))
    if failure := study.stock_trainings.failure:
        raise StudyError(failure)
    return trainings


def _epoch_callback(training: StockTraining, show: Callable[[StockTraining, int], None]) -> GoOn:
    def go_on(number: int, epoch: Epoch) -> bool:
        training.files.write_epoch(epoch)
        show(training, number)
        return True

    return go_on


def tracker_of(study: Study, *, activity: str = "the search") -> "Tracker | None":
    """Return the tracker of a study; None, and log a warning, if MLflow cannot be imported.

    Args:
        study: after `identity.verify`.
        activity: what continues without MLflow, for the warning.

    Raises:
        StudyError: its MLflow is an address that the user has not named.
    """
    try:
        kind = _tracker_class()
    except EnvironmentProblem as problem:
        _log.warning("%s; %s goes on without it", problem, activity)
        return None
    return _tracker(study, kind, activity)


def _tracker_class() -> "type[Tracker]":
    """Import the tracker.

    Raises:
        EnvironmentProblem: MLflow cannot be imported.
    """
    try:
        from nas.tracking.tracker import Tracker  # noqa: PLC0415 - MLflow takes seconds to import
    except Exception as problem:  # noqa: BLE001 - tracking must not end a search, whatever the import raises
        raise EnvironmentProblem(f"MLflow cannot be imported: {unwrapped(problem)} (pip install mlflow)") from None
    return Tracker


def _tracker(study: Study, kind: "type[Tracker]", activity: str = "") -> "Tracker":
    """Return the tracker of a study.

    Args:
        kind: its class.
        activity: what continues without MLflow; empty where nothing does, and the problem is raised.
    """
    uri, findings = study.tracking, partial(findings_of, study)
    file, runs = study.file, study.folder.parent
    identity.relocate_artifacts(uri)
    where = runs_option(runs)
    commands = {
        "resume": f"nas resume {study.name}{where}",
        "export": f"nas export {study.name} --best map{where}",
    }
    return kind(
        uri,
        study.folder,
        experiment=f"nas/{file.settings.space}",
        study=study.name,
        settings=file.settings.flat(),
        objectives=file.settings.objectives,
        commands=commands,
        sync_command=_sync_command(study),
        activity=activity,
        findings=findings if activity else cache(findings),  # what is written at once has the same ones at its end
        stage=stage_of(study),
        context=context_of(study),
    )


def _sync_command(study: Study) -> str:
    """Return the command that writes later what MLflow lacks of a study."""
    return f"nas sync {study.name}{runs_option(study.folder.parent)}"
