"""Spaces derived from any detection model."""

import ast
import inspect
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml
from ultralytics.nn import tasks

from search_spaces import SearchSpace, build, model_reader, yaml_text
from search_spaces import base as bases
from search_spaces.derive import derive
from search_spaces.errors import SpecError
from search_spaces.hosts import HOSTS
from search_spaces.operators import OPERATORS
from search_spaces.space_file import load, parse
from search_spaces.space_names import catalog

MODELS = [
    "yolov3.yaml", "yolov3-tiny.yaml", "yolov5s.yaml", "yolov5n-p6.yaml", "yolov6n.yaml", "yolov8n.yaml",
    "yolov8n-p2.yaml", "yolov8n-ghost.yaml", "yolov9t.yaml", "yolov9e.yaml", "yolov10b.yaml", "yolo11n.yaml",
    "yolo12l.yaml", "yolo26n.yaml",
]  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
def test_derived_space_is_valid_and_complete(model: str) -> None:
    written = derive(model)
    space = parse(yaml_text.parse_yaml(written))
    base = bases.load(space.base, space.scale)
    for layer, row in enumerate(base.rows):
        possible = {name for name in OPERATORS if row[2] in HOSTS and base.sites(layer, OPERATORS[name])}
        offered = {name for slot in space.slots if slot.layer == layer for name in slot.operators} - {"stock"}
        assert offered <= possible
        assert offered or not possible or f"{row[2]} in the" in written or row[2] in written
    assert "# No slots: " in written


def test_comments_of_a_derived_space_describe_the_layers() -> None:
    written = derive("yolov8s.yaml")
    assert "name: yolov8s\nbase: yolov8{scale}.yaml\nscale: s\n" in written
    assert "# C2f in the backbone: 2 (1/4, 64 channels), 4 (1/8, 128 channels)." in written
    assert "# Concat in the head: 11 (1/16, 512 and 256 to 768 channels), 14" in written
    assert "# No slots: Detect 22." in written


def test_derived_space_offers_at_least_what_the_catalog_offers() -> None:
    derived: dict[str, SearchSpace] = {}
    for name in catalog():
        chosen = load(name)
        model = chosen.base.replace("{scale}", chosen.scale)
        if model not in derived:
            derived[model] = parse(yaml_text.parse_yaml(derive(model)))
        offered = {slot.layer: set(slot.operators) for slot in derived[model].slots}
        in_layers = [slot for slot in chosen.slots if slot.feeds is None]
        assert all(set(slot.operators) <= offered[slot.layer] for slot in in_layers)


def test_commented_keys_of_a_derived_space_are_valid() -> None:
    lines = derive("yolov8n.yaml").splitlines()
    first = lines.index("# insert:")
    taken = [line.removeprefix("# ") for line in lines[first:]]
    space = parse(yaml_text.parse_yaml("\n".join([*lines[:first], *taken])))
    assert {factor.name for factor in space.scaling_factors} == {"depth", "width.P4", "width.P5", "image_size"}
    assert [slot.name for slot in space.slots if slot.feeds] == ["after-9"]


def test_space_is_derived_from_a_file_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(dict(bases.load("yolov5{scale}.yaml", "n").document)), encoding="utf-8")
    written = derive(str(path))
    assert f"name: mine\nbase: {path}\n" in written
    assert parse(yaml_text.parse_yaml(written)).slots


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("yolov8n-seg.yaml", "only detection models can be searched"),
        ("nothing.yaml", "nothing.yaml: no such file or model"),
        ("yolov8n.pt", r"yolov8n.pt: no such file or model \(did you mean 'yolov8n.yaml'\?\)"),
    ],
)
def test_model_without_a_space_is_refused(model: str, expected: str) -> None:
    with pytest.raises(SpecError, match=expected):
        derive(model)


WORDS: dict[str, list[Any]] = {
    "Conv": [64, 3, 1], "ConvTranspose": [64, 2, 1], "GhostConv": [64, 3, 1], "Bottleneck": [64], "SPPF": [64, 5],
    "GhostBottleneck": [256], "SPP": [64, [5, 9, 13]], "C2fPSA": [256], "C2PSA": [256], "DWConv": [64, 3], "PSA": [256],
    "Focus": [64, 3], "BottleneckCSP": [64], "C1": [64], "C2": [64], "C2f": [64, True], "C3k2": [64, False], "C3": [64],
    "RepNCSPELAN4": [64, 64, 32, 1], "ELAN1": [64, 64, 32], "ADown": [64], "AConv": [64], "SPPELAN": [64, 32],
    "C3TR": [64], "C3Ghost": [64], "nn.ConvTranspose2d": [64, 2, 2], "DWConvTranspose2d": [64, 2, 2], "C3x": [64],
    "RepC3": [64], "SCDown": [64, 3, 2], "C2fCIB": [64, True], "A2C2f": [256, True, 1],
    "AIFI": [200, 4], "HGStem": [16, 64], "HGBlock": [24, 64, 3, True, False], "ResNetLayer": [256, 32, 1, False, 1],
    "nn.BatchNorm2d": [256], "CBLinear": [[32, 256]], "Concat": [1], "nn.Upsample": [None, 2, "nearest"],
    "nn.MaxPool2d": [2, 2, 0], "nn.Identity": [], "nn.SiLU": [], "nn.Conv2d": [256, 256, 3, 1, 1],
    "nn.GroupNorm": [8, 256], "RepConv": [256, 256, 3], "RepVGGDW": [256], "Conv2": [256, 256, 3],
}  # fmt: skip
"""Modules of `parse_model` that `nas cost` counts, with arguments for 256 input channels."""
AT_SCALES = {"": None, "m": {"n": [0.33, 1.0, 1024], "m": [0.67, 1.0, 1024]}, "s": {"s": [0.5, 2.0, 128]}}


@pytest.mark.parametrize("scale", AT_SCALES)
@pytest.mark.parametrize("module", WORDS)
def test_derive_accepts_every_module_that_is_counted(module: str, scale: str, tmp_path: Path) -> None:
    rows: list[Any] = [[-1, 1, "Conv", [128, 3, 2]], [-1, 1, "C3", [256, False]]]
    rows.append([[0, 1] if module == "Concat" else -1, 2 if module == "HGBlock" else 1, module, WORDS[module]])
    rows += [[[2, 1], 1, "CBFuse", [[1]]]] if module == "CBLinear" else []
    head = [[-1, 1, "C3", [64]], [[-1], 1, "Detect", ["nc"]]]
    document = {"nc": 2, "backbone": rows, "head": head}
    document |= {"scales": AT_SCALES[scale]} if scale else {}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    counted = build.skeleton(model_reader.read_model(str(path), scale=scale or None).document, 2)
    space = parse(yaml_text.parse_yaml(derive(str(path), scale=scale or None)))
    assert repr(build.skeleton(bases.load(space.base, space.scale).document, 2)) == repr(counted)
    assert repr(build.skeleton(space.stock.document(2), 2)) == repr(counted)


def test_list_of_modules_has_all_of_ultralytics() -> None:
    """Read the source of `parse_model`: its sets of modules are local variables."""
    tree = ast.parse(dedent(inspect.getsource(tasks.parse_model)))
    (listed,) = [
        node.value.args[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.targets[0]) == "base_modules"
    ]
    assert isinstance(listed, ast.Set)
    names = {ast.unparse(element).removeprefix("torch.") for element in listed.elts}
    assert names - {"Classify"} == bases._WITH_CHANNELS
    assert names - {"Classify", "C2fAttn"} <= set(WORDS)  # that one takes a text's embedding, too
