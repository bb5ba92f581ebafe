"""A whole backbone in one row counts as five layers, as in forks that have such rows."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from ultralytics import YOLO

from search_spaces import base, build, model_reader
from search_spaces.errors import SpecError
from search_spaces.operators import modules

TEXT = """
import torch
from torch import nn

class Backbone(nn.Module):
    def __init__(self, maps):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv2d(3 if not i else 8 * i, 8 * i + 8, 3, 2 ** (6 - maps) if not i else 2, 1) for i in range(maps)
        )
        self.channel = [one.shape[1] for one in self.forward(torch.randn(1, 3, 64, 64))]

    def forward(self, x):
        found = []
        for layer in self.layers:
            x = layer(x)
            found.append(x)
        return found

def three(pretrained=False):
    return Backbone(3)

def four(pretrained=False, **kwargs):
    return Backbone(4)

class Five(Backbone):
    def __init__(self):
        super().__init__(5)

def six():
    return Backbone(6)

class Last(nn.Module):
    def forward(self, x):
        return x[-1]

def broken():
    raise ValueError("no weights")
"""

ROWS: list[Any] = [[-1, 1, "SPPF", [64, 5]]]
HEAD: list[Any] = [
    [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
    [[-1, 3], 1, "Concat", [1]],
    [[2, 7, 5], 1, "Detect", ["nc"]],
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "fork.py").write_text(TEXT, encoding="utf-8")
    modules.load(tmp_path / "fork.py")
    return tmp_path


def written(folder: Path, name: str, *rows: Any, head: list[Any] = HEAD) -> Path:
    document = {"nc": 2, "backbone": [[-1, 1, name, []], *(rows or ROWS)], "head": head}
    (folder / "model.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    return folder / "model.yaml"


@pytest.mark.parametrize(
    ("name", "maps"),
    [
        ("three", [(8, 0), (8, 0), (16, 1), (24, 2)]),
        ("four", [(8, 0), (16, 1), (24, 2), (32, 3)]),
        ("Five", [(16, 1), (24, 2), (32, 3), (40, 4)]),
    ],
)
def test_maps_have_the_numbers_of_the_fork(name: str, maps: list[tuple[int, int]], folder: Path) -> None:
    reading = model_reader.read_model(str(written(folder, name)))
    assert reading.document["backbone"][1:5] == [[0, 1, "Index", list(one)] for one in maps]
    assert reading.notes[0].startswith(f"{name}: the row is a whole backbone and counts as layers 0 to 4")
    built = build.model(reading.document, 2)
    assert [layer.f for layer in list(built.model)[5:]] == [-1, -1, [-1, 3], [2, 7, 5]]
    assert built.model[-1].stride.tolist() == [8.0, 16.0, 32.0]


def test_model_is_a_base_trained_and_pickled(folder: Path) -> None:
    path = written(folder, "four")
    explicit = base.load(str(path), "")
    assert len(explicit.rows) == 9
    assert model_reader.model_document(str(path))["backbone"] == explicit.document["backbone"]
    model = YOLO(str(path)).model
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(again.eval()(x)[0], model.eval()(x)[0])
    assert isinstance(again, nn.Module)


def test_file_of_functions_alone_is_enough(folder: Path) -> None:
    text = "from torch import nn\n\ndef stem(c2=8):\n    return nn.Conv2d(3, c2, 3, 2, 1)\n"
    (folder / "other.py").write_text(text, encoding="utf-8")
    modules.load(folder / "other.py")
    path = written(folder, "stem", head=[[[-1], 1, "Detect", ["nc"]]])
    assert build.model(model_reader.model_document(str(path)), 2).model[0].out_channels == 8


def test_file_that_takes_the_maps_itself_is_left_as_it_is(folder: Path) -> None:
    index = [[0, 1, "Index", [16 + 8 * one, one + 1]] for one in range(3)]
    path = written(folder, "four", *index, head=[[[1, 2, 3], 1, "Detect", ["nc"]]])
    reading = model_reader.read_model(str(path))
    assert len(reading.document["backbone"]) == 4
    assert reading.notes == ()


def test_class_that_reads_all_maps_gets_them(folder: Path) -> None:
    path = written(folder, "six", [-1, 1, "Last", []], head=[[[1], 1, "Detect", ["nc"]]])
    assert len(model_reader.model_document(str(path))["backbone"]) == 2


@pytest.mark.parametrize(
    ("name", "mistakes"),
    [
        ("broken", ["backbone[0]: broken of fork.py cannot be built of []: tried as broken(): no weights"]),
        ("absent_t0", ["backbone[0]: unknown module 'absent_t0' (of the file's own fork: name the Python file"]),
        ("six", ["backbone[0]: six returns 6 maps (at most 5, of strides 2 to 32)"]),
    ],
)
def test_numbers_are_no_mistakes_where_the_backbone_is_one(name: str, mistakes: list[str], folder: Path) -> None:
    with pytest.raises(SpecError) as wrong:
        model_reader.model_document(str(written(folder, name)))
    found = [one.removeprefix("model.yaml: ") for one in wrong.value.mistakes]
    assert all(one.startswith(expected) for one, expected in zip(found, mistakes, strict=True))
