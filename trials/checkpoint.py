"""Where a training stands after an epoch: all that the next ones depend on, so that it goes on as if never stopped.

Weights and moving average are kept in full precision, where Ultralytics keeps the average alone, and in half. No state
of a random number generator is among it: an epoch's random numbers follow from the seed and the epoch's number
(`training.seed_epoch`).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from ultralytics import __version__ as ultralytics_version

from trials.budget import Budget
from trials.datasets import DataSet
from trials.scores import Epoch

if TYPE_CHECKING:
    from trials.training import ShortTraining


def identity(document: Mapping[str, Any], budget: Budget, data: DataSet) -> str:
    """Equal for trainings that go the same way, whatever time they are given."""
    going = [
        document,
        budget.model_dump(mode="json", exclude={"timeout"}),
        data.fingerprint,
        torch.__version__,
        ultralytics_version,
    ]
    return hashlib.sha256(json.dumps(going, sort_keys=True, default=str).encode()).hexdigest()


def write(training: "ShortTraining", path: Path) -> None:
    """Write where a training stands, aside, then renamed."""
    state = {
        "identity": training.identity,
        "epochs": [asdict(epoch) for epoch in training.epochs_done],
        "updates": training.ema.updates,
        "scaler": training.scaler.state_dict(),
        "criterion": _numbers(training.model.criterion),
        "moved": [parameter in training.optimizer.state for parameter in _parameters(training.optimizer)],
        "tensors": _packed(_tensors(training)),
    }
    aside = path.with_suffix(".tmp")
    torch.save(state, aside)
    aside.replace(path)


def restore(training: "ShortTraining", path: Path) -> None:
    """Put a training, set up anew, where it stood; nothing if there is no file, or one of another training."""
    if not path.is_file():
        return
    state = torch.load(path, map_location=training.device, weights_only=True)
    if state["identity"] != training.identity:
        return
    _begin(training.optimizer, state["moved"])
    _unpack(state["tensors"], _tensors(training))
    training.ema.updates = state["updates"]
    training.scaler.load_state_dict(state["scaler"])
    training.model.criterion = training.model.init_criterion()
    vars(training.model.criterion).update(state["criterion"])
    training.epochs_done = [Epoch(**epoch) for epoch in state["epochs"]]


def _tensors(training: "ShortTraining") -> list[Tensor]:
    """All that a step changes, in an order that is the same for every training of this identity."""
    known = training.optimizer.state
    moments = [known[parameter] for parameter in _parameters(training.optimizer) if parameter in known]
    return [
        *training.model.state_dict().values(),
        *training.ema.ema.state_dict().values(),
        *(moment for each in moments for _, moment in sorted(each.items())),
    ]


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _begin(optimizer: Optimizer, moved: Sequence[bool]) -> None:
    """Let an optimizer that has not stepped yet make the moments of what it moves, by a step that goes nowhere."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    for parameter, moves in zip(_parameters(optimizer), moved, strict=True):
        parameter.grad = torch.zeros_like(parameter) if moves else None
    optimizer.step()
    optimizer.zero_grad()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def _packed(tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """One tensor for each type of number: thousands of small ones take ten times as long to write."""
    by_type: dict[str, list[Tensor]] = {}
    for tensor in tensors:
        by_type.setdefault(str(tensor.dtype), []).append(tensor.detach().flatten())
    return {dtype: torch.cat(parts) for dtype, parts in by_type.items()}


@torch.no_grad()
def _unpack(packed: Mapping[str, Tensor], tensors: Sequence[Tensor]) -> None:
    """Copy into tensors of the same order, each in its own memory layout, which one kernel for all relies on."""
    rest = dict(packed)
    for tensor in tensors:
        values, rest[str(tensor.dtype)] = rest[str(tensor.dtype)].tensor_split([tensor.numel()])
        tensor.copy_(values.reshape(tensor.shape))


def _numbers(criterion: object) -> dict[str, float]:
    """What a loss counts up over the epochs, such as the weights of the two heads of YOLOv10."""
    return {name: value for name, value in vars(criterion).items() if isinstance(value, int | float)}
