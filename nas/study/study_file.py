"""`study.json`, the file that makes a folder a study: its identity, settings, run and addresses."""

import json
import socket
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from pydantic import StrictInt

from nas import addresses
from nas.settings import FrozenModel, RunSettings, Settings
from nas.study.folders import DATABASE, STUDY, TRACKING_DATABASE, default_storage
from search_spaces import cache_folder
from search_spaces.errors import StudyError, unwrapped
from search_spaces.files import read_plain_text, write_atomically
from trials.data.datasets import DIGITS

_SCENES = "digit_scenes"
"""Prefix of the folder of the built-in data set."""


class Identity(FrozenModel):
    """Identity of a study, by which a copy of its folder is recognised.

    Attributes:
        study_id: also in Optuna's study and in MLflow's runs, so that no other study's are continued.
        folder: absolute path of the study when it was last run.
        inode: of that folder: a moved folder keeps it, a copy has another. 0 is unknown.
        host: name of the machine on which it was.
        was: the original's id while a copy becomes another study; empty otherwise.
    """

    study_id: str
    folder: Path
    inode: StrictInt
    host: str
    was: str = ""

    @classmethod
    def of(cls, folder: Path, *, study_id: str = "", was: str = "") -> Self:
        """Return the identity of a study in an existing folder; with a new id if none is given."""
        return cls(
            study_id=study_id or uuid.uuid4().hex,
            folder=folder,
            inode=folder.stat().st_ino,
            host=socket.gethostname(),
            was=was,
        )


class StudyFile(FrozenModel):
    """Content of `study.json`, the file that makes a folder a study.

    On disk, addresses and paths in the study's folder, or in the folder of all studies around it, are relative to the
    study's, so that it can be moved and copied; no password is written. Here they are absolute.

    Attributes:
        name: of Optuna's study: that of the folder, unless that was renamed.
        storage: address of Optuna's storage.
        tracking: address of MLflow.
        version: of this package, when the study was created.
        identity: without an id in a study of an earlier version that was not run since; None before the creation.
    """

    name: str
    settings: Settings
    run: RunSettings
    storage: str
    tracking: str
    version: str
    identity: Identity | None = None

    def write(self, folder: Path) -> None:
        """Write `study.json` in a study's folder."""
        write_atomically(folder / STUDY, self.as_text(folder))

    def as_text(self, folder: Path) -> str:
        """Return the text of `study.json` in a study's folder."""
        fields = self.model_dump(mode="json")
        fields["storage"] = addresses.stored(self.storage, folder)
        fields["tracking"] = addresses.stored(self.tracking, folder)
        fields["settings"] |= _with_paths(fields["settings"], lambda path: addresses.relative(path, folder))
        return json.dumps(fields, indent=1)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read `study.json` from a study's folder; addresses become absolute.

        Raises:
            StudyError: no study there, or the file is damaged or of another version.
        """
        path, folder = folder / STUDY, folder.absolute()
        try:
            file = cls.model_validate(json.loads(read_plain_text(path)))
            return file.opened(folder) if file.identity else file.opened_from_before(folder)
        except FileNotFoundError:
            raise StudyError(f"{folder}: no study there (study.json is missing)") from None
        except (ValueError, RecursionError) as error:
            raise StudyError(f"{path}: cannot be read: {unwrapped(error)}") from None
        except OSError as error:
            raise StudyError(f"{path}: cannot be read: {error.strerror or error}") from None

    def opened(self, folder: Path) -> Self:
        """Return a copy with absolute addresses."""
        home = self.identity.folder if self.identity else folder
        return self.model_copy(
            update={
                "storage": addresses.opened(self.storage, folder, addresses.STORAGE),
                "tracking": addresses.opened(self.tracking, folder, addresses.TRACKING),
                "settings": self._settings_opened(lambda path: _absolute(path, folder, home)),
            }
        )

    def opened_from_before(self, folder: Path) -> Self:
        """Return a copy with the addresses of the folder's present place, for a file of an earlier version.

        Such a file has absolute addresses only. Its database lay in its folder, and MLflow's beside that: either shows
        where the study lay.
        """
        database, tracking = Path(self.storage.removeprefix("sqlite:///")), addresses.file_of(self.tracking)
        is_default = database.is_absolute() and database.parts[-2:] == (self.name, DATABASE)
        if is_default:
            home = database.parent
        else:
            home = tracking.parent / self.name if tracking and tracking.name == TRACKING_DATABASE else folder

        def moved(path: Path) -> str:
            return _absolute(Path(addresses.relative(path, home)) if is_default else path, folder, home)

        if is_default and tracking is not None and tracking.is_relative_to(home.parent):
            tracking = Path(addresses.absolute(Path(addresses.relative(tracking, home)), folder))
        return self.model_copy(
            update={
                # A relative one was given by the user, relative to the working directory.
                "storage": default_storage(folder)
                if is_default
                else addresses.opened(self.storage, Path.cwd(), addresses.STORAGE),
                "tracking": addresses.sqlite(tracking.absolute()) if tracking else self.tracking,
                "settings": self._settings_opened(moved),
                "identity": Identity(study_id="", folder=home, inode=0, host=""),
            }
        )

    def _settings_opened(self, opened: Callable[[Path], str]) -> Settings:
        fields = self.settings.model_dump(mode="json")
        if fields["data"] == DIGITS:
            for budget in filter(None, (fields["budget"], fields["base"])):
                budget["data"] = str(_built_in_data(Path(budget["data"])))
        return Settings.model_validate_json(json.dumps(fields | _with_paths(fields, opened)))


def _with_paths(settings: dict[str, Any], changed: Callable[[Path], str]) -> dict[str, Any]:
    """Return the settings that hold paths, with every path changed."""
    data = settings["data"]
    fields: dict[str, Any] = {"data": data if data == DIGITS else changed(Path(data))}
    for name in ("budget", "base"):
        budget = settings[name]
        fields[name] = budget and {
            **budget,
            "data": changed(Path(budget["data"])),
            "weights": budget["weights"] and changed(Path(budget["weights"])),
        }
    fields["member_weights"] = [{**one, "path": changed(Path(one["path"]))} for one in settings["member_weights"]]
    return fields


def _built_in_data(data: Path) -> Path:
    """Return the path of the built-in data set in this user's cache on this machine."""
    scenes = data.parent.name
    return cache_folder.path().absolute() / scenes / data.name if scenes.startswith(f"{_SCENES}-") else data


def _absolute(path: Path, folder: Path, home: Path) -> str:
    """Return the absolute path: relative to the study's present folder or, if only that exists, to its earlier one."""
    present, earlier = (addresses.absolute(path, base) for base in (folder, home))
    return earlier if not Path(present).exists() and Path(earlier).exists() else present
