"""Model files of the YOLOv5 repository's hub: parameters as printed, against plain PyTorch and what the files say."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import nn

from search_spaces import build, foreign_files

Row = list[Any]

NC, ANCHORS = 80, 3
UP: Row = [-1, 1, "nn.Upsample", [None, 2, "nearest"]]


def conv(channels: int, kernel: int = 1, stride: int = 1, source: int = -1) -> Row:
    return [source, 1, "Conv", [channels, kernel, stride]]


def block(channels: int, repeats: int = 3, name: str = "C3", **further: bool) -> Row:
    return [-1, repeats, name, [channels, *further.values()]]


def backbone(*deepest: int, last: str = "C3") -> list[Row]:
    """Return five stages or more, each of a strided convolution and a block, and a pyramid of maxima."""
    rows: list[Row] = [[-1, 1, "Conv", [64, 6, 2, 2]]]
    widths = (128, 256, 512, *deepest)
    for channels, repeats in zip(widths, (3, 6, 9, *[3] * len(deepest)), strict=True):
        name = last if channels == widths[-1] else "C3"
        rows += [conv(channels, 3, 2), block(channels, repeats, name)]
    return [*rows, [-1, 1, "SPPF", [widths[-1], 5]]]


def raised(source: int, channels: int, repeats: int = 3) -> list[Row]:
    """Return the rows of a top-down step: narrowed, enlarged, joined with a layer, and a block."""
    return [conv(channels), UP, [[-1, source], 1, "Concat", [1]], block(channels, repeats, shortcut=False)]


def lowered(channels: int, sources: Sequence[int], out: int) -> list[Row]:
    return [conv(channels, 3, 2), [[-1, *sources], 1, "Concat", [1]], block(out, shortcut=False)]


def file_of(
    rows: list[Row], neck: list[Row], maps: list[int], depth: float = 1.0, width: float = 1.0
) -> dict[str, Any]:
    head = [*neck, [maps, 1, "Detect", ["nc", "anchors"]]]
    factors = {"depth_multiple": depth, "width_multiple": width}
    return {"nc": NC, **factors, "anchors": ANCHORS, "backbone": rows, "head": head}


def of_three(**factors: float) -> dict[str, Any]:
    """Return a file of three maps, whose neck leads down and up again."""
    neck = [*raised(6, 512), *raised(4, 256), *lowered(256, [14], 512), *lowered(512, [10], 1024)]
    return file_of(backbone(1024), neck, [17, 20, 23], **factors)


def p2() -> dict[str, Any]:
    down = [*raised(6, 512), *raised(4, 256), *raised(2, 128, repeats=1)]
    up = [*lowered(128, [18], 256), *lowered(256, [14], 512), *lowered(512, [10], 1024)]
    return file_of(backbone(1024), [*down, *up], [21, 24, 27, 30])


def p34() -> dict[str, Any]:
    neck = [*raised(6, 512), *raised(4, 256), *lowered(256, [14], 512)]
    return file_of(backbone(1024), neck, [17, 20], depth=0.33, width=0.5)


def p6() -> dict[str, Any]:
    down = [*raised(8, 768), *raised(6, 512), *raised(4, 256)]
    up = [*lowered(256, [20], 512), *lowered(512, [16], 768), *lowered(768, [12], 1024)]
    return file_of(backbone(768, 1024), [*down, *up], [23, 26, 29, 32])


def p7() -> dict[str, Any]:
    down = [*raised(10, 1024), *raised(8, 768), *raised(6, 512), *raised(4, 256)]
    up = [*lowered(256, [26], 512), *lowered(512, [22], 768), *lowered(768, [18], 1024), *lowered(1024, [14], 1280)]
    return file_of(backbone(768, 1024, 1280), [*down, *up], [29, 32, 35, 38, 41])


def bifpn() -> dict[str, Any]:
    neck = [*raised(6, 512), *raised(4, 256), *lowered(256, [14, 6], 512), *lowered(512, [10], 1024)]
    return file_of(backbone(1024), neck, [17, 20, 23])


def fpn() -> dict[str, Any]:
    joined: list[Row] = []
    for source, channels in ((6, 512), (4, 256)):
        joined += [UP, [[-1, source], 1, "Concat", [1]], conv(channels), block(channels, shortcut=False)]
    return file_of(backbone(1024), [block(1024, shortcut=False), *joined], [18, 14, 10])


def ghost() -> dict[str, Any]:
    """Return a file whose convolutions and blocks but the first are Ghost's."""
    document = of_three(depth=0.33, width=0.5)
    names = {"Conv": "GhostConv", "C3": "C3Ghost"}
    for section in ("backbone", "head"):
        document[section] = [[*row[:2], names.get(row[2], row[2]), row[3]] for row in document[section]]
    document["backbone"][0][2] = "Conv"
    return document


def transformer() -> dict[str, Any]:
    return of_three(depth=0.33, width=0.5) | {"backbone": backbone(1024, last="C3TR")}


HUB = {
    "yolov5s": (of_three(depth=0.33, width=0.5), 7_235_389),
    "yolov5n": (of_three(depth=0.33, width=0.25), 1_872_157),
    "yolov5-panet": (of_three(), 46_563_709),
    "yolov5-p2": (p2(), 47_493_372),
    "yolov5-p34": (p34(), 5_331_518),
    "yolov5-p6": (p6(), 76_770_172),
    "yolov5-p7": (p7(), 144_281_723),
    "yolov5-bifpn": (bifpn(), 46_825_853),
    "yolov5-fpn": (fpn(), 41_117_565),
    "yolov5s-ghost": (ghost(), 3_897_605),
    "yolov5s-transformer": (transformer(), 7_235_645),
}
"""Files of the hub, and their parameters with 80 classes."""


class Plain(nn.ModuleList):
    """Layers whose parameters alone matter."""

    def add(self, *layers: nn.Module) -> None:
        self.extend(layers)


def plain_conv(c_in: int, c_out: int, kernel: int = 1, groups: int = 1) -> Plain:
    return Plain([nn.Conv2d(c_in, c_out, kernel, groups=groups, bias=False), nn.BatchNorm2d(c_out)])


def plain_ghost(c_in: int, c_out: int, kernel: int = 1) -> Plain:
    half = c_out // 2
    return Plain([plain_conv(c_in, half, kernel), plain_conv(half, half, 5, half)])


def inner(name: str, channels: int) -> Iterator[nn.Module]:
    """Yield the layers of one inner block."""
    match name:
        case "C3":
            yield from (plain_conv(channels, channels), plain_conv(channels, channels, 3))
        case "C3Ghost":
            half = channels // 2
            yield from (plain_ghost(channels, half), plain_ghost(half, channels))
        case "C3TR":
            yield from (nn.Linear(channels, channels, bias=False) for _ in range(5))
            yield nn.MultiheadAttention(channels, 4)


def plain_block(name: str, c_in: int, c_out: int, repeats: int) -> Plain:
    half = c_out // 2
    layers = Plain([plain_conv(c_in, half), plain_conv(c_in, half), plain_conv(2 * half, c_out)])
    for _ in range(repeats):
        layers.add(*inner(name, half))
    if name == "C3TR":
        layers.add(nn.Linear(half, half))
    return layers


def plain_layers(document: dict[str, Any]) -> Iterator[nn.Module]:
    """Yield what the repository's own parser makes of each row, without forward passes."""
    channels = [3]
    for source, repeats, name, (first, *others) in document["backbone"] + document["head"]:
        before = channels[-1] if source == -1 else 0
        wide = math.ceil(first * document["width_multiple"] / 8) * 8 if isinstance(first, int) else before
        times = max(round(repeats * document["depth_multiple"]), 1) if repeats > 1 else repeats
        match name:
            case "Conv":
                yield plain_conv(before, wide, others[0])
            case "GhostConv":
                yield plain_ghost(before, wide, others[0])
            case "SPPF":
                yield Plain([plain_conv(before, before // 2), plain_conv(2 * before, wide)])
            case "Concat":
                wide = sum(channels[-1] if one == -1 else channels[one + 1] for one in source)
            case "Detect":
                yield Plain(nn.Conv2d(channels[one + 1], ANCHORS * (NC + 5), 1) for one in source)
            case "C3" | "C3Ghost" | "C3TR":
                yield plain_block(name, before, wide, times)
        channels.append(wide)


def params(*layers: nn.Module) -> int:
    return sum(one.numel() for layer in layers for one in layer.parameters())


@pytest.mark.parametrize("name", HUB)
def test_file_of_the_hub_has_the_parameters_of_the_repository(name: str) -> None:
    document, expected = HUB[name]
    translated = foreign_files.translate(document, as_printed=True).document
    with torch.device("meta"):
        plain = params(*plain_layers(document))
    assert params(build.skeleton(translated, NC)) == plain == expected


@pytest.mark.parametrize("name", HUB)
def test_file_of_the_hub_is_built_with_a_head_that_is_trained(name: str) -> None:
    document, expected = HUB[name]
    translated = foreign_files.translate(document).document
    assert translated["head"][-1][2:] == ["Detect", ["nc"]]
    assert params(build.skeleton(translated, NC)) > expected
