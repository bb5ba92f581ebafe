"""Depth, width and image size: scaled rows, and equal fingerprints of equal networks."""

from typing import Any

import pytest
import torch
from torch import nn

from search_spaces import SearchSpace, build, yaml_text
from search_spaces import base as bases
from search_spaces.errors import SpecError
from search_spaces.scaling import Scaling, scale_row, stage
from search_spaces.space_file import parse


def rows_at(name: str, scale: str, **factors: float) -> list[list[Any]]:
    return bases.load(name, scale).scaled(tuple(sorted(factors.items()))).rows


@pytest.mark.parametrize(
    ("row", "setting", "expected"),
    [
        (["C2f", 3, [64, True]], (("depth", 0.67),), ["C2f", 2, [64, True]]),
        (["C2f", 1, [64, True]], (("depth", 2),), ["C2f", 2, [64, True]]),
        (["C2f", 1, [64, True]], (("depth", 0.1),), ["C2f", 1, [64, True]]),
        (["C2f", 3, [64, True]], (("depth", 0.5),), ["C2f", 2, [64, True]]),
        (["Conv", 1, [64, 3, 2]], (("depth", 2),), ["Conv", 1, [64, 3, 2]]),
        (["Conv", 4, [64, 3, 1]], (("depth", 0.5),), ["Conv", 2, [64, 3, 1]]),
        (["RepNCSPELAN4", 1, [128, 128, 64, 3]], (("depth", 0.67),), ["RepNCSPELAN4", 1, [128, 128, 64, 2]]),
        (["RepNCSPELAN4", 1, [128, 96, 48, 3]], (("width", 0.5),), ["RepNCSPELAN4", 1, [64, 48, 24, 3]]),
        (["SPPELAN", 1, [128, 64]], (("width", 0.75),), ["SPPELAN", 1, [96, 48]]),
        (["A2C2f", 2, [128, True, 4]], (("width", 0.75),), ["A2C2f", 2, [128, True, 4]]),
        (["A2C2f", 2, [256, True, 4]], (("width.P4", 0.75),), ["A2C2f", 2, [192, True, 4]]),
        (["Conv", 1, [64, 3, 2]], (("width.P5", 0.5),), ["Conv", 1, [64, 3, 2]]),
        (["Conv", 1, [60, 3, 2]], (("width", 0.5),), ["Conv", 1, [32, 3, 2]]),
    ],
    ids=str,
)
def test_row_is_scaled_by_a_setting(row: list[Any], setting: Scaling, expected: list[Any]) -> None:
    module, repeats, arguments = row
    assert scale_row([-1, repeats, module, arguments], "P4", setting, has_channels=True)[1:] == [
        expected[1],
        expected[0],
        expected[2],
    ]


def test_dependent_channels_cannot_be_scaled() -> None:
    with pytest.raises(SpecError, match="the channels of CBLinear cannot be scaled"):
        scale_row([0, 1, "CBLinear", [[64]]], "P3", (("width", 0.5),), has_channels=False)


def test_stages_of_every_family() -> None:
    assert [stage(reduction) for reduction in (1, 2, 4, 8, 16, 32, 64)] == ["P0", "P1", "P2", "P3", "P4", "P5", "P6"]
    base = bases.load("yolov8{scale}.yaml", "n")
    assert [base.stage(layer) for layer in (0, 2, 4, 6, 8, 9, 10, 12, 15, 21)] == [
        "P1", "P2", "P3", "P4", "P5", "P5", "P4", "P4", "P3", "P5"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("yolov3{scale}.yaml", ""),
        ("yolov5{scale}.yaml", "n"),
        ("yolov6{scale}.yaml", "n"),
        ("yolov8{scale}.yaml", "n"),
        ("yolov9{scale}.yaml", "t"),
        ("yolov9{scale}.yaml", "c"),
        ("yolov10{scale}.yaml", "n"),
        ("yolo11{scale}.yaml", "m"),
        ("yolo12{scale}.yaml", "l"),
        ("yolo26{scale}.yaml", "n"),
    ],
)
def test_every_family_can_be_scaled(name: str, scale: str) -> None:
    base = bases.load(name, scale)

    def size(setting: Scaling) -> int:
        layers = build.skeleton(dict(base.scaled(setting).document), 80)
        return sum(parameter.numel() for parameter in layers.parameters())

    stock = size(())
    assert size((("width", 0.75),)) < stock < size((("depth", 2),))
    assert size((("width.P5", 0.75),)) < stock
    assert size((("depth", 2), ("width.P4", 1.25))) > stock


def test_half_of_a_large_model_is_the_small_one() -> None:
    """Compare with Ultralytics' scaling: yolov8s is yolov8n at twice the width."""
    wide = bases.load("yolov8{scale}.yaml", "n").scaled((("width", 2),))
    assert [row[1:] for row in wide.rows] == [row[1:] for row in bases.load("yolov8{scale}.yaml", "s").rows]


SPACE = """
name: m
base: yolov8{scale}.yaml
scale: n
macro: {depth: [0.5, 0.6, 2], width: {P4: [0.5]}, image_size: [64, 96]}
"""


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return parse(yaml_text.parse_yaml(SPACE))


def test_equal_networks_have_equal_fingerprints(space: SearchSpace) -> None:
    half, more = (space.of({}, {"depth": depth}) for depth in (0.5, 0.6))
    assert half != more
    assert repr(build.skeleton(half.document(2), 2)) == repr(build.skeleton(more.document(2), 2))
    assert half.fingerprint == more.fingerprint
    others = [
        space.stock,
        space.of({}, {"depth": 2}),
        space.of({}, {"width.P4": 0.5}),
        space.of({}, {"image_size": 64}),
    ]
    assert len({architecture.fingerprint for architecture in (half, *others)}) == 5


def test_scaling_factor_at_stock_is_not_in_the_fingerprint(space: SearchSpace) -> None:
    plain = parse(yaml_text.parse_yaml("name: m\nbase: yolov8{scale}.yaml\nscale: n\nmacro: {depth: 2}"))
    assert plain.of({}, {"depth": 1}).fingerprint == plain.stock.fingerprint
    assert plain.stock.is_stock
    assert space.stock.is_stock
    assert not space.of({}, {"depth": 2}).is_stock


def test_scaled_models_train_and_are_read_back(space: SearchSpace) -> None:
    architecture = space.of({}, {"depth": 2, "width.P4": 0.5, "image_size": 64})
    model = build.model(architecture.document(2), 2).train()
    model(torch.rand(2, 3, 64, 64))
    assert isinstance(model, nn.Module)
    again = type(architecture).from_yaml(architecture.to_yaml(2))
    assert (again, again.fingerprint) == (architecture, architecture.fingerprint)
