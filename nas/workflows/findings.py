"""What MLflow shows beside a study's trials: verdict, ablations, how far to believe it; its place in another study."""

import json
import logging
from collections.abc import Iterable, Iterator, Sequence

from nas.records.record import stock_of
from nas.report.ablation import Ablation
from nas.report.search_findings import search_findings
from nas.report.trust import Trust
from nas.report.verdict import Verdict
from nas.study.ablations import ablated_trial, ablated_trials
from nas.study.folders import STUDY
from nas.study.kinds import Kind, kind_of
from nas.study.study import Study
from nas.tracking.findings import Findings, JudgedTrial, Stage
from search_spaces.errors import NasError

_log = logging.getLogger(__name__)


def stage_of(study: Study) -> Stage | None:
    """Return a study's place in the study whose models it trains again; None for a search."""
    search = study.settings.confirms
    if search is None:
        return None
    kind, trial = kind_of(study.file), ablated_trial(study.file)
    purposes = {
        Kind.CONFIRM: f"trains the finalists of {search} and the stock model with fresh seeds",
        Kind.ABLATE: f"trains trial {trial} of {search} with stock put back in one slot at a time",
        Kind.CALIBRATE: f"measures the noise between seeds, and how much the stock model of {search} gains",
        Kind.LONGER: f"trains the Pareto front of {search} longer",
    }
    return Stage(kind=kind.value, folder=study.folder.with_name(search), purpose=purposes[kind])


def findings_of(study: Study) -> Findings:
    """Return the verdict on a search, or of a confirmation, ablations of trials, effects, and what the search can tell.

    A study beside it that cannot be read is named in the log: tracking goes on without it.
    """
    try:
        records = study.records()
        verdict = study.verdict(records=records)
        ablations = list(_ablations(study))
        trust = study.trust_beside(verdict, records) if study.settings.proposes else None
        effects = study.effects() if study.settings.proposes else None
    except NasError as problem:
        why = str(problem).removeprefix(f"{study.name}: ")
        _log.warning("MLflow is not sent the verdict, ablations and effects of %s: %s", study.name, why)
        return Findings()
    groups = [[] if verdict is None else verdict.lines(), *(ablation.lines() for ablation in ablations)]
    if study.settings.members and verdict is None and (stock := stock_of(records)) is not None:
        groups.append(search_findings(study, records, study.front(records), stock, None))
    remarks: list[list[str]] = []
    tables = {} if verdict is None else {"verdict.json": json.dumps(verdict.as_document(), indent=1)}
    for ablation in ablations:
        tables[f"ablation-{ablation.trial:04d}.json"] = json.dumps(ablation.as_document(), indent=1)
    if trust is not None and (trust.noise is not None or trust.slope is not None):
        remarks.append(_on_budget(trust))
        tables["trust.json"] = json.dumps(trust.as_document(), indent=1)
    if effects is not None and effects.rows:
        remarks.append(["Effects of operators:", *effects.remarks()])
        tables["effects.json"] = json.dumps([row.as_row() for row in effects.rows], indent=1)
    judged = {} if verdict is None or study.settings.confirms else _judged(verdict)
    return Findings(lines=tuple(_joined(groups)), remarks=tuple(_joined(remarks)), trials=judged, tables=tables)


def _joined(groups: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of several groups, with an empty one between two of them."""
    filled = [group for group in groups if group]
    return [line for number, group in enumerate(filled) for line in ([""] if number else []) + list(group)]


def _on_budget(trust: Trust) -> list[str]:
    """Return a warning if the budget is too short to rank, or that cannot be told; empty if it is not."""
    return [f"Budget: {trust.slope.sentence}"] if trust.slope is not None and trust.slope.is_warning else []


def _judged(verdict: Verdict) -> dict[int, JudgedTrial]:
    """Return the findings on a search's trials, by number."""
    return {
        one.trial: JudgedTrial(
            finding=str(one.finding),
            sentence=one.sentence,
            seeds=len(verdict.seeds),
            difference=one.difference,
            low=one.low,
            high=one.high,
        )
        for one in verdict.finalists
        if one.trial is not None
    }


def _ablations(study: Study) -> Iterator[Ablation]:
    """Yield the ablations of a search's trials; of an ablation itself that one, if its search is still there."""
    search, trials, trial = study, ablated_trials(study.folder), ablated_trial(study.file)
    if trial is not None:
        folder = study.folder.with_name(str(study.settings.confirms))
        search, trials = (Study.open(folder), [trial]) if (folder / STUDY).is_file() else (study, [])
    for number in trials:
        ablation = search.ablation(number)
        if ablation is not None:
            yield ablation
