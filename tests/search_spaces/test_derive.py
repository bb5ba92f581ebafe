"""A space for any detection model."""

from pathlib import Path

import pytest
import yaml

from search_spaces import base as bases
from search_spaces.derive import derive
from search_spaces.errors import SpecError
from search_spaces.hosts import HOSTS
from search_spaces.operators import OPERATORS
from search_spaces.space_file import catalog, load, parse

MODELS = [
    "yolov3.yaml", "yolov3-tiny.yaml", "yolov5s.yaml", "yolov5n-p6.yaml", "yolov6n.yaml", "yolov8n.yaml",
    "yolov8n-p2.yaml", "yolov8n-ghost.yaml", "yolov9t.yaml", "yolov9e.yaml", "yolov10b.yaml", "yolo11n.yaml",
    "yolo12l.yaml", "yolo26n.yaml",
]  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
def test_is_valid_as_it_stands_and_complete(model: str) -> None:
    written = derive(model)
    space = parse(bases.parse_yaml(written))
    base = bases.load(space.base, space.scale)
    for layer, row in enumerate(base.rows):
        possible = {name for name in OPERATORS if row[2] in HOSTS and base.sites(layer, OPERATORS[name])}
        offered = {name for slot in space.slots if slot.layer == layer for name in slot.operators} - {"stock"}
        assert offered <= possible
        assert offered or not possible or f"{row[2]} in the" in written or row[2] in written
    assert "# No slots: " in written


def test_says_what_it_found() -> None:
    written = derive("yolov8s.yaml")
    assert "name: yolov8s\nbase: yolov8{scale}.yaml\nscale: s\n" in written
    assert "# C2f in the backbone: 2 (1/4, 64 channels), 4 (1/8, 128 channels)." in written
    assert "# No slots: Concat 11, 14, 17, 20; Detect 22." in written


def test_offers_at_least_what_the_catalog_offers() -> None:
    for name in catalog():
        chosen = load(name)
        scale = chosen.scale if "{scale}" in chosen.base else ""
        derived = parse(bases.parse_yaml(derive(chosen.base.replace("{scale}", scale))))
        offered = {slot.layer: set(slot.operators) for slot in derived.slots}
        assert all(set(slot.operators) <= offered[slot.layer] for slot in chosen.slots)


def test_what_is_left_as_a_comment_can_be_taken_in() -> None:
    lines = derive("yolov8n.yaml").splitlines()
    first = lines.index("# insert:")
    taken = [line.removeprefix("# ") for line in lines[first:]]
    space = parse(bases.parse_yaml("\n".join([*lines[:first], *taken])))
    assert {dial.name for dial in space.dials} == {"depth", "width.P4", "width.P5", "image_size"}
    assert [slot.name for slot in space.slots if slot.feeds] == ["after-9"]


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(dict(bases.load("yolov5{scale}.yaml", "n").document)), encoding="utf-8")
    written = derive(str(path))
    assert f"name: mine\nbase: {path}\n" in written
    assert parse(bases.parse_yaml(written)).slots


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("yolov8n-seg.yaml", "only detection models can be searched"),
        ("nothing.yaml", "nothing.yaml: no such file or model"),
    ],
)
def test_what_cannot_be_derived(model: str, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        derive(model)
