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

from search_spaces.files import digest
from trials.budget import Budget
from trials.data.datasets import DataSet
from trials.scores import Epoch
from trials.training.double_buffer import Halves
from trials.training.ema import joined

if TYPE_CHECKING:
    from trials.training.short_training import ShortTraining


_FORM = 4
"""Counts the ways in which a checkpoint was ever laid out."""

_PLACES = {"data", "weights"}
_PLACES_OF_MODEL = {"base", "modules"}
"""Keys of a budget and of a model file's `nas:` that hold paths, which change when a study is moved."""


def identity(document: Mapping[str, Any], budget: Budget, data: DataSet) -> str:
    """Return a hash that is equal for trainings that go the same way, whatever time they are given.

    Data set, operators of a user's file and the weights that a training begins with count by their content.
    """
    origin = {name: value for name, value in document.get("nas", {}).items() if name not in _PLACES_OF_MODEL}
    document = {**document, "nas": origin}
    return _hash(document, budget, data, without={"timeout", *_PLACES}, begun=_content(budget.weights))


def identity_by_places(document: Mapping[str, Any], budget: Budget, data: DataSet) -> str:
    """Return the hash that checkpoints had until 2026-11-28, with the addresses of data set and weights in it."""
    return _hash(document, budget, data, without={"timeout"})


def _hash(document: Mapping[str, Any], budget: Budget, data: DataSet, *, without: set[str], **more: str) -> str:
    going = [
        _FORM,
        document,
        budget.model_dump(mode="json", exclude=without) | more,
        data.fingerprint,
        torch.__version__,
        ultralytics_version,
    ]
    return hashlib.sha256(json.dumps(going, sort_keys=True, default=str).encode()).hexdigest()


def _content(weights: Path | None) -> str:
    """Return a hash of a file; nothing where there is none, or none any more."""
    return digest(weights) if weights is not None and weights.is_file() else ""


class Checkpoint:
    """The file of one training.

    All that a step changes lies in a few long tensors, so that writing it, after every epoch, is no more than writing
    those: thousands of small tensors take ten times as long.
    """

    def __init__(self, path: Path, training: "ShortTraining", identity: str, *others: str) -> None:
        """Of a training that is set up.

        Args:
            identity: of a training that would go on from this file, see `identity`.
            others: by which older versions named such a training.
        """
        self.identity, self._others = identity, others
        self._file = Halves(path)
        self._weights = [*training.ema.live, *training.ema.kept]
        self._moments: list[Tensor] = []
        self._moved: list[bool] = []

    def write(self, training: "ShortTraining") -> None:
        """Write where a training stands."""
        self._lay_out_moments(training.optimizer)
        state = {
            "identity": self.identity,
            "others": self._others,  # weights that were written anew, or have gone, are known by their place
            "epochs": [asdict(epoch) for epoch in training.epochs_done],
            "updates": training.ema.updates,
            "scaler": training.scaler.state_dict(),
            "criterion": _numbers(training.model.criterion),
            "moved": self._moved,
        }
        self._file.write(state, [*self._weights, *self._moments])

    def restore(self, training: "ShortTraining") -> None:
        """Put a training, set up anew, where it stood; nothing if there is no file, or one of another training."""
        found = self._file.read()
        if found is None or not self._is_of({found[0]["identity"], *found[0].get("others", ())}):
            return
        state, rows = found
        _begin(training.optimizer, state["moved"])
        self._lay_out_moments(training.optimizer)
        for values, before in zip((*self._weights, *self._moments), rows, strict=True):
            values.copy_(before)
        training.ema.updates = state["updates"]
        training.scaler.load_state_dict(state["scaler"])
        training.model.criterion = training.model.init_criterion()
        vars(training.model.criterion).update(state["criterion"])
        training.epochs_done = [Epoch(**epoch) for epoch in state["epochs"]]

    def _is_of(self, identities: set[str]) -> bool:
        return not identities.isdisjoint({self.identity, *self._others})

    def _lay_out_moments(self, optimizer: Optimizer) -> None:
        """Once they are there, which a parameter's are after its first step."""
        parameters = _parameters(optimizer)
        moved = [parameter in optimizer.state for parameter in parameters]
        if moved != self._moved:
            known = [optimizer.state[parameter] for parameter, moves in zip(parameters, moved, strict=True) if moves]
            self._moments = joined(moment for each in known for _, moment in sorted(each.items()))
            self._moved = moved


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


def _numbers(criterion: object) -> dict[str, float]:
    """What a loss counts up over the epochs, such as the weights of the two heads of YOLOv10."""
    return {name: value for name, value in vars(criterion).items() if isinstance(value, int | float)}
