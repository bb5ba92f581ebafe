"""Pickles that Ultralytics opens by itself, under the guards of `nas yolo`: nothing in them is executed."""

import importlib
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.data import dataset
from ultralytics.data.dataset import ClassificationDataset, YOLODataset
from ultralytics.data.loaders import LoadImagesAndVideos
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.nn import tasks
from ultralytics.utils import dist
from ultralytics.utils.patches import torch_load
from ultralytics.utils.torch_utils import strip_optimizer

from search_spaces import cache_folder
from search_spaces.errors import DataError, EnvironmentProblem, SpecError
from trials import weights
from trials.training import yolo_inputs

pytestmark = pytest.mark.usefixtures("guards_end")

MARK = "ran"


class _Opens:
    """Object that makes a folder in the working directory when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (MARK,)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, with two classes of one image, and labels for a segmentation."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "labels" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "images" / name / "1.png")
        (tmp_path / "labels" / name / "1.txt").write_text("0 0.1 0.1 0.9 0.1 0.9 0.9\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def foreign(folder: Path) -> Path:
    """Return a file that runs code when it is unpickled, dated to the next day."""
    path = folder / "foreign.pt"
    torch.save({"model": _Opens()}, path)
    os.utime(path, times=(time.time() + 86400,) * 2)
    return path


def cache_of_others(path: Path) -> bytes:
    """Write a cache that runs code when it is opened, dated to the next day; return its content."""
    with path.open("wb") as file:
        np.save(file, np.array(_Opens(), dtype=object), allow_pickle=True)
    os.utime(path, times=(time.time() + 86400,) * 2)
    return path.read_bytes()


def segmentation(folder: Path) -> YOLODataset:
    data = {"names": {0: "a"}, "nc": 1, "channels": 3}
    return YOLODataset(img_path=str(folder / "images" / "a"), data=data, task="segment", imgsz=32, augment=False)


class TestLabelCaches:
    def test_cache_beside_labels_is_not_opened_and_labels_are_scanned(self, folder: Path) -> None:
        written = cache_of_others(folder / "labels" / "a.cache")
        yolo_inputs.guard()
        assert len(segmentation(folder).labels) == 1
        assert not Path(MARK).exists()
        assert (folder / "labels" / "a.cache").read_bytes() != written

    def test_stock_ultralytics_would_open_it(self, folder: Path) -> None:
        cache_of_others(folder / "labels" / "a.cache")
        segmentation(folder)
        assert Path(MARK).exists()

    def test_cache_of_a_classifiers_images_is_not_opened(self, folder: Path) -> None:
        cache_of_others(folder / "images.cache")
        yolo_inputs.guard()
        arguments = get_cfg(overrides={"imgsz": 32, "fraction": 1.0, "cache": False})
        assert len(ClassificationDataset(str(folder / "images"), arguments).samples) == 2
        assert not Path(MARK).exists()

    def test_cache_that_this_process_has_written_is_read(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        yolo_inputs.guard()
        segmentation(folder)
        monkeypatch.setattr(YOLODataset, "cache_labels", lambda *_: pytest.fail("scanned again"))
        assert len(segmentation(folder).labels) == 1

    def test_cache_that_was_exchanged_since_is_not_opened(self, folder: Path) -> None:
        yolo_inputs.guard()
        segmentation(folder)
        cache_of_others(folder / "labels" / "a.cache")
        segmentation(folder)
        assert not Path(MARK).exists()

    def test_caches_in_our_cache_folder_are_read(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NAS_CACHE", str(folder / "cache"))
        (folder / "cache").mkdir()
        np.save(folder / "cache" / "labels.npy", np.array({"version": "1"}, dtype=object), allow_pickle=True)
        yolo_inputs.guard()
        file = cache_folder.path() / "labels.npy"
        assert dataset.load_dataset_cache_file(file) == {"version": "1"}


class TestCheckpoints:
    def test_date_of_a_file_does_not_make_it_ours(self, foreign: Path) -> None:
        """As a training saves only `last.pt`, and `best.pt` is somebody else's."""
        yolo_inputs.guard()
        with pytest.raises(DataError, match="it holds code or classes"):
            tasks.load_checkpoint(foreign)
        assert not Path(MARK).exists()

    def test_best_weights_of_others_are_not_ours_when_the_last_are_saved(
        self, foreign: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trainer = SimpleNamespace(last=foreign.with_name("last.pt"), best=foreign)
        monkeypatch.setattr(BaseTrainer, "save_model", lambda one: one.last.write_bytes(b"own"))
        yolo_inputs.guard()
        BaseTrainer.save_model(trainer)
        with pytest.raises(DataError, match="it holds code or classes"):
            tasks.load_checkpoint(foreign)

    def test_embeddings_of_texts_beside_the_images_are_checked(self, foreign: Path) -> None:
        yolo_inputs.guard()
        with pytest.raises(DataError, match="it holds code or classes"):
            torch_load(foreign, map_location="cpu")
        embeddings = foreign.with_name("text_embeddings_clip_ViT-B_32.pt")
        torch.save({"a cat": torch.ones(2)}, embeddings)
        assert list(torch_load(embeddings)) == ["a cat"]
        assert not Path(MARK).exists()

    def test_the_end_of_a_training_runs_no_code_of_best_weights(self, foreign: Path) -> None:
        yolo_inputs.guard()
        assert strip_optimizer(foreign) == {}
        weights.lighten(foreign)
        assert not Path(MARK).exists()

    def test_what_this_process_has_saved_is_opened_whatever_is_in_it(self, folder: Path) -> None:
        yolo_inputs.guard()
        torch.save({"model": _Opens()}, folder / "own.pt")
        torch_load(folder / "own.pt")
        assert Path(MARK).exists()

    def test_trust_opens_them(self, foreign: Path) -> None:
        yolo_inputs.guard(trusted=True)
        torch_load(foreign)
        assert Path(MARK).exists()


TRAINER = """
from types import SimpleNamespace
from ultralytics.utils.patches import torch_load


class Trainer:
    args, model, callbacks, save_dir = SimpleNamespace(), None, {}, "run"

    def __init__(self, **options):
        pass

    def train(self):
        for name in ("run/weights/best.pt", "foreign.pt"):
            try:
                torch_load(name)
                print("opened")
            except Exception as error:
                print(type(error).__name__)
"""


class TestProcessesOfSeveralGPUs:
    @pytest.fixture
    def trainer(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        """Return a stand-in for a trainer, whose processes open two checkpoints."""
        (folder / "several_gpus_trainer.py").write_text(TRAINER, encoding="utf-8")
        monkeypatch.syspath_prepend(folder)
        monkeypatch.setattr(dist, "USER_CONFIG_DIR", folder)
        return importlib.import_module("several_gpus_trainer").Trainer()

    def test_they_check_pickles_but_those_of_their_training(self, trainer: Any, foreign: Path) -> None:
        best = foreign.parent / "run" / "weights" / "best.pt"
        best.parent.mkdir(parents=True)
        torch.save({"model": SimpleNamespace()}, best)  # a class that the check refuses
        yolo_inputs.guard(["yolo", "train"])
        file = dist.generate_ddp_file(trainer)
        done = subprocess.run([sys.executable, file], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["opened", "DataError"]
        assert not Path(MARK).exists()

    def test_another_way_to_start_them_is_refused(self, trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        Path("other.py").touch()
        monkeypatch.setattr(dist, "generate_ddp_file", lambda _: "other.py")
        yolo_inputs.guard()
        with pytest.raises(EnvironmentProblem, match="one GPU is expected"):
            dist.generate_ddp_file(trainer)


MODEL = {
    "nc": 1,
    "backbone": [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [32, 3, 2]]],
    "head": [[[1], 1, "Detect", ["nc"]]],
}


def checkpoint(path: Path, **settings: Any) -> Path:
    """Write a checkpoint with settings, as of a training that was interrupted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    model = tasks.DetectionModel(MODEL, verbose=False)
    torch.save({"model": model, "epoch": 0, "optimizer": {}, "train_args": {"task": "detect", **settings}}, path)
    return path


def resumed(path: Path, **typed: Any) -> Any:
    """Return what is known of a training that is resumed before anything is written."""
    trainer = BaseTrainer.__new__(BaseTrainer)
    trainer.args = get_cfg(overrides={"resume": str(path), **typed})
    trainer.check_resume({"resume": str(path), **typed})
    return trainer.args


class TestImages:
    def test_pipe_in_the_place_of_an_image_is_refused(self, folder: Path) -> None:
        """Ultralytics would wait at it without end."""
        os.mkfifo(folder / "images" / "a" / "2.png")
        yolo_inputs.guard()
        with pytest.raises(DataError, match=r"2\.png: no plain file"):
            segmentation(folder)

    def test_pipe_in_the_place_of_a_classifiers_image_is_refused(self, folder: Path) -> None:
        os.mkfifo(folder / "images" / "a" / "2.png")
        yolo_inputs.guard()
        with pytest.raises(DataError, match=r"2\.png: no plain file"):
            ClassificationDataset(str(folder / "images"), get_cfg(overrides={"imgsz": 32}))

    @pytest.mark.parametrize("name", ["2.png", "2.mp4"])
    def test_pipe_in_a_folder_that_is_predicted_is_refused(self, folder: Path, name: str) -> None:
        images = folder / "images" / "a"
        assert len(LoadImagesAndVideos(images)) == 1
        os.mkfifo(images / name)
        yolo_inputs.guard()
        with pytest.raises(DataError, match=rf"{name}: no plain file"):
            LoadImagesAndVideos(images)


class TestSettingsOfCheckpoints:
    def test_a_resumed_training_writes_into_the_folder_of_its_checkpoint(self, folder: Path) -> None:
        last = checkpoint(folder / "run" / "weights" / "last.pt", save_dir=str(folder / "else"), project="/", name="x")
        yolo_inputs.guard()
        assert resumed(last).save_dir == str(folder / "run")
        alone = checkpoint(folder / "got" / "last.pt", save_dir=str(folder / "else"))
        assert resumed(alone).save_dir == str(folder / "got")

    def test_the_user_may_name_another_folder(self, folder: Path) -> None:
        last = checkpoint(folder / "run" / "weights" / "last.pt", save_dir=str(folder / "else"))
        yolo_inputs.guard(["yolo", "train", f"resume={last}", "save_dir=mine"])
        assert resumed(last, save_dir="mine").save_dir == "mine"

    @pytest.mark.parametrize("name", ["best.pt", "last.pt"])
    def test_pickle_beside_a_resumed_checkpoint_is_refused(self, name: str, foreign: Path) -> None:
        first = checkpoint(foreign.parent / "run" / "weights" / "epoch1.pt")
        foreign.rename(first.with_name(name))
        yolo_inputs.guard()
        with pytest.raises(DataError, match=rf"{name}: .*it holds code or classes.*--trust"):
            resumed(first)
        assert not Path(MARK).exists()

    @pytest.mark.parametrize(
        ("settings", "place"),
        [
            ({"data": "https://example.com/a.zip"}, "data"),
            ({"data": "images.ndjson"}, "data"),
            ({"data": {"train": {"yolo_data": ["https://example.com/a.yaml"]}}}, r"data\.train\.yolo_data\[0\]"),
            ({"distill_model": "https://example.com/a.pt"}, "distill_model"),
        ],
    )
    def test_address_in_settings_is_not_fetched_by_a_resumed_training(
        self, settings: Any, place: str, folder: Path
    ) -> None:
        last = checkpoint(folder / "last.pt", **settings)
        yolo_inputs.guard()
        with pytest.raises(SpecError, match=rf"last.pt: {place} of its train_args: a checkpoint may not ask for"):
            resumed(last)

    def test_augmentations_of_a_resumed_training_are_not_built(self, folder: Path) -> None:
        """They name a class of albumentations and its arguments: one opens files, one reports to a server."""
        reads = {
            "transform": {"__class_fullname__": "HistogramMatching", "reference_images": ["/etc/passwd"], "p": 1.0}
        }
        last = checkpoint(folder / "run" / "weights" / "last.pt", augmentations=[reads])
        yolo_inputs.guard()
        with pytest.raises(SpecError, match=r"last\.pt: augmentations of its train_args: .*--trust"):
            resumed(last)
        assert resumed(last, augmentations=None).augmentations is None

    def test_augmentations_of_a_trusted_checkpoint_are_kept(self, folder: Path) -> None:
        last = checkpoint(folder / "run" / "weights" / "last.pt", augmentations=[{"transform": {}}])
        yolo_inputs.guard(trusted=True)
        assert resumed(last).augmentations == [{"transform": {}}]

    def test_address_of_data_is_not_fetched_by_a_validation(self, folder: Path) -> None:
        path = checkpoint(folder / "x.pt", data="https://example.com/a.zip")
        yolo_inputs.guard(["yolo", "val", f"model={path}"])
        with pytest.raises(SpecError, match=r"x.pt: data of its train_args: .*name the file: data=FILE"):
            YOLO(path)

    @pytest.mark.parametrize("words", [["val", "data=mine.yaml"], ["predict"], ["mode=predict"]])
    def test_model_whose_data_is_not_used_is_loaded(self, words: list[str], folder: Path) -> None:
        path = checkpoint(folder / "x.pt", data="https://example.com/a.zip")
        yolo_inputs.guard(["yolo", *words])
        assert YOLO(path).task == "detect"

    def test_data_that_is_not_named_by_a_value_is_not_named(self, folder: Path) -> None:
        path = checkpoint(folder / "x.pt", data="https://example.com/a.zip")
        yolo_inputs.guard(["yolo", "val", "data=None"])
        with pytest.raises(SpecError, match="of its train_args"):
            YOLO(path)
