"""Findings of a study before fresh seeds have judged its finalists: what scores show, and which command judges them."""

from collections.abc import Sequence

from nas.algorithms.pareto import main_cost
from nas.records.record import Record, stocks_of
from nas.records.trial_files import TrialFiles
from nas.report import stock_front, stock_models, verdicts
from nas.report.readable_study import ReadableStudy
from nas.report.trust import Trust
from nas.report.trusting import noise_of, number_of_finalists
from nas.study.folders import command
from nas.study.trained_again import Trained


def search_findings(
    study: ReadableStudy, records: Sequence[Record], front: Sequence[Record], stock: Record, trust: Trust | None
) -> list[str]:
    """Return what the scores of a study show, one sentence each.

    Args:
        records: of all trials.
        front: Pareto front, not empty.
        stock: record of the stock model, which has finished; of several members see `stock_front`.
        trust: how far the ranking can be believed; None if it is not known, or the study trains models again.
    """
    if study.settings.stock_only:
        commands = {name: command(name, study.folder) for name in ("export", "confirm")}
        return stock_models.verdict_lines(records, front, study.settings, **commands)
    if study.settings.members:
        cost, pareto = main_cost(study.settings.objectives), command("pareto", study.folder)
        confirm = judging_command(study)
        beside = stock_front.findings(front, stocks_of(records), cost, confirm=confirm, pareto=pareto)
        return [*beside, *left_out(study)]
    judging, is_search = judging_command(study), study.settings.confirms is None
    noise = trust.noise if trust else noise_of(Trained.of(study.folder, study.file, list(records)), [])
    measure = trust.measure if trust else command("trust", study.folder) if is_search else judging
    finalists = trust.finalists if trust else number_of_finalists(front)
    best = max(front, key=lambda record: record.map50_95 or 0.0)
    found = [
        verdicts.gain(records, best, stock, noise=noise, finalists=finalists, confirm=judging, measure=measure),
        verdicts.saving(front, stock, main_cost(study.settings.objectives)),
    ]
    if best.trial == stock.trial and len(front) > 1:
        found.append(f"let fresh seeds judge the front: {judging}")
    return [text for text in found if text]


def left_out(study: ReadableStudy) -> list[str]:
    """Return a line for each member of a search that is left out: its stock model was stopped, or has failed."""
    settings = study.settings
    if settings.base is None or not settings.members:
        return []
    trainings = TrialFiles.of_stock_models(study.folder, settings.members)
    outcomes = {member: files.read_outcome() for member, files in trainings.items()}
    return stock_models.left_out_lines(outcomes, settings.base.epochs)


def judging_command(study: ReadableStudy) -> str:
    """Return the command that trains fresh seeds; of longer trainings, for as many epochs."""
    search = study.settings.confirms
    if search is None:
        return command("confirm", study.folder)
    return f"{command(f'confirm {search}', study.folder, named=False)} --epochs {study.settings.budget.epochs}"
