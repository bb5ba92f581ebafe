"""Study that trains candidates: what a stored study holds, and Optuna's sampler, costs and trainings."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial

from nas import ranges
from nas.algorithms.dominance import rungs_of
from nas.records.record import Record, find_record, its_stock, mean_over_seeds, stocks_of
from nas.records.trial_attributes import ARCHITECTURE, FINGERPRINT
from nas.samplers.base import FilteredSampler
from nas.samplers.factory import make_sampler
from nas.samplers.feasibility import FeasibilityFilter
from nas.study.ablations import Ablated, parts_of, reason_to_leave_out
from nas.study.ablations import folder_of as ablation_folder
from nas.study.circuit_breaker import reason_to_stop
from nas.study.export import Exported, choose, export
from nas.study.folders import LATENCY_TABLE, REPORT, command
from nas.study.judging import images_that_judge
from nas.study.links import require_writable_within
from nas.study.retry_queue import RetryFirstStudy
from nas.study.running_trials import with_progress
from nas.study.score_cache import ScoreCache
from nas.study.scoring import Scoring, candidate_budget
from nas.study.stock_training import StockTraining
from nas.study.stock_trainings import StockTrainings
from nas.study.storage import study_id
from nas.study.stored_study import StoredStudy
from nas.study.trial_records import description
from search_spaces import Architecture, JoinedSpace, Space
from search_spaces.errors import NasError, StudyError
from search_spaces.files import require_place, write_atomically
from trials import Ending
from trials.data import datasets
from trials.data.datasets import DataSet
from trials.data.unseen_images import JudgingImages
from trials.latency import space_latencies, timings
from trials.latency.space_latencies import SpaceLatencies

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly import graph_objects

    from nas.report.ablation import Ablation
    from nas.report.effects import Effects


class Study(StoredStudy):
    """Existing study, to be searched: Optuna's sampler, the costs and trainings of its candidates."""

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
        return make_sampler(self.settings, self.searched, self.feasible, trials=self.file.run.trials)

    @cached_property
    def searched(self) -> Space:
        """Space of which architectures are proposed: without the members that are left out, or have one alone."""
        if not isinstance(self.space, JoinedSpace):
            return self.space
        closed = set(self.stock_trainings.left_out)
        fixed = {member.short_name for member in self.space.members if member.size == 1}
        if closed | fixed < set(self.space.member_names):
            closed |= fixed
        return self.space.without(closed) if closed else self.space

    def forget_proposals(self) -> None:
        """Make sampler and filter anew when they are needed next: by now members may be left out."""
        for name in ("searched", "feasible", "sampler", "optuna"):
            self.__dict__.pop(name, None)

    @cached_property
    def feasible(self) -> FeasibilityFilter:
        """Feasibility filter: limits on costs that are counted or predicted before training."""
        return FeasibilityFilter(
            self.searched,
            lambda: self.scoring.cost_table_of(self.searched),  # not before a study has begun with its settings
            self.settings.limits,
            self.latency_table,
        )

    @cached_property
    def latency_table(self) -> SpaceLatencies | None:
        """Latency table, from the study's copy of the file; None if latencies are measured."""
        if self.settings.latency is None:
            return None
        recorded = timings.read(self.folder / LATENCY_TABLE)
        return space_latencies.table(self.space, len(self.settings.classes), self.settings.budget.deploy_size, recorded)

    @cached_property
    def stock_trainings(self) -> StockTrainings:
        """Trainings of the stock models whose weights initialise the candidates; empty if there are none."""
        budget = self.settings.base
        if budget is None:
            return StockTrainings(self.space, {})
        is_compared = self.settings.members and not self.settings.confirms
        rungs = rungs_of(budget.epochs) if is_compared else ()
        read = {"sealed": self.sealed, "subset": self.settings.subset, "rungs": rungs}
        budget = budget.model_copy(update=read)
        trainings = [
            StockTraining(
                folder=self.folder,
                stock=stock,
                budget=self.settings.starting_at(budget, name),
                member=name,
                cache=self._cache,
            )
            for stock, name in ((stock, self.space.member_name(stock)) for stock in self.space.stocks)
        ]
        return StockTrainings(self.space, {training.member: training for training in trainings})

    @property
    def stock_training(self) -> StockTraining | None:
        """Training of the stock model, of several members that of the first; None if there is none."""
        return next(iter(self.stock_trainings), None)

    @cached_property
    def scoring(self) -> Scoring:
        """Costs, training budgets and cached scores of candidates."""
        return Scoring(
            self.space,
            self.settings,
            latency_table=self.latency_table,
            stock_trainings=self.stock_trainings,
            cache=self._cache,
            sealed=self.sealed,
        )

    def data_set(self) -> DataSet:
        """Return the data set as trainings read it: without the sealed images, or a subset; checked.

        Raises:
            DataError: it cannot be trained on any more.
        """
        return datasets.load_for(self.settings.data, self.sealed, self.settings.subset)

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

    def architecture(self, record: Record) -> Architecture:
        """Return the architecture of a trial: from its model file, or from the storage if that is damaged."""
        try:
            architecture = Architecture.read(self.files(record.trial).model)
        except (NasError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            architecture = None
        if architecture is None or architecture.fingerprint != record.fingerprint:
            trial = self.optuna_trials()[record.trial]
            return self.space.architecture(trial.system_attrs.get("fixed_params") or trial.params)
        return architecture

    def trials(self) -> "DataFrame":
        """Return all trials as a pandas DataFrame, one row for each.

        It has the columns of `nas trials --format csv`, and two more:

        | column | type | value |
        |---|---|---|
        | `trial` | int | its number |
        | `state` | str | `waiting`, `running`, `complete`, `pruned` or `fail` |
        | `ending` | str | such as `finished`, `stopped` or `crashed`; missing while it has not ended |
        | `map50_95`, `map50` | float | scores on 0 to 1; missing unless it was scored |
        | `expected` | float | posterior mean of mAP50-95, where it was requested |
        | `gflops` | float | of one image at the deployment size |
        | `params` | Int64 | parameters of the deployed model |
        | `latency_ms` | float | measured in the trial, or predicted from the device's table |
        | `measured_ms` | float | measured after the search, where `latency_ms` is a prediction |
        | `inherited` | float | share of the weights that came from a checkpoint |
        | `epochs` | int | trained so far |
        | `seconds` | float | that the training took |
        | `repeat` | int | earlier trainings of the architecture |
        | `seeds` | int | trainings that the accuracies are the mean of |
        | `fingerprint` | str | of the architecture |
        | `picks` | object | a dict: `{"4": {"UIB": {...}}}`; empty for the stock model |
        | `architecture` | str | in words, such as `UIB 4, 12, 18` |
        | `on_front` | bool | whether it is on the Pareto front |

        What a trial does not have is missing (`NaN` or `<NA>`), never a number.
        """
        from nas.records.data_frame import data_frame  # noqa: PLC0415 - pandas, which only this method needs

        records = self.records()
        return data_frame(with_progress(self, records), on_front={one.trial for one in self.front(records)})

    def optuna_trials(self) -> list[FrozenTrial]:
        """Return all trials as Optuna stores them."""
        return self.optuna.get_trials(deepcopy=False)

    def began_and_ended(self) -> tuple[datetime | None, datetime | None]:
        """Return when the first trial began and when the last one ended, in local time; None for what has not."""
        trials = self.optuna_trials()
        began = [trial.datetime_start for trial in trials if trial.datetime_start is not None]
        ended = [trial.datetime_complete for trial in trials if trial.datetime_complete is not None]
        return min(began, default=None), max(ended, default=None)

    def reason_to_stop(self, records: Sequence[Record]) -> str | None:
        """Return why no further trial should begin: a stock model's failure or the circuit breaker's; else None."""
        return self.stock_trainings.failure or reason_to_stop(records, earlier=self.file.run.earlier)

    def enqueue(self, architecture: Architecture, **attributes: Any) -> None:
        """Enqueue an architecture; it is trained before the sampler proposes any."""
        described = description(architecture, self.space)
        attributes = {FINGERPRINT: architecture.fingerprint, ARCHITECTURE: described, **attributes}
        self.optuna.enqueue_trial(self.space.values(architecture), user_attrs=attributes)

    def export(
        self,
        *,
        trial: int | None = None,
        best: str | None = None,
        folder: str | Path | None = None,
        standalone: bool = False,
        formats: str | Sequence[str] = (),
        check: bool = False,
        arguments: Mapping[str, Any] | None = None,
        on_step: Callable[[str], None] = lambda _: None,
    ) -> Exported:
        """Write a trial's model as a folder that needs no study, with a model card.

        Args:
            trial: its number; None takes the best of the Pareto front.
            best: `map`, `knee` or `cheapest`; by default `map`. Not together with a trial.
            folder: by default `export/trial-0007` in the study's folder.
            standalone: also write a folder that needs only Ultralytics: the operators in `modules.py`.
            formats: of Ultralytics, such as `onnx` or `("onnx", "openvino")`; each file is compared with PyTorch where
                its runtime is installed.
            check: also measure mAP50-95 of each format.
            arguments: of Ultralytics' export, such as `imgsz`.
            on_step: called with what begins, in words.

        Raises:
            SpecError: no such trial, choice or format; both are given; an operator's source cannot be copied.
            StudyError: the trial, or every trial, is unfinished; its weights are missing, and formats are wanted; a
                link leads out of the study's folder.
        """
        from nas.deployment.formats import require_formats  # noqa: PLC0415 - Ultralytics' exporters; only for this
        from nas.study.deployment import Deployment, deploy  # noqa: PLC0415 - the same

        wanted = Deployment(
            standalone=standalone,
            formats=require_formats(formats),
            check=check,
            arguments=arguments or {},
            on_step=on_step,
        )
        records = self.records()
        chosen = choose(records, self.settings.objectives, study=self.name, trial=trial, best=best)
        record = find_record(records, chosen.trial, study=self.name)
        if self.shared is not None:
            self.shared.fetch_training(self.files(record.trial))
        architecture, files = self.architecture(record), self.files(record.trial)
        budget = candidate_budget(
            self.settings.starting_at(self.settings.budget, self.space.member_name(architecture)),
            self.stock_trainings.of(architecture),
            record.repeat,
            sealed=self.sealed,
        )
        on_step("writing the model")
        own = self.folder / "export" / f"trial-{record.trial:04d}"
        if folder is None:
            require_writable_within(self.folder, own)
        exported = export(
            record,
            next(one for one in mean_over_seeds(records) if one.fingerprint == record.fingerprint),
            architecture,
            files,
            self.settings,
            study=self.name,
            budget=budget,
            folder=own if folder is None else Path(folder),
        )
        return deploy(
            exported,
            architecture,
            self.settings,
            wanted,
            weights=files.weights,
            budget=budget.at(architecture.image_size),
            study=self.name,
            train=f"{command('train', self.folder)} --trial {record.trial}",
            stock=its_stock(record, stocks_of(records)),
            verdict=self._verdict_on(record, records),
        )

    def _verdict_on(self, record: Record, records: Sequence[Record]) -> list[str]:
        """Return what fresh seeds have shown of a model, in lines, or what would show it."""
        try:
            verdict = self.verdict(records=records)
        except NasError as error:
            return [f"It cannot be read: {error}"]
        found: list[str] = []
        for judged in (verdict.finalists, verdict.left_out) if verdict is not None else ():
            found += [one.sentence for one in judged if one.fingerprint == record.fingerprint]
        confirm = command("confirm", self.folder)
        pending = f"Not judged by fresh seeds: a search shows the best of many scores ({confirm})."
        return [f"{line[:1].upper()}{line[1:]}." for line in found] or [pending]

    def ablation(self, trial: int, *, margin: float | None = None) -> "Ablation | None":
        """Return what each slot of a trial of this search is worth.

        Args:
            trial: its number.
            margin: points of mAP50-95 within which a difference does not matter; None for that of `nas ablate`.

        Returns:
            None before `nas ablate` was called for the trial.

        Raises:
            SpecError: there is no such trial, or the margin is no number of points.
        """
        from nas.report.ablating import judge  # noqa: PLC0415 - a report of two studies; only this method needs it

        ranges.require(margin=margin)
        find_record(self.records(), trial, study=self.name)
        if (beside := ablation_folder(self.folder, self.settings, trial)) is None:
            return None
        after = Study.open(beside)
        return judge(
            self.ablated(trial),
            after.records(),
            self.feasible.figures,
            budget=after.settings.budget,
            margin=margin or after.file.run.margin_or_default,
            look=max(1, len(after.file.run.looks)),
        )

    def ablated(self, trial: int) -> Ablated:
        """Return a trial with all its slots and scaling factors, each with the model that has stock there.

        Raises:
            SpecError: there is no such trial.
        """
        record = find_record(self.records(), trial, study=self.name)
        architecture, limits = self.architecture(record), self.settings.limits
        parts = [
            (part, reason_to_leave_out(part, architecture, self.space, self.feasible, limits))
            for part in parts_of(self.space, architecture)
        ]
        return Ablated(self.name, trial, architecture, parts, self.space.member_of(architecture).stock)

    def report(self, file: str | Path | None = None) -> Path:
        """Write a report of this study as one HTML page that needs no network.

        Args:
            file: where; by default `report.html` in the study's folder.

        Returns:
            The file.

        Raises:
            EnvironmentProblem: it cannot be written.
            SpecError: its folder does not exist, or it is a folder itself.
        """
        from nas.report.page.page import page  # noqa: PLC0415 - Plotly and Jinja, which only this method needs

        if file is not None:
            require_place(Path(file), "file")
        path = self.folder / REPORT if file is None else Path(file)
        write_atomically(path, page(self))
        return path.absolute()

    def plot(self) -> "graph_objects.Figure":
        """Return the interactive figure of this study's Pareto front; a notebook shows it.

        Raises:
            StudyError: no trial has finished yet.
        """
        from nas.records.front_figure import front_figure  # noqa: PLC0415 - Plotly, which only this method needs

        records = self.records()
        finished, objectives = [record for record in records if record.finished], self.settings.objectives
        if not finished:
            raise StudyError(f"{self.name} has no finished trial yet")
        return front_figure(self.name, finished, self.front(records), objectives)

    def _repr_html_(self) -> str:
        """Return the front as a drawing and a table, for a notebook."""
        from nas.report.notebook import as_html  # noqa: PLC0415 - a report; only this method needs it

        records = self.records()
        return as_html(self.name, records, self.front(records), self.settings.objectives)

    def effects(self, records: Sequence[Record] | None = None) -> "Effects":
        """Return what each operator did in each slot, estimated from all trials of this study.

        Args:
            records: of all trials; read if they are not given.

        Raises:
            StudyError: the copy of the study's space cannot be read.
        """
        from nas.report.effects import estimate, rung_accuracies  # noqa: PLC0415 - a report; only this method needs it

        every = self.records() if records is None else records
        has_stopped = any(record.ending == Ending.STOPPED for record in every)
        attributes = {trial.number: trial.user_attrs for trial in self.optuna_trials()} if has_stopped else {}
        return estimate(every, self.space, self.feasible.figures, rung_accuracies(attributes))
