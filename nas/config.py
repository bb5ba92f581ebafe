"""Everything that one study is: validated, saved with it, compared when it is asked for again."""

import json
import os
import re
import shlex
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, field_validator
from pydantic_core import PydanticCustomError

from nas import RUNS, addresses
from nas.front import OBJECTIVES, Direction
from nas.rewards import Reward, reward
from nas.stopping import Stopping
from search_spaces.errors import EnvironmentProblem, SpecError, StudyError, nearest
from search_spaces.files import write_aside
from trials import Budget, Limits, presets
from trials.datasets import DIGITS, cache_folder

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DATABASE, _TRACKING_FILE = "study.db", "mlflow.db"
_SCENES = "digit_scenes"
"""How the folder of the built-in data begins."""


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Sampler(StrEnum):
    """Who proposes architectures: ours, Optuna's multivariate TPE, NSGA-II or GP, or nobody, for comparison."""

    OURS = "ours"
    TPE = "tpe"
    NSGA2 = "nsga2"
    GP = "gp"
    RANDOM = "random"


class Settings(_Frozen):
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


class Run(_Frozen):
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


class Identity(_Frozen):
    """Which study a folder is, and by what a copy of the folder is told from it.

    Attributes:
        study_id: also in Optuna's study and in MLflow's runs, so that nobody goes on with those of another study.
        folder: where the study lay when it was last worked on; absolute.
        inode: of that folder: a folder that was moved keeps it, a copy has another. 0 is unknown.
        host: the machine on which it was.
        was: its id until now, while a copy becomes a study of its own; empty otherwise.
    """

    study_id: str
    folder: Path
    inode: StrictInt
    host: str
    was: str = ""

    @classmethod
    def of(cls, folder: Path, *, study_id: str = "", was: str = "") -> Self:
        """Return the identity of a study in a folder that is there; a new one if no id is given."""
        return cls(
            study_id=study_id or uuid.uuid4().hex,
            folder=folder,
            inode=folder.stat().st_ino,
            host=socket.gethostname(),
            was=was,
        )


class StudyFile(_Frozen):
    """`study.json`, the file that makes a folder a study.

    On disk, addresses and paths in the study's folder, or in the folder of all studies around it, are relative to the
    study's, so that it can be moved and copied; no password is written. Here they are absolute.

    Attributes:
        name: of Optuna's study: the folder's own, until somebody renames it.
        storage: Optuna's address of it.
        tracking: MLflow's address of it.
        version: of this package, when the study was created.
        identity: without an id in a study of an earlier version that was not worked on since; None in one that is
            still to be made.
    """

    name: str
    settings: Settings
    run: Run
    storage: str
    tracking: str
    version: str
    identity: Identity | None = None

    def write(self, folder: Path) -> None:
        """Save it in a study's folder."""
        fields = self.model_dump(mode="json")
        fields["storage"] = addresses.stored(self.storage, folder)
        fields["tracking"] = addresses.stored(self.tracking, folder)
        fields["settings"] |= _with_paths(fields["settings"], lambda path: addresses.relative(path, folder))
        write_aside(folder / "study.json", json.dumps(fields, indent=1))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read it from a study's folder, with absolute addresses.

        Raises:
            StudyError: no study there, or one of another version's making.
        """
        path, folder = folder / "study.json", folder.absolute()
        try:
            file = cls.model_validate(json.loads(path.read_text(encoding="utf-8")))
            return file.opened(folder) if file.identity else file.opened_from_before(folder)
        except FileNotFoundError:
            raise StudyError(f"{folder}: no study there (study.json is missing)") from None
        except (ValueError, RecursionError) as error:
            raise StudyError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
        except OSError as error:
            raise StudyError(f"{path}: cannot be read: {error.strerror or error}") from None

    def opened(self, folder: Path) -> Self:
        """Return it with absolute addresses."""
        home = self.identity.folder if self.identity else folder
        return self.model_copy(
            update={
                "storage": addresses.opened(self.storage, folder, addresses.STORAGE),
                "tracking": addresses.opened(self.tracking, folder, addresses.TRACKING),
                "settings": self._settings_opened(lambda path: _absolute(path, folder, home)),
            }
        )

    def opened_from_before(self, folder: Path) -> Self:
        """Return one of an earlier version, which holds absolute addresses alone, as it means them where it lies now.

        Its database lay in its folder, and MLflow's beside that: either tells where the study lay.
        """
        database, tracking = Path(self.storage.removeprefix("sqlite:///")), addresses.file_of(self.tracking)
        own = database.is_absolute() and database.parts[-2:] == (self.name, _DATABASE)
        if own:
            home = database.parent
        else:
            home = tracking.parent / self.name if tracking and tracking.name == _TRACKING_FILE else folder

        def moved(path: Path) -> str:
            return _absolute(Path(addresses.relative(path, home)) if own else path, folder, home)

        if own and tracking is not None and tracking.is_relative_to(home.parent):
            tracking = Path(addresses.absolute(Path(addresses.relative(tracking, home)), folder))
        return self.model_copy(
            update={
                # A relative one was the user's, and of the folder that the command stood in.
                "storage": own_storage(folder)
                if own
                else addresses.opened(self.storage, Path.cwd(), addresses.STORAGE),
                "tracking": addresses.sqlite(tracking.absolute()) if tracking else self.tracking,
                "settings": self._settings_opened(moved),
                "identity": Identity(study_id="", folder=home, inode=0, host=""),
            }
        )

    def _settings_opened(self, opened: Callable[[Path], str]) -> Settings:
        fields = self.settings.model_dump(mode="json")
        if fields["data"] == DIGITS:
            for budget in filter(None, (fields["budget"], fields["base"])):
                budget["data"] = str(_built_in(Path(budget["data"])))
        return Settings.model_validate_json(json.dumps(fields | _with_paths(fields, opened)))


def _with_paths(settings: dict[str, Any], changed: Callable[[Path], str]) -> dict[str, Any]:
    """Return those of a study's settings that hold paths, with the paths changed."""
    data = settings["data"]
    fields: dict[str, Any] = {"data": data if data == DIGITS else changed(Path(data))}
    for name in ("budget", "base"):
        budget = settings[name]
        fields[name] = budget and {
            **budget,
            "data": changed(Path(budget["data"])),
            "weights": budget["weights"] and changed(Path(budget["weights"])),
        }
    return fields


def _built_in(data: Path) -> Path:
    """Return where the built-in data lie now: the cache is another one for another user, or on another machine."""
    scenes = data.parent.name
    return cache_folder().absolute() / scenes / data.name if scenes.startswith(f"{_SCENES}-") else data


def _absolute(path: Path, folder: Path, home: Path) -> str:
    """Return a path of a study's file as it is meant; without its neighbours, a moved study finds them still."""
    here, there = (addresses.absolute(path, base) for base in (folder, home))
    return there if not Path(here).exists() and Path(there).exists() else here


def tracking_uri(runs: Path) -> str:
    """Where MLflow keeps studies: `MLFLOW_TRACKING_URI` if the user has set it, else a SQLite file under `runs`."""
    return os.environ.get(addresses.TRACKING) or addresses.sqlite(runs.absolute() / _TRACKING_FILE)


def study_folder(name: str, runs: Path = RUNS) -> Path:
    """The folder of a study by its name.

    Raises:
        SpecError: a name that is no file name, or would lead out of the folder of all studies.
    """
    if not _NAME.fullmatch(name):
        raise SpecError(f"study: letters, digits, '.', '_' and '-' make a name, got {name!r} (such as v9t-digits)")
    return (runs / name).absolute()


def own_storage(folder: Path) -> str:
    """Optuna's storage in a file of the study's own."""
    return addresses.sqlite(folder / _DATABASE)


def storage_file(url: str) -> Path | None:
    """The file of a storage, if it is one."""
    return addresses.file_of(url)


def existing(name: str, runs: Path = RUNS) -> Path:
    """The folder of a study that is there.

    Raises:
        SpecError: no such study.
    """
    folder = study_folder(name, runs)
    if not (folder / "study.json").is_file():
        known = studies(runs)
        hint = nearest(name, known) if known else "there are none yet; `nas search` makes one"
        raise SpecError(f"study: no study {name!r} in {runs} ({hint})")
    return folder


def runs_option(runs: Path) -> str:
    """Return what a command needs behind it to find the studies of a folder; empty for the default one."""
    return "" if runs.absolute() == RUNS.absolute() else f" --runs {shlex.quote(str(runs))}"


def studies(runs: Path = RUNS) -> list[str]:
    """The names of all studies, the newest first."""
    files = sorted(runs.glob("*/study.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [path.parent.name for path in files]


def make_folder(folder: Path) -> None:
    """Make a folder that can be written to.

    Raises:
        EnvironmentProblem: it cannot be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise EnvironmentProblem(f"{folder}: cannot be written to ({error.strerror}); choose another --runs") from None


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, ", ".join(map(str, value)) if isinstance(value, list) else value
