"""DySample, upsampling at learned sampling points: Liu et al. 2023, arXiv 2308.15085."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.operators.record import Operator, Parameter, Parameters, Site, SiteKind
from search_spaces.operators.sampling import grid_sample


class DySample(nn.Module):
    """Bilinear upsampling with an offset for each sampling point, predicted from the input.

    `(batch, channels, h, w) -> (batch, channels, h * scale, w * scale)`.

    Source: arXiv 2308.15085; original code tiny-smart/dysample, MIT. `lp` (linear, then pixel shuffle) and `pl` (pixel
    shuffle, then linear) are the paper's two ways to compute the offsets. Difference to the original: sizes are read
    from the input's shape at every call, so that a traced or exported module is right at any size; the original
    freezes the traced one. A new module is within a few hundredths of bilinear interpolation (inputs of variance 1),
    not of nearest neighbour, which YOLO's `nn.Upsample` uses.

    Args:
        channels: of the input and the output.
        scale: factor in height and width.
        style: `lp` or `pl`.
        groups: of channels that share their offsets.
        dynamic_scope: scale the offsets by a factor from 0 to 0.5 that is predicted from the input, instead of 0.25.

    Raises:
        ValueError: an unknown style; `groups`, or `scale` squared for `pl`, does not divide `channels`.

    Attributes:
        is_repeatable: whether gradients are added in a fixed order on a GPU, which is slower; a training sets it.
    """

    is_repeatable = False
    initial_shift: Tensor

    def __init__(
        self,
        channels: int,
        *,
        scale: int = 2,
        style: str = "lp",
        groups: int = 4,
        dynamic_scope: bool = False,
    ) -> None:
        super().__init__()
        if style not in {"lp", "pl"}:
            raise ValueError(f"DySample: unknown style {style!r}, not lp or pl")
        if channels % groups:
            raise ValueError(f"DySample: {groups} groups do not divide {channels} channels")
        if style == "pl" and channels % scale**2:
            raise ValueError(f"DySample: style pl at scale {scale} needs {channels} channels to divide by {scale**2}")
        self.scale, self.style, self.groups = scale, style, groups
        read = channels if style == "lp" else channels // scale**2
        shifts = 2 * groups * (scale**2 if style == "lp" else 1)
        self.offset = nn.Conv2d(read, shifts, 1)
        self.scope = nn.Conv2d(read, shifts, 1, bias=False) if dynamic_scope else None
        self.register_buffer("initial_shift", _initial_shift(scale, groups))
        nn.init.normal_(self.offset.weight, std=0.001)
        nn.init.zeros_(self.offset.bias)  # type: ignore[arg-type]  # it has a bias
        if self.scope is not None:
            nn.init.zeros_(self.scope.weight)

    def shifts(self, x: Tensor) -> Tensor:
        """Offsets in input pixels, `(batch, 2 * groups * scale^2, h, w)`: x of all groups, then y."""
        read = F.pixel_shuffle(x, self.scale) if self.style == "pl" else x
        reach = 0.25 if self.scope is None else 0.5 * self.scope(read).sigmoid()
        shift = reach * self.offset(read)
        if self.style == "pl":
            shift = F.pixel_unshuffle(shift, self.scale)
        return shift + self.initial_shift.to(shift.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, channels, h, w)` to `(batch, channels, h * scale, w * scale)`."""
        batch, channels, height, width = x.shape
        # Coordinates stay in float32 under autocast and in half models: float16 is too coarse beyond pixel 80.
        precise = torch.promote_types(x.dtype, torch.float32)
        shift = self.shifts(x).to(precise).reshape(batch, 2, -1, height, width)
        columns = torch.arange(width, device=x.device, dtype=precise) + 0.5
        rows = torch.arange(height, device=x.device, dtype=precise)[:, None] + 0.5
        across = self._finer(2 * (columns + shift[:, 0]) / width - 1)
        down = self._finer(2 * (rows + shift[:, 1]) / height - 1)
        maps = x.reshape(batch * self.groups, channels // self.groups, height, width)
        places = torch.stack((across, down), dim=-1)
        how = {"in_order": self.is_repeatable, "is_training": self.training}
        y = grid_sample(maps.to(precise), places, padding="border", **how)
        return y.to(x.dtype).reshape(batch, channels, height * self.scale, width * self.scale)

    def _finer(self, places: Tensor) -> Tensor:
        """Map `(batch, groups * scale^2, h, w)` to `(batch * groups, h * scale, w * scale)`."""
        return F.pixel_shuffle(places, self.scale).flatten(0, 1)

    def extra_repr(self) -> str:
        """Settings that no child module shows."""
        return f"scale={self.scale}, style={self.style}, groups={self.groups}"


def _initial_shift(scale: int, groups: int) -> Tensor:
    """Offsets of plain bilinear upsampling, in input pixels: `(1, 2 * groups * scale^2, 1, 1)`."""
    line = (torch.arange(scale) - (scale - 1) / 2) / scale
    x = line.repeat(scale)
    y = line.repeat_interleave(scale)
    return torch.stack((x.repeat(groups), y.repeat(groups))).reshape(1, -1, 1, 1)


def _sampling_macs(_module: nn.Module, _x: Tensor, y: Tensor) -> int:
    """Count four products for each output value: bilinear interpolation."""
    return 4 * y.numel()


def _build(site: Site, *, style: str, groups: int, dynamic_scope: bool) -> DySample:
    return DySample(site.c_in, scale=site.stride, style=style, groups=groups, dynamic_scope=dynamic_scope)


def _incompatibility(site: Site, parameters: Parameters) -> str | None:
    groups = int(parameters["groups"])
    if site.c_in % groups:
        return f"{groups} groups do not divide {site.c_in} channels"
    if parameters["style"] == "pl" and site.c_in % site.stride**2:
        return f"style pl needs {site.c_in} channels to divide by {site.stride**2}"
    return None


DYSAMPLE_RECORD = Operator(
    name="DySample",
    module=DySample,
    parameters=(
        Parameter(name="style", default="lp", allowed=("lp", "pl"), search_values=("lp", "pl")),
        Parameter(name="groups", default=4, allowed=(1, 2, 4, 8)),
        Parameter(name="dynamic_scope", default=False, allowed=(False, True), search_values=(False, True)),
    ),
    kinds=(SiteKind.UPSAMPLE,),
    build=_build,
    incompatibility=_incompatibility,
    extra_macs=_sampling_macs,
    reference="DySample, arXiv 2308.15085",
)
