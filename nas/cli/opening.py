"""Open a study that commands train, export or report; a spinner shows while PyTorch is imported."""

from pathlib import Path
from typing import TYPE_CHECKING

from nas.cli import show

if TYPE_CHECKING:
    from nas.study.study import Study


def opened(name: str, runs: Path, *, trust: bool = False) -> "Study":
    """Return a study by its name, with the files of other machines, if there are any.

    Args:
        trust: run the operator files that it brings, also if this user has not run them before.

    Raises:
        NasError: there is no such study, or its files cannot be read.
    """
    from nas.study.folders import existing

    folder = existing(name, runs)
    with show.err.status(f"opening {name}"):
        from nas.study import operator_files
        from nas.study.fetching import fetched
        from nas.study.study import Study

        study = fetched(Study.open(folder))
        if trust:
            operator_files.trust(folder)
        return study
