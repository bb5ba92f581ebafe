"""WeightedFusion against its definition (BiFPN, arXiv 1911.09070), and in the place of `Concat`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from ultralytics.nn.modules import Concat

from search_spaces import OPERATORS, Architecture, Choice, build, rows
from search_spaces.errors import SpecError
from search_spaces.hosts import HOSTS
from search_spaces.operators import Site, SiteKind
from search_spaces.space_file import load, parse
from search_spaces.yaml_text import parse_yaml
from trials.costing import cost

Build = Callable[..., Any]
CHANNELS = (3, 5, 2)
FUSION = OPERATORS["WeightedFusion"]


@pytest.fixture
def of(built: Build) -> Build:
    site = Site(
        path="", kind=SiteKind.FUSION, c_in=10, c_out=10, kernel=0, stride=1, activation=nn.SiLU(), inputs=CHANNELS
    )
    return lambda form: built("WeightedFusion", site, form=form)


def maps(batch: int = 2) -> list[torch.Tensor]:
    return [torch.randn(batch, channels, 4, 6, dtype=torch.float64) for channels in CHANNELS]


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.5, -2.0, 3.0), (-1.0, -1.0, -1.0)])
@pytest.mark.parametrize("form", ["sum", "concat"])
def test_fusion_equals_its_definition(form: str, weights: tuple[float, ...], of: Build) -> None:
    """Each map has a projection of its own; the paper's fast normalised fusion adds them."""
    module, read = of(form).double(), maps()
    with torch.no_grad():
        module.weights.copy_(torch.tensor(weights))
        out = module(read).numpy()
    kept = np.maximum(weights, 0)
    shares = kept / (kept.sum() + 1e-4)
    places = np.split(np.eye(10), np.cumsum(CHANNELS)[:-1], axis=1)
    if form == "sum":
        places = np.split(module.project.weight.detach().numpy()[:, :, 0, 0], np.cumsum(CHANNELS)[:-1], axis=1)
    expected = sum(
        3 * share * np.einsum("oc,bchw->bohw", place, x.numpy())
        for share, place, x in zip(shares, places, read, strict=True)
    )
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", ["sum", "concat"])
def test_fusion_starts_as_the_concatenation(form: str, of: Build) -> None:
    module, read = of(form).double(), maps()
    with torch.no_grad():
        assert FUSION.init_from(module, Concat()) == ()  # type: ignore[misc]  # it has one
        far = (module(read) / torch.cat(read, 1) - 1).abs().max()
    assert far == pytest.approx(1e-4 / 3, rel=1e-3)


@pytest.mark.parametrize(("form", "params", "macs"), [("sum", 3 + 100, 24 * (100 + 10)), ("concat", 3, 24 * 10)])
def test_parameters_and_multiply_adds_are_those_by_hand(form: str, params: int, macs: int, of: Build) -> None:
    module = of(form)
    assert sum(parameter.numel() for parameter in module.parameters()) == params
    read = [torch.zeros(1, channels, 4, 6, device="meta") for channels in CHANNELS]
    assert cost.macs_of(module.to("meta"), read) == macs


def test_site_of_a_concatenation_has_the_channels_of_each_map() -> None:
    (site,) = HOSTS["Concat"].sites_for(FUSION, Concat(), (16, 32))
    assert (site.kind, site.inputs, site.c_in, site.c_out) == (SiteKind.FUSION, (16, 32), 48, 48)
    assert HOSTS["Concat"].sites_for(FUSION, Concat(2), (16, 16)) == ()
    assert HOSTS["Concat"].sites_for(OPERATORS["UIB"], Concat(), (16, 32)) == ()


@pytest.fixture(scope="module")
def both() -> Architecture:
    """Return YOLOv8-n with both forms, and a layer inserted before them."""
    forms = {str(layer): Choice.of("WeightedFusion", {"form": form}) for layer, form in ((11, "sum"), (14, "concat"))}
    return load("v8-plus", scale="n").of({**forms, "after-9": Choice.of("SE", {})})


def test_row_of_a_fusion_is_that_of_the_concatenation_and_is_read_back(both: Architecture) -> None:
    text = both.to_yaml(3)
    assert "  - [[-1, 6], 1, WeightedFusion, [1, {form: sum}]]\n" in text
    assert "  - [[-1, 4], 1, WeightedFusion, [1, {form: concat}]]\n" in text
    assert Architecture.from_yaml(text) == both
    assert rows.stock([[-1, 6], 1, "WeightedFusion", [1, {"form": "sum"}]]) == [[-1, 6], 1, "Concat", [1]]
    with pytest.raises(SpecError, match=r"^head\[1\]: WeightedFusion reads a list of layers, got -1 \(\[-1\]\)$"):
        Architecture.from_yaml(text.replace("[[-1, 6], 1, W", "[-1, 1, W"))


def test_layers_behind_a_fusion_read_what_they_read(both: Architecture) -> None:
    stock, model = (build.model(one.document(3), 3) for one in (load("v8-plus", scale="n").stock, both))
    shapes = {name: value.shape for name, value in stock.model[12].state_dict().items()}
    assert {name: value.shape for name, value in model.model[13].state_dict().items()} == shapes
    assert model.model[12].f == [-1, 6]
    model(torch.zeros(1, 3, 64, 64))


def test_cost_of_a_fusion_in_a_space_is_that_of_the_built_model(both: Architecture) -> None:
    in_space = cost.CostTable(load("v8-plus", scale="n"), 3, 64).cost(both)
    assert in_space.layers == cost.measure(both.document(3), 3, 64).layers


SPACE = "name: it\nbase: yolov8{scale}.yaml\nscale: n\nslots:\n  - at: {section: head}\n    choices: "


def test_entry_without_a_host_has_concatenations_only_for_a_fusion() -> None:
    choices = "{UIB: {}, DySample: {}}", "{UIB: {}, DySample: {}, WeightedFusion: {}}"
    without, with_it = (parse(parse_yaml(f"{SPACE}{each}\n")) for each in choices)
    assert [slot.layer for slot in without.slots] == [10, 12, 13, 15, 16, 18, 19, 21]
    assert [slot.layer for slot in with_it.slots if slot.host == "Concat"] == [11, 14, 17, 20]
    assert {slot.operators for slot in with_it.slots if slot.host == "Concat"} == {("stock", "WeightedFusion")}


def test_row_whose_maps_cannot_be_joined_is_named() -> None:
    backbone = [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [16, 3, 1]]]
    head = [[[-1, 0], 1, "WeightedFusion", [16, {"form": "sum"}]], [[-1], 1, "Detect", ["nc"]]]
    with pytest.raises(SpecError, match=r"head\[0\]: WeightedFusion cannot take 16x"):
        build.skeleton({"nc": 2, "backbone": backbone, "head": head}, 2)
