"""Where a training stands after an epoch: all that the next ones depend on, so that it goes on as if never stopped.

Weights and moving average are kept in full precision, where Ultralytics keeps the average alone, and in half. No state
of a random number generator is among it: an epoch's random numbers follow from the seed and the epoch's number
(`training.seed_epoch`).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
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


_FORM = 2
"""Counts the ways in which a checkpoint was ever laid out."""


def identity(document: Mapping[str, Any], budget: Budget, data: DataSet) -> str:
    """Equal for trainings that go the same way, whatever time they are given."""
    going = [
        _FORM,
        document,
        budget.model_dump(mode="json", exclude={"timeout"}),
        data.fingerprint,
        torch.__version__,
        ultralytics_version,
    ]
    return hashlib.sha256(json.dumps(going, sort_keys=True, default=str).encode()).hexdigest()


@dataclass
class Checkpoint:
    """The file of one training, and what writing it again and again would otherwise look up and allocate each time."""

    path: Path
    identity: str
    _moving: int = 0
    _values: list[Tensor] = field(default_factory=list)
    _buffers: dict[str, Tensor] = field(default_factory=dict)

    def write(self, training: "ShortTraining") -> None:
        """Write where a training stands, aside, then renamed."""
        moved = [parameter in training.optimizer.state for parameter in _parameters(training.optimizer)]
        if not self._values or sum(moved) != self._moving:
            self._values, self._moving = _values(training), sum(moved)
        self._buffers = _packed(self._values, self._buffers)
        state = {
            "identity": self.identity,
            "epochs": [asdict(epoch) for epoch in training.epochs_done],
            "updates": training.ema.updates,
            "scaler": training.scaler.state_dict(),
            "criterion": _numbers(training.model.criterion),
            "moved": moved,
            "tensors": self._buffers,
        }
        aside = self.path.with_suffix(".tmp")
        with _no_checksums():
            torch.save(state, aside)
        aside.replace(self.path)

    def restore(self, training: "ShortTraining") -> None:
        """Put a training, set up anew, where it stood; nothing if there is no file, or one of another training."""
        if not self.path.is_file():
            return
        state = torch.load(self.path, map_location=training.device, weights_only=True)
        if state["identity"] != self.identity:
            return
        _begin(training.optimizer, state["moved"])
        _unpack(state["tensors"], _values(training))
        training.ema.updates = state["updates"]
        training.scaler.load_state_dict(state["scaler"])
        training.model.criterion = training.model.init_criterion()
        vars(training.model.criterion).update(state["criterion"])
        training.epochs_done = [Epoch(**epoch) for epoch in state["epochs"]]


@contextmanager
def _no_checksums() -> Iterator[None]:
    """Half the time of writing goes into sums that `torch.load` never looks at."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)


def _values(training: "ShortTraining") -> list[Tensor]:
    """All that a step changes, in an order that is the same for every training of this identity.

    Each flat, a view in the order in which the numbers lie in memory: trainings of one identity lay them out alike.
    """
    known = training.optimizer.state
    moments = [known[parameter] for parameter in _parameters(training.optimizer) if parameter in known]
    tensors = [
        *training.model.state_dict().values(),
        *training.ema.ema.state_dict().values(),
        *(moment for each in moments for _, moment in sorted(each.items())),
    ]
    return [tensor.as_strided((tensor.numel(),), (1,)) for tensor in tensors]


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


def _packed(values: Sequence[Tensor], buffers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One tensor for each type of number: thousands of small ones take ten times as long to write.

    Args:
        buffers: of an earlier call, written into again; fresh memory takes four times as long to fill.
    """
    by_type: dict[str, list[Tensor]] = {}
    for each in values:
        by_type.setdefault(str(each.dtype), []).append(each)
    return {dtype: torch.cat(parts, out=buffers.get(dtype)) for dtype, parts in by_type.items()}


def _unpack(packed: Mapping[str, Tensor], values: Sequence[Tensor]) -> None:
    """Copy into values of the same order."""
    rest = dict(packed)
    for each in values:
        part, rest[str(each.dtype)] = rest[str(each.dtype)].tensor_split([each.numel()])
        each.copy_(part)


def _numbers(criterion: object) -> dict[str, float]:
    """What a loss counts up over the epochs, such as the weights of the two heads of YOLOv10."""
    return {name: value for name, value in vars(criterion).items() if isinstance(value, int | float)}
