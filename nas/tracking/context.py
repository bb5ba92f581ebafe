"""Properties of a study that MLflow shows beside its results: data sets, searched choices, user, code."""

import getpass
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nas._version import __version__
from trials.provenance import commit

_COMMAND = re.compile(r"[a-z][a-z-]*")


@dataclass(frozen=True, kw_only=True)
class DataInput:
    """Data set of a run, as MLflow's data set input.

    Attributes:
        name: of the data set.
        digest: fingerprint of its images' names, sizes and labels.
        place: absolute path of its data.yaml; empty for data that this package draws.
        use: `training`, or `evaluation`: only validated on.
    """

    name: str
    digest: str
    place: str = ""
    use: str = "training"


@dataclass(frozen=True, kw_only=True)
class Context:
    """Properties that all runs of a study share.

    Attributes:
        data: data sets; the first is trained on.
        sizes: returns the numbers of images and boxes of the first data set; called when MLflow lacks it, since the
            data set is read.
        choices: returns the stock value of every searched choice, by its name in Optuna, such as `4.operator: stock`.
            MLflow's parallel coordinates leave out a run that lacks one of the compared params.
        source: tags of who started the study, and with which code.
    """

    data: tuple[DataInput, ...] = ()
    sizes: Callable[[], Mapping[str, int]] = dict
    choices: Callable[[], Mapping[str, str]] = dict
    source: Mapping[str, str] = field(default_factory=dict)


def source_tags() -> dict[str, str]:
    """Return MLflow's tags of the user, the command, and the commit of this package's repository if there is one."""
    found = commit()
    tags = {
        "mlflow.user": _user(),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": _entry_point(sys.argv),
        "nas.version": __version__,
    }
    if found:
        tags["mlflow.source.git.commit"] = found.removesuffix("+")
    if found.endswith("+"):
        tags["mlflow.source.git.dirty"] = "true"
    return tags


def _entry_point(arguments: list[str]) -> str:
    """Return the program, and the command of `nas`; no options, which may contain passwords."""
    program = Path(arguments[0]).name if arguments and arguments[0] else "python"
    command = arguments[1] if program == "nas" and len(arguments) > 1 else ""
    return f"{program} {command}" if _COMMAND.fullmatch(command) else program


def _user() -> str:
    """Return the user's name; the number of a user without one, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"
