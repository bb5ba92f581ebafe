"""Neural architecture search for YOLO detectors.

import nas

study = nas.search(space="v9", data="digits", trials=12)
for record in study.front():
    print(record.map50_95, record.gflops, record.summary)
study.export(best="map")
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas._version import __version__
from nas.paths import RUNS
from nas.workflows.option import accepts, require
from nas.workflows.search_options import FilePath, SearchOptions
from search_spaces.lazy_names import importer

if TYPE_CHECKING:
    from nas.records.record import Record
    from nas.report.ablation import Ablation
    from nas.report.effects import Effects
    from nas.report.further_trust import FurtherTrust
    from nas.report.trust import Trust
    from nas.report.verdict import Verdict
    from nas.study.study import Study
    from nas.workflows.reproduction import Reproduction
    from nas.workflows.request import Request
    from search_spaces.errors import NasError

__all__ = [
    "RUNS",
    "Ablation",
    "Effects",
    "FurtherTrust",
    "NasError",
    "Record",
    "Reproduction",
    "Request",
    "Study",
    "Trust",
    "Verdict",
    "__version__",
    "ablate",
    "confirm",
    "open_study",
    "reproduce",
    "resume",
    "search",
    "trust_further",
]

_CLASSES = {
    "Ablation": "nas.report.ablation",
    "Effects": "nas.report.effects",
    "FurtherTrust": "nas.report.further_trust",
    "NasError": "search_spaces.errors",
    "Record": "nas.records.record",
    "Reproduction": "nas.workflows.reproduction",
    "Request": "nas.workflows.request",
    "Study": "nas.study.study",
    "Trust": "nas.report.trust",
    "Verdict": "nas.report.verdict",
}
"""Where the classes are that are imported when they are first used; most need PyTorch or Optuna."""

__getattr__ = importer(__name__, _CLASSES)


def __dir__() -> list[str]:
    """List what is public: an interactive session completes no name that this file imports for itself."""
    return __all__


@accepts(SearchOptions)
def search(**options: Any) -> "Study":
    """Search a space for the Pareto front of accuracy and cost; return the study when all its trials are done.

    Everything has a default; `nas.search()` is a demonstration on built-in data. The options are those of `nas search`.
    One line shows the progress, in a terminal (on stderr) and in a notebook; so do `resume`, `confirm` and `ablate`.

    Raises:
        NasError: an option is wrong, or the search cannot run; the message says what to change.
        KeyboardInterrupt: the search was interrupted; finished trials are saved, and `nas.resume` continues it.
    """
    from nas.workflows.progress_line import progress_line

    SearchOptions.of(**options)  # refuses wrong values before PyTorch is imported
    with progress_line() as show:
        show("reading space and options")  # the imports below take seconds
        from functools import partial

        from nas.workflows.ray_cluster import RayCluster
        from nas.workflows.ray_workers import supervisor_on
        from nas.workflows.request import Request
        from nas.workflows.run_in_python import plan, run

        request = Request(**options)
        cluster = RayCluster.of(request.ray, request.gpus_per_worker, request.storage, device=request.device)
        train = partial(run, show=show, supervisor=supervisor_on(cluster))
        checked = plan(request, show)
        if request.calibrate:
            from nas.workflows.calibrated_search import calibrated

            again = partial(train, again="the same call of nas.search")
            request = calibrated(request, checked, again).request
            checked = plan(request, show)
        if request.hours is not None:
            from nas.workflows.check_cache import CheckCache
            from nas.workflows.fit_hours import fitted

            show("timing what fits into the hours")
            checked = plan(fitted(request, checked, CheckCache.of_user()).request, show)
        study = checked.begin(lambda done, total: show(f"timing layers: {done} of {total}"))
        train(study)
    return study


def resume(
    study: str,
    *,
    trials: int | None = None,
    timeout: float | None = None,
    workers: int | None = None,
    device: str | None = None,
    ray: str | None = None,
    gpus_per_worker: float | None = None,
    trial_memory: int | None = None,
    data: FilePath | None = None,
    weights: FilePath | None = None,
    storage: str | None = None,
    trust: bool = False,
    runs: FilePath = RUNS,
) -> "Study":
    """Continue a study until its number of trials is reached, and return it.

    Args:
        study: name of the study.
        trials: number of trials in total. Default: as before.
        timeout: start no further trial after so many seconds. Default: no limit.
        workers: number of worker processes. Default: as before.
        device: `cpu`, or indices of GPUs such as `0,1`. Default: as before.
        ray: address of the Ray cluster to train on. Default: this machine.
        gpus_per_worker: on a Ray cluster. Default: 0.
        trial_memory: main memory that the trials of one worker may use, in bytes. Default: as before.
        data: where the data set lies now, if the study was moved. Default: as before.
        weights: where the checkpoint lies now from which the study started. Default: as before.
        storage: address of the database with the study's trials, including its password, which is not saved.
        trust: run the operators that the study brings as Python files, though you have not run them on this machine.
        runs: folder of all studies.

    Raises:
        NasError: there is no such study, an option is wrong, or another process runs the study.
        KeyboardInterrupt: it was interrupted; finished trials are saved, and the same call continues.
    """
    from nas.workflows.progress_line import progress_line

    counts = {"trials": trials, "timeout": timeout, "workers": workers, "trial_memory": trial_memory}
    places = {"device": device, "data": data, "weights": weights, "storage": storage, "runs": runs}
    require(SearchOptions, counts | places | {"ray": ray, "gpus_per_worker": gpus_per_worker})
    from nas.study.folders import existing

    existing(study, Path(runs))  # refused before PyTorch is imported
    with progress_line() as show:
        show(f"{study}: opening it")
        from nas.workflows import begin
        from nas.workflows.ray_cluster import RayCluster
        from nas.workflows.ray_workers import supervisor_on
        from nas.workflows.run_in_python import run

        resumed = begin.resume(
            study,
            runs=Path(runs),
            storage=storage,
            data=data,
            weights=weights,
            ray=ray,
            gpus_per_worker=gpus_per_worker,
            trust=trust,
            trials=trials,
            timeout=timeout,
            workers=workers,
            device=device,
            trial_memory=trial_memory,
        )
        cluster = RayCluster.of(ray, gpus_per_worker, resumed.file.storage)
        run(resumed, show, supervisor=supervisor_on(cluster))
    return resumed


def confirm(
    study: str,
    *,
    seeds: int | None = None,
    top: int | None = None,
    epochs: int | None = None,
    fraction: float | None = None,
    from_scratch: bool = False,
    margin: float | None = None,
    timeout: float | None = None,
    workers: int | None = None,
    device: str | None = None,
    trial_memory: int | None = None,
    runs: FilePath = RUNS,
) -> "Verdict":
    """Train the finalists of a search and the stock model with fresh seeds; return the verdict. Called again, go on.

    Args:
        study: name of the search.
        seeds: number of fresh seeds. More than before adds seeds. Default: as before, or 5.
        top: number of finalists, the most accurate of the front first. Default: as before, or all, at most 8.
        epochs: of each training. Default: as the search.
        fraction: of the training images that are trained on, 1 for all; for a search that has read a part of them.
            Default: as the search.
        from_scratch: train from random weights, instead of from the weights that the search used. Other trainings
            than before, by this, `epochs` or `fraction`, are another confirmation; without, the last one goes on.
        margin: points of mAP50-95 within which two models count as equally accurate. Default: as before, or 0.5.
        timeout: start no further training after so many seconds. Default: no limit.
        workers: number of worker processes. Default: as the search.
        device: `cpu`, or indices of GPUs such as `0,1`. Default: as the search.
        trial_memory: main memory that the trainings of one worker may use, in bytes. Default: as the search.
        runs: folder of all studies.

    Raises:
        NasError: there is no such study, its front is the stock model alone, an option is wrong, or a study with the
            name of the confirmation has other settings.
        KeyboardInterrupt: it was interrupted; finished trainings are saved, and the same call goes on.
    """
    numbers = {"seeds": seeds, "top": top, "margin": margin}
    changes = {"timeout": timeout, "workers": workers, "device": device, "trial_memory": trial_memory}
    trainings = {"epochs": epochs, "fraction": fraction, "from_scratch": from_scratch}
    require(SearchOptions, changes | trainings | {"runs": runs}, numbers)
    before = open_study(study, runs=runs)
    from nas.workflows.confirm import confirm as begin

    after = begin(
        before,
        seeds=seeds,
        top=top,
        epochs=epochs,
        from_scratch=from_scratch,
        fraction=fraction,
        margin=margin,
        **changes,
    )
    _train_rest(after, again="the same call of nas.confirm")
    verdict = after.verdict()
    assert verdict is not None  # noqa: S101 - its search was just opened
    return verdict


def open_study(study: str, *, trust: bool = False, runs: FilePath = RUNS) -> "Study":
    """Open a study to look at its trials and to export from it; nothing is trained.

    Args:
        study: name of the study.
        trust: run the operators that the study brings as Python files, though you have not run them on this machine.
        runs: folder of all studies.

    Raises:
        NasError: there is no such study, or its files cannot be read.
    """
    require(SearchOptions, {"runs": runs})
    from nas.study.folders import existing

    folder = existing(study, Path(runs))
    from nas.study import operator_files
    from nas.study.fetching import fetched
    from nas.study.study import Study

    opened = fetched(Study.open(folder))
    if trust:
        operator_files.trust(folder)
    return opened


def trust_further(study: str, *others: str, runs: FilePath = RUNS) -> "FurtherTrust":
    """Return what to expect of a further search like these: its noise, and how far its finalists will fall.

    Args:
        study: name of a search.
        others: names of searches that differ from it in seed and number of trials only; their trainings are pooled.
        runs: folder of all studies.

    Raises:
        NasError: they cannot be pooled; one line names what differs.
    """
    from nas.workflows.further_trust import trust_in_further

    return trust_in_further([open_study(name, runs=runs) for name in (study, *others)])


def reproduce(study: str, *, trial: int, anyway: bool = False, runs: FilePath = RUNS) -> "Reproduction":
    """Train a trial again as it was trained, and compare losses, scores and costs to the bit; the study stays as it is.

    Args:
        study: name of the study.
        trial: number of the trial.
        anyway: train also if versions, device or code differ from those that the trial recorded.
        runs: folder of all studies.

    Returns:
        The comparison. Its `verdict` is `equal`, `different` or `refused`; `reasons` say why nothing was trained.

    Raises:
        NasError: there is no such study or trial, or its files cannot be read.
    """
    require(SearchOptions, {"runs": runs}, {"trial": trial})
    opened = open_study(study, runs=runs)
    from nas.workflows import reproduce as workflow

    return workflow.reproduce(opened, trial=trial, anyway=anyway)


def ablate(
    study: str,
    *,
    trial: int,
    seeds: int | None = None,
    epochs: int | None = None,
    fraction: float | None = None,
    val_images: int | None = None,
    margin: float | None = None,
    timeout: float | None = None,
    workers: int | None = None,
    device: str | None = None,
    trial_memory: int | None = None,
    runs: FilePath = RUNS,
) -> "Ablation":
    """Train a trial without each of its slots, with fresh paired seeds, and return what each slot is worth.

    Args:
        study: name of the study.
        trial: number of the trial.
        seeds: with which every model is trained. Default: as before, or 3.
        epochs: of each training. Default: as before, or those of the search.
        fraction: of the training images that are trained on, 1 for all. Default: as before, or as the search.
        val_images: number of images by which the models are compared. Default: as before, or as the search.
        margin: points of mAP50-95 within which a difference does not matter. Default: as before, or 0.5.
        timeout: start no further training after so many seconds. Default: no limit.
        workers: number of worker processes. Default: as the search.
        device: `cpu`, or indices of GPUs such as `0,1`. Default: as the search.
        trial_memory: main memory that the trials of one worker may use, in bytes. Default: as the search.
        runs: folder of all studies.

    Raises:
        NasError: there is no such study or trial, the trial has no slot to put back, or an option is wrong.
    """
    numbers = {"trial": trial, "seeds": seeds, "margin": margin}
    changes = {"timeout": timeout, "workers": workers, "device": device, "trial_memory": trial_memory}
    trainings = {"epochs": epochs, "fraction": fraction, "val_images": val_images}
    require(SearchOptions, changes | trainings | {"runs": runs}, numbers)
    before = open_study(study, runs=runs)
    from nas.workflows.ablate import AblationPlan

    plan = AblationPlan.of(before, trial=trial, seeds=seeds, epochs=epochs, fraction=fraction, val_images=val_images)
    after = plan.begin(margin=margin, **changes)
    _train_rest(after, again="the same call of nas.ablate")
    ablation = before.ablation(trial)
    assert ablation is not None  # noqa: S101 - its study was just begun
    return ablation


def _train_rest(study: "Study", *, again: str) -> None:
    """Run the trainings of a study that are not finished yet.

    Args:
        again: what continues them after Ctrl-C.
    """
    if not study.unfinished_trials(study.records()):
        return
    from nas.workflows.progress_line import progress_line
    from nas.workflows.run_in_python import run

    with progress_line() as show:
        run(study, show, again=again)
