"""Definition of a shared study in its storage: what another machine needs to make a folder of the study.

These are the settings, the space with the users' operator files, the device's latency table, the list of sealed images
and the checkpoint from which the first training starts.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas import addresses
from nas.settings import Settings
from nas.study.conditions import conditions_here, parse_conditions
from nas.study.folders import HOLDOUT, LATENCY_TABLE, SPACE, STUDY
from nas.study.shared_files import SharedFiles
from nas.study.study_file import StudyFile
from search_spaces.errors import StudyError, unwrapped
from search_spaces.files import write_atomically

MODULES = "modules"
CONDITIONS, INITIAL_WEIGHTS = "conditions.json", "initial_weights.pt"
MEMBER_WEIGHTS = "initial_weights"
"""Folder with the checkpoints from which several members start."""
_FILE = "[A-Za-z0-9_][A-Za-z0-9_.-]*"
_NAME = re.compile(
    rf"{SPACE}|{LATENCY_TABLE}|{HOLDOUT}|{INITIAL_WEIGHTS}|{MEMBER_WEIGHTS}/{_FILE}\.pt|{MODULES}/{_FILE}\.py"
)
"""Files of a definition beside settings and conditions; no other name is written to a folder."""


@dataclass(frozen=True, kw_only=True)
class Definition:
    """Definition of a study, as the storage has it.

    Attributes:
        file: of the machine that began the study, with its paths and addresses.
        conditions: under which trainings run.
        modules: texts of users' operator files by name.
    """

    file: StudyFile
    conditions: Mapping[str, str]
    modules: Mapping[str, str]

    @classmethod
    def read(cls, files: SharedFiles, name: str, place: str) -> "Definition":
        """Read the definition of a study.

        Args:
            place: of the storage, for messages.

        Raises:
            StudyError: the storage has none, or a damaged one.
        """
        content = files.get(STUDY)
        if content is None:
            raise StudyError(
                f"{place}: the study {name!r} was begun by an earlier version, which stored no settings there; go on "
                f"with it once on the machine where it was begun: nas resume {name}"
            )
        try:
            file = StudyFile.model_validate_json(content)
        except ValueError as error:
            raise StudyError(
                f"{place}: the settings of the study {name!r} cannot be read: {unwrapped(error)}"
            ) from None
        paths = [one.path for one in files.listing() if one.path.startswith(f"{MODULES}/")]
        texts = {path: text.decode(errors="replace") for path, text in files.get_all(paths) if _NAME.fullmatch(path)}
        return cls(file=file, conditions=parse_conditions(files.get(CONDITIONS)), modules=texts)


def publish_definition(folder: Path, file: StudyFile, files: SharedFiles) -> str:
    """Store a study's definition, unless the storage has it; the settings last: with them a machine can join.

    Returns:
        The id of the machine that has stored it before; empty if none has.
    """
    before = [one.machine for one in files.listing() if one.path == STUDY]
    if before:
        return before[0]
    sources = {name: folder / name for name in (SPACE, LATENCY_TABLE, HOLDOUT)}
    sources |= {f"{MODULES}/{path.name}": path for path in sorted((folder / MODULES).glob("*.py"))}
    if (weights := _initial_weights(file.settings)) is not None:
        sources[INITIAL_WEIGHTS] = weights
    sources |= {f"{MEMBER_WEIGHTS}/{one.name}": one.path for one in file.settings.member_weights}
    for name, path in sources.items():
        if path.is_file():
            files.put_file(name, path)
    files.put(CONDITIONS, json.dumps(conditions_here(), indent=1).encode())
    bare = {"storage": addresses.without_password(file.storage), "tracking": addresses.without_password(file.tracking)}
    files.put(STUDY, json.dumps({**file.model_dump(mode="json"), **bare}, indent=1).encode())
    return ""


def write_definition(folder: Path, files: SharedFiles) -> None:
    """Write the files of a study's definition to a folder, but for `study.json`."""
    for name, content in files.get_all([one.path for one in files.listing() if _NAME.fullmatch(one.path)]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name, content)


def settings_in(folder: Path, settings: Settings, data: Path | None) -> Settings:
    """Return the settings of a study with the paths of another machine.

    Args:
        folder: of the study on that machine.
        data: path of the data set there; None if it is the same.
    """
    changed: dict[str, Any] = {} if data is None else {"data": str(data)}
    for name in ("budget", "base"):
        budget = getattr(settings, name)
        if budget is None:
            continue
        paths: dict[str, Any] = {} if data is None else {"data": data}
        if budget.weights is not None:
            paths["weights"] = folder / INITIAL_WEIGHTS
        changed[name] = budget.model_copy(update=paths)
    return settings.model_copy(update=changed).with_member_weights_in(folder / MEMBER_WEIGHTS)


def _initial_weights(settings: Settings) -> Path | None:
    """Return the checkpoint from which the first training of a study starts; None if it starts from random weights."""
    budget = settings.base or settings.budget
    return budget.weights
