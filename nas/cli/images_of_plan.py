"""Images that the trainings of `nas confirm` and `nas ablate` read: opened while a status is shown, and in words."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nas.cli import show

if TYPE_CHECKING:
    from nas.workflows.paired_plan import PairedPlan


@contextmanager
def opening_images() -> Iterator[Callable[[int, int], None]]:
    """Show that images are checked; yield what to call with how many of how many are opened."""
    with show.err.status("reading the data set") as status:
        yield lambda done, total: status.update(f"opening images: {done} of {total} checked")


def lines_on_images(plan: "PairedPlan") -> list[str]:
    """Return the line of a plan on its images; none if all are trained on, as in the search."""
    text = images_of(plan)
    return [f"images    {text}"] if text else []


def images_of(plan: "PairedPlan") -> str:
    """Return how many images the trainings read; empty if all are trained on, as in the search."""
    from nas.report.other_images import images_in_words

    text = images_in_words(plan.search.settings.subset, plan.settings.subset)
    return f"{text}; the stock model is trained on them first" if plan.trains_stock_first else text
