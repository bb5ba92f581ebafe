"""Costs against the article tables, against PyTorch's own counter, and against formulas done by hand."""

import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from ultralytics.nn import tasks
from ultralytics.nn.modules import Conv
from ultralytics.utils.torch_utils import get_flops

from search_spaces import OPERATORS, STOCK, Architecture, Choice, SearchSpace, build, load, model_reader
from search_spaces.errors import CostError, SpecError
from search_spaces.operators.dcnv4 import DCNv4
from search_spaces.operators.dynamic_conv import DynamicConv
from search_spaces.operators.dysample import DySample
from search_spaces.operators.mmqa import MMQA
from search_spaces.operators.uib import UIB, expanded
from search_spaces.trace import trace
from trials.costing import cost
from trials.costing.cost import Cost, CostTable, LayerCost
from trials.costing.layers import traced
from trials.costing.slot_costs import slot_costs

SPACES = ["v5", "v8", "v9"]
SIZES = ["v5:s", "v8:s", "v9:s", "v9:c"]


def params_of(layer: LayerCost) -> int:
    return layer.params


def macs_of(layer: LayerCost) -> int:
    return layer.macs


FIGURES = pytest.mark.parametrize("figure", [params_of, macs_of])


@pytest.fixture(scope="module")
def table_of(space_of: Callable[[str], SearchSpace]) -> Callable[[str], CostTable]:
    """Return the table of a catalog space for 80 classes at 640 px, with every choice counted once."""
    tables: dict[str, CostTable] = {}

    def table(name: str) -> CostTable:
        if name not in tables:
            tables[name] = CostTable(space_of(name), 80, 640)
            tables[name].extreme(macs_of, cheapest=True)
        return tables[name]

    return table


def measure(architecture: Architecture, *, deployed: bool = True) -> Cost:
    return cost.measure(architecture.document(80), 80, 640, deployed=deployed)


class TestStockModels:
    @pytest.mark.parametrize(
        ("model", "params", "gflops", "ultralytics"),
        [
            ("yolov5n", 2_654_816, 7.725, 7.839),
            ("yolov8n", 3_157_200, 8.744, 8.855),
            ("yolov9t", 2_128_720, 8.311, 8.481),
            ("yolov9c", 25_590_912, 103.335, 104.014),
            pytest.param("yolov9e", 58_206_592, 191.664, 193.007, marks=pytest.mark.slow),
        ],
    )
    def test_costs_as_built_are_below_ultralytics(
        self, model: str, params: int, gflops: float, ultralytics: float
    ) -> None:
        measured = cost.measure(model_reader.model_document(f"{model}.yaml"), 80, 640, deployed=False)
        assert measured.params == params
        assert round(measured.gflops, 3) == gflops
        assert 0.006 < 1 - measured.gflops / ultralytics < 0.0201

    @pytest.mark.parametrize(
        ("model", "params", "gflops"),
        [
            ("yolov9t", 2_094_000, 8.229),
            ("yolov9c", 25_380_928, 102.653),
            ("yolo26n", 2_408_932, 5.480),  # without the branch that only training uses
        ],
    )
    def test_stock_models_cost_less_when_deployed(self, model: str, params: int, gflops: float) -> None:
        measured = cost.measure(model_reader.model_document(f"{model}.yaml"), 80, 640)
        assert measured.params == params
        assert round(measured.gflops, 3) == gflops

    def test_ultralytics_counts_batch_norm_in_addition(self) -> None:
        document = model_reader.model_document("yolov8n.yaml")
        layers = build.skeleton(document, 80)
        normalised = 0

        def note(_module: nn.Module, _x: tuple[Tensor, ...], y: Tensor) -> None:
            nonlocal normalised
            normalised += y.numel()

        for module in layers.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_hook(note)
        traced(layers, 640)
        ours = cost.measure(document, 80, 640, deployed=False).macs
        theirs = get_flops(build.model(document, 80), 640)
        assert theirs == pytest.approx(cost.gflops(ours + 4 * normalised), rel=1e-9)

    @pytest.mark.parametrize("classes", [1, 3, 80])
    def test_number_of_classes_changes_the_cost_of_the_head_only(self, classes: int) -> None:
        document = model_reader.model_document("yolov8n.yaml")
        few, many = (cost.measure(document, nc, 320) for nc in (classes, classes + 1))
        assert few.layers[:-1] == many.layers[:-1]
        assert few.layers[-1].macs < many.layers[-1].macs

    def test_macs_grow_with_the_pixels(self) -> None:
        document = model_reader.model_document("yolov8n.yaml")
        small, large = (cost.measure(document, 80, size) for size in (320, 640))
        assert large.params == small.params
        assert large.macs == 4 * small.macs


class TestFlopCounterMode:
    """PyTorch's counter misses only sampling, which is added by hand here."""

    @staticmethod
    def count(document: Mapping[str, Any]) -> int:
        layers = build.skeleton(document, 80)
        sampled = 0

        def note(module: nn.Module, _x: tuple[Tensor, ...], y: Tensor) -> None:
            nonlocal sampled
            sampled += y.numel() * (5 * len(module.taps) if isinstance(module, DCNv4) else 4)

        for module in layers.modules():
            if isinstance(module, (DCNv4, DySample)):
                module.register_forward_hook(note)
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            traced(layers, 640)
        return counter.get_total_flops() // 2 + sampled

    @pytest.mark.parametrize(
        "model",
        ["yolov6n", "yolo12n", *(pytest.param(model, marks=pytest.mark.slow) for model in ("yolov9e", "yolo26x"))],
    )
    def test_flop_counter_mode_agrees_on_stock_models(self, model: str) -> None:
        document = model_reader.model_document(f"{model}.yaml")
        assert cost.measure(document, 80, 640, deployed=False).macs == self.count(document)

    @pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
    @pytest.mark.parametrize("name", SPACES)
    def test_flop_counter_mode_agrees_on_random_architectures(
        self, name: str, seed: int, space_of: Callable[[str], SearchSpace]
    ) -> None:
        rng = random.Random(seed)
        space = space_of(name)
        architecture = space.stock
        while len({choice.operator for _, choice in architecture.picks}) < 4:  # most of the vocabulary in one
            architecture = space.sample(rng)
        assert measure(architecture, deployed=False).macs == self.count(architecture.document(80))


class TestOperatorMacs:
    """Formulas of the papers, by default at 64 channels and a 20x20 map."""

    @staticmethod
    def count(module: Callable[[], nn.Module], channels: int = 64, height: int = 20, width: int = 20) -> int:
        with torch.device("meta"):
            built = module().eval()
            x = torch.zeros(1, channels, height, width)
        return cost.count_layer(built, x, deployed=False).macs

    @pytest.mark.parametrize("height", [20, 21])
    @pytest.mark.parametrize("stride", [1, 2])
    @pytest.mark.parametrize(("start", "mid"), [(0, 3), (3, 0), (3, 5), (5, 3)])
    @pytest.mark.parametrize(("c_out", "expansion"), [(64, 4), (96, 3)])
    def test_macs_of_uib(self, *, c_out: int, expansion: int, start: int, mid: int, stride: int, height: int) -> None:
        wide = expanded(64, expansion)
        entered, left = height * 20, -(-height // stride) * (20 // stride)
        between = entered if mid else left  # the stride is the middle convolution's if there is one
        expected = between * (start**2 * 64 + 64 * wide) + left * (mid**2 * wide + wide * c_out)

        def block() -> nn.Module:
            return UIB(64, c_out, stride=stride, start_kernel=start, mid_kernel=mid, expansion=expansion)

        assert self.count(block, height=height) == expected

    def test_macs_of_uib_are_those_of_the_table(self) -> None:
        macs = self.count(lambda: UIB(64, 64, start_kernel=3, mid_kernel=3, expansion=4))
        assert round(2 * macs / 1e6, 2) == 28.52

    @pytest.mark.parametrize("activation", [None, nn.SiLU()])
    @pytest.mark.parametrize(("heads", "key_dim", "value_dim"), [(4, 16, 16), (8, 48, 48), (2, 32, 48)])
    @pytest.mark.parametrize("kv_stride", [1, 2, 4])
    @pytest.mark.parametrize(("height", "width"), [(20, 20), (21, 19), (7, 5)])
    def test_macs_of_mmqa(
        self,
        *,
        heads: int,
        key_dim: int,
        value_dim: int,
        kv_stride: int,
        height: int,
        width: int,
        activation: nn.Module | None,
    ) -> None:
        queries, keys = height * width, -(-height // kv_stride) * -(-width // kv_stride)
        expected = (
            queries * 64 * heads * key_dim
            + keys * 64 * (key_dim + value_dim)
            + queries * heads * value_dim * 96
            + (2 * keys * 9 * 64 if kv_stride > 1 else 0)
            + heads * queries * keys * (key_dim + value_dim)
        )

        def attention() -> nn.Module:
            return MMQA(
                64,
                96,
                heads=heads,
                key_dim=key_dim,
                value_dim=value_dim,
                kv_stride=kv_stride,
                activation=activation,
            )

        assert self.count(attention, height=height, width=width) == expected

    @pytest.mark.parametrize("kv_stride", [1, 2])
    def test_macs_of_mmqa_with_fewer_queries(self, kv_stride: int) -> None:
        """Queries are pooled before their projection and upsampled before the output projection."""
        queries, keys = 10 * 10, (20 // kv_stride) ** 2
        expected = (
            queries * 64 * 4 * 16
            + keys * 64 * 32
            + 400 * 4 * 16 * 64
            + (2 * keys * 9 * 64 if kv_stride > 1 else 0)
            + 4 * queries * keys * 32
        )
        attention = self.count(lambda: MMQA(64, 64, heads=4, key_dim=16, kv_stride=kv_stride, query_stride=2))
        assert attention == expected

    def test_macs_of_mmqa_are_those_of_the_table(self) -> None:
        assert self.count(lambda: MMQA(64, 64, heads=8, key_dim=48), height=40, width=40) == 2_054_553_600

    @pytest.mark.parametrize("groups", [1, 4])
    @pytest.mark.parametrize("dw_kernel", [0, 3, 5])
    @pytest.mark.parametrize("remove_center", [False, True])
    @pytest.mark.parametrize("center_scale", [False, True])
    def test_macs_of_dcnv4(self, groups: int, dw_kernel: int, remove_center: bool, center_scale: bool) -> None:
        taps = 8 if remove_center else 9
        packed = -(-3 * groups * taps // 8) * 8
        products = 2 * 64**2 + 64 * packed + dw_kernel**2 * 64 + (64 * groups if center_scale else 0)

        def operator() -> nn.Module:
            return DCNv4(64, groups=groups, dw_kernel=dw_kernel, remove_center=remove_center, center_scale=center_scale)

        assert self.count(operator) == 400 * (products + 5 * taps * 64)

    def test_macs_of_dcnv4_are_those_of_the_table(self) -> None:
        assert self.count(lambda: DCNv4(64, groups=4)) == 6_144_000 + 1_152_000

    @pytest.mark.parametrize("height", [20, 21])
    @pytest.mark.parametrize(("kernel", "stride", "groups"), [(3, 1, 1), (3, 2, 1), (1, 1, 1), (3, 1, 4), (5, 2, 64)])
    @pytest.mark.parametrize(("kernels", "reduction"), [(4, 4), (2, 16), (8, 4), (1, 8)])
    def test_macs_of_dynamic_conv(
        self, *, kernels: int, reduction: int, kernel: int, stride: int, groups: int, height: int
    ) -> None:
        one = 128 * (64 // groups) * kernel**2
        left = -(-height // stride) * (20 // stride)
        hidden = 64 // reduction + 1

        def operator() -> nn.Module:
            return DynamicConv(
                64, 128, kernel=kernel, stride=stride, groups=groups, kernels=kernels, reduction=reduction
            )

        shares = 64 * hidden + hidden * kernels if kernels > 1 else 0
        expected = one * left + kernels * one + shares
        assert self.count(operator, height=height) == expected

    def test_macs_of_dynamic_conv_are_those_of_the_table(self) -> None:
        biases = 4 * 64  # which the table's operator mixes, too, and ours does not have
        assert self.count(lambda: DynamicConv(64, 64), height=40, width=40) == 59_131_268 - biases

    @pytest.mark.parametrize("dynamic_scope", [False, True])
    @pytest.mark.parametrize("groups", [1, 4])
    @pytest.mark.parametrize("scale", [2, 4])
    @pytest.mark.parametrize("style", ["lp", "pl"])
    def test_macs_of_dysample(self, style: str, scale: int, groups: int, dynamic_scope: bool) -> None:
        shifts = 64 * 2 * groups * (scale**2 if style == "lp" else 1) * 400
        expected = shifts * (1 + dynamic_scope) + 4 * 64 * scale**2 * 400

        def operator() -> nn.Module:
            return DySample(64, scale=scale, style=style, groups=groups, dynamic_scope=dynamic_scope)

        assert self.count(operator) == expected

    def test_macs_of_dysample_are_those_of_the_table(self) -> None:
        assert self.count(lambda: DySample(256), channels=256) == 3_276_800 + 1_638_400

    @pytest.mark.parametrize("batch", [1, 3])
    @pytest.mark.parametrize("name", ["DCNv4", "DynamicConv", "DySample", "MMQA"])
    def test_extra_macs_grow_with_the_batch(self, name: str, batch: int) -> None:
        unseen = OPERATORS[name].extra_macs
        assert unseen is not None
        built = {"DCNv4": DCNv4, "DynamicConv": DynamicConv, "DySample": DySample, "MMQA": MMQA}[name]
        with torch.device("meta"):
            operator = built(64) if name in {"DCNv4", "DySample"} else built(64, 64)
            one, several = torch.zeros(1, 64, 8, 8), torch.zeros(batch, 64, 8, 8)
            operator.eval()
        assert unseen(operator, several, operator(several)) == batch * unseen(operator, one, operator(one))


class TestCostTable:
    """The sum over memoised layers equals the count of the built model."""

    @pytest.mark.parametrize("name", SPACES)
    def test_cost_table_equals_building_and_counting(self, name: str, table_of: Callable[[str], CostTable]) -> None:
        table, rng = table_of(name), random.Random(name)
        ends = [table.extreme(macs_of, cheapest=cheapest) for cheapest in (True, False)]
        for architecture in [*ends, table.space.sample(rng)]:
            assert table.cost(architecture) == measure(architecture), architecture

    @pytest.mark.slow
    @pytest.mark.parametrize("name", SPACES + SIZES)
    def test_cost_table_equals_building_and_counting_at_every_size(
        self, name: str, space_of: Callable[[str], SearchSpace]
    ) -> None:
        rng = random.Random(name)
        table = CostTable(space_of(name), 3, 320)
        for architecture in [space_of(name).sample(rng) for _ in range(10)]:
            assert table.cost(architecture) == cost.measure(architecture.document(3), 3, 320), architecture

    def test_layers_of_a_cost_table_have_the_names_of_yaml_rows(self, table_of: Callable[[str], CostTable]) -> None:
        picks = {
            3: Choice.of("UIB", {}),
            4: Choice.of("DCNv4", {}),
            5: Choice.of("DynamicConv", {}),
            6: Choice.of("MMQA", {"kv_stride": 2}),
            10: Choice.of("DySample", {}),
        }
        table = table_of("v9")
        layers = table.cost(table.space.of(picks)).layers
        assert [layers[layer].module for layer in (2, *picks, 11)] == [
            "ELAN1",
            "UIB",
            "RepNCSPELAN4_DCNv4",
            "AConv_DynamicConv",
            "RepNCSPELAN4_MMQA",
            "DySample",
            "Concat",
        ]

    @FIGURES
    @pytest.mark.parametrize("name", SPACES)
    def test_extremes_bound_every_architecture(
        self, name: str, figure: Callable[[LayerCost], int], table_of: Callable[[str], CostTable]
    ) -> None:
        table, rng = table_of(name), random.Random(0)

        def total(architecture: Architecture) -> int:
            return sum(map(figure, table.cost(architecture).layers))

        least, most = (total(table.extreme(figure, cheapest=cheapest)) for cheapest in (True, False))
        totals = [total(table.space.sample(rng)) for _ in range(300)]
        assert least <= min(totals) <= max(totals) <= most
        assert least < most

    def test_cost_of_one_more_architecture_takes_less_than_a_millisecond(
        self, table_of: Callable[[str], CostTable]
    ) -> None:
        table, rng = table_of("v9"), random.Random(1)
        seconds = []
        for architecture in [table.space.sample(rng) for _ in range(50)]:
            started = time.perf_counter()
            _ = table.cost(architecture).macs
            seconds.append(time.perf_counter() - started)
        assert statistics.median(seconds) < 1e-3

    @FIGURES
    def test_an_operator_always_costs_something(
        self, figure: Callable[[LayerCost], int], table_of: Callable[[str], CostTable]
    ) -> None:
        """Only upsampling and concatenation are free."""
        table = table_of("v9")
        free = {layer.module for layer in table.cost(table.space.stock).layers if not figure(layer)}
        assert free == {"nn.Upsample", "Concat"}
        for slot in table.space.slots:
            for choice in slot.choices:
                counted = table.layer(slot.layer, choice)
                assert figure(counted) > 0 or (choice == STOCK and slot.host == "nn.Upsample"), (slot.layer, choice)

    def test_choices_that_differ_in_work_differ_in_cost(self, table_of: Callable[[str], CostTable]) -> None:
        table = table_of("v9")
        for slot in table.space.slots:
            costs = {(table.layer(slot.layer, choice).macs, choice.operator) for choice in slot.choices}
            assert len(costs) == len(slot.choices), slot.layer

    def test_equal_modules_are_counted_once(
        self, space_of: Callable[[str], SearchSpace], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        table = CostTable(space_of("v8"), 80, 640)
        counted: list[str] = []
        count = cost.count_layer

        def noting(layer: nn.Module, *arguments: Any, deployed: bool) -> LayerCost:
            counted.append(type(layer).__name__)
            return count(layer, *arguments, deployed=deployed)

        monkeypatch.setattr(cost, "count_layer", noting)
        uib = Choice.of("UIB", {})
        table.layer(4, uib)  # two Bottlenecks of one shape: one of them, and one UIB
        assert counted == ["Bottleneck", "UIB"]
        table.layer(4, uib)
        table.layer(4, Choice.of("UIB", {"expansion": 2}))
        assert counted == ["Bottleneck", "UIB", "UIB"]

    def test_slot_costs_are_the_range_over_choices(self, table_of: Callable[[str], CostTable]) -> None:
        table = table_of("v9")
        slot = table.space.slots[0]
        costs = slot_costs(table, slot)
        assert (costs.slot, costs.choices) == (slot.name, len(slot.choices))
        assert costs.stock_gflops == cost.gflops(table.slot(slot, STOCK).macs)
        assert costs.min_gflops <= costs.median_gflops <= costs.max_gflops
        assert costs.max_gflops == max(cost.gflops(table.slot(slot, choice).macs) for choice in slot.choices)

    def test_layers_of_equal_channels_and_maps_are_distinguished(self, tmp_path: Path) -> None:
        """A C3 and a C2f of equal channels and map, a C2f in groups, an AConv and a Conv."""
        (tmp_path / "mixed.yaml").write_text(
            "nc: 3\nbackbone:\n"
            "  - [-1, 1, Conv, [64, 3, 2]]\n  - [-1, 1, C3, [64]]\n  - [-1, 1, C2f, [64, True]]\n"
            "  - [-1, 1, C2f, [64, True, 2]]\n  - [-1, 1, AConv, [64]]\n  - [3, 1, Conv, [64, 3, 2]]\n"
            "  - [3, 1, ADown, [64]]\n"
            "head:\n  - [[4, 5, 6], 1, Detect, [nc]]\n"
        )
        (tmp_path / "space.yaml").write_text(
            "name: mixed\nbase: mixed.yaml\nslots:\n"
            "  - at: {host: [C3, C2f]}\n    choices: {UIB: {}, DynamicConv: {}, DCNv4: {}}\n"
            "  - at: {layers: [4, 5, 6]}\n    choices: {UIB: {}, DynamicConv: {}}\n"
        )
        space = load(tmp_path / "space.yaml")
        table = CostTable(space, 3, 64)
        for operator in ("UIB", "DynamicConv", "DCNv4"):
            picks = {slot.layer: slot.of(operator)[0] for slot in space.slots if slot.of(operator)}
            architecture = space.of(picks)
            assert table.cost(architecture) == cost.measure(architecture.document(3), 3, 64), operator


class Opaque(nn.Module):
    """Multiplies by weights in its `forward`, which counters of modules miss."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight)


class Refusing(Opaque):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("it knows its values only" if x.is_meta else "never reached")


def small(*rows: list[Any], head: str = "Detect") -> dict[str, Any]:
    """Return a YAML document of the given rows, a convolution and a head."""
    layers = [*rows, [-1, 1, "Conv", [16, 3, 2]]]
    sources = [len(layers) - 1]
    return {"nc": 1, "backbone": layers, "head": [[sources if head == "Detect" else -1, 1, head, ["nc"]]]}


class TestCountingErrors:
    def test_a_small_model_can_be_counted(self) -> None:
        assert cost.measure(small(), 1, 64).macs > 0

    @pytest.mark.parametrize(
        ("module", "text"),
        [
            (Opaque, "Opaque: has weights, but no product with them could be counted"),
            (Refusing, "backbone[0]: Opaque cannot take 3x256x256: it knows its values only"),
        ],
    )
    def test_a_layer_that_cannot_be_counted_is_an_error(
        self, module: type[nn.Module], text: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tasks, "Opaque", module, raising=False)
        with pytest.raises(CostError) as caught:
            cost.measure(small([-1, 1, "Opaque", []]), 1, 64)
        assert str(caught.value) == text

    def test_a_failing_counting_rule_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cost, "counting_rules", lambda: {nn.Conv2d: lambda *_: 1 / 0})
        with pytest.raises(CostError, match=r"Conv: cannot be counted: .*division by zero"):
            cost.measure(small(), 1, 64)

    def test_total_cost_of_zero_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cost, "count_layer", lambda *_, **__: LayerCost(module="Conv", params=1, macs=0))
        with pytest.raises(CostError, match="nothing could be counted in 2 layers at 64 px"):
            cost.measure(small(), 1, 64)

    @pytest.mark.parametrize("size", [16, 48, 100])
    def test_an_image_size_that_does_not_fit_is_an_error(
        self, size: int, space_of: Callable[[str], SearchSpace]
    ) -> None:
        with pytest.raises(CostError, match=f"the model does not take images of {size} px"):
            cost.measure(model_reader.model_document("yolov8n.yaml"), 80, size)
        with pytest.raises(CostError, match=f"the model does not take images of {size} px"):
            CostTable(space_of("v8"), 80, size)

    @pytest.mark.parametrize(
        "document",
        [
            small(head="Classify"),
            small(head="Segment"),
            {"backbone": [], "head": []},
            {"nc": 1},
            small(["Conv"]),
            small([-1, 1, "Konv", [8]]),
            small([-1, 1, "DynamicConv", [8, 3, 2, {"kernels": 3}]]),
        ],
    )
    def test_document_that_cannot_be_counted_is_a_mistake_of_the_user(self, document: dict[str, Any]) -> None:
        with pytest.raises(SpecError):
            cost.measure(document, 1, 64)


def traces(module: nn.Module) -> Iterator[str]:
    """Yield all attributes, hooks and buffers that a counter left in a module."""
    for name, inner in module.named_modules():
        yield from (f"{name}.{key}" for key in ("total_ops", "total_params", "forward") if key in vars(inner))
        yield from (f"{name}: hook" for _ in (*inner._forward_hooks, *inner._forward_pre_hooks))
        yield from (f"{name}.{key}" for key, _ in inner.named_buffers(recurse=False) if "total" in key)


class TestSideEffects:
    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("deployed", [True, False])
    def test_counting_leaves_a_layer_unchanged(self, training: bool, deployed: bool) -> None:
        with torch.device("meta"):
            layer = nn.Sequential(Conv(8, 8, 3), DynamicConv(8, 8), MMQA(8, 8, heads=2, key_dim=8)).train(training)
            layer[1].eval()
            x = torch.zeros(1, 8, 8, 8)
        before = deepcopy(layer)
        cost.count_layer(layer, x, deployed=deployed)
        assert repr(layer) == repr(before)
        assert [module.training for module in layer.modules()] == [module.training for module in before.modules()]
        assert layer.state_dict().keys() == before.state_dict().keys()
        assert list(traces(layer)) == []

    def test_cost_table_leaves_layers_unchanged(self, table_of: Callable[[str], CostTable]) -> None:
        table = table_of("v9")
        for step in [layer.step for layer in table.at_scaling(()).stock]:
            assert list(traces(step.layer)) == []
            assert not step.layer.training

    def test_cost_does_not_depend_on_weights_device_or_seed(
        self, motley: Architecture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)  # it would compile a kernel for every shape
        document, random_state = motley.document(3), torch.get_rng_state()
        before = deepcopy(document)
        expected = cost.measure(document, 3, 64, deployed=False)
        assert document == before
        assert torch.equal(torch.get_rng_state(), random_state)
        torch.manual_seed(1)
        steps = trace(build.model(document, 3).eval().model, torch.rand(1, 3, 64, 64))
        counted = tuple(cost.count_layer(step.layer, step.received, deployed=False) for step in steps)
        assert counted == expected.layers
