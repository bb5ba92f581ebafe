"""Settings of a study and of one run of it: validated, stored in `study.json`, compared when a study is resumed."""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, field_validator
from pydantic_core import PydanticCustomError

from nas.algorithms.pareto import OBJECTIVES, Direction
from nas.algorithms.rewards import Reward, reward
from nas.algorithms.successive_halving import Stopping
from nas.defaults import MARGIN
from search_spaces.errors import nearest
from trials import Budget, Limits, recipes
from trials.budget import Subset

PlainName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""Name that becomes part of a path: of a study, of a member or of a released file. It leads nowhere else."""


class FrozenModel(BaseModel):
    """Pydantic model whose fields are fixed: no unknown field, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Sampler(StrEnum):
    """Sampler: our EHVI sampler, Optuna's multivariate TPE, NSGA-II or GP, or random search."""

    OURS = "ours"
    TPE = "tpe"
    NSGA2 = "nsga2"
    GP = "gp"
    RANDOM = "random"


class SealedImages(FrozenModel):
    """Images of the data set that no training of a study reads; its `holdout.json` lists them.

    Attributes:
        share: of all images that was asked for.
        images: their number.
        fingerprint: of their names, file sizes and labels.
    """

    share: StrictFloat
    images: StrictInt
    fingerprint: str


class Judging(FrozenModel):
    """Images by which a confirmation judges.

    Attributes:
        source: `test` of the data.yaml or `holdout`, sealed before the search, neither of which the search has read;
            or `val`, by which it has chosen.
        images: their number.
        fingerprint: of their names, sizes and labels.
    """

    source: Literal["test", "holdout", "val"]
    images: Annotated[StrictInt, Field(ge=1)]
    fingerprint: str

    @property
    def is_unseen(self) -> bool:
        """Whether the search has not read these images."""
        return self.source != "val"


class Pretrained(FrozenModel):
    """Checkpoint of Ultralytics from which the first training of a study starts.

    Attributes:
        name: under which it is released.
        digest: SHA-256 of the file.
        classes: number that its model tells apart.
        trained_on: name of the data file in its training's settings; empty where they are missing.
    """

    name: str
    digest: str
    classes: StrictInt
    trained_on: str = ""


class MemberWeights(Pretrained):
    """Checkpoint of Ultralytics from which the first training of one of several members starts.

    Attributes:
        member: name of that member.
        path: of the file.
    """

    member: PlainName
    path: Path


class Settings(FrozenModel):
    """Settings that all trials of a study share; another value of any of them needs another study.

    Attributes:
        space: name of the space, whose file is copied into the study.
        members: names of the spaces that are joined in it; empty where it is a single one.
        stock_only: whether only their stock models are trained.
        data: as requested, `digits` or a path; the budgets have the resolved path.
        data_fingerprint: of the images that are trained on and validated on: without the sealed ones, of the subset.
        preset: name of the requested amount of training.
        base: budget of the stock model, whose weights initialise every candidate; None if candidates start from the
            weights of `budget`, or from random ones.
        budget: of every candidate.
        latency: device whose table predicts latencies; None if they are measured, where they matter.
        reward: scalar to maximise instead of several objectives.
        stopping: rule by which trainings are pruned at rungs; None trains every candidate for its whole budget.
        seeds: number of seeds with which each member of the Pareto front is trained.
        confirms: study whose front this one trains again, longer or with fresh seeds, without proposing architectures;
            None for a search.
        holdout: images that are sealed; None if the search reads all images of `train` and `val`.
        subset: images that are read of the data set, chosen by class; None reads all.
        judging: images by which a confirmation judges, whose matches its trainings store; None for those that the
            search chose by, without matches: that is how earlier versions began one.
        pretrained: released checkpoint from which the first training starts; None for one that was named by its path,
            and for random weights.
        member_weights: those of several members, each of its own.
    """

    space: str
    scale: str
    space_hash: str
    data: str
    data_fingerprint: str
    classes: tuple[str, ...]
    members: tuple[PlainName, ...] = ()
    stock_only: bool = False
    preset: str = "standard"
    base: Budget | None = None
    budget: Budget
    objectives: Annotated[tuple[str, ...], Field(min_length=1)] = ("map50_95", "gflops")
    reward: Reward | None = None
    sampler: Sampler = Sampler.OURS
    stopping: Stopping | None = None
    seeds: Annotated[StrictInt, Field(ge=1)] = 1
    confirms: PlainName | None = None
    holdout: SealedImages | None = None
    subset: Subset | None = None
    judging: Judging | None = None
    pretrained: Pretrained | None = None
    member_weights: tuple[MemberWeights, ...] = ()
    target_gflops: Annotated[StrictFloat, Field(gt=0)] | None = None
    latency: str | None = None
    target_latency: Annotated[StrictFloat, Field(gt=0)] | None = None
    limits: Limits = Limits()

    @field_validator("objectives")
    @classmethod
    def _valid(cls, objectives: tuple[str, ...]) -> tuple[str, ...]:
        for name in objectives:
            if name not in OBJECTIVES:
                message = f"{name!r} ({nearest(name, OBJECTIVES)})"
                raise PydanticCustomError("objective", "{message}", {"message": message})
        if len(set(objectives)) < len(objectives):
            raise PydanticCustomError("objective", "an objective is listed twice")
        return objectives

    @property
    def targets(self) -> dict[str, float]:
        """Targets by cost, for the reward."""
        targets = {"gflops": self.target_gflops, "latency_ms": self.target_latency}
        return {name: target for name, target in targets.items() if target is not None}

    @property
    def needs_latency(self) -> bool:
        """Whether a limit, an objective or the reward needs latencies."""
        return bool(self.limits.latency_ms or self.target_latency or "latency_ms" in self.objectives)

    @property
    def predicted_costs(self) -> list[str]:
        """Cost objectives that are counted or predicted before training; GFLOPs stand for a latency to be measured."""
        costs = [name for name in self.objectives if OBJECTIVES[name] is Direction.MINIMIZE]
        predicted = costs if self.latency else ["gflops" if name == "latency_ms" else name for name in costs]
        return list(dict.fromkeys(predicted))

    @property
    def proposes(self) -> bool:
        """Whether architectures are proposed, so that there is a ranking of candidates, and effects of operators."""
        return self.confirms is None and not self.stock_only

    @property
    def inherits(self) -> bool:
        """Whether candidates start from trained weights."""
        return self.base is not None or self.budget.weights is not None or bool(self.member_weights)

    def starting_at(self, budget: Budget, member: str) -> Budget:
        """Return a budget with the checkpoint from which the first training of a member starts, if it has its own."""
        own = next((one.path for one in self.member_weights if one.member == member), budget.weights)
        return budget.model_copy(update={"weights": own})

    def with_member_weights_in(self, folder: Path) -> "Settings":
        """Return the settings with the members' checkpoints in another folder."""
        moved = tuple(one.model_copy(update={"path": folder / one.name}) for one in self.member_weights)
        return self.model_copy(update={"member_weights": moved})

    @property
    def stock_noise(self) -> float:
        """Typical standard deviation of mAP50-95 between trainings of one stock model; assumed to be that from scratch.

        That of trainings from released weights was not measured.
        """
        return recipes.NOISE_SCRATCH

    @property
    def noise(self) -> float:
        """Typical standard deviation of mAP50-95 between trainings of one architecture."""
        return recipes.NOISE_INHERITED if self.inherits else recipes.NOISE_SCRATCH

    def rewarded(self, accuracy: float, figures: Mapping[str, float]) -> float:
        """Return the reward of a model; a target whose figure is missing is ignored."""
        if self.reward is None:
            raise ValueError("this study has no reward: its objectives span a front")
        return reward(self.reward, accuracy, [(figures[n], t) for n, t in self.targets.items() if n in figures])

    def objective_values(self, fields: Mapping[str, Any]) -> list[float]:
        """Return the values of the objectives, or the one reward, of a finished training's stored outcome."""
        if self.reward is None:
            return [float(fields[name]) for name in self.objectives]
        figures = {name: float(fields[name]) for name in self.targets}
        return [self.rewarded(float(fields["map50_95"]), figures)]

    def differences(self, other: "Settings") -> list[str]:
        """Return one line for each setting that differs: `budget.epochs: 5 there, 6 here`.

        A released checkpoint is the same one in another folder.
        """
        there, here = _comparable(self), _comparable(other)
        return [
            f"{name}: {there.get(name)} there, {here.get(name)} here"
            for name in there | here
            if there.get(name) != here.get(name)
        ]

    def flat(self) -> dict[str, str]:
        """Return all settings as texts by dotted names, such as `budget.epochs`."""
        return {name: str(value) for name, value in _flat(self).items()}


def _comparable(settings: Settings) -> dict[str, Any]:
    """Return all settings by dotted names, with the name of a released checkpoint instead of its path."""
    found, pretrained = _flat(settings), settings.pretrained
    for name in ("base.weights", "budget.weights"):
        if pretrained is not None and Path(found.get(name) or "").name == pretrained.name:
            found[name] = pretrained.name
    return found


def _flat(settings: Settings) -> dict[str, Any]:
    """Return all settings by dotted names; of the members' checkpoints their names and contents, not their places."""
    found = dict(flatten(settings.model_dump(mode="json", exclude={"member_weights"})))
    return found | {f"weights.{one.member}": f"{one.name} {one.digest[:12]}" for one in settings.member_weights}


class RunSettings(FrozenModel):
    """Settings of a run of a study; they may change whenever it is resumed.

    Attributes:
        trials: number of trials of the study, those of earlier runs included.
        timeout: seconds after which no further trial begins.
        workers: number of processes; on GPUs one per device.
        device: `cpu`, or indices of GPUs, `0` or `0,1`.
        cache: whether scores of equal trainings in other studies are reused.
        trial_memory: bytes of main memory that a worker may allocate for its trials; None is its share of what is free.
        earlier: number of trials that had ended before this run; the circuit breaker ignores them.
        looks: of a confirmation or an ablation: the number of seeds at which a verdict is due, and those at which one
            was due before seeds or finalists were added.
        margin: of a confirmation or an ablation: points of mAP50-95 within which differences do not matter; None
            stands for the default.
        system_metrics: whether MLflow gets the load of the machine.
    """

    trials: Annotated[StrictInt, Field(ge=1)] = 10
    timeout: Annotated[StrictFloat, Field(gt=0)] | None = None
    workers: Annotated[StrictInt, Field(ge=1)] = 1
    device: str = "cpu"
    cache: bool = True
    trial_memory: Annotated[StrictInt, Field(ge=1)] | None = None
    earlier: Annotated[StrictInt, Field(ge=0)] = 0
    looks: tuple[StrictInt, ...] = ()
    margin: Annotated[StrictFloat, Field(gt=0)] | None = None
    system_metrics: bool = False

    @property
    def margin_or_default(self) -> float:
        """Points of mAP50-95 within which differences do not matter."""
        return self.margin or MARGIN


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings with dotted names, such as `budget.epochs`; lists as text."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flatten(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, ", ".join(map(str, value)) if isinstance(value, list) else value
