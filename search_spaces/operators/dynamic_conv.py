"""Dynamic convolution, a weighted mean of kernels for each image: Chen et al. 2020, arXiv 1912.03458."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from search_spaces.operators.export import is_exporting
from search_spaces.operators.record import Operator, Parameter, Parameters, Site, SiteKind

FINAL_TEMPERATURE = 1.0
CPU_NUMBERS_AT_ONCE = 320_000
"""Numbers in the mixed kernels that a CPU computes at once, for a part of the batch.

More do not fit in its caches: 256 channels took 1.4 times as long.
"""


class DynamicConv(nn.Module):
    """Convolution with the softmax-weighted mean of several kernels, then batch norm and activation.

    `(batch, c_in, h, w) -> (batch, c_out, ceil(h / stride), ceil(w / stride))`. The weights of the mean are predicted
    from each image: global average pooling, two linear layers, softmax with a temperature.

    Source: arXiv 1912.03458; there is no official code. Hidden width and initialisation follow the common PyTorch
    re-implementation (kaijieshi7/Dynamic-convolution-Pytorch, which has no licence file). The temperature is a float
    buffer that each training pass lowers linearly to 1. So it is saved, resumed and averaged like a weight, also by a
    trainer of another project; it stays float32 in a model of lower precision, where its small steps would round to 0.
    Kernels are stored in four dimensions: Ultralytics converts models to channels_last, which refuses a fifth.

    One mixed kernel is computed for each image, never one output for each kernel. Traced and exported, the convolution
    is a sum of matrix products, which leaves batch and size open; a convolution would freeze both.

    Args:
        c_in: input channels.
        c_out: output channels.
        kernel: size of every kernel; the padding keeps the size of the map.
        stride: of the convolution.
        groups: of channels, as in any convolution.
        kernels: number of kernels.
        reduction: the hidden layer has `c_in // reduction + 1` units.
        temperature: of the softmax at the start of training.
        anneal_steps: training passes until the temperature is 1; our trainers set it to a share of their steps
            (`Recipe.anneal`).
        activation: after the batch norm; SiLU by default.

    Raises:
        ValueError: a temperature below 1; `groups` does not divide the channels.
    """

    temperature: Tensor

    def __init__(
        self,
        c_in: int,
        c_out: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        kernels: int = 4,
        reduction: int = 4,
        temperature: float = 30.0,
        anneal_steps: int = 1000,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if temperature < FINAL_TEMPERATURE:
            raise ValueError(f"DynamicConv: temperature {temperature} is below the final {FINAL_TEMPERATURE}")
        if c_in % groups or c_out % groups:
            raise ValueError(f"DynamicConv: {groups} groups do not divide {c_in} and {c_out} channels")
        self.c_in, self.c_out, self.kernel, self.stride = c_in, c_out, kernel, stride
        self.groups, self.kernels = groups, kernels
        self.start_temperature, self.anneal_steps = temperature, anneal_steps
        hidden = kernels if c_in == 3 else c_in // reduction + 1
        if kernels > 1:  # a single one has the share 1, whatever the image: weights for it would learn nothing
            self.squeeze = nn.Conv2d(c_in, hidden, 1, bias=False)
            self.mix = nn.Conv2d(hidden, kernels, 1)
            nn.init.kaiming_normal_(self.squeeze.weight, mode="fan_out", nonlinearity="relu")
            nn.init.kaiming_normal_(self.mix.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(self.mix.bias)  # type: ignore[arg-type]  # it has a bias
        self.weight = nn.Parameter(torch.empty(kernels * c_out, c_in // groups, kernel, kernel))
        self.bn = nn.BatchNorm2d(c_out)
        self.act = nn.SiLU() if activation is None else activation
        self.register_buffer("temperature", torch.tensor(float(temperature)))
        for one in self.weight.data.chunk(kernels):
            nn.init.kaiming_uniform_(one)

    def shares(self, x: Tensor) -> Tensor:
        """Compute the weights of the kernels for each image: `(batch, kernels)`, rows that sum to 1."""
        if self.kernels == 1:
            return x.new_ones((x.shape[0], 1))
        # Matrix products with the weights of the 1x1 convolutions: for one pixel a convolution is mostly overhead.
        hidden = F.linear(x.mean((2, 3)), self.squeeze.weight.flatten(1)).relu()
        logits = F.linear(hidden, self.mix.weight.flatten(1), self.mix.bias)
        # A copy, because backward needs the temperature as it was.
        return (logits / self.temperature.to(logits.dtype, copy=True)).softmax(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, c_in, h, w)` to `(batch, c_out, ceil(h / stride), ceil(w / stride))`."""
        if self.training:
            self._anneal()
        return self.act(self.bn(self._convolve(x, self.shares(x))))

    def _convolve(self, x: Tensor, shares: Tensor) -> Tensor:
        """Convolve each image with its kernel; the output has the input's memory format."""
        if is_exporting():
            return self._sum_of_products(x, self._kernels(shares, torch.contiguous_format).to(x.dtype))
        at_once = max(1, CPU_NUMBERS_AT_ONCE * self.kernels // self.weight.numel())
        if x.device.type != "cpu" or len(x) <= at_once:
            return self._mix_and_convolve(x, shares)
        parts = zip(x.split(at_once), shares.split(at_once), strict=True)
        return torch.cat([self._mix_and_convolve(*part) for part in parts])

    def _mix_and_convolve(self, x: Tensor, shares: Tensor) -> Tensor:
        last = x.is_contiguous(memory_format=torch.channels_last)
        kernels = self._kernels(shares, torch.channels_last if last else torch.contiguous_format).to(x.dtype)
        if self.kernel == 1 and self.groups == 1:
            return self._product(x, kernels, channels_last=last)
        return self._grouped(x, kernels, channels_last=last)

    def _kernels(self, shares: Tensor, memory_format: torch.memory_format) -> Tensor:
        """Mix the kernels of all images, stacked: `(batch * c_out, c_in / groups, kernel, kernel)`."""
        _, depth, height, width = self.weight.shape
        if memory_format is torch.channels_last:  # mixed as they lie in memory, without a copy
            flat = self.weight.permute(0, 2, 3, 1).reshape(self.kernels, -1)
            return (shares @ flat).reshape(-1, height, width, depth).permute(0, 3, 1, 2)
        return (shares @ self.weight.reshape(self.kernels, -1)).reshape(-1, depth, height, width)

    def _grouped(self, x: Tensor, kernels: Tensor, *, channels_last: bool) -> Tensor:
        """Compute one grouped convolution for the whole batch: each image with its kernel is a group."""
        batch, _, height, width = x.shape
        if channels_last:  # as (h, w, image, channel): copies whole pixels, where `reshape` would copy single numbers
            row = x.permute(2, 3, 0, 1).reshape(1, height, width, -1).permute(0, 3, 1, 2)
        else:
            row = x.reshape(1, -1, height, width)
        y = F.conv2d(row, kernels, stride=self.stride, padding=self._padding, groups=batch * self.groups)
        if channels_last:
            pixels = y.permute(2, 3, 0, 1).reshape(*y.shape[-2:], batch, self.c_out)
            return pixels.permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)
        return y.reshape(batch, self.c_out, *y.shape[-2:])

    def _product(self, x: Tensor, kernels: Tensor, *, channels_last: bool) -> Tensor:
        """Compute a 1x1 convolution: one matrix product per image."""
        x = x[..., :: self.stride, :: self.stride]
        kernels = kernels.reshape(-1, self.c_out, self.c_in)
        if channels_last:
            y = (x.flatten(2).transpose(1, 2) @ kernels.transpose(1, 2)).transpose(1, 2)
        else:
            y = kernels @ x.flatten(2)
        return y.unflatten(2, x.shape[-2:])

    def _sum_of_products(self, x: Tensor, kernels: Tensor) -> Tensor:
        """Compute the convolution as a sum over kernel positions, so that a graph fixes neither batch nor size."""
        batch, groups = x.shape[0], self.groups
        kernels = kernels.reshape(batch, groups, self.c_out // groups, self.c_in // groups, self.kernel, self.kernel)
        padded = F.pad(x, (self._padding,) * 4) if self._padding else x
        total: Tensor | None = None
        for row in range(self.kernel):
            for column in range(self.kernel):
                shifted = padded[..., self._window(row), self._window(column)]
                pixels = shifted.reshape(batch, groups, self.c_in // groups, -1)
                product = kernels[..., row, column] @ pixels
                total = product if total is None else total + product
        assert total is not None  # noqa: S101 - a kernel has at least one position
        return total.reshape(batch, self.c_out, *shifted.shape[-2:])

    def _window(self, position: int) -> slice:
        """Rows, or columns, of the padded map that one position of the kernel is multiplied with."""
        return slice(position, (position - self.kernel + 1) or None, self.stride)

    @property
    def _padding(self) -> int:
        return (self.kernel - 1) // 2  # v5's stem is 6x6

    def annealed(self, passes: int) -> float:
        """Return the temperature after a number of training passes from the start."""
        decrease = (self.start_temperature - FINAL_TEMPERATURE) * passes / self.anneal_steps
        return max(FINAL_TEMPERATURE, self.start_temperature - decrease)

    @torch.no_grad()
    def _anneal(self) -> None:
        step = (self.start_temperature - FINAL_TEMPERATURE) / self.anneal_steps
        self.temperature.sub_(step).clamp_(min=FINAL_TEMPERATURE)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "DynamicConv":  # noqa: FBT001, FBT002 - PyTorch's signature
        """Move the temperature to another device, but keep it float32: bfloat16 has no value between 29.875 and 30."""
        before = self.temperature
        super()._apply(fn, recurse)
        if self.temperature.dtype is not before.dtype:
            self.temperature = before.to(self.temperature.device)
        return self

    def extra_repr(self) -> str:
        """Settings that no child module shows."""
        return (
            f"{self.c_in}, {self.c_out}, kernel={self.kernel}, stride={self.stride}, groups={self.groups}, "
            f"kernels={self.kernels}, temperature={self.start_temperature}"
        )


def _mixing_macs(module: nn.Module, x: Tensor, y: Tensor) -> int:
    """Count, for each image: the convolution with the mixed kernel, the mixing, and the products of `shares`."""
    assert isinstance(module, DynamicConv)  # noqa: S101 - narrows the type; the counter asks by this class
    kernel_size = module.c_out * (module.c_in // module.groups) * module.kernel**2
    pixels = y.shape[-2] * y.shape[-1]
    shares = module.squeeze.weight.numel() + module.mix.weight.numel() if module.kernels > 1 else 0
    return x.shape[0] * (kernel_size * (pixels + module.kernels) + shares)


def _build(site: Site, *, kernels: int, reduction: int, temperature: float) -> DynamicConv:
    return DynamicConv(
        site.c_in,
        site.c_out,
        kernel=site.kernel,
        stride=site.stride,
        groups=site.groups,
        kernels=kernels,
        reduction=reduction,
        temperature=temperature,
        activation=site.activation,
    )


def _init_from(module: DynamicConv, replaced: nn.Module | None) -> tuple[str, ...]:
    """Copy the replaced convolution into each kernel, so that every weighted mean of them is that convolution."""
    if not isinstance(replaced, Conv) or replaced.conv.weight.shape != module.weight[: module.c_out].shape:
        return ()
    module.weight.copy_(replaced.conv.weight.repeat(module.kernels, 1, 1, 1))
    module.bn.load_state_dict(replaced.bn.state_dict())
    return ("weight", "bn.weight", "bn.bias")


def _incompatibility(site: Site, _parameters: Parameters) -> str | None:
    if site.c_in % site.groups or site.c_out % site.groups:
        return f"its {site.groups} groups do not divide {site.c_in} and {site.c_out} channels"
    return None


def _active_parameters(parameters: Parameters) -> Parameters:
    """Drop what a single kernel does not have: the hidden layer and the softmax."""
    if parameters["kernels"] == 1:
        return {name: value for name, value in parameters.items() if name == "kernels"}
    return parameters


DYNAMIC_CONV_RECORD = Operator(
    name="DynamicConv",
    module=DynamicConv,
    parameters=(
        Parameter(name="kernels", default=4, allowed=(1, 2, 4, 8), search_values=(2, 4)),
        Parameter(name="reduction", default=4, allowed=(4, 8, 16), search_values=(4, 16)),
        Parameter(name="temperature", default=30.0, allowed=(1.0, 10.0, 30.0)),
    ),
    kinds=(SiteKind.CONV, SiteKind.POINTWISE, SiteKind.LAYER),
    build=_build,
    incompatibility=_incompatibility,
    active_parameters=_active_parameters,
    init_from=_init_from,
    extra_macs=_mixing_macs,
    reference="Dynamic Convolution, arXiv 1912.03458",
)
