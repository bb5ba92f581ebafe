"""Folders of studies: their names and addresses, and the names of the files in them."""

import os
import re
import shlex
from pathlib import Path

from nas import addresses
from nas.paths import RUNS
from nas.ranges import shown
from search_spaces.errors import EnvironmentProblem, SpecError, nearest
from search_spaces.files import make_durable_folder

STUDY = "study.json"
"""File that makes a folder a study."""
SPACE = "space.yaml"
"""Copy of the space."""
DATABASE = "study.db"
TRACKING_STATE = "tracking.json"
"""Without it, the study is written to MLflow again, under another parent run."""
RECORDS = "records.jsonl"
LATENCY_TABLE = "latency.csv"
"""Copy of the device's latency table."""
MEASURED_LATENCIES = "measured.json"
"""Measured latencies of trials' models: milliseconds by trial number."""
HOLDOUT = "holdout.json"
"""List of the images that the study has sealed."""
SUPERVISOR_LOCK, PROPOSAL_LOCK, UPLOAD_LOCK = "supervisor.lock", "asking.lock", "uploading.lock"
UPLOADS = "mlflow"
"""Folder for what is on its way to MLflow."""
REPORT = "report.html"
SYSTEM_METRICS = "system.jsonl"
"""Load of the machine that tracks the study, a line for each sample."""
TRACKING_DATABASE = "mlflow.db"
"""MLflow's database, beside the folders of the studies."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def tracking_uri(runs: Path) -> str:
    """Return MLflow's tracking URI: `MLFLOW_TRACKING_URI` if the user has set it, else a SQLite file in `runs`."""
    return os.environ.get(addresses.TRACKING) or addresses.sqlite(runs.absolute() / TRACKING_DATABASE)


def study_folder(name: object, runs: Path = RUNS) -> Path:
    """Return the folder of a study by its name, which may not exist yet.

    Raises:
        SpecError: it is no name, or would lead out of the folder of all studies.
    """
    if not isinstance(name, str):
        raise SpecError(
            f"study: its name is expected, got {shown(name)} (such as 'v9t-digits'; of an open study: study.name)"
        )
    if not _NAME.fullmatch(name):
        raise SpecError(f"study: letters, digits, '.', '_' and '-' make a name, got {name!r} (such as v9t-digits)")
    return (runs / name).absolute()


def storage_file(url: str) -> Path | None:
    """Return the file of a storage; None if it is a server."""
    return addresses.file_of(url)


def existing(name: str, runs: Path = RUNS) -> Path:
    """Return the folder of an existing study.

    Raises:
        SpecError: no such study.
    """
    folder = study_folder(name, runs)
    if not (folder / STUDY).is_file():
        names = studies(runs)
        hint = nearest(name, names) if names else "there are none yet; `nas search` makes one"
        raise SpecError(f"study: no study {name!r} in {runs} ({hint})")
    return folder


def runs_option(runs: Path) -> str:
    """Return the option, with a leading space, by which a command finds the studies of a folder; empty by default."""
    return "" if runs.absolute() == RUNS.absolute() else f" --runs {shlex.quote(str(runs))}"


def command(verb: str, folder: Path, *, named: bool = True) -> str:
    """Return a command to type for the study of a folder, such as `nas resume v9t-digits --runs there`.

    Args:
        named: whether the study's name follows the verb.
    """
    return f"nas {verb}{f' {folder.name}' if named else ''}{runs_option(folder.parent)}"


def studies(runs: Path = RUNS) -> list[str]:
    """Return the names of all studies, newest first."""
    files = sorted(runs.glob(f"*/{STUDY}"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [path.parent.name for path in files]


def make_folder(folder: Path) -> None:
    """Create a folder unless it exists, and check that it is writable.

    Raises:
        EnvironmentProblem: it is not.
    """
    try:
        make_durable_folder(folder)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise EnvironmentProblem(f"{folder}: cannot be written to ({error.strerror}); choose another --runs") from None


def default_storage(folder: Path) -> str:
    """Return the address of a storage in a study's folder, which no other study uses."""
    return addresses.sqlite(folder / DATABASE)
