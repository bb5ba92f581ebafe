from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from ultralytics.nn import tasks

from search_spaces import auxiliary
from search_spaces.operators import OPERATORS, Site, Value
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
    """Return a copy of a module with random batch norm statistics and without parameters that start at 0."""
    return as_if_trained


@pytest.fixture(scope="session")
def built() -> Callable[..., Any]:
    """Build an operator by its name, at a site where it is legal, in eval mode."""

    def building(name: str, site: Site, **parameters: Value) -> Any:
        record = OPERATORS[name]
        given = record.complete(parameters)
        assert record.incompatibility(site, given) is None
        return record.build(site, **given).eval()

    return building


@pytest.fixture(scope="session")
def conv_norm() -> Callable[..., Tensor]:
    """Apply a module's convolution of stride 1, its batch norm and SiLU, as functions of its numbers."""

    def applied(module: nn.Module, name: str, x: Tensor, kernel: int) -> Tensor:
        w = module.state_dict()
        y = F.conv2d(x, w[f"{name}.conv.weight"], padding=kernel // 2)
        mean, variance, weight, bias = (
            w[f"{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.silu(F.batch_norm(y, mean, variance, weight, bias, eps=1e-5))

    return applied


@pytest.fixture(scope="session")
def published() -> Callable[[str], dict[str, Any]]:
    """Return the model file of an article, by its operator, as written for the article's repository."""
    models = {"UIB": _yolov5n_uib, "DynamicConv": _yolov5l_dynamic, "DySample": _yolov8n_dysample}
    models |= {"MMQA": _yolov9c_mmqa, "DCNv4": _yolov9c_dcnv4}
    return lambda operator: models[operator]()


def _as_foreign(
    rows: list[list[Any]], names: dict[str, str], arguments: dict[str, list[Any]] | None = None
) -> list[list[Any]]:
    """Return rows of Ultralytics with other names and arguments for some modules."""
    return [[*row[:2], names.get(row[2], row[2]), (arguments or {}).get(row[2], row[3])] for row in rows]


def _yolov5(depth: float, width: float, names: dict[str, str]) -> dict[str, Any]:
    stock = tasks.yaml_model_load("yolov5n.yaml")
    return {
        "nc": 80,
        "depth_multiple": depth,
        "width_multiple": width,
        "anchors": [[8, 8, 16, 16, 24, 24]] * 3,
        "backbone": _as_foreign(stock["backbone"], names),
        "head": _as_foreign(stock["head"], names, {"Detect": ["nc", "anchors"]}),
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
    head = _as_foreign(stock["head"], {"nn.Upsample": "DySample"}, {"nn.Upsample": []})
    return {"nc": 80, "scales": {"n": stock["scales"]["n"]}, "backbone": stock["backbone"], "head": head}


def _yolov9c(classes: int, names: dict[str, str]) -> dict[str, Any]:
    """Return YOLOv9-c with its auxiliary branch, and other modules in the backbone, which ends before the pooling."""
    graph = auxiliary.with_branch(tasks.yaml_model_load("yolov9c.yaml"))
    *backbone, pooling = graph["backbone"]
    return {
        "nc": classes,
        "depth_multiple": 1.0,
        "width_multiple": 1.0,
        "anchors": 3,
        "backbone": _as_foreign(backbone, {"nn.Identity": "Silence"} | names),
        "head": _as_foreign([pooling, *graph["head"]], {"DualDetect": "DualDDetect"}),
    }


def _yolov9c_mmqa() -> dict[str, Any]:
    return _yolov9c(1, {"RepNCSPELAN4": "MMQARepNCSPELAN4"})


def _yolov9c_dcnv4() -> dict[str, Any]:
    """Return the same with one more layer, which `CBLinear` does not read."""
    document = _yolov9c(80, {})
    new = len(document["backbone"])
    for row in document["head"]:
        moved = [source + (source >= new) for source in (row[0] if isinstance(row[0], list) else [row[0]])]
        row[0] = moved if isinstance(row[0], list) else moved[0]
    document["backbone"].append([-1, 1, "Bottleneck_DCNV4", [512, 512]])
    return document
