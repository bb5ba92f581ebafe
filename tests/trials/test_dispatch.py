"""Multiply-adds of users' layers, counted from PyTorch's operations, against counts by hand."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from search_spaces import model_reader
from search_spaces.operators import modules
from trials.costing import cost, dispatch

SIZE, CHANNELS = 16, 8
PIXELS = SIZE * SIZE


def maps(channels: int = CHANNELS) -> torch.Tensor:
    return torch.zeros(1, channels, SIZE, SIZE, device="meta")


class Einsum(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bchw,bdhw->bcd", x, x)


class Attention(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(2).transpose(1, 2).unsqueeze(1)
        return functional.scaled_dot_product_attention(tokens, tokens, tokens)


class ComputedKernel(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(x, x.new_zeros(4, CHANNELS // 2, 3, 3), padding=1, groups=2)


class Sampling(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.grid_sample(x, x.new_zeros(1, 4, 4, 2), align_corners=False)


class Vector(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[0].reshape(CHANNELS, PIXELS) @ x.new_zeros(PIXELS)


class Fourier(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x))


class Plain(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.max_pool2d(functional.silu(x * x.mean((2, 3), keepdim=True)), 2)


class Deformable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        from torchvision.ops import DeformConv2d  # type: ignore[import-untyped]

        self.inner = DeformConv2d(CHANNELS, 4, 3, padding=1, groups=2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        moved: torch.Tensor = self.inner(x, x.new_zeros(1, 18, SIZE, SIZE))
        return moved


@pytest.mark.parametrize(
    ("module", "macs", "uncounted"),
    [
        (Einsum, CHANNELS * CHANNELS * PIXELS, ()),
        (Attention, 2 * PIXELS * PIXELS * CHANNELS, ()),
        (ComputedKernel, 4 * (CHANNELS // 2) * 9 * PIXELS, ()),
        (Sampling, 4 * CHANNELS * 4 * 4, ()),
        (Vector, CHANNELS * PIXELS, ()),
        (Fourier, 0, ("aten::_fft_c2c", "aten::_fft_c2r", "aten::_fft_r2c")),
        (Plain, 0, ()),
        (Deformable, PIXELS * 9 * (4 * CHANNELS // 2 + 4 * CHANNELS), ()),
    ],
)
def test_products_of_a_forward_are_counted_or_named(
    module: type[nn.Module], macs: int, uncounted: tuple[str, ...]
) -> None:
    with torch.device("meta"):
        built = module().eval()
    count = dispatch.count(built, maps())
    assert count.macs == macs
    assert set(count.uncounted) <= set(uncounted)
    assert bool(count.uncounted) == bool(uncounted)


def test_costs_of_a_forks_layers_are_those_of_the_same_layers_of_ultralytics(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from ultralytics.nn.modules import C2f\nclass MyC2f(C2f):\n    pass\n", encoding="utf-8"
    )
    modules.load(tmp_path / "own.py")
    costs = []
    for name in ("C2f", "MyC2f"):
        text = f"nc: 2\nbackbone:\n  - [-1, 1, Conv, [16, 3, 2]]\n  - [-1, 2, {name}, [32, True]]\n"
        (tmp_path / "m.yaml").write_text(f"{text}head:\n  - [-1, 1, Conv, [32]]\n  - [[-1], 1, Detect, [nc]]\n")
        document = model_reader.model_document(str(tmp_path / "m.yaml"))
        both = [cost.measure(document, 2, 64, deployed=deployed) for deployed in (False, True)]
        costs.append([(one.params, one.macs) for one in both])
    assert costs[0] == costs[1]


def test_operation_that_is_not_counted_is_named_with_its_layer(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import torch\nfrom torch import nn\nclass Fourier(nn.Module):\n    def forward(self, x):\n"
        "        return torch.fft.irfft2(torch.fft.rfft2(x), s=x.shape[2:])\n",
        encoding="utf-8",
    )
    modules.load(tmp_path / "own.py")
    text = "nc: 2\nbackbone:\n  - [-1, 1, Conv, [16, 3, 2]]\n  - [-1, 1, Fourier, []]\n"
    (tmp_path / "m.yaml").write_text(f"{text}head:\n  - [-1, 1, Conv, [32]]\n  - [[-1], 1, Detect, [nc]]\n")
    document = model_reader.model_document(str(tmp_path / "m.yaml"))
    counted = cost.measure(document, 2, 64)
    assert list(counted.uncounted) == [1]
    assert any(name.startswith("aten::_fft") for name in counted.uncounted[1])


def test_layer_that_needs_numbers_is_counted_once(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from torch import nn\nclass Plain(nn.Conv2d):\n    def __init__(self, c1):\n"
        "        super().__init__(c1, c1, 1)\n"
        "class Scaled(Plain):\n    def forward(self, x):\n        x = super().forward(x)\n"
        "        return x * x.max().item()\n",
        encoding="utf-8",
    )
    modules.load(tmp_path / "own.py")
    macs = []
    for name in ("Plain", "Scaled"):
        text = f"nc: 2\nbackbone:\n  - [-1, 1, Conv, [16, 3, 2]]\n  - [-1, 1, {name}, []]\n"
        (tmp_path / "m.yaml").write_text(f"{text}head:\n  - [-1, 1, Conv, [32]]\n  - [[-1], 1, Detect, [nc]]\n")
        macs.append(cost.measure(model_reader.model_document(str(tmp_path / "m.yaml")), 2, 64).macs)
    assert macs[0] == macs[1]
