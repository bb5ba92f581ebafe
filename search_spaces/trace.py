"""What flows into and out of every layer of a built model."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.errors import LayerError, in_one_line

Feature = Tensor | tuple[Tensor, ...] | list[Tensor]


@dataclass(frozen=True, kw_only=True)
class Traced:
    """One layer, what it received and what it returned.

    Attributes:
        received: a tensor, or a list of features where the row names several sources.
        returned: a tensor; `CBLinear` returns a tuple of them.
    """

    index: int
    layer: nn.Module
    received: Feature | list[Feature]
    returned: Feature

    @property
    def c_in(self) -> int:
        """Channels of the (first) tensor received."""
        return first(self.received).shape[1]

    @property
    def c_out(self) -> int:
        """Channels of the (first) tensor returned."""
        return first(self.returned).shape[1]


def first(feature: Feature | list[Feature]) -> Tensor:
    """The first tensor of a feature, however deep."""
    while not isinstance(feature, Tensor):
        feature = feature[0]
    return feature


@contextmanager
def skip_batch_norms(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Let the batch norms in modules on the meta device pass on what they get, for a while.

    There PyTorch takes each apart in Python, into a dozen operations that say nothing of a shape: half of the time.
    """
    inside = {inner for module in modules for inner in module.modules() if isinstance(inner, nn.BatchNorm2d)}
    norms = [norm for norm in inside if norm.weight.is_meta]
    for norm in norms:
        vars(norm)["forward"] = _passed_on
    try:
        yield
    finally:
        for norm in norms:
            del vars(norm)["forward"]


def _passed_on(x: Tensor) -> Tensor:
    return x


def trace(layers: Sequence[nn.Module] | nn.Sequential, image: Tensor) -> list[Traced]:
    """Run layers one after another as Ultralytics' `_predict_once` does, each reading its sources from `.f`.

    Raises:
        LayerError: a layer does not take what it is given, or reads one that is not there.

    Args:
        layers: of a model that `parse_model` built, in order, in eval mode; a head among them is run too.
        image: `(batch, channels, h, w)`, on the layers' device; the meta device costs no arithmetic.
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
    """The shapes of a feature, `64x32x32`, without the batch."""
    if isinstance(feature, Tensor):
        return "x".join(map(str, feature.shape[1:]))
    return " and ".join(map(_shapes, feature))


def _run(layers: Iterable[nn.Module], image: Tensor) -> list[Traced]:
    traced: list[Traced] = []
    features: list[Feature] = []
    x: Feature = image
    for index, layer in enumerate(layers):
        named: Any = layer.f
        sources: list[int] = [named] if isinstance(named, int) else list(named)
        read = [x if source == -1 else features[source] for source in sources]
        received = read[0] if isinstance(named, int) else read
        try:
            x = layer(received)
        except _FAILING as error:
            if not image.is_meta:  # with numbers, memory or a device may have failed
                raise
            raise LayerError(f"cannot take {_shapes(received)}: {in_one_line(error)}", index) from error
        traced.append(Traced(index=index, layer=layer, received=received, returned=x))
        features.append(x)
    return traced
