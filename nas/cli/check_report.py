"""Result of `nas check` as a person reads it: failures, the slots of a space, the estimate of a search."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from nas.cli import show

if TYPE_CHECKING:
    from nas.workflows.estimate import Estimate
    from nas.workflows.planned_search import PlannedSearch
    from nas.workflows.space_summary import SpaceSummary
    from search_spaces import Space
    from trials.contracts.case import Failure

COLUMNS = ("operator", "site", "places", "promise", "seen")
"""Columns of the failures as CSV."""


def explanations(names: "Collection[str]") -> list[str]:
    """Return one line for each of the named promises, which explains it."""
    from trials.contracts import export_contract, model_contract, operator_contract, record_contract

    contracts = (
        record_contract.PROMISES,
        operator_contract.PROMISES,
        export_contract.PROMISES,
        model_contract.PROMISES,
    )
    sentences = {
        name: (promise.__doc__ or "").splitlines()[0] for several in contracts for name, promise in several.items()
    }
    return [f"{name:<13} {sentence}" for name, sentence in sentences.items() if name in names]


def failure_lines(failures: "Sequence[Failure]") -> list[str]:
    """Return the failures as lines; what fails in the same way at several sites is one line."""
    alike: dict[tuple[str, str, str], list[Failure]] = {}
    for failure in failures:
        alike.setdefault((failure.operator, failure.promise, failure.seen), []).append(failure)
    lines = []
    for same in alike.values():
        places = tuple(dict.fromkeys(place for failure in same for place in failure.places))
        site = same[0].site if len(same) == 1 else f"{len(same)} distinct sites"
        lines.append(str(replace(same[0], places=places, site=site)))
    return lines


def print_space(space: "Space", search: "PlannedSearch", summary: "SpaceSummary") -> None:
    """Print the slots as a table, and the whole space as lines."""
    from nas.workflows.space_summary import SAMPLES

    columns = {
        "slot": "slot",
        "host": "host",
        "choices": "choices",
        "stock_gflops": "GFLOPs",
        "min_gflops": "least",
        "median_gflops": "median",
        "max_gflops": "most",
    }
    title = f"Search space {space.at_scale} ({space.hash})"
    show.rows([asdict(slot) for slot in summary.slots], "table", title=title, columns=columns)
    sampled = f"of {SAMPLES} random architectures"
    lines = {
        "size": f"{summary.size:.3g} architectures in {len(summary.slots)} slots",
        "deployed": f"at {search.budget.deploy_size} px, {len(search.data.classes)} classes",
        "stock": "; ".join(
            f"{stock.member} {stock.gflops:.2f} GFLOPs, {stock.params / 1e6:.3f} M parameters".lstrip()
            for stock in summary.stocks
        ),
        "GFLOPs": f"{summary.gflops[0]:.2f} to {summary.gflops[1]:.2f}",
        "params": f"{summary.params[0] / 1e6:.3f} M to {summary.params[1] / 1e6:.3f} M",
    }
    if summary.buildable < 1:
        lines["buildable"] = (
            f"{summary.buildable:.0%} {sampled}: two scaling factors together can give a layer that no operator fits"
        )
    if summary.within is not None:
        lines["within"] = f"the limits are {summary.within:.0%} {sampled}"
    show.labelled(lines.items())


def estimate_lines(search: "PlannedSearch", estimate: "Estimate") -> list[str]:
    """Describe how long a search may take, and how that was estimated."""
    from nas.words import span, spans, with_unit

    budget, data, (least, most) = search.budget, search.data, estimate.hours
    trials = f"{with_unit(estimate.trials, 'trial')} of {budget.summary}"
    images = f"{data.train_images} + {data.val_images} images, {estimate.workers} at once"
    trainings = "training of the stock model" if search.stocks == 1 else "trainings of the stock models"
    first = f"the {trainings} {span(estimate.base)}, " if estimate.base else ""
    each = (
        f"{first}a trial of the stock model takes {span(estimate.stock)}, of the costliest {span(estimate.costliest)}"
    )
    return [
        f"search    {trials}, {images}",
        f"estimate  about {span(estimate.seconds)} ({spans(3600 * least, 3600 * most)}): {each}",
        f"measured  steps of {estimate.timed} architectures on {estimate.machine}",
    ]
