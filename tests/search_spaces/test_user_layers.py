"""Classes of a fork's Python file as layers of a base model: what they are built of is read, tried and measured."""

import io
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from ultralytics import YOLO
from ultralytics.nn import modules as ultralytics_layers

from search_spaces import OPERATORS, base, build, model_reader, placing, rows, space_file
from search_spaces.constructors import Place, readings
from search_spaces.errors import SpecError
from search_spaces.operators import Site, SiteKind, modules, user_classes
from search_spaces.placed import PLACED
from trials.costing import cost


def load(folder: Path, text: str) -> None:
    (folder / "own.py").write_text(f"import torch\nfrom torch import nn\n{text}", encoding="utf-8")
    modules.load(folder / "own.py")


def model(folder: Path, *rows: str, head: str = "[[-1], 1, Detect, [nc]]", more: str = "") -> Path:
    written = "\n".join(f"  - {row}" for row in ("[-1, 1, Conv, [16, 3, 2]]", *rows))
    text = f"nc: 2\n{more}\nbackbone:\n{written}\nhead:\n  - [-1, 1, Conv, [32, 3, 2]]\n  - {head}\n"
    (folder / "model.yaml").write_text(text, encoding="utf-8")
    return folder / "model.yaml"


def placed(path: Path) -> dict[int, str]:
    """Return what was built of the users' classes of a file, by layer."""
    document = model_reader.model_document(str(path))
    built = build.skeleton(document, 2)
    return {index: PLACED[layer].summary for index, layer in enumerate(built) if layer in PLACED}


class TestReadings:
    """The first reading of a row's arguments: (signature, row's arguments, what the constructor gets)."""

    @pytest.mark.parametrize(
        ("signature", "row", "expected"),
        [
            ("self, c1, c2, k=3", [64, 5], (32, 16, 5)),
            ("self, inp, oup, stride=1", [64], (32, 16)),
            ("self, c1, c2, n=1, shortcut=True", [64, False], (32, 16, 4, False)),
            ("self, in_channels, out_channels, kernel_size=3", [32, 64, 3], (32, 16, 3)),
            ("self, c1, c2", [], ()),
            ("self, channels, reduction=16", [], (32,)),
            ("self, channels, reduction=16", [8], (32, 8)),
            ("self, channels, reduction=16", [128], (32,)),
            ("self, dim, heads=8", [32, 4], (32, 4)),
            ("self, e_lambda=1e-4", [128], ()),
            ("self, e_lambda=1e-4", [0.001], (0.001,)),
            ("self", [128], ()),
            ("self, k_size=3", [5], (5,)),
        ],
    )
    def test_of_one_map(self, signature: str, row: list[Any], expected: tuple[Any, ...]) -> None:
        assert first(signature, row, (32,)).arguments == expected

    @pytest.mark.parametrize(
        ("signature", "row", "expected"),
        [
            ("self, dimension=1", [1], (1,)),
            ("self, inc, fusion='weight'", ["sdi"], ([32, 64], "sdi")),
            ("self, levels, fusion='weight'", ["sdi"], ([32, 64], "sdi")),
            ("self, mode='weight'", ["sdi"], ("sdi",)),
            ("self, channels", [], ([32, 64],)),
            ("self, c1, c2", [64], ([32, 64], 16)),
            ("self, inc, channel", [64], ([32, 64], 16)),
            ("self, level, ch, rfb=False", [1], (1, [32, 64])),
            ("self, level, ch, rfb=False", [1, True], (1, [32, 64], True)),
        ],
    )
    def test_of_several_maps(self, signature: str, row: list[Any], expected: tuple[Any, ...]) -> None:
        assert first(signature, row, (32, 64)).arguments == expected


def first(signature: str, row: list[Any], channels: tuple[int, ...]) -> Any:
    namespace: dict[str, Any] = {"nn": nn}
    exec(f"class Own(nn.Module):\n    def __init__({signature}): super().__init__()", namespace)  # noqa: S102 - a test
    place = Place(channels=channels, reads_list=len(channels) > 1, repeats=4, scaled=lambda count: count // 4)
    return readings(namespace["Own"], row, place)[0]


FUSION = """
class Fusion(nn.Module):
    def __init__(self, inc_list, mode="add"):
        super().__init__()
        assert mode in ("add", "bifpn")
        self.weight = nn.Parameter(torch.ones(len(inc_list)))

    def forward(self, x):
        return torch.cat([weight * one for weight, one in zip(self.weight, x)], 1)
"""


class TestWords:
    """Words of rows that are keys at the top of the file."""

    WORDS = "width: 0\nwide: 24\nnode: C2f\nmode: bifpn"

    def test_they_have_the_values_of_their_keys(self, tmp_path: Path) -> None:
        load(tmp_path, FUSION)
        rows = ("[-1, 1, node, [wide, True]]", "[[1, 0], 1, Fusion, [mode]]")
        worded = base.load(str(model(tmp_path, *rows, more=self.WORDS)), "")
        rows = ("[-1, 1, C2f, [24, True]]", "[[1, 0], 1, Fusion, [bifpn]]")
        written = base.load(str(model(tmp_path, *rows)), "")
        assert worded.rows == written.rows
        assert cost.measure(worded.document, 2, 64) == cost.measure(written.document, 2, 64)

    def test_parser_reads_them_too(self, tmp_path: Path) -> None:
        rows = ("[-1, 1, node, [wide, True]]",)
        built = YOLO(str(model(tmp_path, *rows, more=self.WORDS))).model.model[1]
        assert (type(built).__name__, built.cv2.conv.out_channels) == ("C2f", 24)

    def test_text_is_never_a_list_of_channels(self, tmp_path: Path) -> None:
        load(tmp_path, FUSION)
        path = model(tmp_path, "[-1, 1, Conv, [16, 3, 1]]", "[[1, 0], 1, Fusion, [fusion_mode]]")
        with pytest.raises(SpecError, match=r"^backbone\[2\]: Fusion of own.py cannot be built of \['fusion_mode'\]"):
            placed(path)


class TestPlacing:
    def test_channels_that_nothing_but_the_row_names_must_be_those_of_the_map(self, tmp_path: Path) -> None:
        load(
            tmp_path,
            """
class Positions(nn.Module):
    def __init__(self, dim, resolution=14):
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, dim, resolution, resolution))

    def forward(self, x):
        return x + self.position
""",
        )
        # the width makes 128 of 256 by chance, the size of the map on which it is tried
        path = model(tmp_path, "[-1, 1, Positions, [256]]", more="width_multiple: 0.5")
        with pytest.raises(SpecError, match=r"tried as Positions\(8, 256\): The size of tensor"):
            placed(path)

    @pytest.mark.parametrize("row", ["Conv, [16]", "C2f, [16, True]", "nn.MaxPool2d, [2, 2]"])
    def test_layer_that_takes_one_map_of_one_that_returns_several_is_told_what_to_write(
        self, row: str, tmp_path: Path
    ) -> None:
        load(tmp_path, "class Halves(nn.Module):\n    def forward(self, x):\n        return x.chunk(2, 1)\n")
        with pytest.raises(SpecError) as caught:
            placed(model(tmp_path, "[-1, 1, Halves, []]", f"[-1, 1, {row}]"))
        expected = "layer 1, Halves, returns several maps (a row behind it takes one of them: [-1, 1, Index, [8, 0]])"
        assert expected in str(caught.value)
        path = model(tmp_path, "[-1, 1, Halves, []]", "[-1, 1, Index, [8, 0]]", f"[-1, 1, {row}]")
        assert placed(path) == {1: "Halves(): 16x128x128 to 8x128x128 and 8x128x128"}

    def test_layers_of_a_fork_are_built_as_its_parser_would(self, fork: Path) -> None:
        modules.load(fork / "fork.py")
        assert placed(fork / "mine.yaml") == {
            1: "StackedDown(16, 32): 16x128x128 to 32x64x64",
            2: "StackedDown(32, 64): 32x64x64 to 64x32x32",
            3: "C2f_Partial(64, 64, 2, True): 64x32x32 to 64x32x32",
            5: "EnergyGate(): 128x16x16 to 128x16x16",
            8: "Weighted_Concat(1): 128x32x32 and 64x32x32 to 192x32x32",
            10: "SpatialChannelGate(64): 64x32x32 to 64x32x32",
        }

    def test_layer_that_returns_several_maps_and_one_that_reads_them(self, tmp_path: Path) -> None:
        load(
            tmp_path,
            """
class Halves(nn.Module):
    def forward(self, x):
        return x.chunk(2, 1)

class Sum(nn.Module):
    def forward(self, x):
        return x[0] + x[1]
""",
        )
        path = model(tmp_path, "[-1, 1, Halves, []]", "[-1, 1, Sum, []]")
        assert placed(path) == {
            1: "Halves(): 16x128x128 to 8x128x128 and 8x128x128",
            2: "Sum(): 8x128x128 and 8x128x128 to 8x128x128",
        }

    def test_layer_that_computes_with_numbers_is_measured_on_the_cpu(self, tmp_path: Path) -> None:
        load(
            tmp_path,
            """
class Scaled(nn.Module):
    def __init__(self, c1):
        super().__init__()
        self.rates = [one.item() for one in torch.linspace(0, 1, 3)]
        self.conv = nn.Conv2d(c1, c1, 1)

    def forward(self, x):
        return self.conv(x) * max(x.max().item(), 1)
""",
        )
        assert placed(model(tmp_path, "[-1, 1, Scaled, []]")) == {1: "Scaled(16): 16x128x128 to 16x128x128"}

    def test_layer_that_makes_tensors_of_the_type_of_its_map_is_built(self, tmp_path: Path) -> None:
        load(
            tmp_path,
            "class Grid(nn.Conv2d):\n    def __init__(self, c1):\n        super().__init__(c1, c1, 1)\n"
            "    def forward(self, x):\n        x = super().forward(x)\n"
            "        return x + torch.arange(x.shape[3]).type(x.data.type())\n",
        )
        assert placed(model(tmp_path, "[-1, 1, Grid, []]")) == {1: "Grid(16): 16x128x128 to 16x128x128"}

    def test_what_a_layer_prints_is_no_result(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        load(
            tmp_path,
            """
print('loaded')

class Loud(nn.Module):
    def __init__(self):
        super().__init__()
        print('built')

    def forward(self, x):
        print('run')
        return x
""",
        )
        placed(model(tmp_path, "[-1, 1, Loud, []]"))
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.split()[:3] == ["loaded", "built", "run"]

    def test_file_that_ends_the_process_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match=r"own.py: cannot be imported: RuntimeError: it ends the process"):
            load(tmp_path, "raise SystemExit(3)")

    def test_class_of_a_file_that_was_changed_is_the_newest(self, tmp_path: Path) -> None:
        load(tmp_path, "class Id(nn.Identity):\n    pass\n")
        load(tmp_path, "class Id(nn.Module):\n    def forward(self, x):\n        return x\n")
        assert placed(model(tmp_path, "[-1, 3, Id, []]")) == {1: "Id(), 3 times: 16x128x128 to 16x128x128"}

    def test_class_of_two_files_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        load(tmp_path, "class Id(nn.Identity):\n    pass\n")
        load(tmp_path / "other", "class Id(nn.Identity):\n    changed = True\n")
        with pytest.raises(SpecError, match=r"Id is defined by .*own.py and .*own.py, which differ; one process can"):
            placed(model(tmp_path, "[-1, 1, Id, []]"))

    def test_repeats_are_copies_where_the_class_does_not_take_them(self, tmp_path: Path) -> None:
        load(tmp_path, "class Id(nn.Module):\n    def forward(self, x):\n        return x\n")
        assert placed(model(tmp_path, "[-1, 3, Id, []]")) == {1: "Id(), 3 times: 16x128x128 to 16x128x128"}

    def test_what_cannot_be_read_is_asked_for_in_one_line(self, tmp_path: Path) -> None:
        load(tmp_path, ODD)
        with pytest.raises(SpecError) as caught:
            placed(model(tmp_path, "[-1, 1, Odd, [7]]"))
        (line,) = caught.value.mistakes
        assert line.startswith("backbone[1]: Odd of own.py cannot be built of [7]: tried as Odd(7): ")
        assert "say what its constructor wants in the model file, `arguments: {Odd: [...]}`" in line
        assert "no line was found by trying" in line

    def test_example_of_what_a_class_wants_was_found_by_trying(self, tmp_path: Path) -> None:
        load(tmp_path, ADJUSTED)
        rows = ["[-1, 1, Conv, [16, 3, 2]]", "[[0, 0], 1, Adjusted, [16, 8]]"]
        with pytest.raises(SpecError) as caught:
            placed(model(tmp_path, *rows))
        line = "arguments: {Adjusted: [in, out, repeats, rest, false]}"
        assert f"`{line}` in the model file works, if it is what is meant" in str(caught.value)
        assert placed(model(tmp_path, *rows, more=line))[2].startswith("Adjusted(16, 16, 1, 8, False)")

    @pytest.mark.parametrize(
        ("row", "expected"),
        [
            ("[[0, 1], 1, Two, [16]]", "Two(16), its maps one by one: 16x128x128 and 16x128x128 to 16x128x128"),
            ("[[0, 1], 1, Two, []]", "Two(16), its maps one by one: 16x128x128 and 16x128x128 to 16x128x128"),
            ("[[0, 2], 1, Pair, []]", "Pair(16, 24), its maps one by one: 16x128x128 and 24x128x128 to 24x128x128"),
            ("[[0, 2], 1, Wide, [8]]", "Wide(16, 24, 8), its maps one by one: 16x128x128 and 24x128x128 to 8x128x128"),
            ("[[0, 1], 1, Skip, []]", "Skip(), its maps one by one: 16x128x128 and 16x128x128 to 16x128x128"),
            (
                "[[0, 1, 1], 1, Any, []]",
                "Any(), its maps one by one: " + "16x128x128 and " * 2 + "16x128x128 to 16x128x128",
            ),
            ("[[0, 1], 1, Listed, []]", "Listed(): 16x128x128 and 16x128x128 to 16x128x128"),
            ("[-1, 1, Skip, []]", "Skip(): 24x128x128 to 24x128x128"),
        ],
    )
    def test_maps_are_passed_as_the_class_takes_them(self, row: str, expected: str, tmp_path: Path) -> None:
        load(tmp_path, TAKING_MAPS)
        path = model(tmp_path, "[-1, 1, Conv, [16, 3, 1]]", "[-1, 1, Conv, [24, 3, 1]]", row)
        assert placed(path) == {3: expected}
        assert (
            build.model(model_reader.model_document(str(path)), 2).eval()(torch.rand(1, 3, 64, 64))[0].isfinite().all()
        )
        counted = cost.measure(model_reader.model_document(str(path)), 2, 64)
        assert counted.layers[3].module == expected.partition("(")[0]

    def test_file_says_that_channels_are_given_one_by_one(self, tmp_path: Path) -> None:
        load(tmp_path, TAKING_MAPS)
        path = model(
            tmp_path, "[-1, 1, Conv, [24, 3, 1]]", "[[0, 1], 1, Wide, [8]]", more="arguments: {Wide: [each, 4]}"
        )
        assert placed(path)[2].startswith("Wide(16, 24, 4), its maps one by one: ")

    def test_size_that_the_map_does_not_allow_is_not_left_out(self, tmp_path: Path) -> None:
        load(
            tmp_path,
            "class Window(nn.Module):\n    def __init__(self, dim, size=8):\n        super().__init__()\n"
            "        self.size, self.gate = size, nn.Conv2d(dim, dim, 1)\n    def forward(self, x):\n"
            "        assert x.shape[2] % self.size == 0\n        return self.gate(x)\n",
        )
        with pytest.raises(SpecError, match=r"cannot be built of \[7\]: tried as Window\(16, 7\): AssertionError"):
            placed(model(tmp_path, "[-1, 1, Window, [7]]"))

    @pytest.mark.parametrize(
        ("row", "given"), [("[[0, 2], 1, Wide, [256]]", "8, 8, 64"), ("[[0, 2], 1, Wide, [8]]", "8, 8, 8")]
    )
    def test_output_of_several_maps_is_scaled_by_the_width(self, row: str, given: str, tmp_path: Path) -> None:
        load(tmp_path, TAKING_MAPS)
        scaled = "scales: {n: [1, 0.25, 1024]}"
        path = model(tmp_path, "[-1, 1, Conv, [16, 3, 1]]", "[-1, 1, Conv, [24, 3, 1]]", row, more=scaled)
        assert placed(path)[3].startswith(f"Wide({given}), ")

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("ByKey", "ByKey(16, 32, 3)"),
            ("ByMethod", "ByMethod(16, 32, 3)"),
            ("Passing", "Passing(16, 32, 3)"),
            ("Derived", "Derived(16, 32, 3)"),
        ],
    )
    def test_arguments_by_name_alone_are_read_from_the_source(self, name: str, expected: str, tmp_path: Path) -> None:
        load(tmp_path, TAKING_NAMES)
        assert placed(model(tmp_path, f"[-1, 1, {name}, [32, 3]]"))[1].startswith(f"{expected}: ")

    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            (
                "[-1, 1, Two, []]",
                "its forward takes 2 maps, x1, x2, and the row reads 1: write a list of as many layers",
            ),
            (
                "[-1, 1, Looping, [8]]",
                "its constructor takes arguments by name alone, **kwargs, and its source does not say",
            ),
        ],
    )
    def test_what_stands_in_the_way_is_said(self, row: str, reason: str, tmp_path: Path) -> None:
        load(tmp_path, TAKING_MAPS + TAKING_NAMES)
        with pytest.raises(SpecError) as caught:
            placed(model(tmp_path, row))
        (line,) = caught.value.mistakes
        assert f"({reason}" in line
        assert "arguments: {" not in line

    def test_file_says_what_a_class_wants(self, tmp_path: Path) -> None:
        load(tmp_path, ODD)
        path = model(tmp_path, "[-1, 1, Odd, [7]]", more="arguments: {Odd: [rest, abc, in]}")
        assert placed(path) == {1: "Odd(7, 'abc', 16): 16x128x128 to 16x128x128"}

    @pytest.mark.parametrize(
        ("told", "expected"),
        [
            ("3", "arguments: a mapping is expected, such as {MyBlock: [in, out, rest]}, got 3"),
            ("{Odd: in}", "arguments.Odd: a list is expected, such as [in, out, rest], got 'in'"),
            ("{Odd: [out]}", "arguments: the row's first argument is expected to be output channels, as `out`"),
        ],
    )
    def test_mistake_in_arguments_is_reported(self, told: str, expected: str, tmp_path: Path) -> None:
        load(tmp_path, ODD)
        with pytest.raises(SpecError) as caught:
            placed(model(tmp_path, "[-1, 1, Odd, []]", more=f"arguments: {told}"))
        assert expected in str(caught.value)

    def test_attribute_that_ultralytics_sets_is_reported(self, tmp_path: Path) -> None:
        load(
            tmp_path,
            "class Own(nn.Module):\n    def f(self):\n        return 1\n    def forward(self, x):\n        return x\n",
        )
        with pytest.raises(
            SpecError, match=r"backbone\[1\]: Own of own.py: Ultralytics sets i, f, type, np .* has f of"
        ):
            placed(model(tmp_path, "[-1, 1, Own, []]"))

    def test_class_that_takes_any_arguments_gets_channels_as_a_convolution_does(self, tmp_path: Path) -> None:
        wraps = "super().__init__()\n        self.conv = nn.Conv2d(args[0], args[1], 1)"
        passes = "return self.conv(x)"
        load(
            tmp_path,
            f"class Wrap(nn.Module):\n    def __init__(self, *args, **kwargs):\n        {wraps}\n"
            f"    def forward(self, x, **kwargs):\n        {passes}\n",
        )
        more = "width_multiple: 0.5"
        assert placed(model(tmp_path, "[-1, 1, Wrap, [64, 3]]", more=more))[1].startswith("Wrap(8, 32, 3): ")

    @pytest.mark.parametrize(
        ("constructor", "handed_on"),
        [
            ("self, *args, **kwargs", "*args, **kwargs"),
            ("self, c1, c2, n=1, *args, **kwargs", "c1, c2, n, *args, **kwargs"),
            ("self, c1, *others", "c1, *others"),
        ],
    )
    def test_class_that_hands_its_arguments_on_is_read_as_its_parent(
        self, constructor: str, handed_on: str, tmp_path: Path
    ) -> None:
        load(
            tmp_path,
            "from ultralytics.nn.modules import C2f\n\n\nclass Mine(C2f):\n"
            f"    def __init__({constructor}):\n        super().__init__({handed_on})\n",
        )
        summary = placed(model(tmp_path, "[-1, 3, Mine, [64, True]]"))[1]
        assert summary.startswith("Mine(16, 64, 3, True): ")

    def test_lazy_layers_are_refused_with_the_row(self, tmp_path: Path) -> None:
        load(tmp_path, "class Lazy(nn.LazyConv2d):\n    def __init__(self):\n        super().__init__(8, 1)\n")
        with pytest.raises(SpecError, match=r"^model.yaml: backbone\[1\]: Lazy of own.py: it has lazy layers, whose"):
            base.load(str(model(tmp_path, "[-1, 1, Lazy, []]")), "")

    def test_typing_error_in_a_name_of_the_users_file_is_named(self, tmp_path: Path) -> None:
        load(tmp_path, "class GhostGate(nn.Module):\n    pass\n")
        with pytest.raises(SpecError, match=r"unknown module 'GhostGte' \(did you mean 'GhostGate', which your file"):
            placed(model(tmp_path, "[-1, 1, GhostGte, []]"))

    def test_assertion_without_a_text_is_shown_and_the_way_to_a_forks_own_class(self, tmp_path: Path) -> None:
        row = "[-1, 1, RepConv, [16, 32, 1]]"
        with pytest.raises(
            SpecError, match=r"RepConv cannot be built of .*: assert k == 3 and p == 1; a fork's own Rep"
        ):
            base.load(str(model(tmp_path, row)), "")

    def test_function_that_returns_a_layer_is_one(self, tmp_path: Path) -> None:
        load(
            tmp_path,
            "class Widen(nn.Conv2d):\n    pass\n"
            "def widen(c1, c2, k=1):\n    return Widen(c1, c2, k)\ndef number(c1):\n    return c1\n",
        )
        assert placed(model(tmp_path, "[-1, 1, widen, [64]]")) == {1: "widen(16, 64): 16x128x128 to 64x128x128"}
        with pytest.raises(SpecError, match=r"number of own.py cannot .* it returns 'int', where a layer is expected"):
            placed(model(tmp_path, "[-1, 1, number, []]"))

    def test_head_of_a_fork_is_counted_and_not_trained(self, tmp_path: Path) -> None:
        load(
            tmp_path,
            """
class MyHead(nn.Module):
    def __init__(self, nc=80, hidc=64, ch=()):
        super().__init__()
        self.nl = len(ch)
        self.stems = nn.ModuleList(nn.Conv2d(c, hidc, 1) for c in ch)
        self.out = nn.Conv2d(hidc, nc + 64, 1)

    def forward(self, x):
        for i in range(self.nl):
            x[i] = self.out(self.stems[i](x[i]))
        if self.training:
            return x
        raise RuntimeError('decoding needs anchors')
""",
        )
        path = model(tmp_path, head="[[0, -1], 1, MyHead, [nc, 16]]")
        assert placed(path) == {2: "MyHead(2, 16, [16, 32]): 16x128x128 and 32x64x64 to predictions"}
        counted = cost.measure(model_reader.model_document(str(path)), 2, 64)
        assert counted.layers[-1].macs == 32 * 32 * (16 * 16 + 16 * 66) + 16 * 16 * (32 * 16 + 16 * 66)
        with pytest.raises(
            SpecError, match=r"model.yaml: head\[1\]: MyHead of own.py is no subclass of Ultralytics' Det"
        ):
            base.load(str(path), "")

    def test_name_of_our_operator_means_the_class_where_the_row_has_no_mapping(self, tmp_path: Path) -> None:
        load(tmp_path, "class C2f_UIB(nn.Module):\n    def forward(self, x):\n        return x\n")
        assert placed(model(tmp_path, "[-1, 1, C2f_UIB, []]")) == {1: "C2f_UIB(): 16x128x128 to 16x128x128"}
        assert placed(model(tmp_path, "[-1, 1, C2f_UIB, [32, {}]]")) == {}


ODD = """
class Odd(nn.Module):
    def __init__(self, a, b, c):
        super().__init__()
        if b != 'abc':
            raise ValueError('b is abc')

    def forward(self, x):
        return x
"""

ADJUSTED = """
class Adjusted(nn.Module):
    def __init__(self, c1, c2, n=1, k=3, halved=True):
        super().__init__()
        self.halved, self.conv = halved, nn.Conv2d(c1, c2, 1)

    def forward(self, x):
        if self.halved:
            x = [x[0], x[1][:, :, ::2, ::2]]
        return self.conv(x[0] + x[1])
"""


def test_class_for_maps_of_one_size_is_told_so(tmp_path: Path) -> None:
    load(tmp_path, POSITIONS)
    path = model(tmp_path, "[-1, 1, Conv, [16, 3, 2]]", "[-1, 1, Positions, [160]]")
    with pytest.raises(SpecError, match=r"backbone\[2\]: Positions of own.py takes maps of one size alone"):
        placed(path)
    with pytest.raises(SpecError, match=r"Positions of own.py cannot be built of \[10\]"):
        placed(model(tmp_path, "[-1, 1, Conv, [16, 3, 2]]", "[-1, 1, Positions, [10]]"))


POSITIONS = """
class Positions(nn.Module):
    def __init__(self, dim, size):
        super().__init__()
        self.embedding = nn.Parameter(torch.zeros(1, dim, size, size))

    def forward(self, x):
        return x + self.embedding
"""


class TestBase:
    def test_base_model_has_final_numbers(self, fork: Path) -> None:
        modules.load(fork / "fork.py")
        loaded = base.load(str(fork / "mine.yaml"), "s")
        assert [row[3] for row in loaded.rows if row[2] not in {"Conv", "C2f", "SPPF", "nn.Upsample", "Detect"}] == [
            [64],
            [128],
            [128, True],
            [],
            [1],
            [],
        ]
        assert loaded.sources[0].path == fork / "fork.py"

    def test_width_scales_what_the_row_gives_as_channels(self, fork: Path) -> None:
        modules.load(fork / "fork.py")
        scaled = base.load(str(fork / "mine.yaml"), "s").scaled((("width", 0.5),))
        assert [step.c_out for step in scaled.traced[:10]] == [16, 32, 64, 64, 128, 128, 128, 128, 192, 64]

    def test_identity_depends_on_the_text_of_the_layers(self, fork: Path) -> None:
        def identity() -> str:
            user_classes.LOADED.clear()
            modules.load(fork / "fork.py")
            return base.identity(str(fork / "mine.yaml"), "n")

        before = identity()
        (fork / "fork.py").write_text(
            (fork / "fork.py").read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8"
        )
        assert identity() != before
        assert identity() == identity()


class TestFolder:
    def test_files_of_a_folder_import_each_other(self, tmp_path: Path) -> None:
        folder = tmp_path / "extra"
        (folder / "deep").mkdir(parents=True)
        (folder / "__init__.py").write_text("from .one import *\n", encoding="utf-8")
        (folder / "one.py").write_text(
            "from ..modules.conv import Conv\nfrom extra.deep.two import Two\n", encoding="utf-8"
        )
        (folder / "deep" / "two.py").write_text(
            "from torch import nn\nclass Two(nn.Module):\n    def forward(self, x):\n        return x\n",
            encoding="utf-8",
        )
        (folder / "three.py").write_text("import nothing_such\n", encoding="utf-8")
        modules.load(folder)
        found = user_classes.find("Two")
        assert found is not None
        assert found.source is not None
        assert found.source.file_name == "extra.py"
        assert user_classes.may_define() == [
            "extra/three.py: ModuleNotFoundError: No module named 'nothing_such'",
        ]
        packed = pickle.dumps(found.module())
        assert type(pickle.loads(packed)) is found.module  # noqa: S301 - our own
        with pytest.raises(SpecError, match=r"unknown module 'Thre'.*; not imported: extra/three.py: ModuleNotFound"):
            placed(model(tmp_path, "[-1, 1, Thre, []]"))

    def test_folder_without_python_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match="no Python file in this folder"):
            modules.load(tmp_path)

    def test_folder_that_is_no_forks_is_refused_at_once(self) -> None:
        with pytest.raises(SpecError, match=r"^/: more than 500 Python files or 500 folders"):
            modules.read(Path("/"))

    def test_file_that_needs_its_neighbours_names_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "own.py").write_text("from models.common import Conv\n", encoding="utf-8")
        with pytest.raises(SpecError, match=r"it needs files beside it: name their folder, --modules FOLDER"):
            modules.load(tmp_path / "own.py")


class TestOffers:
    def test_class_that_keeps_the_map_is_offered_by_its_name(self, fork: Path) -> None:
        space = space_file.load(fork / "space.yaml")
        (inserted,) = (slot for slot in space.slots if slot.feeds)
        assert [str(choice) for choice in inserted.choices] == [
            "stock",
            "EnergyGate",
            "SpatialChannelGate(reduction=8)",
            "SpatialChannelGate",
        ]
        assert OPERATORS["EnergyGate"].source is not None

    @pytest.mark.parametrize("name", ["SpatialChannelGate", "C2f_Partial"])
    def test_architecture_is_read_back_in_another_process(self, name: str, fork: Path) -> None:
        text = (fork / "space.yaml").read_text(encoding="utf-8").replace("EnergyGate: {}", "C2f_Partial: {}")
        (fork / "space.yaml").write_text(text, encoding="utf-8")
        space = space_file.load(fork / "space.yaml")
        (slot,) = (one for one in space.slots if one.feeds)
        architecture = space.of({slot.name: next(one for one in slot.choices if one.operator == name)})
        text = architecture.to_yaml(2, folder=fork)
        assert "modules: [fork.py]" in text
        del OPERATORS[name]
        again = type(architecture).from_yaml(text, folder=fork)
        assert again.fingerprint == architecture.fingerprint

    @pytest.mark.parametrize(
        ("choices", "expected"),
        [
            (
                "{StackedDown: {}}",
                "insert[0].choices.StackedDown: fits no layer of this entry (after-6: it makes (1, 128, 10, 10) of",
            ),
            ("{EnergyGate: {lambda: 1}}", "insert[0].choices.EnergyGate.lambda: EnergyGate has no parameter 'lambda'"),
            ("{EnergyGate: {e_lambda: high}}", "not a value of e_lambda, got 'high' (a value such as 0.0001)"),
            (
                "{SpatialChannelGate: {reduction: 1000}}",
                "fits no layer of this entry (after-6: with 128 channels it can",
            ),
            ("{EnergyGat3: {}}", "unknown operator ("),
        ],
    )
    def test_obstacle_is_found_by_trying(self, choices: str, expected: str, fork: Path) -> None:
        text = (fork / "space.yaml").read_text(encoding="utf-8")
        old = "{EnergyGate: {}, SpatialChannelGate: {reduction: [8, 16]}}"
        (fork / "space.yaml").write_text(text.replace(old, choices), encoding="utf-8")
        with pytest.raises(SpecError) as caught:
            space_file.load(fork / "space.yaml")
        assert expected in str(caught.value)

    def test_class_of_a_file_that_cannot_be_read_is_not_called_unknown_as_well(self, fork: Path) -> None:
        text = (fork / "space.yaml").read_text(encoding="utf-8").replace("fork.py", "gone.py")
        text = text.replace("{UIB: {}}", "{UIBB: {}}").replace("mine.yaml", "yolov8n.yaml")
        (fork / "space.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(SpecError) as caught:
            space_file.load(fork / "space.yaml")
        assert [one.partition(" (")[0].removeprefix("space.yaml: ") for one in caught.value.mistakes] == [
            f"modules[0]: {fork}/gone.py: cannot be read",
            "slots[0].choices.UIBB: unknown operator",
        ]

    def test_class_named_as_the_row_of_an_operator_in_a_block_is_refused(self, fork: Path) -> None:
        load(fork, "class C2f_UIB(nn.Identity):\n    pass\n")
        text = (fork / "space.yaml").read_text(encoding="utf-8").replace("EnergyGate: {}", "C2f_UIB: {}")
        (fork / "space.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(SpecError, match="C2f_UIB is what UIB in a C2f is called; give the class another name"):
            space_file.load(fork / "space.yaml")

    def test_class_goes_before_an_operator_of_this_package_with_its_name(self, tmp_path: Path) -> None:
        load(tmp_path, "class SE(nn.Module):\n    def forward(self, x):\n        return 2 * x\n")
        made = modules.offer("SE")
        assert made is not None
        assert made.source is not None
        lowered = rows.lower([-1, 1, "SE", [64, 3, 1, {}]])
        assert lowered is not None
        assert lowered.operator is made

    @pytest.mark.parametrize("name", ["EnergyGate", "SimAM"])
    def test_slot_of_a_block_names_the_way(self, name: str, fork: Path) -> None:
        text = (fork / "space.yaml").read_text(encoding="utf-8").replace("{UIB: {}}", f"{{{name}: {{}}}}")
        (fork / "space.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(SpecError) as caught:
            space_file.load(fork / "space.yaml")
        assert f"; it stands behind a layer, insert: [{{after: 9, choices: {{{name}: {{}}}}}}]" in str(caught.value)


def test_model_loads_in_a_process_that_has_not_the_file(fork: Path) -> None:
    modules.load(fork / "fork.py")
    built = build.model(model_reader.model_document(str(fork / "mine.yaml")), 2).eval()
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = built(x)[0]
    packed = io.BytesIO()
    torch.save((built, x, expected), packed)
    (fork / "packed.pt").write_bytes(packed.getvalue())
    (fork / "fork.py").unlink()
    ours = Path(build.__file__).parents[1]
    program = (
        f"import sys; sys.path.insert(0, {str(ours)!r})\nimport torch\n"
        "built, x, expected = torch.load('packed.pt', weights_only=False)\n"
        "with torch.no_grad(): print(torch.equal(built(x)[0], expected))"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=fork, capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "True", ran.stderr[-2000:]


def test_placing_is_done_once_for_equal_models(fork: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules.load(fork / "fork.py")
    placed(fork / "mine.yaml")

    def refuse(*_: object) -> None:
        pytest.fail("it is done again")

    monkeypatch.setattr(placing._Placing, "all", refuse)
    placed(fork / "mine.yaml")


class TestMissingImports:
    def test_layers_that_do_not_need_what_is_missing_are_built(self, tmp_path: Path) -> None:
        text = "import nothing_such as other\nfrom no_package.layers import Drop, Base\nfrom utils.general import *\n"
        load(
            tmp_path,
            f"""{text}
try:
    import nothing_either
except ImportError:
    nothing_either = None

class Id(nn.Identity):
    has_more = nothing_either is not None

class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = Drop(0.1)

class Other(Base):
    pass
""",
        )
        assert placed(model(tmp_path, "[-1, 1, Id, []]")) == {1: "Id(): 16x128x128 to 16x128x128"}
        found = user_classes.find("Id")
        assert found is not None
        assert vars(found.module)["has_more"] is False
        with pytest.raises(
            SpecError,
            match=r"Dropping of own.py: it needs Drop of no_package.layers, which is not here "
            r"\(no package no_package is installed; if a file beside it has it, name the folder\)",
        ):
            placed(model(tmp_path, "[-1, 1, Dropping, []]"))

    def test_record_reads_several_layers_by_its_class(self, tmp_path: Path) -> None:
        load(
            tmp_path,
            """
from search_spaces.operators import Operator, SiteKind

class Gate(nn.Module):
    def forward(self, x):
        return torch.cat(x, 1)

RECORD = Operator(name="Weighted", module=Gate, parameters=(), kinds=(SiteKind.LAYER,), build=lambda site: Gate(),
    reference="own")
""",
        )
        path = model(tmp_path, "[-1, 1, Conv, [16, 3, 1]]", "[[-1, 0], 1, Weighted, []]")
        assert placed(path) == {2: "Weighted(): 16x128x128 and 16x128x128 to 32x128x128"}


PLAIN_CONV = """
class Conv(nn.Module):
    def __init__(self, c1, c2, k=1, s=1, p=None, g=1, act=True):
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, s, k // 2 if p is None else p, groups=g, bias=False)
        self.bn = nn.BatchNorm2d(c2)
        self.act = nn.SiLU() if act is True else nn.Identity()

    def forward(self, x):
        return self.act(self.bn(self.conv(x)))
"""
TAKING_MAPS = """
class Two(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 1)

    def forward(self, x1, x2):
        return self.conv(x1) + x2

class Pair(nn.Module):
    def __init__(self, low, high):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(one, high, 1) for one in (low, high))

    def forward(self, x1, x2):
        return self.convs[0](x1) + self.convs[1](x2)

class Wide(nn.Module):
    def __init__(self, low, high, width):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(one, width, 1) for one in (low, high))

    def forward(self, x1, x2):
        return self.convs[0](x1) + self.convs[1](x2)

class Skip(nn.Module):
    def forward(self, x, skip=None):
        return x.relu() if skip is None else x + skip

class Any(nn.Module):
    def forward(self, *maps):
        return torch.stack(maps).sum(0)

class Listed(nn.Module):
    def forward(self, x, scale=2):
        return x[0] + x[1] * scale
"""
TAKING_NAMES = """
class ByKey(nn.Conv2d):
    def __init__(self, **kwargs):
        k, out = kwargs["k"], kwargs["out_channels"]
        super().__init__(kwargs["in_channels"], out, k, padding=k // 2)

class ByMethod(nn.Conv2d):
    def __init__(self, **kwargs):
        act = kwargs.pop("act", nn.SiLU())
        super().__init__(kwargs.pop("c1"), kwargs.pop("c2"), kwargs.get("k", 1), padding="same")

class Passing(nn.Conv2d):
    def __init__(self, **options):
        super().__init__(padding="same", **options)

class Derived(ByKey):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)

class Looping(nn.Module):
    def __init__(self, **kwargs):
        super().__init__()
        vars(self).update(kwargs)
        self.layer = nn.Conv2d(self.dim, self.dim, 1)
"""
OTHER_REPCONV = """
class RepConv(nn.Module):
    def __init__(self, c1, c2, k=3, s=1):
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, s, k // 2)

    def forward(self, x):
        return self.conv(x)
"""


class TestNameThatUltralyticsHasToo:
    """Of a user's class and Ultralytics' of one name, the user's is built unless both compute the same."""

    def test_class_that_computes_something_else_is_built_and_noted(self, tmp_path: Path) -> None:
        load(tmp_path, PLAIN_CONV + OTHER_REPCONV)
        path = model(tmp_path, "[-1, 1, RepConv, [32, 1, 1]]")
        assert placed(path) == {1: "RepConv(16, 32, 1, 1): 16x128x128 to 32x128x128"}
        read = model_reader.read_model(str(path))
        assert read.document["backbone"][1][2] == "modules.RepConv"
        (note,) = read.notes
        assert note.startswith("RepConv: the class of own.py is built, which does not compute what Ultralytics' does; ")

    @pytest.mark.parametrize(
        "change", [("nn.SiLU()", "nn.ReLU()"), ("bias=False", "bias=True"), ("def forward", "def backward")]
    )
    def test_any_other_formula_is_another_layer(self, change: tuple[str, str], tmp_path: Path) -> None:
        load(tmp_path, PLAIN_CONV.replace(*change))
        row = model_reader.read_model(str(model(tmp_path))).document["backbone"][0]
        assert row[2] == "modules.Conv"

    def test_class_that_computes_the_same_is_ultralytics_layer(self, tmp_path: Path) -> None:
        load(tmp_path, PLAIN_CONV)
        read = model_reader.read_model(str(model(tmp_path, "[-1, 1, Conv, [32, 3, 2]]")))
        assert [row[2] for row in read.document["backbone"]] == ["Conv", "Conv"]
        assert not read.notes

    def test_layer_of_yolov7_is_the_users_class_too(self, tmp_path: Path) -> None:
        load(tmp_path, OTHER_REPCONV)
        head = "[[-1], 1, IDetect, [nc, anchors]]"
        path = model(tmp_path, "[-1, 1, RepConv, [32, 3, 1]]", head=head, more="anchors: 3")
        assert list(placed(path)) == [1]

    def test_head_of_ultralytics_is_built_and_the_line_says_how_to_take_the_other(self, tmp_path: Path) -> None:
        load(tmp_path, "class Detect(nn.Module):\n    pass\n")
        read = model_reader.read_model(str(model(tmp_path)))
        assert read.document["head"][-1][2] == "Detect"
        (note,) = read.notes
        assert note.startswith(
            "Detect: Ultralytics' head is built. own.py has a class of that name, too; modules.Detect "
        )

    @pytest.mark.parametrize(
        ("head", "text"),
        [
            (
                "[[-1], 1, Detect, [nc]]",
                "from ultralytics.nn.modules import Detect as Theirs\nclass Detect(Theirs):\n    pass\n",
            ),
            (
                "[[-1], 1, Detect, [nc, anchors]]",
                (
                    "class Detect(nn.Module):\n"
                    "    def __init__(self, nc=80, anchors=(), ch=()):\n"
                    "        super().__init__()\n"
                    "        self.m = nn.ModuleList(nn.Conv2d(c, (nc + 5) * len(anchors[0]) // 2, 1) for c in ch)\n"
                ),
            ),
        ],
    )
    def test_head_that_is_known_needs_no_line(self, head: str, text: str, tmp_path: Path) -> None:
        load(tmp_path, text)
        notes = model_reader.read_model(str(model(tmp_path, head=head, more="anchors: 3"))).notes
        assert not [note for note in notes if "has a class of that name" in note]

    def test_rows_of_a_catalogs_model_keep_their_meaning(self, tmp_path: Path) -> None:
        load(tmp_path, PLAIN_CONV.replace("nn.SiLU()", "nn.ReLU()"))
        read = model_reader.read_model("yolov8n.yaml")
        assert read.document["backbone"][0][2] == "Conv"

    def test_derived_base_keeps_the_class(self, tmp_path: Path) -> None:
        load(tmp_path, OTHER_REPCONV)
        loaded = base.load(str(model(tmp_path, "[-1, 1, RepConv, [32, 3, 1]]")), "")
        assert loaded.rows[1] == [-1, 1, "modules.RepConv", [32, 3, 1]]
        assert [source.path.name for source in loaded.sources] == ["own.py"]
        assert build.model(loaded.document, 2).model[1].conv.bias is not None

    def test_head_of_another_repository_is_ours_unless_the_row_says_otherwise(self, tmp_path: Path) -> None:
        load(tmp_path, "class IDetect(nn.Module):\n    pass\n")
        read = model_reader.read_model(str(model(tmp_path, head="[[-1], 1, IDetect, [nc, 3]]", more="anchors: 3")))
        assert read.document["head"][-1][2] == "Detect"
        assert "IDetect: this package's head is built. own.py has a class of that name, too" in read.notes[0]


HEAD = """
from ultralytics.nn.modules import Conv, Detect, Segment

class StemmedHead(Detect):
    def __init__(self, nc=80, hidden=8, reg_max=16, end2end=False, ch=()):
        super().__init__(nc, reg_max, end2end, ch)
        self.stems = nn.ModuleList(Conv(c, c, 3) for c in ch)

    def forward(self, x):
        return super().forward([stem(one) for stem, one in zip(self.stems, x)])

class ListingHead(Detect):
    def __init__(self, nc=80, ch=()):
        super().__init__(nc, ch=ch)

    def forward(self, x):
        return [self.cv2[i](one) for i, one in enumerate(x)]

class OlderHead(Detect):
    def __init__(self, nc=80, ch=()):
        super().__init__(nc, ch)

class MaskHead(Segment):
    def __init__(self, nc=80, ch=()):
        super().__init__(nc, ch=ch)
"""


class TestHeadOfAFork:
    """A subclass of Ultralytics' `Detect` can be trained; other heads are counted."""

    def path(self, folder: Path, name: str, *, block: str = "C2f", more: str = "") -> Path:
        load(folder, HEAD)
        return model(folder, f"[-1, 1, {block}, [32]]", head=f"[[1, -1], 1, {name}, [nc, 8]]", more=more)

    def test_subclass_computes_losses_for_any_number_of_classes(self, tmp_path: Path) -> None:
        loaded = base.load(str(self.path(tmp_path, "StemmedHead")), "")
        assert loaded.rows[-1] == [[1, -1], 1, "StemmedHead", ["nc", 8]]
        built = build.model({**loaded.document, "nc": 5}, 5)
        raw: Any = built.train()(torch.rand(2, 3, 64, 64))
        assert raw["scores"].shape[1] == built.model[-1].nc == 5
        assert built.stride.tolist() == [2, 4]

    @pytest.mark.parametrize(("block", "is_light"), [("C2f", False), ("C3k2", True)])
    def test_branches_are_those_of_the_family(self, block: str, is_light: bool, tmp_path: Path) -> None:
        built = build.model(base.load(str(self.path(tmp_path, "StemmedHead", block=block)), "").document, 2)
        assert built.model[-1].legacy is not is_light

    def test_settings_of_the_file_are_those_of_the_head(self, tmp_path: Path) -> None:
        built = build.model(base.load(str(self.path(tmp_path, "StemmedHead", more="reg_max: 4")), "").document, 2)
        assert built.model[-1].reg_max == 4

    def test_head_written_for_an_older_detect_is_told_what_to_write(self, tmp_path: Path) -> None:
        path = self.path(tmp_path, "OlderHead")
        path.write_text(path.read_text(encoding="utf-8").replace("[nc, 8]", "[nc]"), encoding="utf-8")
        with pytest.raises(
            SpecError, match=r"Detect takes \(nc, reg_max, end2end, ch\): write `super\(\).__init__\(nc, ch="
        ):
            placed(path)

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            (
                "ListingHead",
                "ListingHead of own.py returns a list in training, where the loss of Ultralytics reads a",
            ),
            ("MaskHead", "MaskHead of own.py is no subclass of Ultralytics' Detect, whose predictions its loss reads"),
        ],
    )
    def test_other_head_is_refused_in_one_line(self, name: str, reason: str, tmp_path: Path) -> None:
        path = self.path(tmp_path, name)
        path.write_text(path.read_text(encoding="utf-8").replace("[nc, 8]", "[nc]"), encoding="utf-8")
        with pytest.raises(SpecError, match=rf"^model.yaml: head\[1\]: {reason}"):
            base.load(str(path), "")


def test_helper_that_several_files_copy_of_ultralytics_is_its_layer(tmp_path: Path) -> None:
    load(tmp_path, PLAIN_CONV)
    (tmp_path / "other.py").write_text(f"from torch import nn\n{PLAIN_CONV}\n\nOTHER = 1\n", encoding="utf-8")
    modules.load(tmp_path / "other.py")
    path = model(tmp_path)
    assert model_reader.read_model(str(path)).document["backbone"][0][2] == "Conv"
    (tmp_path / "other.py").write_text("from torch import nn\n" + PLAIN_CONV.replace("SiLU", "ReLU"), encoding="utf-8")
    modules.load(tmp_path / "other.py")
    with pytest.raises(SpecError, match=r"Conv is defined by .*own.py and .*other.py, which differ"):
        model_reader.read_model(str(path))


@pytest.mark.parametrize("name", ["yolo11n", "yolov9e", "yolov10n"])
def test_copy_of_ultralytics_layers_changes_no_row(name: str, tmp_path: Path) -> None:
    shutil.copytree(Path(ultralytics_layers.__file__).parent, tmp_path / "modules")
    modules.load(tmp_path / "modules")
    stock = model_reader.model_document(f"{name}.yaml")
    (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({**stock, "yaml_file": None}), encoding="utf-8")
    read = model_reader.read_model(str(tmp_path / f"{name}.yaml")).document
    assert (read["backbone"], read["head"]) == (stock["backbone"], stock["head"])


@pytest.mark.parametrize(("written", "each"), [("3", 3), ("[[1, 2, 3, 4], [5, 6, 7, 8]]", 2)])
def test_head_of_a_fork_gets_the_anchors_of_the_file(written: str, each: int, tmp_path: Path) -> None:
    load(
        tmp_path,
        """
class OwnDetect(nn.Module):
    def __init__(self, nc=80, anchors=(), ch=()):
        super().__init__()
        self.nl, self.na = len(anchors), len(anchors[0]) // 2
        self.m = nn.ModuleList(nn.Conv2d(c, self.na * (nc + 5), 1) for c in ch)

    def forward(self, x):
        return [self.m[i](x[i]) for i in range(self.nl)]
""",
    )
    path = model(tmp_path, head="[[0, -1], 1, OwnDetect, [nc, anchors]]", more=f"anchors: {written}")
    counted = cost.measure(model_reader.model_document(str(path)), 2, 64)
    assert counted.layers[-1].params == (16 + 1 + 32 + 1) * each * 7


NAMED = """\
import functools
from dataclasses import dataclass

import torch
from torch import nn


class Widened(nn.Module):
    def __init__(self, *, in_channels, out_channels, kernel_size=3):
        super().__init__()
        self.layer = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)

    def forward(self, x):
        return self.layer(x)


class Gate(nn.Module):
    def __init__(self, *, channels, reduction=4):
        super().__init__()
        hidden = channels // reduction
        self.layers = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1))

    def forward(self, x):
        return x * self.layers(x)


class Fused(nn.Module):
    def __init__(self, *, channels, out):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(one, out, 1) for one in channels)

    def forward(self, x):
        return sum(layer(one) for layer, one in zip(self.layers, x))


@dataclass(eq=False)
class Written(nn.Module):
    in_channels: int
    out_channels: int
    kernel: int = 3

    def __post_init__(self):
        super().__init__()
        self.layer = nn.Conv2d(self.in_channels, self.out_channels, self.kernel, padding=self.kernel // 2)

    def forward(self, x):
        return self.layer(x)


def registered(name):
    return lambda found: found


def wrapped(found):
    class Inner(found):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)

    Inner.__name__, Inner.__qualname__ = found.__name__, found.__qualname__
    return Inner


@registered("of a registry")
class Decorated(nn.Conv2d):
    def __init__(self, c1, c2, k=3):
        super().__init__(c1, c2, k, padding=k // 2)


@wrapped
class Wrapped(Decorated):
    pass


def made(k):
    class Made(nn.Conv2d):
        def __init__(self, c1, c2):
            super().__init__(c1, c2, k, padding=k // 2)

    return Made


ByCall = made(3)
OfType = type("AnotherName", (Decorated,), {})
Alias = Decorated
"""


class TestHowAClassIsWritten:
    @pytest.fixture
    def named(self, tmp_path: Path) -> Callable[[Any], nn.Module]:
        """Return a function that builds a row of these classes behind 32 channels, and returns the layer."""
        (tmp_path / "named.py").write_text(NAMED, encoding="utf-8")
        modules.load(tmp_path / "named.py")

        def built(row: Any) -> nn.Module:
            rows: list[Any] = [[-1, 1, "Conv", [32, 3, 2]], [-1, 1, "Conv", [32, 3, 1]], row]
            document = {"nc": 2, "backbone": rows, "head": [[[1, 2], 1, "Detect", ["nc"]]]}
            layer: nn.Module = build.model(document, 2).model[2]
            return layer

        return built

    @pytest.mark.parametrize(
        ("row", "params"),
        [
            ([-1, 1, "Widened", [64]], 32 * 64 * 9 + 64),
            ([-1, 1, "Widened", [64, 1]], 32 * 64 + 64),
            ([-1, 1, "Gate", []], 32 * 8 + 8 + 8 * 32 + 32),
            ([-1, 1, "Gate", [2]], 32 * 16 + 16 + 16 * 32 + 32),
            ([[0, 1], 1, "Fused", [64]], 2 * (32 * 64 + 64)),
            ([-1, 1, "Written", [64]], 32 * 64 * 9 + 64),
            ([-1, 1, "Decorated", [64]], 32 * 64 * 9 + 64),
            ([-1, 1, "Alias", [64, 1]], 32 * 64 + 64),
            ([-1, 1, "Wrapped", [64]], 32 * 64 * 9 + 64),
            ([-1, 1, "ByCall", [64]], 32 * 64 * 9 + 64),
            ([-1, 1, "OfType", [64, 1]], 32 * 64 + 64),
        ],
    )
    def test_layer_is_built_and_pickled(self, row: Any, params: int, named: Callable[[Any], nn.Module]) -> None:
        layer = named(row)
        assert sum(parameter.numel() for parameter in layer.parameters()) == params
        again = pickle.loads(pickle.dumps(layer))  # noqa: S301 - of this line
        assert type(again) is type(layer)
        assert again.state_dict().keys() == layer.state_dict().keys()

    def test_class_with_arguments_by_name_is_a_choice(self, named: Callable[[Any], nn.Module]) -> None:
        del named
        record = modules.offer("Gate")
        assert record is not None
        assert [one.name for one in record.parameters] == ["reduction"]
        site = Site(path="", kind=SiteKind.LAYER, c_in=32, c_out=32, kernel=3, stride=1, groups=1, activation=nn.SiLU())
        assert record.incompatibility(site, {"reduction": 4}) is None
        assert sum(one.numel() for one in record.build(site, reduction=2).parameters()) == 32 * 16 * 2 + 16 + 32


def test_fourth_number_of_a_scale_is_an_argument_of_the_class_that_wants_one_more(tmp_path: Path) -> None:
    load(
        tmp_path,
        "class Hyper(nn.Module):\n"
        "    def __init__(self, c1, c2, threshold):\n"
        "        super().__init__()\n"
        "        self.layers = nn.ModuleList(nn.Conv2d(c1, c2, 1) for _ in range(threshold))\n"
        "    def forward(self, x):\n"
        "        return sum(layer(x) for layer in self.layers)\n",
    )
    scales = "scales: {n: [0.5, 0.25, 1024, 6], s: [0.5, 0.5, 1024, 8]}"
    path = model(tmp_path, "[-1, 1, Hyper, [128]]", more=scales)
    (note,) = model_reader.read_model(str(path)).notes
    assert note.startswith("scales: numbers behind depth, width and most channels are the fork's own")
    assert placed(path)[1].startswith("Hyper(8, 32, 6): ")
    explicit = base.load(str(path), "s")
    assert explicit.rows[1] == [-1, 1, "Hyper", [64, 8]]
    assert "further_scale_values" not in explicit.document
