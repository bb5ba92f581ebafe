"""Files as articles print them, from the command line: trained, exported, loaded elsewhere, searched around."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from ultralytics import YOLO

from search_spaces import base as bases
from search_spaces import foreign_files, model_reader, yaml_text
from trials.data import digit_scenes

SHARED = Path(__file__).parents[2].parent / "shared"
PUBLISHED, BCCD = SHARED / "published", SHARED / "data" / "bccd"
MODELS = {
    "yolov9c-dcnv4": "yolov9-c-Bottleneck_DCNV4.yaml",
    "yolov9c-mmqa": "yolov9-c-MMQARepNCSPELAN4.yaml",
    "yolov5n-uib": "yolov5n-C3_UIB.yaml",
    "yolov5l-dynamic-conv": "yolov5l-dynamic.yaml",
    "yolov8n-dysample": "yolov8n-DySample.yaml",
}
TOO_LARGE = {"yolov9c-dcnv4": 8, "yolov9c-mmqa": 8, "yolov5l-dynamic-conv": 8}
"""What the channels of a model are divided by, so that it trains within a minute."""

NAS = [sys.executable, "-c", "from nas.cli import main; main()"]
FRESH = """\
import sys, torch
import search_spaces
from ultralytics import YOLO
model = YOLO(sys.argv[1])
model.predict(torch.rand(1, 3, 96, 64), verbose=False)
print(type(model.model).__name__, sum(p.numel() for p in model.model.parameters()))
"""

pytestmark = pytest.mark.slow
each_model = pytest.mark.parametrize("name", MODELS)


def run(*command: object, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "YOLO_VERBOSE": "true"}  # which the other tests are quiet without
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blood cells where they are at hand, copied because Ultralytics writes beside them; else digits."""
    folder = tmp_path_factory.mktemp("data")
    if not BCCD.is_dir():
        return digit_scenes.draw(folder, train=64, val=16)
    run("cp", "-r", BCCD, folder, folder=folder)
    text = (folder / "bccd" / "data.yaml").read_text().replace("path: .", f"path: {folder / 'bccd'}")
    (folder / "bccd" / "data.yaml").write_text(text)
    return folder / "bccd" / "data.yaml"


@pytest.fixture
def file(name: str, tmp_path: Path) -> Path:
    """The article's file, or ours for it, with fewer channels if it is too large."""
    printed = PUBLISHED / MODELS[name]
    document = yaml_text.read_yaml(printed if printed.is_file() else model_reader.catalog()[name])
    for row in [*document["backbone"], *document["head"]]:
        row[3] = narrowed(row[3], TOO_LARGE.get(name, 1))
    path = tmp_path / f"{name.partition('-')[2]}.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def narrowed(argument: Any, divisor: int) -> Any:
    if isinstance(argument, list):
        return [narrowed(one, divisor) for one in argument]
    return argument // divisor if type(argument) is int and argument >= 64 else argument


@each_model
def test_published_model_is_trained_and_exported(name: str, file: Path, data: Path, tmp_path: Path) -> None:
    finished = run(
        *NAS, "yolo", "train", f"model={file}", f"data={data}", "epochs=2", "imgsz=96", "batch=16", "device=cpu",
        "workers=0", "plots=False", f"project={tmp_path}", "name=run", "mosaic=0",
        folder=tmp_path,
    )  # fmt: skip
    notes = foreign_files.translate(yaml_text.read_yaml(file)).notes
    assert all(finished.stdout.count(note) + finished.stderr.count(note) == 1 for note in notes)
    best = tmp_path / "run" / "weights" / "best.pt"
    model: Any = YOLO(best).model.float().eval().fuse(verbose=False)
    image = torch.rand(2, 3, 160, 224)
    with torch.no_grad():
        expected = model(image)[0].numpy()
    run(
        *NAS,
        "yolo",
        "export",
        f"model={best}",
        "format=onnx",
        "dynamic=True",
        "imgsz=64",
        "simplify=False",
        folder=tmp_path,
    )
    session = onnxruntime.InferenceSession(best.with_suffix(".onnx"), providers=["CPUExecutionProvider"])
    (predicted,) = session.run(None, {"images": image.numpy()})
    assert predicted.shape == expected.shape
    assert np.abs(predicted[:, :4] - expected[:, :4]).max() < 1e-4 * 224
    assert np.abs(predicted[:, 4:] - expected[:, 4:]).max() < 1e-4
    loaded = run(sys.executable, "-c", FRESH, best, folder=tmp_path).stdout.split()
    assert loaded[-2] == ("PGIModel" if name.startswith("yolov9c") else "DetectionModel")


@each_model
def test_space_derived_from_a_published_model_is_searched(file: Path, data: Path, tmp_path: Path) -> None:
    space = tmp_path / "around.yaml"
    space.write_text(run(*NAS, "spaces", "derive", file, folder=tmp_path).stdout)
    run(*NAS, "check", "--space", space, folder=tmp_path)
    run(
        *NAS, "search", "--space", space, "--data", data, "--study", "around", "--trials", 4, "--epochs", 1,
        "--image-size", 64, "--deploy-size", 64, "--workers", 2, "--device", "cpu",
        folder=tmp_path,
    )  # fmt: skip
    trials = run(*NAS, "trials", "around", "--format", "csv", folder=tmp_path).stdout
    assert trials.count("finished") == 4
    finished = run(*NAS, "export", "around", "--best", "map", folder=tmp_path)
    exported = re.search(r"[^\s=]+/model\.yaml", finished.stdout + finished.stderr)
    assert exported is not None
    assert (
        yaml_text.read_yaml(Path(exported[0])).get("pgi", False)
        == bases.load(*model_reader.base_and_scale(str(file), None)).pgi
    )
