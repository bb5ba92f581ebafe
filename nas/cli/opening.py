"""Open a study that commands train, export or report; a spinner shows while PyTorch is imported."""

from pathlib import Path
from typing import TYPE_CHECKING

from nas.cli import show

if TYPE_CHECKING:
    from nas.study.study import Study


def opened(name: str, runs: Path) -> "Study":
    """Return a study by its name, with the files of other machines, if there are any.

    Raises:
        NasError: there is no such study, or its files cannot be read.
    """
    from nas.study.folders import existing

    folder = existing(name, runs)
    with show.err.status(f"opening {name}"):
        from nas.study.fetching import fetched
        from nas.study.study import Study

        return fetched(Study.open(folder))
