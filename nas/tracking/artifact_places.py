"""Places of artifacts that a database names: within its folder, unless the user has named the database.

MLflow puts artifacts where its database says, which may come from anyone. A database outside of the folder of all
studies is opened only if the user has named it (`nas.study.named_addresses`), and decides itself.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from mlflow.utils.file_utils import local_file_uri_to_path

from nas import addresses
from nas.study.named_addresses import was_named
from search_spaces.errors import EnvironmentProblem


def limit_of(uri: str) -> Path | None:
    """Return the folder within which MLflow may put artifacts; None if it decides itself: a server does."""
    file = addresses.file_of(uri)
    return None if file is None or was_named(uri, addresses.TRACKING) else file.absolute().parent


def require_within(limit: Path | None, location: str, inside: Iterable[str | Path] = ("",)) -> None:
    """Refuse a place of artifacts outside of a folder; links are followed.

    Args:
        limit: the folder; None refuses nothing.
        location: of a run, a model or an experiment, as MLflow stores it.
        inside: files in it that would be written.

    Raises:
        EnvironmentProblem: it is elsewhere.
    """
    if limit is None:
        return
    root, is_local = os.path.realpath(limit), urlsplit(location).scheme in {"", "file"}
    path = Path(local_file_uri_to_path(location)) if is_local else None
    for name in inside:
        if path is None or not Path(os.path.realpath(path / name)).is_relative_to(root):
            raise EnvironmentProblem(
                f"its database puts artifacts outside of {limit}, in {location if path is None else path / name}, as a "
                f"database from elsewhere might (if it is yours, name it with {addresses.TRACKING}; or move it away, "
                "and another is made)"
            )
