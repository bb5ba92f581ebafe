"""Probing of modules leaves the process as it was, and prints nothing."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d  # type: ignore[import-untyped]

from trials.contracts import probing


def test_switch_of_pytorch_is_restored() -> None:
    before = torch.backends.mkldnn.enabled
    with probing.isolated():
        assert not torch.backends.mkldnn.enabled
    assert torch.backends.mkldnn.enabled == before


class _Deformable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        sampled: Tensor = deform_conv2d(x, torch.zeros(1, 2, 4, 4), torch.ones(1, 2, 1, 1))
        return sampled


def test_export_that_fails_prints_no_graph(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with probing.isolated(), pytest.raises(Exception, match="deform_conv2d"):
        torch.onnx.export(_Deformable(), (torch.zeros(1, 2, 4, 4),), tmp_path / "m.onnx", dynamo=False)
    assert "graph" not in capfd.readouterr().out
