"""Places of a study's data set and first checkpoint on this machine, where they are others than on the earlier one."""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nas.settings import Settings
from nas.study.folders import runs_option
from nas.study.study import Study
from nas.study.trained_again import trained_again
from search_spaces.errors import SpecError, StudyError
from search_spaces.files import digest
from trials.data import datasets
from trials.data.datasets import DIGITS

PathText = str | os.PathLike[str]


def relocate(study: Study, *, data: PathText | None, weights: PathText | None) -> None:
    """Store where the data set and the checkpoint of a study lie now, also in the studies beside it that have them.

    Args:
        study: whose lock the caller holds.
        data: name or path of the data set; None leaves it.
        weights: path of the checkpoint; None leaves it.

    Raises:
        StudyError: the data set is another one; the study started from no checkpoint, or from another released one.
        SpecError: there is no such checkpoint.
        DataError: the data set cannot be read.
    """
    before = study.settings
    changed = before if data is None else _with_data(study, os.fspath(data))
    changed = changed if weights is None else _with_weights(study.name, changed, Path(weights).absolute())
    for other in _beside(study):
        if other.settings.budget.data == before.budget.data:
            _store(other, _copied(other.settings, changed))
    _store(study, changed)


def require_files(study: Study) -> None:
    """Refuse to resume a study whose data set or first checkpoint is not on this machine, and name the option.

    Raises:
        StudyError: one of them is missing.
    """
    settings = study.settings
    missing = []
    if settings.data != DIGITS and not settings.budget.data.is_file():
        missing.append((f"its data set {settings.budget.data}", "--data PATH/data.yaml"))
    checkpoints = [path for path in _checkpoints(settings) if not path.is_file()]
    if checkpoints and settings.member_weights:
        missing.append(
            (f"the checkpoints {', '.join(map(str, checkpoints))}, from which it started,", "--weights FOLDER")
        )
    elif checkpoints and not _is_its_stock_model(study, checkpoints[0]):
        missing.append((f"the checkpoint {checkpoints[0]}, from which it started,", "--weights FILE.pt"))
    if missing:
        what, verb = " and ".join(text for text, _ in missing), "is" if len(missing) == 1 else "are"
        options = " ".join(option for _, option in missing)
        command = f"nas resume {shlex.quote(study.name)} {options}{runs_option(study.folder.parent)}"
        raise StudyError(f"{study.name}: {what} {verb} not on this machine; name the place here: {command}")


def _is_its_stock_model(study: Study, checkpoint: Path) -> bool:
    """Return whether a checkpoint is that of a stock model's training of a study here, which can be done again."""
    return checkpoint.is_relative_to(study.folder.parent)


def _with_data(study: Study, data: str) -> Settings:
    """Return the settings with another place of the same data set."""
    settings = study.settings
    found = datasets.load_for(data, study.sealed, settings.subset)
    if found.fingerprint != settings.data_fingerprint:
        raise StudyError(
            f"data: {found.path} is another data set than that of {study.name}: names, sizes or labels of images differ"
        )
    name = str(found.path) if Path(data).suffix in {".yaml", ".yml"} else data
    places: dict[str, Any] = {"data": found.path}
    base = settings.base and settings.base.model_copy(update=places)
    return settings.model_copy(update={"data": name, "budget": settings.budget.model_copy(update=places), "base": base})


def _with_weights(name: str, settings: Settings, weights: Path) -> Settings:
    """Return the settings with another place of the checkpoint."""
    if not _checkpoints(settings):
        raise StudyError(f"weights: {name} started from no checkpoint")
    if settings.member_weights:
        return _with_member_weights(name, settings, weights)
    if not weights.is_file():
        raise SpecError(f"weights: no such file, got {str(weights)!r} (the checkpoint from which {name} started)")
    released = settings.pretrained
    if released is not None and digest(weights) != released.digest:
        raise StudyError(f"weights: {weights}: another file than the {released.name} from which {name} started")
    changed = {
        field: budget.model_copy(update={"weights": weights})
        for field in ("base", "budget")
        if (budget := getattr(settings, field)) is not None and budget.weights is not None
    }
    return settings.model_copy(update=changed)


def _with_member_weights(name: str, settings: Settings, folder: Path) -> Settings:
    """Return the settings with another folder of the members' checkpoints."""
    names = ", ".join(dict.fromkeys(one.name for one in settings.member_weights))
    if not folder.is_dir():
        raise SpecError(f"weights: no such folder, got {str(folder)!r} (that of {names}, from which {name} started)")
    moved = settings.with_member_weights_in(folder)
    for one in moved.member_weights:
        if not one.path.is_file():
            raise SpecError(f"weights: {one.path}: no such file ({name} started from {names})")
        if digest(one.path) != one.digest:
            raise StudyError(f"weights: {one.path}: another file than the {one.name} from which {name} started")
    return moved


def _checkpoints(settings: Settings) -> list[Path]:
    """Return the files from which the first trainings start."""
    budgets = (settings.base, settings.budget)
    named = [budget.weights for budget in budgets if budget is not None and budget.weights]
    return [*named, *dict.fromkeys(one.path for one in settings.member_weights)]


def _beside(study: Study) -> Iterator[Study]:
    yield from map(Study.open, dict.fromkeys(trained_again(study.folder, study.settings)))


def _copied(settings: Settings, places: Settings) -> Settings:
    """Return the settings of a study beside one, with the places of that one."""
    checkpoints = _checkpoints(places)
    changed = {}
    for field in ("base", "budget"):
        budget = getattr(settings, field)
        if budget is not None:
            update = {"data": places.budget.data}
            if budget.weights is not None and checkpoints and not places.member_weights:
                update["weights"] = checkpoints[0]
            changed[field] = budget.model_copy(update=update)
    own = {"member_weights": places.member_weights} if settings.member_weights else {}
    return settings.model_copy(update={"data": places.data, **changed, **own})


def _store(study: Study, settings: Settings) -> None:
    study.set_file(study.file.model_copy(update={"settings": settings}))
    study.settings = settings
