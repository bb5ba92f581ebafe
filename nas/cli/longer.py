"""`nas confirm --longer`: train the Pareto front of a study longer, to see whether its order stays."""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from nas.cli import options, show
from nas.cli.fronts import nothing_learned, relative
from nas.cli.searching import train
from nas.cli.show import Format

if TYPE_CHECKING:
    from nas.study.study import Study
    from nas.workflows.longer import Finalist

ETA, ROUNDS = 3, 2
_BESIDE_STOCK = ("map50_95_gain_before", "map50_95_gain", "of_stock")
"""Columns of figures beside the stock model."""


def train_longer(before: "Study", typed: options.Typed, *, eta: int, rounds: int, shown: Format) -> None:
    """Train the front of a study `eta` times as long, and once more while that changes its order."""
    from nas.workflows.longer import finalists, longer

    rows = list[dict[str, Any]]()
    for _ in range(rounds):
        after = longer(before, eta=eta, **typed)
        _train(before, after)
        both = finalists(before.records(), after.records())
        rows += _print_comparison(before, after, both, shown)
        if _is_incomplete(before, after, eta) or not _changes_order(before, after, both):
            break
        before = after
    if not nothing_learned(after):
        show.lines([f"export the most accurate with: {options.command_for('export', after)} --best map"])
    if shown != "table":
        show.rows(rows, shown, title="", columns={})


def _train(before: "Study", after: "Study") -> None:
    """Run the longer trainings that are not finished yet."""
    from nas.words import with_unit

    few, many = _epochs(before, after)
    stock = " and stock models" if before.settings.members else " and the stock model"
    beside = "" if before.settings.stock_only else stock
    show.lines([f"confirm   the front of {before.name}{beside}: {with_unit(many, 'epoch')} instead of {few}"])
    if after.unfinished_trials(after.records()):
        train(after)


def _print_comparison(before: "Study", after: "Study", both: "Sequence[Finalist]", shown: str) -> list[dict[str, Any]]:
    """Print accuracies after the shorter and the longer training; return the rows for programs."""
    from nas.words import with_unit
    from nas.workflows.longer import unfinished

    few, many = _epochs(before, after)
    rows = _rows(after, both)
    if shown == "table":
        title = f"{before.name} after {few} and {many} epochs: mAP50-95"
        columns, narrow = _columns(before, few, many), ["gflops", "map50_95_gain_before"]
        if before.settings.stock_only:  # each would stand beside itself
            columns = {name: text for name, text in columns.items() if name not in _BESIDE_STOCK}
            narrow.remove("map50_95_gain_before")
        show.rows(rows, "table", title=title, columns=columns, narrow=narrow)
    trained = with_unit(many, "epoch")
    show.lines(
        f"{one.summary} has no score after {trained}: {one.ending}; {one.advice}" for one in unfinished(after.records())
    )
    return [{name: value for name, value in row.items() if name != "of_stock"} for row in rows]


def _is_incomplete(before: "Study", after: "Study", eta: int) -> bool:
    """Say why the longer trainings cannot be compared: the stock model learned nothing, or some are not finished."""
    if unlearned := nothing_learned(after):
        show.lines(unlearned)
        return True
    if left := after.unfinished_trials(after.records()):
        again = options.command_for("confirm", before)
        show.lines([f"{left} trainings are left; continue with: {again} --longer --eta {eta}"])
        return True
    return False


def _changes_order(before: "Study", after: "Study", both: "Sequence[Finalist]") -> bool:
    """Say which models overtook others by more than the noise, and whether any did."""
    from nas.words import with_unit
    from nas.workflows.longer import noise_of, rank_inversions

    if nothing_learned(before):
        short, long = _epochs(before, after)
        show.lines([f"Nothing was learned in {with_unit(short, 'epoch')}: no order to compare with that of {long}."])
        return False
    noise = noise_of(before.records(), before.settings.noise)
    inversions = rank_inversions(both, noise)
    for trial, others in groupby(inversions, key=lambda pair: pair[0].shorter.trial):
        show.lines([f"trial {trial} has overtaken {', '.join(str(other.shorter.trial) for _, other in others)}"])
    if not inversions:
        few = with_unit(before.settings.budget.epochs, "epoch")
        order = f"The order stays within noise ({100 * noise:.1f} points)"
        show.lines([f"{order}: trainings of {few} rank these models as well.", *_source_of_noise(before)])
    return bool(inversions)


def _epochs(before: "Study", after: "Study") -> tuple[int, int]:
    return before.settings.budget.epochs, after.settings.budget.epochs


def _source_of_noise(before: "Study") -> list[str]:
    """Say where the noise was measured, unless this study measured it itself."""
    from nas.workflows.longer import measured_deviation
    from trials.recipes import NOISE_MEASURED

    if measured_deviation(before.records()) is not None:
        return []
    return [f"That noise is twice the deviation between seeds {NOISE_MEASURED}, not here; --seeds 3 measures it."]


def _columns(before: "Study", few: int, many: int) -> dict[str, str]:
    from nas.report.beside_stock import reference_in_words
    from nas.words import with_unit

    stock = reference_in_words(before.settings.members)
    return {
        "trial": "trial",
        "map50_95_before": with_unit(few, "epoch"),
        "map50_95_gain_before": f"over {stock}",
        "map50_95": with_unit(many, "epoch"),
        "map50_95_gain": f"over {stock}",
        "gflops": "GFLOPs",
        "of_stock": f"of {stock}",
        "summary": "architecture",
    }


def _rows(after: "Study", both: "Sequence[Finalist]") -> list[dict[str, Any]]:
    from nas.algorithms.pareto import main_cost

    stocks = {one.longer.member: one for one in both if one.longer.role == "stock"}
    cost = main_cost(after.settings.objectives)
    return [_row(after, one, stocks.get(one.longer.member), cost) for one in both]


def _row(after: "Study", one: "Finalist", stock: "Finalist | None", cost: str) -> dict[str, Any]:
    """Return the row of a model, compared with the stock model of its member."""
    bases = (None, None) if stock is None else stock.accuracies
    gains = [None if base is None else accuracy - base for accuracy, base in zip(one.accuracies, bases, strict=True)]
    return {
        "study": after.name,
        "epochs": after.settings.budget.epochs,
        "trial": one.shorter.trial,
        "map50_95_before": one.shorter.map50_95,
        "map50_95_gain_before": gains[0],
        "map50_95": one.longer.map50_95,
        "map50_95_gain": gains[1],
        "gflops": one.longer.gflops,
        "params": one.longer.params,
        "fingerprint": one.longer.fingerprint,
        "summary": one.longer.summary,
        "of_stock": relative(getattr(one.longer, cost), None if stock is None else getattr(stock.longer, cost)),
    }
