"""What a user may ask of a search, and the defaults where nothing is said."""

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from pydantic import BaseModel, ValidationError

from nas import ranges, spelling
from nas.algorithms.rewards import Reward
from nas.algorithms.successive_halving import Stopping
from nas.paths import RUNS
from nas.settings import Run, Sampler
from nas.workflows.presets import PRESETS, Preset
from search_spaces import SearchSpace, base
from search_spaces.errors import EnvironmentProblem, SpecError, nearest
from trials import Budget, Limits, Recipe, machine, presets
from trials.budget import Precision
from trials.data.datasets import DIGITS, DataSet
from trials.devices import CPU, computes_bf16

Model = TypeVar("Model", bound=BaseModel)
Value = TypeVar("Value")

_FLAGS = {"first": "first_rung", "gflops": "max_gflops", "params": "max_params", "latency_ms": "max_latency"}
"""Fields that have another name on the command line."""


_PATHS = ("runs", "weights")
"""Fields of a request that are paths; in Python they may be given as text."""

_NAMES = ("data", "space", "refine")
"""Fields that are a name or a file, and texts; in Python they may be given as paths."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a user may ask of a search; None is the default that fits the data.

    Attributes:
        space: a name from the catalog, or a path.
        refine: a study, instead of a space: around what its front carries, layer by layer.
        data: `digits`, or a path; None is digits, or what the refined study has.
        preset: `quick`, `standard` or `thorough`: how much is trained, where no epochs or sizes are given.
        weights: a checkpoint that the stock model's training starts from.
        base_epochs: of the stock model's training, from whose end every candidate starts; 0 is none, and candidates
            start from `weights` themselves.
        from_scratch: every candidate starts from random weights.
        precision: `fp32` or `bf16`: what a training computes in; None is bf16 on a GPU that has it.
        latency: the name of a device whose recorded table predicts latencies.
        cache: whether trainings that other studies have paid for are taken from them.
        objectives: which scores span the front.
        eta: one of so many trainings goes on at each rung; None stops none.
        first_rung: the epoch after which trainings are first judged.
        seeds: with how many whoever stands on the front is trained.
        max_gflops: and its like: ceilings on the deployed candidate.
    """

    space: str = "v9"
    scale: str | None = None
    refine: str | None = None
    data: str | None = None
    preset: str | None = None
    weights: Path | None = None
    base_epochs: int | None = None
    from_scratch: bool = False
    study: str | None = None
    trials: int | None = None
    timeout: float | None = None
    trial_timeout: float | None = None
    trial_memory: int | None = None
    epochs: int | None = None
    image_size: int | None = None
    deploy_size: int | None = None
    batch: int | None = None
    precision: Precision | None = None
    seed: int = 0
    workers: int | None = None
    device: str | None = None
    cache: bool = True
    objectives: tuple[str, ...] = ("map50_95", "gflops")
    reward: Reward | None = None
    sampler: Sampler = Sampler.OURS
    eta: int | None = None
    first_rung: int | None = None
    seeds: int = 1
    target_gflops: float | None = None
    latency: str | None = None
    target_latency: float | None = None
    max_gflops: float | None = None
    max_params: int | None = None
    max_latency: float | None = None
    storage: str | None = None
    runs: Path = RUNS

    def __post_init__(self) -> None:
        """Check every number and text by itself.

        Raises:
            SpecError: with all that make no sense.
        """
        mistakes = ranges.problems(vars(self))
        if isinstance(self.objectives, str) or not self.objectives:
            mistakes.append(
                f"objectives: input should be names of scores, got {self.objectives!r} (such as map50_95 and gflops)"
            )
        if mistakes:
            raise SpecError(mistakes)

    @classmethod
    def of(cls, **given: Any) -> Self:
        """Make a request of what a user's program gives by name.

        Raises:
            SpecError: a name that is none, with the one that is meant; a number or text that makes no sense.
        """
        names = [one.name for one in fields(cls)]
        mistakes = [
            f"{name}: nas.search has no such argument, got {ranges.shown(value)} ({_hint(name, names)})"
            for name, value in given.items()
            if name not in names
        ]
        mistakes += [
            f"{name}: a path is expected, got {ranges.shown(value)}"
            for name, value in given.items()
            if name in _PATHS + _NAMES and value is not None and not isinstance(value, str | os.PathLike)
        ]
        if mistakes:
            raise SpecError(mistakes)
        paths = {name: Path(given[name]) for name in _PATHS if given.get(name) is not None}
        texts = {name: os.fspath(given[name]) for name in _NAMES if given.get(name) is not None}
        return cls(**{**given, **paths, **texts})

    @property
    def _is_demonstration(self) -> bool:
        """Whether the data are the built-in ones, which few epochs of small images suffice for."""
        return self.data_named == DIGITS

    @property
    def data_named(self) -> str:
        """The data that is meant."""
        return DIGITS if self.data is None else self.data

    def preset_named(self) -> tuple[str, Preset]:
        """How much is trained.

        Raises:
            SpecError: no such preset.
        """
        name = self.preset or ("quick" if self._is_demonstration else "standard")
        if name not in PRESETS:
            raise SpecError(f"preset: no preset {name!r} ({nearest(name, PRESETS)})")
        return name, PRESETS[name]

    def base(self, space: SearchSpace, data: DataSet, device: str) -> Budget | None:
        """What the stock model gets, before every candidate starts from it.

        Raises:
            SpecError: with every number that is none; `from_scratch` together with what it rules out.
        """
        _, preset = self.preset_named()
        if self.from_scratch and (self.weights or self.base_epochs):
            given = "weights" if self.weights else "base-epochs"
            raise SpecError(f"from-scratch: candidates with random weights start from nothing, but {given} was given")
        if self.from_scratch or self.base_epochs == 0:
            return None
        begun = self.weights is not None
        epochs = _given(self.base_epochs, preset.base_epochs)
        numbers = {"epochs": epochs, "weights": self._checkpoint()}
        return self._budget(space, data, device, numbers, self._recipe(inherited=begun))

    def budget(self, space: SearchSpace, data: DataSet, device: str) -> Budget:
        """What a candidate gets, on one device; where the stock model is trained before, its weights are not named yet.

        Raises:
            SpecError: with every number that is none.
        """
        _, preset = self.preset_named()
        based = self.base(space, data, device) is not None
        inherits = based or self.weights is not None
        epochs = _given(self.epochs, preset.epochs if inherits else preset.scratch_epochs)
        stopping = self.stopping()
        numbers = {
            "epochs": epochs,
            "weights": None if based else self._checkpoint(),
            "timeout": self.trial_timeout,
            "rungs": stopping.rungs(epochs) if stopping else (),
        }
        if self.first_rung is not None and not numbers["rungs"]:
            told = f"first-rung: input should be less than the epochs of a trial, got {self.first_rung}"
            raise SpecError(f"{told} (trainings have {epochs})")
        return self._budget(space, data, device, numbers, self._recipe(inherited=inherits))

    def stopping(self) -> Stopping | None:
        """When trainings are judged before their end.

        Raises:
            SpecError: a number that is none; a rung without a rule.
        """
        if self.eta is None:
            if self.first_rung is not None:
                raise SpecError("first-rung: trainings are judged by --eta, which was not given (such as --eta 3)")
            return None
        numbers = {"eta": self.eta} | ({} if self.first_rung is None else {"first": self.first_rung})
        return validated(Stopping, numbers)

    def _budget(
        self, space: SearchSpace, data: DataSet, device: str, numbers: dict[str, Any], recipe: Recipe
    ) -> Budget:
        _, preset = self.preset_named()
        common = {
            "data": data.path,
            "image_size": _given(self.image_size, preset.image_size),
            "deploy_size": self._deploy_size(space),
            "batch": _given(self.batch, 8),
            "seed": self.seed,
            "recipe": recipe.model_copy(update={"pgi": space.pgi}),
            "device": device,
            "precision": self._precision(device),
        }
        budget = validated(Budget, common | numbers)
        _require_stride(space, {"image-size": budget.image_size, "deploy-size": budget.deploy_size})
        return budget

    def _precision(self, device: str) -> Precision:
        """What a training computes in.

        Raises:
            SpecError: the device only emulates it.
        """
        if self.precision == "bf16" and not computes_bf16(device):
            raise SpecError(
                f"precision: the device {device} does not compute in bfloat16, and emulates it slowly (fp32)"
            )
        return self.precision or ("bf16" if device != CPU and computes_bf16(device) else "fp32")

    def _recipe(self, *, inherited: bool) -> Recipe:
        if self._is_demonstration:
            return presets.DIGITS_INHERITED if inherited else presets.DIGITS_SCRATCH
        return presets.INHERITED if inherited else presets.SCRATCH

    def _checkpoint(self) -> Path | None:
        return self.weights.absolute() if self.weights else None

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
        trials = _given(self.trials, 10 if self._is_demonstration else 30)
        numbers = {"trials": trials, "timeout": self.timeout, "workers": workers, "device": device}
        return validated(Run, {**numbers, "trial_memory": self.trial_memory, "cache": self.cache})

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
        return own or _given(self.deploy_size, 640)

    def devices(self) -> tuple[str, int]:
        """The devices to work on, and how many processes.

        Raises:
            EnvironmentProblem: a GPU that is not there.
            SpecError: neither `cpu` nor indices, or more workers on the CPU than cores.
        """
        count = torch.cuda.device_count()
        device = _given(self.device, "0" if count else "cpu")
        if device == "cpu":
            workers = _given(self.workers, min(machine.cores(), 4))
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
        return device, _given(self.workers, len(indices))


def _require_stride(space: SearchSpace, sizes: Mapping[str, int]) -> None:
    """Refuse images that maps of different strides cannot be joined on.

    Raises:
        SpecError: with every such size.
    """
    stride = base.load(space.base, space.scale).stride
    mistakes = [
        f"{flag}: input should be a multiple of {stride}, the stride of {space.base}, got {size} "
        f"({' or '.join(str(near) for near in (size // stride * stride, (size // stride + 1) * stride) if near)})"
        for flag, size in sizes.items()
        if size % stride
    ]
    if mistakes:
        raise SpecError(list(dict.fromkeys(mistakes)))


def require_writable(runs: Path) -> None:
    """Refuse a folder of studies that cannot be made or written to; nothing is written.

    Raises:
        EnvironmentProblem: it cannot be.
    """
    there = next(folder for folder in (runs.absolute(), *runs.absolute().parents) if os.path.lexists(folder))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise EnvironmentProblem(f"{runs}: cannot be written to ({there}); choose another --runs")


def _given(value: Value | None, default: Value) -> Value:
    return default if value is None else value


def _hint(name: str, names: Collection[str]) -> str:
    """The argument that is meant by a name."""
    found = "space" if name == "model" else spelling.meant(name, names)
    return f"did you mean {found!r}?" if found else "help(nas.search) lists them"


def validated(model: type[Model], fields: dict[str, Any]) -> Model:
    """A pydantic model, or all mistakes as ours, under the flags' names.

    Raises:
        SpecError: with every mistake.
    """
    numbers = {_FLAGS.get(field, field): value for field, value in fields.items()}
    counted = numbers.keys() & ranges.RANGES.keys() - {"classes"}  # those of settings are names
    outside = ranges.problems({name: value for name, value in numbers.items() if name in counted})
    if outside:
        raise SpecError(outside)
    try:
        return model(**fields)
    except ValidationError as error:
        raise SpecError([_told(model, problem) for problem in error.errors()]) from None


def _told(model: type[BaseModel], problem: Mapping[str, Any]) -> str:
    """One mistake that pydantic has found."""
    field, what, got = str(problem["loc"][0]), problem["msg"], ranges.shown(problem["input"])
    if problem["type"] == "extra_forbidden":
        return f"{field}: no such argument, got {got} ({_hint(field, model.model_fields)})"
    return f"{ranges.flag(_FLAGS.get(field, field))}: {what[0].lower()}{what[1:]}, got {got}"


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
