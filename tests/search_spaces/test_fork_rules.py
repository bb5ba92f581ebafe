"""Rules of forks' parsers that rows do not show: variants of C3k2 and A2C2f, and YOLOv13's classes."""

import re
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from ultralytics import cfg

from search_spaces import base, build, model_reader, placed
from search_spaces.errors import SpecError
from search_spaces.operators import modules
from search_spaces.placed import PLACED

_OF_ULTRALYTICS = Path(cfg.__file__).parent / "models"


def load(folder: Path, text: str) -> None:
    header = "from torch import nn\nfrom ultralytics.nn.modules import A2C2f, C2fCIB, C3k2, Conv\n"
    (folder / "own.py").write_text(f"{header}\n\n{text}", encoding="utf-8")
    modules.load(folder / "own.py")


def renamed(folder: Path, name: str, block: str, *, more: str = "") -> Path:
    """Write a model of Ultralytics in which each row of a block names a class of the user."""
    (family,) = [*_OF_ULTRALYTICS.glob(f"*/{name}.yaml"), *_OF_ULTRALYTICS.glob(f"*/{name[:-1]}.yaml")]
    text = family.read_text(encoding="utf-8").replace(f" {block},", f" {block}_Own,")
    (folder / f"{name}.yaml").write_text(f"{text}\n{more}", encoding="utf-8")
    return folder / f"{name}.yaml"


def model(folder: Path, *rows: str, scale: str = "n") -> Path:
    written = "\n".join(f"  - {row}" for row in ("[-1, 1, Conv, [64, 3, 2]]", *rows))
    text = f"nc: 2\nscales: {{{scale}: [1, 1, 64]}}\nbackbone:\n{written}\nhead:\n  - [[-1], 1, Detect, [nc]]\n"
    (folder / "model.yaml").write_text(text, encoding="utf-8")
    return folder / "model.yaml"


def layers(path: Path | str) -> nn.Sequential:
    document = model_reader.model_document(str(path))
    return build.skeleton(document, document["nc"])


def shapes(built: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, tuple(value.shape)) for name, value in built.state_dict().items()]


def has_light_branches(built: nn.Sequential) -> bool:
    """Return whether a head predicts classes as YOLO11's does, by depthwise and pointwise convolutions."""
    return isinstance(built[-1].get_submodule("cv3.0.0"), nn.Sequential)


def given(path: Path, index: int) -> tuple[Any, ...]:
    return PLACED[layers(path)[index]].given


class TestBlocks:
    """A class that forks' parsers take as a block of Ultralytics is built as that block is."""

    @pytest.mark.parametrize(
        ("name", "block"),
        [("yolo11n", "C3k2"), ("yolo11m", "C3k2"), ("yolo12n", "A2C2f"), ("yolo12l", "A2C2f"), ("yolov10b", "C2fCIB")],
    )
    @pytest.mark.parametrize("parameters", ["", "    def __init__(self, *args):\n        super().__init__(*args)\n"])
    def test_copy_of_a_block_gives_the_same_model(self, name: str, block: str, parameters: str, tmp_path: Path) -> None:
        load(tmp_path, f"class {block}_Own({block}):\n{parameters or '    pass'}\n")
        own, stock = layers(renamed(tmp_path, name, block)), layers(f"{name}.yaml")
        assert any(layer in PLACED for layer in own)
        assert shapes(own) == shapes(stock)

    @pytest.mark.parametrize("name", ["yolo11n", "yolo11m"])
    def test_its_file_with_final_numbers_gives_the_same_model(self, name: str, tmp_path: Path) -> None:
        load(tmp_path, "class C3k2_Own(C3k2):\n    pass\n")
        loaded = base.load(str(renamed(tmp_path, name, "C3k2")), "")
        assert shapes(build.skeleton(loaded.document, 80)) == shapes(layers(f"{name}.yaml"))

    def test_line_of_the_file_builds_it_without_that(self, tmp_path: Path) -> None:
        load(tmp_path, "class C3k2_Own(C3k2):\n    pass\n")
        line = "arguments: {C3k2_Own: [in, out, repeats, rest]}"
        own = layers(renamed(tmp_path, "yolo11m", "C3k2", more=line))
        assert PLACED[own[2]].given[3] is False
        assert not has_light_branches(own)
        assert not any("C3k2" in one for one in placed.notes(own)[1:])

    def test_note_says_what_it_is_taken_for(self, tmp_path: Path) -> None:
        load(tmp_path, "class C3k2_Own(C3k2):\n    pass\n")
        (note,) = placed.notes(layers(renamed(tmp_path, "yolo11m", "C3k2")))[1:]
        assert note == (
            "C3k2_Own of own.py: taken as C3k2, as most forks do: the head has YOLO11's branches, and c3k is True at "
            "m, l and x; `arguments: {C3k2_Own: [in, out, repeats, rest]}` in the model file builds it without that"
        )
        assert "c3k" not in placed.notes(layers(renamed(tmp_path, "yolo11s", "C3k2")))[1]

    def test_class_with_another_argument_in_the_place_of_c3k_keeps_it(self, tmp_path: Path) -> None:
        load(
            tmp_path,
            "class C3k2_Own(nn.Module):\n    def __init__(self, c1, c2, n=1, k=3):\n        super().__init__()\n"
            "        self.conv = Conv(c1, c2, k)\n\n    def forward(self, x):\n        return self.conv(x)\n",
        )
        path = model(tmp_path, "[-1, 2, C3k2_Own, [32, 5]]", scale="m")
        assert given(path, 1) == (64, 32, 2, 5)
        assert has_light_branches(layers(path))

    def test_class_that_takes_no_repeats_is_no_block(self, tmp_path: Path) -> None:
        load(tmp_path, "class C3k2_Own(nn.Identity):\n    pass\n\n\nclass C3k2Gate(nn.Conv2d):\n    pass\n")
        own = layers(model(tmp_path, "[-1, 1, C3k2_Own, []]", "[-1, 1, C3k2Gate, [32, 1]]"))
        assert [PLACED[own[index]].reading.block for index in (1, 2)] == ["", ""]
        assert not has_light_branches(own)


OLDER = """
class C3k2_Own(C3k2):
    def __init__(self, c1, c2, n=1, c3k=False, e=0.5, g=1, shortcut=True):
        super().__init__(c1, c2, n, c3k, e, {given})
"""
TOLD = "hands g to C3k2 as the sixth argument, which it was in older releases, and which is attn now: write `super()"


def test_class_written_for_an_older_c3k2_is_told_what_to_write(tmp_path: Path) -> None:
    load(tmp_path, OLDER.format(given="g"))
    assert TOLD in placed.notes(layers(model(tmp_path, "[-1, 1, C3k2_Own, [64, False]]")))[-1]


def test_its_error_tells_it_too(tmp_path: Path) -> None:
    load(tmp_path, OLDER.format(given="g, shortcut"))
    with pytest.raises(SpecError, match=re.escape(TOLD)):
        layers(model(tmp_path, "[-1, 1, C3k2_Own, [64, False]]"))


@pytest.mark.parametrize("given", ["g=g", "False, g, shortcut", "attn=False"])
def test_class_that_hands_on_arguments_as_they_stand_now_is_told_nothing(given: str, tmp_path: Path) -> None:
    load(tmp_path, OLDER.format(given=given))
    assert not any("sixth" in one for one in placed.notes(layers(model(tmp_path, "[-1, 1, C3k2_Own, [64, False]]"))))


OF_YOLOV13 = """
class HyperACE(nn.Module):
    def __init__(self, c1, c2, n=1, num_hyperedges=8, context="both", channel_adjust=True):
        super().__init__()
        self.conv = Conv(c1, c2)

    def forward(self, x):
        return self.conv(x[1])


class DownsampleConv(nn.Module):
    def __init__(self, in_channels, channel_adjust=True):
        super().__init__()
        self.conv = Conv(in_channels, in_channels * 2 if channel_adjust else in_channels, 3, 2)

    def forward(self, x):
        return self.conv(x)
"""


@pytest.mark.parametrize(
    ("scale", "hyperedges", "adjusts"), [("n", 4, True), ("s", 8, True), ("l", 8, False), ("x", 12, False)]
)
def test_classes_of_yolov13_are_built_as_its_parser_does(
    scale: str, hyperedges: int, adjusts: bool, tmp_path: Path
) -> None:
    load(tmp_path, OF_YOLOV13)
    path = model(tmp_path, '[[0, 0], 2, HyperACE, [32, 8, "both"]]', "[-1, 1, DownsampleConv, []]", scale=scale)
    last = () if adjusts else (False,)
    assert (given(path, 1), given(path, 2)) == ((64, 32, 2, hyperedges, "both", *last), (32, *last))
    remarks = [one for one in placed.notes(layers(path)) if "mlp_ratio=1.5" in one]
    assert len(remarks) == (not adjusts)


def test_other_class_of_that_name_is_built_of_its_row(tmp_path: Path) -> None:
    load(tmp_path, "class HyperACE(nn.Module):\n    def forward(self, x):\n        return x[0]\n")
    assert given(model(tmp_path, "[[0, 0], 1, HyperACE, []]", scale="l"), 1) == ()


def test_error_of_a_block_names_the_arguments_that_were_tried(tmp_path: Path) -> None:
    load(tmp_path, "class C3k2_Own(C3k2):\n    pass\n")
    with pytest.raises(SpecError, match=r"backbone\[1\]: C3k2_Own of own.py cannot be built of \[64, 'far'"):
        layers(model(tmp_path, "[-1, 1, C3k2_Own, [64, far, far, far]]"))
