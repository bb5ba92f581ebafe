"""Layers of the YOLOv5 repository that Ultralytics does not have."""

from typing import Any

import pytest
import torch
from torch import Tensor

from search_spaces import build, foreign_files, yolov5

EVERY_LAYER: dict[str, Any] = {
    "nc": 3,
    "anchors": 3,
    "backbone": [
        [-1, 1, "Contract", [2]],
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "CrossConv", [16, 3]],
        [-1, 1, "MixConv2d", [32, [1, 3, 5], 2]],
        [-1, 1, "C3SPP", [32, [3, 5]]],
        [[-1, -2], 1, "Sum", [2, True]],
        [[-1, -2, -3], 1, "Sum", [3]],
        [-1, 1, "Expand", [2]],
    ],
    "head": [[[6, 7], 1, "Detect", ["nc", "anchors"]]],
}


def test_every_layer_trains() -> None:
    model = build.model(foreign_files.translate(EVERY_LAYER).document, 3)
    model.train()
    outputs: Any = model(torch.rand(2, 3, 64, 96))
    torch.stack([one.sum() for one in outputs.values() if isinstance(one, Tensor)]).sum().backward()
    assert all(parameter.grad is not None for name, parameter in model.named_parameters() if "dfl" not in name)


def test_contract_keeps_the_order_of_the_repository() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert yolov5.Contract()(x).flatten(2)[0].tolist() == [[0, 2, 8, 10], [1, 3, 9, 11], [4, 6, 12, 14], [5, 7, 13, 15]]


@pytest.mark.parametrize("gain", [2, 3])
def test_expand_is_the_inverse_of_contract(gain: int) -> None:
    x = torch.rand(2, 5, 6, 12)
    assert torch.equal(yolov5.Expand(gain)(yolov5.Contract(gain)(x)), x)


def test_mixed_kernels_share_the_channels() -> None:
    layers: Any = yolov5.MixConv2d(12, 32, (1, 3, 5)).layers
    shapes = [(one.out_channels, one.kernel_size[0], one.groups) for one in layers]
    assert shapes == [(11, 1, 1), (11, 3, 1), (10, 5, 2)]


def test_sum_has_a_weight_for_each_map_behind_the_first() -> None:
    layer = yolov5.Sum(3, weight=True)
    assert layer.w is not None
    one = torch.ones(1, 1, 1, 1)
    first, second = (2 * layer.w.sigmoid()).tolist()
    assert layer([one, one, 2 * one]).item() == pytest.approx(1 + first + 2 * second)
    assert yolov5.Sum(3)([one, one, one]).item() == 3


def test_cross_convolution_adds_its_input_where_channels_are_the_same() -> None:
    x = torch.rand(1, 8, 6, 6)
    plain, added = yolov5.CrossConv(8, 8), yolov5.CrossConv(8, 8, shortcut=True)
    added.load_state_dict(plain.state_dict())
    assert torch.allclose(added.eval()(x), x + plain.eval()(x))
    assert not yolov5.CrossConv(8, 16, shortcut=True).shortcut
