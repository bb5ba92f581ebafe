"""Outputs of a candidate before its first training step, initialised from another model's weights.

The source has random weights and batch norm statistics, so that every difference shows in its outputs.
"""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from ultralytics.nn.tasks import DetectionModel

from search_spaces import Architecture, Choice, SearchSpace, build
from search_spaces.architecture import Insertion
from search_spaces.insertions import FEEDS, Feeds
from search_spaces.operators.mmqa import MMQA
from search_spaces.operators.uib import UIB
from trials.contracts.probing import as_if_trained, relative_difference
from trials.scores import Coverage
from trials.training.inheritance import transfer

CLASSES = 10
V8N = Architecture(base="yolov8{scale}.yaml", scale="n", picks=())
V8N_LAYERS = range(22)  # before the head


class Zero(nn.Module):
    """Residual branch without effect."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


@pytest.fixture(scope="module")
def source() -> nn.Module:
    """Return a stock model with random weights and statistics."""
    torch.manual_seed(0)
    return as_if_trained(build.model(V8N.document(CLASSES), CLASSES)).eval()


@torch.no_grad()
def predicted(model: nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return model.eval()(torch.rand(2, 3, 64, 96, generator=generator))[0]


def inserted(operator: str, feeds: Feeds, *layers: int) -> DetectionModel:
    new = [Insertion(after=layer, feeds=feeds, choice=Choice.of(operator, {})) for layer in layers]
    return build.model(Architecture.of(V8N.base, V8N.scale, {}, inserted=new).document(CLASSES), CLASSES)


def everywhere(space: SearchSpace, operator: str) -> nn.Module:
    """Return the space's base model with an operator in every slot that offers it."""
    slots = [slot for slot in space.slots if operator in slot.operators]
    assert slots
    return build.model(space.of({slot.layer: Choice.of(operator, {}) for slot in slots}).document(CLASSES), CLASSES)


class TestInsertions:
    @pytest.mark.parametrize("feeds", FEEDS)
    @pytest.mark.parametrize("operator", ["UIB", "MMQA", "LSKA"])
    def test_inserted_operators_start_as_identity(self, operator: str, feeds: Feeds, source: nn.Module) -> None:
        """After every layer at once, so that any effect shows."""
        model = inserted(operator, feeds, *V8N_LAYERS)
        before = predicted(model)
        coverage = transfer(model, source)
        assert coverage.layers == tuple((f"after-{layer}", 0.0) for layer in V8N_LAYERS)
        assert not torch.equal(before, predicted(source))
        assert torch.equal(predicted(model), predicted(source))

    @pytest.mark.parametrize("layer", [0, 2])
    def test_every_value_of_the_stock_model_is_copied(self, layer: int, source: nn.Module) -> None:
        """Ultralytics' loading, by layer number, copies hardly any."""
        offered = source.state_dict()
        total = sum(value.numel() for value in offered.values())
        by_role, by_number = inserted("UIB", "next", layer), inserted("UIB", "next", layer)
        transfer(by_role, source)
        taken = by_role.state_dict()
        renamed = {
            ".".join(("model", str(int(number) + (int(number) > layer)), rest)): value
            for name, value in offered.items()
            for _, number, rest in [name.split(".", 2)]
        }
        came = sum(value.numel() for name, value in renamed.items() if torch.equal(taken[name], value))
        assert came / total >= 0.999
        by_number.load(source, verbose=False)
        taken = by_number.state_dict()
        came = sum(value.numel() for name, value in taken.items() if name in offered and value.equal(offered[name]))
        assert came / total < 0.01


class TestReplacements:
    @pytest.mark.parametrize("kernels", [2, 4])
    def test_a_dynamic_convolution_starts_as_the_convolution_it_replaces(
        self, kernels: int, source: nn.Module, space_of: Callable[[str], SearchSpace]
    ) -> None:
        space = space_of("v8")
        layers = [slot.layer for slot in space.slots if "DynamicConv" in slot.operators]
        picks = {layer: Choice.of("DynamicConv", {"kernels": kernels}) for layer in layers}
        model = build.model(space.of(picks).document(CLASSES), CLASSES)
        coverage = transfer(model, source)
        assert relative_difference(predicted(model), predicted(source)) <= 1e-5
        assert [layer for layer, _ in coverage.layers] == [str(layer) for layer in layers]
        assert {name.rsplit(".", 2)[-2] for name in coverage.new} == {"squeeze", "mix"}

    @pytest.mark.parametrize("form", ["sum", "concat"])
    def test_a_fusion_starts_as_the_concatenation_it_replaces(self, form: str, source: nn.Module) -> None:
        picks = {layer: Choice.of("WeightedFusion", {"form": form}) for layer in (11, 14, 17, 20)}
        model = build.model(Architecture.of(V8N.base, V8N.scale, picks).document(CLASSES), CLASSES)
        coverage = transfer(model, source)
        assert relative_difference(predicted(model), predicted(source)) <= 1e-4
        assert coverage.layers == tuple((str(layer), 0.0) for layer in picks)

    @pytest.mark.parametrize(
        ("name", "operator", "branch"),
        [("v8", "UIB", nn.Identity), ("v10", "MMQA", Zero), ("v11", "MMQA", Zero)],
    )
    def test_an_operator_in_a_residual_branch_starts_without_effect(
        self, name: str, operator: str, branch: type[nn.Module], space_of: Callable[[str], SearchSpace]
    ) -> None:
        space = space_of(name)
        stock = as_if_trained(build.model(space.of({}).document(CLASSES), CLASSES))
        model = everywhere(space, operator)
        transfer(model, stock)
        without = deepcopy(model)
        branches = [path for path, module in without.named_modules() if is_residual_branch(module)]
        assert branches
        for path in branches:
            parent, _, child = path.rpartition(".")
            setattr(without.get_submodule(parent), child, branch())
        assert torch.equal(predicted(model), predicted(without))
        assert not torch.equal(predicted(model), predicted(stock))

    def test_a_trained_operator_is_copied(self, source: nn.Module) -> None:
        """If the source has the operator in the same place, its weights are copied."""
        trained = as_if_trained(inserted("UIB", "next", 4))
        again = inserted("UIB", "next", 4)
        assert transfer(again, trained) == Coverage(share=1.0)
        assert torch.equal(predicted(again), predicted(trained))
        assert not torch.equal(predicted(again), predicted(source))


def is_residual_branch(module: nn.Module) -> bool:
    match module:
        case UIB():
            return module.residual
        case MMQA():
            return isinstance(module.output, nn.Conv2d)
        case _:
            return False
