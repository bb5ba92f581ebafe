"""Folders of studies: their names, addresses and what lies in them."""

import os
import re
import shlex
from pathlib import Path

from nas import addresses
from nas.paths import RUNS
from search_spaces.errors import EnvironmentProblem, SpecError, nearest

DATABASE, TRACKING_DATABASE = "study.db", "mlflow.db"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def tracking_uri(runs: Path) -> str:
    """Where MLflow keeps studies: `MLFLOW_TRACKING_URI` if the user has set it, else a SQLite file under `runs`."""
    return os.environ.get(addresses.TRACKING) or addresses.sqlite(runs.absolute() / TRACKING_DATABASE)


def study_folder(name: str, runs: Path = RUNS) -> Path:
    """The folder of a study by its name.

    Raises:
        SpecError: a name that is no file name, or would lead out of the folder of all studies.
    """
    if not _NAME.fullmatch(name):
        raise SpecError(f"study: letters, digits, '.', '_' and '-' make a name, got {name!r} (such as v9t-digits)")
    return (runs / name).absolute()


def storage_file(url: str) -> Path | None:
    """The file of a storage, if it is one."""
    return addresses.file_of(url)


def existing(name: str, runs: Path = RUNS) -> Path:
    """The folder of a study that is there.

    Raises:
        SpecError: no such study.
    """
    folder = study_folder(name, runs)
    if not (folder / "study.json").is_file():
        known = studies(runs)
        hint = nearest(name, known) if known else "there are none yet; `nas search` makes one"
        raise SpecError(f"study: no study {name!r} in {runs} ({hint})")
    return folder


def runs_option(runs: Path) -> str:
    """Return what a command needs behind it to find the studies of a folder; empty for the default one."""
    return "" if runs.absolute() == RUNS.absolute() else f" --runs {shlex.quote(str(runs))}"


def studies(runs: Path = RUNS) -> list[str]:
    """The names of all studies, the newest first."""
    files = sorted(runs.glob("*/study.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [path.parent.name for path in files]


def make_folder(folder: Path) -> None:
    """Make a folder that can be written to.

    Raises:
        EnvironmentProblem: it cannot be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise EnvironmentProblem(f"{folder}: cannot be written to ({error.strerror}); choose another --runs") from None


def own_storage(folder: Path) -> str:
    """Optuna's storage in a file of the study's own."""
    return addresses.sqlite(folder / DATABASE)
