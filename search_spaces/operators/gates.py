"""What attention operators share: gates that start almost open, hidden widths, and the cost of a gate."""

from torch import Tensor, nn

OPEN = 4.0
"""Logit of a gate that changes little: its sigmoid is 0.982."""


def open_gate(last: nn.Conv2d | nn.BatchNorm2d | nn.GroupNorm, logit: float = OPEN) -> None:
    """Set the last layer of a gate so that it has one value for any input."""
    assert last.bias is not None  # noqa: S101 - narrows the type; every gate here has a bias
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, logit)


def squeezing(channels: int, width: int) -> nn.Conv2d:
    """Return the 1x1 convolution before a ReLU, with biases of 0.1.

    With few hidden channels and maps of mean 0, PyTorch's biases around 0 often leave all of them negative, and so
    without a gradient.
    """
    squeeze = nn.Conv2d(channels, width, 1)
    assert squeeze.bias is not None  # noqa: S101 - narrows the type
    nn.init.constant_(squeeze.bias, 0.1)
    return squeeze


def hidden_width(channels: int, reduction: int, *, least: int = 1) -> int:
    """Return the width of a hidden layer with `reduction` times fewer channels, but at least `least`."""
    return max(least, channels // reduction)


def repeated_width(channels: int, reduction: int, *, default: int, least: int = 1) -> str | None:
    """Return why a reduction is not offered: another one has the same hidden width; None if none has."""
    width = hidden_width(channels, reduction, least=least)
    for other in (default, reduction // 2):
        if reduction != default and width == hidden_width(channels, other, least=least):
            return f"reduction {reduction} leaves {width} of {channels} channels, as reduction {other} does"
    return None


def one_gate(_module: nn.Module, _x: Tensor, y: Tensor) -> int:
    """Count one product for each value of the output."""
    return y.numel()


def two_gates(_module: nn.Module, _x: Tensor, y: Tensor) -> int:
    """Count two products for each value of the output."""
    return 2 * y.numel()
