"""What every operator promises at every site it is offered for, and whether it keeps it.

Each promise is one small function below, which tells what it saw where the promise is broken. Promises that are costly
to ask one by one, ONNX and a fresh process, are in `trials/portability.py`.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from search_spaces import OPERATORS, Choice
from search_spaces.hosts import WHOLE
from search_spaces.operators import Site, SiteKind, Value
from trials.costing import cost

REORDERED = 1e-4
"""The greatest difference, as a share of the greatest value, that another order of sums explains in float32."""
_LOST_IN_HALF = {torch.float16: 0.01, torch.bfloat16: 0.1}
"""The mean difference, as a share of the mean, that a precision explains."""
_SQUARE, _LARGER, _OBLONG, _ODD = (8, 8), (16, 16), (8, 12), (7, 9)
_MARKS = ("i", "f", "type", "np")
"""Attributes that `parse_model` sets on every layer, and `build` on every operator in a layer's place."""
_SHOWN = 4
"""How many names a message lists."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """An operator with its parameters at a site, known by everything that it is told there.

    Attributes:
        activation: the site's, in words.
        acts: the site's.
        places: the layers with such a site.
    """

    operator: str
    parameters: tuple[tuple[str, Value], ...]
    kind: SiteKind
    c_in: int
    c_out: int
    kernel: int
    stride: int
    groups: int
    reduction: int | None
    activation: str
    acts: nn.Module = field(compare=False, repr=False)
    places: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def of(cls, choice: Choice, site: Site, places: Sequence[str]) -> "Case":
        """A choice at a site."""
        return cls(
            operator=choice.operator,
            parameters=choice.parameters,
            kind=site.kind,
            c_in=site.c_in,
            c_out=site.c_out,
            kernel=site.kernel,
            stride=site.stride,
            groups=site.groups,
            reduction=site.reduction,
            activation=repr(site.activation),
            acts=site.activation,
            places=tuple(places),
        )

    @property
    def site(self) -> Site:
        """The site, with an activation of its own."""
        return Site(
            path=WHOLE,
            kind=self.kind,
            c_in=self.c_in,
            c_out=self.c_out,
            kernel=self.kernel,
            stride=self.stride,
            groups=self.groups,
            activation=_real(self.acts),
            reduction=self.reduction,
        )

    @property
    def said(self) -> str:
        """The operator and what differs from its defaults: `UIB(expansion=2)`."""
        return str(Choice(operator=self.operator, parameters=self.parameters))

    @property
    def where(self) -> str:
        """The site in words."""
        told = [f"{self.kind}, {self.c_in} to {self.c_out} channels"]
        told += [f"kernel {self.kernel}"] if self.kernel else []
        told += [f"stride {self.stride}"] if self.stride != 1 else []
        told += [f"{self.groups} groups"] if self.groups != 1 else []
        return ", ".join(told)

    def build(self, seed: int = 0) -> nn.Module:
        """The module, in eval mode."""
        torch.manual_seed(seed)
        return OPERATORS[self.operator].build(self.site, **dict(self.parameters)).eval()

    def image(self, size: tuple[int, int] = _SQUARE, batch: int = 2) -> Tensor:
        """What enters the site, always the same."""
        return torch.randn(batch, self.c_in, *size, generator=torch.Generator().manual_seed(0))

    def shape(self, size: tuple[int, int], batch: int = 2) -> tuple[int, ...]:
        """What has to leave the site: a strided one rounds up."""
        if self.kind is SiteKind.UPSAMPLE:
            return batch, self.c_out, *(side * self.stride for side in size)
        return batch, self.c_out, *(-(-side // self.stride) for side in size)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A broken promise.

    Attributes:
        operator: with its parameters.
        site: in words; empty where it is the record that is wrong.
        places: the layers with such a site.
        promise: its name.
        seen: in words.
    """

    operator: str
    site: str = ""
    places: tuple[str, ...] = ()
    promise: str
    seen: str

    @classmethod
    def of(cls, case: Case, promise: str, seen: str) -> "Failure":
        """A promise that a case breaks."""
        return cls(operator=case.said, site=case.where, places=case.places, promise=promise, seen=seen)

    def __str__(self) -> str:
        layers = f"layer{'s' if len(self.places) > 1 else ''} {', '.join(self.places)}: " if self.places else ""
        return f"{layers}{self.operator}{f' at {self.site}' if self.site else ''}: {self.promise}: {self.seen}"


def check(case: Case) -> tuple[Failure, ...]:
    """Ask for every promise of this file; nothing is left changed."""
    with undisturbed():
        try:
            bench = _Bench(case)
        except Exception as error:  # noqa: BLE001 - a user's code may raise anything, and that is the finding
            return (Failure.of(case, "build", raised(error)),)
        failures: list[Failure] = []
        for name, promise in PROMISES.items():
            failures += [Failure.of(case, name, seen) for seen in _seen(promise, bench)]
            if failures and name in _GROUNDS:
                break
    return tuple(failures)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Random numbers and backends are put back afterwards; warnings are not what is asked for.

    oneDNN compiles a kernel for every new shape: seconds, where the arithmetic takes milliseconds.
    """
    backend: Any = torch.backends.mkldnn
    was, backend.enabled = backend.enabled, False
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        backend.enabled = was


def wake(module: nn.Module) -> nn.Module:
    """A copy with values that a trained module could have, where a fresh one starts at zero or with no statistics.

    A fresh module can hide what is wrong with it: a branch that starts at 0 gives the right output at any size, and
    passes no gradient.
    """
    module = deepcopy(module)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.get_buffer("running_mean").normal_(std=0.3)
                norm.get_buffer("running_var").uniform_(0.5, 2)
                if norm.affine:
                    norm.weight.uniform_(0.5, 1.5)
                    norm.bias.normal_(std=0.3)
    return module


def distance(one: Tensor, other: Tensor) -> float:
    """The greatest difference, as a share of the greatest value; infinite where shapes differ or numbers are none."""
    if one.shape != other.shape or not one.isfinite().all():
        return float("inf")
    greatest = other.abs().max().item()
    return (one - other).abs().max().item() / greatest if greatest else one.abs().max().item()


def raised(error: BaseException) -> str:
    """An exception in one line."""
    return f"raises {type(error).__name__}: {' '.join(str(error).split())}"[:300]


class _Bench:
    """A case with its modules: a fresh one and an awake one, copied for every promise."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self._fresh = case.build()
        self._awake = wake(self._fresh)

    def fresh(self) -> nn.Module:
        return deepcopy(self._fresh)

    def awake(self) -> nn.Module:
        return deepcopy(self._awake)


Promise = Callable[[_Bench], Iterator[str]]


def _seen(promise: Promise, bench: _Bench) -> list[str]:
    """What breaks a promise; an exception does, too."""
    try:
        return list(promise(bench))
    except Exception as error:  # noqa: BLE001 - a user's code may raise anything, and that is the finding
        return [raised(error)]


def _real(activation: nn.Module) -> nn.Module:
    """A copy to build with: a base model is traced without numbers, which an activation with weights would lack."""
    activation = deepcopy(activation)
    for module in activation.modules():
        if isinstance(module, nn.PReLU) and module.weight.is_meta:
            module.to_empty(device="cpu").reset_parameters()
    return activation


def _shape(bench: _Bench) -> Iterator[str]:
    """It keeps the size, divides it by the stride rounding up, or upsamples it; what leaves it is finite."""
    case, module = bench.case, bench.awake()
    sizes = [_SQUARE, _LARGER, _OBLONG] + ([] if case.kernel and case.kernel % 2 == 0 else [_ODD])
    for size in sizes:
        with torch.no_grad():
            out = module(case.image(size))
        if not isinstance(out, Tensor):
            yield f"returns {type(out).__name__}, where a tensor is expected"
            return
        if tuple(out.shape) != case.shape(size):
            yield f"{(2, case.c_in, *size)} becomes {tuple(out.shape)}, where {case.shape(size)} is expected"
        elif not out.isfinite().all():
            yield f"{size[0]} x {size[1]}: NaN or infinite numbers leave it"


def _deterministic(bench: _Bench) -> Iterator[str]:
    """In eval mode it gives the same output twice, and changes nothing of itself."""
    module, x = bench.awake(), bench.case.image()
    before = deepcopy(module.state_dict())
    with torch.no_grad():
        if not torch.equal(module(x), module(x)):
            yield "in eval mode two passes of the same images differ"
    changed = [name for name, value in module.state_dict().items() if not torch.equal(value, before[name])]
    if changed:
        yield f"in eval mode a pass changes {_listed(changed)}"


def _marks(bench: _Bench) -> Iterator[str]:
    """It has no attribute called i, f, type or np, which Ultralytics sets on every layer."""
    module = bench.fresh()
    held = {*vars(module), *dir(type(module))} - set(dir(nn.Module)) | ({"type"} & {*vars(module)})
    held |= {name for name, _ in module.named_modules(remove_duplicate=False)}
    held |= {name for name, _ in module.named_parameters(recurse=False, remove_duplicate=False)}
    held |= {name for name, _ in module.named_buffers(recurse=False, remove_duplicate=False)}
    if taken := [name for name in _MARKS if name in held]:
        yield f"Ultralytics sets {', '.join(taken)} on every layer; an attribute of it needs another name"


def _one_image(bench: _Bench) -> Iterator[str]:
    """In train mode it takes one image, as the last batch of an epoch may have, after a batch of several."""
    module = bench.fresh().train()
    several = module(bench.case.image())
    try:
        out = module(bench.case.image(batch=1))
    except Exception as error:  # noqa: BLE001 - a user's code may raise anything, and that is the finding
        pooled = ": a batch norm behind global pooling has one value a channel then" if _counts_values(error) else ""
        yield f"{raised(error)}{pooled}"
        return
    if tuple(out.shape) != (1, *several.shape[1:]):
        yield f"{tuple(out.shape)} leaves it, where {(1, *several.shape[1:])} is expected"
    elif several.isfinite().all() and not out.isfinite().all():
        yield "NaN or infinite numbers leave it"


def _counts_values(error: Exception) -> bool:
    """Whether an exception is batch norm's, which asks for more than one value a channel."""
    return "more than 1 value per channel" in str(error)


def _train(bench: _Bench) -> Iterator[str]:
    """It trains: the same shape as in eval mode, finite, nothing of the graph kept afterwards."""
    module = bench.fresh().train()
    out = module(bench.case.image())
    if tuple(out.shape) != bench.case.shape(_SQUARE):
        yield f"in train mode {tuple(out.shape)} leaves it, in eval mode {bench.case.shape(_SQUARE)}"
    if not out.isfinite().all():
        yield "in train mode NaN or infinite numbers leave it"
    if not out.requires_grad:
        yield "in train mode the output is cut off from the graph (`detach`, `no_grad`, `.data`?)"
        return
    out.sum().backward()
    try:
        deepcopy(module)
    except RuntimeError as error:
        yield f"after a training pass it cannot be copied, which every epoch asks for: {error}"


def _gradient(bench: _Bench) -> Iterator[str]:
    """The gradient reaches every parameter and every channel of the input."""
    module = bench.awake()  # in eval mode: batch statistics would cancel a bias before them
    x = bench.case.image((12, 12), batch=4).requires_grad_()
    out = module(x)
    if not out.requires_grad:
        yield "the output is cut off from the graph (`detach`, `no_grad`, `.data`?)"
        return
    (out**2).sum().backward()
    starved = [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    if starved:
        yield f"{_listed(starved)} {'gets' if len(starved) == 1 else 'get'} no gradient"
    if x.grad is None:
        yield "the input gets no gradient"
    elif dead := int((x.grad.abs().sum(dim=(0, 2, 3)) == 0).sum()):
        yield f"{dead} of {bench.case.c_in} input channels get no gradient"


def _copy(bench: _Bench) -> Iterator[str]:
    """A deep copy is equal and independent."""
    module, x = bench.awake(), bench.case.image()
    copy = deepcopy(module)
    with torch.no_grad():
        before = module(x)
        if not torch.equal(copy(x), before):
            yield "a deep copy gives another output"
        for stored in (*copy.parameters(), *copy.buffers()):
            stored.zero_()
        if not torch.equal(module(x), before):
            yield "changing the numbers of a deep copy changes the original"


def _state(bench: _Bench) -> Iterator[str]:
    """Everything it has learned or counted is in its state dict, and the moving average can follow."""
    module, x = bench.fresh(), bench.case.image()
    plain = [
        f"{place}.{name}".strip(".")
        for place, inner in module.named_modules()
        for name, value in vars(inner).items()
        if isinstance(value, Tensor)
    ]
    if plain:
        yield f"{_listed(plain)}: a tensor, but neither parameter nor buffer, so it stays where the model leaves"
    counted = {name: value.clone() for name, value in module.named_buffers() if not value.is_floating_point()}
    module.train()
    with torch.no_grad():
        for _ in range(3):
            module(x)
        loaded = bench.case.build(seed=1)
        loaded.load_state_dict(module.state_dict())
        if distance(loaded(x), module.eval()(x)) > REORDERED:
            yield (
                "after three training passes, another module that loads the state dict gives another output: "
                "something that counts is neither parameter nor persistent buffer"
            )
    now = dict(module.named_buffers())
    changed = [name for name, value in counted.items() if not torch.equal(value, now[name])]
    if lost := [name for name in changed if not name.endswith("num_batches_tracked")]:
        yield f"training changes {_listed(lost)}; the moving average, which is scored, follows float buffers only"


def _device(bench: _Bench) -> Iterator[str]:
    """It works on another device than the CPU; the meta device, which has no numbers, stands for a GPU."""
    module, x = bench.fresh().to("meta"), bench.case.image().to("meta")
    with torch.no_grad():
        out = module(x)
    if not out.is_meta:
        yield "what leaves it is on the CPU, wherever the images are"


def _storage(bench: _Bench) -> Iterator[str]:
    """What it stores has four dimensions or fewer: converting a model to channels_last refuses a fifth."""
    for name, value in bench.fresh().state_dict().items():
        if value.dim() > 4:
            yield f"{name} has {value.dim()} dimensions; Ultralytics converts models to channels_last, which takes 4"


def _half(bench: _Bench, dtype: torch.dtype) -> Iterator[str]:
    module, x = bench.awake(), bench.case.image()
    with torch.no_grad():
        expected = module(x)
        out = module.to(dtype)(x.to(dtype))
    error = ((out.float() - expected).abs().mean() / expected.abs().mean()).item()
    if out.dtype is not dtype:
        yield f"{out.dtype} leaves it".replace("torch.", "")
    elif not out.isfinite().all():
        yield "NaN or infinite numbers leave it"
    elif not error < _LOST_IN_HALF[dtype]:
        yield f"differs from float32 by {error:.1%} in the mean"


def _float16(bench: _Bench) -> Iterator[str]:
    """It runs in float16, finite and close: a checkpoint is saved and validated so."""
    yield from _half(bench, torch.float16)


def _bfloat16(bench: _Bench) -> Iterator[str]:
    """It runs in bfloat16, finite and close."""
    yield from _half(bench, torch.bfloat16)


def _autocast(bench: _Bench) -> Iterator[str]:
    """It trains under autocast to bfloat16, as a trial on a GPU does."""
    module = bench.fresh().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = module(bench.case.image())
    if not out.isfinite().all():
        yield "NaN or infinite numbers leave it"
    if out.requires_grad:
        out.float().square().sum().backward()
        wrong = [name for name, p in module.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        if wrong:
            yield f"the gradient of {_listed(wrong)} is not finite"


def _channels_last(bench: _Bench) -> Iterator[str]:
    """It does the same in channels_last, the layout of training and deployment on a CPU, and trains there."""
    module, x = bench.awake(), bench.case.image()
    last, x_last = bench.awake().to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    with torch.no_grad():
        if (far := distance(last(x_last), module(x))) > REORDERED:
            yield f"the output differs by {far:.2%}"
    out = last.train()(x_last)
    if out.requires_grad:
        out.sum().backward()


def _fuse(bench: _Bench) -> Iterator[str]:
    """Ultralytics' `fuse()` keeps the output."""
    module, x = bench.awake(), bench.case.image()
    with torch.no_grad():
        if (far := distance(cost.fused(module)(x), module(x))) > 10 * REORDERED:
            yield f"the output differs by {far:.2%} once fused (a subclass of Ultralytics' Conv, or a `bn` of it?)"


def _alone(bench: _Bench) -> Iterator[str]:
    """An image gives the same alone as among others."""
    module, x = bench.awake(), bench.case.image(batch=3)
    with torch.no_grad():
        far = distance(torch.cat([module(one) for one in x.split(1)]), module(x))
    if far > REORDERED:
        yield f"in eval mode the output for an image differs by {far:.2%} with the images beside it"


def _cost(bench: _Bench) -> Iterator[str]:
    """Its products can be counted, without numbers, and all of them are."""
    with torch.device("meta"):
        module = cost.fused(bench.case.build())
        x = torch.zeros(1, bench.case.c_in, *_LARGER)
    macs = cost.macs_of(module, x)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        cost.fused(bench.fresh())(bench.case.image(_LARGER, batch=1))
    seen = counter.get_total_flops() // 2
    if macs < seen:
        yield (
            f"{macs:,.0f} multiply-adds are counted, PyTorch sees {seen:,}; products in its own `forward` belong "
            "into the record's `extra_macs`"
        )
    elif not macs:
        yield "no multiply-add is counted; what its `forward` multiplies belongs into the record's `extra_macs`"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


PROMISES: dict[str, Promise] = {
    "shape": _shape,
    "deterministic": _deterministic,
    "copy": _copy,
    "state": _state,
    "device": _device,
    "marks": _marks,
    "train": _train,
    "one_image": _one_image,
    "gradient": _gradient,
    "storage": _storage,
    "float16": _float16,
    "bfloat16": _bfloat16,
    "autocast": _autocast,
    "channels_last": _channels_last,
    "fuse": _fuse,
    "alone": _alone,
    "cost": _cost,
}
"""By the names that failures carry; their docstrings are the promises."""

_GROUNDS = ("shape", "deterministic", "copy", "state", "device")
"""What all others build on: broken, they would only repeat it."""
