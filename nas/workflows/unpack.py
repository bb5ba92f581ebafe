"""Unpack an archive of `nas pack`: verified as a whole, then written beside the studies, then renamed."""

import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas import addresses
from nas.locks import Lock
from nas.study import archive, storage_copy
from nas.study.archive import Manifest, Show
from nas.study.archive_members import is_member, is_weights, require_tensors
from nas.study.folders import DATABASE, SPACE, STUDY, default_storage, make_folder, study_folder, tracking_uri
from nas.study.named_addresses import remember
from nas.study.study_file import Identity, StudyFile
from nas.study.tracking_state import TrackingState
from search_spaces.errors import EnvironmentProblem, SpecError, StudyError, unwrapped
from search_spaces.files import as_environment_problems, atomic_path, make_durable_folder, write_atomically
from trials.data.datasets import DIGITS

_MOST_LINES = 10
"""Most mistakes of an archive that are listed."""
_RESERVE = 1 << 26
"""Bytes that stay free on the disk."""
_PATHS = ("data", "weights")


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """Studies that were written.

    Attributes:
        study: name of the one that was packed.
        studies: names of all.
        code: Python files with operators of the packer, which a search runs.
        is_foreign: whether this user has not run one of them, so that they run only with `--trust`.
        missing_data: path of the data set, if it is not on this machine.
        missing_weights: paths of the checkpoints that it started from, of several members, that are not here.
        has_members: whether each of several members started from a checkpoint of its own.
    """

    study: str
    studies: Sequence[str]
    code: Sequence[Path]
    is_foreign: bool = False
    missing_data: str = ""
    missing_weights: Sequence[str] = ()
    has_members: bool = False


def unpack(file: Path, runs: Path, name: str | None = None, show: Show = lambda _done, _all: None) -> Unpacked:
    """Write the studies of an archive into the folder of all studies.

    They are other studies than those that were packed, with the same trials: they have their own id and get their own
    runs in MLflow.

    Args:
        file: of the archive.
        runs: folder of all studies.
        name: of the study from now on; those beside it are named after it.
        show: called with how many of how many bytes are read; each is read twice.

    Raises:
        StudyError: the archive is damaged, holds anything but the files of a study, or was changed.
        SpecError: a study of that name is there.
        EnvironmentProblem: the disk has no room, or cannot be written to.
    """
    manifest = archive.read(file)
    names = _names(file, manifest, name)
    _require_members(file, manifest)
    _require_free(names, runs)
    _require_room(manifest, runs)
    done = 0

    def count(chunks: Iterator[bytes]) -> Iterator[bytes]:
        nonlocal done
        for chunk in chunks:
            done += len(chunk)
            show(done, 2 * manifest.size)
            yield chunk

    for _, chunks in archive.contents(file, manifest):
        for _ in count(chunks):
            pass
    make_folder(runs)
    staged = runs.absolute() / f".unpack-{uuid.uuid4().hex[:12]}"
    with Lock(runs / ".beginning.lock").held(), as_environment_problems(runs):
        _require_free(names, runs)
        try:
            _write(file, manifest, staged, count)
            for old, new in names.items():
                _adapt(staged / old, runs.absolute() / new, names)
            for old, new in reversed(names.items()):  # the study itself last: with it the others belong to something
                (staged / old).rename(runs / new)
                make_durable_folder(runs / new)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    return _unpacked(manifest, names, runs)


def _names(file: Path, manifest: Manifest, name: str | None) -> dict[str, str]:
    """Return the new name of each study by its old one, the packed study first.

    Raises:
        StudyError: the archive's names are none.
        SpecError: the new name is none.
    """
    old = manifest.study
    first, *others = manifest.studies or ("",)
    try:
        for each in manifest.studies:
            study_folder(each)
    except SpecError as error:
        raise StudyError(f"{file}: {unwrapped(error)}") from None
    belong = all(other.startswith(f"{old}-") for other in others)
    if first != old or not belong or len(set(manifest.studies)) != len(manifest.studies):
        raise StudyError(f"{file}: its list names studies that do not belong to {old!r}")
    new = old if name is None else study_folder(name).name
    return {each: new + each.removeprefix(old) for each in manifest.studies}


def _require_members(file: Path, manifest: Manifest) -> None:
    """Refuse an archive that lists anything but files of its studies; names all of them.

    Raises:
        StudyError: it does.
    """
    paths = [member.path for member in manifest.members]
    mistakes = [
        f"{path!r} is no file of a study"
        for path in paths
        if path.partition("/")[0] not in manifest.studies or not is_member(path.partition("/")[2])
    ]
    mistakes += [f"{path!r} is listed twice" for path in sorted({path for path in paths if paths.count(path) > 1})]
    needed = [f"{study}/{name}" for study in manifest.studies for name in (STUDY, SPACE, DATABASE)]
    mistakes += [f"{path!r} is missing" for path in needed if path not in paths]
    if mistakes:
        more = [f"and {len(mistakes) - _MOST_LINES} more"] if len(mistakes) > _MOST_LINES else []
        raise StudyError("\n".join(f"{file}: {mistake}" for mistake in [*mistakes[:_MOST_LINES], *more]))


def _require_free(names: Mapping[str, str], runs: Path) -> None:
    taken = [new for new in names.values() if (runs / new).exists() or (runs / new).is_symlink()]
    if taken:
        raise SpecError(f"study: {', '.join(taken)} is in {runs} already (name another with --study)")


def _require_room(manifest: Manifest, runs: Path) -> None:
    there = next(folder for folder in (runs.absolute(), *runs.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if manifest.size + _RESERVE > free:
        needed, have = (f"{size / 1e9:.1f} GB" for size in (manifest.size, free))
        raise EnvironmentProblem(
            f"{runs}: the archive's files have {needed}, free are {have}; make room, or use --runs"
        )


def _write(file: Path, manifest: Manifest, staged: Path, count: Callable[[Iterator[bytes]], Iterator[bytes]]) -> None:
    """Write the files of an archive into a new folder, verified once more."""
    for member, chunks in archive.contents(file, manifest):
        path = staged / member.path
        make_durable_folder(path.parent)
        with atomic_path(path) as temporary:
            with temporary.open("xb") as out:
                out.writelines(count(chunks))
            os.utime(temporary, (member.modified, member.modified))  # the end of a trial's run in MLflow
        if is_weights(member.path):
            require_tensors(path, member.path)


def _adapt(staged: Path, target: Path, names: Mapping[str, str]) -> None:
    """Make a study's files those of another study, in another place, perhaps under another name.

    Raises:
        StudyError: `study.json` is no such file, or its database is not in its folder.
    """
    try:
        fields = json.loads((staged / STUDY).read_bytes())
        file = StudyFile.model_validate(fields)
    except (ValueError, RecursionError) as error:
        raise StudyError(f"{staged.name}/{STUDY}: cannot be read: {unwrapped(error)}") from None
    if file.storage != addresses.stored(default_storage(target), target):
        raise StudyError(f"{staged.name}/{STUDY}: its trials are elsewhere, in {addresses.redact(file.storage)}")
    tracking = tracking_uri(target.parent)
    remember(tracking, addresses.TRACKING, target)
    before = "" if file.identity is None else file.identity.study_id
    identity = Identity.of(staged, was=before).model_copy(update={"folder": target})
    settings = fields["settings"]
    settings["confirms"] = None if settings["confirms"] is None else _renamed(settings["confirms"], names)
    for budget in filter(None, (settings, settings["budget"], settings["base"])):
        for name in _PATHS:
            if isinstance(budget.get(name), str):
                budget[name] = _moved(budget[name], names)
    fields |= {
        "name": _renamed(file.name, names),
        "tracking": addresses.stored(tracking, target),
        "identity": identity.model_dump(mode="json"),
    }
    storage_copy.take_over(staged / DATABASE, old=file.name, new=fields["name"])
    StudyFile.model_validate(fields)
    TrackingState.begin_again(staged, identity.study_id)
    write_atomically(staged / STUDY, json.dumps(fields, indent=1))


def _renamed(name: str, names: Mapping[str, str]) -> str:
    """Return the new name of a study, also where its folder has another name than Optuna's study."""
    (old, new), *_ = names.items()
    return new + name.removeprefix(old) if name == old or name.startswith(f"{old}-") else name


def _moved(path: str, names: Mapping[str, str]) -> str:
    """Return a path in `study.json` with the new name of the study beside it that it leads into."""
    found = re.fullmatch(r"\.\./([^/]+)(/.*)", path)
    return f"../{names[found[1]]}{found[2]}" if found and found[1] in names else path


def _unpacked(manifest: Manifest, names: Mapping[str, str], runs: Path) -> Unpacked:
    folder = runs.absolute() / names[manifest.study]
    settings: Any = StudyFile.read(folder).settings
    code = [path for new in names.values() for path in sorted((runs / new / "modules").glob("*.py"))]
    is_foreign = False
    if code:
        from search_spaces.operators import modules as user_modules  # noqa: PLC0415 - PyTorch, which few archives need

        is_foreign = bool(user_modules.untrusted(map(str, code)))
    has_data = settings.data == DIGITS or settings.budget.data.is_file()
    weights = [budget.weights for budget in (settings.base, settings.budget) if budget and budget.weights]
    weights += [one.path for one in settings.member_weights]
    missing = [str(path) for path in weights if not path.is_file() and not path.is_relative_to(folder)]
    return Unpacked(
        study=folder.name,
        studies=list(names.values()),
        code=code,
        is_foreign=is_foreign,
        missing_data="" if has_data else str(settings.budget.data),
        missing_weights=tuple(dict.fromkeys(missing)),
        has_members=bool(settings.member_weights),
    )
