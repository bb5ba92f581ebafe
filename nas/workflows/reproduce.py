"""Reproduce a trial: train it again under the conditions that it recorded, and compare the results to the bit.

Seed, recipe, data, device, number of threads, code and versions determine a training (`trials.provenance`). Where one
of them differs, another result is no error, so nothing is trained unless that is requested. The training has the
study's budget and the weights of its stock model. Its files are in a temporary folder; nothing is written into the
study, and the score cache is neither read nor written.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from nas import signals
from nas.records.record import TRAINED_BEFORE, Record, find_record
from nas.records.stored_outcome import PROVENANCE
from nas.settings import flatten
from nas.study.study import Study
from nas.workflows.reproduction import DATA, ComparedEpoch, Condition, Figure, Reproduction
from nas.workflows.scratch import scratch_folder
from search_spaces import Architecture
from search_spaces.errors import DataError, SpecError, StudyError
from trials import Budget, Ending, Epoch, Limits, Outcome, evaluate
from trials.data.datasets import DataSet
from trials.devices import CPU
from trials.provenance import Provenance
from trials.scores import Costs

_TRAINED_TO_ITS_END = frozenset({Ending.FINISHED, Ending.DIVERGED})
_ENDED_BY_LOAD = frozenset({Ending.TIMED_OUT, Ending.OUT_OF_MEMORY, Ending.CRASHED})
"""Endings that depend on what else the machine does; the epochs before them do not."""
_COMPARABLE = _TRAINED_TO_ITS_END | {Ending.STOPPED} | _ENDED_BY_LOAD
_CODE, _COMMIT, _WEIGHTS = "code", "commit", "weights"
_LATENCY = "latency_ms"
_FIGURES = ("map50_95", "map50", "gflops", "params")


def reproduce(
    study: Study, *, trial: int, anyway: bool = False, show: Callable[[ComparedEpoch], None] = lambda _: None
) -> Reproduction:
    """Train a trial again and compare the two trainings to the bit.

    A trial that finished, was stopped at a rung or diverged is compared up to its ending. One that timed out, ran out
    of memory or crashed is compared as far as it was trained. A trial whose score came from the score cache is trained
    here, and compared with the training that the score came from.

    Args:
        trial: its number.
        anyway: train also if conditions other than the data differ. Without the study's GPU, the CPU is used.
        show: called after every epoch.

    Raises:
        SpecError: the study has no such trial.
        EnvironmentProblem: the temporary folder or the cache folder cannot be written to.
        KeyboardInterrupt: at Ctrl-C, SIGTERM or SIGHUP, after the temporary folder was deleted.
    """
    recorded = _RecordedTrial.of(study, trial)
    result = recorded.described()
    if reason := recorded.reason_not_to_train():
        return replace(result, reasons=(reason,))
    try:
        _ = study.space  # refuses one that has changed; adds the operators of the user's files
        architecture, data = study.architecture(recorded.record), study.data_set()
    except (DataError, SpecError, StudyError) as error:
        return replace(result, reasons=tuple(str(error).splitlines()))
    budget = recorded.budget()
    result = replace(result, conditions=recorded.conditions(Provenance.of(budget, data), data))
    if reasons := _reasons(result.differing, recorded.provenance, anyway=anyway):
        return replace(result, reasons=reasons)
    outcome, epochs = _train(recorded, architecture, budget, show)
    return replace(
        result,
        ending=recorded.ending_of(outcome),
        epochs=tuple(epochs),
        figures=tuple(recorded.figures(outcome)),
        remarks=tuple(recorded.remarks(outcome)),
    )


def _train(
    recorded: "_RecordedTrial", architecture: Architecture, budget: Budget, show: Callable[[ComparedEpoch], None]
) -> tuple[Outcome, list[ComparedEpoch]]:
    """Train in a temporary folder; return the outcome, and all recorded epochs compared."""
    compared: list[ComparedEpoch] = []
    last = recorded.last or budget.epochs

    def go_on(number: int, epoch: Epoch) -> bool:
        if number in recorded.epochs:
            compared.append(_compare(recorded.epochs[number], epoch, of=last))
            with suppress(OSError):  # the terminal may be closed: the training continues without it
                show(compared[-1])
        return number < last

    with signals.as_ctrl_c(), scratch_folder("reproduce") as scratch:
        costs = recorded.costs(architecture)
        outcome = evaluate(architecture, budget, scratch, go_on, limits=Limits(), costs=costs)
    reached = {epoch.epoch for epoch in compared}
    missing = [_compare(epoch, None, of=last) for number, epoch in recorded.epochs.items() if number not in reached]
    return outcome, [*compared, *missing]


@dataclass(frozen=True, kw_only=True)
class _RecordedTrial:
    """Trial with all that it recorded.

    Attributes:
        stored: fields of its outcome.
        epochs: by number, in order.
    """

    study: Study
    record: Record
    stored: Mapping[str, Any]
    epochs: Mapping[int, Epoch]

    @classmethod
    def of(cls, study: Study, trial: int) -> "_RecordedTrial":
        record = find_record(study.records(), trial, study=study.name)
        files = study.files(trial)
        stored = files.read_outcome() or study.optuna_trials()[trial].user_attrs  # which have the same fields
        epochs = {epoch.epoch: epoch for epoch in files.read_epochs()}
        return cls(study=study, record=record, stored=stored, epochs=epochs)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Recorded provenance; empty if there is none."""
        stored = self.stored.get(PROVENANCE)
        return stored if isinstance(stored, Mapping) else {}

    @property
    def detail(self) -> str:
        return str(self.stored.get("detail", ""))

    @property
    def last(self) -> int | None:
        """Epoch after which the training ends; None if it goes on to its end."""
        return None if self.record.ending in _TRAINED_TO_ITS_END else max(self.epochs)

    def described(self) -> Reproduction:
        """Return a reproduction with the trial's description, and nothing compared yet."""
        is_cached = self.detail.startswith(TRAINED_BEFORE)
        return Reproduction(
            study=self.study.name,
            trial=self.record.trial,
            fingerprint=self.record.fingerprint,
            summary=self.record.summary,
            recorded_ending=_ending(self.record.ending, self.detail),
            origin=self.detail.removeprefix(f"{TRAINED_BEFORE}, in ") if is_cached else "",
        )

    def reason_not_to_train(self) -> str:
        """Return why the trial cannot be trained or compared at all; empty if it can."""
        which, ending = f"trial {self.record.trial} is {self.record.status}", self.record.ending
        if ending is None:
            return f"{which}: it has no result yet"
        if ending not in _COMPARABLE:
            return f"{which}, without a result to compare: {self.record.advice}"
        if ending not in _TRAINED_TO_ITS_END and not self.epochs:
            return f"{which}, and no epoch of it is recorded: there is nothing to compare"
        weights = self.study.scoring.budget(self.study.architecture(self.record)).weights
        if weights is not None and not weights.is_file():
            return f"{weights}: the weights from which the trial started are missing"
        return ""

    def budget(self) -> Budget:
        """Return the trial's budget, validated after the recorded epochs; without time limit, which changes no score.

        A trial whose score came from the score cache may have been validated after other epochs than this study's.
        """
        architecture = self.study.architecture(self.record)
        budget = self.study.scoring.budget(architecture, self.record.repeat)
        validated = (number for number, epoch in self.epochs.items() if epoch.map50_95 is not None)
        rungs = tuple(number for number in validated if number < budget.epochs)
        device = budget.device if budget.device == CPU or _has_gpu(budget.device) else CPU
        return budget.model_copy(update={"rungs": rungs, "timeout": None, "device": device})

    def costs(self, architecture: Architecture) -> Costs:
        """Return the costs as counted and predicted; without a latency that would have to be measured."""
        scoring = self.study.scoring
        if (costs := scoring.costs(architecture)) is not None:
            return costs
        counted = scoring.cost_table.cost(architecture)
        return Costs(params=counted.params, gflops=counted.gflops)

    def conditions(self, here: Provenance, data: DataSet) -> tuple[Condition, ...]:
        """Return the conditions of both trainings. The data set's fingerprint is in the study's settings, too."""
        there = _as_text({DATA: self.study.settings.data_fingerprint, **self.provenance})
        now = _as_text({**asdict(here), DATA: data.fingerprint})
        names = [name for name in now | there if name != _COMMIT]  # most commits change no score; see `code`
        if self.provenance and _WEIGHTS not in self.provenance:  # an earlier version did not record them
            names.remove(_WEIGHTS)
        return tuple(Condition(name=name, recorded=there.get(name), here=now.get(name)) for name in names)

    def ending_of(self, outcome: Outcome) -> str:
        """Return the ending of another training as text; the recorded one if it reached the last recorded epoch."""
        if self.last is not None and outcome.ending in {Ending.STOPPED, Ending.FINISHED}:
            return _ending(self.record.ending, self.detail)
        return _ending(outcome.ending, outcome.detail)

    def figures(self, outcome: Outcome) -> Iterator[Figure]:
        """Yield the final scores and costs that are recorded, except for measured latencies."""
        parts = [asdict(part) for part in (outcome.scores, outcome.costs) if part is not None]
        now = {name: value for part in parts for name, value in part.items()}
        for name in (*_FIGURES, *([_LATENCY] if self.study.latency_table else [])):
            if self.stored.get(name) is not None:
                yield Figure(name=name, recorded=self.stored[name], here=now.get(name))

    def remarks(self, outcome: Outcome) -> Iterator[str]:
        """Yield what was not compared, and why the result may differ."""
        if self.record.ending in _ENDED_BY_LOAD:
            yield f"{self.record.ending} depends on the machine's load: only the recorded epochs were compared"
        missing = [str(epoch.epoch) for epoch in outcome.epochs if epoch.epoch not in self.epochs]
        if missing:
            yield f"not in progress.jsonl, so not compared: epoch {', '.join(missing)}"
        if self.stored.get(_LATENCY) is not None and not self.study.latency_table:
            yield "the latency was measured, so not compared: it differs from one measurement to the next"
        if self.study.settings.budget.device != CPU:
            yield "on a GPU some kernels add in any order: small differences are no error"


def _reasons(differing: Sequence[Condition], provenance: Mapping[str, Any], *, anyway: bool) -> tuple[str, ...]:
    """Return why nothing is trained under these conditions: other data always, the others unless `anyway`."""
    for condition in differing:
        if condition.name == DATA:
            return (f"the data set has changed since the trial was trained ({condition})",)
    if anyway or not differing:
        return ()
    if not provenance:
        return ("the trial did not record its device, code and versions: its process died, or an old version ran it",)
    commit = f" (commit {provenance.get(_COMMIT)} there)" if provenance.get(_COMMIT) else ""
    return tuple(f"{condition}{commit if condition.name == _CODE else ''}" for condition in differing)


def _compare(recorded: Epoch, here: Epoch | None, *, of: int) -> ComparedEpoch:
    """Compare an epoch with that of another training; None if that did not reach it."""
    before, now = _values(recorded), {} if here is None else _values(here)
    figures = (Figure(name=name, recorded=before.get(name), here=now.get(name)) for name in before | now)
    return ComparedEpoch(epoch=recorded.epoch, of=of, figures=tuple(figures))


def _values(epoch: Epoch) -> dict[str, float]:
    accuracies = {"map50_95": epoch.map50_95, "map50": epoch.map50}
    return {**epoch.losses, **{name: value for name, value in accuracies.items() if value is not None}}


def _ending(ending: str | None, detail: str) -> str:
    """Return an ending as text, with its detail unless it finished; of a diverged one that names the epoch."""
    return f"{ending}: {detail}" if detail and ending not in {Ending.FINISHED, None} else str(ending or "")


def _as_text(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Return each value of a provenance as text, with a name such as `versions.torch` for each version."""
    return {name: str(value) for name, value in flatten(provenance)}


def _has_gpu(device: str) -> bool:
    return torch.cuda.is_available() and device.isdigit() and int(device) < torch.cuda.device_count()
