"""Weights from another model: everything that is the same layer of the base model comes along."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from ultralytics.nn.tasks import load_checkpoint

from search_spaces import Architecture, Choice, auxiliary, build
from search_spaces import base as bases
from search_spaces.architecture import Insertion
from search_spaces.errors import DataError
from search_spaces.insertions import Feeds
from trials import training
from trials.inheritance import inherit, take_over

CLASSES = 10


def tensors(file: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(file)[0].state_dict()


def same(these: Mapping[str, torch.Tensor], those: Mapping[str, torch.Tensor]) -> bool:
    return these.keys() == those.keys() and all(torch.equal(these[name], those[name]) for name in these)


@pytest.fixture
def trained(stock: Architecture, tmp_path: Path) -> Path:
    """A checkpoint of the stock model."""
    torch.manual_seed(1)
    path = tmp_path / "stock.pt"
    training.save(build.model(stock.document(CLASSES), CLASSES), {}, path)
    return path


def test_everything_from_the_same_architecture(stock: Architecture, trained: Path) -> None:
    torch.manual_seed(2)
    model = build.model(stock.document(CLASSES), CLASSES)
    assert not same(model.state_dict(), tensors(trained))
    assert inherit(model, trained) == 1.0
    assert same(model.state_dict(), tensors(trained))


def test_all_but_the_operators_from_another(motley: Architecture, trained: Path) -> None:
    model = build.model(motley.document(CLASSES), CLASSES)
    share = inherit(model, trained)
    source = tensors(trained)
    parameters = dict(model.named_parameters())
    taken = [name for name, own in parameters.items() if name in source and torch.equal(own, source[name])]
    total = sum(parameter.numel() for parameter in parameters.values())
    assert share == pytest.approx(sum(parameters[name].numel() for name in taken) / total, abs=1e-3)
    assert 0.5 < share < 1
    assert all(name in taken for name in parameters if name.startswith(("model.0.", "model.1.", "model.24.")))


@pytest.mark.parametrize("feeds", ["next", "all"])
def test_an_insertion_shifts_nothing(stock: Architecture, trained: Path, tmp_path: Path, feeds: Feeds) -> None:
    new = Insertion(after=4, feeds=feeds, choice=Choice.of("UIB", {}))
    inserted = Architecture.of(stock.base, stock.scale, {}, inserted=[new])
    model = build.model(inserted.document(CLASSES), CLASSES)
    own = sum(parameter.numel() for parameter in model.model[5].parameters())
    total = sum(parameter.numel() for parameter in model.parameters())
    assert inherit(model, trained) == pytest.approx(1 - own / total)
    assert torch.equal(model.state_dict()["model.25.cv3.0.2.weight"], tensors(trained)["model.24.cv3.0.2.weight"])
    training.save(model, {}, tmp_path / "inserted.pt")
    plain = build.model(stock.document(CLASSES), CLASSES)
    assert inherit(plain, tmp_path / "inserted.pt") == 1.0  # and back
    assert same(plain.state_dict(), tensors(trained))


def test_other_classes_keep_their_own_outputs(stock: Architecture, trained: Path) -> None:
    model = build.model(stock.document(3), 3)
    assert 0.9 < inherit(model, trained) < 1
    assert model.state_dict()["model.24.cv3.0.2.weight"].shape[0] == 3


def test_nothing_fits(stock: Architecture, tmp_path: Path) -> None:
    document = {
        "nc": 1,
        "backbone": [[-1, 1, "Conv", [24, 3, 2]], [-1, 1, "Conv", [24, 3, 2]]],
        "head": [[[1], 1, "Detect", ["nc"]]],
    }
    foreign = tmp_path / "foreign.pt"
    training.save(build.model(document, 1), {}, foreign)
    with pytest.raises(DataError, match=r"foreign\.pt: no tensor has a name and shape of this model"):
        inherit(build.model(stock.document(CLASSES), CLASSES), foreign)


def test_no_checkpoint(stock: Architecture, tmp_path: Path) -> None:
    model = build.model(stock.document(CLASSES), CLASSES)
    text = tmp_path / "text.pt"
    text.write_text("no checkpoint")
    with pytest.raises(DataError, match=r"text\.pt: not a checkpoint that Ultralytics loads"):
        inherit(model, text)
    numbers = tmp_path / "numbers.pt"
    torch.save({"epoch": 3}, numbers)
    with pytest.raises(DataError, match=r"numbers\.pt: not a checkpoint that Ultralytics loads"):
        inherit(model, numbers)


def test_a_missing_file_is_not_fetched(stock: Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr("ultralytics.utils.downloads.attempt_download_asset", asked.append)
    model = build.model(stock.document(CLASSES), CLASSES)
    with pytest.raises(DataError) as caught:
        inherit(model, tmp_path / "yolov5nu.pt")
    assert str(caught.value) == f"{tmp_path}/yolov5nu.pt: no such file (a checkpoint, such as a trial's weights.pt)"
    assert asked == []


@pytest.mark.parametrize("scale", ["t", "m"])
def test_an_auxiliary_half_shifts_nothing(scale: str) -> None:
    deployed = bases.model_document(f"yolov9{scale}.yaml")
    torch.manual_seed(1)
    plain = build.model(deployed, CLASSES)
    torch.manual_seed(2)
    whole = build.model(auxiliary.trained(deployed), CLASSES)
    assert take_over(whole, plain) == 1.0  # of what is deployed
    torch.manual_seed(3)
    again = build.model(deployed, CLASSES)
    assert take_over(again, whole) == 1.0
    assert same(again.state_dict(), plain.state_dict())


def test_an_auxiliary_half_comes_from_another() -> None:
    document = auxiliary.trained(bases.model_document("yolov9t.yaml"))
    torch.manual_seed(1)
    one = build.model(document, CLASSES)
    torch.manual_seed(2)
    other = build.model(document, CLASSES)
    take_over(other, one)
    assert same(other.state_dict(), one.state_dict())


def test_an_auxiliary_half_and_an_insertion() -> None:
    new = Insertion(after=8, feeds="next", choice=Choice.of("DCNv4", {}))
    inserted = Architecture.of("yolov9{scale}.yaml", "t", {}, inserted=[new])
    plain = build.model(bases.model_document("yolov9t.yaml"), CLASSES)
    whole = build.model(auxiliary.trained(inserted.document(CLASSES)), CLASSES)
    own = sum(parameter.numel() for parameter in whole.model[9].parameters())
    deployed = sum(parameter.numel() for parameter in plain.parameters()) + own
    assert take_over(whole, plain) == pytest.approx(1 - own / deployed)
