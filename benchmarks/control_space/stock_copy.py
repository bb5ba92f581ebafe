"""Stock block under another name, as a user's operator: a space in which no architecture differs from another in truth.

A `StockCopy` is the `Bottleneck` of YOLOv8's backbone: the same layers, initialised alike, or with the weights of the
stock model. Its output is multiplied by ones, which changes no bit and costs a multiply-add for each value: so
architectures differ in cost, and a Pareto front has several members.

Trained like this, a copy would have the stock model's scores to the last digit. So it takes other random numbers: after
each training step the augmentation goes on from another place of its random numbers, one for each architecture. (On a
CPU, where Ultralytics augments in the process that trains.) From random weights, a copy and what stands behind it draw
other initial weights, too.
"""

import random

import numpy as np
import torch
from torch import Tensor
from ultralytics.nn.modules.block import Bottleneck

from search_spaces.operators import Operator, Parameter, Parameters, Site, SiteKind


class StockCopy(Bottleneck):
    """Bottleneck of two 3x3 convolutions and a residual, `(batch, c, h, w) -> (batch, c, h, w)`.

    Args:
        channels: of input, hidden map and output.
        times: how often the output is multiplied by one.
    """

    def __init__(self, channels: int, times: int) -> None:
        super().__init__(channels, channels, shortcut=True, k=(3, 3), e=1.0)
        self.stream = f"{channels} channels, {times} times"
        self.ones: Tensor
        self.register_buffer("ones", torch.ones(times))

    def forward(self, x: Tensor) -> Tensor:
        """Compute what the stock block does."""
        if self.training:
            random.seed(f"{random.getrandbits(64)}, {self.stream}")
            np.random.seed(random.getrandbits(32))  # noqa: NPY002 - what Ultralytics' augmentation draws from
        y: Tensor = super().forward(x)
        for index in range(len(self.ones)):
            y = y * self.ones[index]
        return y


def incompatibility(site: Site, _parameters: Parameters) -> str | None:
    return None if site.c_in == site.c_out else "the stock block has no residual here"


STOCK_COPY = Operator(
    name="StockCopy",
    module=StockCopy,
    parameters=(Parameter(name="times", default=1, allowed=(1, 2, 3)),),
    kinds=(SiteKind.BLOCK,),
    build=lambda site, *, times: StockCopy(site.c_in, times),
    incompatibility=incompatibility,
    extra_macs=lambda module, _x, y: len(module.ones) * y.numel(),  # type: ignore[arg-type]  # a StockCopy
    reference="none: Bottleneck of Ultralytics",
)
