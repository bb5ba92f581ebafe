"""Automated neural architecture search for YOLO detectors.

import nas

study = nas.search(space="v9", data="digits", trials=12)
for record in study.front():
    print(record.map50_95, record.gflops, record.summary)
study.export(best="map")
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.study import Study

__version__ = "0.1.0"
__all__ = ["RUNS", "open_study", "resume", "search"]

RUNS = Path("runs/nas")
"""The folder of all studies, where no other is named."""


def search(**request: Any) -> "Study":
    """Search, and return the study when its number of trials is reached.

    Args:
        request: the fields of `nas.request.Request`, which are the flags of `nas search`; all have defaults.

    Raises:
        NasError: what was asked for cannot be done; the text says why.
    """
    from nas.plan import Plan, supervise
    from nas.request import Request

    study = Plan.of(Request.of(**request)).begin()
    supervise(study)
    return study


def resume(study: str, **changes: Any) -> "Study":
    """Go on with a study until its number of trials is reached.

    Args:
        study: its name.
        changes: `trials`, `timeout`, `workers` or `device` instead of what they were, `runs` for where studies lie.
    """
    from nas.plan import resume as take_up
    from nas.plan import supervise

    taken_up = take_up(study, **changes)
    supervise(taken_up)
    return taken_up


def open_study(study: str, *, runs: str | Path = RUNS) -> "Study":
    """A study as it stands, to look at and to export from."""
    from nas.config import existing
    from nas.study import Study

    return Study.open(existing(study, Path(runs)))
