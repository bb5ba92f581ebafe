"""Transfer of weights from another model to the layers of equal role."""

from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn
from ultralytics.nn.tasks import load_checkpoint

from search_spaces import Architecture, Choice, auxiliary, build, model_reader, pgi
from search_spaces.architecture import Insertion
from search_spaces.errors import DataError
from search_spaces.insertions import Feeds
from trials.scores import Coverage
from trials.training.inheritance import inherit, transfer
from trials.weights import save

CLASSES = 10


def tensors(file: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(file)[0].state_dict()


def same(these: Mapping[str, torch.Tensor], those: Mapping[str, torch.Tensor]) -> bool:
    return these.keys() == those.keys() and all(torch.equal(these[name], those[name]) for name in these)


def share(parameters: Mapping[str, nn.Parameter], copied: Collection[str]) -> float:
    counts = {name: parameter.numel() for name, parameter in parameters.items()}
    return sum(counts[name] for name in copied) / sum(counts.values())


def by_layer(
    parameters: Mapping[str, nn.Parameter], copied: Collection[str], *, changed: Sequence[int]
) -> tuple[tuple[str, float], ...]:
    """Return the share that was copied of each changed layer, in a model without inserted layers."""
    shares = []
    for layer in changed:
        of_layer = {name: value for name, value in parameters.items() if name.startswith(f"model.{layer}.")}
        shares.append((str(layer), share(of_layer, of_layer.keys() & copied)))
    return tuple(shares)


def auxiliary_parameters(model: nn.Module) -> frozenset[str]:
    """Return the names of the parameters that dropping the auxiliary branch removes, from a copy."""
    duplicate = deepcopy(model)
    names = {id(parameter): name for name, parameter in duplicate.named_parameters()}
    left = {id(parameter) for parameter in pgi.drop_auxiliary(duplicate).parameters()}
    return frozenset(name for identity, name in names.items() if identity not in left)


@pytest.fixture
def trained(stock: Architecture, tmp_path: Path) -> Path:
    """Return a checkpoint of the stock model."""
    torch.manual_seed(1)
    path = tmp_path / "stock.pt"
    save(build.model(stock.document(CLASSES), CLASSES), {}, path)
    return path


def test_same_architecture_inherits_all_weights(stock: Architecture, trained: Path) -> None:
    torch.manual_seed(2)
    model = build.model(stock.document(CLASSES), CLASSES)
    assert not same(model.state_dict(), tensors(trained))
    assert inherit(model, trained) == Coverage(share=1.0)
    assert same(model.state_dict(), tensors(trained))


def test_another_architecture_inherits_all_weights_but_those_of_operators(motley: Architecture, trained: Path) -> None:
    model = build.model(motley.document(CLASSES), CLASSES)
    coverage = inherit(model, trained)
    source = tensors(trained)
    parameters = dict(model.named_parameters())
    equal = {name for name, value in parameters.items() if name in source and torch.equal(value, source[name])}
    initialised = {f"model.3.{name}" for name in ("weight", "bn.weight", "bn.bias")}  # of DynamicConv, from a Conv
    copied = {name for name in parameters if name in source or name in initialised}
    assert copied - initialised <= equal
    assert coverage.new == parameters.keys() - copied
    assert coverage == Coverage(
        share=share(parameters, copied), layers=by_layer(parameters, copied, changed=(2, 3, 4, 6, 11)), new=coverage.new
    )
    assert 0.5 < coverage.share < 1


@pytest.mark.parametrize("feeds", ["next", "all"])
def test_layers_after_an_insertion_inherit_by_role(
    stock: Architecture, trained: Path, tmp_path: Path, feeds: Feeds
) -> None:
    insertion = Insertion(after=4, feeds=feeds, choice=Choice.of("UIB", {}))
    inserted = Architecture.of(stock.base, stock.scale, {}, inserted=[insertion])
    model = build.model(inserted.document(CLASSES), CLASSES)
    parameters = dict(model.named_parameters())
    new = frozenset(name for name in parameters if name.startswith("model.5."))
    assert inherit(model, trained) == Coverage(
        share=share(parameters, parameters.keys() - new), layers=(("after-4", 0.0),), new=new
    )
    assert torch.equal(model.state_dict()["model.25.cv3.0.2.weight"], tensors(trained)["model.24.cv3.0.2.weight"])
    save(model, {}, tmp_path / "inserted.pt")
    plain = build.model(stock.document(CLASSES), CLASSES)
    assert inherit(plain, tmp_path / "inserted.pt") == Coverage(share=1.0)  # and back
    assert same(plain.state_dict(), tensors(trained))


def test_outputs_for_other_classes_are_not_copied(stock: Architecture, trained: Path) -> None:
    model = build.model(stock.document(3), 3)
    parameters = dict(model.named_parameters())
    new = frozenset(f"model.24.cv3.{level}.2.{name}" for level in range(3) for name in ("weight", "bias"))
    copied = parameters.keys() - new
    assert inherit(model, trained) == Coverage(
        share=share(parameters, copied), layers=by_layer(parameters, copied, changed=(24,)), new=new
    )
    assert model.state_dict()["model.24.cv3.0.2.weight"].shape[0] == 3


def test_inheritance_from_an_unrelated_model_is_refused(stock: Architecture, tmp_path: Path) -> None:
    document = {
        "nc": 1,
        "backbone": [[-1, 1, "Conv", [24, 3, 2]], [-1, 1, "Conv", [24, 3, 2]]],
        "head": [[[1], 1, "Detect", ["nc"]]],
    }
    foreign = tmp_path / "foreign.pt"
    save(build.model(document, 1), {}, foreign)
    with pytest.raises(DataError, match=r"foreign\.pt: only 0\.\d% of this model's parameters are in it"):
        inherit(build.model(stock.document(CLASSES), CLASSES), foreign)


def test_inheritance_from_another_kind_of_file_is_refused(stock: Architecture, tmp_path: Path) -> None:
    model = build.model(stock.document(CLASSES), CLASSES)
    text = tmp_path / "text.pt"
    text.write_text("no checkpoint")
    with pytest.raises(DataError, match=r"text\.pt: not a checkpoint that Ultralytics loads"):
        inherit(model, text)
    numbers = tmp_path / "numbers.pt"
    torch.save({"epoch": 3}, numbers)
    with pytest.raises(DataError, match=r"numbers\.pt: not a checkpoint that Ultralytics loads"):
        inherit(model, numbers)


def test_missing_checkpoint_is_not_downloaded(
    stock: Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr("ultralytics.utils.downloads.attempt_download_asset", asked.append)
    model = build.model(stock.document(CLASSES), CLASSES)
    with pytest.raises(DataError) as caught:
        inherit(model, tmp_path / "yolov5nu.pt")
    assert str(caught.value) == f"{tmp_path}/yolov5nu.pt: no such file (a checkpoint, such as a trial's weights.pt)"
    assert asked == []


@pytest.mark.parametrize("scale", ["t", "m"])
def test_layers_after_an_auxiliary_branch_inherit_by_role(scale: str) -> None:
    deployed = model_reader.model_document(f"yolov9{scale}.yaml")
    torch.manual_seed(1)
    plain = build.model(deployed, CLASSES)
    torch.manual_seed(2)
    whole = build.model(auxiliary.with_branch(deployed), CLASSES)
    assert transfer(whole, plain) == Coverage(share=1.0, new=auxiliary_parameters(whole))  # 1 of what is deployed
    torch.manual_seed(3)
    again = build.model(deployed, CLASSES)
    assert transfer(again, whole) == Coverage(share=1.0)
    assert same(again.state_dict(), plain.state_dict())


def test_auxiliary_branch_inherits_the_weights_of_another() -> None:
    document = auxiliary.with_branch(model_reader.model_document("yolov9t.yaml"))
    torch.manual_seed(1)
    one = build.model(document, CLASSES)
    torch.manual_seed(2)
    other = build.model(document, CLASSES)
    transfer(other, one)
    assert same(other.state_dict(), one.state_dict())


def test_auxiliary_branch_and_an_insertion_inherit_by_role() -> None:
    insertion = Insertion(after=8, feeds="next", choice=Choice.of("DCNv4", {}))
    inserted = Architecture.of("yolov9{scale}.yaml", "t", {}, inserted=[insertion])
    plain = build.model(model_reader.model_document("yolov9t.yaml"), CLASSES)
    whole = build.model(auxiliary.with_branch(inserted.document(CLASSES)), CLASSES)
    new = sum(parameter.numel() for parameter in whole.model[9].parameters())
    deployed = sum(parameter.numel() for parameter in plain.parameters()) + new
    coverage = transfer(whole, plain)
    assert (coverage.share, coverage.layers) == (1 - new / deployed, (("after-8", 0.0),))
