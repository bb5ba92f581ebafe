"""Memory and disk space that a search needs, beside what is free."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from nas.workflows.planned_search import PlannedSearch
from nas.workflows.timing_process import ProcessTimes
from search_spaces import cache_folder
from trials.data import validation_batches
from trials.data.room import Room, most_bytes

_STUDY_BYTES = 90 * 2**20
"""Memory of Optuna and its storage in a worker; a timing process imports neither."""
_TRIAL_BYTES = 200_000
"""Most bytes that a trial leaves beside its weights: model, epochs, outcome, and its rows in databases."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Bytes that a search needs; the fields are keys of `nas check --format json`.

    Attributes:
        worker_memory: main memory of one worker, without decoded images.
        images: decoded images, which all workers share in memory and on disk; 0 where they do not fit.
        all_images: decoded images, whether they fit or not.
        memory: main memory of all workers with the decoded images.
        free_memory: None if it cannot be read.
        gpu_memory: memory of one GPU, of all its workers; 0 on the CPU.
        whole_gpu_memory: of that GPU, whether it is free or not; 0 on the CPU.
        weights: of all trials and the stock model, and the checkpoints of running trainings; most of them are deleted
            while the search runs.
        disk: all that is written.
    """

    worker_memory: int
    images: int
    all_images: int
    memory: int
    free_memory: int | None
    gpu_memory: int
    whole_gpu_memory: int
    weights: int
    disk: int

    @classmethod
    def of(cls, search: PlannedSearch, times: ProcessTimes) -> "Needs":
        """Return what a search needs, by what its timed trainings have occupied."""
        data, size = search.data, search.budget.image_size
        held = [most_bytes(data.val_images, size)] if validation_batches.fit_in_memory(data.val_images, size) else []
        worker = times.memory + _STUDY_BYTES + sum(held)
        room = Room.of(cache_folder.path())
        splits = (data.train_images, data.val_images)
        fitting = [count for count in splits if room.in_memory(count, size) and room.on_disk(count, size)]
        images = sum(most_bytes(count, size) for count in fitting)
        largest = max(one.weights_bytes for one in times.trainings if one is not None)
        checkpoint = max(one.checkpoint_bytes for one in times.trainings if one is not None)
        weights = largest * (search.trials + (1 + search.stocks if search.base else 0)) + checkpoint * search.workers
        return cls(
            worker_memory=worker,
            images=images,
            all_images=sum(most_bytes(count, size) for count in splits),
            memory=worker * search.workers + images,
            free_memory=room.memory,
            gpu_memory=times.gpu_memory * search.sharing,
            whole_gpu_memory=times.whole_gpu_memory,
            weights=weights,
            disk=weights + images + search.trials * _TRIAL_BYTES,
        )


def free_disk(folder: Path) -> int:
    """Return the bytes that are free where a folder lies or will lie."""
    there = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    return shutil.disk_usage(there).free
