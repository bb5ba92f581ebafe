"""Exact cost of models that are counted and not searched: of other tasks, RT-DETR, YOLO-World and YOLOE.

Their layers are counted by the operations that PyTorch runs (`dispatch`), since Ultralytics' decoders and attention
with text compute matrix products and bilinear sampling outside modules. Of YOLO-World and YOLOE the text is encoded
once, by another model, which is not counted; the products with its features are.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.modules.block import C2fAttn, ImagePoolingAttn
from ultralytics.nn.modules.head import Detect, WorldDetect, YOLOEDetect

from search_spaces import OPERATORS, build, model_checks, model_file
from search_spaces.trace import Traced
from trials.costing import cost
from trials.costing.cost import Cost, LayerCost, count_layer, total
from trials.costing.layers import passed_through

CLASSIFIER_SIZE = 224
"""Image size of classifiers, in pixels, which Ultralytics trains and tabulates at this size."""

_TEXT_CHANNELS = 512
"""Length of the features of one class's name: CLIP's, as in Ultralytics' `WorldModel`."""


def usual_size(document: Mapping[str, Any], other: int) -> int:
    """Return the image size at which a model is counted if none is given: a classifier's own, or else `other`."""
    return CLASSIFIER_SIZE if document["head"][-1][2] == "Classify" else other


def measure_any(document: Mapping[str, Any], classes: int, image_size: int, *, deployed: bool) -> Cost:
    """Count the cost of a model YAML, of a detection model or of one that is only counted; arguments as `measure`'s."""
    counted_only = model_checks.is_counted_only(document)
    return (measure if counted_only else cost.measure)(document, classes, image_size, deployed=deployed)


def measure(document: Mapping[str, Any], classes: int, image_size: int, *, deployed: bool = True) -> Cost:
    """Count the cost of a model YAML with one of `model_checks.COUNTED_HEADS`.

    Args:
        classes: number of classes of the head; of YOLO-World and YOLOE also of the names that are looked for.
        image_size: in pixels, a multiple of the model's stride.
        deployed: count the model as Ultralytics' `fuse()` leaves it.

    Raises:
        CostError: a layer cannot be counted, or nothing could.
        SpecError: the document cannot be built.
    """
    model_checks.require_detection(document, or_counted=True)
    layers = build.skeleton(document, classes)
    head: Any = layers[-1]
    if isinstance(head, Detect):
        head.stride = torch.full((head.nl,), 32.0)  # any number: decoding on the meta device only needs one
    text = torch.zeros(1, classes, _TEXT_CHANNELS, device="meta")
    for index, layer in enumerate(layers):
        if isinstance(layer, C2fAttn | ImagePoolingAttn | WorldDetect | YOLOEDetect):
            layers[index] = build.replace_layer(layer, _WithText(layer, text))
    steps = passed_through(layers, image_size, channels=model_file.image_channels(document))
    return total([_count(step, deployed=deployed) for step in steps], image_size, deployed)


class _WithText(nn.Module):
    """Layer of YOLO-World or YOLOE as a module that reads maps alone.

    All such layers read the same features here: `ImagePoolingAttn` changes their numbers, and not their shape.
    """

    def __init__(self, layer: nn.Module, text: Tensor) -> None:
        super().__init__()
        self.layer, self.text = layer, text

    def forward(self, x: Any) -> Any:
        """Pass maps and the features of the text: YOLOE's last map. `WorldDetect` writes into its list."""
        if isinstance(self.layer, YOLOEDetect):
            return self.layer([*x, self.text])
        return self.layer(list(x) if isinstance(x, list) else x, self.text)


def _count(step: Traced, *, deployed: bool) -> LayerCost:
    """Count a layer by its operations, unless an operator in it has a rule of its own."""
    rules = tuple(record.module for record in OPERATORS.values())
    has_operator = any(isinstance(module, rules) for module in step.layer.modules())
    counted = count_layer(step.layer, step.received, deployed=deployed, by_operations=not has_operator)
    return replace(counted, module=type(step.layer.layer).__name__) if isinstance(step.layer, _WithText) else counted
