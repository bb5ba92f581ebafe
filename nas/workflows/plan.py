"""Plan of a search: check a request, choose the study's name, begin the study."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from nas import addresses
from nas._version import __version__
from nas.settings import RunSettings, SealedImages, Settings
from nas.study import latency_tables
from nas.study.folders import STUDY, default_storage, runs_option, study_folder, tracking_uri
from nas.study.named_addresses import remember_both
from nas.study.study import Study
from nas.study.study_file import StudyFile
from nas.study.trained_again import calibration_of
from nas.workflows.amount import load_data
from nas.workflows.begin import create_or_resume_locked, creation_lock, exists
from nas.workflows.calibrate import calibration_settings, size_of
from nas.workflows.fit_machine import fitted
from nas.workflows.naming import default_name, free_name, name_to_calibrate
from nas.workflows.pretrained import resolve_weights
from nas.workflows.reach import require_reachable_limits
from nas.workflows.refinement import resolve_space
from nas.workflows.request import Request, require_writable, validated
from nas.workflows.sealed_images import sealed_images
from nas.workflows.search_options import PRETRAINED
from search_spaces import SearchSpace, Space, cache_folder
from search_spaces.errors import DataError, SpecError, StudyError
from trials.budget import Subset
from trials.costing import space_costs
from trials.costing.cost import Cost
from trials.data.datasets import DIGITS, DataSet
from trials.data.holdout import Holdout
from trials.data.progress import Progress
from trials.data.unseen_images import images_of_test
from trials.latency import space_latencies
from trials.latency.space_latencies import SpaceLatencies
from trials.latency.timings import Timings
from trials.scores import Coverage
from trials.training import inheritance


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Request that was checked against space, data and machine; nothing is written yet.

    Attributes:
        stocks: cost of the stock model of each member.
        stem: of the study's name, which gets a number if it is taken; None if the name was given.
        cheapest: cost of the architecture with the fewest multiply-adds.
        costliest: cost of the architecture with the most multiply-adds.
        latency: device's table that predicts latencies; None if they are measured.
        unrecorded: number of missing entries in that table; `begin` measures them first.
        sealed: images that no training reads; None if all are read.
        judging: number of images of the data set's `test` split, which no search reads.
        coverages: what the stock model of each member takes over from its checkpoint; empty if none was requested.
        batch: why it is that one, in words; empty if it was given, or is the usual one.
        workers: why so many trials train on a GPU at once; empty if their number was given, or is the usual one.
    """

    folder: Path
    file: StudyFile
    stem: str | None
    space: Space
    space_text: str
    data: DataSet
    stocks: tuple[Cost, ...]
    cheapest: Cost
    costliest: Cost
    latency: Timings | None = None
    unrecorded: int = 0
    sealed: Holdout | None = None
    judging: int = 0
    coverages: tuple[Coverage, ...] = ()
    batch: str = ""
    workers: str = ""

    @property
    def stock(self) -> Cost:
        """Cost of the stock model, of several members that of the first."""
        return self.stocks[0]

    @classmethod
    def of(
        cls,
        request: Request,
        *,
        progress: Progress | None = None,
        measuring: Progress | None = None,
        trying: Callable[[str], None] = lambda _: None,
        fetching: Callable[[str], AbstractContextManager[object]] = nullcontext,
    ) -> Self:
        """Check a request; with `calibrate`, the plan is that of its calibration.

        Args:
            progress: called with the number of images checked and of all, if that takes a while.
            measuring: called with the number of architectures whose latency is measured and of all, if a limit or a
                target needs that.
            trying: called with what is timed next, in words, if the batch or the number of workers is to be found.
            fetching: called with the name of a released checkpoint that is not here; it is fetched within what that
                returns.

        Raises:
            SpecError: a flag, the space file, a checkpoint, or a limit outside the range that the space can reach.
            DataError: the data set.
            EnvironmentProblem: the device, its memory, or a checkpoint that cannot be fetched.
            EstimateError: a timed training failed.
            StudyError: a study of that name exists with other settings.
        """
        request, space, text = resolve_space(request)
        storage = _require_places(request)
        device, workers = request.devices()
        request, starts = resolve_weights(request, space, fetching)
        sealed, data, subset = _load_data(request, progress)
        settings = _settings(request, space, data, device, sealed=sealed, subset=subset)
        settings = settings.model_copy(update=starts)
        run = request.run(device, workers)
        if request.stock_only:
            run = run.model_copy(update={"trials": len(space.members)})
        fits = fitted(request, space, settings, run, data, sealed=sealed, trying=trying)
        settings, run = fits.settings, fits.run
        coverages = _require_inheritance(request.checkpoint, space, settings)
        table = space_costs.table(space, len(data.classes), settings.budget.deploy_size)
        cheapest, costliest = (
            table.cost(table.extreme(lambda layer: layer.macs, cheapest=cheapest)) for cheapest in (True, False)
        )
        latency_table = _latency_table(space, settings)
        unrecorded = len(latency_tables.missing_workloads(latency_table)) if latency_table else 0
        require_reachable_limits(table, latency_table, settings, check_latency=not unrecorded, measuring=measuring)
        stem = None if request.study else default_name(request, space, data)
        file = _begun_file(request, settings, run, stem=stem, storage=storage, space=space)
        folder = study_folder(file.name, request.runs_folder)
        exists(folder, file)  # refuses other settings before anything is shown
        return cls(
            folder=folder,
            file=file,
            stem=None if request.calibrate else stem,
            space=space,
            space_text=text,
            data=data,
            stocks=tuple(map(table.cost, space.stocks)),
            cheapest=cheapest,
            costliest=costliest,
            latency=latency_table.recorded if latency_table else None,
            unrecorded=unrecorded,
            sealed=sealed,
            judging=0 if sealed else len(images_of_test(request.data_name)),
            coverages=coverages,
            batch=fits.batch,
            workers=fits.workers,
        )

    def begin(self, recording: Callable[[int, int], None] = lambda *_: None) -> Study:
        """Create the study, or resume it with the number of trials requested now.

        A name that was not given may have been taken by another search since the plan was made; then the next is used.

        Args:
            recording: called with `(done, total)` while missing entries of the latency table are measured.

        Raises:
            SpecError: a limit on latency outside the range that the space can reach, now that the table is complete.
            LatencyError: a layer cannot be timed.
        """
        latency = self._completed_latency(recording)
        remember_both(self.file, self.folder)  # the user's own, of this call and its environment
        with creation_lock(self.folder.parent, self.file.storage):
            folder, file = self.folder, self.file
            if self.stem is not None:
                has_default_storage = file.storage == default_storage(folder)
                storage = None if has_default_storage else file.storage
                name = free_name(self.stem, file.settings, storage, folder.parent)
                folder = folder.with_name(name)
                file = file.model_copy(update={"name": name, "storage": storage or default_storage(folder)})
            return create_or_resume_locked(folder, file, self.space_text, latency, self.sealed)

    def _completed_latency(self, recording: Callable[[int, int], None]) -> Timings | None:
        """Return the device's table with all entries of the space; an existing study has its copy already."""
        if self.latency is None or not self.unrecorded or exists(self.folder, self.file):
            return self.latency
        classes, size = len(self.data.classes), self.file.settings.budget.deploy_size
        latency_table = space_latencies.table(self.space, classes, size, self.latency)
        completed = latency_tables.complete(latency_table, recording)
        require_reachable_limits(space_costs.table(self.space, classes, size), latency_table, self.file.settings)
        return completed


def _require_places(request: Request) -> str | None:
    """Check names and addresses, before the data set is read; return the address of the requested storage.

    Raises:
        SpecError: the study's name or the storage's address is wrong.
        EnvironmentProblem: the folder of all studies cannot be written to.
    """
    if request.study is not None:
        study_folder(request.study, request.runs_folder)
    storage = None if request.storage is None else addresses.require_storage(request.storage)
    require_writable(request.runs_folder)
    return storage


def _load_data(request: Request, progress: Progress | None) -> tuple[Holdout | None, DataSet, Subset | None]:
    """Return the sealed images, and of the data set without them what is read.

    The checkpoint and the cache folder are checked before, which is quicker.
    """
    weights = request.checkpoint
    if weights is not None and not weights.is_file():
        raise SpecError(
            f"weights: no such file, got {str(weights)!r} (a checkpoint such as yolov9t.pt; --weights "
            f"{PRETRAINED} finds or fetches Ultralytics' own)"
        )
    cache_folder.require_writable()
    sealed = sealed_images(request, progress)
    return sealed, *load_data(request, sealed, progress)


def _settings(
    request: Request,
    space: Space,
    data: DataSet,
    device: str,
    *,
    sealed: Holdout | None = None,
    subset: Subset | None = None,
) -> Settings:
    """Return the settings of a request.

    Raises:
        SpecError: an invalid setting, or a reward without target or a target without reward.
    """
    if request.reward is not None and not (request.target_gflops or request.target_latency):
        raise SpecError(
            f"reward: {request.reward} compares a cost with a target; give --target-gflops or --target-latency"
        )
    if request.reward is None and (request.target_gflops or request.target_latency):
        raise SpecError("target: a target is part of a reward; give --reward tunas, mnasnet, mnasnet-hard or linear")
    worker_device = device if device == "cpu" else "0"  # a worker sees one GPU
    fields = {
        "space": space.name,
        "scale": space.scale,
        "space_hash": space.hash,
        "data": DIGITS if request.data_name == DIGITS else str(data.path),
        "data_fingerprint": data.fingerprint,
        "classes": data.classes,
        "members": space.member_names,
        "stock_only": request.stock_only,
        "preset": request.chosen_preset()[0],
        "base": request.stock_budget(space, data, worker_device),
        "budget": request.budget(space, data, worker_device),
        "objectives": request.objectives,
        "reward": request.reward,
        "sampler": request.sampler,
        "stopping": request.stopping(),
        "seeds": request.seeds,
        "target_gflops": request.target_gflops,
        "latency": request.latency,
        "target_latency": request.target_latency,
        "limits": request.limits(),
        "holdout": _described(sealed),
        "subset": subset,
    }
    return validated(Settings, fields)


def _described(sealed: Holdout | None) -> SealedImages | None:
    if sealed is None:
        return None
    return SealedImages(share=sealed.share, images=len(sealed.images), fingerprint=sealed.fingerprint)


def _require_inheritance(named: Path | None, space: Space, settings: Settings) -> tuple[Coverage, ...]:
    """Refuse a checkpoint from which a stock model cannot be initialised; nothing in the file is executed.

    Args:
        named: checkpoint of a single space; None without one.

    Returns:
        What the stock model of each member takes over; empty without checkpoints.

    Raises:
        SpecError: it is no detection model's, or shares no tensor with this one.
    """
    own, classes = {one.member: one.path for one in settings.member_weights}, len(settings.classes)
    starts = ((member, own.get(member.short_name, named)) for member in space.members)
    return tuple(_coverage(member, weights, classes) for member, weights in starts if weights is not None)


def _coverage(space: SearchSpace, weights: Path, classes: int) -> Coverage:
    try:
        return inheritance.require(weights, space.stock.document(classes), classes)
    except DataError as error:
        raise SpecError(f"weights: {error} (a checkpoint of {space.at_scale}'s stock model is expected)") from None


def _latency_table(space: Space, settings: Settings) -> SpaceLatencies | None:
    """Return the latency table of the requested device; None if latencies are measured."""
    if settings.latency is None:
        return None
    return latency_tables.table_of(space, len(settings.classes), settings.budget.deploy_size, settings.latency)


def _begun_file(
    request: Request, settings: Settings, run: RunSettings, *, stem: str | None, storage: str | None, space: Space
) -> StudyFile:
    """Return the file of the study that is begun: that of the search, or with `calibrate` that of its calibration.

    Raises:
        StudyError: a search of that name was begun without the calibration that is requested.
    """
    runs = request.runs_folder
    if not request.calibrate:
        name = request.study or free_name(str(stem), settings, storage, runs)
        return _study_file(name, runs, settings, run, storage)
    search = request.study or name_to_calibrate(str(stem), settings, storage, runs)
    _require_calibrated(search, runs)
    run = run.model_copy(update={"trials": size_of(space).trials})
    return _study_file(calibration_of(search), runs, calibration_settings(settings, search), run, storage)


def _require_calibrated(search: str, runs: Path) -> None:
    """Refuse to calibrate a search that was begun without a calibration, before anything is trained for that.

    Raises:
        StudyError: it is such a search.
    """
    begun, calibrated = (study_folder(name, runs) / STUDY for name in (search, calibration_of(search)))
    if begun.is_file() and not calibrated.is_file():
        where = runs_option(runs)
        raise StudyError(
            f"calibrate: {search} was begun without it; what it would choose is shown by: nas trust {search}{where} "
            "--measure; or name another with --study"
        )


def _study_file(name: str, runs: Path, settings: Settings, run: RunSettings, storage: str | None) -> StudyFile:
    return StudyFile(
        name=name,
        settings=settings,
        run=run,
        storage=storage or default_storage(study_folder(name, runs)),
        tracking=tracking_uri(runs.absolute()),
        version=__version__,
    )
