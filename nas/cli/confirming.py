"""`nas confirm`: the front of a study, trained longer."""

from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli import show
from nas.cli.fronts import nothing_learned, relative
from nas.cli.options import Device, Name, Runs, Shown, Timeout, TrialMemory, Workers, typed
from nas.cli.searching import train
from nas.paths import RUNS

if TYPE_CHECKING:
    from nas.study.study import Study
    from nas.workflows.confirm import Finalist


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(confirm)


@show.told
def confirm(
    study: Name,
    eta: Annotated[int, typer.Option(min=2, help="How many times as long its front is trained.")] = 3,
    rounds: Annotated[
        int, typer.Option(min=1, help="At most so often, each time as many times as long as the time before.")
    ] = 2,
    workers: Workers = None,
    device: Device = None,
    timeout: Timeout = None,
    trial_memory: TrialMemory = None,
    runs: Runs = RUNS,
    shown: Shown = "table",
) -> None:
    """Train the front longer, with another seed, and once more while that changes its order.

    A search trains briefly. Here its front and the stock model are trained three times as long, in a study of their
    own (STUDY-x3), which can be resumed, shown and exported from like any other. If one has overtaken another by more
    than noise, what is the front then is trained longer once more (STUDY-x3-x3); else longer trainings are not needed.
    """
    from nas.report.verdicts import with_unit
    from nas.study.folders import existing
    from nas.study.study import Study
    from nas.workflows.confirm import finalists, longer, noise_of, rank_inversions, unfinished

    before, told = Study.open(existing(study, runs)), list[dict[str, Any]]()
    changes = {"workers": workers, "device": device, "timeout": timeout, "trial_memory": trial_memory}
    for _ in range(rounds):
        after = longer(before, eta=eta, **changes)
        few, many = (one.settings.budget.epochs for one in (before, after))
        show.lines(
            [f"confirm   the front of {before.name} and the stock model: {with_unit(many, 'epoch')} instead of {few}"]
        )
        if after.remaining_trials(after.records()):
            train(after)
        earlier, later = before.records(), after.records()
        both = finalists(earlier, later)
        rows = _rows(after, both)
        told += [{name: value for name, value in row.items() if name != "of_stock"} for row in rows]
        if shown == "table":
            title = f"{before.name} after {few} and {many} epochs: mAP50-95"
            show.rows(rows, shown, title=title, columns=_columns(few, many), narrow=("gflops", "map50_95_gain_before"))
        epochs = with_unit(many, "epoch")
        show.lines(
            f"{one.summary} has no score after {epochs}: {one.ending}; {one.advice}" for one in unfinished(later)
        )
        unlearned = nothing_learned(after)
        if unlearned:
            show.lines(unlearned)
            break
        if left := after.remaining_trials(later):
            show.lines([f"{left} trainings are left; go on with: {typed('confirm', before)} --eta {eta}"])
            break
        noise = noise_of(earlier, before.settings.noise)
        passed = rank_inversions(both, noise)
        for trial, others in groupby(passed, key=lambda pair: pair[0].shorter.trial):
            show.lines([f"trial {trial} has overtaken {', '.join(str(other.shorter.trial) for _, other in others)}"])
        if not passed:
            said = f"The order stays within noise ({100 * noise:.1f} points)"
            show.lines([f"{said}: trainings of {with_unit(few, 'epoch')} tell these apart as well.", *_noise(before)])
            break
        before = after
    if not unlearned:
        show.lines([f"export the most accurate with: {typed('export', after)} --best map"])
    if shown != "table":
        show.rows(told, shown, title="", columns={})


def _noise(before: "Study") -> list[str]:
    """Say what is taken for noise, where this study has not measured it."""
    from nas.study.repeats import deviation
    from trials.presets import NOISE_MEASURED

    if deviation(before.records()) is not None:
        return []
    return [f"That noise is twice the deviation between seeds {NOISE_MEASURED}, not here; --seeds 3 measures it."]


def _columns(few: int, many: int) -> dict[str, str]:
    from nas.report.verdicts import with_unit

    return {
        "trial": "trial",
        "map50_95_before": with_unit(few, "epoch"),
        "map50_95_gain_before": "over stock",
        "map50_95": with_unit(many, "epoch"),
        "map50_95_gain": "over stock",
        "gflops": "GFLOPs",
        "of_stock": "of stock",
        "summary": "architecture",
    }


def _rows(after: "Study", both: "list[Finalist]") -> list[dict[str, Any]]:
    from nas.algorithms.pareto import main_cost

    stocks = next((one.accuracies for one in both if one.longer.role == "stock"), (None, None))
    stock = next((one.longer for one in both if one.longer.role == "stock"), None)
    cost = main_cost(after.settings.objectives)
    reference = getattr(stock, cost) if stock is not None else None
    return [{**_row(after, one, stocks), "of_stock": relative(getattr(one.longer, cost), reference)} for one in both]


def _row(after: "Study", one: "Finalist", stocks: tuple[float | None, float | None]) -> dict[str, Any]:
    gains = [None if base is None else own - base for own, base in zip(one.accuracies, stocks, strict=True)]
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
    }
