"""Verdict on a search from what is stored of it and of its confirmations."""

from collections.abc import Callable, Sequence
from pathlib import Path

from nas.records.record import Record
from nas.report.confirmations import Confirmation, shown
from nas.report.judging import judge
from nas.report.readable_study import ReadableStudy
from nas.report.verdict import Verdict
from nas.study.confirmation import confirmations_of, number_of, options_of, search_of
from nas.study.folders import command, runs_option
from nas.study.judging import judged_records


def verdict_on(
    study: ReadableStudy,
    open_study: Callable[[Path], ReadableStudy],
    *,
    margin: float | None = None,
    records: Sequence[Record] | None = None,
) -> Verdict | None:
    """Return the verdict on the finalists of a search, or that of one of its confirmations.

    Args:
        study: the search or the confirmation.
        open_study: opens the study of a folder.
        margin: points of mAP50-95 within which two models count as equally accurate; None for that of the
            confirmation.
        records: of the study, if they have been read already.

    Returns:
        None if the search has no confirmation, or the confirmation's search is not there any more.

    Raises:
        ScoreError: what a training has scored on the images that judge is missing or damaged.
    """
    read = study.records() if records is None else records
    search, searched = study, read
    if study.settings.confirms:
        if (beside := search_of(study.folder, study.file)) is None:
            return None
        search = open_study(beside)
        searched = search.records()
    others = [open_study(one) for one in confirmations_of(search.folder, search.file) if one != study.folder]
    studies = [*others, *([study] if study is not search else [])]
    confirmations = {
        one.name: Confirmation(name=one.name, settings=one.settings, records=read if one is study else one.records())
        for one in studies
    }
    if not confirmations:
        return None
    chosen = confirmations[study.name] if study is not search else shown(list(confirmations.values()))
    (fresh,) = [one for one in studies if one.name == chosen.name]
    where = runs_option(search.folder.parent)
    again = options_of(fresh.settings, search.settings) if len(studies) > 1 else ""
    judged, resampled = judged_records(chosen.records, fresh.settings, fresh.folder, f"{search.name}{where}{again}")
    return judge(
        searched,
        judged,
        before=search.settings,
        after=fresh.settings,
        study=search.name,
        confirmation=fresh.name,
        others=[
            f"{one.describe(search.settings)}: {command('pareto', search.folder.with_name(one.name))}"
            for one in confirmations.values()
            if one is not chosen
        ],
        margin=margin or fresh.file.run.margin_or_default,
        workers=fresh.file.run.workers,
        look=_looks(search.name, fresh, studies),
        resampled=resampled,
    )


def _looks(search: str, confirmation: ReadableStudy, confirmations: Sequence[ReadableStudy]) -> int:
    """Return how often a verdict on the search was due, up to that of a confirmation."""
    last = number_of(search, confirmation.name) or 0
    until = [one for one in confirmations if (number_of(search, one.name) or 0) <= last]
    return sum(max(1, len(one.file.run.looks)) for one in until)
