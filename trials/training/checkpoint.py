"""Checkpoint of a training after an epoch, from which it goes on to the same bits as if it had never stopped.

Differences to Ultralytics' checkpoint:

- weights and their EMA are stored in full precision; Ultralytics stores the EMA alone, in half precision;
- no state of a random number generator is stored: an epoch's random numbers follow from the seed and the epoch's
  number (`short_training.seed_epoch`).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer
from ultralytics import __version__ as ultralytics_version

from search_spaces.files import digest
from trials.budget import Budget
from trials.data.datasets import DataSet
from trials.scores import Epoch
from trials.training.double_buffer import DoubleBufferedFile
from trials.training.ema import InPlaceEMA, move_to_flat_buffers

_FORMAT_VERSION = 4

_BUDGET_PATHS = {"data", "weights"}
_MODEL_PATHS = {"base", "modules"}
"""Keys of a budget and of a model file's `nas:` that hold paths, which change when a study is moved."""


def identity(document: Mapping[str, Any], budget: Budget, data: DataSet) -> str:
    """Return a hash that is equal for trainings with equal results, whatever their time limit.

    Data set, operators of a user's file and the weights that a training begins with count by their content.
    """
    origin = {name: value for name, value in document.get("nas", {}).items() if name not in _MODEL_PATHS}
    document = {**document, "nas": origin}
    return _hash(document, budget, data, without={"timeout", *_BUDGET_PATHS}, begun=_content(budget.weights))


def identity_by_places(document: Mapping[str, Any], budget: Budget, data: DataSet) -> str:
    """Return the hash that checkpoints had until 2026-11-28, with the paths of data set and weights in it."""
    return _hash(document, budget, data, without={"timeout"})


def _hash(document: Mapping[str, Any], budget: Budget, data: DataSet, *, without: set[str], **more: str) -> str:
    """Return the SHA-256 of all that decides a training's result.

    Args:
        without: fields of the budget that do not count.
        more: further entries of the budget; their names are hashed, too.
    """
    inputs = [
        _FORMAT_VERSION,
        document,
        budget.model_dump(mode="json", exclude=without) | more,
        data.fingerprint,
        torch.__version__,
        ultralytics_version,
    ]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()


def _content(weights: Path | None) -> str:
    """Return a hash of a file; empty without one, or if it has been deleted."""
    return digest(weights) if weights is not None and weights.is_file() else ""


class TrainingState(Protocol):
    """Training whose state a checkpoint stores and restores.

    Attributes:
        model: with `criterion`, its loss, and `init_criterion()`.
        epochs_done: the epochs trained so far, in order.
    """

    model: Any
    ema: InPlaceEMA
    optimizer: Optimizer
    scaler: GradScaler
    epochs_done: list[Epoch]


class Checkpoint:
    """Checkpoint file of one training, written after every epoch.

    All that a step changes lies in a few long tensors: writing thousands of small ones takes ten times as long.
    """

    def __init__(self, path: Path, training: TrainingState, identity: str, *others: str) -> None:
        """Refer to the weights of a training that is set up; read and write nothing yet.

        Args:
            identity: of the training, see `identity`.
            others: the same in older formats, under which the file may have been written.
        """
        self.identity, self._others = identity, others
        self._file = DoubleBufferedFile(path)
        self._weights = [*training.ema.live, *training.ema.shadow]
        self._moments: list[Tensor] = []
        self._has_moments: list[bool] = []

    def write(self, training: TrainingState) -> None:
        """Write the state of a training."""
        self._collect_moments(training.optimizer)
        state = {
            "identity": self.identity,
            "others": self._others,  # for a budget whose weights file has changed or is gone
            "epochs": [asdict(epoch) for epoch in training.epochs_done],
            "updates": training.ema.updates,
            "scaler": training.scaler.state_dict(),
            "criterion": _counters(training.model.criterion),
            "moved": self._has_moments,
        }
        self._file.write(state, [*self._weights, *self._moments])

    def restore(self, training: TrainingState) -> None:
        """Restore the state of a training that is newly set up; do nothing without a file of the same training."""
        found = self._file.read()
        if found is None or not self._matches({found[0]["identity"], *found[0].get("others", ())}):
            return
        state, tensors = found
        _create_moments(training.optimizer, state["moved"])
        self._collect_moments(training.optimizer)
        for values, stored in zip((*self._weights, *self._moments), tensors, strict=True):
            values.copy_(stored)
        training.ema.updates = state["updates"]
        training.scaler.load_state_dict(state["scaler"])
        training.model.criterion = training.model.init_criterion()
        vars(training.model.criterion).update(state["criterion"])
        training.epochs_done = [Epoch(**epoch) for epoch in state["epochs"]]

    def _matches(self, identities: set[str]) -> bool:
        return not identities.isdisjoint({self.identity, *self._others})

    def _collect_moments(self, optimizer: Optimizer) -> None:
        """Move the optimizer's moments to flat tensors; a parameter has some from its first step on."""
        parameters = _parameters(optimizer)
        has_moments = [parameter in optimizer.state for parameter in parameters]
        if has_moments != self._has_moments:
            states = [optimizer.state[each] for each, has in zip(parameters, has_moments, strict=True) if has]
            self._moments = move_to_flat_buffers(moment for state in states for _, moment in sorted(state.items()))
            self._has_moments = has_moments


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _create_moments(optimizer: Optimizer, has_moments: Sequence[bool]) -> None:
    """Let an optimizer that has not stepped yet create moments, by a step with learning rate and gradients of 0."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    for parameter, has in zip(_parameters(optimizer), has_moments, strict=True):
        parameter.grad = torch.zeros_like(parameter) if has else None
    optimizer.step()
    optimizer.zero_grad()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def _counters(criterion: object) -> dict[str, float]:
    """Return what a loss updates over the epochs, such as the weights of the two heads of YOLOv10."""
    return {name: value for name, value in vars(criterion).items() if isinstance(value, int | float)}
