"""DCNv4, deformable convolution without softmax on its weights: Xiong et al. 2024, arXiv 2401.06197."""

from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from search_spaces.operators.export import is_exporting
from search_spaces.operators.record import Operator, Parameter, Parameters, Site, SiteKind
from search_spaces.operators.sampling import grid_sample


class DCNv4(nn.Module):
    """Deformable 3x3 convolution: a weighted sum of nine samples, with offsets and weights predicted for each pixel.

    `(batch, channels, h, w) -> (batch, channels, h, w)`, kernel 3, stride 1.

    Source: arXiv 2401.06197; original code OpenGVLab/DCNv4, MIT. Written in plain PyTorch, so that it runs, counts and
    exports everywhere; on a GPU the original's CUDA kernel samples, where its package DCNv4 is installed and supports
    the shapes. Names in the state dict are the original's. Each group of channels samples at `p + (tap + offset) *
    offset_scale`, p being the pixel; the nine taps are in column order (x outer, y inner), interpolation is bilinear,
    0 outside the map; weights are used as they are, without softmax or sigmoid. Differences to the original: channels
    first, and any number of channels that `groups` divides (its CUDA kernel also needs `channels / groups` to be a
    multiple of 16).

    A new module returns exactly 0 and passes no gradient to its input: put it behind a residual, as `DCNv4Block`
    does.

    Args:
        channels: of the input and the output.
        groups: of channels that share their offsets and weights.
        offset_scale: factor for the fixed taps and for the learned offsets.
        dw_kernel: of a depthwise convolution before offsets and weights are computed; 0 for none.
        remove_center: sample eight points, without the pixel itself.
        center_scale: mix the unsampled value in, with a share for each group that a sigmoid predicts.

    Raises:
        ValueError: `groups` does not divide `channels`.

    Attributes:
        is_repeatable: whether gradients are added in a fixed order on a GPU, which is slower; a training sets it.
    """

    is_repeatable = False

    def __init__(
        self,
        channels: int,
        *,
        groups: int = 4,
        offset_scale: float = 1.0,
        dw_kernel: int = 0,
        remove_center: bool = False,
        center_scale: bool = False,
    ) -> None:
        super().__init__()
        if channels % groups:
            raise ValueError(f"DCNv4: {groups} groups do not divide {channels} channels")
        self.channels, self.groups, self.offset_scale = channels, groups, offset_scale
        self.taps = tuple(
            (float(dx), float(dy)) for dx in (-1, 0, 1) for dy in (-1, 0, 1) if not (remove_center and dx == dy == 0)
        )
        packed = -(-3 * groups * len(self.taps) // 8) * 8  # the original pads its rows to a multiple of 8
        self.offset_mask_dw = (
            nn.Conv2d(channels, channels, dw_kernel, padding=dw_kernel // 2, groups=channels)
            if dw_kernel
            else nn.Identity()
        )
        self.offset_mask = nn.Linear(channels, packed)
        self.value_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        self.center_feature_scale = nn.Linear(channels, groups) if center_scale else None
        self._initialise()

    def _initialise(self) -> None:
        """Set offsets, weights and centre scale to 0 and the projections to Xavier-uniform, as the original does."""
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)
        for zero in (self.offset_mask, self.center_feature_scale):
            if zero is not None:
                nn.init.zeros_(zero.weight)
                nn.init.zeros_(zero.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, channels, h, w)` to the same shape."""
        value = self.value_proj(x.permute(0, 2, 3, 1))
        offset_mask = self.offset_mask(self.offset_mask_dw(x).permute(0, 2, 3, 1))
        sampled = self._sample(value, offset_mask)
        if self.center_feature_scale is not None:
            share = self.center_feature_scale(sampled).sigmoid()
            # One share for all channels of a group; `repeat_interleave` would be exported with the traced size.
            share = share.unsqueeze(-1).expand(*share.shape, self.channels // self.groups).flatten(-2)
            sampled = sampled * (1 - share) + value * share
        return self.output_proj(sampled).permute(0, 3, 1, 2)

    def _sample(self, value: Tensor, offset_mask: Tensor) -> Tensor:
        """Return the sum of the weighted samples; value and sum are `(batch, h, w, channels)`."""
        if value.is_meta:  # shapes only; torch 2.14 decomposes grid_sample there, 25 ms a tap
            return torch.empty_like(value)
        function = None if self.is_repeatable else _cuda_function()  # its gradients are added in any order
        if function is not None and _is_supported_on_cuda(value, self.groups):
            return self._sample_on_cuda(function, value, offset_mask)
        return self._sample_by_taps(value, offset_mask)

    def _sample_on_cuda(self, function: Any, value: Tensor, offset_mask: Tensor) -> Tensor:
        """Call the original's CUDA kernel as its own module does. Untested: no GPU was at hand."""
        kernel, stride, padding, dilation = (3, 3), (1, 1), (1, 1), (1, 1)
        sizes = (*kernel, *stride, *padding, *dilation, self.groups, self.channels // self.groups)
        at_once = 1 if _block_spans_two_images(value) else len(value)
        parts = [
            function.apply(images, packed, *sizes, self.offset_scale, len(images), int(len(self.taps) < 9))
            for images, packed in zip(
                value.contiguous().split(at_once),
                offset_mask.contiguous().split(at_once),
                strict=True,
            )
        ]
        return torch.cat(parts)

    def _sample_by_taps(self, value: Tensor, offset_mask: Tensor) -> Tensor:
        """Sample in plain PyTorch, one tap after another, so that memory stays that of a few maps."""
        batch, height, width, channels = value.shape
        taps = len(self.taps)
        # Coordinates stay in float32 under autocast and in half models: float16 is too coarse beyond pixel 80.
        precise = torch.promote_types(value.dtype, torch.float32)
        maps = value.permute(0, 3, 1, 2).to(precise)
        maps = maps.reshape(batch * self.groups, channels // self.groups, height, width)
        # (batch, h, w, packed) -> (batch, groups, h, w, 3 * taps): x, y of each tap, then the weight of each.
        packed = offset_mask[..., : self.groups * 3 * taps].unflatten(3, (self.groups, 3 * taps))
        packed = packed.permute(0, 3, 1, 2, 4).to(precise)
        offsets, weights = packed[..., : 2 * taps].unflatten(4, (taps, 2)), packed[..., 2 * taps :]
        pixels, step = _pixels(height, width, maps)
        shifts = torch.tensor(self.taps, dtype=precise, device=value.device) * step * self.offset_scale
        origins, step = pixels + shifts[:, None, None], step * self.offset_scale
        total: Tensor | None = None
        for origin, offset, weight in zip(origins.unbind(), offsets.unbind(4), weights.unbind(4), strict=True):
            places = torch.addcmul(origin, offset, step).contiguous().reshape(-1, height, width, 2)
            how = {"in_order": self.is_repeatable, "is_training": self.training}
            sample = grid_sample(maps, places, padding="zeros", **how)
            share = weight.contiguous().reshape(-1, 1, height, width)
            total = sample * share if total is None else total.addcmul_(sample, share)
        assert total is not None  # noqa: S101 - there are eight taps or nine
        return total.to(value.dtype).reshape(batch, channels, height, width).permute(0, 2, 3, 1)

    def extra_repr(self) -> str:
        """Settings that no child module shows."""
        return f"groups={self.groups}, taps={len(self.taps)}, offset_scale={self.offset_scale}"


def _pixels(height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Centres of the pixels, `(h, w, 2)`, and the distance to the next one, `(2,)`, in `grid_sample`'s coordinates.

    These run from -1 to 1, x first. Only operations that a traced graph repeats at another size: a tensor made of the
    two numbers would be frozen.
    """
    two = torch.full((1,), 2.0, dtype=like.dtype, device=like.device)
    step_x, step_y = two / width, two / height
    columns = (torch.arange(width, dtype=like.dtype, device=like.device) + 0.5) * step_x - 1
    rows = (torch.arange(height, dtype=like.dtype, device=like.device) + 0.5) * step_y - 1
    down, across = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack((across, down), dim=-1), torch.cat((step_x, step_y))


@cache
def _cuda_function() -> Any | None:
    """Return the `autograd.Function` of OpenGVLab's package DCNv4; None if it is not installed or cannot be loaded."""
    try:
        return import_module("DCNv4.functions").DCNv4Function
    except (ImportError, OSError):  # OSError: built for another CUDA
        return None


def _is_supported_on_cuda(value: Tensor, groups: int) -> bool:
    """Return whether the CUDA kernel supports a value: on a GPU, groups of 16 * n channels, not for export."""
    precisions = {torch.float16, torch.float32}
    wide = value.shape[-1] // groups % 16 == 0
    return value.is_cuda and wide and value.dtype in precisions and not is_exporting()


def _block_spans_two_images(value: Tensor) -> bool:
    """Return whether a block of GPU threads may begin in one image and end in the next.

    The kernel reads the values of all its pixels from the image of the first one (`dcnv4_im2col_cuda.cuh`, `bi`), and
    the size of a block may be any divisor, up to 64, of the number of pixels in the batch (`dcnv4_func.py`,
    `findspec`).
    """
    batch, height, width, _ = value.shape
    sizes = (size for size in range(2, 65) if batch * height * width % size == 0)
    return batch > 1 and any(height * width % size for size in sizes)


class DCNv4Block(nn.Module):
    """DCNv4 in the place of a convolution: `activation(norm(z + DCNv4(z)))`.

    `(batch, c_in, h, w) -> (batch, c_out, h, w)`. z is the input, or a 1x1 convolution of it where the channels
    differ. The sum is needed because a new DCNv4 returns 0 and would block all gradients to the layers before it.
    """

    def __init__(self, c_in: int, c_out: int, *, core: DCNv4, activation: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Identity() if c_in == c_out else Conv(c_in, c_out, 1, act=activation)
        self.core = core
        self.norm = nn.BatchNorm2d(c_out)
        self.act = activation

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, c_in, h, w)` to `(batch, c_out, h, w)`."""
        z = self.stem(x)
        return self.act(self.norm(z + self.core(z)))


def _sampling_macs(module: nn.Module, x: Tensor, _y: Tensor) -> int:
    """Count five products per pixel, tap and channel: four for the interpolation, one for the weight."""
    assert isinstance(module, DCNv4)  # noqa: S101 - narrows the type; the counter asks by this class
    return x.numel() * 5 * len(module.taps)


def _build(
    site: Site, *, groups: int, offset_scale: float, dw_kernel: int, remove_center: bool, center_scale: bool
) -> DCNv4Block:
    core = DCNv4(
        site.c_out,
        groups=groups,
        offset_scale=offset_scale,
        dw_kernel=dw_kernel,
        remove_center=remove_center,
        center_scale=center_scale,
    )
    return DCNv4Block(site.c_in, site.c_out, core=core, activation=site.activation)


def _incompatibility(site: Site, parameters: Parameters) -> str | None:
    if site.stride != 1:
        return "it needs stride 1"
    groups = int(parameters["groups"])
    if site.c_out % groups:
        return f"{groups} groups do not divide {site.c_out} channels"
    if site.c_out // groups < 4:
        return f"{groups} groups of {site.c_out} channels are too narrow to share offsets"
    return None


DCNV4_RECORD = Operator(
    name="DCNv4",
    module=DCNv4,
    parameters=(
        Parameter(name="groups", default=4, allowed=(1, 2, 4, 8, 16, 32), search_values=(2, 4)),
        Parameter(name="offset_scale", default=1.0, allowed=(0.5, 1.0, 2.0)),
        Parameter(name="dw_kernel", default=0, allowed=(0, 3, 5), search_values=(0, 3)),
        Parameter(name="remove_center", default=False, allowed=(False, True)),
        Parameter(name="center_scale", default=False, allowed=(False, True)),
    ),
    kinds=(SiteKind.CONV, SiteKind.LAYER),
    build=_build,
    incompatibility=_incompatibility,
    extra_macs=_sampling_macs,
    reference="DCNv4, arXiv 2401.06197",
)
