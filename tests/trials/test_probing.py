"""Probing of modules leaves the process as it was."""

from typing import Any

import torch

from trials.contracts import probing


def test_switches_of_pytorch_are_restored() -> None:
    def switches() -> list[Any]:
        return [torch.backends.mkldnn.enabled, probing._onnx_switch()[0]]

    before = switches()
    with probing.isolated():
        assert switches() == [False, False]
    assert switches() == before
