"""Dynamic convolution: a mixture of kernels, chosen anew for every image (arXiv 1912.03458)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.operators.record import Operator, Parameter, Parameters, Site, SiteKind

FINAL_TEMPERATURE = 1.0


class DynamicConv(nn.Module):
    """Convolution with the softmax-weighted mean of several kernels, then batch norm and activation.

    `(batch, c_in, h, w) -> (batch, c_out, ceil(h / stride), ceil(w / stride))`. The weights of the mean come from the
    image: global average pooling, two linear layers, softmax at a temperature.

    Source: arXiv 1912.03458; no official code. Hidden width and initialisation follow the common PyTorch
    re-implementation (kaijieshi7/Dynamic-convolution-Pytorch). The temperature is a float buffer that the module's own
    training forward lowers linearly to 1, so that it is saved, resumed and averaged like a weight, also by a trainer
    that knows nothing of it. Kernels are stored 4-D: Ultralytics converts models to channels_last, which refuses a
    fifth dimension.

    Args:
        c_in: input channels.
        c_out: output channels.
        kernel: size of every kernel; padding keeps the map.
        stride: of the convolution.
        groups: of channels, as in any convolution.
        kernels: how many are mixed.
        reduction: the hidden layer has `c_in / reduction` units, and one more.
        temperature: of the softmax at the start of training.
        anneal_steps: training passes until the temperature is 1.
        activation: after the batch norm.

    Raises:
        ValueError: a temperature below 1.
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
        self.c_in, self.c_out, self.kernel, self.stride = c_in, c_out, kernel, stride
        self.groups, self.kernels = groups, kernels
        self.start_temperature, self.anneal_steps = temperature, anneal_steps
        hidden = kernels if c_in == 3 else c_in // reduction + 1
        self.squeeze = nn.Conv2d(c_in, hidden, 1, bias=False)
        self.mix = nn.Conv2d(hidden, kernels, 1)
        self.weight = nn.Parameter(torch.empty(kernels * c_out, c_in // groups, kernel, kernel))
        self.bn = nn.BatchNorm2d(c_out)
        self.act = nn.SiLU() if activation is None else activation
        self.register_buffer("temperature", torch.tensor(float(temperature)))
        for linear in (self.squeeze, self.mix):
            nn.init.kaiming_normal_(linear.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.mix.bias)  # type: ignore[arg-type]  # it has a bias
        for one in self.weight.data.chunk(kernels):
            nn.init.kaiming_uniform_(one)

    def shares(self, x: Tensor) -> Tensor:
        """Each image's weights of the kernels, `(batch, kernels)`, rows that sum to 1."""
        pooled = F.adaptive_avg_pool2d(x, 1)
        logits = self.mix(self.squeeze(pooled).relu()).flatten(1)
        return (logits / self.temperature.clone()).softmax(dim=1)  # a clone: backward needs it as it was

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, c_in, h, w)` to `(batch, c_out, h / stride, w / stride)`."""
        if self.training:
            self._anneal()
        batch, _, height, width = x.shape
        # One convolution for the whole batch: every image with its kernel is a group of its own.
        kernels = self.shares(x) @ self.weight.reshape(self.kernels, -1)
        kernels = kernels.reshape(batch * self.c_out, self.c_in // self.groups, self.kernel, self.kernel)
        y = F.conv2d(
            x.reshape(1, batch * self.c_in, height, width),
            kernels.to(x.dtype),
            stride=self.stride,
            padding=(self.kernel - 1) // 2,  # v5's stem is 6x6
            groups=batch * self.groups,
        )
        return self.act(self.bn(y.reshape(batch, self.c_out, *y.shape[-2:])))

    @torch.no_grad()
    def _anneal(self) -> None:
        step = (self.start_temperature - FINAL_TEMPERATURE) / self.anneal_steps
        self.temperature.sub_(step).clamp_(min=FINAL_TEMPERATURE)

    def extra_repr(self) -> str:
        """What the children do not show."""
        return (
            f"{self.c_in}, {self.c_out}, kernel={self.kernel}, stride={self.stride}, groups={self.groups}, "
            f"kernels={self.kernels}, temperature={self.start_temperature}"
        )


def _mixing_macs(module: nn.Module, x: Tensor, y: Tensor) -> int:
    """The convolution with the mixed kernel, and the mixing itself, for every image."""
    assert isinstance(module, DynamicConv)  # noqa: S101 - narrows the type; the counter asks by this class
    kernel_size = module.c_out * (module.c_in // module.groups) * module.kernel**2
    pixels = y.shape[-2] * y.shape[-1]
    return x.shape[0] * kernel_size * (pixels + module.kernels)


def _build(site: Site, *, kernels: int, reduction: int, temperature: float) -> DynamicConv:
    return DynamicConv(
        site.c_in,
        site.c_out,
        kernel=site.kernel,
        stride=site.stride,
        kernels=kernels,
        reduction=reduction,
        temperature=temperature,
        activation=site.activation,
    )


def _living(parameters: Parameters) -> Parameters:
    """The softmax over one kernel is 1 at any temperature."""
    if parameters["kernels"] == 1:
        return {name: value for name, value in parameters.items() if name != "temperature"}
    return parameters


DYNAMIC_CONV_RECORD = Operator(
    name="DynamicConv",
    module=DynamicConv,
    parameters=(
        Parameter(name="kernels", default=4, allowed=(1, 2, 4, 8)),
        Parameter(name="reduction", default=4, allowed=(4, 8, 16)),
        Parameter(name="temperature", default=30.0, allowed=(1.0, 10.0, 30.0)),
    ),
    kinds=(SiteKind.CONV, SiteKind.LAYER),
    build=_build,
    living=_living,
    unseen_macs=_mixing_macs,
    reference="Dynamic Convolution, arXiv 1912.03458",
)
