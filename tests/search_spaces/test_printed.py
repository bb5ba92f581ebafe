"""Modules as articles print them: shapes, numbers of parameters, and the mistakes in them."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from search_spaces import OPERATORS, Choice, build, rows, yaml_text
from search_spaces.errors import SpecError
from search_spaces.operators import Site, SiteKind
from search_spaces.operators.mmqa import MMQA
from search_spaces.operators.uib import UIB
from search_spaces.printed import HEADS, PRINTED, AnchorDetect, DDetect, DualDDetect, PrintedDynamicConv
from search_spaces.space_file import parse
from trials.costing import cost

each_operator = pytest.mark.parametrize("name", PRINTED)
each_head = pytest.mark.parametrize("head", HEADS)

ROWS: dict[str, list[Any]] = {
    "PrintedMMQA": [-1, 1, "RepNCSPELAN4_PrintedMMQA", [32, 32, 32, 1, {"heads": 2, "key_dim": 8}]],
    "PrintedUIB": [-1, 2, "C3_PrintedUIB", [32, False, {"start_kernel": 3, "expansion": 1}]],
    "PrintedBottleneck": [-1, 2, "BottleneckCSP_PrintedBottleneck", [32, False, {"shortcut": False}]],
    "PrintedDynamicConv": [-1, 1, "PrintedDynamicConv", [32, 3, 1, {"ratio": 0.5}]],
}


def params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def site(c_in: int, c_out: int, *, kernel: int = 3, stride: int = 1) -> Site:
    kind, activation = SiteKind.CONV, nn.SiLU()
    return Site(path="", kind=kind, c_in=c_in, c_out=c_out, kernel=kernel, stride=stride, activation=activation)


def printed(name: str, where: Site, **given: Any) -> Any:
    """Build a printed operator at a site, with default parameters for the rest."""
    return PRINTED[name].build(where, **PRINTED[name].complete(given)).eval()


def dynamic(c_in: int, c_out: int, **shape: Any) -> PrintedDynamicConv:
    """Return a module with random parameters, also for the biases, which start at 0."""
    layer = PrintedDynamicConv(c_in, c_out, **{"kernel": 3, "stride": 1, "kernels": 4, "ratio": 0.25, **shape})
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer.eval()


def with_row(row: list[Any]) -> dict[str, Any]:
    head = [[[1], 1, "Detect", ["nc"]]]
    return {"nc": 2, "backbone": [[-1, 1, "Conv", [32, 3, 2]], row], "head": head}


class TestPrintedOperators:
    @each_operator
    def test_printed_operator_is_built_in_a_model(self, name: str) -> None:
        layers = build.skeleton(with_row(ROWS[name]), 2)
        modules = [module for module in layers[1].modules() if type(module) is PRINTED[name].module]
        assert len(modules) == (2 if name != "PrintedDynamicConv" else 1)
        assert cost.measure(with_row(ROWS[name]), 2, 64, deployed=False).macs > 0

    @each_operator
    def test_printed_operator_is_offered_by_no_space(self, name: str) -> None:
        assert name not in OPERATORS
        assert not any(name in row for row in rows.names())
        with pytest.raises(SpecError, match=f"unknown operator '{name}'"):
            Choice.of(name, {})
        slots = f"slots: [{{at: {{layers: [4]}}, choices: {{{name}: {{}}}}}}]"
        with pytest.raises(SpecError, match="unknown operator"):
            parse(yaml_text.parse_yaml(f"name: mine\nbase: yolov8{{scale}}.yaml\nscale: n\n{slots}"))

    @each_operator
    @pytest.mark.parametrize("size", [(8, 8), (8, 12)])
    def test_printed_operator_keeps_the_size_of_the_map(self, name: str, size: tuple[int, int]) -> None:
        module = dynamic(16, 24) if name == "PrintedDynamicConv" else printed(name, site(16, 24))
        assert module(torch.rand(2, 16, *size)).shape == (2, 24, *size)

    @pytest.mark.parametrize("name", ["PrintedUIB", "PrintedDynamicConv"])
    def test_printed_operator_with_a_stride_halves_the_map(self, name: str) -> None:
        where = site(16, 24, stride=2)
        module = dynamic(16, 24, stride=2) if name == "PrintedDynamicConv" else printed(name, where)
        assert module(torch.rand(1, 16, 8, 12)).shape == (1, 24, 4, 6)


class TestPrintedUIB:
    def test_printed_uib_has_no_residual(self) -> None:
        x = torch.rand(1, 16, 8, 8)
        wrong, right = printed("PrintedUIB", site(16, 16)), OPERATORS["UIB"]
        correct: Any = right.build(site(16, 16), **right.complete({})).eval()
        for block in (wrong, correct):
            nn.init.zeros_(block.project.bn.weight)
        assert torch.equal(wrong(x), torch.zeros_like(x))
        assert torch.equal(correct(x), x)

    def test_activation_of_printed_uib_ends_at_6(self) -> None:
        block = printed("PrintedUIB", site(16, 16))
        acts = [module for module in block.modules() if isinstance(module, (nn.SiLU, nn.ReLU6))]
        assert {type(act) for act in acts} == {nn.ReLU6}

    def test_printed_uib_counts_what_the_paper_does(self) -> None:
        given = {"start_kernel": 3, "mid_kernel": 3, "expansion": 1}
        assert params(printed("PrintedUIB", site(32, 32), **given)) == 2880

    def test_residual_changes_no_number_of_parameters(self) -> None:
        assert params(UIB(16, 16, residual=False)) == params(UIB(16, 16))


class TestPrintedMMQA:
    @pytest.mark.parametrize(("channels", "counted"), [(64, 55_296), (128, 110_592), (256, 221_184)])
    def test_printed_mmqa_has_no_norm_and_activation(self, channels: int, counted: int) -> None:
        attention = printed("PrintedMMQA", site(channels, channels), heads=8, key_dim=48)
        assert type(attention) is MMQA
        assert params(attention) == counted
        assert not any(isinstance(module, (nn.BatchNorm2d, nn.SiLU)) for module in attention.modules())


class TestPrintedDynamicConv:
    @pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (5, 2)])
    @pytest.mark.parametrize("kernels", [1, 4])
    def test_printed_dynamic_conv_mixes_a_kernel_for_every_image(self, kernel: int, stride: int, kernels: int) -> None:
        layer = dynamic(8, 6, kernel=kernel, stride=stride, kernels=kernels)
        x = torch.rand(3, 8, 9, 7)
        expected = [
            F.conv2d(image[None], *self.mixed(layer, image), stride=stride, padding=kernel // 2)[0] for image in x
        ]
        assert torch.allclose(layer(x), torch.stack(expected), atol=1e-5)

    @staticmethod
    def mixed(layer: PrintedDynamicConv, image: Tensor) -> tuple[Tensor, Tensor]:
        """Compute kernel and bias of one image by a loop over the kernels."""
        hidden = (layer.squeeze.weight[:, :, 0, 0] @ image.mean((1, 2))).clamp(min=0)
        shares = (layer.mix.weight[:, :, 0, 0] @ hidden).softmax(0)
        experts = layer.weight.chunk(layer.kernels)
        kernel = sum(share * expert for share, expert in zip(shares, experts, strict=True))
        bias = sum(share * one for share, one in zip(shares, layer.bias, strict=True))
        assert isinstance(kernel, Tensor)
        assert isinstance(bias, Tensor)
        return kernel, bias

    def test_printed_dynamic_conv_of_an_image_does_not_depend_on_the_batch(self) -> None:
        layer, x = dynamic(8, 6), torch.rand(3, 8, 8, 8)
        assert torch.allclose(layer(x)[1:2], layer(x[1:2]), atol=1e-5)

    def test_printed_dynamic_conv_has_the_parameters_of_the_printed_class(self) -> None:
        assert params(dynamic(64, 64)) == 148_800

    def test_ratio_of_printed_dynamic_conv_is_that_of_the_row(self) -> None:
        assert [dynamic(64, 64, ratio=ratio).squeeze.out_channels for ratio in (0.0625, 0.25, 1)] == [4, 16, 64]

    @pytest.mark.parametrize("stride", [1, 2])
    def test_products_of_printed_dynamic_conv_are_counted_as_pytorch_does(self, stride: int) -> None:
        layer, x, batch = dynamic(16, 24, stride=stride), torch.rand(2, 16, 8, 12), 2
        with FlopCounterMode(display=False) as counter:
            layer(x)
        biases = batch * layer.bias.numel()
        assert cost.macs_of(layer, x) == counter.get_total_flops() // 2 - biases

    def test_printed_dynamic_conv_has_no_batch_norm_and_is_linear_for_one_kernel(self) -> None:
        layer, x = dynamic(8, 6, kernels=1), torch.rand(1, 8, 8, 8)
        assert not any(isinstance(module, nn.BatchNorm2d) for module in layer.modules())
        nn.init.zeros_(layer.bias)
        assert torch.allclose(layer(2 * x), 2 * layer(x), atol=1e-5)

    def test_printed_dynamic_conv_begins_with_finite_weights(self) -> None:
        torch.use_deterministic_algorithms(mode=True)  # fills memory that nothing is written to with NaN
        try:
            layer = PrintedDynamicConv(8, 6, kernel=3, stride=1, kernels=4, ratio=0.25)
        finally:
            torch.use_deterministic_algorithms(mode=False)
        assert all(parameter.isfinite().all() for parameter in layer.parameters())


class TestPrintedHeads:
    @each_head
    @pytest.mark.parametrize("classes", [1, 80])
    def test_printed_head_predicts_from_every_map(self, head: str, classes: int) -> None:
        parts = {"DualDDetect": 2, "ImplicitDualDetect": 2, "TripleDDetect": 3, "TripleDetect": 3}.get(head, 1)
        channels = (16, 32, 48) * parts
        has_anchors = head in {"AnchorDetect", "ImplicitDetect", "ImplicitDualDetect"}
        arguments = [3] if has_anchors else []
        module = HEADS[head](classes, *arguments, reg_max=16, ch=channels)
        maps = [torch.rand(1, c, 2**index, 3) for index, c in enumerate(channels)]
        numbers = 3 * (classes + 5) if has_anchors else 4 * 16 + classes
        assert [one.shape for one in module(maps)] == [(1, numbers, *one.shape[2:]) for one in maps]
        assert module.nl == 3

    def test_anchors_cost_what_they_do_in_the_yolov5_repository(self) -> None:
        head = AnchorDetect(80, 3, reg_max=16, ch=(64, 128, 256))
        assert params(head) == 115_005

    def test_boxes_of_printed_heads_are_convolved_in_four_groups(self) -> None:
        head = DDetect(80, reg_max=16, ch=(256, 512, 512))
        for branch in head.cv2:
            groups = [module.groups for module in branch.modules() if isinstance(module, nn.Conv2d)]
            assert groups == [1, 4, 4]
        assert not any(module.groups > 1 for module in head.cv3.modules() if isinstance(module, nn.Conv2d))

    @pytest.mark.parametrize(
        ("channels", "classes", "boxes", "scores"),
        [((256, 512, 512), 80, 64, 256), ((64, 96, 128), 80, 64, 128), ((64, 96, 128), 1, 64, 64)],
    )
    def test_widths_of_a_printed_ddetect_head(
        self, channels: tuple[int, ...], classes: int, boxes: int, scores: int
    ) -> None:
        head: Any = DDetect(classes, reg_max=16, ch=channels)
        assert (head.cv2[0][0].conv.out_channels, head.cv3[0][0].conv.out_channels) == (boxes, scores)

    def test_auxiliary_half_of_a_printed_head_comes_first(self) -> None:
        head = DualDDetect(2, reg_max=16, ch=(16, 24, 32, 48, 56, 64))
        halves: list[Any] = [head.auxiliary, head.main]
        assert [half.cv2[0][0].conv.in_channels for half in halves] == [16, 48]
        maps = [torch.rand(1, c, 2, 2) for c in (16, 24, 32, 48, 56, 64)]
        head.eval()
        assert torch.equal(head(maps)[0], head.auxiliary(maps[:3])[0])
        assert torch.equal(head(maps)[-1], head.main(maps[3:])[-1])
