"""Contract of users' layers, module by module."""

from pathlib import Path

import pytest
import yaml

from search_spaces import base
from search_spaces.operators import modules
from trials.contracts import cases, export_contract, layer_contract, operator_contract, record_contract


def lines(folder: Path, scale: str = "n") -> list[str]:
    modules.load(folder / "fork.py")
    cases = layer_contract.cases(base.load(str(folder / "mine.yaml"), scale))
    return list(layer_contract.lines({case: operator_contract.check(case) for case in cases}))


def test_class_keeps_every_promise_of_an_operator(fork: Path) -> None:
    modules.load(fork / "fork.py")
    for name in ("EnergyGate", "SpatialChannelGate"):
        operator = modules.offer(name)
        assert operator is not None
        assert record_contract.check(operator) == ()
        tried = cases.of_operator(operator)
        assert operator_contract.check(tried[0]) == ()


def test_layers_of_a_fork_keep_every_promise(fork: Path) -> None:
    assert lines(fork) == [
        "layer 1: StackedDown(16, 32): 16x128x128 to 32x64x64: keeps all promises",
        "layer 2: StackedDown(32, 64): 32x64x64 to 64x32x32: keeps all promises",
        "layer 3: C2f_Partial(64, 64, 2, True): 64x32x32 to 64x32x32: keeps all promises",
        "layer 5: EnergyGate(): 128x16x16 to 128x16x16: keeps all promises",
        "layer 8: Weighted_Concat(1): 128x32x32 and 64x32x32 to 192x32x32: keeps all promises",
        "layer 10: SpatialChannelGate(64): 64x32x32 to 64x32x32: keeps all promises",
    ]


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        (
            "return x * self.activation(y)",
            "return (x * self.activation(y)).detach()",
            "layer 5: EnergyGate(): 128x16x16 to 128x16x16: breaks train, gradient",
        ),
        (
            "self.d = dimension",
            "self.d = dimension; self.plain = torch.ones(3)",
            "layer 8: Weighted_Concat(1): 128x32x32 and 64x32x32 to 192x32x32: breaks state",
        ),
        (
            "nn.Conv2d(channels, channels // reduction, 1), nn.ReLU()",
            "nn.Conv2d(channels, channels // reduction, 1), nn.BatchNorm2d(channels // reduction), nn.ReLU()",
            "layer 10: SpatialChannelGate(64): 64x32x32 to 64x32x32: breaks one_image",
        ),
    ],
)
def test_what_breaks_is_named(before: str, after: str, line: str, fork: Path) -> None:
    text = (fork / "fork.py").read_text(encoding="utf-8")
    assert before in text
    (fork / "fork.py").write_text(text.replace(before, after), encoding="utf-8")
    assert line in lines(fork)


@pytest.mark.parametrize(
    ("added", "verdict"),
    [
        ("y.abs().max().item()", "keeps all promises"),
        ("torch.ones(1).type(y.data.type())", "keeps all promises"),
        ("torch.ones(1, device='cpu')", "breaks device"),
    ],
)
def test_class_that_needs_numbers_is_not_said_to_break_on_other_devices(added: str, verdict: str, fork: Path) -> None:
    text = (fork / "fork.py").read_text(encoding="utf-8")
    forward = "return x * self.activation(y)"
    (fork / "fork.py").write_text(text.replace(forward, f"{forward} + 0 * {added}"), encoding="utf-8")
    assert f"layer 5: EnergyGate(): 128x16x16 to 128x16x16: {verdict}" in lines(fork)


def test_weights_of_five_dimensions_keep_a_model_contiguous_and_break_nothing(fork: Path) -> None:
    text = (
        (fork / "fork.py")
        .read_text(encoding="utf-8")
        .replace("return x * self.activation(y)", "return x * self.activation(y) * self.five.sum()")
    )
    given = "super().__init__()\n        self.five = nn.Parameter(torch.ones(1, 1, 1, 1, 2) / 2)"
    head, gate = text.split("class EnergyGate")
    (fork / "fork.py").write_text(
        f"{head}class EnergyGate{gate.replace('super().__init__()', given, 1)}", encoding="utf-8"
    )
    assert "layer 5: EnergyGate(): 128x16x16 to 128x16x16: keeps all promises" in lines(fork)


def test_layer_of_another_repository_that_only_moves_or_adds_numbers_keeps_every_promise(tmp_path: Path) -> None:
    rows = [[-1, 1, "ReOrg", []], [-1, 1, "Conv", [16, 3, 2]], [[-1, -1], 1, "Shortcut", [1]]]
    document = {"nc": 2, "anchors": 3, "backbone": rows, "head": [[[2], 1, "IDetect", ["nc", "anchors"]]]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(document))
    found = layer_contract.cases(base.load(str(tmp_path / "mine.yaml"), ""))
    assert [one.operator for one in found] == ["yolov7.ReOrg", "yolov7.Shortcut"]
    assert [operator_contract.check(one) for one in found] == [(), ()]


@pytest.mark.parametrize(
    ("size", "why", "remedy"),
    [
        (
            "(None, 1)",
            "adaptive pooling, since output_size is not constant",
            "; nn.AdaptiveAvgPool2d((None, 1)) is x.mean(3, keepdim=True), which exports",
        ),
        ("5", "adaptive_avg_pool2d, input size not accessible", ""),
    ],
)
def test_pooling_that_cannot_be_exported_gets_a_remedy(size: str, why: str, remedy: str, tmp_path: Path) -> None:
    text = "from torch import nn\n\nclass Rows(nn.Module):\n    def __init__(self, c1):\n        super().__init__()\n"
    text += f"        self.pool, self.conv = nn.AdaptiveAvgPool2d({size}), nn.Conv2d(c1, c1, 1)\n\n"
    text += "    def forward(self, x):\n        gate = self.conv(self.pool(x)).sigmoid()\n"
    text += "        return x * nn.functional.interpolate(gate, x.shape[2:])\n"
    (tmp_path / "fork.py").write_text(text, encoding="utf-8")
    modules.load(tmp_path / "fork.py")
    rows = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Rows", []]]
    document = {"nc": 2, "backbone": rows, "head": [[[1], 1, "Detect", ["nc"]]]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(document))
    ((failure,),) = export_contract.check(layer_contract.cases(base.load(str(tmp_path / "mine.yaml"), ""))).values()
    remedy += "; nas export --formats openvino,torchscript needs no ONNX"
    assert failure.seen == f"raises SymbolicValueError: Unsupported: ONNX export of operator {why}{remedy}"


STRIDES = """
import torch
from torch import nn
from ultralytics.nn.modules import Conv

class Stages(nn.Module):
    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList(Conv(8 * i or 3, 8 * i + 8, 3, 2) for i in range(5))

    def forward(self, x):
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[1:]

class Gathered(nn.Module):
    def __init__(self, channels, out):
        super().__init__()
        self.layers = nn.ModuleList(Conv(one, out, 1) for one in channels)

    def forward(self, x):
        sized = [layer(one) for layer, one in zip(self.layers, x)]
        return sum(nn.functional.interpolate(one, sized[0].shape[2:]) for one in sized)

class Pooled(Gathered):
    def forward(self, x):
        return self.layers[0](x[0]) + self.layers[1](x[1].mean((2, 3), keepdim=True))
"""


@pytest.mark.parametrize(
    ("row", "broken"),
    [
        ([[1, 4], 1, "Gathered", [16]], ""),
        ([[2, 3], 1, "Gathered", [16]], ""),
        ([[1, 4], 1, "Pooled", [16]], "one_image"),
    ],
)
def test_maps_are_large_enough_for_the_strides_of_a_layer(row: object, broken: str, tmp_path: Path) -> None:
    (tmp_path / "fork.py").write_text(STRIDES, encoding="utf-8")
    rows = [[-1, 1, "Stages", []], [-1, 1, "Conv", [16, 1, 1]], row]
    document = {"nc": 2, "backbone": rows, "head": [[[6], 1, "Detect", ["nc"]]]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(document))
    whole, fusion = lines(tmp_path, "")
    assert whole.endswith(" and 40x8x8: keeps all promises")
    assert fusion.endswith(f"breaks {broken}" if broken else "keeps all promises")
