"""Contract of models: stock models keep all promises, and wrong exports are found."""

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
"""Models with a head that returns the best 300 predictions."""


def document(model: str) -> dict[str, Any]:
    return model_reader.read_model(model).document


@pytest.mark.parametrize("model", [*END_TO_END, *(pytest.param(model, marks=pytest.mark.slow) for model in STOCK)])
def test_a_stock_model_keeps_every_promise(model: str) -> None:
    assert model_contract.check(document(model)) == ()


@pytest.mark.parametrize("model", ["yolov8n.yaml", "yolov10n.yaml"])
def test_export_with_a_fixed_size_breaks_the_contract(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The export has as many predictions as the traced image, not as the image that it is run with."""
    whole = Detect._inference

    def frozen(self: Detect, x: dict[str, Tensor]) -> Tensor:
        found = whole(self, x)
        return found[..., : int(found.shape[-1])] + found.new_zeros(int(found.shape[-1])) if self.export else found

    monkeypatch.setattr(Detect, "_inference", frozen)
    assert "export" in {failure.promise for failure in model_contract.check(document(model))}


def test_wrong_prediction_of_an_end_to_end_head_breaks_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    """Includes predictions that are not among the best."""
    whole = Detect._inference

    def wrong(self: Detect, x: dict[str, Tensor]) -> Tensor:
        found = whole(self, x)
        if torch.onnx.is_in_onnx_export():
            found = torch.cat((found[..., :-1], found[..., -1:] * 1.1), -1)
        return found

    monkeypatch.setattr(Detect, "_inference", wrong)
    (failure,) = model_contract.check(document("yolov10n.yaml"))
    assert str(failure).startswith("the model: export: exported at 64x64, it is wrong by ")
