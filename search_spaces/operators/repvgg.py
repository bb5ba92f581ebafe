"""Re-parameterised convolution (RepVGG): Ding et al. 2021, arXiv 2101.03697."""

from torch import Tensor, nn
from ultralytics.nn.modules import RepConv

from search_spaces.operators.record import Operator, Parameters, Site, SiteKind
from search_spaces.operators.replaced import copy_channels


class RepVGG(nn.Module):
    """Sum of a 3x3 and a 1x1 convolution and the input, each with its batch norm; one convolution once fused.

    `(batch, c_in, h, w) -> (batch, c_out, ceil(h / stride), ceil(w / stride))`. The input is added where `c_in` is
    `c_out` and `stride` is 1. An activation follows.

    Source: arXiv 2101.03697; original code DingXiaoH/RepVGG, MIT. The branches are Ultralytics' `RepConv` with its
    batch norm of the input, so that `fuse()` folds them into one 3x3 convolution; cost and export are that one's.
    Difference to the original: the activation is the host's.

    Args:
        c_in: input channels.
        c_out: output channels.
        stride: of both convolutions.
        groups: of both convolutions.
        activation: SiLU by default.
    """

    def __init__(
        self, c_in: int, c_out: int, *, stride: int = 1, groups: int = 1, activation: nn.Module | None = None
    ) -> None:
        super().__init__()
        act = nn.SiLU() if activation is None else activation
        self.branches = RepConv(c_in, c_out, 3, stride, g=groups, act=act, bn=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, c_in, h, w)` to `(batch, c_out, ceil(h / stride), ceil(w / stride))`."""
        return self.branches(x)


def _build(site: Site) -> RepVGG:
    return RepVGG(site.c_in, site.c_out, stride=site.stride, groups=site.groups, activation=site.activation)


def _init_from(module: RepVGG, replaced: nn.Module | None) -> tuple[str, ...]:
    """Start as the replaced convolution: it becomes the 3x3 branch, and the other branches start as 0."""
    copied = copy_channels(module.branches.conv1, replaced, range(module.branches.c2))
    if copied:
        nn.init.zeros_(module.branches.conv2.bn.weight)
        if module.branches.bn is not None:
            nn.init.zeros_(module.branches.bn.weight)
    return tuple(f"branches.conv1.{name}" for name in copied)


def _incompatibility(site: Site, _parameters: Parameters) -> str | None:
    if site.kernel != 3:
        return f"its branches make one 3x3 convolution, and the kernel here is {site.kernel}"
    return None


REPVGG_RECORD = Operator(
    name="RepVGG",
    module=RepVGG,
    parameters=(),
    kinds=(SiteKind.CONV, SiteKind.LAYER),
    build=_build,
    incompatibility=_incompatibility,
    init_from=_init_from,
    reference="RepVGG, arXiv 2101.03697",
)
