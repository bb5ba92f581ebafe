"""A search, from what was asked for to a study that has run."""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from nas import RUNS, __version__, addresses, identity, latencies, signals
from nas.base_training import BaseTraining
from nas.config import (
    Run,
    Settings,
    StudyFile,
    existing,
    make_folder,
    own_storage,
    runs_option,
    studies,
    study_folder,
    tracking_uri,
)
from nas.locks import Lock
from nas.request import Request, require_cores, require_reachable, require_writable, validated
from nas.storage import opened
from nas.study import Study
from nas.supervisor import Supervisor
from search_spaces import SearchSpace, space_file
from search_spaces.errors import DataError, EnvironmentProblem, SpecError, StudyError
from search_spaces.refine import refine
from search_spaces.yaml_text import parse_yaml
from trials import Epoch, cost, datasets, inheritance
from trials.cost import Cost, CostTable, gflops
from trials.datasets import DIGITS, DataSet
from trials.evaluation import price
from trials.image_files import Progress
from trials.latency_table import LatencyTable
from trials.timings import Timings

if TYPE_CHECKING:
    from nas.tracking import Tracker

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A request, checked against space, data and machine; nothing is written yet.

    Attributes:
        stem: of the study's name, which counts up where it is taken; None if the name was given.
        cheapest: the least that any architecture costs, layer by layer.
        latency: the device's table that predicts latencies, if one was named.
        unrecorded: how many entries it lacks, which `begin` times first.
    """

    folder: Path
    file: StudyFile
    stem: str | None
    space: SearchSpace
    space_text: str
    data: DataSet
    stock: Cost
    cheapest: Cost
    costliest: Cost
    latency: Timings | None = None
    unrecorded: int = 0

    @classmethod
    def of(cls, request: Request, *, progress: Progress | None = None) -> Self:
        """Check a request.

        Args:
            progress: called with how many of how many images were opened, if that takes a while.

        Raises:
            SpecError: a flag, the space file, or a limit outside the space's reachable range.
            DataError: the data set.
            EnvironmentProblem: the device.
            StudyError: a study of that name is there with other settings.
        """
        request, space, text = _completed(request)
        if request.study is not None:
            study_folder(request.study, request.runs)  # a wrong name is told before the data set is read
        storage = None if request.storage is None else addresses.require_storage(request.storage)
        require_writable(request.runs)
        device, workers = request.devices()
        _require_weights(request.weights)
        datasets.require_cache()
        data = datasets.load(request.data_named, progress=progress)
        settings = _settings(request, space, data, device)
        run = request.run(device, workers)
        _require_inheritance(request.weights, space, data)
        table = cost.table(space, len(data.classes), settings.budget.deploy_size)
        cheapest = table.cost(table.extreme(lambda layer: layer.macs, cheapest=True))
        costliest = table.cost(table.extreme(lambda layer: layer.macs, cheapest=False))
        predicted = None
        if request.latency is not None:
            predicted = latencies.table_of(space, len(data.classes), settings.budget.deploy_size, request.latency)
        unrecorded = len(latencies.lacks(predicted)) if predicted else 0
        _require_reachable(table, predicted, settings, known=not unrecorded)
        stem = None if request.study else _default_name(request, space, data)
        name = request.study or _free_name(str(stem), settings, storage, request.runs)
        folder = study_folder(name, request.runs)
        file = StudyFile(
            name=name,
            settings=settings,
            run=run,
            storage=storage or own_storage(folder),
            tracking=tracking_uri(request.runs.absolute()),
            version=__version__,
        )
        _exists(folder, file)  # one with other settings is refused before anything is shown
        return cls(
            folder=folder,
            file=file,
            stem=stem,
            space=space,
            space_text=text,
            data=data,
            stock=table.cost(space.stock),
            cheapest=cheapest,
            costliest=costliest,
            latency=predicted.recorded if predicted else None,
            unrecorded=unrecorded,
        )

    def begin(self, recording: Callable[[int, int], None] = lambda *_: None) -> Study:
        """The study: made, or taken up where it stopped, with the number of trials asked for now.

        Where no name was given, another search may have taken it since the plan was made: then it counts up.

        Args:
            recording: told `(done, total)` while layers are timed that the device's table lacks.

        Raises:
            SpecError: a limit on latency outside the space's reachable range, now that it is known.
            LatencyError: a layer cannot be timed.
        """
        latency = self._completed_latency(recording)
        with _beginning(self.folder.parent, self.file.storage):
            folder, file = self.folder, self.file
            if self.stem is not None:
                own = file.storage == own_storage(folder)
                name = _free_name(self.stem, file.settings, None if own else file.storage, folder.parent)
                folder = folder.with_name(name)
                changes = {"name": name, "storage": own_storage(folder) if own else file.storage}
                file = file.model_copy(update=changes)
            return _begun(folder, file, self.space_text, latency)

    def _completed_latency(self, recording: Callable[[int, int], None]) -> Timings | None:
        """The device's table with what this search needs; a study that is there has its own copy."""
        if self.latency is None or not self.unrecorded or _exists(self.folder, self.file):
            return self.latency
        classes, size = len(self.data.classes), self.file.settings.budget.deploy_size
        predicted = LatencyTable(self.space, classes, size, self.latency)
        completed = latencies.complete(predicted, recording)
        _require_reachable(cost.table(self.space, classes, size), predicted, self.file.settings)
        return completed


def resume(name: str, *, runs: str | Path = RUNS, storage: str | None = None, **changes: Any) -> Study:
    """A study that exists, with changes to its run: trials, timeout, workers, device or trial_memory.

    Args:
        storage: the address of its storage, with the password that the study's file does not hold.

    Raises:
        SpecError: no such study, more workers than cores, or another storage than the study's.
        DataError: its data set cannot be trained on any more.
        StudyError: its space or its data set has changed; another process runs it; its storage is another study's.
    """
    study = Study.open(existing(name, Path(runs)))
    if storage is not None:
        _give_password(study, storage)
    with study.supervision.held_at_once(study.is_running()):
        _take_up(study)
        require_same_data(study)
        study.set_run(rerun(study.file.run, changes))
    return study


def _give_password(study: Study, storage: str) -> None:
    """Open a study's storage by an address with a password.

    Raises:
        SpecError: it is the address of another storage.
    """
    given, there = addresses.require_storage(storage), addresses.without_password(study.file.storage)
    if addresses.without_password(given) != there:
        told = addresses.without_password(given)
        raise SpecError(f"storage: the trials of {study.name} are in another one, got {told!r} ({there})")
    study.file = study.file.model_copy(update={"storage": given})


def require_same_data(study: Study) -> None:
    """Refuse to train on a data set that scores of a study are not of.

    Raises:
        DataError: it cannot be trained on any more.
        StudyError: it has changed.
    """
    datasets.require_cache()
    data = datasets.load(study.settings.data)
    if data.fingerprint != study.settings.data_fingerprint:
        raise StudyError(
            f"{data.path}: the data set has changed since {study.name} was begun; begin another study for it"
        )


def begun(folder: Path, file: StudyFile, space_text: str, latency: Timings | None) -> Study:
    """A study: made, or, if it is there with these settings, taken up with the run that is asked for now.

    Raises:
        StudyError: it is there with other settings, its space has changed, or another process runs it.
    """
    with _beginning(folder.parent, file.storage):
        return _begun(folder, file, space_text, latency)


@contextmanager
def _beginning(runs: Path, storage: str) -> Iterator[None]:
    """Hold the lock under which names are chosen and studies are made: of two searches at once one makes the study.

    Raises:
        EnvironmentProblem: nothing can be written there.
    """
    if addresses.file_of(storage) is None:
        opened(storage)  # a server that cannot be reached is told before anything is written
    make_folder(runs)
    with Lock(runs / ".beginning.lock").held():
        yield


def _begun(folder: Path, file: StudyFile, space_text: str, latency: Timings | None) -> Study:
    if not _exists(folder, file):
        return Study.create(folder, file, space_text, latency)
    study = Study.open(folder)
    if file.storage != own_storage(folder):
        _give_password(study, file.storage)
    with study.supervision.held_at_once(study.is_running()):
        _take_up(study)
        study.set_run(file.run)
    return study


def rerun(run: Run, changes: Mapping[str, Any]) -> Run:
    """A run with what is asked for now; a timeout is asked for each time, all else stays where nothing is said.

    Raises:
        SpecError: a number that is none, or more workers than cores.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    changed = validated(Run, run.model_dump() | {"timeout": None} | given)
    require_cores(changed.device, changed.workers)
    return changed


def _take_up(study: Study) -> None:
    """Check a study that is to go on; a space that has changed is refused here, and not by every worker."""
    _ = study.space
    study.remark = identity.settle(study)
    study.trials()  # a database that is damaged is told now; the supervisor asks for them all in any case


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


def lay_base(study: Study, show: Callable[[int], None] = lambda _: None) -> BaseTraining:
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
        from nas.tracking import Tracker  # noqa: PLC0415 - MLflow takes seconds to import
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


def _completed(request: Request) -> tuple[Request, SearchSpace, str]:
    """What a refined study adds to a request; the space, and its text.

    Raises:
        SpecError: the space file; a study that is not there, or has found nothing.
    """
    if request.refine is None:
        text = space_file.text(request.space, scale=request.scale)
        return request, space_file.load(request.space, scale=request.scale), text
    if request.space != Request.space or request.scale is not None:
        raise SpecError("refine: a refined study says space and scale itself; leave --space and --scale out")
    coarse = Study.open(existing(request.refine, request.runs))
    text = refined(coarse)
    data = request.data or coarse.settings.data
    return replace(request, data=data), space_file.parse(parse_yaml(text)), text


def refined(coarse: Study) -> str:
    """The text of the space around a study's front.

    Raises:
        SpecError: the front is the stock model alone.
    """
    document = parse_yaml(space_file.text(coarse.folder / "space.yaml"))
    return refine(document, coarse.space, [coarse.architecture(record) for record in coarse.front()])


def _default_name(request: Request, space: SearchSpace, data: DataSet) -> str:
    if request.refine is not None:
        return f"{request.refine}-fine"
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{space.name}{space.scale}-{data.name}")


def _free_name(stem: str, settings: Settings, storage: str | None, runs: Path) -> str:
    """Return the study of these settings among those of a stem, the newest first, or else the next name that is free.

    `v9t-digits`, `v9t-digits2`, `v9t-digits3`, as Ultralytics counts its runs; `v9t-coco8`, `v9t-coco8-2`.

    Args:
        storage: the address that was given; None if none was, and then each study may be where it is.
    """
    counting = f"{stem}-" if stem[-1].isdecimal() else stem
    taken = studies(runs)
    for name in taken:
        family = re.fullmatch(rf"{re.escape(stem)}|{re.escape(counting)}\d+", name)
        if family and _same(study_folder(name, runs), settings, storage):
            return name
    names = chain([stem], (f"{counting}{number}" for number in count(2)))
    return next(name for name in names if name not in taken)


def _same(folder: Path, settings: Settings, storage: str | None) -> bool:
    """Whether a study can be read and has these settings, and this storage if one was given."""
    try:
        there = StudyFile.read(folder)
    except StudyError:
        return False
    where = None if storage is None else addresses.without_password(storage)
    return not there.settings.differences(settings) and where in {None, addresses.without_password(there.storage)}


def _settings(request: Request, space: SearchSpace, data: DataSet, device: str) -> Settings:
    if request.reward is not None and not (request.target_gflops or request.target_latency):
        raise SpecError(
            f"reward: {request.reward} compares a cost with a target; give --target-gflops or --target-latency"
        )
    if request.reward is None and (request.target_gflops or request.target_latency):
        raise SpecError("target: a target is part of a reward; give --reward tunas, mnasnet, mnasnet-hard or linear")
    own = device if device == "cpu" else "0"  # a worker's only GPU is its first
    fields = {
        "space": space.name,
        "scale": space.scale,
        "space_hash": space.hash,
        "data": DIGITS if request.data_named == DIGITS else str(data.path),
        "data_fingerprint": data.fingerprint,
        "classes": data.classes,
        "preset": request.preset_named()[0],
        "base": request.base(space, data, own),
        "budget": request.budget(space, data, own),
        "objectives": request.objectives,
        "reward": request.reward,
        "sampler": request.sampler,
        "stopping": request.stopping(),
        "seeds": request.seeds,
        "target_gflops": request.target_gflops,
        "latency": request.latency,
        "target_latency": request.target_latency,
        "limits": request.limits(),
    }
    return validated(Settings, fields)


def _require_weights(weights: Path | None) -> None:
    if weights is not None and not weights.is_file():
        raise SpecError(f"weights: no such file, got {str(weights)!r} (a checkpoint such as yolov9t.pt)")


def _require_inheritance(weights: Path | None, space: SearchSpace, data: DataSet) -> None:
    """Refuse a checkpoint from which the stock model's training could not begin; nothing in the file is executed.

    Raises:
        SpecError: it is none of a detection model, or has nothing of this one.
    """
    if weights is None:
        return
    classes = len(data.classes)
    try:
        inheritance.require(weights, space.stock.document(classes), classes)
    except DataError as error:
        raise SpecError(f"weights: {error} (a checkpoint of {space.at_scale}'s stock model is expected)") from None


def _require_reachable(
    table: CostTable, predicted: LatencyTable | None, settings: Settings, *, known: bool = True
) -> None:
    """Refuse a limit or target that no architecture meets, or that all do.

    Args:
        known: whether latencies can be predicted already; else what is asked of them is not checked.

    Raises:
        SpecError: with every such limit.
    """
    wanted = {
        "max-gflops": ("gflops", settings.limits.gflops),
        "target-gflops": ("gflops", settings.target_gflops),
        "max-params": ("params", settings.limits.params),
        "max-latency": ("latency_ms", settings.limits.latency_ms if known else None),
        "target-latency": ("latency_ms", settings.target_latency if known else None),
    }
    reaches = (
        (flag, value, partial(_reach, table, predicted, figure, settings)) for flag, (figure, value) in wanted.items()
    )
    require_reachable(reaches, settings.budget.deploy_size)


def _reach(table: CostTable, predicted: LatencyTable | None, figure: str, settings: Settings) -> tuple[float, float]:
    """The least and the most of a figure; latency, if it must be measured, of the two architectures of extreme cost."""
    if figure == "params":
        return table.reach(lambda layer: layer.params)
    if figure == "gflops":
        least, most = table.reach(lambda layer: layer.macs)
        return gflops(least), gflops(most)
    if predicted is not None:
        return predicted.reach_ms()
    classes = len(settings.classes)
    extremes = [table.extreme(lambda layer: layer.macs, cheapest=cheapest) for cheapest in (True, False)]
    costs = [price(one.document(classes), settings.budget.at(one.image_size), classes) for one in extremes]
    measured = [one.latency_ms for one in costs if one.latency_ms is not None]
    return min(measured), max(measured)


def _exists(folder: Path, file: StudyFile) -> bool:
    """Whether the study is there; its settings must then be the same.

    Raises:
        StudyError: they are not.
    """
    if not (folder / "study.json").is_file():
        return False
    differences = StudyFile.read(folder).settings.differences(file.settings)
    if differences:
        told = "\n".join(f"  {difference}" for difference in differences)
        raise StudyError(
            f"{folder.name}: a study of that name is there with other settings:\n{told}\n"
            f"resume it with: nas resume {folder.name}{runs_option(folder.parent)}\nor name another with: --study"
        )
    return True
