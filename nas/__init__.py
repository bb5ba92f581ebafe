"""Automated neural architecture search for YOLO detectors.

import nas

study = nas.search(space="v9", data="digits", trials=12)
for record in study.front():
    print(record.map50_95, record.gflops, record.summary)
study.export(best="map")
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas._version import __version__
from nas.paths import RUNS

if TYPE_CHECKING:
    from nas.study.study import Study

__all__ = ["RUNS", "__version__", "open_study", "resume", "search"]


def search(**request: Any) -> "Study":
    """Search, and return the study when its number of trials is reached.

    Args:
        request: the fields of `nas.workflows.request.Request`, which are the flags of `nas search`; all have defaults.

    Raises:
        NasError: what was asked for cannot be done; the text says why.
    """
    from nas.workflows.plan import Plan
    from nas.workflows.request import Request
    from nas.workflows.running import supervise

    study = Plan.of(Request.of(**request)).begin()
    supervise(study)
    return study


def resume(study: str, **changes: Any) -> "Study":
    """Go on with a study until its number of trials is reached.

    Args:
        study: its name.
        changes: `trials`, `timeout`, `workers` or `device` instead of what they were, `runs` for where studies lie.
    """
    from nas.workflows.begin import resume as take_up
    from nas.workflows.running import supervise

    taken_up = take_up(study, **changes)
    supervise(taken_up)
    return taken_up


def open_study(study: str, *, runs: str | Path = RUNS) -> "Study":
    """A study as it stands, to look at and to export from."""
    from nas.study.folders import existing
    from nas.study.study import Study

    return Study.open(existing(study, Path(runs)))
