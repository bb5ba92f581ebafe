"""Folders of crops, under the guards of `nas yolo`."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ultralytics.engine.results import Results

from trials.training import crop_folders, yolo_inputs

HOSTILE = "../../outside"


def save_crops(folder: Path, name: str) -> list[str]:
    """Save the one crop of an image as Ultralytics does; return which files there are."""
    box = torch.tensor([[2.0, 2.0, 20.0, 20.0, 0.9, 0.0]])
    results = Results(np.zeros((32, 32, 3), np.uint8), path="a.png", names={0: name}, boxes=box)
    results.save_crop(save_dir=folder / "predict" / "crops", file_name="a.jpg")
    assert results.names == {0: name}
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg")]


@pytest.mark.usefixtures("guards_end")
def test_names_of_classes_do_not_lead_out_of_the_folder_of_results(tmp_path: Path) -> None:
    assert save_crops(tmp_path / "stock", HOSTILE) == ["outside/a.jpg"]
    yolo_inputs.guard()
    assert save_crops(tmp_path / "guarded", HOSTILE) == ["predict/crops/.._.._outside/a.jpg"]
    assert save_crops(tmp_path / "absolute", f"{tmp_path}/x") == [
        f"predict/crops/{str(tmp_path).replace('/', '_')}_x"[:74] + "/a.jpg"
    ]


@pytest.mark.parametrize("name", ["traffic light", "vélo", "漢", "a.b", "7"])
def test_usual_names_stay(name: str) -> None:
    assert crop_folders.folder_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", " ", "\0", "a/b", "a\\b", "x" * 5000, "a\nb"])
def test_every_name_is_one_folder(name: str, tmp_path: Path) -> None:
    folder = tmp_path / crop_folders.folder_name(name)
    folder.mkdir()
    assert list(tmp_path.iterdir()) == [folder]
