"""Say why noise or slope of a search is not measured, although trainings were asked for that measure them."""

from collections import Counter
from collections.abc import Sequence

from nas.records.record import has_learned, stock_of
from nas.study.trained_again import Trained


def why_no_noise(again: Sequence[Trained]) -> str:
    """Return why the noise between seeds is not measured.

    Args:
        again: studies that train models of the search again.
    """
    repeating = [one for one in again if one.repeats and one.records]
    return _without_score(repeating[0]) if repeating else "no architecture was trained twice"


def why_no_slope(search: Trained, again: Sequence[Trained]) -> str:
    """Return why it is not measured how much the stock model gains."""
    stock = stock_of(search.records)
    if stock is None:
        status = [record.status for record in search.records if record.role == "stock"][-1:] or ["missing"]
        return f"the stock model has no score in {search.name}: its trial is {status[0]}"
    if not has_learned(stock.map50_95) or not has_learned(search.base):
        return "the stock model has learned nothing"
    longer = [one for one in again if one.epochs > search.epochs and one.records]
    if longer:
        return _without_score(longer[0])
    return "no stock model is trained before the trials, and none longer"


def _without_score(study: Trained) -> str:
    """Return how many trainings of a study have a score, and how the others ended."""
    others = Counter(record.status for record in study.records if not record.finished)
    scored = sum(record.finished for record in study.records)
    rest = ", ".join(f"{number} {status}" for status, number in sorted(others.items()))
    which = f"{scored} of {len(study.records)} trainings in {study.name} have a score"
    return f"{which} ({rest}); see nas trials {study.name}" if rest else f"{which}, of too few architectures and seeds"
