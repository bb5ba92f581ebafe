"""Layer of several maps as a layer of one, so that a contract can check it like any other."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional


class JoinedMaps(nn.Module):
    """Layer that reads or returns several maps, as one that reads and returns one."""

    def __init__(self, layer: nn.Module, maps: Sequence[tuple[int, int]], *, reads_list: bool) -> None:
        super().__init__()
        self.layer, self.maps, self.reads_list = layer, tuple(maps), reads_list

    def forward(self, x: Tensor) -> Tensor:
        """Split the input into the maps that the layer reads; return the first of what it returns, with a share of all.

        The others are added to it by their means, so that a gradient reaches all that the layer computes.
        """
        parts = x.split([channels for channels, _ in self.maps], dim=1)
        read = [
            functional.avg_pool2d(part, smaller) if smaller > 1 else part
            for part, (_, smaller) in zip(parts, self.maps, strict=True)
        ]
        returned: Any = self.layer(read if self.reads_list else read[0])
        if isinstance(returned, Tensor):
            return returned
        first, *others = returned
        for other in others:
            first = first + other.mean(dim=(1, 2, 3), keepdim=True)
        return first
