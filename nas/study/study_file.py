"""`study.json`, the file that makes a folder a study: its identity, settings, run and addresses."""

import json
import socket
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from pydantic import StrictInt

from nas import addresses
from nas.settings import FrozenModel, Run, Settings
from nas.study.folders import DATABASE, TRACKING_DATABASE, own_storage
from search_spaces import cache_folder
from search_spaces.errors import StudyError
from search_spaces.files import write_atomically
from trials.data.datasets import DIGITS

_SCENES = "digit_scenes"
"""How the folder of the built-in data begins."""


class Identity(FrozenModel):
    """Which study a folder is, and by what a copy of the folder is told from it.

    Attributes:
        study_id: also in Optuna's study and in MLflow's runs, so that nobody goes on with those of another study.
        folder: where the study lay when it was last worked on; absolute.
        inode: of that folder: a folder that was moved keeps it, a copy has another. 0 is unknown.
        host: the machine on which it was.
        was: its id until now, while a copy becomes a study of its own; empty otherwise.
    """

    study_id: str
    folder: Path
    inode: StrictInt
    host: str
    was: str = ""

    @classmethod
    def of(cls, folder: Path, *, study_id: str = "", was: str = "") -> Self:
        """Return the identity of a study in a folder that is there; a new one if no id is given."""
        return cls(
            study_id=study_id or uuid.uuid4().hex,
            folder=folder,
            inode=folder.stat().st_ino,
            host=socket.gethostname(),
            was=was,
        )


class StudyFile(FrozenModel):
    """`study.json`, the file that makes a folder a study.

    On disk, addresses and paths in the study's folder, or in the folder of all studies around it, are relative to the
    study's, so that it can be moved and copied; no password is written. Here they are absolute.

    Attributes:
        name: of Optuna's study: the folder's own, until somebody renames it.
        storage: Optuna's address of it.
        tracking: MLflow's address of it.
        version: of this package, when the study was created.
        identity: without an id in a study of an earlier version that was not worked on since; None in one that is
            still to be made.
    """

    name: str
    settings: Settings
    run: Run
    storage: str
    tracking: str
    version: str
    identity: Identity | None = None

    def write(self, folder: Path) -> None:
        """Save it in a study's folder."""
        fields = self.model_dump(mode="json")
        fields["storage"] = addresses.stored(self.storage, folder)
        fields["tracking"] = addresses.stored(self.tracking, folder)
        fields["settings"] |= _with_paths(fields["settings"], lambda path: addresses.relative(path, folder))
        write_atomically(folder / "study.json", json.dumps(fields, indent=1))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read it from a study's folder, with absolute addresses.

        Raises:
            StudyError: no study there, or one of another version's making.
        """
        path, folder = folder / "study.json", folder.absolute()
        try:
            file = cls.model_validate(json.loads(path.read_text(encoding="utf-8")))
            return file.opened(folder) if file.identity else file.opened_from_before(folder)
        except FileNotFoundError:
            raise StudyError(f"{folder}: no study there (study.json is missing)") from None
        except (ValueError, RecursionError) as error:
            raise StudyError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
        except OSError as error:
            raise StudyError(f"{path}: cannot be read: {error.strerror or error}") from None

    def opened(self, folder: Path) -> Self:
        """Return it with absolute addresses."""
        home = self.identity.folder if self.identity else folder
        return self.model_copy(
            update={
                "storage": addresses.opened(self.storage, folder, addresses.STORAGE),
                "tracking": addresses.opened(self.tracking, folder, addresses.TRACKING),
                "settings": self._settings_opened(lambda path: _absolute(path, folder, home)),
            }
        )

    def opened_from_before(self, folder: Path) -> Self:
        """Return one of an earlier version, which holds absolute addresses alone, as it means them where it lies now.

        Its database lay in its folder, and MLflow's beside that: either tells where the study lay.
        """
        database, tracking = Path(self.storage.removeprefix("sqlite:///")), addresses.file_of(self.tracking)
        own = database.is_absolute() and database.parts[-2:] == (self.name, DATABASE)
        if own:
            home = database.parent
        else:
            home = tracking.parent / self.name if tracking and tracking.name == TRACKING_DATABASE else folder

        def moved(path: Path) -> str:
            return _absolute(Path(addresses.relative(path, home)) if own else path, folder, home)

        if own and tracking is not None and tracking.is_relative_to(home.parent):
            tracking = Path(addresses.absolute(Path(addresses.relative(tracking, home)), folder))
        return self.model_copy(
            update={
                # A relative one was the user's, and of the folder that the command stood in.
                "storage": own_storage(folder)
                if own
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
                budget["data"] = str(_built_in(Path(budget["data"])))
        return Settings.model_validate_json(json.dumps(fields | _with_paths(fields, opened)))


def _with_paths(settings: dict[str, Any], changed: Callable[[Path], str]) -> dict[str, Any]:
    """Return those of a study's settings that hold paths, with the paths changed."""
    data = settings["data"]
    fields: dict[str, Any] = {"data": data if data == DIGITS else changed(Path(data))}
    for name in ("budget", "base"):
        budget = settings[name]
        fields[name] = budget and {
            **budget,
            "data": changed(Path(budget["data"])),
            "weights": budget["weights"] and changed(Path(budget["weights"])),
        }
    return fields


def _built_in(data: Path) -> Path:
    """Return where the built-in data lie now: the cache is another one for another user, or on another machine."""
    scenes = data.parent.name
    return cache_folder.path().absolute() / scenes / data.name if scenes.startswith(f"{_SCENES}-") else data


def _absolute(path: Path, folder: Path, home: Path) -> str:
    """Return a path of a study's file as it is meant; without its neighbours, a moved study finds them still."""
    here, there = (addresses.absolute(path, base) for base in (folder, home))
    return there if not Path(here).exists() and Path(there).exists() else here
