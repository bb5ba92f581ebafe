"""A search, from what was asked for to a study that has run."""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Self

from nas import addresses
from nas._version import __version__
from nas.settings import Settings
from nas.study import latency_tables
from nas.study.folders import default_storage, existing, studies, study_folder, tracking_uri
from nas.study.study import Study
from nas.study.study_file import StudyFile
from nas.workflows.begin import create_or_resume_locked, creation_lock, exists
from nas.workflows.request import Request, require_reachable, require_writable, validated
from search_spaces import SearchSpace, cache_folder, space_file
from search_spaces.errors import DataError, SpecError, StudyError
from search_spaces.refine import refine
from search_spaces.yaml_text import parse_yaml
from trials.costing import cost
from trials.costing.cost import Cost, CostTable, gflops
from trials.data import datasets
from trials.data.datasets import DIGITS, DataSet
from trials.data.progress import Progress
from trials.evaluation import measure_costs
from trials.latency.latency_table import LatencyTable
from trials.latency.timings import Timings
from trials.training import inheritance

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
        cache_folder.require_writable()
        data = datasets.load(request.data_named, progress=progress)
        settings = _settings(request, space, data, device)
        run = request.run(device, workers)
        _require_inheritance(request.weights, space, data)
        table = cost.table(space, len(data.classes), settings.budget.deploy_size)
        cheapest = table.cost(table.extreme(lambda layer: layer.macs, cheapest=True))
        costliest = table.cost(table.extreme(lambda layer: layer.macs, cheapest=False))
        predicted = None
        if request.latency is not None:
            predicted = latency_tables.table_of(space, len(data.classes), settings.budget.deploy_size, request.latency)
        unrecorded = len(latency_tables.missing_workloads(predicted)) if predicted else 0
        _require_reachable(table, predicted, settings, known=not unrecorded)
        stem = None if request.study else _default_name(request, space, data)
        name = request.study or _free_name(str(stem), settings, storage, request.runs)
        folder = study_folder(name, request.runs)
        file = StudyFile(
            name=name,
            settings=settings,
            run=run,
            storage=storage or default_storage(folder),
            tracking=tracking_uri(request.runs.absolute()),
            version=__version__,
        )
        exists(folder, file)  # one with other settings is refused before anything is shown
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
        with creation_lock(self.folder.parent, self.file.storage):
            folder, file = self.folder, self.file
            if self.stem is not None:
                own = file.storage == default_storage(folder)
                name = _free_name(self.stem, file.settings, None if own else file.storage, folder.parent)
                folder = folder.with_name(name)
                changes = {"name": name, "storage": default_storage(folder) if own else file.storage}
                file = file.model_copy(update=changes)
            return create_or_resume_locked(folder, file, self.space_text, latency)

    def _completed_latency(self, recording: Callable[[int, int], None]) -> Timings | None:
        """The device's table with what this search needs; a study that is there has its own copy."""
        if self.latency is None or not self.unrecorded or exists(self.folder, self.file):
            return self.latency
        classes, size = len(self.data.classes), self.file.settings.budget.deploy_size
        predicted = LatencyTable(self.space, classes, size, self.latency)
        completed = latency_tables.complete(predicted, recording)
        _require_reachable(cost.table(self.space, classes, size), predicted, self.file.settings)
        return completed


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
    costs = [measure_costs(one.document(classes), settings.budget.at(one.image_size), classes) for one in extremes]
    measured = [one.latency_ms for one in costs if one.latency_ms is not None]
    return min(measured), max(measured)


def refined(coarse: Study) -> str:
    """The text of the space around a study's front.

    Raises:
        SpecError: the front is the stock model alone.
    """
    document = parse_yaml(space_file.text(coarse.folder / "space.yaml"))
    return refine(document, coarse.space, [coarse.architecture(record) for record in coarse.front()])
