"""Choose what a request leaves to the machine: the batch, then how many trials train on each GPU at once."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from nas.settings import RunSettings, Settings
from nas.study.folders import STUDY, study_folder
from nas.study.study_file import StudyFile
from nas.workflows import auto_batch, auto_workers
from nas.workflows.check_cache import CheckCache
from nas.workflows.planned_search import PlannedSearch
from nas.workflows.request import Request
from search_spaces import Space
from trials.data.datasets import DataSet
from trials.data.holdout import Holdout

_AS_BEGUN = "as the study was begun"


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Settings that fit a machine.

    Attributes:
        batch: why the batch is that one, in words; empty if it was given, or is the usual one.
        workers: why so many trials train on a GPU at once; empty if their number was given, or is the usual one.
    """

    settings: Settings
    run: RunSettings
    batch: str = ""
    workers: str = ""


def fitted(
    request: Request,
    space: Space,
    settings: Settings,
    run: RunSettings,
    data: DataSet,
    *,
    sealed: Holdout | None,
    trying: Callable[[str], None] = lambda _: None,
) -> Fitted:
    """Return the settings with what was left to be chosen; a study that exists goes on with its batch and workers.

    Args:
        data: what is read of the data set.
        sealed: images of it that are not read; None if there are none.
        trying: called with what is timed next, in words.

    Raises:
        EnvironmentProblem: not even a single image, or a single training, fits into memory.
        EstimateError: a timed training failed for another reason than memory.
    """
    begun, batch, workers = _begun(request), "", ""
    if request.chooses_batch(run.device):
        if begun is not None:
            settings, batch = auto_batch.with_batch(settings, begun.settings.budget.batch), _AS_BEGUN
        else:
            search, cache = PlannedSearch.of_settings(settings, run, data, sealed), CheckCache.of_user()
            found = auto_batch.chosen(space, search, cache, memory=run.trial_memory, trying=trying)
            settings, batch = auto_batch.with_batch(settings, found.number), found.reason
    if request.chooses_workers:
        devices = len(run.device.split(","))
        if begun is not None:
            number, workers = math.ceil(begun.run.workers / len(begun.run.device.split(","))), _AS_BEGUN
        else:
            search, cache = PlannedSearch.of_settings(settings, run, data, sealed), CheckCache.of_user()
            found = auto_workers.chosen(space, search, cache, memory=run.trial_memory, trying=trying)
            number, workers = found.number, found.reason
        run = run.model_copy(update={"workers": devices * number})
    return Fitted(settings=settings, run=run, batch=batch, workers=workers)


def with_chosen_batch(
    request: Request,
    space: Space,
    search: PlannedSearch,
    cache: CheckCache,
    *,
    trying: Callable[[str], None] = lambda _: None,
) -> PlannedSearch:
    """Return a planned search with the batch that its request leaves to the machine; unchanged if it leaves none.

    Args:
        search: with the usual batch.
        trying: called with what is timed next, in words.

    Raises:
        EnvironmentProblem: not even a single image fits into memory.
        EstimateError: a timed training failed for another reason than memory.
    """
    if not request.chooses_batch(search.devices):
        return search
    batch = auto_batch.chosen(space, search, cache, memory=request.trial_memory, trying=trying).number
    base = None if search.base is None else auto_batch.scaled(search.base, batch)
    return replace(search, base=base, budget=auto_batch.scaled(search.budget, batch))


def _begun(request: Request) -> StudyFile | None:
    """Return the study that a request names, if it exists."""
    if request.study is None:
        return None
    folder = study_folder(request.study, request.runs_folder)
    return StudyFile.read(folder) if (folder / STUDY).is_file() else None
