"""Costs of models that are counted and not searched, against Ultralytics' models and the figures in its files."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from ultralytics.nn import tasks

from search_spaces import model_checks, model_reader
from search_spaces.errors import CostError, SpecError
from trials.costing import other_tasks
from trials.costing.cost import Cost

MODELS = {
    "yolo11n-seg.yaml": tasks.SegmentationModel,
    "yolo26n-seg.yaml": tasks.SegmentationModel,
    "yolo11n-pose.yaml": tasks.PoseModel,
    "yolo26n-pose.yaml": tasks.PoseModel,
    "yolov8n-obb.yaml": tasks.OBBModel,
    "yolo26n-obb.yaml": tasks.OBBModel,
    "yolo11n-cls.yaml": tasks.ClassificationModel,
    "yolo26n-sem.yaml": tasks.SemanticSegmentationModel,
    "yolo26n-depth.yaml": tasks.DepthModel,
    "yolov8n-rtdetr.yaml": tasks.RTDETRDetectionModel,
    "yolov8n-world.yaml": tasks.WorldModel,
    "yolov8n-worldv2.yaml": tasks.WorldModel,
    "yoloe-11n.yaml": tasks.YOLOEModel,
    "yoloe-v8n-seg.yaml": tasks.YOLOESegModel,
    "yoloe-26n-seg.yaml": tasks.YOLOESegModel,
}
"""A model of every head, with Ultralytics' class for it."""

PRINTED = {
    "yolo11n-seg.yaml": (640, 80, 2_876_848, 10.5),
    "yolo11s-seg.yaml": (640, 80, 10_113_248, 35.8),
    "yolo26n-seg.yaml": (640, 80, 3_126_280, 10.5),
    "yolo11n-pose.yaml": (640, 80, 2_908_507, 7.7),
    "yolov8n-obb.yaml": (640, 80, 3_228_867, 9.1),
    "yolo26n-obb.yaml": (1024, 80, 2_715_614, 16.9),
    "yolo11n-cls.yaml": (224, 80, 1_633_584, 0.5),
}
"""Image size, classes of the parameters, parameters and GFLOPs in the comments of Ultralytics' files.

The GFLOPs of a classifier are those of the file's 1000 classes. No size is printed: it is the one that explains them.
"""

SMALL = 256


def counted(name: str, classes: int | None = None, image_size: int = SMALL, *, deployed: bool = False) -> Cost:
    document = model_reader.read_model(name, or_counted=True).document
    return other_tasks.measure(document, classes or document["nc"], image_size, deployed=deployed)


def params_of(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def multiply_adds(model: nn.Module) -> int:
    """Count the whole of Ultralytics' model with PyTorch's own counter, and four products for each sampled value."""
    sampling = {torch.ops.aten.grid_sampler_2d: lambda *_, out_shape, **__: 2 * 4 * torch.Size(out_shape).numel()}
    counter = FlopCounterMode(display=False, custom_mapping=sampling)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(value=False)  # one operation, for which there is no formula
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            model(torch.zeros(1, 3, SMALL, SMALL))
    finally:
        torch.backends.mha.set_fastpath_enabled(value=fast)
    return int(counter.get_total_flops() // 2)


@pytest.mark.parametrize("name", MODELS)
def test_costs_are_those_of_ultralytics_model(name: str) -> None:
    model = MODELS[name](name, verbose=False).eval()
    built, deployed = counted(name), counted(name, deployed=True)
    assert (built.params, built.macs) == (params_of(model), multiply_adds(model))
    model.fuse(verbose=False)
    assert (deployed.params, deployed.macs) == (params_of(model), multiply_adds(model))
    assert built.layers[-1].module == type(model.model[-1]).__name__


def test_every_head_is_counted() -> None:
    heads = {model_reader.read_model(name, or_counted=True).document["head"][-1][2] for name in MODELS}
    assert heads == {*model_checks.COUNTED_HEADS}


@pytest.mark.parametrize("name", PRINTED)
def test_the_difference_to_printed_figures_is_explained(name: str) -> None:
    """Ultralytics counted an image of 32 px and multiplied by the area, which errs in attention and in linear layers.

    It counts batch norm, and counted transposed convolutions four times until YOLO26.
    """
    size, classes, params, gflops = PRINTED[name]
    assert counted(name, classes).params == params
    extra: list[float] = []

    def count_norm(_: nn.Module, __: Any, returned: Any) -> None:
        extra.append(4 * returned.numel())

    def count_transposed(module: Any, received: Any, _: Any) -> None:
        if "26" not in name:
            extra.append(3 * module.weight.numel() * received[0].shape[-1] ** 2)

    model = MODELS.get(name, tasks.SegmentationModel)(name, verbose=False).eval()
    for module in model.modules():  # the activation is one module for all models
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(count_norm)
        elif isinstance(module, nn.ConvTranspose2d):
            module.register_forward_hook(count_transposed)
    with torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    theirs = 2 * (counted(name, image_size=32).macs + sum(extra)) * (size / 32) ** 2 / 1e9
    assert round(theirs, 1) == gflops


def test_exact_figures_at_the_usual_size() -> None:
    """Worked out by `test_the_difference_to_printed_figures_is_explained`; a change here is a change of the count."""
    expected = {"yolo11n-seg.yaml": 9.801, "yolo11n-pose.yaml": 7.637, "yolov8n-obb.yaml": 8.989}
    assert {name: round(counted(name, image_size=640).gflops, 3) for name in expected} == expected
    assert round(counted("yolo11n-cls.yaml", image_size=other_tasks.CLASSIFIER_SIZE).gflops, 3) == 0.392


def test_what_is_not_counted_is_named() -> None:
    assert [*counted("yolov8n-world.yaml").uncounted.values()] == [("aten::linalg_vector_norm",)]


def test_operators_in_these_models_keep_their_rules() -> None:
    document = model_reader.read_model("yolov8n-seg.yaml", or_counted=True).document
    row = next(row for row in document["backbone"] if row[2] == "C2f")
    plain = other_tasks.measure(document, 80, 64)
    row[2], row[3] = "C2f_DCNv4", [*row[3], {}]
    changed = other_tasks.measure(document, 80, 64)
    assert changed.layers[2].module == "C2f_DCNv4"
    assert [*changed.layers[3:]] == [*plain.layers[3:]]
    assert changed.layers[2].macs != plain.layers[2].macs


def test_a_head_that_cannot_be_counted_is_named() -> None:
    document = model_reader.read_model("yoloe-11.yaml", or_counted=True).document
    document["head"][-1][2:] = ["CBFuse", [[0, 0, 0]]]
    with pytest.raises(SpecError, match=r"head\[12\]: a head is expected in the last row, got CBFuse \(Detect, "):
        model_checks.require_detection(document, or_counted=True)


def test_a_size_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(CostError, match="does not take images of 33 px"):
        counted("yolov8n-seg.yaml", image_size=33)
