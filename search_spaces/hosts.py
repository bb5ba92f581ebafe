"""Where operators can stand inside Ultralytics' blocks.

A host is an Ultralytics module by its exact type (`ELAN1` is a `RepNCSPELAN4`, `RepCSP` a `C3`), with the sites inside
it by kind. What a site is and which form an operator takes there: `docs/architecture.md`.
"""

import re
from dataclasses import dataclass, field

from torch import nn
from ultralytics.nn.modules import (
    C3,
    ELAN1,
    AConv,
    ADown,
    Bottleneck,
    C2f,
    Conv,
    RepConv,
    RepNCSPELAN4,
)

from search_spaces.operators import Operator, Site, SiteKind

WHOLE = ""
"""The path of a site that is the whole layer."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """An Ultralytics block and its sites.

    Attributes:
        name: as a model YAML and a space file write it.
        module: the exact type of the built layer.
        sites: for each kind, patterns of module paths inside the layer; `*` is any one name.
    """

    name: str
    module: type[nn.Module]
    sites: dict[SiteKind, tuple[str, ...]] = field(default_factory=dict)

    def kind_for(self, operator: Operator) -> SiteKind | None:
        """The kind of site that this operator takes here: the first of its own that the host has."""
        return next((kind for kind in operator.kinds if kind in self.sites), None)

    def sites_for(
        self, operator: Operator, layer: nn.Module, c_in: int, reduction: int | None = None
    ) -> tuple[Site, ...]:
        """Every site that the operator takes in this built layer; empty if the host has none for it.

        Args:
            operator: whose kinds of site are looked for.
            layer: built by Ultralytics, of this host's type.
            c_in: channels that enter the layer; an `nn.Upsample` does not know them itself.
            reduction: image pixels per pixel of the map that enters the layer, where that is known.
        """
        kind = self.kind_for(operator)
        patterns = () if kind is None else self.sites[kind]
        shapes = [re.compile(re.escape(pattern).replace(r"\*", r"\w+")) for pattern in patterns]
        return tuple(
            _site(path, module, kind, c_in, reduction)
            for path, module in layer.named_modules()
            if kind is not None and any(shape.fullmatch(path) for shape in shapes)
        )


BLOCK, CONV, LAYER, UPSAMPLE = SiteKind.BLOCK, SiteKind.CONV, SiteKind.LAYER, SiteKind.UPSAMPLE

_HOSTS = (
    Host(name="C3", module=C3, sites={BLOCK: ("m.*",), CONV: ("m.*.cv2",)}),
    Host(name="C2f", module=C2f, sites={BLOCK: ("m.*",), CONV: ("m.*.cv2",)}),
    Host(
        name="RepNCSPELAN4",
        module=RepNCSPELAN4,
        sites={BLOCK: ("cv2.0.m.*", "cv3.0.m.*"), CONV: ("cv2.1", "cv3.1")},
    ),
    Host(name="ELAN1", module=ELAN1, sites={CONV: ("cv2", "cv3")}),
    Host(name="Conv", module=Conv, sites={LAYER: (WHOLE,)}),
    Host(name="AConv", module=AConv, sites={CONV: ("cv1",), LAYER: (WHOLE,)}),
    Host(name="ADown", module=ADown, sites={CONV: ("cv1",), LAYER: (WHOLE,)}),
    Host(name="nn.Upsample", module=nn.Upsample, sites={UPSAMPLE: (WHOLE,)}),
)

HOSTS: dict[str, Host] = {host.name: host for host in _HOSTS}


def host_of(layer: nn.Module) -> Host | None:
    """The host that a built layer is, by its exact type; None for a layer that hosts nothing."""
    return next((host for host in _HOSTS if type(layer) is host.module), None)


def _site(path: str, module: nn.Module, kind: SiteKind, c_in: int, reduction: int | None) -> Site:
    """What an operator is told about the module that stands at a site today."""
    shape = _shape(module, c_in)
    return Site(
        path=path,
        kind=kind,
        c_in=shape.c_in,
        c_out=shape.c_out,
        kernel=shape.kernel,
        stride=shape.stride,
        activation=_activation(module),
        reduction=reduction,
    )


@dataclass(frozen=True, kw_only=True)
class _Shape:
    c_in: int
    c_out: int
    kernel: int
    stride: int


def _shape(module: nn.Module, c_in: int) -> _Shape:
    """Channels, kernel and stride of a module at a site, read off its convolutions."""
    match module:
        case Conv():
            conv = module.conv
            return _Shape(
                c_in=conv.in_channels,
                c_out=conv.out_channels,
                kernel=conv.kernel_size[0],
                stride=conv.stride[0],
            )
        case RepConv():
            return _shape(module.conv1, c_in)
        case Bottleneck():
            first, last = _shape(module.cv1, c_in), _shape(module.cv2, c_in)
            return _Shape(c_in=first.c_in, c_out=last.c_out, kernel=0, stride=1)
        case AConv():
            return _shape(module.cv1, c_in)
        case ADown():  # its 3x3 convolution sees half of the channels, a 1x1 the other half
            half = _shape(module.cv1, c_in)
            return _Shape(c_in=2 * half.c_in, c_out=2 * half.c_out, kernel=half.kernel, stride=half.stride)
        case nn.Upsample():
            return _Shape(c_in=c_in, c_out=c_in, kernel=0, stride=int(module.scale_factor))  # type: ignore[arg-type]
        case _:
            raise TypeError(f"no site is a {type(module).__name__}; teach {__name__}._shape to read it")


def _activation(module: nn.Module) -> nn.Module:
    """The activation of a module at a site: the host's own, whatever `activation:` the YAML asked for."""
    for inner in module.modules():
        if isinstance(inner, (Conv, RepConv)) and not isinstance(inner.act, nn.Identity):
            return inner.act
    return nn.Identity()
