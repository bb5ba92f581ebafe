"""Heads of the YOLOv5, YOLOv7 and YOLOv9 repositories for other tasks: parameters, and what can be done with them."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import nn

from search_spaces import build, foreign_files, model_reader, other_heads
from search_spaces.errors import SpecError
from trials.costing import other_tasks

MAPS = (32, 64)
"""Channels of the maps; a head with prototypes of their own reads further ones."""
ANCHORS = [[1, 2, 3, 4, 5, 6]] * len(MAPS)
NC, EACH = 2, 3


def document(head: str, arguments: list[Any], maps: tuple[int, ...] = MAPS, **keys: Any) -> dict[str, Any]:
    rows = [[-1 if i == 0 else 0, 1, "Conv", [c, 3, 2 if i == 0 else 1]] for i, c in enumerate(maps)]
    return {"nc": NC, "backbone": rows, "head": [[list(range(len(maps))), 1, head, arguments]], **keys}


def params(*layers: nn.Module) -> int:
    return sum(one.numel() for layer in layers for one in layer.parameters())


def conv(c_in: int, c_out: int, kernel: int = 1, groups: int = 1) -> int:
    """Return the parameters of a convolution without bias and its norm."""
    return c_in * c_out // groups * kernel**2 + 2 * c_out


def bare(c_in: int, c_out: int, groups: int = 1) -> int:
    """Return the parameters of a pointwise convolution with bias."""
    return c_in * c_out // groups + c_out


def anchored(outputs: int) -> int:
    return sum(bare(c, EACH * outputs) for c in MAPS)


def implicit(outputs: int) -> int:
    return anchored(outputs) + sum(c + EACH * outputs for c in MAPS)


def boxes(maps: tuple[int, ...], groups: int) -> int:
    c2, c3 = 64, max(maps[0], 2 * NC)
    box = sum(conv(c, c2, 3) + conv(c2, c2, 3, groups) + bare(c2, 64, groups) for c in maps)
    return box + sum(conv(c, c3, 3) + conv(c3, c3, 3) + bare(c3, NC) for c in maps) + 16


def masked(maps: tuple[int, ...], masks: int, groups: int) -> int:
    hidden = max(maps[0] // 4, masks)
    coefficients = sum(conv(c, hidden, 3) + conv(hidden, hidden, 3) + bare(hidden, masks) for c in maps)
    return boxes(maps, groups) + coefficients


def prototypes(channels: int, hidden: int, masks: int) -> int:
    return conv(channels, hidden, 3) + conv(hidden, hidden, 3) + conv(hidden, masks)


def points(channels: int, outputs: int) -> int:
    return 6 * conv(channels, channels, 3, channels) + 5 * conv(channels, channels) + bare(channels, outputs)


SEMANTIC = conv(32, 8, 3) + bare(8, 93 + NC)
CASES: dict[str, tuple[dict[str, Any], int]] = {
    "YOLOv5's masks": (
        document("Segment", ["nc", "anchors", 8, 16], anchors=ANCHORS),
        anchored(NC + 5 + 8) + prototypes(32, 16, 8),
    ),
    "YOLOv7's masks": (
        document("ISegment", ["nc", "anchors", 8, 16], anchors=ANCHORS),
        implicit(NC + 5 + 8) + prototypes(32, 16, 8),
    ),
    "YOLOv7's bins": (document("IBin", ["nc", "anchors"], anchors=ANCHORS), implicit(NC + 3 + 2 * 22)),
    "YOLOv7's key points": (
        document("IKeypoint", ["nc", "anchors", "nkpt"], anchors=ANCHORS, nkpt=4, dw_conv_kpt=True),
        implicit(NC + 5) + sum(points(c, EACH * 3 * 4) for c in MAPS),
    ),
    "key points of one convolution": (
        document("IKeypoint", ["nc", "anchors", 4], anchors=ANCHORS),
        implicit(NC + 5) + sum(bare(c, EACH * 3 * 4) for c in MAPS),
    ),
    "YOLOv9's masks": (document("Segment", ["nc"], anchors=3), masked(MAPS, 32, 1) + prototypes(32, 256, 32)),
    "prototypes of a map": (document("DSegment", ["nc", 8, 16], (*MAPS, 16)), masked(MAPS, 8, 4) + conv(16, 8)),
    "an auxiliary half": (
        document("DualDSegment", ["nc", 8], (*MAPS, *MAPS, 16, 24)),
        2 * masked(MAPS, 8, 4) + conv(16, 8) + conv(24, 8),
    ),
    "things and stuff": (
        document("Panoptic", ["nc", 93, 8, 16], anchors=3),
        masked(MAPS, 8, 1) + prototypes(32, 16, 8) + SEMANTIC,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_head_has_the_parameters_of_its_repository(case: str) -> None:
    written, expected = CASES[case]
    translated = foreign_files.translate(written, as_printed=True).document
    assert params(build.skeleton(translated, NC)[-1]) == expected
    built, deployed = (other_tasks.measure_any(translated, NC, 64, deployed=one) for one in (False, True))
    assert built.params >= deployed.params
    assert built.gflops > 0


@pytest.mark.parametrize("case", [case for case in CASES if "masks" not in case])
def test_head_that_ultralytics_has_nothing_like_is_counted_and_not_searched(case: str, tmp_path: Path) -> None:
    written, expected = CASES[case]
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(written), encoding="utf-8")
    reading = model_reader.read_model(str(tmp_path / "model.yaml"), or_counted=True)
    assert params(build.skeleton(reading.document, NC)[-1]) == expected
    assert any("another task than boxes: it is counted as it is there" in note for note in reading.notes)
    with pytest.raises(
        SpecError, match=r"only detection models can be searched, got yolov\d\.\w+; nas cost counts this"
    ):
        model_reader.read_model(str(tmp_path / "model.yaml"))


@pytest.mark.parametrize(
    ("head", "arguments", "expected"),
    [
        ("IKeypoint", ["nc", "anchors", "many"], "[nc, anchors, nkpt] is expected"),
        ("Panoptic", ["nc", "anchors"], "[nc, stuff, masks, prototypes] is expected"),
        ("DSegment", ["nc", 8, 16, 4], "[nc, masks, prototypes] is expected"),
        ("Segment", ["nc", 32, "anchors"], "[nc, anchors, masks, prototypes] is expected"),
    ],
)
def test_arguments_that_no_repository_has_are_named(head: str, arguments: list[Any], expected: str) -> None:
    with pytest.raises(SpecError) as caught:
        foreign_files.translate(document(head, arguments, anchors=ANCHORS))
    assert expected in str(caught.value)


def test_names_are_those_of_no_other_row() -> None:
    assert all(name.startswith(("yolov5.", "yolov7.", "yolov9.")) for name in other_heads.HEADS)
