"""Closed list of the layers and activations that a model file may name, because a model file may come from anyone.

Ultralytics looks up the module of a row among all globals of `ultralytics.nn.tasks`, with functions that open a pickle,
read a file or install a package, and evaluates `activation:` as Python. Here a name is looked up in a list, and an
activation is parsed: a class of `torch.nn` with literal arguments.
"""

import ast
import re
import warnings
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from inspect import signature
from typing import Any

import torch
from torch import nn
from torch.nn.modules import activation as activations
from torchvision import models, ops  # type: ignore[import-untyped]
from ultralytics.nn import tasks

from search_spaces import fork_modules
from search_spaces.errors import SpecError, in_one_line, shortened, typo_of

TORCH, TORCHVISION = "nn.", "torchvision.ops."
"""Prefixes of PyTorch's and torchvision's layers in a row."""

SEVERAL_SOURCES = frozenset(
    {
        "CBFuse",
        "Concat",
        "Depth",
        "Detect",
        "ImagePoolingAttn",
        "OBB",
        "OBB26",
        "Pose",
        "Pose26",
        "RTDETRDecoder",
        "Segment",
        "Segment26",
        "SemanticSegment",
        "WorldDetect",
        "YOLOEDetect",
        "YOLOESegment",
        "YOLOESegment26",
        "v10Detect",
    }
)
"""Ultralytics' layers that read several layers: `from` of their row is a list."""

CHANNELS_FIRST = frozenset(
    {
        "A2C2f",
        "AConv",
        "ADown",
        "Bottleneck",
        "BottleneckCSP",
        "C1",
        "C2",
        "C2PSA",
        "C2f",
        "C2fAttn",
        "C2fCIB",
        "C2fPSA",
        "C3",
        "C3Ghost",
        "C3TR",
        "C3k2",
        "C3x",
        "Classify",
        "Conv",
        "ConvTranspose",
        "DWConv",
        "DWConvTranspose2d",
        "ELAN1",
        "Focus",
        "GhostBottleneck",
        "GhostConv",
        "PSA",
        "RepC3",
        "RepNCSPELAN4",
        "SCDown",
        "SPP",
        "SPPELAN",
        "SPPF",
        "nn.ConvTranspose2d",
    }
)
"""Layers whose first argument is their output channels, which Ultralytics scales (`base_modules` of `parse_model`)."""

ULTRALYTICS = (
    SEVERAL_SOURCES
    | {name for name in CHANNELS_FIRST if "." not in name}
    | {"AIFI", "CBLinear", "Conv2", "HGBlock", "HGStem", "Index", "LRPCHead", "RepConv", "RepVGGDW", "ResNetLayer"}
)
"""Ultralytics' layers that a row may name: all of version 8.4.190 except `TorchVision`, which downloads."""

DOWNLOADING = "TorchVision"

_NOT_LAYERS = {"Container", "DataParallel", "Module"}
"""Subclasses of `nn.Module` in `torch.nn` that are no layers."""

_ACTIVATIONS = (*(name for name in activations.__all__ if name != "MultiheadAttention"), "Identity")


def require_layer(name: str, ours: Iterable[str]) -> None:
    """Check that a row may name a layer.

    Args:
        ours: names of rows with operators, and of heads of this package.

    Raises:
        SpecError: the name is not on the list; the text says what it is instead, or suggests a similar name.
    """
    if name.startswith((TORCH, TORCHVISION)):
        _require_one_of(name, _torch_layers() if name.startswith(TORCH) else _torchvision_layers())
    elif name == DOWNLOADING:
        raise SpecError(
            f"{name} downloads weights, which a model file may not ask for; with null as its third argument a "
            "classification model of torchvision is built without, and `nas yolo train pretrained=WEIGHTS.pt` brings "
            "weights"
        )
    elif name not in ULTRALYTICS and not _is_added_by_program(name):
        if name in vars(tasks):
            raise SpecError(f"{name} is no layer, so a row cannot name it")
        raise SpecError(f"unknown module {name!r} ({_instead_of(name, [*ours])})")


def downloads(arguments: Sequence[Any]) -> bool:
    """Return whether a row of `TorchVision` may download: its weights, or those of a part of another kind of model."""
    if len(arguments) <= _WEIGHTS or arguments[_WEIGHTS] not in (None, "None"):
        return True
    return arguments[_WEIGHTS - 1] not in _networks_of_torchvision()


def _networks_of_torchvision() -> list[str]:
    """Return the names of torchvision's classification networks."""
    found: list[str] = models.list_models(module=models)
    return found


_WEIGHTS = 2
"""Position of the weights in the arguments of a `TorchVision` row."""


def is_layer(name: str, ours: Iterable[str]) -> bool:
    """Return whether a row may name a layer; arguments as for `require_layer`."""
    try:
        require_layer(name, ours)
    except SpecError:
        return name in {*ours}
    return True


def _instead_of(name: str, ours: Sequence[str]) -> str:
    """Return what an unknown module is, as far as its name says, and what would be right."""
    if not fork_modules.is_listed(name) and (fork_modules.is_of_timm(name) or name in _networks_of_torchvision()):
        return _whole_network(name)
    near = None if fork_modules.is_listed(name) else typo_of(name, [*ours, *ULTRALYTICS, *_torch_layers()])
    if near:
        return f"did you mean {near!r}?"
    kind, operator = fork_modules.description(name), fork_modules.same(name, ours)
    origin = f"{kind} of the file's own fork" if kind else "of the file's own fork"
    same = f"this package's is {operator}; " if operator else ""
    return f"{origin}: {same}{BRING}"


def _whole_network(name: str) -> str:
    """Return what the name of a classification network is in a row, and how it becomes a model's backbone.

    timm and torchvision spell some names alike; what only torchvision has, timm cannot make.
    """
    if name in _networks_of_torchvision() and not _IN_TIMM_TOO.match(name):
        return (
            f"a classification network of torchvision: {DOWNLOADING} with null for its weights, and a row of Index for "
            f"each of its maps; or {BRING}"
        )
    missing = "" if find_spec("timm") else "; timm is not installed here: pip install timm"
    return (
        f"a whole network, which forks take from the package timm: {BRING}; a file of yours needs `import timm` and "
        f"`def {name}(*_): return timm.create_model({name!r}, features_only=True)`{missing}"
    )


_IN_TIMM_TOO = re.compile(r"resn|vgg|densenet|convnext|efficientnet_b|wide_resnet|inception")

BRING = "name the Python file or folder that defines it, --modules FILE.py; docs/operators.md"
"""What to do with a module of a fork."""


def _is_added_by_program(name: str) -> bool:
    """Return whether the running program has added a layer to Ultralytics' parser itself."""
    value = vars(tasks).get(name)
    return (
        isinstance(value, type)
        and issubclass(value, nn.Module)
        and value.__module__.partition(".")[0] not in {"ultralytics", "torch", "torchvision"}
    )


def _require_one_of(name: str, names: list[str]) -> None:
    if name not in names:
        near = typo_of(name, names)
        raise SpecError(
            f"unknown module {name!r} ({f'did you mean {near!r}?' if near else 'no layer of that library'})"
        )


def _torch_layers() -> list[str]:
    return [f"{TORCH}{name}" for name, value in vars(nn).items() if _is_layer(value) and name not in _NOT_LAYERS]


def _torchvision_layers() -> list[str]:
    return [f"{TORCHVISION}{name}" for name, value in vars(ops).items() if _is_layer(value)]


def _is_layer(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module)


def activation_call(written: Any) -> tuple[str, list[Any]]:
    """Return the class of `torch.nn` and its arguments by position that `activation` parses.

    Raises:
        SpecError: as `activation`.
    """
    call: Any = ast.parse(activation(written), mode="eval").body
    name = call.func.attr
    given = [ast.literal_eval(one) for one in call.args]
    named = {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}
    return name, list(signature(getattr(nn, name)).bind(*given, **named).args)


def activation(written: Any) -> str:
    """Parse `activation:` of a model file and return it normalised, for Ultralytics to evaluate: `nn.LeakyReLU(0.1)`.

    Args:
        written: a call of an activation of `torch.nn`, `nn.SiLU()` or `torch.nn.SiLU()`, with literal arguments.

    Raises:
        SpecError: anything else.
    """
    form = "nn.SiLU(), or another activation of torch.nn with plain numbers, is expected"
    if not isinstance(written, str) or len(written) > 200:
        raise SpecError(f"{form}, got {shortened(written)}")
    try:
        call = ast.parse(written.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise SpecError(f"{form}, got {shortened(written)}") from None
    name = _dotted(call.func if isinstance(call, ast.Call) else call)
    if name is None:
        raise SpecError(f"{form}, got {shortened(written)}")
    bare = name.removeprefix("torch.").removeprefix(TORCH)
    if bare not in _ACTIVATIONS or name.removeprefix("torch.") != f"{TORCH}{bare}" or not isinstance(call, ast.Call):
        near = bare if bare in _ACTIVATIONS else typo_of(bare, _ACTIVATIONS)
        raise SpecError(f"unknown activation {shortened(written)} ({f'did you mean nn.{near}()?' if near else form})")
    try:
        positional = [ast.literal_eval(argument) for argument in call.args]
        named = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg}
        plain = len(named) == len(call.keywords) and all(map(_is_plain, [*positional, *named.values()]))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        plain = False
    if not plain:
        raise SpecError(f"{form}, got {shortened(written)}")
    try:
        with torch.device("cpu"):
            built = getattr(nn, bare)(*positional, **named)
    except (TypeError, ValueError, RuntimeError, ArithmeticError, AssertionError) as error:
        raise SpecError(f"{shortened(written)} cannot be built: {error}") from None
    _require_activation(built, written)
    arguments = [*map(repr, positional), *(f"{key}={value!r}" for key, value in named.items())]
    return f"torch.nn.{bare}({', '.join(arguments)})"


def _require_activation(built: nn.Module, written: str) -> None:
    """Check that a module maps a feature map to one of the same size; on the meta device some errors do not show."""
    given = torch.zeros(1, getattr(built, "num_parameters", 8), 4, 4, device="cpu")
    try:
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):
            returned = built.eval()(given)
    except (TypeError, ValueError, RuntimeError, LookupError, ArithmeticError, AssertionError) as error:
        raise SpecError(f"{shortened(written)} cannot take a feature map: {in_one_line(error)}") from None
    if returned.shape != given.shape:
        raise SpecError(f"{shortened(written)} changes the size of what it gets")


def _dotted(node: ast.expr) -> str | None:
    """Return `torch.nn.SiLU` for an expression of names and dots; None for another expression."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None


_GREATEST = 1000
"""Limit of numbers in an activation: `num_parameters` allocates as many."""


def _is_plain(value: object) -> bool:
    """Return whether a literal is None, a truth value, a word or a number within the limit."""
    return (
        value is None or isinstance(value, bool | str) or (isinstance(value, int | float) and abs(value) <= _GREATEST)
    )
