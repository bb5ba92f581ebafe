"""Addresses of databases and servers: quoted, checked, and stored without a password and relative to a study.

An address is what SQLAlchemy and MLflow call a URL: `sqlite:////home/me/runs/nas/mlflow.db`, `postgresql://me@lab/nas`.
"""

import os
import re
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from search_spaces.errors import EnvironmentProblem, SpecError

STORAGE = "NAS_STORAGE"
"""Environment variable with the address of a storage and its password, which no file of ours contains."""
OPTUNA_STORAGE = "OPTUNA_STORAGE"
"""Variable of Optuna's own commands; read where `NAS_STORAGE` is not set."""
TRACKING = "MLFLOW_TRACKING_URI"

_SQLITE = re.compile(r"sqlite(?:\+pysqlite)?:///([^?]*)")
_USER = re.compile(r"^(\s*[\w+.-]+://)([^:/?#]*):([^/?#]*)@")
"""User and password in an address; the user name may be a mail address."""
_USER_OF_DATABASE = re.compile(r"^(\s*[\w+.-]+://)([^:/@?#]*):([^?]*)@")
"""The same with a slash in the password, which SQLAlchemy does not need escaped."""
_USER_OF_SERVER = re.compile(r"^(\s*[\w+.-]+://)([^:/?#]*):(?!\d+/)([^?]*)@")
"""The same; a host with its port is not user and password."""
_USER_ALONE = re.compile(r"^(\s*)(?!file:)([^:/@?#]*):([^?]*)@")
"""User and password of an address without a scheme, or without its two slashes: invalid, but it may be printed."""
_SECRET = re.compile(r"(?<=[?&])[^=&#]*(?:pass|secret|token|pwd)[^=&#]*=[^&#]*&?", re.IGNORECASE)
_EXAMPLES = "such as postgresql://me@host/name or sqlite:////folder/file.db"


def sqlite(path: Path) -> str:
    """Return the address of a SQLite file; `?`, `#` and `%` in its name are escaped, as SQLAlchemy reads them."""
    return f"sqlite:///{quote(path.as_posix(), safe=' +/:@')}"


def file_of(url: str) -> Path | None:
    """Return the file of a SQLite address; None for a server, and for a database in memory."""
    if not _SQLITE.match(url):
        return None
    name = make_url(url).database
    return None if not name or name == ":memory:" or name.startswith("file:") else Path(name)


def require_storage(url: str) -> str:
    """Return the address of an Optuna storage that several processes can open, with an absolute path.

    Raises:
        SpecError: it is no such address.
    """
    try:
        parsed = make_url(url)
        _ = parsed.get_dialect()
    except (SQLAlchemyError, ValueError, ImportError):
        raise SpecError(f"storage: no address of a database, got {redact(url)!r} ({_EXAMPLES})") from None
    if parsed.get_backend_name() != "sqlite":
        if url.partition("?")[0].count("@") > 1:
            raise SpecError("storage: more than one '@' in the address (in a password it is written %40, a slash %2F)")
        if not parsed.database:
            raise SpecError(f"storage: names no database, got {redact(url)!r} ({_EXAMPLES})")
        return url
    path = file_of(url)
    if path is None or parsed.host:
        raise SpecError(f"storage: names no file that several processes can open, got {redact(url)!r} ({_EXAMPLES})")
    if path.is_dir():
        raise SpecError(f"storage: {path} is a folder ({_EXAMPLES})")
    return _with_path(url, path.absolute())


def is_postgresql(url: str) -> bool:
    """Return whether an address is that of a PostgreSQL server, which several machines can share."""
    return url.lstrip().startswith(("postgresql:", "postgresql+"))


def with_driver(url: str) -> str:
    """Return the address by which SQLAlchemy opens a database: PostgreSQL through psycopg 3, unless it names a driver.

    Raises:
        EnvironmentProblem: no driver of PostgreSQL is installed.
    """
    if not url.startswith("postgresql://"):
        return url
    driver = next((name for name in ("psycopg", "psycopg2") if find_spec(name) is not None), None)
    if driver is None:
        raise EnvironmentProblem(
            f"storage: {without_password(url)} needs the package psycopg, which is not installed here "
            "(pip install 'nas-for-yolo[postgres]')"
        )
    return url.replace("postgresql://", f"postgresql+{driver}://", 1)


def stored(url: str, folder: Path) -> str:
    """Return an address as a study's file stores it: without a password, and relative if the file moves with the study.

    Args:
        folder: of the study. A SQLite file in it, or in the folder of all studies around it, moves with it.
    """
    path = file_of(url)
    if path is None:
        return without_password(url)
    path = path.absolute()
    return _with_path(without_password(url), Path(relative(path, folder)))


def opened(text: str, folder: Path, variable: str) -> str:
    """Return the address of a text that `stored` returned.

    Args:
        folder: of the study, its present place.
        variable: of the environment; if it holds the same address, that one is returned, with its password.
    """
    path = file_of(text)
    if path is not None:
        return _with_path(text, Path(absolute(path, folder)))
    address = given(variable)
    return address if address and without_password(address) == text else text


def given(variable: str) -> str:
    """Return the address in a variable of the environment, `STORAGE` or `TRACKING`; empty if it is not set."""
    return storage_given() if variable == STORAGE else os.environ.get(variable, "")


def storage_given() -> str:
    """Return the address of a storage in the environment: `NAS_STORAGE`, else `OPTUNA_STORAGE`; empty without both."""
    return os.environ.get(STORAGE) or os.environ.get(OPTUNA_STORAGE) or ""


def relative(path: Path, folder: Path) -> str:
    """Return a path as a study's file stores it: relative to the study if it lies in the folder of all studies."""
    clean, runs = Path(os.path.normpath(path)), folder.parent
    return os.path.relpath(clean, folder) if clean.is_relative_to(runs) else str(path)


def absolute(path: Path, folder: Path) -> str:
    """Return the path of a text that `relative` returned."""
    return str(path) if path.is_absolute() else os.path.normpath(folder / path)


def without_password(url: str) -> str:
    """Return an address without passwords, the user's or an option's."""
    bare = url if file_of(url) is not None else _user(url).sub(r"\1\2@", url, count=1)
    return _SECRET.sub("", bare).rstrip("?&")


def redact(text: str, url: str = "") -> str:
    """Return a text without passwords, to print it.

    Args:
        text: an address, or a third party's message about `url`.
    """
    if not url:
        return without_password(text)
    text = text.replace(url, without_password(url))
    for secret in _secrets(url):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
    return text


def _user(url: str) -> re.Pattern[str]:
    """Return the pattern of a user with a password in an address."""
    if "://" not in url:
        return _USER_ALONE
    if not url.lstrip().startswith(("http:", "https:")) and _USER_OF_DATABASE.match(url):
        return _USER_OF_DATABASE
    return _USER if _USER.match(url) else _USER_OF_SERVER


def _secrets(url: str) -> list[str]:
    """Return the passwords of an address, escaped and unescaped."""
    match = _user(url).match(url)
    found = [match[3]] if match else []
    found += [each.rstrip("&").partition("=")[2] for each in _SECRET.findall(url)]
    with suppress(SQLAlchemyError, ValueError):  # SQLAlchemy does not parse it, such as an MLflow server's
        found.append(make_url(url).password or "")
    return sorted({each for each in found if each}, key=len, reverse=True)


def _with_path(url: str, path: Path) -> str:
    """Return a SQLite address with another file and the same options."""
    _, mark, options = url.partition("?")
    return f"{sqlite(path)}{mark}{options}"
