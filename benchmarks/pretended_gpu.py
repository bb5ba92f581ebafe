"""A GPU that is pretended: tensors that say they lie on `cuda:0`, and are computed by the CPU.

    with pretended_gpu():
        evaluate(architecture, budget_on_device_0, ...)

What is written for a GPU runs to its end without one, and raises where a GPU would: an operation on tensors of two
devices, a generator of another device, `numpy()` of a tensor on the GPU, autocast of the CPU. It shows nothing about
CUDA's kernels, streams, memory or speed. Autocast is that of the CPU, whose list of operations is nearly that of CUDA.

A subclass of `Tensor` holds the numbers in a CPU tensor. A mode of PyTorch's dispatcher sees every operation below
autograd, computes it with these, and wraps what comes out. For PyTorch's C++ code all tensors lie on the CPU: without a
driver it refuses streams of CUDA, and autograd asks for one.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Self
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import DataLoader

GPU = torch.device("cuda:0")
_INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
_BETWEEN_DEVICES = {"aten::copy_", "aten::_to_copy", *_INDEXING}


class PretendedCard:
    """Properties of a recent data-centre GPU, as `torch.cuda.get_device_properties` returns them."""

    name, uuid = "Pretended GPU", "00000000-0000-0000-0000-000000000000"
    total_memory, major, minor, multi_processor_count = 140 * 2**30, 9, 0, 132


class GpuTensor(Tensor):
    """Tensor on the pretended GPU.

    Attributes:
        numbers: the same memory as a tensor of the CPU.
    """

    numbers: Tensor
    device = property(lambda _: GPU)
    is_cuda = property(lambda _: True)
    is_cpu = property(lambda _: False)

    @staticmethod
    def __new__(cls: type[Self], numbers: Tensor) -> Self:
        """Return a tensor on the GPU with the memory of one of the CPU."""
        made: Self = Tensor._make_subclass(cls, numbers, numbers.requires_grad)  # noqa: SLF001 - made for this
        made.numbers = numbers
        return made

    @property
    def data(self) -> Tensor:
        """The tensor without its graph."""
        return self.detach()

    @data.setter  # type: ignore[override]  # only such a tensor can be taken over
    def data(self, new: "GpuTensor") -> None:
        Tensor.data.__set__(self, new)  # type: ignore[attr-defined]  # a property in C
        self.numbers = new.numbers

    def __deepcopy__(self, memo: dict[int, Any]) -> "GpuTensor":
        """Copy the memory, too; PyTorch's own would leave `numbers` behind."""
        if id(self) not in memo:
            copied: GpuTensor = GpuTensor(self.numbers.detach().clone())
            is_parameter = isinstance(self, nn.Parameter)
            memo[id(self)] = nn.Parameter(copied) if is_parameter else copied
            memo[id(self)].requires_grad_(self.requires_grad)
        found: GpuTensor = memo[id(self)]
        return found

    def __repr__(self, **_: object) -> str:  # type: ignore[override]
        return f"on the GPU: {self.numbers}"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001 - as PyTorch's own subclasses
            if func in _FUNCTIONS:
                return _FUNCTIONS[func](*args, **(kwargs or {}))
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # PyTorch's own is disabled
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _compute(func, args, kwargs or {})


class _ToCpu(torch.autograd.Function):
    """Copy to the CPU, whose gradient goes back to the GPU."""

    @staticmethod
    def forward(_ctx: Any, x: GpuTensor) -> Tensor:
        return x.numbers.detach().clone()

    @staticmethod
    @once_differentiable
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        return GpuTensor(gradient)


def _to(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Replace `Tensor.to`, which for C++ would find tensors of the GPU on the CPU already."""
    like = next((each for each in args if isinstance(each, Tensor)), None)
    if like is not None:
        return _to(x, device=like.device, dtype=like.dtype)
    place = kwargs.get("device", next((each for each in args if isinstance(each, str | torch.device)), None))
    rest = [each for each in args if not isinstance(each, str | torch.device)]
    others = {name: value for name, value in kwargs.items() if name != "device"}
    on_gpu = isinstance(x, GpuTensor)
    if place is None or (on_gpu and torch.device(place).type == "cuda"):
        return x.to(*rest, **others) if rest or others.keys() - {"non_blocking"} else x
    if torch.device(place).type == "cpu" and on_gpu:
        copied: Tensor = _ToCpu.apply(x)
        return copied.to(*rest, **others) if rest or others else copied
    return x.to(*args, **kwargs)


def _no_numpy(*_: object, **__: object) -> None:
    raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")


_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    Tensor.to: _to,
    Tensor.cpu: lambda x, **_: _to(x, device="cpu"),
    Tensor.type_as: _to,
    Tensor.tolist: lambda x: x.numbers.tolist(),
    Tensor.numpy: _no_numpy,
    Tensor.__array__: _no_numpy,
}
"""Functions that ask a tensor for its device in C++."""


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute an operation of PyTorch's dispatcher; its outputs lie on the GPU if an input does, or if it says so."""
    place = kwargs.get("device")
    inputs = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
    on_gpu = [each for each in inputs if isinstance(each, GpuTensor)]
    numbers, named = tree_map(_numbers, args), tree_map(_numbers, kwargs)
    if place is not None and torch.device(place).type == "meta":
        return func(*numbers, **named)
    to_gpu = bool(on_gpu) or (place is not None and torch.device(place).type == "cuda")
    if not to_gpu:
        return func(*args, **kwargs)
    _require_one_device(func, args, inputs)
    if kwargs.get("generator") is not None:
        raise RuntimeError(f"{func}: Expected a 'cuda' device type for generator but found 'cpu'")
    if place is not None:
        named["device"] = torch.device("cpu")
    found = func(*numbers, **named)
    if func._schema.name == "aten::copy_":  # noqa: SLF001 - there is no public name
        return args[0]
    by_identity = {id(each.numbers): each for each in on_gpu}  # an operation in place returns its input
    return tree_map(lambda each: by_identity.get(id(each)) if id(each) in by_identity else _wrapped(each), found)


def _numbers(each: Any) -> Any:
    return each.numbers if isinstance(each, GpuTensor) else each


def _wrapped(each: Any) -> Any:
    return GpuTensor(each) if isinstance(each, Tensor) else each


def _require_one_device(func: Any, args: Any, inputs: Sequence[Tensor]) -> None:
    """Raise where CUDA's kernels would: single numbers may lie on the CPU, and indices of a tensor on the GPU."""
    name = func._schema.name  # noqa: SLF001 - as above
    others = [each for each in inputs if not isinstance(each, GpuTensor) and each.dim()]
    if name in _INDEXING and inputs:
        values = args[2] if "put" in name else args[0]
        others = [each for each in (args[0], values) if not isinstance(each, GpuTensor) and each.dim()]
    elif name in _BETWEEN_DEVICES:
        return
    in_place = name.endswith("_") and inputs and not isinstance(inputs[0], GpuTensor)
    if others or in_place:
        raise RuntimeError(
            f"Expected all tensors to be on the same device: {name} of {[tuple(each.shape) for each in inputs]}, of "
            f"which are on the CPU {[tuple(each.shape) for each in others or inputs[:1]]}"
        )


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key  # noqa: SLF001 - as PyTorch's own modes
        if torch.is_inference_mode_enabled() and has_kernel(func.name(), "CompositeImplicitAutograd"):
            with self:
                found = func.decompose(*args, **(kwargs or {}))
            if found is not NotImplemented:
                return found
        return _compute(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """Makes tensors of numbers, which C++ would do without the dispatcher; `cuda` is the GPU's number 0."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args = tuple(GPU if each == torch.device("cuda") else each for each in args) if func is Tensor.to else args
        if func == _SET_DATA and isinstance(args[1], GpuTensor) and not isinstance(args[0], GpuTensor):
            # As `RepConv.fuse_convs` of Ultralytics does: a parameter of the CPU takes over the memory of the GPU.
            args[0].__class__, args[0]._is_param, args[0].numbers = GpuTensor, True, args[1].numbers  # noqa: SLF001 - as `Parameter`
        given = dict(kwargs or {})
        is_made = func in {torch.tensor, torch.as_tensor} and given.get("device") is not None
        if is_made and torch.device(given["device"]).type == "cuda":
            place = given.pop("device")
            return func(*args, **given).to(place)
        return func(*args, **given)


_SET_DATA = Tensor.data.__set__  # type: ignore[attr-defined]  # a property in C
_AUTOCAST, _LOADER = torch.autocast, DataLoader.__init__


def _autocast(device_type: str, dtype: torch.dtype | None = None, *, enabled: bool = True, **more: Any) -> Any:
    if enabled and torch.device(device_type).type != "cuda":
        raise RuntimeError(f"autocast of {device_type}, which does nothing on a GPU")
    return _AUTOCAST("cpu", dtype=dtype, enabled=enabled, **more)


def _loader(self: Any, *args: Any, **kwargs: Any) -> None:
    _LOADER(self, *args, **{**kwargs, "pin_memory": False})


_GIGABYTE = 2**30
_CUDA: dict[str, Any] = {
    "_lazy_init": lambda: None,
    "is_available": lambda: True,
    "is_bf16_supported": lambda *_, **__: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "set_device": lambda _: None,
    "get_device_name": lambda *_: PretendedCard.name,
    "get_device_properties": lambda *_: PretendedCard,
    "get_device_capability": lambda *_: (PretendedCard.major, PretendedCard.minor),
    "mem_get_info": lambda *_: (PretendedCard.total_memory - _GIGABYTE, PretendedCard.total_memory),
    "memory_reserved": lambda *_: _GIGABYTE,
    "max_memory_reserved": lambda *_: _GIGABYTE,
    "set_per_process_memory_fraction": lambda *_: None,
    "synchronize": lambda *_: None,
    "empty_cache": lambda: None,
}
"""Answers of PyTorch about the GPU."""


@contextmanager
def pretended_gpu() -> Iterator[None]:
    """Let PyTorch have one GPU, that is pretended, within a `with` block."""
    with ExitStack() as stack:
        for name, answer in _CUDA.items():
            stack.enter_context(patch.object(torch.cuda, name, answer))
        for module in (torch, torch.amp):
            stack.enter_context(patch.object(module, "autocast", _autocast))
        stack.enter_context(patch.object(DataLoader, "__init__", _loader))
        health = "_accelerator_graph_capture_health_check"
        stack.enter_context(patch.object(torch.optim.Optimizer, health, lambda _: None))
        before = torch.__future__.get_overwrite_module_params_on_conversion()
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, before)
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # parameters become tensors of the GPU
        stack.enter_context(_Functions())
        stack.enter_context(_Operations())
        yield
