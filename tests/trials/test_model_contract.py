"""What a model's file promises: stock models keep all of it, and what is wrong with an export is seen."""

from typing import Any

import pytest
import torch
from torch import Tensor
from ultralytics.nn.modules import Detect

from search_spaces import model_reader
from trials.contracts import model_contract

STOCK = [
    "yolov3-tiny.yaml", "yolov5n.yaml", "yolov5n-p6.yaml", "yolov6n.yaml", "yolov8n.yaml", "yolov8n-p2.yaml",
    "yolov8n-p6.yaml", "yolov8n-ghost.yaml", "yolov9t.yaml", "yolov9s.yaml", "yolo11n.yaml", "yolo12n.yaml",
    "yolo26n-p2.yaml", "yolo26n-p6.yaml",
]  # fmt: skip
END_TO_END = ["yolov10n.yaml", "yolo26n.yaml"]
"""With a head that keeps the best 300 of more places than a small image has."""


def document(model: str) -> dict[str, Any]:
    return model_reader.read_model(model).document


@pytest.mark.parametrize("model", [*END_TO_END, *(pytest.param(model, marks=pytest.mark.slow) for model in STOCK)])
def test_a_stock_model_keeps_every_promise(model: str) -> None:
    assert model_contract.check(document(model)) == ()


@pytest.mark.parametrize("model", ["yolov8n.yaml", "yolov10n.yaml"])
def test_an_export_with_frozen_places_is_found(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The places of the images that an export is recorded with, not of those that it is run for."""
    whole = Detect._inference

    def frozen(self: Detect, x: dict[str, Tensor]) -> Tensor:
        found = whole(self, x)
        return found[..., : int(found.shape[-1])] + found.new_zeros(int(found.shape[-1])) if self.export else found

    monkeypatch.setattr(Detect, "_inference", frozen)
    assert "export" in {failure.promise for failure in model_contract.check(document(model))}


def test_a_wrong_place_of_an_end_to_end_head_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that is not among the best."""
    whole = Detect._inference

    def wrong(self: Detect, x: dict[str, Tensor]) -> Tensor:
        found = whole(self, x)
        if torch.onnx.is_in_onnx_export():
            found = torch.cat((found[..., :-1], found[..., -1:] * 1.1), -1)
        return found

    monkeypatch.setattr(Detect, "_inference", wrong)
    (failure,) = model_contract.check(document("yolov10n.yaml"))
    assert str(failure).startswith("the model: export: exported at 64x64, it is wrong by ")
