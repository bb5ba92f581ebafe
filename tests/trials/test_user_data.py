"""`nas yolo train` and `nas yolo val` read a user's data as a search does, and leave them unchanged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from ultralytics.models import yolo
from ultralytics.models.yolo.detect import DetectionTrainer, DetectionValidator
from ultralytics.utils import ASSETS_URL

from search_spaces.errors import DataError
from trials.data import datasets
from trials.training.full_training import FullTrainer, prepare_command
from trials.training.user_data import UserDataTrainer, UserDataValidator

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return a function that writes a data set: JPEGs with appended bytes, in lists; one box has no area."""
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))

    def written(**keys: Any) -> Path:
        folder = tmp_path / "set"
        for split in ("train", "val"):
            for name in ("a", "b", "c", "d"):
                image, label = folder / f"images/{split}/{name}.jpg", folder / f"labels/{split}/{name}.txt"
                for file in (image, label):
                    file.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (48, 48), (200, 30, 30)).save(image)
                image.write_bytes(image.read_bytes() + b"TAIL" + bytes(8))
                label.write_text("0 0.5 0.5 0.4 0.4\n1 0.5 0.5 0 0.4\n")
            names = "".join(f"images/{split}/{name}.jpg\n" for name in "abcd")
            (folder / f"{split}.txt").write_text(names)
        file = folder / "data.yaml"
        description = {"path": "./", "train": "train.txt", "val": "val.txt", "download": "raise SystemExit", **keys}
        file.write_text(yaml.safe_dump(description) + "names: [no, null]\n")
        return file

    return written


@pytest.fixture
def trained(write: Write, tmp_path: Path) -> tuple[Path, UserDataTrainer, dict[str, tuple[int, bytes]]]:
    """Return a data set after a training of one epoch, the trainer, and the files before it."""
    file = write()
    before = state(file.parent)
    overrides = {"model": "yolov5n.yaml", "data": str(file), "epochs": 1, "imgsz": 32, "batch": 4, "cache": "disk"}
    quiet = {"workers": 0, "plots": False, "device": "cpu", "amp": False, "pretrained": False}
    trainer = FullTrainer(overrides={**overrides, **quiet, "project": str(tmp_path), "name": "run"})
    trainer.train()
    return file, trainer, before


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }


def test_a_full_training_reads_data_as_a_search_does(
    trained: tuple[Path, UserDataTrainer, dict[str, tuple[int, bytes]]],
) -> None:
    file, trainer, before = trained
    assert state(file.parent) == before
    dataset = trainer.train_loader.dataset
    assert [Path(path).name for path in dataset.im_files] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert [len(label["cls"]) for label in dataset.labels] == [1] * 4
    assert trainer.data["names"] == {0: "no", 1: "null"}
    written = yaml.safe_load(Path(trainer.args.data).read_text())
    assert written == {
        "path": str(file.parent),
        "train": str(file.parent / "train.txt"),
        "val": str(file.parent / "val.txt"),
        "names": ["no", "null"],
    }


def test_a_validation_reads_data_as_a_search_does(
    trained: tuple[Path, UserDataTrainer, dict[str, tuple[int, bytes]]], tmp_path: Path
) -> None:
    file, trainer, before = trained
    arguments = {"model": str(trainer.best), "data": str(file), "imgsz": 32, "workers": 0, "plots": False}
    validator = UserDataValidator(args={**arguments, "device": "cpu", "mode": "val"}, save_dir=tmp_path / "val")
    validator(model=str(trainer.best))
    assert state(file.parent) == before
    assert validator.metrics.nt_per_class.tolist() == [4, 0]  # the box without an area is left out


@pytest.mark.parametrize("split", ["train", "val"])
def test_missing_data_are_refused_and_not_downloaded(split: str, write: Write, tmp_path: Path) -> None:
    file = write(**{split: "nowhere"})
    with pytest.raises(DataError, match=f"{split}: no such folder or list: .*nowhere .*`download` is not followed"):
        UserDataTrainer(overrides={"model": "yolov5n.yaml", "data": str(file), "project": str(tmp_path)})


def test_only_needed_splits_must_exist(write: Write) -> None:
    file = write(train="nowhere", test="val.txt")
    text = datasets.resolved_text(file, ["test"])
    assert yaml.safe_load(text)["test"] == str(file.parent / "val.txt")


def test_yolo_command_reads_user_data_in_training_and_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yolo.detect, "DetectionTrainer", DetectionTrainer)
    monkeypatch.setattr(yolo.detect, "DetectionValidator", DetectionValidator)
    prepare_command(["yolo", "train", "nms=True"])  # which leaves `Model` as it is
    assert issubclass(yolo.detect.DetectionTrainer, UserDataTrainer)
    assert yolo.detect.DetectionValidator is UserDataValidator


def test_digits_and_folders_are_names_of_data_sets(write: Write, tmp_path: Path) -> None:
    from trials.training.user_data import _with_absolute_paths

    file = write()
    assert yaml.safe_load(Path(_with_absolute_paths(file.parent, tmp_path, "val")).read_text())["path"] == str(
        file.parent
    )
    assert len(yaml.safe_load(Path(_with_absolute_paths("digits", tmp_path, "val")).read_text())["names"]) == 10
    address = f"{ASSETS_URL}/coco8.zip"
    assert _with_absolute_paths(address, tmp_path, "val") == address
