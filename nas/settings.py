"""Settings of a study and of one run of it: validated, saved in `study.json`, compared when it is asked for again."""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, field_validator
from pydantic_core import PydanticCustomError

from nas.algorithms.pareto import OBJECTIVES, Direction
from nas.algorithms.rewards import Reward, reward
from nas.algorithms.successive_halving import Stopping
from search_spaces.errors import nearest
from trials import Budget, Limits, presets


class FrozenModel(BaseModel):
    """Pydantic model whose fields are fixed: no unknown field, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Sampler(StrEnum):
    """Who proposes architectures: ours, Optuna's multivariate TPE, NSGA-II or GP, or nobody, for comparison."""

    OURS = "ours"
    TPE = "tpe"
    NSGA2 = "nsga2"
    GP = "gp"
    RANDOM = "random"


class Settings(FrozenModel):
    """What two trials of a study must have in common; changing any of it makes another study.

    Attributes:
        space: the space's name; the study keeps its own copy of the file.
        data: as it was asked for, `digits` or a path; the budgets hold the resolved one.
        preset: the amount of training that was asked for.
        base: how the stock model is trained, once, before every candidate starts from it; None if they start from the
            budget's own weights, or from random ones.
        budget: of every candidate.
        latency: the device whose table predicts latencies; None if they are measured, where they count.
        reward: one scalar to maximise in the place of several objectives.
        sampler: who proposes.
        stopping: when a training is judged before its end; None trains every one for its whole budget.
        seeds: with how many whoever stands on the front is trained, before its place is believed.
        confirms: the study whose front this one trains longer, proposing nothing itself; None for a search.
    """

    space: str
    scale: str
    space_hash: str
    data: str
    data_fingerprint: str
    classes: tuple[str, ...]
    preset: str = "standard"
    base: Budget | None = None
    budget: Budget
    objectives: Annotated[tuple[str, ...], Field(min_length=1)] = ("map50_95", "gflops")
    reward: Reward | None = None
    sampler: Sampler = Sampler.OURS
    stopping: Stopping | None = None
    seeds: Annotated[StrictInt, Field(ge=1)] = 1
    confirms: str | None = None
    target_gflops: Annotated[StrictFloat, Field(gt=0)] | None = None
    latency: str | None = None
    target_latency: Annotated[StrictFloat, Field(gt=0)] | None = None
    limits: Limits = Limits()

    @field_validator("objectives")
    @classmethod
    def _known(cls, objectives: tuple[str, ...]) -> tuple[str, ...]:
        for name in objectives:
            if name not in OBJECTIVES:
                raise PydanticCustomError("objective", "{told}", {"told": f"{name!r} ({nearest(name, OBJECTIVES)})"})
        if len(set(objectives)) < len(objectives):
            raise PydanticCustomError("objective", "an objective stands twice")
        return objectives

    @property
    def targets(self) -> dict[str, float]:
        """The costs that a reward compares, with their targets."""
        given = {"gflops": self.target_gflops, "latency_ms": self.target_latency}
        return {name: target for name, target in given.items() if target is not None}

    @property
    def needs_latency(self) -> bool:
        """Whether a limit, an objective or a reward asks for it."""
        return bool(self.limits.latency_ms or self.target_latency or "latency_ms" in self.objectives)

    @property
    def known_costs(self) -> list[str]:
        """Those objectives that are known before a training.

        A latency that only a measurement tells is taken to go with GFLOPs until then.
        """
        costs = [name for name in self.objectives if OBJECTIVES[name] is Direction.MINIMIZE]
        known = costs if self.latency else ["gflops" if name == "latency_ms" else name for name in costs]
        return list(dict.fromkeys(known))

    @property
    def inherits(self) -> bool:
        """Whether candidates start from weights that were trained before."""
        return self.base is not None or self.budget.weights is not None

    @property
    def noise(self) -> float:
        """About how far mAP50-95 deviates between two trainings of one architecture."""
        return presets.NOISE_INHERITED if self.inherits else presets.NOISE_SCRATCH

    def rewarded(self, accuracy: float, figures: Mapping[str, float]) -> float:
        """The reward of a model with these figures; a target whose figure is not among them asks for nothing."""
        if self.reward is None:
            raise ValueError("this study has no reward: its objectives span a front")
        return reward(self.reward, accuracy, [(figures[n], t) for n, t in self.targets.items() if n in figures])

    def differences(self, other: "Settings") -> list[str]:
        """One line for each setting that differs: `budget.epochs: 5 there, 6 here`."""
        there, here = dict(_flat(self.model_dump(mode="json"))), dict(_flat(other.model_dump(mode="json")))
        return [
            f"{name}: {there.get(name)} there, {here.get(name)} here"
            for name in there | here
            if there.get(name) != here.get(name)
        ]

    def flat(self) -> dict[str, str]:
        """Dotted names and texts, for MLflow and for people."""
        return {name: str(value) for name, value in _flat(self.model_dump(mode="json"))}


class Run(FrozenModel):
    """How far and with what a study is run; may change whenever it is resumed.

    Attributes:
        trials: to be counted in all, those of earlier runs among them.
        timeout: seconds after which no further trial begins.
        workers: processes; on a GPU one per device.
        device: `cpu`, or indices of GPUs, `0` or `0,1`.
        cache: whether trainings that other studies have paid for are taken from them.
        trial_memory: bytes of the host's that a worker may allocate for its trials; None is its share of what is free.
        earlier: how many trials had ended before this run: failures among those do not stop it.
    """

    trials: Annotated[StrictInt, Field(ge=1)] = 10
    timeout: Annotated[StrictFloat, Field(gt=0)] | None = None
    workers: Annotated[StrictInt, Field(ge=1)] = 1
    device: str = "cpu"
    cache: bool = True
    trial_memory: Annotated[StrictInt, Field(ge=1)] | None = None
    earlier: Annotated[StrictInt, Field(ge=0)] = 0


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, ", ".join(map(str, value)) if isinstance(value, list) else value
