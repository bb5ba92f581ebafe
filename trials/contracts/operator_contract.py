"""Contract of an operator's module at every site it is offered for: each promise is a function below.

A promise yields what was observed where it is broken. `nas check` prints the first line of its docstring. Promises that
are slow to check for single modules, ONNX and a fresh process, are in `trials.contracts.export_contract`.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from search_spaces.memory_format import stays_contiguous
from trials.contracts.case import SQUARE, Case, Failure
from trials.contracts.probing import REORDERED, as_if_trained, describe, isolated, observe, relative_difference
from trials.costing import cost, dispatch

_HALF_TOLERANCE = {torch.float16: 0.01, torch.bfloat16: 0.1}
"""Mean absolute difference to float32, as a share of the mean absolute value, that a precision explains."""
_LARGER, _OBLONG, _ODD = (16, 16), (8, 12), (7, 9)
_RESERVED_ATTRIBUTES = ("i", "f", "type", "np")
"""Attributes that `parse_model` sets on every layer, and `build` on every operator that is a layer."""
_MAX_NAMES = 4
"""Names that a message lists."""


def check(case: Case) -> tuple[Failure, ...]:
    """Check all promises of this module; random states and backends are restored."""
    with isolated():
        try:
            subject = _Subject(case)
        except Exception as error:  # noqa: BLE001 - a user's code may raise anything, and that is the finding
            return (Failure.of(case, "build", describe(error)),)
        failures: list[Failure] = []
        for name, promise in PROMISES.items():
            failures += [Failure.of(case, name, observation) for observation in observe(promise, subject)]
            if failures and name in _FUNDAMENTAL:
                break
    return tuple(failures)


class _Subject:
    """Module under test of a case; each promise gets new copies."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self._fresh = case.build()
        self._trained = as_if_trained(self._fresh)

    def fresh(self) -> nn.Module:
        """Return a copy as it is initialised."""
        return deepcopy(self._fresh)

    def trained(self) -> nn.Module:
        """Return a copy with numbers that a trained module could have."""
        return deepcopy(self._trained)


Promise = Callable[[_Subject], Iterator[str]]


def _shape(subject: _Subject) -> Iterator[str]:
    """Output size is that of the input, divided by the stride and rounded up, or upsampled; all values are finite."""
    case, module = subject.case, subject.trained()
    sizes = [SQUARE, _LARGER, _OBLONG] + ([] if case.kernel and case.kernel % 2 == 0 else [_ODD])
    for size in sizes:
        x = case.image(size)
        with torch.no_grad():
            out = module(x)
        if not isinstance(out, Tensor):
            yield f"returns {type(out).__name__}, where a tensor is expected"
            return
        if tuple(out.shape) != case.shape(size):
            yield f"{tuple(x.shape)} becomes {tuple(out.shape)}, where {case.shape(size)} is expected"
        elif not out.isfinite().all():
            yield f"{x.shape[2]} x {x.shape[3]}: NaN or infinite numbers in the output"


def _deterministic(subject: _Subject) -> Iterator[str]:
    """Eval mode is deterministic: two passes give the same output, and change nothing in the module."""
    module, x = subject.trained(), subject.case.image()
    before = deepcopy(module.state_dict())
    with torch.no_grad():
        if not torch.equal(module(x), module(x)):
            yield "in eval mode two passes of the same images differ"
    changed = [name for name, value in module.state_dict().items() if not torch.equal(value, before[name])]
    if changed:
        yield f"in eval mode a pass changes {_listed(changed)}"


def _reserved_attributes(subject: _Subject) -> Iterator[str]:
    """Attributes called i, f, type or np are not used: Ultralytics sets them on every layer."""
    module = subject.fresh()
    names = {*vars(module), *dir(type(module))} - set(dir(nn.Module)) | ({"type"} & {*vars(module)})
    names |= {name for name, _ in module.named_modules(remove_duplicate=False)}
    names |= {name for name, _ in module.named_parameters(recurse=False, remove_duplicate=False)}
    names |= {name for name, _ in module.named_buffers(recurse=False, remove_duplicate=False)}
    if taken := [name for name in _RESERVED_ATTRIBUTES if name in names]:
        yield f"Ultralytics sets {', '.join(taken)} on every layer; an attribute of it needs another name"


def _one_image(subject: _Subject) -> Iterator[str]:
    """Train mode takes one image, as the last batch of an epoch may have, after a batch of several."""
    module = subject.fresh().train()
    several = module(subject.case.image())
    try:
        out = module(subject.case.image(batch=1))
    except Exception as error:  # noqa: BLE001 - a user's code may raise anything, and that is the finding
        pooled = ": a batch norm behind global pooling has one value a channel then" if _is_of_batch_norm(error) else ""
        yield f"{describe(error)}{pooled}"
        return
    if tuple(out.shape) != (1, *several.shape[1:]):
        yield f"the output is {tuple(out.shape)}, where {(1, *several.shape[1:])} is expected"
    elif several.isfinite().all() and not out.isfinite().all():
        yield "NaN or infinite numbers in the output"


def _is_of_batch_norm(error: Exception) -> bool:
    """Return whether an exception is that of a batch norm with one value per channel."""
    return "more than 1 value per channel" in str(error)


def _train(subject: _Subject) -> Iterator[str]:
    """Train mode gives a finite output of the same shape as eval mode, and keeps nothing of the graph."""
    module, x = subject.fresh().train(), subject.case.image()
    out = module(x if any(True for _ in module.parameters()) else x.requires_grad_())
    if tuple(out.shape) != subject.case.shape(SQUARE):
        yield f"in train mode the output is {tuple(out.shape)}, in eval mode {subject.case.shape(SQUARE)}"
    if not out.isfinite().all():
        yield "in train mode NaN or infinite numbers in the output"
    if not out.requires_grad:
        yield "in train mode the output is cut off from the graph (`detach`, `no_grad`, `.data`?)"
        return
    out.sum().backward()
    try:
        deepcopy(module)
    except RuntimeError as error:
        yield f"after a training step it cannot be copied, which every epoch does: {error}"


def _gradient(subject: _Subject) -> Iterator[str]:
    """Gradients reach every parameter and every channel of the input."""
    module = subject.trained()  # in eval mode: batch statistics would cancel the bias before them
    x = subject.case.image((12, 12), batch=4).requires_grad_()
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
        yield f"{dead} of {subject.case.c_in} input channels get no gradient"


def _copy(subject: _Subject) -> Iterator[str]:
    """Deep copies are equal and independent."""
    module, x = subject.trained(), subject.case.image()
    copy = deepcopy(module)
    with torch.no_grad():
        before = module(x)
        if not torch.equal(copy(x), before):
            yield "a deep copy gives another output"
        for stored in (*copy.parameters(), *copy.buffers()):
            stored.zero_()
        if not torch.equal(module(x), before):
            yield "changing the numbers of a deep copy changes the original"


def _state(subject: _Subject) -> Iterator[str]:
    """State that is learned or counted is in the state dict, in float tensors, which the EMA averages."""
    module, x = subject.fresh(), subject.case.image()
    plain = [
        f"{place}.{name}".strip(".")
        for place, inner in module.named_modules()
        for name, value in vars(inner).items()
        if isinstance(value, Tensor)
    ]
    if plain:
        yield f"{_listed(plain)}: a tensor, but neither parameter nor buffer, so it is not moved with the model"
    counted = {name: value.clone() for name, value in module.named_buffers() if not value.is_floating_point()}
    module.train()
    with torch.no_grad():
        for _ in range(3):
            module(x)
        loaded = subject.case.build(seed=1)
        loaded.load_state_dict(module.state_dict())
        if relative_difference(loaded(x), module.eval()(x)) > REORDERED:
            yield (
                "after three training passes, another module that loads the state dict gives another output: "
                "something that is counted is neither parameter nor persistent buffer"
            )
    now = dict(module.named_buffers())
    changed = [name for name, value in counted.items() if not torch.equal(value, now[name])]
    if lost := [name for name in changed if not name.endswith("num_batches_tracked")]:
        yield f"training changes {_listed(lost)}; the EMA, which is scored, averages float buffers only"


_OF_META = ("on meta tensors", "out of meta tensor", "torch.meta.", "register_meta")
"""Parts of messages by which PyTorch says that the meta device has no numbers, or no type of its own."""


def _device(subject: _Subject) -> Iterator[str]:
    """Devices other than the CPU work; the meta device represents a GPU."""
    module, x = subject.fresh().to("meta"), subject.case.image().to("meta")
    try:
        with torch.no_grad():
            out = module(x)
    except Exception as error:
        if dispatch.is_counted_here(module) and any(each in str(error) for each in _OF_META):
            return  # a user's class may compute with numbers, which a GPU has: this cannot be told here
        raise
    if not out.is_meta:
        yield "the output is on the CPU, wherever the input is"


def _storage(subject: _Subject) -> Iterator[str]:
    """Parameters and buffers have four dimensions or fewer, as channels_last requires."""
    if subject.case.may_stay_contiguous:
        return
    for name, value in subject.fresh().state_dict().items():
        if value.dim() > 4:
            yield f"{name} has {value.dim()} dimensions; Ultralytics converts models to channels_last, which takes 4"


def _half(subject: _Subject, dtype: torch.dtype) -> Iterator[str]:
    module, x = subject.trained(), subject.case.image()
    with torch.no_grad():
        expected = module(x)
        out = module.to(dtype)(x.to(dtype))
    error = ((out.float() - expected).abs().mean() / expected.abs().mean()).item()
    if out.dtype is not dtype:
        yield f"the output is {out.dtype}".replace("torch.", "")
    elif not out.isfinite().all():
        yield "NaN or infinite numbers in the output"
    elif not error < _HALF_TOLERANCE[dtype]:
        yield f"differs from float32 by {error:.1%} in the mean"


def _float16(subject: _Subject) -> Iterator[str]:
    """Float16, in which checkpoints are saved and validated, gives a finite output close to float32."""
    yield from _half(subject, torch.float16)


def _bfloat16(subject: _Subject) -> Iterator[str]:
    """Bfloat16 gives a finite output close to float32."""
    yield from _half(subject, torch.bfloat16)


def _autocast(subject: _Subject) -> Iterator[str]:
    """Training works under autocast to bfloat16, as in trials on a GPU."""
    module, x = subject.fresh().train(), subject.case.image()
    with torch.autocast(x.device.type, dtype=torch.bfloat16):
        out = module(x)
    if not out.isfinite().all():
        yield "NaN or infinite numbers in the output"
    if out.requires_grad:
        out.float().square().sum().backward()
        wrong = [name for name, p in module.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        if wrong:
            yield f"the gradient of {_listed(wrong)} is not finite"


def _channels_last(subject: _Subject) -> Iterator[str]:
    """Channels_last, the layout of training and deployment on a CPU, gives the same output, and trains."""
    module, x = subject.trained(), subject.case.image()
    if stays_contiguous(module):  # as does the model
        return
    last, x_last = subject.trained().to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    with torch.no_grad():
        if (far := relative_difference(last(x_last), module(x))) > REORDERED:
            yield f"the output differs by {far:.2%}"
    out = last.train()(x_last)
    if out.requires_grad:
        out.sum().backward()


def _fuse(subject: _Subject) -> Iterator[str]:
    """Ultralytics' `fuse()` keeps the output."""
    module, x = subject.trained(), subject.case.image()
    with torch.no_grad():
        if (far := relative_difference(cost.fused(module)(x), module(x))) > 10 * REORDERED:
            yield f"the output differs by {far:.2%} once fused (a subclass of Ultralytics' Conv, or a `bn` of it?)"


def _alone(subject: _Subject) -> Iterator[str]:
    """Outputs for an image do not depend on the other images of the batch."""
    module, x = subject.trained(), subject.case.image(batch=3)
    with torch.no_grad():
        far = relative_difference(torch.cat([module(one) for one in x.split(1)]), module(x))
    if far > REORDERED:
        yield f"in eval mode the output for an image differs by {far:.2%} with the images beside it"


def _cost(subject: _Subject) -> Iterator[str]:
    """Multiply-adds are all counted, on the meta device."""
    with torch.device("meta"):
        module = cost.fused(subject.case.build())
        x = torch.zeros(1, subject.case.c_in, *subject.case.pixels(_LARGER))
    macs = cost.macs_of(module, x)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        cost.fused(subject.fresh())(subject.case.image(_LARGER, batch=1))
    by_torch = counter.get_total_flops() // 2
    if macs < by_torch:
        yield (
            f"{macs:,.0f} multiply-adds are counted, PyTorch counts {by_torch:,}; products in its own `forward` belong "
            "into the record's `extra_macs`"
        )
    elif not macs and not subject.case.may_multiply_nothing and not dispatch.is_counted_here(module):
        yield "no multiply-add is counted; what its `forward` multiplies belongs into the record's `extra_macs`"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more


PROMISES: dict[str, Promise] = {
    "shape": _shape,
    "deterministic": _deterministic,
    "copy": _copy,
    "state": _state,
    "device": _device,
    "marks": _reserved_attributes,
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
"""Promises by the names in failures; the fundamental ones first."""

_FUNDAMENTAL = ("shape", "deterministic", "copy", "state", "device")
"""Promises that all others depend on: if one is broken, the others are not checked."""
