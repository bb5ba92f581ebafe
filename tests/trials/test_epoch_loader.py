"""Loader of a GPU's trainings, on the CPU."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from search_spaces import Architecture
from trials import Budget, machine
from trials.data import image_cache, validation_batches
from trials.data.datasets import DataSet
from trials.training import epoch_loader
from trials.training.epoch_loader import MOST_PROCESSES, EpochLoader, processes_for
from trials.training.short_training import ShortTraining, seed_epoch


@pytest.fixture
def images(scenes: DataSet) -> image_cache.CachedImages:
    budget = Budget(data=scenes.path)
    return image_cache.load(scenes.train, scenes.classes, 64, 4, budget.recipe, stride=32, training=True)


Load = Callable[[int], EpochLoader]


@pytest.fixture
def load(images: image_cache.CachedImages, request: pytest.FixtureRequest) -> Load:
    def loading(processes: int) -> EpochLoader:
        loader = EpochLoader(images, 4, processes=processes, pinned=False)
        request.addfinalizer(loader.close)
        return loader

    return loading


def epochs(loader: EpochLoader, *numbers: int) -> list[list[dict[str, Any]]]:
    """Load epochs as a training does."""
    found = []
    for number in numbers:
        seed_epoch(loader, 7, number)
        found.append([dict(batch) for batch in loader])
    return found


def equal(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> bool:
    return len(first) == len(second) and all(
        one["im_file"] == other["im_file"] and torch.equal(one["img"], other["img"])
        for one, other in zip(first, second, strict=True)
    )


def test_number_of_processes_changes_no_image(load: Load) -> None:
    here, one, two = (epochs(load(processes), 0, 1) for processes in (0, 1, 2))
    assert all(equal(first, second) for first, second in zip(here, one, strict=True))
    assert all(equal(first, second) for first, second in zip(here, two, strict=True))
    assert not equal(here[0], here[1])


def test_epoch_is_the_same_in_a_process_that_resumes_at_it(load: Load) -> None:
    (_, second), (resumed,) = epochs(load(2), 0, 1), epochs(load(2), 1)
    assert equal(second, resumed)


def test_epoch_has_each_image_once(load: Load, images: image_cache.CachedImages) -> None:
    loader = load(0)
    (epoch,) = epochs(loader, 0)
    assert sorted(file for batch in epoch for file in batch["im_file"]) == sorted(images.im_files)
    assert len(loader) == len(epoch)
    assert len(loader.sampler) == len(images)  # type: ignore[arg-type]  # ours has a length, as Ultralytics asks for


def test_processes_stay_for_all_epochs_and_end_when_closed(load: Load) -> None:
    loader = load(2)
    pids = []
    for number in (0, 1):
        epochs(loader, number)
        iterator: Any = loader._iterator
        pids.append([process.pid for process in iterator._workers])
    assert pids[0] == pids[1]
    loader.close()
    assert not any(process.is_alive() for process in iterator._workers)


def test_training_takes_the_loader_of_a_gpu_and_ends_its_processes(
    tiny: Callable[..., Budget], scenes: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaders: list[EpochLoader] = []

    def get(self: ShortTraining, path: Any, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        assert rank == -1
        images = self.build_dataset(path, mode, batch_size)
        if mode == "val":
            return validation_batches.in_memory(images, batch_size)
        loaders.append(EpochLoader(images, batch_size, processes=1, pinned=False))
        return loaders[-1]

    monkeypatch.setattr(ShortTraining, "get_dataloader", get)
    document = Architecture(base="yolov5{scale}.yaml", scale="n", picks=()).document(len(scenes.classes))
    training = ShortTraining(document, tiny(epochs=2), scenes, tmp_path, lambda *_: True)
    training.train()
    assert [epoch.map50_95 is not None for epoch in training.epochs_done] == [False, True]
    assert all(math.isfinite(loss) for epoch in training.epochs_done for loss in epoch.losses.values())
    (loader,) = loaders
    assert loader._iterator is None


def test_processes_are_the_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert [processes_for(batches) for batches in (1, 2, 100)] == [0, 2, 4]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert processes_for(100) == MOST_PROCESSES


def test_processes_have_room_for_their_batches_in_shared_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container has 64 MB of it by default."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(machine, "cores", lambda: 8)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=64 * 2**20))
    assert [processes_for(100, batch_bytes) for batch_bytes in (1, 2**21, 2**24)] == [8, 3, 0]
    monkeypatch.setattr(machine, "cores", lambda: 16)  # another worker has the other half of them
    assert [processes_for(100, batch_bytes) for batch_bytes in (1, 2**21, 2**24)] == [8, 1, 0]
    monkeypatch.undo()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(epoch_loader, "SHARED_MEMORY", tmp_path / "none")
    assert processes_for(100, 2**24) == MOST_PROCESSES
