"""Open a study that commands train, export or report; a spinner shows while PyTorch is imported."""

from pathlib import Path
from typing import TYPE_CHECKING

import nas
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
    with show.err.status(f"opening {name}"):
        return nas.open_study(name, trust=trust, runs=runs)
