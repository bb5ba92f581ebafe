"""Record the input and the output of every layer of a built model."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.errors import LayerError, in_one_line
from search_spaces.meta_device import passed

Feature = Tensor | tuple[Tensor, ...] | list[Tensor]


@dataclass(frozen=True, kw_only=True)
class Traced:
    """Layer with its input and its output.

    Attributes:
        received: the input: a tensor, or a list of features where the row names several sources.
        returned: the output: a tensor; of `CBLinear` a tuple of tensors.
    """

    index: int
    layer: nn.Module
    received: Feature | list[Feature]
    returned: Feature

    @property
    def c_in(self) -> int:
        """Channels of the (first) input tensor."""
        return first(self.received).shape[1]

    @property
    def channels_in(self) -> int | tuple[int, ...]:
        """Channels of the input tensor, or of each where the layer reads several."""
        return self.c_in if isinstance(self.received, Tensor) else tuple(first(one).shape[1] for one in self.received)

    @property
    def c_out(self) -> int:
        """Channels of the (first) output tensor."""
        return first(self.returned).shape[1]


def first(feature: Feature | list[Feature]) -> Tensor:
    """Return the first tensor of a feature, however deeply nested."""
    while not isinstance(feature, Tensor):
        feature = feature[0]
    return feature


@contextmanager
def skip_batch_norms(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Skip the batch norms in modules on the meta device, where only shapes matter.

    PyTorch decomposes each there into a dozen operations in Python, which took half of the time.
    """
    inside = {inner for module in modules for inner in module.modules() if isinstance(inner, nn.BatchNorm2d)}
    norms = [norm for norm in inside if norm.weight.is_meta]
    for norm in norms:
        vars(norm)["forward"] = _identity
    try:
        yield
    finally:
        for norm in norms:
            del vars(norm)["forward"]


def _identity(x: Tensor) -> Tensor:
    return x


def trace(layers: Sequence[nn.Module] | nn.Sequential, image: Tensor) -> list[Traced]:
    """Run layers in order, as Ultralytics' `_predict_once` does: each reads the layers in its attribute `f`.

    Args:
        layers: of a model that `parse_model` built, in order, in eval mode; a head is run, too.
        image: `(batch, channels, h, w)`, on the device of the layers; the meta device computes shapes only.

    Raises:
        LayerError: on the meta device, a layer does not take its input.
    """
    with torch.no_grad(), skip_batch_norms(layers):
        return _run(layers, image)


_FAILING = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)


def _shapes(feature: Feature | list[Feature]) -> str:
    """Return the shapes of a feature without the batch: `64x32x32`."""
    if isinstance(feature, Tensor):
        return "x".join(map(str, feature.shape[1:]))
    return " and ".join(map(_shapes, feature))


def _run(layers: Iterable[nn.Module], image: Tensor) -> list[Traced]:
    return run(layers, image, [])


def run(layers: Iterable[nn.Module], image: Tensor, features: Sequence[Feature]) -> list[Traced]:
    """Run layers that follow others, as `trace` does.

    Args:
        features: what the layers before them returned.
    """
    traced: list[Traced] = []
    features = list(features)
    x: Feature = features[-1] if features else image
    for index, layer in enumerate(layers, start=len(features)):
        named: Any = layer.f
        sources: list[int] = [named] if isinstance(named, int) else list(named)
        read = [x if source == -1 else features[source] for source in sources]
        received = read[0] if isinstance(named, int) else read
        try:
            x = passed(layer, received)
        except _FAILING as error:
            if not image.is_meta:  # elsewhere memory or a device may have failed
                raise
            raise LayerError(f"cannot take {_shapes(received)}: {in_one_line(error)}", index) from error
        if image.is_meta and isinstance(x, Tensor) and not x.numel():
            raise LayerError(f"makes an empty map of {_shapes(received)}: {_shapes(x)}", index)
        traced.append(Traced(index=index, layer=layer, received=received, returned=x))
        features.append(x)
    return traced
