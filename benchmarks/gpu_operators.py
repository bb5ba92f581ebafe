"""Operators on a GPU: their numbers against float64 on the CPU, their contract, their speed, and memory bandwidth."""

import os
import platform
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import fields
from itertools import islice

import torch
from torch import Tensor, nn

from benchmarks.gpu_check import Place, Row
from search_spaces import OPERATORS
from search_spaces.operators.dcnv4 import DCNv4
from search_spaces.operators.dysample import DySample
from trials.contracts import cases, operator_contract
from trials.contracts.case import Case, Failure
from trials.contracts.probing import as_if_trained
from trials.devices import processor
from trials.torch_devices import torch_device
from trials.training.trainer_patches import make_repeatable

TOLERANCES = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 5e-2, "fp16": 1e-2}
"""Norm of the difference to float64 over the norm in float64, of a module's output. TF32 has the mantissa of fp16, bf16
one of 8 bits; a module is some convolutions deep. Backward passes may differ by four times as much."""
_BACKWARD = 4.0
_LIKE_ON_CPU = {"bf16": "bf16", "fp16": "fp16", "tf32": "fp16"}
"""Precision of a CPU with the same mantissa."""
_MOST_SITES = 8
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def card(place: Place) -> Iterator[Row]:
    """Name the device and the versions."""
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    shared = shutil.disk_usage("/dev/shm")  # noqa: S108 - where processes that load images put batches
    if not place.is_on_gpu:
        yield Row(what=f"{processor()}, {versions}", note="small form: it says nothing about a GPU")
        return
    found = torch.cuda.get_device_properties(int(place.device))
    free, total = torch.cuda.mem_get_info(int(place.device))
    yield Row(what=f"{found.name}, {versions}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
    yield Row(what="memory", value=total / 2**30, unit="GiB")
    yield Row(what="free memory", value=free / 2**30, unit="GiB", good=free > 0.5 * total, note="half of it or more")
    enough = shared.free > 2**30
    yield Row(what="free in /dev/shm", value=shared.free / 2**30, unit="GiB", good=enough, note="1 GiB or more")


def operators(place: Place) -> Iterator[Row]:
    """Compare outputs and gradients of each operator with float64 on the CPU, in each precision."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # read when CUDA starts: products of matrices repeat then
    side, batch = (10, 2) if place.is_small else (24, 8)
    for name in OPERATORS:
        case = cases.of_operator(OPERATORS[name])[0]
        module = as_if_trained(case.build()).train()
        device = torch_device(place.device)
        x = case.image((side, side), batch=batch)
        expected = passes(deepcopy(module).double(), x.double(), "fp64")
        for precision, tolerance in TOLERANCES.items():
            if precision == "tf32" and not place.is_on_gpu:
                continue
            # A copy for each: in training mode an operator may count its steps.
            found = passes(deepcopy(module).to(device), x.to(device), precision)
            errors = {what: _distance(value, expected[what]) for what, value in found.items()}
            limits = {what: tolerance * (1.0 if what == "output" else _BACKWARD) for what in errors}
            if precision != "fp32" and any(errors[what] > limit for what, limit in limits.items()):
                limits = _limits_by_cpu(module, x, expected, _LIKE_ON_CPU[precision], limits)
            for what, error in errors.items():
                yield Row.within(f"{name} in {precision}: {what}", error, limits[what], note="relative to float64")
        first, second = (_repeatable_passes(module, x, device) for _ in range(2))
        unequal = sum(not torch.equal(value, second[what]) for what, value in first.items())
        yield Row(what=f"{name} with --deterministic: unequal outputs and gradients", value=unequal, good=not unequal)


def _limits_by_cpu(
    module: nn.Module, x: Tensor, expected: dict[str, Tensor], precision: str, limits: dict[str, float]
) -> dict[str, float]:
    """Return limits that are at least twice the error of a CPU in the precision.

    Where a maximum is taken, as in max pooling, rounding decides which of two near numbers gets the gradient.
    """
    found = passes(deepcopy(module), x, precision)
    return {what: max(limit, 2 * _distance(found[what], expected[what])) for what, limit in limits.items()}


def passes(module: nn.Module, x: Tensor, precision: str) -> dict[str, Tensor]:
    """Return output and gradients of a forward and a backward pass, in float64 on the CPU.

    Args:
        precision: `fp32`, `tf32`, `bf16` or `fp16`; any other is that of module and input.
    """
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    x = x.detach().clone().requires_grad_()
    module.zero_grad()
    dtype = _DTYPES.get(precision)
    with torch.autocast(x.device.type, dtype=dtype) if dtype else nullcontext():
        out = module(x)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (out * weights.to(out.device, out.dtype if dtype is None else torch.float32)).sum().backward()
    gradients = [value.grad.flatten() for value in module.parameters() if value.grad is not None]
    assert x.grad is not None  # noqa: S101 - the contract: gradients reach the input
    found = {"output": out, "input's gradient": x.grad}
    if gradients:  # SimAM has no weights
        found["weights' gradient"] = torch.cat(gradients)
    return {name: value.detach().to("cpu", torch.float64) for name, value in found.items()}


def _repeatable_passes(module: nn.Module, x: Tensor, device: torch.device) -> dict[str, Tensor]:
    """Return output and gradients as a training with `--deterministic` computes them."""
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=True)  # as Ultralytics does
    try:
        copied = deepcopy(module).to(device)
        make_repeatable(copied)
        return passes(copied, x.to(device), "fp32")
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False


def _distance(found: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference relative to the norm of what is expected."""
    return ((found - expected).norm() / expected.norm()).item()


def _step_seconds(case: Case, place: Place, layout: torch.memory_format) -> float:
    """Return the median time of a forward and a backward pass in the layout, in bfloat16, as in a training."""
    device, side = torch_device(place.device), 16 if place.is_small else 80
    module = case.build().train().to(device).to(memory_format=layout)
    x = case.image((side, side), batch=2 if place.is_small else 16).to(device).contiguous(memory_format=layout)
    x.requires_grad_()

    def step() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            out = module(x)
        out.float().sum().backward()
        module.zero_grad()

    return median_seconds(step, device, calls=3 if place.is_small else 10)


def median_seconds(call: Callable[[], object], device: torch.device, *, calls: int) -> float:
    """Return the median time of calls, each until the device has finished, after some that are not timed."""
    seconds = []
    for number in range(calls + 3):
        began = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number >= 3:
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


class _OnDevice(Case):
    """Case whose modules and images are on a device."""

    device = torch.device("cpu")

    def build(self, seed: int = 0) -> nn.Module:
        module = super().build(seed)
        return module if torch.get_default_device().type == "meta" else module.to(self.device)

    def image(self, size: tuple[int, int] = (8, 8), batch: int = 2) -> Tensor:
        return super().image(size, batch).to(self.device)


def contract(place: Place) -> Iterator[Row]:
    """Check the operators' contract with modules and images on the device: one site of each, then more in time."""
    torch.backends.cudnn.allow_tf32 = False
    _OnDevice.device = torch_device(place.device)
    failures: dict[str, list[Failure]] = {name: [] for name in OPERATORS}
    sites = Counter[str]()
    for number in range(1 if place.is_small else _MOST_SITES):
        began = time.monotonic()
        for name in OPERATORS:
            for case in islice(cases.of_operator(OPERATORS[name]), number, number + 1):
                on_device = _OnDevice(**{field.name: getattr(case, field.name) for field in fields(case)})
                failures[name] += operator_contract.check(on_device)
                sites[name] += 1
        if place.seconds_left < 2 * (time.monotonic() - began):
            break
    for name, found in failures.items():
        yield Row(what=f"{name}: promises broken at {sites[name]} sites", value=len(found), good=not found)
        for failure in found[:5]:
            yield Row(what=str(failure)[:160], good=False)


def kernels(place: Place) -> Iterator[Row]:
    """Time a step of each operator in both memory layouts; then compare sampling with a copy."""
    for name in OPERATORS:
        case = cases.of_operator(OPERATORS[name])[0]
        for layout in (torch.contiguous_format, torch.channels_last):
            seconds = _step_seconds(case, place, layout)
            yield Row(what=f"{name}: a step in {str(layout).removeprefix('torch.')}", value=1e3 * seconds, unit="ms")
    yield from _sampling(place, torch_device(place.device))


def _sampling(place: Place, device: torch.device) -> Iterator[Row]:
    """Compare the bandwidth of DCNv4's and DySample's sampling with that of a copy.

    Counted are the bytes that must be moved: the map once, offsets and weights once, the result once.
    """
    batch, channels, side = (1, 16, 16) if place.is_small else (16, 128, 80)
    calls = 3 if place.is_small else 20
    source = torch.randn(batch * 8, channels, side, side, device=device)
    target = torch.empty_like(source)
    copied = 2 * source.nbytes / median_seconds(lambda: target.copy_(source), device, calls=calls)
    yield Row(what="copy", value=copied / 1e9, unit="GB/s")
    x = torch.randn(batch, channels, side, side, device=device)
    with torch.inference_mode():
        core = DCNv4(channels, groups=4).to(device).eval()
        pixels = x.permute(0, 2, 3, 1).contiguous()
        value, offsets = core.value_proj(pixels), core.offset_mask(pixels)
        seconds = median_seconds(lambda: core._sample(value, offsets), device, calls=calls)  # noqa: SLF001 - the kernel alone
        yield _bandwidth("DCNv4", 2 * value.nbytes + offsets.nbytes, seconds, copied)
        upsample = DySample(channels).to(device).eval()
        places = upsample.shifts(x)
        seconds = median_seconds(lambda: upsample(x), device, calls=calls)
        yield _bandwidth("DySample", x.nbytes + places.nbytes + upsample.scale**2 * x.nbytes, seconds, copied)


def _bandwidth(name: str, moved: int, seconds: float, copied: float) -> Row:
    rate = moved / seconds
    return Row(what=f"{name}: sampling", value=rate / 1e9, unit="GB/s", note=f"{rate / copied:.1%} of a copy's")
