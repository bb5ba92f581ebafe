"""A study: an Optuna study and the folder that everything of it lies in."""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from nas.locks import Lock
from nas.records.record import Record, mean_over_seeds, pareto_front_of
from nas.records.record_file import RecordFile
from nas.records.trial_attributes import FINGERPRINT, REPEAT
from nas.records.trial_files import TrialFiles
from nas.samplers.base import FilteredSampler
from nas.samplers.ehvi_sampler import EHVISampler
from nas.samplers.factory import make_sampler
from nas.samplers.feasibility import FeasibilityFilter
from nas.settings import Run
from nas.study import latency_tables
from nas.study.circuit_breaker import reason_to_stop
from nas.study.export import Exported, chosen, export
from nas.study.folders import make_folder, own_storage, runs_option, storage_file
from nas.study.repeats import next_repeat
from nas.study.retry_queue import RetryFirstStudy
from nas.study.score_cache import ScoreCache, begun_from, key
from nas.study.stock_training import BaseTraining
from nas.study.storage import holds_trials, make_file, make_study, opened, remove_file, study_id
from nas.study.study_file import Identity, StudyFile
from nas.study.trial_records import TrialRecords
from search_spaces import Architecture, SearchSpace, space_file
from search_spaces.errors import NasError, SpecError, StudyError
from search_spaces.files import read_json, write_atomically
from trials import Budget, Ending, Limits, Outcome
from trials.costing import cost
from trials.costing.cost import CostTable
from trials.data import datasets
from trials.data.datasets import DataSet
from trials.evaluation import exceeded_limits
from trials.latency import timings
from trials.latency.latency_table import LatencyTable
from trials.latency.timings import Timings
from trials.scores import Costs

optuna.logging.set_verbosity(optuna.logging.WARNING)  # trials are told by us, in our words

COUNTED = frozenset(ending.value for ending in Ending if ending not in {Ending.OVER_LIMIT, Ending.BROKEN})
"""The endings that count towards a study's number of trials."""

_KEPT_WEIGHTS = 3


class Study:
    """A study that exists.

    Attributes:
        folder: absolute; `study.json`, `space.yaml`, `study.db`, `trials/`, `workers/`.
        file: what `study.json` says.
        remark: what was noticed when it was taken up, in words; empty if nothing was.
        name: of the folder; Optuna's study has the one that the study was created under.
    """

    def __init__(self, folder: Path, file: StudyFile) -> None:
        self.folder, self.file = folder, file
        self.settings = file.settings
        self.name = folder.name
        self.remark = ""
        self._file = RecordFile(folder / "records.jsonl")
        self._tidied: set[int] = set()

    @classmethod
    def create(cls, folder: Path, file: StudyFile, space_text: str, latency: Timings | None = None) -> "Study":
        """Make the folder and the Optuna study of it.

        Args:
            latency: a device's table, of which the study gets a copy.

        Raises:
            EnvironmentProblem: the folder cannot be written to.
            StudyError: the folder holds trials; its storage has a study of that name; another process is at it.
        """
        study = cls(folder, file)
        if study.shares_storage:
            if study.database is not None and not study.database.exists():
                make_file(study.database)
            _ = study.storage  # a server that cannot be reached is told before anything is written
        make_folder(folder)
        with study.supervision.held_at_once(study.is_running()):
            study._make(space_text, latency)
        return study

    def _make(self, space_text: str, latency: Timings | None) -> None:
        """Write what a study is into its folder and its storage."""
        self._require_unused()
        if not self.file.identity:
            self.file = self.file.model_copy(update={"identity": Identity.of(self.folder)})
        space_file.save(space_text, self.folder)
        if latency is not None:
            latency.write(self.folder / latency_tables.FILE)
        if self.database is not None and not self.shares_storage:
            remove_file(self.database)  # half of a study that was never finished being made
            self._file.delete()
            make_file(self.database)
        self.file = make_study(self.storage, self.file)
        if not self.trials():
            self.enqueue(self.space.stock, role="stock")
            start = () if self.settings.confirms else self.space.start
            named = {architecture.fingerprint: architecture for architecture in start}
            for fingerprint, architecture in named.items():
                if fingerprint != self.space.stock.fingerprint:
                    self.enqueue(architecture, role="start")
        self.file.write(self.folder)  # last: a folder with study.json is a study

    def _require_unused(self) -> None:
        """Refuse a folder without `study.json` in which trials lie.

        Raises:
            StudyError: there are some.
        """
        inside = [self.folder / name for name in ("trials", "base")]
        if not self.shares_storage and self.database is not None and holds_trials(self.database):
            inside.append(self.database)
        filled = next((path for path in inside if path.is_file() or (path.is_dir() and any(path.iterdir()))), None)
        if filled is not None:
            raise StudyError(
                f"{filled}: trials lie there, but {self.folder / 'study.json'} is missing: put that back to go on with "
                "them; or move the folder away, or name another study with --study"
            )

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
        try:
            space = space_file.load(path)
        except SpecError as error:
            mistakes = "; ".join(error.mistakes)
            raise StudyError(
                f"{path}: the study's copy of its space cannot be read: {mistakes} (put it back as it was, or begin "
                "another study)"
            ) from None
        if space.hash != before:
            raise StudyError(
                f"{path}: the space has changed since the study was created ({space.hash}, not {before}); "
                "begin another study for it"
            )
        return space

    @property
    def database(self) -> Path | None:
        """The storage's file, if it is one."""
        return storage_file(self.file.storage)

    @property
    def shares_storage(self) -> bool:
        """Whether the storage is not a file of the study's own, so that other studies may be in it."""
        return self.database != storage_file(own_storage(self.folder))

    @cached_property
    def storage(self) -> RDBStorage:
        """Where Optuna keeps the study; one per process.

        Raises:
            EnvironmentProblem: it cannot be opened.
            StudyError: it is a file that is missing, empty or damaged.
        """
        return opened(self.file.storage)

    @cached_property
    def optuna(self) -> optuna.Study:
        """Optuna's study, which proposes what is feasible and new.

        Raises:
            StudyError: the storage does not have it.
        """
        study_id(self.storage, self.file.name)
        return RetryFirstStudy(study_name=self.file.name, storage=self.storage, sampler=self.sampler)

    @cached_property
    def sampler(self) -> FilteredSampler:
        """Who proposes."""
        return make_sampler(self.settings, self.space, self.feasible, trials=self.file.run.trials)

    @cached_property
    def feasible(self) -> FeasibilityFilter:
        """Which architectures are within the limits that are known before anything is built."""
        return FeasibilityFilter(self.space, lambda: self.table, self.settings.limits, self.latency_table)

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
        return known.given(architecture, costs, files) if says_all and not exceeded_limits(costs, limits) else None

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
        recorded = timings.read(self.folder / latency_tables.FILE)
        return LatencyTable(self.space, len(self.settings.classes), self.settings.budget.deploy_size, recorded)

    def architecture(self, record: Record) -> Architecture:
        """The architecture of a trial, by its file, or by the storage where that is damaged."""
        try:
            architecture = Architecture.read(self.files(record.trial).model)
        except (NasError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            architecture = None
        if architecture is None or architecture.fingerprint != record.fingerprint:
            trial = self.trials()[record.trial]
            return self.space.architecture(trial.system_attrs.get("fixed_params") or trial.params)
        return architecture

    def note_latency(self, trial: int, milliseconds: float) -> None:
        """Store what was measured of a trial's model after the trial had ended, which Optuna takes nothing of."""
        measured = self._measured() | {str(trial): milliseconds}
        write_atomically(self.folder / latency_tables.MEASURED, json.dumps(measured))

    def _measured(self) -> dict[str, float]:
        """Return stored latencies by trial; entries that are no latency are dropped, and measured again."""
        noted = read_json(self.folder / latency_tables.MEASURED)
        if not isinstance(noted, dict):
            return {}
        return {
            trial: float(ms)
            for trial, ms in noted.items()
            if trial.isdecimal() and type(ms) in {int, float} and 0 < ms < math.inf
        }

    def files(self, trial: int) -> TrialFiles:
        """A trial's files."""
        return TrialFiles.of(self.folder, trial)

    # What the study knows.

    def records(self) -> list[Record]:
        """All trials, in order."""
        known = self._trials.read()
        measured = self._measured()
        for number, record in known.items():
            if str(number) in measured:
                known[number] = replace(record, measured_ms=measured[str(number)])
        return [known[number] for number in sorted(known)]

    def keep_records(self) -> None:
        """Put the records of trials that have ended on file; the supervisor does, after it has read them."""
        self._trials.keep()

    @cached_property
    def _trials(self) -> TrialRecords:
        return TrialRecords(self.file.name, self.storage, lambda: self.space, self._file)

    def front(self, records: Sequence[Record] | None = None) -> list[Record]:
        """The finished trials that no other dominates, best accuracy first."""
        return pareto_front_of(self.records() if records is None else records, self.settings.objectives)

    def expected_front(self, records: Sequence[Record]) -> list[Record]:
        """The front by what every model is expected to score another time, given all trials; that is told beside it."""
        thought = EHVISampler(self.settings, self.space, self.feasible).expected_accuracies(self.optuna)
        scored = {record.trial: record for record in mean_over_seeds(records)}
        again = [replace(record, map50_95=thought.get(record.fingerprint)) for record in scored.values()]
        best = pareto_front_of([record for record in again if record.map50_95 is not None], self.settings.objectives)
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
            extreme = self.feasible.extreme(rng, cheapest=role == "cheapest")
            if extreme is None:
                raise StudyError("no architecture of the space is within all limits at once; raise one of them")
            if extreme.fingerprint not in {record.fingerprint for record in self.records()}:
                self.enqueue(extreme, role=role)

    def race(self, records: Sequence[Record]) -> None:
        """Ask for another seed of who stands on the front with too few, if there is one."""
        wanted = next_repeat(records, self.settings.objectives, self.settings.seeds)
        if wanted is not None:
            record, repeat = wanted
            self.enqueue(self.architecture(record), **{REPEAT: repeat})

    def export(self, *, trial: int | None = None, best: str = "map", folder: str | Path | None = None) -> Exported:
        """Write a trial's model as a folder that needs no study any more.

        Args:
            trial: its number; otherwise the best of the front.
            best: `map`, `knee` or `cheapest`.
            folder: by default inside the study's own.
        """
        return export(self, chosen(self, trial=trial, best=best), None if folder is None else Path(folder))

    def tidy(self, records: Sequence[Record]) -> None:
        """Drop the weights that nobody will ask for: not of the front, the stock model or the last few trials."""
        ended = [record for record in records if record.ending is not None]
        kept = {record.trial for record in (*self.front(records), *ended[-_KEPT_WEIGHTS:])} | self._tidied
        for record in ended:
            if record.trial not in kept and record.role != "stock":
                files = self.files(record.trial)
                if files.folder.resolve().is_relative_to(self.folder.resolve()):  # and not elsewhere, behind a link
                    files.weights.unlink(missing_ok=True)
                    files.checkpoint.unlink(missing_ok=True)
                self._tidied.add(record.trial)

    def set_run(self, run: Run) -> None:
        """Change how far and with what the study is run."""
        self.set_file(self.file.model_copy(update={"run": run}))

    def set_file(self, file: StudyFile) -> None:
        """Change what `study.json` says."""
        self.file = file
        self.file.write(self.folder)

    def is_running(self) -> StudyError:
        """Return what is told where another process has its supervision."""
        runs = self.folder.parent
        told = f"look at it with: nas status {self.name}{runs_option(runs)}"
        return StudyError(f"{self.name} is running already, in another process; {told}")

    @property
    def asking(self) -> Lock:
        """Held from the question how many places are left until the proposal is known."""
        return Lock(self.folder / "asking.lock")

    @property
    def supervision(self) -> Lock:
        """Held by the one supervisor of this study on this host."""
        return Lock(self.folder / "supervisor.lock")
