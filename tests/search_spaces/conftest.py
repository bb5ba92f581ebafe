from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics.nn import tasks

from search_spaces import auxiliary
from trials.contracts.probing import as_if_trained


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="module")
def no_kernel_compilation() -> Iterator[None]:
    """oneDNN compiles a kernel for every new shape: seconds a model, where the arithmetic takes milliseconds.

    Put back after each file: trainings of other folders, in this process and another, must give the same bits.
    """
    backend: Any = torch.backends.mkldnn
    was, backend.enabled = backend.enabled, False
    yield
    backend.enabled = was


@pytest.fixture(scope="session")
def awake() -> Callable[[nn.Module], nn.Module]:
    """A copy of a module with no parameter at its zero start and batch norm statistics of its own."""
    return as_if_trained


@pytest.fixture(scope="session")
def published() -> Callable[[str], dict[str, Any]]:
    """The model of an article, by its operator, in the words of the repository that it is written for."""
    models = {"UIB": _yolov5n_uib, "DynamicConv": _yolov5l_dynamic, "DySample": _yolov8n_dysample}
    models |= {"MMQA": _yolov9c_mmqa, "DCNv4": _yolov9c_dcnv4}
    return lambda operator: models[operator]()


def _in_words(
    rows: list[list[Any]], words: dict[str, str], arguments: dict[str, list[Any]] | None = None
) -> list[list[Any]]:
    """Rows of Ultralytics' with other names for some modules, and other arguments."""
    return [[*row[:2], words.get(row[2], row[2]), (arguments or {}).get(row[2], row[3])] for row in rows]


def _yolov5(depth: float, width: float, words: dict[str, str]) -> dict[str, Any]:
    stock = tasks.yaml_model_load("yolov5n.yaml")
    return {
        "nc": 80,
        "depth_multiple": depth,
        "width_multiple": width,
        "anchors": [[8, 8, 16, 16, 24, 24]] * 3,
        "backbone": _in_words(stock["backbone"], words),
        "head": _in_words(stock["head"], words, {"Detect": ["nc", "anchors"]}),
    }


def _yolov5n_uib() -> dict[str, Any]:
    return _yolov5(0.33, 0.25, {"C3": "C3_UIB"})


def _yolov5l_dynamic() -> dict[str, Any]:
    document = _yolov5(1.0, 1.0, {})
    document["head"][0] = [-1, 1, "Dynamic_conv2d", [512, 1, 1]]
    document["head"][4] = [-1, 1, "Dynamic_conv2d", [256, 1, 1]]
    return document


def _yolov8n_dysample() -> dict[str, Any]:
    stock = tasks.yaml_model_load("yolov8n.yaml")
    head = _in_words(stock["head"], {"nn.Upsample": "DySample"}, {"nn.Upsample": []})
    return {"nc": 80, "scales": {"n": stock["scales"]["n"]}, "backbone": stock["backbone"], "head": head}


def _yolov9c(classes: int, words: dict[str, str]) -> dict[str, Any]:
    """The graph that YOLOv9-c is trained with; words are the backbone's, which ends before the pooling there."""
    graph = auxiliary.with_branch(tasks.yaml_model_load("yolov9c.yaml"))
    *backbone, pooling = graph["backbone"]
    return {
        "nc": classes,
        "depth_multiple": 1.0,
        "width_multiple": 1.0,
        "anchors": 3,
        "backbone": _in_words(backbone, {"nn.Identity": "Silence"} | words),
        "head": _in_words([pooling, *graph["head"]], {"DualDetect": "DualDDetect"}),
    }


def _yolov9c_mmqa() -> dict[str, Any]:
    return _yolov9c(1, {"RepNCSPELAN4": "MMQARepNCSPELAN4"})


def _yolov9c_dcnv4() -> dict[str, Any]:
    """With one layer more, which `CBLinear` does not read."""
    document = _yolov9c(80, {})
    new = len(document["backbone"])
    for row in document["head"]:
        moved = [source + (source >= new) for source in (row[0] if isinstance(row[0], list) else [row[0]])]
        row[0] = moved if isinstance(row[0], list) else moved[0]
    document["backbone"].append([-1, 1, "Bottleneck_DCNV4", [512, 512]])
    return document
