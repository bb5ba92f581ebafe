from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from trials.contract import wake


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


@pytest.fixture(scope="session")
def awake() -> Callable[[nn.Module], nn.Module]:
    """A copy of a module with no parameter at its zero start and batch norm statistics of its own."""
    return wake
