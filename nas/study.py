"""A study: an Optuna study and the folder that everything of it lies in."""

import json
import random
import sqlite3
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from nas import latencies
from nas.attributes import DETAIL, FINGERPRINT, REPEAT, ROLE, RUNG
from nas.base_training import BaseTraining
from nas.config import Run, StudyFile, make_folder
from nas.export import Exported, chosen, export
from nas.feasible import Feasible
from nas.front import OBJECTIVES, Direction, Point, up_and_down
from nas.fuse import reason_to_stop
from nas.locks import Lock
from nas.racing import next_repeat
from nas.record_file import RecordFile
from nas.records import Record, TrialFiles, averaged, front_of, write_aside
from nas.sampler import GainSampler, Gate, sampler_of
from nas.score_cache import ScoreCache, begun_from, key
from nas.stopping import goes_on
from search_spaces import Architecture, SearchSpace, space_file
from search_spaces.errors import EnvironmentProblem, StudyError
from trials import Budget, Ending, Limits, Outcome, cost, datasets, timings
from trials.cost import CostTable
from trials.datasets import DataSet
from trials.evaluation import over
from trials.latency_table import LatencyTable
from trials.scores import Costs, Epoch
from trials.timings import Timings

optuna.logging.set_verbosity(optuna.logging.WARNING)  # trials are told by us, in our words

COUNTED = frozenset(ending.name.lower() for ending in Ending if ending not in {Ending.OVER_LIMIT, Ending.BROKEN})
"""The endings that count towards a study's number of trials."""

_KNOWN_BEFORE = (FINGERPRINT, ROLE, DETAIL, REPEAT)
_HEARTBEAT_SECONDS, _GRACE_SECONDS = 60, 300
_COSTLIEST_DRAWS = 100
_KEPT_WEIGHTS = 3
_TRIALS = text("SELECT trial_id, number FROM trials WHERE study_id = :study")
_ONE_BY_ONE = 100
"""So many trials are read sooner one by one than all of a long study."""


class Study:
    """A study that exists.

    Attributes:
        folder: absolute; `study.json`, `space.yaml`, `study.db`, `trials/`, `workers/`.
        file: what `study.json` says.
    """

    def __init__(self, folder: Path, file: StudyFile) -> None:
        self.folder, self.file = folder, file
        self.settings = file.settings
        self.name = file.name
        self._file = RecordFile(folder / "records.jsonl")
        self._tidied: set[int] = set()

    @classmethod
    def create(cls, folder: Path, file: StudyFile, space_text: str, latency: Timings | None = None) -> "Study":
        """Make the folder and the Optuna study of it.

        Args:
            latency: a device's table, of which the study gets a copy.

        Raises:
            EnvironmentProblem: the folder cannot be written to.
        """
        study = cls(folder, file)
        if study.database is None:
            _ = study.storage  # a server that cannot be reached is told before anything is written
        make_folder(folder)
        space_file.save(space_text, folder)
        if latency is not None:
            latency.write(folder / latencies.FILE)
        if study.database is not None:
            study.database.unlink(missing_ok=True)  # half of a study that was never finished being made
            study._file.delete()
            with sqlite3.connect(study.database) as database:
                database.execute("PRAGMA journal_mode=WAL")  # readers and a writer at once; stays in the file
        directions = [_optuna_direction(direction) for direction in study.directions]
        made = optuna.create_study(
            storage=study.storage, study_name=file.name, directions=directions, load_if_exists=True
        )
        space_hash = file.settings.space_hash
        if made.user_attrs.get("space_hash", space_hash) != space_hash:
            raise StudyError(f"{file.storage}: a study {file.name!r} of another space is there; choose another --study")
        made.set_user_attr("space_hash", space_hash)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # names of objectives, since Optuna 3.2
            made.set_metric_names(["reward"] if file.settings.reward else list(file.settings.objectives))
        if not made.get_trials(deepcopy=False):
            study.enqueue(study.space.stock, role="stock")
            start = () if file.settings.confirms else study.space.start
            named = {architecture.fingerprint: architecture for architecture in start}
            for fingerprint, architecture in named.items():
                if fingerprint != study.space.stock.fingerprint:
                    study.enqueue(architecture, role="start")
        file.write(folder)  # last: a folder with study.json is a study
        return study

    @classmethod
    def open(cls, folder: Path) -> "Study":
        """The study of a folder.

        Raises:
            StudyError: there is none.
        """
        return cls(folder, StudyFile.read(folder))

    # What the study is.

    @cached_property
    def space(self) -> SearchSpace:
        """The study's own copy of the space, at its scale; who only reads what has ended does without.

        Raises:
            StudyError: it says something else than when the study was created.
        """
        path, before = self.folder / "space.yaml", self.settings.space_hash
        space = space_file.load(path)
        if space.hash != before:
            raise StudyError(
                f"{path}: the space has changed since the study was created ({space.hash}, not {before}); "
                "begin another study for it"
            )
        return space

    @property
    def database(self) -> Path | None:
        """The storage's file, if it is one."""
        prefix = "sqlite:///"
        return Path(self.file.storage.removeprefix(prefix)) if self.file.storage.startswith(prefix) else None

    @cached_property
    def storage(self) -> RDBStorage:
        """Where Optuna keeps the study; one per process.

        Raises:
            EnvironmentProblem: it cannot be opened.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # heartbeats are called experimental since Optuna 2
            try:
                return RDBStorage(
                    self.file.storage,
                    engine_kwargs={"connect_args": {"timeout": 60}} if self.database else {"pool_pre_ping": True},
                    heartbeat_interval=_HEARTBEAT_SECONDS,
                    grace_period=_GRACE_SECONDS,
                )
            except (ImportError, SQLAlchemyError, OptunaError) as error:
                told = " ".join(str(error).split())
                raise EnvironmentProblem(f"storage: cannot be opened: {told}") from None

    @cached_property
    def optuna(self) -> optuna.Study:
        """Optuna's study, which proposes what is feasible and new."""
        return optuna.load_study(study_name=self.name, storage=self.storage, sampler=self.sampler)

    @cached_property
    def sampler(self) -> Gate:
        """Who proposes."""
        return sampler_of(self.settings, self.space, self.feasible, trials=self.file.run.trials)

    @cached_property
    def feasible(self) -> Feasible:
        """Which architectures are within the limits that are known before anything is built."""
        return Feasible(self.space, lambda: self.table, self.settings.limits, self.latency_table)

    @cached_property
    def table(self) -> CostTable:
        """The deployed cost of every architecture."""
        return cost.table(self.space, len(self.settings.classes), self.settings.budget.deploy_size)

    @cached_property
    def base(self) -> BaseTraining | None:
        """The stock model's own training, from whose end every candidate starts; None if they start elsewhere."""
        budget = self.settings.base
        if budget is None:
            return None
        return BaseTraining(folder=self.folder, stock=self.space.stock, budget=budget, cache=self.cache)

    @cached_property
    def cache(self) -> ScoreCache | None:
        """Trainings that other studies have paid for, if they may be taken."""
        return ScoreCache.of_user() if self.file.run.cache else None

    def recalled(self, architecture: Architecture, budget: Budget, limits: Limits, files: TrialFiles) -> Outcome | None:
        """How another study's training of an architecture ended, if it says all that this one asks for."""
        known = self.cache.read(self._key(architecture, budget)) if self.cache else None
        if known is None:
            return None
        costs = self.costs(architecture) or Costs(**known.costs)
        says_all = costs.latency_ms is not None or not self.settings.needs_latency
        return known.given(architecture, costs, files) if says_all and not over(costs, limits) else None

    def remember(self, outcome: Outcome, budget: Budget, files: TrialFiles) -> None:
        """Keep how a training ended for other studies."""
        if self.cache is not None:
            self.cache.remember(self._key(outcome.architecture, budget), outcome, files)

    def _key(self, architecture: Architecture, budget: Budget) -> str:
        return key(architecture, budget, self._data, self._begun)

    @cached_property
    def _data(self) -> DataSet:
        """Checked once: that reads every label."""
        return datasets.load(self.budget.data)

    @cached_property
    def _begun(self) -> str:
        return begun_from(self.budget.weights) if self.base is None else self.base.key

    @property
    def budget(self) -> Budget:
        """What every candidate gets, with the weights that it starts from."""
        budget = self.settings.budget
        return budget if self.base is None else budget.model_copy(update={"weights": self.base.weights})

    def budget_of(self, repeat: int) -> Budget:
        """What a candidate gets that was trained so many times before: the same, with another seed."""
        return self.budget.model_copy(update={"seed": self.budget.seed + repeat})

    def costs(self, architecture: Architecture) -> Costs | None:
        """What is known of an architecture before it is built; None if its latency counts, but must be measured."""
        predicted = self.latency_table.predict(architecture) if self.latency_table else None
        if self.settings.needs_latency and predicted is None:
            return None
        counted = self.table.cost(architecture)
        return Costs(params=counted.params, gflops=counted.gflops, latency_ms=predicted)

    @cached_property
    def latency_table(self) -> LatencyTable | None:
        """What predicts latencies: the study's own copy of a device's table."""
        if self.settings.latency is None:
            return None
        recorded = timings.read(self.folder / latencies.FILE)
        return LatencyTable(self.space, len(self.settings.classes), self.settings.budget.deploy_size, recorded)

    def architecture(self, record: Record) -> Architecture:
        """The architecture of a trial."""
        return Architecture.read(self.files(record.trial).model)

    def note_latency(self, trial: int, milliseconds: float) -> None:
        """Store what was measured of a trial's model after the trial had ended, which Optuna takes nothing of."""
        write_aside(self.folder / latencies.MEASURED, json.dumps(self._measured() | {str(trial): milliseconds}))

    def _measured(self) -> dict[str, float]:
        path = self.folder / latencies.MEASURED
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    @property
    def directions(self) -> list[Direction]:
        """Of what Optuna optimises: the objectives, or one reward."""
        if self.settings.reward is not None:
            return [Direction.MAXIMIZE]
        return [OBJECTIVES[name] for name in self.settings.objectives]

    def files(self, trial: int) -> TrialFiles:
        """A trial's files."""
        return TrialFiles.of(self.folder, trial)

    # What the study knows.

    def records(self) -> list[Record]:
        """All trials, in order."""
        known = dict(self._ended)
        for trial in self._not_known_to_have_ended():
            record = known[trial.number] = _record(trial, self.space)
            if trial.state.is_finished() and DETAIL in trial.user_attrs:
                self._ended[trial.number] = record
        for number, milliseconds in self._measured().items():
            known[int(number)] = replace(known[int(number)], measured_ms=milliseconds)
        return [known[number] for number in sorted(known)]

    @cached_property
    def _ended(self) -> dict[int, Record]:
        """By the numbers of the trials."""
        return self._file.read()

    def keep_records(self) -> None:
        """Put the records of trials that have ended on file; the supervisor does, after it has read them."""
        self._file.keep(self._ended)

    def _not_known_to_have_ended(self) -> list[FrozenTrial]:
        with self.storage.engine.connect() as database:  # Optuna 5 reads all of a study's trials, or one
            rows = database.execute(_TRIALS, {"study": self.storage.get_study_id_from_name(self.name)}).all()
        wanted = [trial for trial, number in rows if number not in self._ended]
        return self.trials() if len(wanted) > _ONE_BY_ONE else [self.storage.get_trial(trial) for trial in wanted]

    def front(self, records: Sequence[Record] | None = None) -> list[Record]:
        """The finished trials that no other dominates, best accuracy first."""
        return front_of(self.records() if records is None else records, self.settings.objectives)

    def expected_front(self, records: Sequence[Record]) -> list[Record]:
        """The front by what every model is expected to score another time, given all trials; that is told beside it."""
        thought = GainSampler(self.settings, self.space, self.feasible).expected(self.optuna)
        scored = {record.trial: record for record in averaged(records)}
        again = [replace(record, map50_95=thought.get(record.fingerprint)) for record in scored.values()]
        best = front_of([record for record in again if record.map50_95 is not None], self.settings.objectives)
        return [replace(scored[record.trial], expected=record.map50_95) for record in best]

    def places(self, records: Sequence[Record] | None = None) -> int:
        """How many further trials may begin now."""
        known = self.records() if records is None else records
        if self.settings.confirms:
            return sum(record.state == "waiting" for record in known)
        taken = sum(record.ending in COUNTED or record.state == "running" for record in known)
        return max(0, self.file.run.trials - taken)

    def fuse(self, records: Sequence[Record]) -> str | None:
        """Why no further trial should begin, if the last ones of this run say so; None if they do not."""
        if self.base is not None and (failure := self.base.failure):
            return failure
        return reason_to_stop(records, earlier=self.file.run.earlier)

    def trials(self) -> list[FrozenTrial]:
        """As Optuna has them."""
        return self.optuna.get_trials(deepcopy=False)

    # What the study does.

    def enqueue(self, architecture: Architecture, **attributes: Any) -> None:
        """Ask for an architecture before the sampler is asked."""
        attributes = {FINGERPRINT: architecture.fingerprint, **attributes}
        self.optuna.enqueue_trial(self.space.values(architecture), user_attrs=attributes)

    def enqueue_extremes(self) -> None:
        """Ask for the cheapest and the costliest architecture within limits, where a search does not have them yet."""
        if self.settings.confirms:
            return
        known = {record.role for record in self.records()}
        rng = random.Random(self.settings.budget.seed)  # noqa: S311 - proposals, not secrets
        for role in ("cheapest", "costliest"):
            if role in known:
                continue
            extreme = self.table.extreme(lambda layer: layer.macs, cheapest=role == "cheapest")
            if self.feasible.excess(extreme):
                drawn = [self.feasible.repaired(extreme, rng) for _ in range(_COSTLIEST_DRAWS)]
                within = [architecture for architecture in drawn if architecture is not None]
                best = min if role == "cheapest" else max
                if not within:
                    raise StudyError("no architecture of the space is within all limits at once; raise one of them")
                extreme = best(within, key=lambda architecture: self.table.cost(architecture).macs)
            if extreme.fingerprint not in {record.fingerprint for record in self.records()}:
                self.enqueue(extreme, role=role)

    def race(self, records: Sequence[Record]) -> None:
        """Ask for another seed of who stands on the front with too few, if there is one."""
        wanted = next_repeat(records, self.settings.objectives, self.settings.seeds)
        if wanted is not None:
            record, repeat = wanted
            self.enqueue(self.architecture(record), **{REPEAT: repeat})

    def goes_on(self, trial: Trial, architecture: Architecture, epoch: Epoch) -> bool:
        """Note where a training stands at a rung, and whether it is worth going on with.

        The stock model always is, and so is one that has been judged before: it went on, and is trained again with
        another seed, or after something that was no fault of its own.
        """
        stopping, name = self.settings.stopping, f"{RUNG}{epoch.epoch}"
        judged = name in trial.user_attrs or REPEAT in trial.user_attrs
        if stopping is None or epoch.map50_95 is None or epoch.epoch >= self.budget.epochs or judged:
            return True
        earlier = [values[0] for key, values in trial.user_attrs.items() if key.startswith(RUNG)]
        accuracy = max([epoch.map50_95, *earlier])
        own = self._standing(accuracy, architecture)
        others = [
            tuple(other.user_attrs[name][1:])
            for other in self.trials()
            if name in other.user_attrs and other.state != TrialState.FAIL
        ]
        trial.set_user_attr(name, (accuracy, *own))
        directions = up_and_down(costs=len(own) - 1)
        return trial.user_attrs.get(ROLE) == "stock" or goes_on(own, others, directions, stopping.eta)

    def _standing(self, accuracy: float, architecture: Architecture) -> Point:
        """What a training is judged by: its reward, or its accuracy and what it is known to cost."""
        figures = self.feasible.figures(architecture)
        if self.settings.reward:
            return (self.settings.rewarded(accuracy, figures),)
        return (accuracy, *(figures[name] for name in self.settings.known_costs))

    def settle(self, trial: Trial, fields: Mapping[str, Any]) -> list[float] | None:
        """Store how a trial ended, and what it says to the sampler.

        Args:
            fields: as `records.told` says them.

        Returns:
            What Optuna is to be told, or None if the trial has no scores.
        """
        for name, value in fields.items():
            trial.set_user_attr(name, value)
        for name, ceiling in self.settings.limits.model_dump(exclude_none=True).items():
            if name in fields:
                trial.set_constraint(name, fields[name] / ceiling - 1)
        match Ending[fields["ending"].upper()]:
            case Ending.FINISHED:
                return self._values(fields)
            case Ending.BROKEN:
                return None
            case Ending.STOPPED:  # among pruned trials, those that came further are the better ones
                trial.set_constraint("rungs_left", 1 - fields["epochs"] / self.budget.epochs)
                return None
            case _:  # a failed trial would teach the sampler nothing; a pruned one with a constraint says: not there
                trial.set_constraint("ending", 1.0)
                return None

    def _values(self, fields: Mapping[str, Any]) -> list[float]:
        """The objectives, or one reward."""
        if self.settings.reward is None:
            return [float(fields[name]) for name in self.settings.objectives]
        figures = {name: float(fields[name]) for name in self.settings.targets}
        return [self.settings.rewarded(float(fields["map50_95"]), figures)]

    def export(self, *, trial: int | None = None, best: str = "map", folder: Path | None = None) -> Exported:
        """Write a trial's model as a folder that needs no study any more.

        Args:
            trial: its number; otherwise the best of the front.
            best: `map`, `knee` or `cheapest`.
            folder: by default inside the study's own.
        """
        return export(self, chosen(self, trial=trial, best=best), folder)

    def tidy(self, records: Sequence[Record]) -> None:
        """Drop the weights that nobody will ask for: not of the front, the stock model or the last few trials."""
        ended = [record for record in records if record.ending is not None]
        kept = {record.trial for record in (*self.front(records), *ended[-_KEPT_WEIGHTS:])} | self._tidied
        for record in ended:
            if record.trial not in kept and record.role != "stock":
                self.files(record.trial).weights.unlink(missing_ok=True)
                self.files(record.trial).checkpoint.unlink(missing_ok=True)
                self._tidied.add(record.trial)

    def set_run(self, run: Run) -> None:
        """Change how far and with what the study is run."""
        self.file = self.file.model_copy(update={"run": run})
        self.file.write(self.folder)

    @property
    def asking(self) -> Lock:
        """Held from the question how many places are left until the proposal is known."""
        return Lock(self.folder / "asking.lock")

    @property
    def supervision(self) -> Lock:
        """Held by the one supervisor of this study on this host."""
        return Lock(self.folder / "supervisor.lock")


def limits_for(attributes: Mapping[str, Any], limits: Limits) -> Limits:
    """Those of a trial by what is known of it: none for the stock model, which is the reference, outside the front."""
    return Limits() if attributes.get(ROLE) == "stock" or REPEAT in attributes else limits


def _optuna_direction(direction: Direction) -> optuna.study.StudyDirection:
    return optuna.study.StudyDirection[direction.name]


def _record(trial: FrozenTrial, space: SearchSpace) -> Record:
    """A trial as a row; one that waits has its parameters in what it was enqueued with."""
    said = trial.system_attrs.get("fixed_params") or trial.params
    wanted = [f"{slot.name}.operator" for slot in space.slots] + [dial.spelled for dial in space.dials]
    proposed = all(name in said for name in wanted)  # not in the moment of the proposal
    architecture = space.architecture(said) if proposed else None
    # What a worker notes arrives one by one; all of it is there when the trial has ended.
    shown = Record.__dataclass_fields__ if trial.state.is_finished() else _KNOWN_BEFORE
    known = {name: value for name, value in trial.user_attrs.items() if name in shown}
    return Record(
        **{
            **known,
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "picks": architecture.as_picks() if architecture else {},
            "summary": architecture.summary() if architecture else "",
            "within": all(value <= 0 for value in trial.constraints.values()),
        }
    )
