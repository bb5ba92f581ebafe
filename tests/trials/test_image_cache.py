"""Images as a training reads them: the same bits as Ultralytics', decoded once for all processes of a machine."""

import hashlib
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from ultralytics.data import YOLODataset
from ultralytics.data import base as their_data
from ultralytics.data.build import InfiniteDataLoader, build_dataloader

import search_spaces
from search_spaces import Architecture
from search_spaces.errors import DataError
from trials import Budget, Recipe, machine
from trials.data import datasets, image_cache, validation_batches
from trials.training import short_training
from trials.training.short_training import ShortTraining

CLASSES = 10
SHAPES = {"a": (96, 96), "b": (64, 64), "c": (50, 90), "d": (90, 50), "e": (33, 17), "f": (96, 96)}  # height, width
AUGMENTED = Recipe(mosaic=0.5, scale=0.5, fliplr=0.5)
Load = Callable[..., image_cache.CachedImages]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of decoded images, empty; and a process that holds none."""
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    forget()
    yield tmp_path / "cache" / "images"
    forget()


def forget() -> None:
    """Clear the caches of this process, as if it had just begun."""
    image_cache.load.cache_clear()
    validation_batches.in_memory.cache_clear()
    validation_batches.on_device.cache_clear()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Noise of many shapes: larger than 64 px, smaller, as large, wide, high."""
    random = np.random.Generator(np.random.PCG64(0))
    for name, shape in SHAPES.items():
        image, label = tmp_path / "images" / f"{name}.png", tmp_path / "labels" / f"{name}.txt"
        for file in (image, label):
            file.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(image), random.integers(0, 256, (*shape, 3), np.uint8))
        label.write_text("0 0.5 0.5 0.2 0.2\n1 0.3 0.4 0.2 0.5\n")
    return tmp_path / "images"


@pytest.fixture
def load(photos: Path) -> Load:
    def of(*, training: bool = True, size: int = 64, recipe: Recipe = AUGMENTED) -> image_cache.CachedImages:
        return image_cache.load((str(photos),), ("spot", "dot"), size, 2, recipe, stride=32, training=training)

    return of


def files(cache: Path) -> list[Path]:
    return sorted(cache.iterdir()) if cache.is_dir() else []


def undecodable(*_: object, **__: object) -> NoReturn:
    raise AssertionError("an image was decoded")


def epoch_of(loader: InfiniteDataLoader, seed: int, epoch: int) -> list[tuple[list[str], Tensor, Tensor]]:
    short_training.seed_epoch(loader, seed, epoch)
    return [(batch["im_file"], batch["img"].clone(), batch["bboxes"].clone()) for batch in loader]


def equal(these: list[tuple[list[str], Tensor, Tensor]], those: list[tuple[list[str], Tensor, Tensor]]) -> bool:
    return len(these) == len(those) and all(
        one[0] == other[0] and torch.equal(one[1], other[1]) and torch.equal(one[2], other[2])
        for one, other in zip(these, those, strict=True)
    )


def loader_of(dataset: image_cache.CachedImages, workers: int = 0) -> InfiniteDataLoader:
    return build_dataloader(dataset, batch=2, workers=workers, device="cpu")


class TestCacheFile:
    def test_image_cache_holds_what_ultralytics_would_decode(self, load: Load, cache: Path) -> None:
        ours = load()
        theirs = YOLODataset(
            img_path=str(Path(ours.im_files[0]).parent), imgsz=64, data={"names": {0: "spot", 1: "dot"}, "channels": 3}
        )
        assert ours.im_files == theirs.im_files
        loaded = [theirs.load_image(index) for index in range(len(SHAPES))]
        for index, (image, original, resized) in enumerate(loaded):
            mine, *sizes = ours.load_image(index)
            assert np.array_equal(mine, image)
            assert (mine.dtype, sizes) == (image.dtype, [original, resized])
        (pixels,) = cache.glob("*.bin")
        assert pixels.read_bytes() == b"".join(image.tobytes() for image, _, _ in loaded)
        assert [path.suffix for path in files(cache)] == [".bin", ".json"]

    def test_image_cache_is_read_by_the_next_process(
        self, load: Load, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = load(training=False)
        before = [(path, path.stat().st_ino, path.read_bytes()) for path in files(cache)]
        forget()
        monkeypatch.setattr(their_data, "imread", undecodable)
        for again in (load(training=False), load(training=False, recipe=Recipe())):
            assert again is not first
            assert [np.array_equal(*pair) for pair in zip(again.ims, first.ims, strict=True)] == [True] * len(SHAPES)
        assert [(path, path.stat().st_ino, path.read_bytes()) for path in files(cache)] == before

    def test_image_size_selects_the_cache_file(self, load: Load, cache: Path) -> None:
        assert load(size=32).ims[0].shape == (32, 32, 3)
        assert load(size=64).ims[0].shape == (64, 64, 3)
        assert len(files(cache)) == 4

    @pytest.mark.parametrize("change", ["content", "time", "name"])
    def test_changed_image_makes_a_new_cache_file(self, change: str, load: Load, photos: Path, cache: Path) -> None:
        first = load().ims[0].copy()
        image = photos / "a.png"
        match change:
            case "content":
                cv2.imwrite(str(image), np.zeros((96, 96, 3), np.uint8))
            case "time":
                os.utime(image, ns=(0, image.stat().st_mtime_ns + 1))
            case _:
                image.rename(photos / "A.png")
                (photos.parent / "labels" / "a.txt").rename(photos.parent / "labels" / "A.txt")
        forget()
        again = load()
        assert len(files(cache)) == 4
        assert np.array_equal(again.ims[0], first) == (change != "content")

    def test_image_cache_is_read_only(self, load: Load, cache: Path) -> None:
        """Whatever the augmentation does in place."""
        dataset = load(recipe=Recipe(mosaic=0.0, scale=0.0, fliplr=0.5))
        assert not any(image.flags.writeable for image in dataset.ims)
        with pytest.raises(ValueError, match="read-only"):
            dataset.ims[0][0] = 0
        (pixels,) = cache.glob("*.bin")
        before = hashlib.sha256(pixels.read_bytes()).hexdigest()
        loader = loader_of(dataset)
        for epoch in range(3):
            epoch_of(loader, 0, epoch)
        list(validation_batches.in_memory(load(training=False), 4))
        assert hashlib.sha256(pixels.read_bytes()).hexdigest() == before

    def test_image_cache_is_written_completely_or_not_at_all(
        self, load: Load, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        alone = image_cache.CachedImages._load_alone

        def failing(dataset: image_cache.CachedImages, index: int) -> Any:
            if index == 3:
                raise OSError("no space left")
            return alone(dataset, index)

        with monkeypatch.context() as patch:
            patch.setattr(image_cache.CachedImages, "_load_alone", failing)
            with pytest.raises(OSError, match="no space left"):
                load()
        assert [path for path in files(cache) if path.suffix in {".bin", ".json"}] == []
        assert load().ims[3].shape == (64, 36, 3)

    @pytest.mark.parametrize("text", [b"", b"half", None])
    @pytest.mark.parametrize("ending", [".bin", ".json"])
    def test_torn_image_cache_is_written_again(self, ending: str, text: bytes | None, load: Load, cache: Path) -> None:
        before = [image.copy() for image in load().ims]
        (torn,) = cache.glob(f"*{ending}")
        forget()
        if text is None:
            torn.unlink()
        else:
            torn.write_bytes(text)
        assert all(np.array_equal(*pair) for pair in zip(load().ims, before, strict=True))

    def test_image_cache_is_deleted_a_month_after_its_last_use(self, load: Load, cache: Path) -> None:
        day = 24 * 3600
        load(size=32)
        (unused,) = cache.glob("*.bin")
        os.utime(unused, (0, time.time() - 31 * day))
        load(size=64)
        assert not unused.exists()
        assert not unused.with_suffix(".json").exists()
        (recent,) = cache.glob("*.bin")
        os.utime(recent, (0, time.time() - 29 * day))
        load(size=96)
        assert recent.exists()
        os.utime(recent, (0, time.time() - 31 * day))
        forget()
        load(size=64)  # used
        load(size=128)
        assert recent.exists()

    def test_temporary_files_of_killed_processes_are_deleted_after_a_month(self, load: Load, cache: Path) -> None:
        left = [cache / "0123.4567", cache / "0123.4567.json", cache / ".0123.bin.4567.tmp"]
        cache.mkdir(parents=True)
        for path in left:
            path.write_bytes(b"half")
            os.utime(path, (0, time.time() - 31 * 24 * 3600))
        load()
        assert [path for path in left if path.exists()] == []

    @pytest.mark.slow
    def test_two_simultaneous_processes_share_one_image_cache(self, scenes: datasets.DataSet, cache: Path) -> None:
        program = (
            "import sys; from trials import Recipe; from trials.data import image_cache; "
            "data = image_cache.load((sys.argv[1],), tuple('0123456789'), 64, 2, Recipe(), stride=32, training=True); "
            "print(sum(int(image.sum()) for image in data.ims))"
        )
        running = [
            subprocess.Popen(
                [sys.executable, "-c", program, scenes.train[0]],
                env={**os.environ, "PYTHONPATH": str(Path(search_spaces.__file__).parents[1])},
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        printed = [process.communicate()[0].splitlines()[-1] for process in running]
        assert [process.returncode for process in running] == [0, 0]
        assert printed[0] == printed[1]
        assert [path.suffix for path in files(cache)] == [".bin", ".json"]


class TestLackOfRoom:
    @pytest.fixture(params=["memory", "disk"])
    def full(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        def fill() -> None:
            if request.param == "memory":
                monkeypatch.setattr(machine, "free_memory", lambda: 1000)
            else:
                monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))

        return fill

    def test_images_without_room_for_a_cache_are_read_when_needed(
        self, load: Load, cache: Path, full: Callable[[], None]
    ) -> None:
        full()
        dataset = load()
        assert files(cache) == []
        assert list(dataset.ims) == [None] * len(SHAPES)

    @pytest.mark.parametrize("mosaic", [0.0, 1.0])
    def test_training_without_room_for_a_cache_is_the_same(
        self, mosaic: float, load: Load, full: Callable[[], None]
    ) -> None:
        """To the bit: a machine with less memory gives the same scores, and one epoch does not hang on another."""
        recipe = Recipe(mosaic=mosaic, scale=0.5, fliplr=0.5)
        loader = loader_of(load(recipe=recipe))
        expected = [epoch_of(loader, 0, epoch) for epoch in range(2)]
        forget()
        full()
        loader = loader_of(load(recipe=recipe))
        assert equal(epoch_of(loader, 0, 1), expected[1])
        assert equal(epoch_of(loader, 0, 0), expected[0])

    def test_existing_image_cache_needs_no_room_on_the_disk(
        self, load: Load, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        load()
        forget()
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
        monkeypatch.setattr(their_data, "imread", undecodable)
        assert load().ims[0].shape == (64, 64, 3)
        assert len(files(cache)) == 2


class TestEpochOrder:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_order_of_an_epoch_follows_from_seed_and_number_alone(self, workers: int, load: Load) -> None:
        loader = loader_of(load(), workers)
        assert loader.num_workers == workers
        row = [epoch_of(loader, 7, epoch) for epoch in range(4)]
        loader.close()
        assert not any(equal(row[one], row[other]) for one in range(4) for other in range(one))
        forget()
        torch.rand(3)
        np.random.rand(3)  # noqa: NPY002 - what the augmentation draws from
        later = loader_of(load(), workers)
        assert equal(epoch_of(later, 7, 3), row[3])
        assert equal(epoch_of(later, 7, 1), row[1])
        assert not equal(epoch_of(later, 8, 3), row[3])
        short_training.seed_epoch(later, 7, 0)
        next(iter(later))  # an epoch that was left in its middle
        assert equal(epoch_of(later, 7, 2), row[2])
        later.close()

    def test_epochs_of_two_seeds_have_different_orders(self, load: Load) -> None:
        loader = loader_of(load())
        assert not equal(epoch_of(loader, 0, 1), epoch_of(loader, 1, 0))


class TestValidationBatches:
    @pytest.fixture
    def trainer(
        self, tiny: Callable[..., Budget], scenes: datasets.DataSet, folder: Path, stock: Architecture
    ) -> ShortTraining:
        trainer = ShortTraining(stock.document(CLASSES), tiny(epochs=1), scenes, folder, lambda *_: True)
        trainer.train()
        return trainer

    def test_validation_batches_give_the_same_scores_every_time(
        self, trainer: ShortTraining, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert isinstance(trainer.test_loader, validation_batches.ValidationBatches)
        before = [{**batch, "img": batch["img"].clone()} for batch in trainer.test_loader]
        first, second = trainer.validate(), trainer.validate()
        assert second == first
        assert first[0]["val/box_loss"] > 0
        for batch, earlier in zip(trainer.test_loader, before, strict=True):
            assert batch.keys() == earlier.keys()
            for name, value in batch.items():
                if isinstance(value, Tensor):
                    assert (value.dtype, torch.equal(value, earlier[name])) == (earlier[name].dtype, True), name
                else:
                    assert value == earlier[name], name
        monkeypatch.setattr(validation_batches, "fit_in_memory", lambda *_: False)
        theirs = trainer.get_dataloader(trainer.data["val"], batch_size=trainer.test_loader.batch_size, mode="val")
        assert isinstance(theirs, InfiniteDataLoader)
        trainer.validator.dataloader = theirs
        assert trainer.validate() == first

    def test_validation_batches_are_stored_up_to_a_size(self, monkeypatch: pytest.MonkeyPatch) -> None:
        size = len(SHAPES) * 64 * 64 * 3
        monkeypatch.setattr(validation_batches, "_MOST_IN_MEMORY", size)
        assert validation_batches.fit_in_memory(len(SHAPES), 64)
        monkeypatch.setattr(validation_batches, "_MOST_IN_MEMORY", size - 1)
        assert not validation_batches.fit_in_memory(len(SHAPES), 64)

    def test_batches_on_a_device_are_those_in_memory(self, load: Load) -> None:
        dataset, device = load(training=False), torch.device("cpu")
        there = validation_batches.on_device(dataset, 4, device)
        assert there is validation_batches.on_device(dataset, 4, device)
        for one, other in zip(there, validation_batches.in_memory(dataset, 4), strict=True):
            assert one["img"].dtype == torch.uint8
            assert all(torch.equal(one[name], other[name]) for name in ("img", "bboxes", "cls", "batch_idx"))
        for batch, place in ((1, device), (4, torch.device("cpu", 0))):
            validation_batches.on_device(dataset, batch, place)
        assert validation_batches.on_device.cache_info().currsize == 2

    def test_a_training_validates_with_batches_on_its_device(
        self, trainer: ShortTraining, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert not trainer.holds_on_gpu(trainer.test_loader.dataset)  # it trains on the CPU
        expected = trainer.validate()
        monkeypatch.setattr(ShortTraining, "holds_on_gpu", lambda *_: True)
        loader = trainer.get_dataloader(trainer.data["val"], trainer.test_loader.batch_size, mode="val")
        assert loader is validation_batches.on_device(loader.dataset, loader.batch_size, trainer.device)
        trainer.validator.dataloader = loader
        assert [trainer.validate() for _ in range(2)] == [expected] * 2

    @pytest.mark.parametrize(
        ("images", "free", "whole", "fits"),
        [(60, 8.0, 8.0, True), (100, 8.0, 8.0, False), (60, 0.5, 8.0, False), (600, 80.0, 80.0, True)],
    )
    def test_a_gpu_holds_what_is_a_small_share_of_it(
        self, images: int, free: float, whole: float, *, fits: bool
    ) -> None:
        memory = {"free": round(free * 2**30), "whole": round(whole * 2**30)}
        assert validation_batches.fit_on_gpu(images, 640, **memory) is fits

    def test_validation_batches_are_built_once(self, load: Load) -> None:
        dataset = load(training=False)
        assert validation_batches.in_memory(dataset, 4) is validation_batches.in_memory(dataset, 4)
        assert [len(batch["im_file"]) for batch in validation_batches.in_memory(dataset, 4)] == [4, 2]
        assert len(validation_batches.in_memory(dataset, 4)) == 2


class TestUserFolder:
    """No file in it is written, renamed or opened as a pickle, whatever Ultralytics would do."""

    @pytest.fixture
    def camera(self, photos: Path) -> Path:
        """JPEGs with bytes appended, as phones and cameras write them."""
        for image in photos.glob("*.png"):
            cv2.imwrite(str(image.with_suffix(".jpg")), cv2.imread(str(image)))
            image.unlink()
        for image in photos.glob("*.jpg"):
            image.write_bytes(image.read_bytes() + b"TAIL" + bytes(8))
        return photos

    @staticmethod
    def state(folder: Path) -> dict[str, tuple[int, bytes]]:
        return {
            str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
            for path in sorted(folder.rglob("*"))
        }

    @pytest.mark.parametrize("room", [True, False])
    def test_user_folder_is_not_changed(
        self, room: bool, camera: Path, load: Load, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (camera / "a.npy").write_bytes(b"an older cache of Ultralytics'")
        before = {folder: self.state(camera.parent / folder) for folder in ("images", "labels")}
        if not room:
            monkeypatch.setattr(machine, "free_memory", lambda: 1000)
        for training_ in (True, False):
            dataset = load(training=training_)
            assert dataset.ni == len(SHAPES)
            for index in range(dataset.ni):
                assert dataset[index]["img"].shape[0] == 3
        assert {folder: self.state(camera.parent / folder) for folder in before} == before
        assert not list(camera.parent.glob("*.cache"))

    def test_images_are_the_pixels_of_their_files(self, camera: Path, load: Load) -> None:
        expected: Any = cv2.imread(str(camera / "a.jpg"))
        assert np.array_equal(load(size=96).ims[0], expected)

    def test_label_cache_in_the_user_folder_is_not_opened(
        self, photos: Path, load: Load, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        beside = photos.parent / "labels.cache"
        beside.write_bytes(pickle.dumps({"labels": "of a stranger"}))
        opened: list[str] = []
        real = np.load

        def loading(path: Any, **options: Any) -> Any:
            opened.append(str(path))
            return real(path, **options)

        monkeypatch.setattr(np, "load", loading)
        assert load().ni == len(SHAPES)
        assert str(beside) not in opened

    def test_labels_are_read_once_for_all_processes(
        self, load: Load, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = load()
        forget()
        monkeypatch.setattr(image_cache.UserImages, "verify_args", undecodable)
        assert [label["im_file"] for label in load().labels] == first.im_files
        assert [path.suffix for path in (cache.parent / "labels").iterdir()] == [".cache"]

    def test_user_folder_is_read_as_ultralytics_reads_it(self, load: Load) -> None:
        """To the bit, where every image opens and every box has an area."""
        ours = load()
        theirs = YOLODataset(
            img_path=str(Path(ours.im_files[0]).parent), imgsz=64, data={"names": {0: "spot", 1: "dot"}, "channels": 3}
        )
        for mine, other in zip(ours.labels, theirs.labels, strict=True):
            assert mine.keys() == other.keys()
            assert all(np.array_equal(mine[key], other[key]) for key in mine)

    def test_images_that_do_not_decode_are_named(self, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(their_data, "imread", lambda *_, **__: None)
        with pytest.raises(DataError, match=r"images/a\.png: this image cannot be decoded; take it out"):
            load()
