"""What a user may ask of a search, and the defaults where nothing is said."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError

from nas import machine
from nas.config import RUNS, Run, default_recipe
from nas.rewards import Reward
from search_spaces import SearchSpace
from search_spaces.errors import EnvironmentProblem, SpecError
from trials import Budget, Limits
from trials.datasets import DIGITS, DataSet

Model = TypeVar("Model", bound=BaseModel)

_FLAGS = {"gflops": "max_gflops", "params": "max_params", "latency_ms": "max_latency"}
"""Fields that have another name on the command line."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a user may ask of a search; None is the default that fits the data.

    Attributes:
        space: a name from the catalog, or a path.
        data: `digits`, or a path.
        weights: a checkpoint that every candidate starts from.
        objectives: which scores span the front.
        max_gflops: and its like: ceilings on the deployed candidate.
    """

    space: str = "v9"
    scale: str | None = None
    data: str = DIGITS
    weights: Path | None = None
    study: str | None = None
    trials: int | None = None
    timeout: float | None = None
    trial_timeout: float | None = None
    trial_memory: int | None = None
    epochs: int | None = None
    image_size: int | None = None
    deploy_size: int | None = None
    batch: int | None = None
    seed: int = 0
    workers: int | None = None
    device: str | None = None
    objectives: tuple[str, ...] = ("map50_95", "gflops")
    reward: Reward | None = None
    target_gflops: float | None = None
    target_latency: float | None = None
    max_gflops: float | None = None
    max_params: int | None = None
    max_latency: float | None = None
    storage: str | None = None
    runs: Path = RUNS

    @property
    def _is_demonstration(self) -> bool:
        """Whether the data are the built-in ones, which few epochs of small images suffice for."""
        return self.data == DIGITS

    def budget(self, space: SearchSpace, data: DataSet, device: str) -> Budget:
        """What a candidate gets, on one device.

        Raises:
            SpecError: with every number that is none.
        """
        few = self._is_demonstration
        fields = {
            "data": data.path,
            "epochs": self.epochs or (3 if few else 12),
            "image_size": self.image_size or (128 if few else 320),
            "deploy_size": self._deploy_size(space),
            "batch": self.batch or 8,
            "seed": self.seed,
            "weights": self.weights.absolute() if self.weights else None,
            "recipe": default_recipe(self.data).model_copy(update={"pgi": space.pgi}),
            "timeout": self.trial_timeout,
            "device": device,
        }
        return validated(Budget, fields)

    def limits(self) -> Limits:
        """Ceilings on a candidate.

        Raises:
            SpecError: with every number that is none.
        """
        return validated(Limits, {"gflops": self.max_gflops, "params": self.max_params, "latency_ms": self.max_latency})

    def run(self, device: str, workers: int) -> Run:
        """How far and with what.

        Raises:
            SpecError: with every number that is none.
        """
        trials = self.trials or (10 if self._is_demonstration else 30)
        fields = {"trials": trials, "timeout": self.timeout, "workers": workers, "device": device}
        return validated(Run, {**fields, "trial_memory": self.trial_memory})

    def _deploy_size(self, space: SearchSpace) -> int:
        """Pixels that the stock model is deployed at.

        Raises:
            SpecError: the space has sizes of its own, and this is not the greatest of them.
        """
        own = space.image_size
        if own is not None and self.deploy_size not in {None, own}:
            raise SpecError(
                f"deploy-size: the space chooses among sizes itself, got {self.deploy_size} ({own} or nothing)"
            )
        return own or self.deploy_size or 640

    def devices(self) -> tuple[str, int]:
        """The devices to work on, and how many processes.

        Raises:
            EnvironmentProblem: a GPU that is not there.
            SpecError: neither `cpu` nor indices, or more workers on the CPU than cores.
        """
        count = torch.cuda.device_count()
        device = self.device or ("0" if count else "cpu")
        if device == "cpu":
            workers = self.workers or min(machine.cores(), 4)
            require_cores(device, workers)
            return device, workers
        indices = device.split(",")
        if not all(index.isdecimal() for index in indices):
            raise SpecError(f"device: cpu, or indices of GPUs, got {device!r} (cpu, 0, or 0,1)")
        missing = [index for index in indices if int(index) >= count]
        if missing:
            there = f"there are {count}" if count else "PyTorch sees none"
            raise EnvironmentProblem(
                f"device: no GPU {', '.join(missing)} here, {there} (`nas doctor` says more; try --device cpu)"
            )
        return device, self.workers or len(indices)


def validated(model: type[Model], fields: dict[str, Any]) -> Model:
    """A pydantic model, or all mistakes as ours, under the flags' names.

    Raises:
        SpecError: with every mistake.
    """
    try:
        return model(**fields)
    except ValidationError as error:
        told = [(str(problem["loc"][0]), problem["msg"], problem["input"]) for problem in error.errors()]
        raise SpecError(
            [
                f"{_FLAGS.get(field, field).replace('_', '-')}: {what[0].lower()}{what[1:]}, got {got!r}"
                for field, what, got in told
            ]
        ) from None


def require_cores(device: str, workers: int) -> None:
    """Refuse more workers on the CPU than cores: they would only wait for each other, and measure that as latency.

    Raises:
        SpecError: with the greatest number that fits.
    """
    cores = machine.cores()
    if device == "cpu" and workers > cores:
        there = "1 core is" if cores == 1 else f"{cores} cores are"
        raise SpecError(f"workers: one needs a core, and {there} free here, got {workers} (--workers {cores} or fewer)")


def require_reachable(
    wanted: Iterable[tuple[str, float | None, Callable[[], tuple[float, float]]]], image_size: int
) -> None:
    """Refuse a limit or target that no architecture meets, or that all do.

    Args:
        wanted: the flag, its value if it was given, and the least and the most that a space reaches; asked for only
            where there is a value.
        image_size: of those figures, pixels.

    Raises:
        SpecError: with every such limit.
    """
    mistakes = []
    for flag, value, reach in wanted:
        if value is None:
            continue
        least, most = reach()
        if not least <= value <= most:
            mistakes.append(
                f"{flag}: outside what the space can reach, got {value:g} (from {least:.4g} to {most:.4g} "
                f"at {image_size} px)"
            )
    if mistakes:
        raise SpecError(mistakes)
