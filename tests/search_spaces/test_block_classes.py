"""A user's block of input channels, output channels and repeats in the place of Ultralytics' blocks, by its name."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from ultralytics.nn.modules import Bottleneck
from ultralytics.nn.modules.block import CIB

from search_spaces import Architecture, Choice, SearchSpace, base, build, rows, space_file, yaml_text
from search_spaces.architecture import Insertion
from search_spaces.derive import derive
from search_spaces.errors import SpecError
from search_spaces.hosts import HOSTS
from search_spaces.operators import OPERATORS, SiteKind, modules
from search_spaces.refine import refine
from trials.contracts import cases, operator_contract, record_contract

TEXT = """
import torch
from torch import nn
from ultralytics.nn.modules import C2PSA, SPPELAN, SPPF, A2C2f, Bottleneck, C2f, C2fCIB, C3, C3k2, Conv, RepNCSPELAN4


class C2f_Wide(C2f):
    def __init__(self, c1, c2, n=1, shortcut=False, e=0.5):
        super().__init__(c1, c2, n, shortcut, 1, e)
        self.m = nn.ModuleList(Conv(self.c, self.c, 5) for _ in range(n))


class Stack(nn.Module):
    def __init__(self, inp, oup, num_blocks, depthwise: bool = True):
        super().__init__()
        self.enter = Conv(inp, oup)
        self.blocks = nn.Sequential(*(Conv(oup, oup, 3, g=oup if depthwise else 1) for _ in range(num_blocks)))

    def forward(self, x):
        return self.blocks(self.enter(x))


class C2f_UIB(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.conv = Conv(dim, dim)

    def forward(self, x):
        return self.conv(x)


class My_Gate(C2f_UIB):
    pass


class C3k2_UIB(Stack):
    pass


class C3k2_Same(C3k2):
    pass


class C2f_Same(C2f):
    pass


class C2fCIB_Same(C2fCIB):
    pass


class C3_Same(C3):
    def __init__(self, c1, c2, n, shortcut, g, e):
        super().__init__(c1, c2, n, shortcut, g, e)


class C3k2_Attention(C3k2):
    def __init__(self, c1, c2, n=1, c3k=False, e=0.5, attn="SE"):
        super().__init__(c1, c2, n, c3k, e)


class C3k2_Older(C3k2):  # as the parent's order was before `attn`
    def __init__(self, c1, c2, n=1, c3k=False, e=0.5, g=1, shortcut=True):
        super().__init__(c1, c2, n, c3k, e, g, shortcut)


class C2f_EqualChannels(C2f):
    def forward(self, x):
        return x + super().forward(x)


class C2f_AllOn(C2f):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)


class C2f_RestOn(C2f):
    def __init__(self, c1, c2, *rest, **named):
        super().__init__(c1, c2, *rest, **named)


class C2f_ByName(C2f):
    def __init__(self, c1, c2, n=1, **settings):
        super().__init__(c1, c2, n, **settings)


class C2PSA_Same(C2PSA):
    pass


class A2C2f_Same(A2C2f):
    pass


class SPPF_Same(SPPF):
    def __init__(self, c1, c2, k=3):
        super().__init__(c1, c2, k)


class SPPF_All(SPPF):
    pass


class SPPELAN_Same(SPPELAN):
    pass


class RepNCSPELAN4_Same(RepNCSPELAN4):
    pass


class KernelSize(nn.Module):
    def __init__(self, in_channels, out_channels, kernel_size=1, stride=1, padding=None, groups=2):
        super().__init__()
        self.conv = Conv(in_channels, out_channels, kernel_size, stride, padding, groups)

    def forward(self, x):
        return self.conv(x)


class Down(nn.Module):
    def __init__(self, inc, ouc, stride=1):
        super().__init__()
        self.conv = Conv(inc, ouc, 5, stride)

    def forward(self, x):
        return self.conv(x)


class Halving(nn.Module):
    def __init__(self, c1, c2):
        super().__init__()
        self.conv = Conv(c1, c2, 3, 2)

    def forward(self, x):
        return self.conv(x)


class Kernel(nn.Module):
    def __init__(self, c1, c2, k=5, s=1):
        super().__init__()
        self.conv = Conv(c1, c2, k, s)

    def forward(self, x):
        return self.conv(x)


class Larger(nn.Module):
    def __init__(self, in_channels, kernel=3):
        super().__init__()
        self.conv = Conv(in_channels, in_channels, kernel)

    def forward(self, x):
        return nn.functional.interpolate(self.conv(x), scale_factor=2)


class Weighted_Concat(nn.Module):
    def __init__(self, dimension=1):
        super().__init__()
        self.dimension, self.weights = dimension, nn.Parameter(torch.ones(2))

    def forward(self, x):
        return torch.cat([one * weight for one, weight in zip(x, self.weights)], self.dimension)


class C3k2_Own(C3k2):
    def __init__(self, c1, c2, n=1, c3k=False, e=0.75):
        super().__init__(c1, c2, n, c3k, e)


class C3f(C2f):  # as Ultralytics' file of blocks has one
    pass


class Narrowing(Stack):
    def __init__(self, inp, oup, num_blocks):
        super().__init__(inp, oup // 2, num_blocks)
"""
SPACE = """
name: own
base: yolov8{scale}.yaml
scale: n
modules: [own.py]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the file, which is loaded."""
    (tmp_path / "own.py").write_text(TEXT, encoding="utf-8")
    modules.load(tmp_path / "own.py")
    return tmp_path


def load(folder: Path, more: str) -> SearchSpace:
    (folder / "space.yaml").write_text(SPACE + more, encoding="utf-8")
    return space_file.load(folder / "space.yaml")


def layer(model: str, index: int, choice: Choice) -> nn.Module:
    document = Architecture.of(model, "n", {index: choice}).document(80)
    return build.model(document, 80).model[index]


def test_block_is_offered_in_the_place_of_blocks_by_its_name(folder: Path) -> None:
    space = load(folder, "slots:\n  - {at: {host: C2f}, choices: {stock: {}, C2f_Wide: {e: [0.25, 0.5]}, Stack: {}}}\n")
    assert {slot.layer: len(slot.choices) for slot in space.slots} == dict.fromkeys([2, 4, 6, 8, 12, 15, 18, 21], 4)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("model", "index", "name"), [("yolov8n.yaml", 4, "C2f"), ("yolo11n.yaml", 8, "C3k2"), ("yolov5n.yaml", 6, "C3")]
)
def test_it_has_the_channels_and_the_repeats_of_the_layer(model: str, index: int, name: str) -> None:
    stock = base.load(model, "n").traced[index]
    assert modules.offer("Stack") is not None
    (site,) = HOSTS[name].sites_for(OPERATORS["Stack"], stock.layer, stock.channels_in)
    assert (site.kind, site.repeats) == (SiteKind.STAGE, len(stock.layer.get_submodule("m")))  # type: ignore[arg-type]
    built = layer(model, index, Choice.of("Stack", {}))
    assert built.get_parameter("enter.conv.weight").shape[:2] == (stock.c_out, stock.channels_in)
    assert len(list(built.get_submodule("blocks").children())) == site.repeats


def inside(layer: nn.Module) -> list[tuple[str, object]]:
    """Return the shape of every parameter, and whether each bottleneck adds its input."""
    shapes = [(name, tuple(parameter.shape)) for name, parameter in layer.named_parameters()]
    return [*shapes, *((name, one.add) for name, one in layer.named_modules() if isinstance(one, Bottleneck | CIB))]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("model", "scale", "name"),
    [
        ("yolo11n.yaml", "n", "C3k2_Same"),
        ("yolo11m.yaml", "m", "C3k2_Same"),
        ("yolo26n.yaml", "n", "C3k2_Same"),
        ("yolov8n.yaml", "n", "C2f_Same"),
        ("yolov8n.yaml", "n", "C2f_AllOn"),
        ("yolov8n.yaml", "n", "C2f_RestOn"),
        ("yolov8n.yaml", "n", "C2f_ByName"),
        ("yolov10n.yaml", "n", "C2fCIB_Same"),
        ("yolov5n.yaml", "n", "C3_Same"),
        ("yolo11n.yaml", "n", "C2PSA_Same"),
        ("yolo12n.yaml", "n", "A2C2f_Same"),
        ("yolo12l.yaml", "l", "A2C2f_Same"),  # with residual and another mlp_ratio
        ("yolov8n.yaml", "n", "SPPF_Same"),
        ("yolo26n.yaml", "n", "SPPF_All"),
        ("yolov9c.yaml", "", "SPPELAN_Same"),
        ("yolov9t.yaml", "t", "RepNCSPELAN4_Same"),
    ],
)
def test_block_has_the_settings_of_the_layer_as_if_its_name_stood_in_the_row(model: str, scale: str, name: str) -> None:
    stock = base.load(model, scale)
    assert modules.offer(name) is not None
    indices = [one for one, row in enumerate(stock.rows) if row[2] == name.partition("_")[0]]
    assert indices
    for index in indices:
        architecture = Architecture.of(model, scale, {index: Choice.of(name, {})})
        built = build.skeleton(architecture.document(80), 80)[index]
        assert inside(built) == inside(stock.traced[index].layer), index


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("model", "index", "hidden"), [("yolo11n.yaml", 2, 16), ("yolo11n.yaml", 6, 96)])
def test_where_the_row_gives_no_setting_the_class_has_its_own(model: str, index: int, hidden: int) -> None:
    """Layer 2 has e = 0.25 in its row and 64 channels; layer 6 has none, of 128 channels, and the class 0.75."""
    assert modules.offer("C3k2_Own") is not None
    built: Any = layer(model, index, Choice.of("C3k2_Own", {}))
    assert built.c == hidden


@pytest.mark.usefixtures("folder")
def test_class_takes_the_place_of_a_convolution_of_any_stride() -> None:
    assert modules.offer("Down") is not None
    architecture = Architecture.of("yolov8n.yaml", "n", {5: Choice.of("Down", {})})
    document = architecture.document(80)
    assert document["backbone"][5] == [-1, 1, "Down", [128, 3, 2, {"stride": "stock"}]]
    assert build.skeleton(document, 80)[5].get_submodule("conv.conv").stride == (2, 2)


@pytest.mark.usefixtures("folder")
def test_kernel_and_groups_are_known_by_the_names_of_torch_too() -> None:
    assert modules.offer("KernelSize") is not None
    built: Any = layer("yolov8n.yaml", 5, Choice.of("KernelSize", {})).get_submodule("conv.conv")
    assert (built.kernel_size, built.stride, built.groups) == ((3, 3), (2, 2), 1)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("layer", "kernel"), [(3, 3), (0, 3)])
def test_it_is_built_as_the_row_says_whose_place_it_takes(layer: int, kernel: int) -> None:
    """Layer 3 of YOLOv9-t, an AConv, has no kernel in its row; what stands for it has one, also where it is counted."""
    assert modules.offer("Kernel") is not None
    stock = base.load("yolov9{scale}.yaml", "t")
    (site,) = stock.sites(layer, OPERATORS["Kernel"])
    document = Architecture.of("yolov9{scale}.yaml", "t", {layer: Choice.of("Kernel", {})}).document(80)
    for built in (OPERATORS["Kernel"].build(site, k="stock", s="stock"), build.skeleton(document, 80)[layer]):
        convolution: Any = built.get_submodule("conv.conv")
        assert (convolution.kernel_size, convolution.stride) == ((kernel, kernel), (2, 2))


@pytest.mark.usefixtures("folder")
def test_inserted_it_has_the_defaults_of_its_constructor() -> None:
    assert modules.offer("Kernel") is not None
    inserted = [Insertion(after=4, feeds="next", choice=Choice.of("Kernel", {}))]
    architecture = Architecture.of("yolov8n.yaml", "n", {5: Choice.of("Kernel", {})}, inserted=inserted)
    document = architecture.document(80)
    (row, _) = (row for row in document["backbone"] if row[2] == "Kernel")
    assert row == [-1, 1, "Kernel", [{"k": "stock", "s": "stock"}]]
    convolutions: list[Any] = [build.skeleton(document, 80)[index].get_submodule("conv.conv") for index in (5, 6)]
    assert [(one.kernel_size, one.stride) for one in convolutions] == [((5, 5), (1, 1)), ((3, 3), (2, 2))]
    assert Architecture.from_yaml(architecture.to_yaml(80)) == architecture


def test_classes_take_the_places_of_upsampling_layers_and_of_concat(folder: Path) -> None:
    space = load(
        folder,
        "slots:\n  - {at: {host: nn.Upsample}, choices: {stock: {}, Larger: {}}}\n"
        "  - {at: {host: Concat}, choices: {stock: {}, Weighted_Concat: {}}}\n"
        "insert:\n  - {after: 4, choices: {Kernel: {}, My_Gate: {}}}\n",
    )
    assert [len(slot.choices) for slot in space.slots] == [3, 2, 2, 2, 2, 2, 2]
    costliest = {slot.name: slot.choices[-1] for slot in space.slots}
    architecture = space.of(costliest)
    document = architecture.document(80)
    written = document["backbone"] + document["head"]
    assert [-1, 1, "Larger", [None, 2, "nearest", {"kernel": 3}]] in written
    assert [[-1, 7], 1, "Weighted_Concat", [1, {"dimension": 1}]] in written
    assert [-1, 1, "My_Gate", [64, 3, 1, {}]] in written
    built = build.skeleton(document, 80)
    assert Counter(type(one).__name__ for one in built)["Weighted_Concat"] == 4
    assert Architecture.from_yaml(architecture.to_yaml(80)) == architecture


def test_check_of_a_space_builds_it_as_the_layer_that_it_replaces(folder: Path) -> None:
    downsampling = "slots:\n  - {at: {layers: [5]}, choices: {stock: {}, KernelSize: {}}}\n"
    more = "  - {at: {layers: [4]}, choices: {stock: {}, C2f_Same: {}}}\n"
    by_operator = {one.operator: one for one in cases.of_space(load(folder, downsampling + more))}
    convolution: Any = by_operator["KernelSize"].build().get_submodule("conv.conv")
    assert (convolution.kernel_size, convolution.stride, convolution.groups) == ((3, 3), (2, 2), 1)
    assert operator_contract.check(by_operator["KernelSize"]) == ()
    inner: Any = by_operator["C2f_Same"].build().get_submodule("m")
    assert [one.add for one in inner] == [True, True]


def test_slot_of_a_stride_says_why_a_class_of_another_does_not_fit(folder: Path) -> None:
    more = "slots:\n  - {at: {layers: [5]}, choices: {stock: {}, Down: {stride: 1}}}\n"
    with pytest.raises(SpecError, match=r"it makes \(1, 128, 20, 20\) of \(1, 64, 20, 20\), where \(1, 128, 10, 10\)"):
        load(folder, more)


@pytest.mark.usefixtures("folder")
def test_listed_setting_goes_before_that_of_the_layer() -> None:
    assert modules.offer("C3k2_Same") is not None
    for written, hidden in (("stock", 16), (0.25, 16), (0.5, 32)):  # the row of layer 2 has 64 channels and e = 0.25
        built: Any = layer("yolo11n.yaml", 2, Choice.of("C3k2_Same", {"e": written}))
        assert built.c == hidden
    assert record_contract.check(OPERATORS["C3k2_Same"]) == ()
    assert Choice.of("C3k2_Same", {"e": "stock"}) == Choice.of("C3k2_Same", {})
    assert modules.offer("C3k2_Attention") is not None  # whose `attn` is another one than Ultralytics'
    assert dict(Choice.of("C3k2_Attention", {}).parameters)["attn"] == "SE"
    with pytest.raises(SpecError, match=r"not a value of e, got 'half' \(a value such as 0.5\)"):
        Choice.of("C3k2_Same", {"e": "half"})


def test_setting_that_the_layer_has_anyway_is_no_second_choice(folder: Path) -> None:
    slots = "slots:\n  - {at: {layers: [2, 6]}, choices: {C3k2_Same: {e: [stock, 0.25, 0.5], shortcut: true}}}\n"
    start = "start: [{2: {C3k2_Same: {e: 0.25, shortcut: true}}, 6: {C3k2_Same: {e: 0.25, shortcut: true}}}]\n"
    text = SPACE.replace("yolov8", "yolo11") + slots + start
    (folder / "space.yaml").write_text(text, encoding="utf-8")
    space = space_file.load(folder / "space.yaml")
    offered = {slot.layer: [dict(one.parameters)["e"] for one in slot.choices[1:]] for slot in space.slots}
    assert offered == {2: ["stock", 0.5], 6: ["stock", 0.25]}  # the row of layer 2 has 0.25, that of layer 6 none: 0.5
    assert [dict(one.parameters)["e"] for _, one in space.start[0].picks] == ["stock", 0.25]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("model", "index", "repeats"), [("yolov9c.yaml", 2, 1), ("yolov9e.yaml", 3, 2)])
def test_repeats_of_a_rep_ncspelan4_are_those_of_a_branch(model: str, index: int, repeats: int) -> None:
    assert modules.offer("Stack") is not None
    stock = base.load(model, "").traced[index]
    (site,) = HOSTS["RepNCSPELAN4"].sites_for(OPERATORS["Stack"], stock.layer, stock.channels_in)
    assert site.repeats == repeats


@pytest.mark.usefixtures("folder")
def test_its_row_is_read_in_a_process_that_has_not_offered_it() -> None:
    lowered = rows.lower([-1, 2, "C2f_C2f_Wide", [64, True, {"shortcut": False, "e": 0.25}]])
    assert lowered is not None
    assert (lowered.host.name, lowered.operator.name) == ("C2f", "C2f_Wide")
    assert lowered.row == [-1, 2, "C2f", [64, True]]
    assert rows.lower([-1, 2, "C2f_Wide", [64, True]]) is None  # the row of a class as it stands
    inner = rows.lower([-1, 2, "C2f_UIB", [64, True, {"expansion": 4}]])
    assert inner is not None
    assert (inner.host.name, inner.operator.name) == ("C2f", "UIB")


@pytest.mark.usefixtures("folder")
def test_weights_of_the_stock_block_are_inherited_by_name() -> None:
    assert modules.offer("C2f_Wide") is not None
    built = layer("yolov8n.yaml", 4, Choice.of("C2f_Wide", {}))
    stock = base.load("yolov8n.yaml", "n").traced[4].layer.state_dict()
    same = [name for name, value in built.state_dict().items() if name in stock and stock[name].shape == value.shape]
    assert {"cv1.conv.weight", "cv2.conv.weight"} <= {*same}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            "slots:\n  - {at: {layers: [1]}, choices: {stock: {}, Stack: {}}}\n",
            "; it takes the place of layers 2, 4, 6, 8, 9, 12, 15, 18, 21, or stands behind a layer, insert: [{after:",
        ),
        (
            "slots:\n  - {at: {host: C2f}, choices: {stock: {}, Halving: {}}}\n",
            "layer 2: C2f has no site for Halving; it takes the place of layers 0, 1, 3, 5, 7, 16, 19)",
        ),
        (
            "insert:\n  - {after: 4, choices: {C3k2_UIB: {}}}\n",
            "; it is also what UIB in a C3k2 is called, so that it stands for whole blocks alone; it takes the place",
        ),
        (
            "slots:\n  - {at: {layers: [4]}, choices: {stock: {}, Narrowing: {}}}\n",
            "layer 4: it makes (1, 32, 20, 20) of (1, 64, 20, 20), where the same shape is expected)",
        ),
        (
            "slots:\n  - {at: {layers: [4]}, choices: {stock: {}, C2f_UIB: {}}}\n",
            "name: C2f_UIB is what UIB in a C2f is called; give the class another name",
        ),
        (
            "slots:\n  - {at: {layers: [4]}, choices: {stock: {}, My_Gate: {}}}\n",
            "C2f has no site for My_Gate; it stands behind a layer, insert: [{after: 4, choices: {My_Gate: {}}}])",
        ),
        (
            "slots:\n  - {at: {layers: [8]}, choices: {stock: {}, C3k2_Older: {}}}\n",
            "; its constructor hands g to C3k2 as the sixth argument, which it was in older releases",
        ),
        (
            "slots:\n  - {at: {layers: [4, 12]}, choices: {C2f_EqualChannels: {}}}\n",
            "slots[0]: layer 12 has stock as its only choice (C2f_EqualChannels: with 384 channels it ",
        ),
    ],
)
def test_mistakes_say_where_it_can_stand(more: str, expected: str, folder: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load(folder, more)
    assert expected in str(caught.value)


def test_name_of_an_operator_in_a_host_is_that_of_a_block_in_the_place_of_hosts_alone(folder: Path) -> None:
    slots = "slots:\n  - {at: {layers: [4]}, choices: {stock: {}, C3k2_UIB: {depthwise: false}}}\n"
    (slot,) = load(folder, slots).slots
    built = layer("yolov8n.yaml", 4, slot.choices[1])
    assert type(built).__name__ == "C3k2_UIB"
    with pytest.raises(SpecError, match="after-6: Conv has no site for C3k2_UIB"):
        load(folder, "insert:\n  - {after: 6, choices: {C3k2_UIB: {}}}\n")


def test_name_of_a_class_in_a_host_is_that_of_its_place_alone_whichever_is_offered_first(folder: Path) -> None:
    (folder / "own.py").write_text(TEXT + "\n\nclass SPPF_Kernel(Kernel):\n    pass\n", encoding="utf-8")
    with pytest.raises(SpecError, match="layer 5: Conv has no site for SPPF_Kernel"):
        load(folder, "slots:\n  - {at: {layers: [5]}, choices: {stock: {}, SPPF_Kernel: {}}}\n")
    load(folder, "slots:\n  - {at: {layers: [9]}, choices: {stock: {}, SPPF_Kernel: {}}}\n")


def test_name_with_an_operator_behind_no_host_is_any_name(folder: Path) -> None:
    (folder / "own.py").write_text(TEXT + "\n\nclass My_SE(Kernel):\n    pass\n", encoding="utf-8")
    (slot,) = load(folder, "slots:\n  - {at: {layers: [5]}, choices: {stock: {}, My_SE: {}}}\n").slots
    assert type(layer("yolov8n.yaml", 5, slot.choices[1])).__name__ == "My_SE"


def test_class_with_an_underscore_is_inserted(folder: Path) -> None:
    load(folder, "insert:\n  - {after: [4, 6], choices: {My_Gate: {}}}\n")
    inserted = [Insertion(after=4, feeds="all", choice=Choice.of("My_Gate", {}))]
    document = Architecture.of("yolov8n.yaml", "n", {}, inserted=inserted).document(80)
    row = document["backbone"][5]
    assert row[2] == "My_Gate"
    lowered = rows.lower(row)
    assert lowered is not None
    assert (lowered.host.name, lowered.operator.name) == ("Conv", "My_Gate")
    built = build.model(document, 80).eval()
    with torch.no_grad():
        assert built(torch.rand(1, 3, 64, 64))[0].isfinite().all()


def test_space_around_a_result_offers_the_values_that_were_found(folder: Path) -> None:
    space = load(folder, "slots:\n  - {at: {layers: [4]}, choices: {stock: {}, C2f_Wide: {e: [0.25, 0.75]}}}\n")
    found = [space.of({"4": one}) for one in space.slots[0].choices[1:]]
    document = yaml_text.read_yaml(folder / "space.yaml")
    fine = space_file.parse({**yaml_text.parse_yaml(refine(document, space, found)), "modules": []})
    assert [each.fingerprint for each in fine.start] == [each.fingerprint for each in found]
    (folder / "found.yaml").write_text(found[0].to_yaml(80, folder=folder), encoding="utf-8")
    around = space_file.parse(yaml_text.parse_yaml(derive(str(folder / "found.yaml"))))
    assert [each.picks for each in around.start] == [found[0].picks]


class TestDerive:
    def test_class_that_the_file_has_is_a_choice_there_wherever_it_stands(self, folder: Path) -> None:
        for name in ("Halving", "C2f_Wide"):
            modules.offer(name)
        picks = {3: Choice.of("Halving", {}), 9: Choice.of("C2f_Wide", {"e": 0.25})}
        (folder / "mine.yaml").write_text(Architecture.of("yolov8n.yaml", "n", picks).to_yaml(80), encoding="utf-8")
        around = space_file.parse(yaml_text.parse_yaml(derive(str(folder / "mine.yaml"))))
        assert [dict(each.picks) for each in around.start] == [picks]

    def test_blocks_of_the_file_are_choices(self, folder: Path) -> None:
        found = yaml.safe_load(derive("yolov8n.yaml"))
        assert found["modules"] == [str(folder / "own.py")]
        offering = [set(entry["at"]["layers"]) for entry in found["slots"] if "C2f_Wide" in entry["choices"]]
        assert set.union(*offering) == {2, 4, 6, 8, 12, 15, 18, 21}
        (pyramid,) = (entry for entry in found["slots"] if entry["at"]["layers"] == [9])
        assert {"C2f_Wide", "SPPF_Same", "C2PSA_Same", "Down"} & {*pyramid["choices"]} == {"SPPF_Same"}
        assert not any({"C3f", "Narrowing", "C2f_UIB", "My_Gate"} & {*entry["choices"]} for entry in found["slots"])

    def test_it_says_how_to_search_which_layers_get_the_blocks_of_a_fork(self, folder: Path) -> None:
        (folder / "own.py").write_text(
            TEXT.replace("C2f_Wide(C2f)", "C3k2_Wide(C3k2)").replace("n, shortcut, 1, e)", "n, False, e)"),
            encoding="utf-8",
        )
        modules.load(folder / "own.py")
        rows_of_it = "- [-1, 1, Conv, [16, 3, 2]]\n  - [-1, 1, C3k2_Wide, [32, False]]"
        text = f"nc: 2\nbackbone:\n  {rows_of_it}\nhead:\n  - [[-1], 1, Detect, [nc]]\n"
        (folder / "mine.yaml").write_text(text, encoding="utf-8")
        comment = " ".join(derive(str(folder / "mine.yaml")).replace("# ", "").split())
        assert "No slots: C3k2_Wide 1; Detect 2. To search which layers get C3k2_Wide, write C3k2 into its" in comment


WANTING = """
from torch import nn


class LargeKernel(nn.Module):
    def __init__(self, dim, k_size, heads=1):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, k_size, padding=k_size // 2, groups=dim)

    def forward(self, x):
        return x * self.conv(x)
"""


class TestArgumentWithoutDefault:
    @pytest.fixture
    def wanting(self, tmp_path: Path) -> Path:
        """Return a folder with a class that has an argument without default."""
        (tmp_path / "own.py").write_text(WANTING, encoding="utf-8")
        modules.load(tmp_path / "own.py")
        return tmp_path

    def test_values_of_the_space_are_given(self, wanting: Path) -> None:
        space = load(wanting, "insert:\n  - {after: 4, choices: {LargeKernel: {k_size: [3, 7]}}}\n")
        (slot,) = space.slots
        assert [str(one) for one in slot.choices[1:]] == ["LargeKernel(k_size=3)", "LargeKernel(k_size=7)"]
        text = space.of({slot.name: slot.choices[2]}).to_yaml(80, folder=wanting)
        assert "LargeKernel, [64, 3, 1, {k_size: 7, heads: 1}]" in text
        del OPERATORS["LargeKernel"]
        assert Architecture.from_yaml(text, folder=wanting).insertions[0].choice == slot.choices[2]

    @pytest.mark.parametrize(
        ("choices", "expected"),
        [
            (
                "{LargeKernel: {heads: 2}}",
                "choices.LargeKernel: LargeKernel has no default for k_size: give it a value, or several, {Large",
            ),
            (
                "{LargeKernel: {k_size: [[3, 3]]}}",
                "not a value of k_size, got [3, 3] (a number, a word, or a truth value)",
            ),
            ("{LargeKernel: {k_size: wide}}", "with 64 channels it cannot be built or run: "),
        ],
    )
    def test_mistakes_are_named(self, choices: str, expected: str, wanting: Path) -> None:
        with pytest.raises(SpecError) as caught:
            load(wanting, f"insert:\n  - {{after: 4, choices: {choices}}}\n")
        assert expected in str(caught.value)

    def test_space_around_a_result_offers_what_was_found(self, wanting: Path) -> None:
        space = load(wanting, "insert:\n  - {after: 4, choices: {LargeKernel: {k_size: [3, 7]}}}\n")
        found = [space.of({space.slots[0].name: one}) for one in space.slots[0].choices[1:]]
        document = yaml_text.read_yaml(wanting / "space.yaml")
        fine = space_file.parse({**yaml_text.parse_yaml(refine(document, space, found)), "modules": []})
        assert [each.fingerprint for each in fine.start] == [each.fingerprint for each in found]
        (wanting / "found.yaml").write_text(found[1].to_yaml(80, folder=wanting), encoding="utf-8")
        around = space_file.parse(yaml_text.parse_yaml(derive(str(wanting / "found.yaml"))))
        assert [one.choice for one in around.start[0].insertions] == [space.slots[0].choices[2]]

    def test_row_without_it_is_refused(self, wanting: Path) -> None:
        with pytest.raises(SpecError, match="LargeKernel: LargeKernel has no default for k_size"):
            rows.lower([-1, 1, "LargeKernel", [64, 3, 1, {"heads": 1}]])
        assert wanting.is_dir()
