"""Model files of the YOLOv7, YOLOR and Scaled-YOLOv4 repositories, and of the first YOLOv5 releases."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from search_spaces import auxiliary as auxiliary_branch
from search_spaces import build, foreign_files, model_checks, yolov7, yolov7_variants
from search_spaces.errors import SpecError
from trials.costing import cost

ANCHORS = [[10, 13, 16, 30, 33, 23]] * 3
ANCHORS_OF_FOUR = [[10, 13, 16, 30, 33, 23]] * 4
UP = [-1, 1, "nn.Upsample", [None, 2, "nearest"]]

Row = list[Any]


def conv(source: int, channels: int, kernel: int = 1, stride: int = 1) -> Row:
    return [source, 1, "Conv", [channels, kernel, stride]]


def cat(*sources: int) -> Row:
    return [list(sources), 1, "Concat", [1]]


def aggregation(channels: int, out: int, *, neck: bool = False) -> list[Row]:
    """Return the eight rows of YOLOv7's block: two 1x1 and four 3x3 convolutions, some or all of them joined."""
    joined = (-1, -2, -3, -4, -5, -6) if neck else (-1, -3, -5, -6)
    inner = channels // 2 if neck else channels
    return [conv(-1, channels), conv(-2, channels), *[conv(-1, inner, 3)] * 4, cat(*joined), conv(-1, out)]


def halving(channels: int, *further: int) -> list[Row]:
    """Return the five rows that halve a map on two ways."""
    return [[-1, 1, "MP", []], conv(-1, channels), conv(-3, channels), conv(-1, channels, 3, 2), cat(-1, -3, *further)]


def raising(source: int, channels: int) -> list[Row]:
    """Return the four rows of a top-down step."""
    return [conv(-1, channels), UP, conv(source, channels), cat(-1, -2)]


def file_of(backbone: Sequence[Row], head: Sequence[Row], anchors: Any = ANCHORS, **keys: Any) -> dict[str, Any]:
    return {"nc": 80, "anchors": anchors, "backbone": list(backbone), "head": list(head), **keys}


def yolov7_file() -> dict[str, Any]:
    backbone = [conv(-1, 32, 3), conv(-1, 64, 3, 2), conv(-1, 64, 3), conv(-1, 128, 3, 2), *aggregation(64, 256)]
    for channels, out in ((128, 512), (256, 1024)):
        backbone += [*halving(channels), *aggregation(channels, out)]
    backbone += [*halving(512), *aggregation(256, 1024)]
    head: list[Row] = [[-1, 1, "SPPCSPC", [512]]]
    head += [*raising(37, 256), *aggregation(256, 256, neck=True), *raising(24, 128), *aggregation(128, 128, neck=True)]
    head += [*halving(128, 63), *aggregation(256, 256, neck=True), *halving(256, 51), *aggregation(512, 512, neck=True)]
    head += [[at, 1, "RepConv", [channels, 3, 1]] for at, channels in ((75, 256), (88, 512), (101, 1024))]
    return file_of(backbone, [*head, [[102, 103, 104], 1, "IDetect", ["nc", "anchors"]]])


def yolov7_w6_file() -> dict[str, Any]:
    backbone = [[-1, 1, "ReOrg", []], conv(-1, 64, 3)]
    for channels in (128, 256, 512, 768, 1024):
        backbone += [conv(-1, channels, 3, 2), *aggregation(channels // 2, channels)]
    head: list[Row] = [[-1, 1, "SPPCSPC", [512]]]
    for at, channels in ((37, 384), (28, 256), (19, 128)):
        head += [*raising(at, channels), *aggregation(channels, channels, neck=True)]
    for at, channels in ((71, 256), (59, 384), (47, 512)):
        head += [conv(-1, channels, 3, 2), cat(-1, at), *aggregation(channels, channels, neck=True)]
    head += [conv(at, channels, 3) for at, channels in ((83, 256), (93, 512), (103, 768), (113, 1024))]
    head += [conv(at, channels, 3) for at, channels in ((83, 320), (71, 640), (59, 960), (47, 1280))]
    return file_of(backbone, [*head, [[*range(114, 122)], 1, "IAuxDetect", ["nc", "anchors"]]], ANCHORS_OF_FOUR)


def partial_stages(*stages: tuple[int, int], down: str, block: str) -> list[Row]:
    """Return rows that halve the map and pass it through a block of so many bottlenecks."""
    rows = []
    for channels, repeats in stages:
        rows += [[-1, 1, down, [channels, 3, 2] if down == "Conv" else [channels]], [-1, repeats, block, [channels]]]
    return rows


def yolor_csp_file() -> dict[str, Any]:
    stages = partial_stages((128, 2), (256, 8), (512, 8), (1024, 4), down="Conv", block="BottleneckCSPC")
    backbone = [conv(-1, 32, 3), conv(-1, 64, 3, 2), [-1, 1, "Bottleneck", [64]], *stages]
    head: list[Row] = [[-1, 1, "SPPCSPC", [512]]]
    head += [*raising(8, 256), [-1, 2, "BottleneckCSPB", [256]], *raising(6, 128), [-1, 2, "BottleneckCSPB", [128]]]
    for at, channels in ((16, 256), (11, 512)):
        head += [conv(-1, channels, 3), conv(-2, channels, 3, 2), cat(-1, at), [-1, 2, "BottleneckCSPB", [channels]]]
    return file_of(backbone, [*head, conv(-1, 1024, 3), [[22, 26, 30], 1, "IDetect", ["nc", "anchors"]]])


def yolor_e6_file() -> dict[str, Any]:
    stages = partial_stages((128, 3), (256, 7), (512, 7), (768, 3), (1024, 3), down="DownC", block="BottleneckCSPA")
    head: list[Row] = [[-1, 1, "SPPCSPC", [512]]]
    for at, channels in ((-6, 384), (-13, 256), (-20, 128)):
        head += [*raising(at, channels), [-1, 3, "BottleneckCSPB", [channels]]]
    for at, channels, down in ((22, 256, 256), (17, 512, 384), (12, 768, 512)):
        head += [conv(-1, channels, 3), [-2, 1, "DownC", [down]], cat(-1, at), [-1, 3, "BottleneckCSPB", [down]]]
    head += [conv(-1, 1024, 3), [[28, 32, 36, 40], 1, "IDetect", ["nc", "anchors"]]]
    return file_of([[-1, 1, "ReOrg", []], conv(-1, 64, 3), *stages], head, ANCHORS_OF_FOUR, width_multiple=1.25)


def first_yolov5s_file() -> dict[str, Any]:
    """Return the smallest model of the first YOLOv5 release: its head finds three bare convolutions by itself."""
    out = [-1, 1, "nn.Conv2d", ["na * (nc + 5)", 1, 1]]
    stages = partial_stages((128, 3), (256, 9), (512, 9), down="Conv", block="BottleneckCSP")
    backbone = [[-1, 1, "Focus", [64, 3]], *stages, conv(-1, 1024, 3, 2), [-1, 1, "SPP", [1024, [5, 9, 13]]]]
    head: list[Row] = [[-1, 3, "BottleneckCSP", [1024, False]]]
    for at, channels in ((6, 512), (4, 256)):
        head += [conv(-1, channels), UP, cat(-1, at), [-1, 3, "BottleneckCSP", [channels, False]]]
    head.append(out)
    for at, channels in ((14, 256), (10, 512)):
        head += [conv(-2, channels, 3, 2), cat(-1, at), [-1, 3, "BottleneckCSP", [2 * channels, False]], out]
    head.append([[], 1, "Detect", ["nc", "anchors"]])
    return file_of(backbone, head, depth_multiple=0.33, width_multiple=0.5)


def params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def skeleton(document: dict[str, Any], *, as_printed: bool = False) -> nn.Module:
    """Return the model of a file on the meta device."""
    translated = foreign_files.translate(document, as_printed=as_printed).document
    model_checks.require_detection(translated)
    return build.skeleton(translated, translated["nc"])


@pytest.mark.parametrize(
    ("document", "millions"),
    [
        pytest.param(yolov7_file(), 37.62, id="yolov7"),
        pytest.param(yolor_csp_file(), 52.9, id="yolor-csp"),
        pytest.param(yolor_e6_file(), 115.9, id="yolor-e6"),
        pytest.param(first_yolov5s_file(), 7.5, id="first yolov5s"),
    ],
)
def test_file_as_printed_has_the_parameters_of_its_repository(document: dict[str, Any], millions: float) -> None:
    """Table 2 of arXiv 2207.02696, and YOLOv5's first release; of YOLOv7 what its training prints, before fusing."""
    digits = len(str(millions).partition(".")[2])
    assert round(params(skeleton(document, as_printed=True)) / 1e6, digits) == millions


def test_auxiliary_head_is_trained_behind_the_main_one_and_left_out_of_the_deployed_model() -> None:
    document = yolov7_w6_file()
    printed = skeleton(document, as_printed=True)
    auxiliary = [*range(118, 122)]
    of_training: Any = printed
    head = of_training[-1]
    learned = sum(parameter.numel() for parameter in [*head.main.added, *head.main.factors])
    left_out = sum(params(of_training[i]) for i in auxiliary) + params(head.auxiliary) + learned
    deployed = auxiliary_branch.without_branch(foreign_files.translate(document, as_printed=True).document)
    assert params(build.skeleton(deployed, 80)) == params(printed) - left_out
    assert round((params(printed) - left_out) / 1e6, 1) == 70.4  # arXiv 2207.02696, table 2: of the deployed model
    row = foreign_files.translate(document).document["head"][-1]
    assert row == [[*auxiliary, 114, 115, 116, 117], 1, "DualDetect", ["nc"]]


EVERY_LAYER = file_of(
    [
        [-1, 1, "ReOrg", []],
        conv(-1, 16, 3),
        [-1, 1, "DownC", [32]],
        [-1, 2, "BottleneckCSPA", [32]],
        [-1, 1, "DownD", [32]],
        [-1, 2, "BottleneckCSPB", [32]],
        [-1, 2, "BottleneckCSPC", [32]],
        [-1, 1, "MP", []],
        [-1, 2, "ResCSPB", [32]],
        [-1, 1, "ResCSPC", [32]],
        [-1, 1, "ResXCSPB", [32]],
        [-1, 1, "ResXCSPC", [64]],
        [-1, 2, "BottleneckCSP2", [32]],
        [[-1, -3], 1, "Concat", [1]],
        [-1, 1, "SPPCSP", [32]],
        [-1, 1, "SP", [3]],
        [[-1, -2], 1, "Shortcut", [1]],
        [-1, 1, "SPPCSPC", [32]],
    ],
    [[6, 1, "RepConv", [32, 3, 1]], [[18, 12, 17], 1, "IDetect", ["nc", "anchors"]]],
    activation="nn.LeakyReLU(0.1)",
)


FURTHER = file_of(
    [
        [-1, 1, "GhostStem", [32]],
        [-1, 2, "ResCSPA", [32]],
        [-1, 1, "ResXCSPA", [64]],
        conv(-1, 32, 3, 2),
        [-1, 2, "GhostCSPA", [32]],
        [-1, 1, "GhostCSPB", [32]],
        [-1, 1, "GhostCSPC", [32]],
        [[-1, -2], 1, "Chuncat", [1]],
        [-1, 1, "Foldcut", [1]],
        [-1, 1, "GhostSPPCSPC", [32]],
        [-1, 2, "RepResCSPA", [32]],
        [-1, 1, "RepResCSPB", [32]],
        [-1, 1, "RepResCSPC", [32]],
        [-1, 1, "RepResXCSPA", [128]],
        [-1, 2, "RepResXCSPB", [64]],
        [-1, 1, "RepResXCSPC", [128]],
    ],
    [[2, 1, "RepConv", [32, 3, 2]], [[15, 16], 1, "IDetect", ["nc", "anchors"]]],
    anchors=ANCHORS[:2],
)


@pytest.mark.parametrize("document", [EVERY_LAYER, FURTHER], ids=["of its files", "further"])
def test_every_layer_trains(document: dict[str, Any]) -> None:
    translated = foreign_files.translate(document).document
    model = build.model(translated, 3)
    model.train()
    outputs: Any = model(torch.rand(2, 3, 64, 96))
    torch.stack([one.sum() for one in outputs.values() if isinstance(one, Tensor)]).sum().backward()
    assert all(parameter.grad is not None for name, parameter in model.named_parameters() if "dfl" not in name)


def test_activation_of_the_file_is_that_of_every_layer() -> None:
    model = build.model(foreign_files.translate(EVERY_LAYER).document, 3)
    activations = {type(one.act) for one in model.modules() if isinstance(one, Conv)}
    assert activations - {nn.Identity} == {nn.LeakyReLU}  # the branches of RepConv have none; what joins them has


def test_reorg_keeps_the_order_of_the_repository() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert yolov7.ReOrg()(x).flatten(2)[0].tolist() == [[0, 2, 8, 10], [4, 6, 12, 14], [1, 3, 9, 11], [5, 7, 13, 15]]


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("DownC", (16, 32), 16 * 16 + 2 * 16 + 9 * 16 * 16 + 2 * 16 + 16 * 16 + 2 * 16),
        ("DownD", (16, 32), 16 * 16 + 2 * 16 + 9 * 16 * 16 + 2 * 16 + 2 * (16 * 32 + 2 * 32)),
        ("ResCSPA", (16, 32), 2 * (16 * 16 + 32) + 2 * 16 * 8 + 9 * 8 * 8 + 2 * 16 + 32 + 32 * 32 + 64),
        (
            "RepResCSPA",  # each inner block: 1x1, the branches of 3x3 and 1x1 and that of the input, 1x1
            (16, 32),
            2 * (16 * 16 + 32) + 2 * 16 * 8 + (9 + 1) * 8 * 8 + 4 * 16 + 32 + 32 * 32 + 64,
        ),
        (
            "RepResXCSPB",  # the branches in 32 groups of one channel
            (16, 64),
            16 * 64 + 128 + 2 * 64 * 32 + (9 + 1) * 32 + 4 * 64 + 128 + 64 * 64 + 128 + 128 * 64 + 128,
        ),
        ("GhostCSPC", (16, 32, 0), 3 * (16 * 16 + 32) + 32 * 32 + 64),
        ("GhostStem", (3, 32), 27 * 8 + 16 * 8 + 9 * 16 * 8 + 32 * 16 + 29 * (3 * 8 + 16)),
        ("Stem", (3, 32), 27 * 16 + 2 * 16 + 16 * 16 + 2 * 16 + 9 * 16 * 16 + 2 * 16 + 32 * 32 + 2 * 32),
    ],
)
def test_layer_has_the_parameters_of_its_formula(name: str, arguments: tuple[int, ...], expected: int) -> None:
    layer: Any = (yolov7.LAYERS | yolov7_variants.LAYERS)[f"yolov7.{name}"]
    assert params(layer(*arguments)) == expected


class TestActivations:
    def with_activations(self, *written: Any) -> dict[str, Any]:
        rows = [[-1, 1, "Conv", [8, 3, 2, None, 1, *([one] if one is not None else [])]] for one in written]
        return file_of(rows, [[[0], 1, "IDetect", ["nc", "anchors"]]])

    def test_one_for_all_rows_becomes_that_of_the_file(self) -> None:
        translated = foreign_files.translate(self.with_activations(*["nn.LeakyReLU(0.1)"] * 2)).document
        assert translated["activation"] == "nn.LeakyReLU(0.1)"
        assert [row[3] for row in translated["backbone"]] == [[8, 3, 2, None, 1]] * 2

    def test_different_ones_are_those_of_their_rows(self) -> None:
        document = self.with_activations("nn.LeakyReLU(negative_slope=0.1)", "nn.ReLU()", None)
        model = build.model(foreign_files.translate(document).document, 3)
        found: list[Any] = [layer.act for layer in model.model[:3]]
        assert [type(one) for one in found] == [nn.LeakyReLU, nn.ReLU, nn.SiLU]
        assert found[0].negative_slope == 0.1

    def test_what_is_no_activation_is_refused_with_its_row(self) -> None:
        with pytest.raises(
            SpecError, match=r"^backbone\[1\]: Conv: unknown activation 'nn.Relu\(\)' \(did you mean nn.ReLU"
        ):
            foreign_files.translate(self.with_activations(None, "nn.Relu()"))
        with pytest.raises(ValueError, match="unknown activation 'Module'"):
            yolov7.ActivatedConv(3, 8, 1, 1, None, 1, "Module")

    @pytest.mark.parametrize(
        ("written", "arguments"), [(True, [8, 3, 2, None, 1]), (False, [8, 3, 2, None, 1, 1, False])]
    )
    def test_truth_value_moves_behind_the_dilation(self, written: bool, arguments: list[Any]) -> None:
        translated = foreign_files.translate(self.with_activations(None, written)).document
        assert translated["backbone"][1][3] == arguments


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            [-1, 1, "RepConv", [16, 1, 1]],
            "kernel 1 and padding None, where the repository's own RepConv takes a kernel",
        ),
        ([-1, 1, "RepConv", [16, 3, 1, 0]], "kernel 3 and padding 0, where"),
        ([-1, 1, "RepConv", [16, 3, 1, 1, 1, "nn.ReLU()"]], "`activation:` of the file sets one for all"),
        ([-1, 1, "RepConv", []], "channels come first"),
        ([-1, 1, "MP", [2, 2]], "1 at most"),
        ([-1, 1, "SPPCSPC", ["wide"]], "channels come first"),
        ([-1, 1, "SPPCSPC", [16, False, 1, 0.5, [5]]], r"kernels of \[5, 9, 13\] are expected, got \[5\]"),
    ],
)
def test_row_that_cannot_be_read_is_named(row: Row, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        foreign_files.translate(file_of([conv(-1, 8, 3, 2), row], [[[0], 1, "IDetect", ["nc", "anchors"]]]))
    assert caught.value.mistakes[0].startswith("backbone[1]: ")


def test_names_mean_a_fork_where_the_file_has_no_anchors() -> None:
    document = {**EVERY_LAYER, "anchors": None, "head": [[[6], 1, "Detect", ["nc"]]]}
    with pytest.raises(SpecError, match="unknown module 'DownC'"):
        skeleton(document)


def of_parts(head: str, parts: int) -> dict[str, Any]:
    """Return a file whose head reads two maps for each part, all but the last two of an auxiliary layer."""
    body = [conv(-1, 64, 3, 2), conv(-1, 64, 3, 2), conv(-1, 64, 3)]
    return {"nc": 2, "backbone": body, "head": [[[2, 2] * (parts - 1) + [1, 1], 1, head, ["nc"]]]}


def test_triple_head_is_counted_whole_as_printed() -> None:
    of_two, of_three = (
        params(skeleton(of_parts(head, parts), as_printed=True))
        for head, parts in (("DualDDetect", 2), ("TripleDDetect", 3))
    )
    body = 27 * 64 + 128 + 2 * (9 * 64 * 64 + 128)
    assert 3 * (of_two - body) == 2 * (of_three - body)


def test_triple_head_is_built_of_its_auxiliary_part_and_of_the_one_that_predicts() -> None:
    built = foreign_files.translate(of_parts("TripleDetect", 3)).document
    assert built["head"] == [[[2, 2, 1, 1], 1, "DualDetect", ["nc"]]]


@pytest.mark.parametrize(("head", "single"), [("TripleDDetect", "DDetect"), ("TripleDetect", "Detect")])
@pytest.mark.parametrize("as_printed", [True, False])
def test_triple_head_is_deployed_as_the_part_that_predicts_alone(head: str, single: str, as_printed: bool) -> None:
    """`TripleDDetect.forward` of the repository returns what its third part predicts."""
    document = foreign_files.translate(of_parts(head, 3), as_printed=as_printed).document
    body = [conv(-1, 64, 3, 2), conv(-1, 64, 3, 2)]
    alone = {"nc": 2, "backbone": body, "head": [[[1, 1], 1, single, ["nc"]]]}
    expected = foreign_files.translate(alone, as_printed=as_printed).document
    assert cost.measure(document, 2, 64).params == cost.measure(expected, 2, 64).params


def test_deployed_yolov7_has_the_parameters_of_the_released_file() -> None:
    """36,905,341 is what the repository prints of its released `yolov7.pt`: RepConv and learned values are folded."""
    printed = foreign_files.translate(yolov7_file(), as_printed=True).document
    assert cost.measure(printed, 80, 640).params == 36_905_341


class TestRepConv:
    """`RepConv, [channels, kernel, stride, padding, groups, activation]` of YOLOv7."""

    def layer(self, *arguments: Any) -> Any:
        rows = [conv(-1, 16, 3, 2), [-1, 1, "RepConv", [16, *arguments]]]
        document = foreign_files.translate(file_of(rows, [[[1, 1], 1, "IDetect", ["nc", "anchors"]]])).document
        return build.model(document, 3).model[1]

    def test_groups_are_those_of_both_convolutions(self) -> None:
        layer = self.layer(3, 1, None, 4)
        assert params(layer) == 9 * 16 * 4 + 16 * 4 + 3 * 2 * 16  # of the convolutions, and three batch norms

    def test_activation_can_be_left_out(self) -> None:
        assert isinstance(self.layer(3, 1, 1, 1, False).branches.act, nn.Identity)

    @pytest.mark.parametrize("arguments", [(3, 1, None, 4), (3, 2, 1, 2), (3, 1)])
    def test_deployed_layer_computes_the_same(self, arguments: tuple[Any, ...]) -> None:
        layer = self.layer(*arguments)
        for norm in (one for one in layer.modules() if isinstance(one, nn.BatchNorm2d)):
            for tensor in (*norm.parameters(), norm.running_mean, norm.running_var):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.5, 1.5)
        x = torch.randn(2, 16, 12, 10)
        with torch.no_grad():
            expected, folded = layer.eval()(x), cost.fused(layer.eval())(x)
        assert torch.allclose(folded, expected, atol=1e-4)
        assert params(cost.fused(layer)) == 9 * 16 * 16 // layer.branches.g + 16


@pytest.mark.parametrize(
    ("head", "arguments"), [("IAuxDetect", ["nc", "anchors"]), ("TripleDDetect", ["nc"]), ("TripleDetect", ["nc"])]
)
@pytest.mark.parametrize("as_printed", [False, True])
def test_head_of_parts_with_unequal_numbers_of_maps_is_refused(
    head: str, arguments: list[str], as_printed: bool
) -> None:
    document = file_of([conv(-1, 64, 3, 2)], [[[0] * 5, 1, head, arguments]])
    with pytest.raises(SpecError, match=rf"head\[0\]: {head}: it reads a list of layers with as many for each of its"):
        foreign_files.translate(document, as_printed=as_printed)


@pytest.mark.parametrize("as_printed", [False, True])
@pytest.mark.parametrize(
    ("head", "form"),
    [("Detect", "[nc, anchors]"), ("IDetect", "[nc, anchors]"), ("IAuxDetect", "[nc, anchors]")]
    + [(name, "[nc]") for name in ("DDetect", "DualDDetect", "TripleDDetect", "TripleDetect")],
)
def test_arguments_of_a_head_are_refused_under_its_name_in_the_file(head: str, form: str, as_printed: bool) -> None:
    for arguments in (["wide", 3, 4], ["nc", 3, 4]):
        document = file_of([conv(-1, 64, 3, 2)], [[[0] * 6, 1, head, arguments]])
        with pytest.raises(SpecError) as caught:
            foreign_files.translate(document, as_printed=as_printed)
        (mistake,) = caught.value.mistakes
        assert mistake.startswith(f"head[0]: {head}: unexpected arguments, got ")
        assert form in mistake


@pytest.mark.parametrize("name", ["Detect", "DualDetect", "v10Detect"])
@pytest.mark.parametrize("arguments", [[], ["wide"], [0], [[80]]])
def test_head_without_a_number_of_classes_is_refused(name: str, arguments: list[Any]) -> None:
    document = {"nc": 80, "backbone": [conv(-1, 64, 3, 2)], "head": [[[0, 0], 1, name, arguments]]}
    with pytest.raises(SpecError, match=rf"head\[0\]: {name}: the number of classes is expected, \[nc\], got "):
        model_checks.require_detection(document)


@pytest.mark.parametrize(
    "row",
    [
        [-1, 1, "Contract", [0]],
        [-1, 1, "Contract", [1.5]],
        [-1, 1, "Expand", [16]],
        [-1, 1, "BottleneckCSPB", []],
        [-1, 1, "DownC", [[16]]],
        [-1, 1, "ReOrg", [16]],
    ],
)
def test_wrong_argument_of_a_layer_is_refused_and_not_left_out(row: Row) -> None:
    document = file_of([conv(-1, 32, 3, 2), row], [[[1], 1, "IDetect", ["nc", "anchors"]]])
    with pytest.raises(SpecError, match=rf"backbone\[1\]: yolov\d.{row[2]} cannot be built of"):
        skeleton(document)


def test_activation_that_is_no_text_is_refused_with_its_row() -> None:
    rows = [[-1, 1, "Conv", [8, 3, 2, None, 1, act]] for act in ("nn.ReLU()", [1], {"a": 1})]
    document = foreign_files.translate(file_of(rows, [[[0], 1, "IDetect", ["nc", "anchors"]]])).document
    assert [row[2] for row in document["backbone"]] == ["yolov7.ActivatedConv", "Conv", "Conv"]
    with pytest.raises(SpecError, match=r"^backbone\[1\]: Conv cannot be built of \[8, 3, 2, None, 1, \[1\]\]"):
        build.skeleton(document, 3)


def test_pyramid_with_maxima_behind_each_other_is_the_same() -> None:
    rows = [
        foreign_files.translate(file_of([conv(-1, 8, 3, 2), [-1, 1, name, [16]]], [[[0], 1, "IDetect", ["nc"]]]))
        for name in ("SPPCSPC", "SPPFCSPC")
    ]
    assert rows[0].document["backbone"][1] == rows[1].document["backbone"][1]
    with pytest.raises(SpecError, match="a kernel of 5 is expected, got 7"):
        foreign_files.translate(
            file_of([conv(-1, 8, 3, 2), [-1, 1, "SPPFCSPC", [16, False, 1, 0.5, 7]]], [[[0], 1, "IDetect", ["nc"]]])
        )
