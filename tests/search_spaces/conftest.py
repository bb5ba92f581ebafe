from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def no_kernel_compilation() -> Iterator[None]:
    """oneDNN compiles a kernel for every new shape: seconds a model, where the arithmetic takes milliseconds."""
    backend: Any = torch.backends.mkldnn
    was, backend.enabled = backend.enabled, False
    yield
    backend.enabled = was


def _wake(module: nn.Module) -> nn.Module:
    """Give zero-initialised parameters and fresh batch norms values that a trained module could have."""
    module = deepcopy(module)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.get_buffer("running_mean").normal_(std=0.3)
                norm.get_buffer("running_var").uniform_(0.5, 2)
                norm.weight.uniform_(0.5, 1.5)
                norm.bias.normal_(std=0.3)
    return module


@pytest.fixture(scope="session")
def awake() -> Callable[[nn.Module], nn.Module]:
    """A copy of a module with no parameter at its zero start and batch norm statistics of its own."""
    return _wake
