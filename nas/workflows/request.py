"""Request of a search: the options that a user sets, and what they mean for a space, a data set and a machine."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError

from nas import ranges
from nas.algorithms.dominance import rungs_of
from nas.algorithms.successive_halving import Stopping
from nas.execution import gpus
from nas.settings import RunSettings
from nas.workflows.presets import DEMONSTRATION, PRESETS, USUAL, Preset, epochs_for
from nas.workflows.search_options import (
    AUTO,
    BATCH,
    DEFAULT_SPACE,
    DEMONSTRATION_TRIALS,
    DEPLOY_SIZE,
    MOST_WORKERS,
    PRETRAINED,
    SMALLEST,
    USUAL_TRIALS,
    SearchOptions,
    instead_of,
)
from search_spaces import Space, base
from search_spaces.errors import EnvironmentProblem, SpecError, nearest
from trials import Budget, Limits, Recipe, machine, recipes
from trials.budget import Precision
from trials.data.datasets import DIGITS, DataSet
from trials.devices import CPU
from trials.torch_devices import computes_bf16, fastest_precision

Model = TypeVar("Model", bound=BaseModel)
Value = TypeVar("Value")

_FLAGS = {"first": "first_rung", "gflops": "max_gflops", "params": "max_params", "latency_ms": "max_latency"}
"""Fields of other models that have another name on the command line."""


@dataclass(frozen=True, kw_only=True)
class Request(SearchOptions):
    """Options of a search, with the budgets, limits and settings that follow from them."""

    @property
    def space_name(self) -> str:
        """Name or path of the search space, or names of several."""
        usual = SMALLEST if self.stock_only else DEFAULT_SPACE
        return usual if self.space is None else os.fspath(self.space)

    @property
    def runs_folder(self) -> Path:
        """Folder of all studies."""
        return Path(self.runs)

    @property
    def checkpoint(self) -> Path | None:
        """Checkpoint from which the training of the stock model starts; None while it is still to be found."""
        return None if self.weights is None or self.is_pretrained else Path(self.weights)

    @property
    def is_pretrained(self) -> bool:
        """Whether that checkpoint is the released one of the space's base model, which is still to be found."""
        return self.weights == PRETRAINED

    @property
    def _is_demonstration(self) -> bool:
        """Whether the data set is the built-in one, for which few epochs on small images suffice."""
        return self.data_name == DIGITS

    @property
    def data_name(self) -> str:
        """Name or path of the data set."""
        return DIGITS if self.data is None else os.fspath(self.data)

    def chosen_preset(self) -> tuple[str, Preset]:
        """Return the amount of training and its name.

        Raises:
            SpecError: no such preset.
        """
        name = self.preset or (DEMONSTRATION if self._is_demonstration else USUAL)
        if name not in PRESETS:
            raise SpecError(f"preset: no preset {name!r} ({nearest(name, PRESETS)})")
        return name, PRESETS[name]

    def stock_budget(self, space: Space, data: DataSet, device: str) -> Budget | None:
        """Return the budget of the stock model's training; None if candidates do not start from it, or there are none.

        Raises:
            SpecError: with every number that is out of range; `from_scratch` together with weights or base epochs.
        """
        self.require_one_start()
        if self.stock_only or self.from_scratch or self.base_epochs == 0:
            return None
        numbers = {"epochs": self._stock_epochs(data), "weights": self._absolute_checkpoint()}
        return self._budget(space, data, device, numbers, self._recipe(inherited=self.weights is not None))

    def _stock_epochs(self, data: DataSet) -> int:
        _, preset = self.chosen_preset()
        return _given(self.base_epochs, epochs_for(preset.base_epochs, data.train_images))

    def require_one_start(self) -> None:
        """Refuse a request for random weights that names others as well.

        Raises:
            SpecError: it does.
        """
        if self.from_scratch and (self.weights or self.base_epochs):
            given = "weights" if self.weights else "base-epochs"
            raise SpecError(f"from-scratch: candidates with random weights start from nothing, but {given} was given")

    def budget(self, space: Space, data: DataSet, device: str) -> Budget:
        """Return the budget of a candidate on one device.

        If the stock model is trained first, the path of its weights is filled in when the study is created.

        Raises:
            SpecError: with every number that is out of range.
        """
        _, preset = self.chosen_preset()
        from_stock = self.stock_budget(space, data, device) is not None
        inherits = from_stock or self.weights is not None
        usual = preset.epochs if inherits else preset.scratch_epochs
        epochs = _given(self.epochs, epochs_for(usual, data.train_images))
        stopping = self.stopping()
        rungs = stopping.rungs(epochs) if stopping else ()
        if self.stock_only:
            epochs = self._stock_epochs(data)
            rungs = rungs_of(epochs)
        numbers = {
            "epochs": epochs,
            "weights": None if from_stock else self._absolute_checkpoint(),
            "channels": "important" if inherits and space.searches_width else "first",
            "timeout": self.trial_timeout,
            "rungs": rungs,
        }
        if self.first_rung is not None and not rungs:
            raise SpecError(
                f"first-rung: input should be less than the epochs of a trial, got {self.first_rung} "
                f"(a trial has {epochs} epochs)"
            )
        return self._budget(space, data, device, numbers, self._recipe(inherited=inherits))

    def stopping(self) -> Stopping | None:
        """Return the rungs at which trainings may be stopped early; None if they are not.

        Raises:
            SpecError: a number that is out of range; a first rung without `eta`.
        """
        if self.eta is None:
            if self.first_rung is not None:
                raise SpecError("first-rung: it needs --eta, which was not given (such as --eta 3)")
            return None
        numbers = {"eta": self.eta} | ({} if self.first_rung is None else {"first": self.first_rung})
        return validated(Stopping, numbers)

    def _budget(self, space: Space, data: DataSet, device: str, numbers: dict[str, Any], recipe: Recipe) -> Budget:
        _, preset = self.chosen_preset()
        common = {
            "data": data.path,
            "image_size": _given(self.image_size, preset.image_size),
            "deploy_size": self._deploy_size(space),
            "batch": BATCH if self.batch in {None, AUTO} else self.batch,
            "seed": self.seed,
            "recipe": recipe.model_copy(update={"pgi": space.pgi}),
            "device": device,
            "precision": self._precision(device),
            "deterministic": self.deterministic and device != CPU,
        }
        budget = validated(Budget, common | numbers)
        _require_stride(space, {"image-size": budget.image_size, "deploy-size": budget.deploy_size})
        return budget

    def chooses_batch(self, device: str) -> bool:
        """Return whether the batch is to be found by training on a device; on a Ray cluster it cannot be."""
        return self.ray is None and (self.batch == AUTO or (self.batch is None and device != CPU))

    @property
    def chooses_workers(self) -> bool:
        """Whether the number of workers on each GPU is to be found by timed trainings."""
        return self.workers_per_device == AUTO

    def _precision(self, device: str) -> Precision:
        """Return the number format of a training on a device.

        Raises:
            SpecError: the device only emulates bfloat16, or float16 is asked of a CPU.
        """
        if self.ray is not None and device != CPU:  # the GPUs are on the cluster's machines, and perhaps none is here
            return self.precision or "fp32"
        if self.precision == "fp16" and device == CPU:
            raise SpecError("precision: fp16 is for GPUs, a CPU emulates it slowly (fp32, or bf16 if the CPU has it)")
        if self.precision == "bf16" and not computes_bf16(device):
            raise SpecError(
                f"precision: the device {device} does not compute in bfloat16, and emulates it slowly (fp32)"
            )
        return self.precision or fastest_precision(device)

    def _recipe(self, *, inherited: bool) -> Recipe:
        if self._is_demonstration:
            return recipes.DIGITS_INHERITED if inherited else recipes.DIGITS_SCRATCH
        return recipes.INHERITED if inherited else recipes.SCRATCH

    def _absolute_checkpoint(self) -> Path | None:
        return self.checkpoint.absolute() if self.checkpoint else None

    def limits(self) -> Limits:
        """Return the ceilings on the cost of a candidate.

        Raises:
            SpecError: with every number that is out of range.
        """
        return validated(Limits, {"gflops": self.max_gflops, "params": self.max_params, "latency_ms": self.max_latency})

    def run(self, device: str, workers: int) -> RunSettings:
        """Return how many trials run, for how long and on which workers.

        Raises:
            SpecError: with every number that is out of range.
        """
        trials = _given(self.trials, DEMONSTRATION_TRIALS if self._is_demonstration else USUAL_TRIALS)
        numbers = {"trials": trials, "timeout": self.timeout, "workers": workers, "device": device}
        return validated(
            RunSettings,
            {
                **numbers,
                "trial_memory": self.trial_memory,
                "cache": self.cache,
                "system_metrics": self.system_metrics,
            },
        )

    def _deploy_size(self, space: Space) -> int:
        """Return the image size at which the stock model is deployed, in pixels.

        Raises:
            SpecError: the space searches image sizes, and this is not the largest of them.
        """
        largest = space.image_size
        if largest is not None and self.deploy_size not in {None, largest}:
            raise SpecError(
                f"deploy-size: the space searches image sizes itself, got {self.deploy_size} "
                f"(give {largest}, or leave the option out)"
            )
        return largest or _given(self.deploy_size, DEPLOY_SIZE)

    def devices(self) -> tuple[str, int]:
        """Return the devices, and the number of worker processes; on a Ray cluster the device as each of them sees it.

        Where the number is to be found by timed trainings, it is one for each device.

        Raises:
            EnvironmentProblem: no such GPU on this machine.
            SpecError: neither `cpu` nor indices, or more workers on the CPU than cores.
        """
        if self.ray is not None:
            if self.workers_per_device is not None:
                raise SpecError(
                    "workers-per-device: for the GPUs of this machine, not of a Ray cluster (--gpus-per-worker 0.25 "
                    "places four workers on each)"
                )
            return "0" if self.gpus_per_worker else CPU, _given(self.workers, 1)
        count = gpus.count(torch.cuda.device_count(), os.environ.get(gpus.VARIABLE))
        device = _given(self.device, "0" if count else "cpu")
        if self.workers_per_device is not None and (device == CPU or self.workers is not None):
            other = "a CPU" if device == CPU else "--workers, which was given as well"
            raise SpecError(f"workers-per-device: for GPUs, not together with {other} (--workers N counts them all)")
        if device == "cpu":
            workers = _given(self.workers, min(machine.cores(), MOST_WORKERS))
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
        per_device = self.workers_per_device if isinstance(self.workers_per_device, int) else 1
        return device, _given(self.workers, len(indices) * per_device)


def _require_stride(space: Space, sizes: Mapping[str, int]) -> None:
    """Refuse image sizes that are no multiple of the model's stride: its feature maps could not be concatenated.

    Raises:
        SpecError: with every such size.
    """
    strides = {base.load(member.base, member.scale).stride: member.base for member in space.members}
    mistakes = [
        f"{flag}: input should be a multiple of {stride}, the stride of {name}, got {size} "
        f"({' or '.join(str(near) for near in (size // stride * stride, (size // stride + 1) * stride) if near)})"
        for stride, name in sorted(strides.items(), reverse=True)
        for flag, size in sizes.items()
        if size % stride
    ]
    if mistakes:
        raise SpecError(list(dict.fromkeys(mistakes)))


def require_writable(runs: Path) -> None:
    """Check that the folder of studies can be created and written to, without writing anything.

    Raises:
        EnvironmentProblem: it cannot.
    """
    there = next(folder for folder in (runs.absolute(), *runs.absolute().parents) if os.path.lexists(folder))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise EnvironmentProblem(f"{runs}: cannot be written to ({there}); choose another --runs")


def _given(value: Value | None, default: Value) -> Value:
    return default if value is None else value


def validated(model: type[Model], fields: dict[str, Any]) -> Model:
    """Return the pydantic model of some fields; its mistakes are reported under the names of the flags.

    Raises:
        SpecError: with every mistake.
    """
    numbers = {_FLAGS.get(field, field): value for field, value in fields.items()}
    counted = numbers.keys() & ranges.RANGES.keys() - {"classes", "holdout"}  # those of settings are no numbers
    outside = ranges.problems({name: value for name, value in numbers.items() if name in counted})
    if outside:
        raise SpecError(outside)
    try:
        return model(**fields)
    except ValidationError as error:
        raise SpecError([_as_line(model, problem) for problem in error.errors()]) from None


def _as_line(model: type[BaseModel], problem: Mapping[str, Any]) -> str:
    """Describe one mistake that pydantic has found."""
    field, what, got = str(problem["loc"][0]), problem["msg"], ranges.shown(problem["input"])
    if problem["type"] == "extra_forbidden":
        return f"{field}: no such argument, got {got} ({instead_of(field, model.model_fields)})"
    return f"{ranges.flag(_FLAGS.get(field, field))}: {what[0].lower()}{what[1:]}, got {got}"


def require_cores(device: str, workers: int) -> None:
    """Refuse more CPU workers than cores: they would slow each other down, and measure that as latency.

    Raises:
        SpecError: with the largest number that is allowed.
    """
    cores = machine.cores()
    if device == "cpu" and workers > cores:
        there = "1 core is" if cores == 1 else f"{cores} cores are"
        raise SpecError(
            f"workers: each needs a CPU core, and {there} free here, got {workers} (--workers {cores} or fewer)"
        )


def require_reachable(
    wanted: Iterable[tuple[str, float | None, Callable[[], tuple[float, float]]]], image_size: int
) -> None:
    """Refuse a limit or target that no architecture of a space meets, or that all of them meet.

    Args:
        wanted: name of the flag, its value or None, and a function that returns the least and the largest value that
            the space reaches; it is called only if there is a value.
        image_size: at which those values hold, in pixels.

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
