"""Channels that a narrower model inherits: a model with redundant channels is narrowed to what computes the same."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from search_spaces import Architecture, SearchSpace, build
from search_spaces.slot import ScalingFactor
from search_spaces.space_names import catalog
from trials.training.channel_graph import Axis, channel_graph
from trials.training.channel_selection import Positions, importance, select
from trials.training.inheritance import transfer

CLASSES = 4


def narrowed(space: SearchSpace, width: float) -> nn.Module:
    """Return the stock model with a width factor, with random weights, statistics and biases."""
    stock = space.stock
    architecture = Architecture.of(stock.base, stock.scale, {}, macro={"width": width})
    return randomised(build.model(architecture.document(CLASSES), CLASSES)).double()


@torch.no_grad()
def randomised(model: nn.Module) -> nn.Module:
    for name, value in model.state_dict().items():
        if name.endswith(("bn.weight", "running_var")):
            value.uniform_(0.5, 1.5)
        elif name.endswith(("bn.bias", "running_mean", "gamma")):
            value.normal_(std=0.3)
        elif "attn" in name and value.ndim == 4:  # so small otherwise that the rest hides it
            value.normal_(std=value[0].numel() ** -0.5)
    return model.eval()


def raw(model: Any, image: Tensor) -> list[Tensor]:
    """Return a model's predictions before decoding."""
    with torch.no_grad():
        predicted = model(image)[1]
    heads = predicted.values() if "one2one" in predicted else [predicted]
    return [head[part] for head in heads for part in ("boxes", "scores")]


@torch.no_grad()
def widened(narrow: nn.Module, wide: nn.Module) -> nn.Module:
    """Return `wide` with the channels of `narrow` at random places in every group, and zeros in all others."""
    ours, theirs = narrow.state_dict(), wide.state_dict()
    graph = channel_graph(wide)
    for name in {name for name, _ in graph.axes}:
        theirs[name].fill_(1.0 if name.endswith("running_var") else 0.0)
    scores = dict(enumerate(torch.rand(1 + max(map(max, graph.axes.values()))).tolist()))
    lengths = {axis: ours[axis[0]].shape[axis[1]] for axis in graph.axes}
    positions = select(graph, lengths, scores)
    for name, value in theirs.items():
        place(value, ours[name], name, positions)
    return wide.eval()


def place(value: Tensor, narrow: Tensor, name: str, positions: Mapping[Axis, Positions]) -> None:
    if (name, 0) not in positions:
        value.copy_(narrow)
        return
    here, there = positions[name, 0]
    if (name, 1) in positions:
        columns, theirs = positions[name, 1]
        value[there[:, None], theirs] = narrow[here[:, None], columns]
    else:
        value[there] = narrow[here]


@pytest.mark.parametrize("family", [name for name in catalog() if not name.endswith("-plus")])
def test_redundant_channels_are_left_out(family: str, space_of: Callable[[str], SearchSpace]) -> None:
    torch.manual_seed(0)
    space, image = space_of(family), torch.rand(1, 3, 64, 96, dtype=torch.float64)
    narrow = narrowed(space, 0.5)
    wide = widened(narrow, build.model(space.stock.document(CLASSES), CLASSES).double())
    torch.testing.assert_close(raw(wide, image), raw(narrow, image), rtol=1e-9, atol=1e-9)
    again = narrowed(space, 0.5)
    assert not torch.equal(raw(again, image)[0], raw(narrow, image)[0])
    coverage = transfer(again, wide, channels="important")
    assert coverage.share == 1
    assert all(torch.equal(*both) for both in zip(raw(again, image), raw(narrow, image), strict=True))


def selected(model: nn.Module, narrow: nn.Module, scores: Mapping[int, float] | None = None) -> dict[Axis, list[int]]:
    graph, ours = channel_graph(model), narrow.state_dict()
    lengths = {axis: ours[axis[0]].shape[axis[1]] for axis in graph.axes if axis[0] in ours}
    found = select(graph, lengths, scores or importance(graph, model.state_dict()))
    return {axis: there.tolist() for axis, (_, there) in found.items()}


DOCUMENT: dict[str, Any] = {
    "nc": CLASSES,
    "backbone": [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [32, 3, 2]], [-1, 2, "C2f", [32, True]]],
    "head": [[[-1, 1], 1, "Concat", [1]], [-1, 1, "ADown", [32]], [[3, 4], 1, "Detect", ["nc"]]],
}


def narrower(**changes: Any) -> dict[str, Any]:
    backbone = [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [16, 3, 2]], [-1, 2, "C2f", [16, True]]]
    return {**DOCUMENT, "backbone": backbone, **changes}


def test_channels_that_are_added_are_selected_together() -> None:
    torch.manual_seed(0)
    model = randomised(build.model(DOCUMENT, CLASSES))
    found = selected(model, build.model(narrower(), CLASSES))
    halves = found["model.2.cv1.conv.weight", 0]
    residual = [position - 16 for position in halves[8:]]
    assert len(halves) == 16
    assert max(halves[:8]) < 16
    assert [found[f"model.2.m.{block}.cv1.conv.weight", 1] for block in range(2)] == [residual, residual]
    assert [found[f"model.2.m.{block}.cv2.bn.bias", 0] for block in range(2)] == [residual, residual]
    assert found["model.2.cv2.conv.weight", 1] == halves + [
        16 * part + position for part in (2, 3) for position in residual
    ]
    assert residual != list(range(8))


def test_a_concatenation_is_read_at_the_offsets_of_its_parts() -> None:
    torch.manual_seed(0)
    model = randomised(build.model(DOCUMENT, CLASSES))
    found = selected(model, build.model(narrower(), CLASSES))
    read = found["model.4.cv1.conv.weight", 1] + [32 + n for n in found["model.4.cv2.conv.weight", 1]]
    both = found["model.2.cv2.conv.weight", 0] + [32 + n for n in found["model.1.conv.weight", 0]]
    assert read == both


def test_the_most_important_channels_are_selected_in_order() -> None:
    model = randomised(build.model(DOCUMENT, CLASSES))
    norm = model.get_parameter("model.1.bn.weight")
    norm.data.fill_(0.001)
    norm.data[[3, 4, 30, 31, *range(10, 22)]] = 1.0
    found = selected(model, build.model(narrower(), CLASSES))
    assert found["model.1.conv.weight", 0] == [3, 4, *range(10, 22), 30, 31]


def test_a_shallower_model_gets_the_inputs_of_the_blocks_that_it_has() -> None:
    torch.manual_seed(0)
    model = randomised(build.model(DOCUMENT, CLASSES))
    shallow = narrower()
    shallow["backbone"][2][1] = 1
    found = selected(model, build.model(shallow, CLASSES))
    assert found["model.2.cv2.conv.weight", 1] == [
        *found["model.2.cv1.conv.weight", 0],
        *(position + 16 for position in found["model.2.cv1.conv.weight", 0][8:]),
    ]


def test_a_model_of_equal_widths_inherits_the_same_either_way() -> None:
    torch.manual_seed(0)
    source = build.model(DOCUMENT, CLASSES)
    one, other = (build.model({**DOCUMENT, "nc": CLASSES}, CLASSES) for _ in range(2))
    assert transfer(one, source) == transfer(other, source, channels="important")
    assert all(torch.equal(*both) for both in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_outputs_for_other_classes_are_not_selected() -> None:
    torch.manual_seed(0)
    source, model = build.model(DOCUMENT, CLASSES), build.model(narrower(nc=3), 3)
    before = {name: value.clone() for name, value in model.state_dict().items() if ".cv3." in name and ".2." in name}
    coverage = transfer(model, source, channels="important")
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert coverage.new == {name for name in before if name in dict(model.named_parameters())}


def test_only_a_search_of_widths_selects_channels(space_of: Callable[[str], SearchSpace]) -> None:
    space = space_of("v8")
    assert not space.searches_width
    for name, searched in {"width.P4": True, "width": True, "depth": False, "image_size": False}.items():
        factor = ScalingFactor(name=name, values=(0.5, 1.0), stock=1.0)
        assert replace(space, scaling_factors=(factor,)).searches_width == searched


def test_queries_and_keys_stay_pairs_where_heads_are_merged(space_of: Callable[[str], SearchSpace]) -> None:
    space = space_of("v11")
    torch.manual_seed(0)
    found = selected(build.model(space.stock.document(CLASSES), CLASSES), narrowed(space, 0.75))
    attended = found["model.10.m.0.attn.qkv.conv.weight", 0]  # 2 heads of 64 here; one of 96 there
    queries, keys, values = attended[:48], attended[48:96], attended[96:]
    assert keys == [position + 32 for position in queries]
    assert {position % 128 // 32 for position in queries} == {0}
    assert {position % 128 // 64 for position in values} == {1}
    assert len(values) == 96
    assert found["model.10.m.0.attn.proj.conv.weight", 1] == [p - 64 * (1 + p // 128) for p in values]


def test_a_narrower_model_with_operators_inherits_what_is_not_in_them(
    stock: Architecture, motley: Architecture
) -> None:
    torch.manual_seed(0)
    source = build.model(stock.document(CLASSES), CLASSES)
    narrow, plain = (replace(each, macro=(("width", 0.5),)) for each in (motley, stock))
    model, other = (build.model(each.document(CLASSES), CLASSES) for each in (narrow, plain))
    coverage = transfer(model, source, channels="important")
    assert transfer(other, source, channels="important").share == 1
    theirs = other.state_dict()
    alike = [name for name, value in model.state_dict().items() if name in theirs and theirs[name].shape == value.shape]
    assert not coverage.new & set(alike)
    assert all(torch.equal(model.state_dict()[name], theirs[name]) for name in alike)
    assert 0.5 < coverage.share < 1


def test_channels_of_a_source_with_operators_are_found(motley: Architecture) -> None:
    torch.manual_seed(0)
    source = build.model(motley.document(CLASSES), CLASSES)
    model = build.model(replace(motley, macro=(("width", 0.5),)).document(CLASSES), CLASSES)
    assert transfer(model, source, channels="important").share > 0.5
