"""Study: an Optuna study and its folder."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from nas.locks import Lock
from nas.records.record import Record, pareto_front_of
from nas.records.record_file import RecordFile
from nas.records.trial_attributes import FINGERPRINT
from nas.records.trial_files import TrialFiles
from nas.samplers.base import FilteredSampler
from nas.samplers.factory import make_sampler
from nas.samplers.feasibility import FeasibilityFilter
from nas.settings import RunSettings
from nas.study.ablations import Ablated, parts_of, reason_to_leave_out
from nas.study.ablations import folder_of as ablation_folder
from nas.study.circuit_breaker import reason_to_stop
from nas.study.confirmation import confirmation_of, search_of
from nas.study.export import Exported, choose, export
from nas.study.folders import (
    HOLDOUT,
    LATENCY_TABLE,
    MEASURED_LATENCIES,
    PROPOSAL_LOCK,
    RECORDS,
    SPACE,
    SUPERVISOR_LOCK,
    default_storage,
    runs_option,
    storage_file,
)
from nas.study.judging import images_that_judge, judged_records
from nas.study.measured_latencies import MeasuredLatencies
from nas.study.retry_queue import RetryFirstStudy
from nas.study.score_cache import ScoreCache
from nas.study.scoring import Scoring, candidate_budget
from nas.study.stock_training import StockTraining
from nas.study.storage import open_storage, study_id
from nas.study.study_file import StudyFile
from nas.study.trained_again import Trained, trained_again
from nas.study.trial_records import TrialRecords
from search_spaces import Architecture, SearchSpace, space_file
from search_spaces.errors import NasError, SpecError, StudyError
from trials import Ending
from trials.data import datasets
from trials.data.datasets import DataSet
from trials.data.judging import JudgingImages
from trials.latency import timings
from trials.latency.latency_table import LatencyTable

if TYPE_CHECKING:
    from nas.report.ablation import Ablation
    from nas.report.trust import Trust
    from nas.report.verdict import Verdict

optuna.logging.set_verbosity(optuna.logging.WARNING)  # the CLI and the worker's log report trials

COUNTED = frozenset(ending.value for ending in Ending if ending not in {Ending.OVER_LIMIT, Ending.BROKEN})
"""Endings that count towards a study's number of trials."""


class Study:
    """Existing study.

    Attributes:
        folder: absolute; holds `study.json`, `space.yaml`, `study.db`, `trials/`, `workers/`.
        file: content of `study.json`.
        name: of the folder; Optuna's study has the one under which the study was created.
        remark: a sentence for the user from when the study was resumed; empty if there is none.
        record_file: records of finished trials.
        measured_latencies: of trials' models, measured after the search.
    """

    def __init__(self, folder: Path, file: StudyFile) -> None:
        self.folder, self.file = folder, file
        self.settings = file.settings
        self.name = folder.name
        self.remark = ""
        self.record_file = RecordFile(folder / RECORDS)
        self.measured_latencies = MeasuredLatencies(folder / MEASURED_LATENCIES)

    def __repr__(self) -> str:
        return f"Study({self.name!r}, folder={str(self.folder)!r})"

    @classmethod
    def open(cls, folder: Path) -> "Study":
        """Open the study of a folder.

        Raises:
            StudyError: there is none.
        """
        return cls(folder, StudyFile.read(folder))

    @cached_property
    def space(self) -> SearchSpace:
        """Search space, from the study's copy of the file; not needed to read finished trials.

        Raises:
            StudyError: it has changed since the study was created.
        """
        path, before = self.folder / SPACE, self.settings.space_hash
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
        """File of the storage; None if the storage is a server."""
        return storage_file(self.file.storage)

    @property
    def shares_storage(self) -> bool:
        """Whether the storage is not a file in this study's folder, so that it may hold other studies."""
        return self.database != storage_file(default_storage(self.folder))

    @cached_property
    def storage(self) -> RDBStorage:
        """Optuna's storage; one per process.

        Raises:
            EnvironmentProblem: it cannot be opened.
            StudyError: it is a file that is missing, empty or damaged.
        """
        return open_storage(self.file.storage)

    @cached_property
    def optuna(self) -> optuna.Study:
        """Optuna's study, whose sampler proposes feasible and new architectures.

        Raises:
            StudyError: the storage does not have it.
        """
        study_id(self.storage, self.file.name)
        return RetryFirstStudy(study_name=self.file.name, storage=self.storage, sampler=self.sampler)

    @cached_property
    def sampler(self) -> FilteredSampler:
        """Sampler of the settings, behind the feasibility filter."""
        return make_sampler(self.settings, self.space, self.feasible, trials=self.file.run.trials)

    @cached_property
    def feasible(self) -> FeasibilityFilter:
        """Feasibility filter: limits on costs that are counted or predicted before training."""
        return FeasibilityFilter(self.space, lambda: self.scoring.cost_table, self.settings.limits, self.latency_table)

    @cached_property
    def latency_table(self) -> LatencyTable | None:
        """Latency table, from the study's copy of the file; None if latencies are measured."""
        if self.settings.latency is None:
            return None
        recorded = timings.read(self.folder / LATENCY_TABLE)
        return LatencyTable(self.space, len(self.settings.classes), self.settings.budget.deploy_size, recorded)

    @cached_property
    def stock_training(self) -> StockTraining | None:
        """Training of the stock model whose weights initialise every candidate; None if there is none."""
        budget = self.settings.base
        if budget is None:
            return None
        budget = budget.model_copy(update={"sealed": self.sealed})
        return StockTraining(folder=self.folder, stock=self.space.stock, budget=budget, cache=self._cache)

    @cached_property
    def scoring(self) -> Scoring:
        """Costs, training budgets and cached scores of candidates."""
        return Scoring(
            self.space,
            self.settings,
            latency_table=self.latency_table,
            stock_training=self.stock_training,
            cache=self._cache,
            sealed=self.sealed,
        )

    @property
    def sealed(self) -> Path | None:
        """File that lists the sealed images; None if there are none."""
        return self.folder / HOLDOUT if self.settings.holdout else None

    def data_set(self) -> DataSet:
        """Return the data set as trainings read it, without the sealed images, checked.

        Raises:
            DataError: it cannot be trained on any more.
        """
        return datasets.load_without(self.settings.data, self.sealed)

    @cached_property
    def judging(self) -> JudgingImages | None:
        """Images on which every training is evaluated once; only in a confirmation.

        Raises:
            DataError: they cannot be used.
            StudyError: they have changed since the confirmation was begun.
        """
        return images_that_judge(self.name, self.settings, self.sealed)

    @property
    def _cache(self) -> ScoreCache | None:
        return ScoreCache.of_user() if self.file.run.cache else None

    def files(self, trial: int) -> TrialFiles:
        """Return the files of a trial."""
        return TrialFiles.of(self.folder, trial)

    def architecture(self, record: Record) -> Architecture:
        """Return the architecture of a trial: from its model file, or from the storage if that is damaged."""
        try:
            architecture = Architecture.read(self.files(record.trial).model)
        except (NasError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            architecture = None
        if architecture is None or architecture.fingerprint != record.fingerprint:
            trial = self.trials()[record.trial]
            return self.space.architecture(trial.system_attrs.get("fixed_params") or trial.params)
        return architecture

    def trials(self) -> list[FrozenTrial]:
        """Return all trials as Optuna stores them."""
        return self.optuna.get_trials(deepcopy=False)

    def records(self) -> list[Record]:
        """Return the records of all trials, in order."""
        records = self._trial_records.read()
        measured = self.measured_latencies.read()
        for number, record in records.items():
            if str(number) in measured:
                records[number] = replace(record, measured_ms=measured[str(number)])
        return [records[number] for number in sorted(records)]

    def save_records(self) -> None:
        """Append the records of finished trials to their file; only the supervisor does, after it has read them."""
        self._trial_records.save()

    @cached_property
    def _trial_records(self) -> TrialRecords:
        return TrialRecords(self.file.name, self.storage, lambda: self.space, self.record_file)

    def front(self, records: Sequence[Record] | None = None) -> list[Record]:
        """Return the Pareto front of the finished trials, best accuracy first."""
        return pareto_front_of(self.records() if records is None else records, self.settings.objectives)

    def remaining_trials(self, records: Sequence[Record]) -> int:
        """Return how many further trials may begin now."""
        if self.settings.confirms:
            return sum(record.state == "waiting" for record in records)
        taken = sum(record.ending in COUNTED or record.state == "running" for record in records)
        return max(0, self.file.run.trials - taken)

    def reason_to_stop(self, records: Sequence[Record]) -> str | None:
        """Return why no further trial should begin: the stock model's failure or the circuit breaker's; else None."""
        if self.stock_training is not None and (failure := self.stock_training.failure):
            return failure
        return reason_to_stop(records, earlier=self.file.run.earlier)

    def enqueue(self, architecture: Architecture, **attributes: Any) -> None:
        """Enqueue an architecture; it is trained before the sampler proposes any."""
        attributes = {FINGERPRINT: architecture.fingerprint, **attributes}
        self.optuna.enqueue_trial(self.space.values(architecture), user_attrs=attributes)

    def export(
        self, *, trial: int | None = None, best: str | None = None, folder: str | Path | None = None
    ) -> Exported:
        """Write a trial's model as a folder that needs no study.

        Args:
            trial: its number; None takes the best of the Pareto front.
            best: `map`, `knee` or `cheapest`; by default `map`. Not together with a trial.
            folder: by default `export/trial-0007` in the study's folder.

        Raises:
            SpecError: no such trial or choice, or both are given.
            StudyError: the trial, or every trial, is unfinished.
        """
        record = choose(self.records(), self.settings.objectives, study=self.name, trial=trial, best=best)
        return export(
            record,
            self.architecture(record),
            self.files(record.trial),
            self.settings,
            study=self.name,
            budget=candidate_budget(self.settings.budget, self.stock_training, record.repeat, sealed=self.sealed),
            folder=self.folder / "export" / f"trial-{record.trial:04d}" if folder is None else Path(folder),
        )

    def verdict(self, *, margin: float = 0.5) -> "Verdict | None":
        """Return the verdict on the finalists of this search, or of the search that this study confirms.

        Args:
            margin: points of mAP50-95 within which two models count as equally accurate.

        Returns:
            None before `nas confirm` was called for the search.

        Raises:
            ScoreError: what a training has scored on the images that judge is missing or damaged.
        """
        from nas.report.judging import judge  # noqa: PLC0415 - a report of two studies; only this method needs it

        find = search_of if self.settings.confirms else confirmation_of
        if (beside := find(self.folder, self.file)) is None:
            return None
        other = Study.open(beside)
        search, fresh = (other, self) if self.settings.confirms else (self, other)
        command = f"{search.name}{runs_option(search.folder.parent)}"
        records, resampled = judged_records(fresh.records(), fresh.settings, fresh.folder, command)
        return judge(
            search.records(),
            records,
            before=search.settings,
            after=fresh.settings,
            study=search.name,
            margin=margin,
            workers=fresh.file.run.workers,
            resampled=resampled,
        )

    def ablation(self, trial: int, *, margin: float = 0.5) -> "Ablation | None":
        """Return what each slot of a trial of this search is worth.

        Args:
            trial: its number.
            margin: points of mAP50-95 within which a difference does not matter.

        Returns:
            None before `nas ablate` was called for the trial.
        """
        from nas.report.ablating import judge  # noqa: PLC0415 - a report of two studies; only this method needs it

        if (beside := ablation_folder(self.folder, self.settings, trial)) is None:
            return None
        after = Study.open(beside)
        return judge(
            self.ablated(trial),
            after.records(),
            self.feasible.figures,
            budget=after.settings.budget,
            margin=margin,
        )

    def ablated(self, trial: int) -> Ablated:
        """Return a trial with all its slots and scaling factors, each with the model that has stock there.

        Raises:
            SpecError: there is no such trial.
        """
        records = {record.trial: record for record in self.records()}
        if trial not in records:
            which = f"0 to {max(records)}" if records else "it has none yet"
            raise SpecError(f"trial: {self.name} has no trial {trial} ({which})")
        architecture, limits = self.architecture(records[trial]), self.settings.limits
        parts = [
            (part, reason_to_leave_out(part, architecture, self.space, self.feasible, limits))
            for part in parts_of(self.space, architecture)
        ]
        return Ablated(self.name, trial, architecture, parts, self.space.stock)

    def trust(self) -> "Trust":
        """Return how far the ranking of this search can be believed, from what was trained.

        Raises:
            StudyError: this study is no search, but trains models of one again.
        """
        from nas.report.trust import trust  # noqa: PLC0415 - a report of several studies; only this method needs it

        if self.settings.confirms:
            raise StudyError(
                f"{self.name} trains models of another study again; ask: nas trust {self.settings.confirms}"
            )
        verdict, where = self.verdict(), runs_option(self.folder.parent)
        again = [Study.open(folder) for folder in trained_again(self.folder, self.settings)]
        return trust(
            Trained.of(self.folder, self.file, self.records()),
            [Trained.of(one.folder, one.file, one.records(), search=self.settings) for one in again],
            measure=f"nas trust {self.name}{where} --measure",
            confirm=f"nas confirm {self.name}{where}",
            measured=verdict.shrinkage if verdict is not None else None,
        )

    def set_run(self, run: RunSettings) -> None:
        """Store how the study is run from now on."""
        self.set_file(self.file.model_copy(update={"run": run}))

    def set_file(self, file: StudyFile) -> None:
        """Replace `study.json`."""
        self.file = file
        self.file.write(self.folder)

    def already_running(self) -> StudyError:
        """Return the error to raise if another process supervises the study."""
        advice = f"look at it with: nas status {self.name}{runs_option(self.folder.parent)}"
        return StudyError(f"{self.name} is running already, in another process; {advice}")

    @property
    def proposal_lock(self) -> Lock:
        """Lock held while counting remaining trials and proposing one."""
        return Lock(self.folder / PROPOSAL_LOCK)

    @property
    def supervision_lock(self) -> Lock:
        """Lock held by the one supervisor of this study on this machine."""
        return Lock(self.folder / SUPERVISOR_LOCK)
