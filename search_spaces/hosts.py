"""Find the sites where operators can stand inside Ultralytics' blocks, the hosts.

A host is known by its exact type, since Ultralytics' classes inherit from each other (`ELAN1` is a `RepNCSPELAN4`,
`C3k2` a `C2f`). Its inner modules depend on scale and arguments, so sites are searched in the built layer, by the
exact types of the modules there. The kinds of site and the form of an operator at each: `docs/architecture.md`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn
from ultralytics.nn.modules import (
    C2PSA,
    C3,
    ELAN1,
    PSA,
    SPPELAN,
    SPPF,
    A2C2f,
    AConv,
    ADown,
    Bottleneck,
    C2f,
    C2fCIB,
    C3k2,
    Concat,
    Conv,
    RepConv,
    RepNCSPELAN4,
    SCDown,
)
from ultralytics.nn.modules.block import CIB, AAttn, ABlock, Attention, PSABlock, RepBottleneck

from search_spaces.operators import Operator, Site, SiteKind, Value
from search_spaces.stock_settings import settings_of, unwritten_of

WHOLE = ""
"""Path of a site that is the whole layer."""

Channels = int | tuple[int, ...]
"""Channels of the map that a layer reads, or of each of several."""

BLOCK, CONV, POINTWISE, ATTENTION = SiteKind.BLOCK, SiteKind.CONV, SiteKind.POINTWISE, SiteKind.ATTENTION
LAYER, UPSAMPLE, INSERTED = SiteKind.LAYER, SiteKind.UPSAMPLE, SiteKind.INSERTED
STAGE, ATTENTION_STAGE = SiteKind.STAGE, SiteKind.ATTENTION_STAGE
PYRAMID, FUSION = SiteKind.PYRAMID, SiteKind.FUSION

_WHOLE_KINDS = {LAYER, UPSAMPLE, STAGE, ATTENTION_STAGE, PYRAMID, FUSION, INSERTED}
"""Kinds of a site that is the whole layer."""

_INNER_SITES: dict[type[nn.Module], dict[SiteKind, tuple[str, ...]]] = {
    Bottleneck: {BLOCK: (WHOLE,), CONV: ("cv2",)},
    RepBottleneck: {BLOCK: (WHOLE,)},
    CIB: {BLOCK: (WHOLE,)},
    PSABlock: {ATTENTION: ("attn",)},
    PSA: {ATTENTION: ("attn",)},
    ABlock: {ATTENTION: ("attn",)},
    RepNCSPELAN4: {CONV: ("cv2.1", "cv3.1")},
    ELAN1: {CONV: ("cv2", "cv3")},
    AConv: {CONV: ("cv1",)},
    ADown: {CONV: ("cv1",)},
    SCDown: {POINTWISE: ("cv1",)},
    SPPF: {POINTWISE: ("cv1", "cv2")},
    SPPELAN: {POINTWISE: ("cv1", "cv5")},
}
"""Paths of the sites in a module, by kind, wherever inside a layer the module is."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """Ultralytics module in which, or in place of which, an operator can stand.

    Attributes:
        name: as model YAMLs and space files write it.
        module: the exact type of the built layer, or of each copy where a row repeats it.
        inner: the kinds of site that it may have inside; a built layer has all or some of them.
        whole: the kind of site that the whole layer is; None if it is none.
    """

    name: str
    module: type[nn.Module]
    inner: tuple[SiteKind, ...] = ()
    whole: SiteKind | None = None

    def takes(self, operator: Operator) -> bool:
        """Return whether the host has a kind of site that the operator takes; a built layer may still have no site."""
        return any(kind in {*self.inner, self.whole} for kind in operator.kinds)

    def holds(self, operator: Operator) -> bool:
        """Return whether the row keeps the host's name and arguments: the operator stands inside it, or for all of it.

        The row of a whole convolution or upsampling layer has the operator's name alone.
        """
        kind = next((kind for kind in operator.kinds if kind in self.inner or kind is self.whole), None)
        return kind in {*self.inner, STAGE, ATTENTION_STAGE, PYRAMID}

    def sites_for(
        self, operator: Operator, layer: nn.Module, c_in: Channels, reduction: int | None = None
    ) -> tuple[Site, ...]:
        """Return every site for the operator in a built layer; empty if the layer has none.

        All sites are of one kind: the operator lists its kinds in order of preference, and the first that the layer
        has is used.

        Args:
            layer: built by Ultralytics from a row of this host.
            c_in: input channels of the layer, which an `nn.Upsample`, `nn.Identity` or `Concat` does not have; of
                each map where it reads several.
            reduction: image pixels per pixel of the layer's input map; None if it is unknown.
        """
        kinds = [kind for kind in operator.kinds if kind in self.inner or kind is self.whole]
        return sites_in(layer, kinds, c_in, reduction)


def sites_in(
    layer: nn.Module, kinds: Sequence[SiteKind], c_in: Channels, reduction: int | None = None
) -> tuple[Site, ...]:
    """Return the sites in a built layer of the first kind that it has; empty if it has none.

    Args:
        kinds: in order of preference.
        c_in: input channels of the layer; of each map where it reads several.
        reduction: image pixels per pixel of the layer's input map; None if it is unknown.
    """
    for kind in kinds:
        found = [
            site
            for prefix, copy in copies(layer)
            for path in _paths(copy, kind)
            if (site := _site(prefix + path, copy.get_submodule(path), kind, c_in, reduction))
        ]
        if found:
            return tuple(found)
    return ()


def _paths(layer: nn.Module, kind: SiteKind) -> Iterator[str]:
    """Yield the paths of the sites of a kind in a layer, or in one of its copies."""
    if kind in _WHOLE_KINDS:
        yield WHOLE
        return
    for name, module in layer.named_modules():
        for child in _INNER_SITES.get(type(module), {}).get(kind, ()):
            yield f"{name}.{child}".strip(".")


_HOSTS = (
    Host(name="Bottleneck", module=Bottleneck, inner=(BLOCK, CONV)),
    Host(name="C3", module=C3, inner=(BLOCK, CONV), whole=STAGE),
    Host(name="C2f", module=C2f, inner=(BLOCK, CONV), whole=STAGE),
    Host(name="C3k2", module=C3k2, inner=(BLOCK, CONV, ATTENTION), whole=STAGE),
    Host(name="C2fCIB", module=C2fCIB, inner=(BLOCK,), whole=STAGE),
    Host(name="A2C2f", module=A2C2f, inner=(BLOCK, CONV, ATTENTION), whole=ATTENTION_STAGE),
    Host(name="C2PSA", module=C2PSA, inner=(ATTENTION,), whole=ATTENTION_STAGE),
    Host(name="PSA", module=PSA, inner=(ATTENTION,), whole=ATTENTION_STAGE),
    Host(name="RepNCSPELAN4", module=RepNCSPELAN4, inner=(BLOCK, CONV), whole=STAGE),
    Host(name="ELAN1", module=ELAN1, inner=(CONV,), whole=STAGE),
    Host(name="SPPF", module=SPPF, inner=(POINTWISE,), whole=PYRAMID),
    Host(name="SPPELAN", module=SPPELAN, inner=(POINTWISE,), whole=PYRAMID),
    Host(name="Conv", module=Conv, whole=LAYER),
    Host(name="AConv", module=AConv, inner=(CONV,), whole=LAYER),
    Host(name="ADown", module=ADown, inner=(CONV,), whole=LAYER),
    Host(name="SCDown", module=SCDown, inner=(POINTWISE,), whole=LAYER),
    Host(name="nn.Upsample", module=nn.Upsample, whole=UPSAMPLE),
    Host(name="nn.ConvTranspose2d", module=nn.ConvTranspose2d, whole=UPSAMPLE),
    Host(name="Concat", module=Concat, whole=FUSION),
    Host(name="nn.Identity", module=nn.Identity, whole=INSERTED),
)

HOSTS: dict[str, Host] = {host.name: host for host in _HOSTS}


def host_of(layer: nn.Module) -> Host | None:
    """Return the host of a built layer, by its exact type; None for a layer that hosts nothing."""
    _, first = next(copies(layer))
    return next((host for host in _HOSTS if type(first) is host.module), None)


def copies(layer: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield a layer with its path, or each of its copies where a row repeats a module in an `nn.Sequential`."""
    if type(layer) is not nn.Sequential:
        yield WHOLE, layer
        return
    for name, copy in layer.named_children():
        yield f"{name}.", copy


def _site(path: str, module: nn.Module, kind: SiteKind, c_in: Channels, reduction: int | None) -> Site | None:
    """Describe the module at a site for an operator; None if the module has another form than the kind requires."""
    inputs = c_in if isinstance(c_in, tuple) else (c_in,)
    if isinstance(module, Concat) and module.d != 1:  # it joins something else than channels
        return None
    shape = _shape(module, sum(inputs))
    settings = _settings(module, kind, shape)
    if kind is UPSAMPLE and shape.c_in != shape.c_out:  # a transposed convolution can also change the channels
        return None
    return Site(
        path=path.strip("."),
        kind=kind,
        c_in=shape.c_in,
        c_out=shape.c_out,
        kernel=shape.kernel,
        stride=shape.stride,
        groups=shape.groups,
        activation=_activation(module),
        reduction=reduction,
        inputs=inputs if kind is FUSION else (),
        repeats=_repeats(module) if kind in {STAGE, ATTENTION_STAGE} else 1,
        stock=tuple(settings.items()),
        unwritten=unwritten_of(module, settings) if kind is not LAYER else (),
    )


def _settings(module: nn.Module, kind: SiteKind, shape: "_Shape") -> dict[str, Value]:
    """Return what the layer at a site was built with; of one that convolves, as the row says that stands for it."""
    if kind is LAYER:
        return {"k": shape.kernel, "s": shape.stride, "g": shape.groups}
    return settings_of(module, shape.c_out) if kind in _WHOLE_KINDS else {}


@dataclass(frozen=True, kw_only=True)
class _Shape:
    c_in: int
    c_out: int
    kernel: int = 0
    stride: int = 1
    groups: int = 1


_ENDS: dict[type[nn.Module], tuple[str, str]] = {
    Bottleneck: ("cv1", "cv2"),
    RepBottleneck: ("cv1", "cv2"),
    CIB: ("cv1.0", "cv1.4"),
    Attention: ("qkv", "proj"),
    AAttn: ("qkv", "proj"),
    C3: ("cv1", "cv3"),
    C2f: ("cv1", "cv2"),
    C3k2: ("cv1", "cv2"),
    C2fCIB: ("cv1", "cv2"),
    A2C2f: ("cv1", "cv2"),
    C2PSA: ("cv1", "cv2"),
    PSA: ("cv1", "cv2"),
    RepNCSPELAN4: ("cv1", "cv4"),
    ELAN1: ("cv1", "cv4"),
    SPPF: ("cv1", "cv2"),
    SPPELAN: ("cv1", "cv5"),
}
"""First and last convolution of the modules without stride that an operator can replace, by path."""


def _shape(module: nn.Module, c_in: int) -> _Shape:
    """Return channels, kernel, stride and groups of a module at a site, from its convolutions."""
    if type(module) in _ENDS:
        first, last = (_shape(module.get_submodule(path), 0) for path in _ENDS[type(module)])
        return _Shape(c_in=first.c_in, c_out=last.c_out)
    match module:
        case Conv(conv=conv):
            return _Shape(
                c_in=conv.in_channels,
                c_out=conv.out_channels,
                kernel=conv.kernel_size[0],
                stride=conv.stride[0],
                groups=conv.groups,
            )
        case RepConv():
            return _shape(module.conv1, c_in)
        case AConv():
            return _shape(module.cv1, c_in)
        case ADown():  # its 3x3 convolution takes half of the channels, a 1x1 the other half
            half = _shape(module.cv1, c_in)
            return _Shape(c_in=2 * half.c_in, c_out=2 * half.c_out, kernel=half.kernel, stride=half.stride)
        case SCDown():
            last = _shape(module.cv2, c_in)
            return _Shape(c_in=_shape(module.cv1, c_in).c_in, c_out=last.c_out, kernel=last.kernel, stride=last.stride)
        case nn.Identity() | Concat():
            return _Shape(c_in=c_in, c_out=c_in)
        case nn.Upsample():
            return _Shape(c_in=c_in, c_out=c_in, stride=int(module.scale_factor))  # type: ignore[arg-type]
        case nn.ConvTranspose2d():
            return _Shape(c_in=module.in_channels, c_out=module.out_channels, stride=module.stride[0])
        case _:
            raise TypeError(f"no site is a {type(module).__name__}; add it to {__name__}._shape")


def _repeats(stage: nn.Module) -> int:
    """Return the number of inner blocks of a whole block, in each of its branches."""
    if isinstance(stage, RepNCSPELAN4):  # so is an ELAN1, whose branches are convolutions
        inner = stage.get_submodule("cv2")
        return len(inner.get_submodule("0.m")) if isinstance(inner, nn.Sequential) else 1  # type: ignore[arg-type]
    if isinstance(stage, PSA):
        return 1
    return len(stage.get_submodule("m"))  # type: ignore[arg-type]


def _activation(module: nn.Module) -> nn.Module:
    """Return the activation in a module at a site, which is that of the YAML's `activation:`; else the identity."""
    for inner in module.modules():
        if isinstance(inner, (Conv, RepConv)) and not isinstance(inner.act, nn.Identity):
            return inner.act
    return nn.Identity()
