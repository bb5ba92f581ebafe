"""Time trainings of a search in processes of their own, as many at once as workers share a device."""

import hashlib
import json
import os
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from nas.execution.supervisor import worker_environment
from nas.workflows.check_cache import CheckCache
from nas.workflows.planned_search import PlannedSearch
from nas.workflows.scratch import scratch_folder
from nas.workflows.timing_process import ProcessTimes, Task
from nas.workflows.timing_run import Report, answers, mean
from search_spaces import Architecture, Space, cache_folder
from trials.costing import space_costs
from trials.data import image_files, listed_images, validation_batches
from trials.data.datasets import DataSet
from trials.data.room import Room
from trials.data.summary import Summary
from trials.devices import CPU
from trials.provenance import Provenance
from trials.training.timed_training import Holding, sample_sizes

_TYPICAL = 2
"""Random architectures that are timed beside the stock model and the costliest."""
_DRAWN = 40
"""Random architectures from which they are taken: at the quartiles of their GFLOPs."""
_STEP_SECONDS = 12.0
_ENOUGH_SECONDS = 40.0
_IRRELEVANT = {"data", "epochs", "seed", "weights", "rungs", "timeout"}
"""Fields of a budget on which the time of a step does not depend."""


def measure(
    space: Space, search: PlannedSearch, cache: CheckCache, *, report: Report = lambda *_: None
) -> ProcessTimes:
    """Time the stock models, the costliest architecture and typical ones, unless that was done before.

    Args:
        cache: of earlier measurements, by code, data, settings and device.

    Raises:
        EstimateError: the stock model cannot be trained, or the time limit is over.
    """
    architectures, holding = _architectures(space, search), _holding(search)
    key = _key(architectures, search, holding)
    stored = _stored(cache[key]) if key in cache else None
    if stored is None:
        measured = _measure(architectures, search, holding, report)
        stored = replace(measured, further_stocks=len(space.members) - 1)
        cache.add({key: asdict(stored)})
    return stored


def is_measured(space: Space, search: PlannedSearch, cache: CheckCache) -> bool:
    """Return whether `measure` would measure nothing."""
    key = _key(_architectures(space, search), search, _holding(search))
    return key in cache and _stored(cache[key]) is not None


def memory_of_costliest(space: Space, search: PlannedSearch) -> tuple[int, int | None]:
    """Train the costliest architecture for some steps, and return the bytes that it occupies on its device.

    Returns:
        Those, and what was free on the GPU before; None on the CPU.

    Raises:
        EstimateError: it cannot be trained, such as for want of memory.
    """
    found = of_costliest(space, search)
    return (found.memory, None) if search.device == CPU else (found.gpu_memory, found.free_gpu_memory)


def of_costliest(space: Space, search: PlannedSearch) -> ProcessTimes:
    """Time the costliest architecture alone, in as many processes at once as workers share a device.

    Returns:
        Times in which it stands in the stock model's place.

    Raises:
        EstimateError: it cannot be trained, such as for want of memory.
    """
    return _measure([_architectures(space, search)[1]], search, _holding(search), lambda *_: None)


def key_of_costliest(space: Space, search: PlannedSearch) -> str:
    """Return a hash of all that decides how many bytes the costliest architecture occupies."""
    return _key([_architectures(space, search)[1]], search, _holding(search))


def _architectures(space: Space, search: PlannedSearch) -> list[Architecture]:
    """Return the architectures to time; always the same.

    The stock model, the costliest, and typical ones within the limits; last the stock models of further members.
    """
    table = space_costs.table(space, len(search.data.classes), search.budget.deploy_size)
    rng = random.Random(0)  # noqa: S311 - no secret
    candidates = [space.sample(rng) for _ in range(_DRAWN)]
    drawn = [one for one in candidates if search.allows(table.cost(one)) and _is_buildable(space, one)]
    drawn.sort(key=lambda one: table.cost(one).gflops)
    largest = table.extreme(lambda layer: layer.macs, cheapest=False)
    if not search.allows(table.cost(largest)) or not _is_buildable(space, largest):
        largest = drawn[-1] if drawn else space.stock
    typical = [drawn[len(drawn) * (2 * part + 1) // (2 * _TYPICAL)] for part in range(_TYPICAL)] if drawn else []
    stock, *further = space.stocks
    return [stock, largest, *(typical if space.size > len(space.members) else []), *further]


def _is_buildable(space: Space, architecture: Architecture) -> bool:
    """Return whether an architecture can be built; one scaling factor alone was tried when the space file was read."""
    return len(architecture.shape) < 2 or space.incompatibility(architecture) is None


def _holding(search: PlannedSearch) -> Holding:
    """Return what of the data set a training of this search would hold in memory now."""
    room, size = Room.of(cache_folder.path()), search.budget.image_size
    train, val = search.data.train_images, search.data.val_images
    return Holding(
        train=room.in_memory(train, size) and room.on_disk(train, size),
        val=room.in_memory(val, size) and room.on_disk(val, size),
        val_batches=validation_batches.fit_in_memory(val, size),
    )


def _key(architectures: Sequence[Architecture], search: PlannedSearch, holding: Holding) -> str:
    provenance = asdict(Provenance.of(search.budget, search.data))
    inputs = {
        "architectures": [(one.fingerprint, [source.digest for source in one.sources]) for one in architectures],
        "budget": search.budget.model_dump(mode="json", exclude=_IRRELEVANT),
        "provenance": {name: provenance[name] for name in ("data", "device", "code", "versions")},
        "processes": search.sharing,
        "latency": search.measures_latency,
        "holding": asdict(holding),
        "from": search.inherits,
    }
    return f"times {hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]}"


def _stored(entry: object) -> ProcessTimes | None:
    """Return an entry of the cache as times; None if it is damaged."""
    try:
        return TypeAdapter(ProcessTimes).validate_python(entry)
    except ValidationError:
        return None


def _measure(
    architectures: Sequence[Architecture], search: PlannedSearch, holding: Holding, report: Report
) -> ProcessTimes:
    with scratch_folder("timing") as folder:
        places = [folder / str(index) for index in range(search.sharing)]
        for place in places:
            place.mkdir()
        sample = _sample(search, places[0])
        tasks = [_task(architectures, search, holding, sample, place) for place in places]
        environment = worker_environment(
            search.device,
            folder / "ultralytics",
            workers=search.workers,
            deterministic=search.budget.deterministic,
        )
        return mean(list(answers(tasks, places, environment, report, of=len(architectures))))


def _sample(search: PlannedSearch, folder: Path) -> DataSet:
    """Return a data set of some images of the whole one, evenly spread over its list."""
    data = search.data
    sizes = sample_sizes(search.budget, data.train_images, data.val_images)
    sources = []
    for count, source in zip(sizes, (data.train, data.val), strict=True):
        images = image_files.find(source, Path(data.root))
        chosen = [images[index * len(images) // count] for index in range(count)]
        sources.append((str(listed_images.write(chosen, folder)),))
    read = replace(data, train=sources[0], val=sources[1], train_images=sizes[0], val_images=sizes[1])
    return replace(read, summary=Summary(), sealed=())


def _task(
    architectures: Sequence[Architecture], search: PlannedSearch, holding: Holding, sample: DataSet, folder: Path
) -> Task:
    classes = len(search.data.classes)
    files = dict.fromkeys(str(source.path) for one in architectures for source in one.sources)
    device = CPU if search.device == CPU else "0"  # a process sees one GPU
    budget = search.budget.model_copy(update={"device": device})
    budgets = [budget.at(one.image_size) for one in architectures]
    return Task(
        parent=os.getpid(),
        began=time.monotonic(),
        folder=str(folder),
        cache=str(folder / "cache"),
        documents=tuple(one.document(classes) for one in architectures),
        budgets=tuple(one.model_dump(mode="json") for one in budgets),
        data=str(search.data.path),
        sealed=search.sealed,
        subset=search.subset,
        sample=sample,
        inherits=search.inherits,
        modules=tuple(files),
        seconds=_STEP_SECONDS,
        enough=_ENOUGH_SECONDS + _STEP_SECONDS * (search.stocks - 1),
        measures_latency=search.measures_latency,
        holding=holding,
    )
