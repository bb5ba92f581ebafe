"""Channels of a model that must be selected together: the dependency graph of its tensors' axes.

Every channel gets a number, and the model runs once on maps that hold these numbers in place of features. A convolution
returns new numbers, batch norm and activations pass them on, and so do concatenations, splits, pooling and attention
over positions, which PyTorch computes as ever. Where two maps are added or multiplied, their channels become one. So no
module needs a rule of its own; what a function without a rule returns is no number, and its channels are not selected.

Source: DepGraph, Fang et al. 2023, arXiv 2301.12900, section 3.2, which derives such groups from the autograd graph.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from search_spaces import OPERATORS
from search_spaces.trace import trace

Axis = tuple[str, int]
"""Name of a tensor in the model's `state_dict`, and a dimension of it."""

_MAP = 4
"""Dimensions of a map: batch, channels, height, width."""
_IMAGE_SIZE = 64
"""Pixels: a power of 2, so that an average over the positions of a map of equal numbers is exact."""
_ELEMENTWISE = {
    *("silu", "relu", "leaky_relu", "hardswish", "gelu", "sigmoid", "tanh", "mish", "elu", "relu6", "hardsigmoid"),
    *("hardtanh", "dropout", "softplus"),
}
_COMBINING = {"add", "sub", "mul", "div", "true_divide", "add_", "sub_", "mul_", "div_"} | {
    f"__{kind}{name}__" for name in ("add", "sub", "mul", "truediv") for kind in ("", "r", "i")
}


@dataclass(frozen=True)
class ChannelGraph:
    """Channels of a model.

    Attributes:
        axes: the channel at every position of an axis; channels that are added to each other are one.
        heads: attention and head of a channel that is in one.
        norms: batch norm of a convolution, by the names of their weights.
        fixed: channels that a function without a rule reads or returns, and those of the image.
    """

    axes: Mapping[Axis, Sequence[int]]
    heads: Mapping[int, tuple[int, int]]
    norms: Mapping[str, str]
    fixed: frozenset[int]

    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Return the channels that the same axes have, as often: of these one is as good as another."""
        positions: dict[int, Counter[Axis]] = {}
        for axis, channels in self.axes.items():
            for channel in channels:
                positions.setdefault(channel, Counter())[axis] += 1
        found: dict[frozenset[tuple[Axis, int]], list[int]] = {}
        for channel in sorted(positions):
            found.setdefault(frozenset(positions[channel].items()), []).append(channel)
        return tuple(tuple(channels) for channels in found.values())


@torch.no_grad()
def channel_graph(model: nn.Module) -> ChannelGraph:
    """Return the graph of a detection model; it is not changed."""
    duplicate: Any = deepcopy(model).float().cpu().eval()
    duplicate.model[-1].training = True  # raw outputs: decoding mixes channels
    tracing = _Numbering(duplicate)
    operators = {record.module for record in OPERATORS.values()}
    tracing.hide([module for module in duplicate.modules() if type(module) in operators], duplicate)
    with tracing:
        trace(duplicate.model, tracing.image())
    return tracing.graph()


@dataclass
class _Numbers:
    """Numbers of channels, and which of them are one (a forest of disjoint sets)."""

    parents: list[int] = field(default_factory=lambda: [0])  # 0 is no channel

    def new(self, count: int) -> list[int]:
        start = len(self.parents)
        self.parents.extend(range(start, start + count))
        return self.parents[start:]

    def root(self, number: int) -> int:
        while self.parents[number] != number:
            self.parents[number] = self.parents[self.parents[number]]
            number = self.parents[number]
        return number

    def join(self, some: Sequence[int], others: Sequence[int]) -> None:
        for one, other in zip(some, others, strict=True):
            first, second = sorted((self.root(one), self.root(other)))
            self.parents[second] = first


class _Numbering(TorchFunctionMode):
    """Replaces what PyTorch's functions compute while a model runs on numbers of channels."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        tensors = [*model.named_parameters(), *model.named_buffers()]
        self._names = {id(value): name for name, value in tensors}
        self._numbers = _Numbers()
        self._axes: dict[Axis, list[int]] = {}
        self._heads: dict[int, tuple[int, int]] = {}
        self._norms: dict[str, str] = {}
        self._producers: dict[int, str] = {}
        self._fixed: set[int] = set()
        self._attentions = 0

    def image(self) -> Tensor:
        """Return the input: a map of three channels that are not selected."""
        channels = self._numbers.new(3)
        self._fixed.update(channels)
        return _map(channels, (1, 3, _IMAGE_SIZE, _IMAGE_SIZE))

    def hide(self, modules: Sequence[nn.Module], model: Any) -> None:
        """Let modules of a model compute nothing, but return channels that are not selected.

        An operator's own arithmetic, as that on coordinates, is not one of channels.
        """
        shapes: dict[nn.Module, Sequence[int]] = {}
        hooks = [each.register_forward_hook(lambda one, _, y: shapes.update({one: y.shape})) for each in modules]
        if modules:
            trace(model.model, torch.zeros(1, 3, _IMAGE_SIZE, _IMAGE_SIZE))
        for module, hook in zip(modules, hooks, strict=True):
            hook.remove()
            if module in shapes:  # not inside another one
                vars(module)["forward"] = partial(self._unselected, shapes[module])

    def _unselected(self, shape: Sequence[int], x: Tensor) -> Tensor:
        channels = self._numbers.new(shape[1])
        self._fixed.update(channels, self._read(x))
        return _map(channels, shape)

    def graph(self) -> ChannelGraph:
        """Return what was found."""
        root = self._numbers.root
        return ChannelGraph(
            axes={axis: [root(number) for number in numbers] for axis, numbers in self._axes.items()},
            heads={root(number): head for number, head in self._heads.items()},
            norms=self._norms,
            fixed=frozenset(map(root, self._fixed)),
        )

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options, name = kwargs or {}, func.__name__
        if name == "conv2d":
            return self._convolve(func, *args, **options)
        if name == "batch_norm":
            return self._normalise(*args, **options)
        if name in _ELEMENTWISE:
            return args[0]
        if name in {"matmul", "__matmul__"}:
            return self._multiply(func, *args)
        if name in _COMBINING:
            return self._combine(*(self._parameter(value) for value in args[:2]))
        return func(*map(self._parameter, args), **options) if name != "__get__" else func(*args)

    def _convolve(
        self,
        func: Callable[..., Any],
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *args: Any,
        **options: Any,
    ) -> Tensor:
        shape = func(x.to("meta"), weight.to("meta"), None, *args, **options).shape
        c_in, c_out, groups = x.shape[1], len(weight), x.shape[1] // weight.shape[1]
        received = self._read(x)
        returned = received if groups == c_in == c_out else self._numbers.new(c_out)
        name = self._names.get(id(weight))
        if groups not in {1, c_in} or groups == c_in != c_out or name is None:
            self._fixed.update(received, returned)
        if name is not None:
            self._axes[name, 0] = returned
            if groups == 1:
                self._axes[name, 1] = received
            self._producers.update(dict.fromkeys(returned, name))
        if bias is not None and (bias_name := self._names.get(id(bias))):
            self._axes[bias_name, 0] = returned
        return _map(returned, shape)

    def _normalise(
        self, x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, **_options: Any
    ) -> Tensor:
        channels = self._read(x)
        for value in (mean, variance, weight, bias):
            self._axes[self._names[id(value)], 0] = channels
        if (producer := self._producers.get(channels[0])) is not None:
            self._norms[producer] = self._names[id(weight)]
        return _map(channels, x.shape)

    def _parameter(self, value: Any) -> Any:
        """Return numbers in place of a parameter, one for each position of its first dimension; else the value."""
        name = self._names.get(id(value)) if isinstance(value, Tensor) else None
        if name is None or not isinstance(value, nn.Parameter):
            return value
        channels = self._axes.setdefault((name, 0), self._numbers.new(len(value)))
        return torch.tensor(channels, dtype=torch.float32).view(-1, *[1] * (value.ndim - 1)).expand(value.shape)

    def _combine(self, one: Any, other: Any) -> Tensor:
        """Return the sum or product of two maps, whose channels become one; a factor that is no map changes nothing."""
        if not isinstance(one, Tensor) or not isinstance(other, Tensor):
            return one if isinstance(one, Tensor) else other
        if min(one.numel(), other.numel()) == 1:
            return one if one.numel() > 1 else other
        if max(one.ndim, other.ndim) < _MAP:
            return one + other  # no channels
        whole, beside = torch.broadcast_tensors(one, other)
        channels, others = self._read(whole), self._read(beside)
        self._numbers.join(channels, others)
        return _map(channels, whole.shape)

    def _multiply(self, func: Callable[..., Any], one: Tensor, other: Tensor) -> Tensor:
        """Multiply over positions as PyTorch does; over channels, as of queries and keys, these become one."""
        if bool((one == one[..., :1]).all()):
            self._note_heads(one[..., 0])
            return func(one, other)
        rows, columns = one[..., 0, :], other[..., 0]
        self._attentions += 1
        self._numbers.join(self._valid(rows.flatten()), self._valid(columns.flatten()))
        self._note_heads(rows)
        return torch.zeros(func(one.to("meta"), other.to("meta")).shape)

    def _note_heads(self, channels: Tensor) -> None:
        """Note the heads of channels of the shape `(batch, heads, channels)`."""
        for head in range(channels.shape[1] if channels.ndim == 3 else 0):
            for number in self._valid(channels[:, head].flatten()):
                self._heads[number] = (self._attentions, head)

    def _read(self, x: Tensor) -> list[int]:
        """Return the channels of a map `(batch, channels, h, w)`."""
        flat = x[0].reshape(x.shape[1], -1)
        return self._valid(torch.where((flat == flat[:, :1]).all(1), flat[:, 0], -1.0))

    def _valid(self, values: Tensor) -> list[int]:
        """Return the numbers of channels; new and fixed ones for values that are none."""
        numbers: list[int] = []
        for value in values.tolist():
            is_number = value == int(value) if abs(value) < 1e9 else False
            if is_number and 0 < value < len(self._numbers.parents):
                numbers.append(int(value))
            else:
                numbers += self._numbers.new(1)
                self._fixed.add(numbers[-1])
        return numbers


def _map(channels: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Return a map of the shape `(batch, channels, ...)` that holds the numbers of its channels."""
    numbers = torch.tensor(channels, dtype=torch.float32)
    return numbers.view(1, -1, *[1] * (len(shape) - 2)).expand(tuple(shape)).contiguous()
