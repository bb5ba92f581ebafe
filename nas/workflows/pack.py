"""Pack a study, and the studies beside it that train its models again, into one archive."""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from nas import addresses
from nas._version import __version__
from nas.study import archive
from nas.study.archive import Manifest, Show
from nas.study.archive_members import MODELS, is_weights, members_of, require_tensors
from nas.study.folders import DATABASE, SPACE, STUDY, TRACKING_DATABASE, default_storage
from nas.study.storage_copy import copy_storage
from nas.study.stored_study import StoredStudy
from nas.study.stored_trials import machines_at_work
from nas.study.trained_again import trained_again
from nas.workflows.scratch import scratch_folder
from search_spaces.errors import SpecError, StudyError
from search_spaces.files import require_place, write_atomically
from search_spaces.yaml_text import parse_yaml, read_text, read_yaml

_BASE = re.compile(r"^([ -]*base:) (.*)$", re.MULTILINE)
"""Line of a space file with the base model of it, or of a member."""
_MEMBERS = "members"
"""Key of `search_spaces.grammar`, which comes with PyTorch."""


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Archive that was written.

    Attributes:
        file: of the archive.
        studies: names of the studies in it.
        left_out: files of the studies that are not in it, though nothing writes them again.
    """

    file: Path
    studies: Sequence[str]
    left_out: Sequence[Path]


def pack(folder: Path, out: Path, show: Show = lambda _done, _all: None) -> Packed:
    """Write an archive of a study that no process runs; the study stays as it is.

    Its trials are copied into a SQLite file in the archive, wherever their storage is. Its runs in MLflow are not in
    it: the tracker of the unpacked study writes them from its files.

    Args:
        folder: of the study.
        out: file to write.
        show: called with how many of how many bytes are written.

    Raises:
        StudyError: a process runs one of the studies, or a file cannot be packed.
        SpecError: the file is there already, or its folder is not; the space is missing or damaged.
    """
    if out.exists():
        raise SpecError(f"out: {out} is there already (delete it, or name another file with -o)")
    require_place(out, "out")
    search = StoredStudy.open(folder)
    studies = [search, *map(StoredStudy.open, dict.fromkeys(trained_again(folder, search.settings)))]
    with ExitStack() as held, scratch_folder("pack") as temporary:
        for study in studies:
            held.enter_context(study.supervision_lock.held_at_once(_running(study)))
            _fetch(study)
        files: dict[str, Path] = {}
        left_out: list[Path] = []
        for study in studies:
            staged = temporary / study.name
            staged.mkdir()
            held_files, others = members_of(study.folder)
            sources = {name: study.folder / name for name in held_files} | dict(_changed(study, staged))
            files |= {f"{study.name}/{name}": sources[name] for name in _in_order(sources)}
            left_out += [study.folder / name for name in others]
        for name, file in list(files.items()):
            if is_weights(name):
                require_tensors(file, name)
        members = tuple(archive.member_of(name, file) for name, file in files.items())
        names = tuple(study.name for study in studies)
        manifest = Manifest(format=1, version=__version__, study=search.name, studies=names, members=members)
        archive.write(out, manifest, list(files.values()), show)
    return Packed(file=out, studies=names, left_out=left_out)


def _running(study: StoredStudy) -> StudyError:
    return StudyError(f"{study.name} is running in another process: pack it when it has stopped")


def _fetch(study: StoredStudy) -> None:
    """Fetch what other machines have left of a study that machines share.

    Raises:
        StudyError: one of them is at work.
    """
    if study.shared is None:
        return
    if others := machines_at_work(study):
        raise StudyError(f"{study.name}: {', '.join(others)} works on it: pack it when all machines have stopped")
    for files in study.files_of_stock_models().values():
        study.shared.fetch_training(files)
    for record in study.records():
        if record.ending is not None:
            study.shared.fetch_training(study.files(record.trial))


def _in_order(names: dict[str, Path]) -> list[str]:
    """Return `study.json` first, then the others by name."""
    return sorted(names, key=lambda name: (name != STUDY, name))


def _changed(study: StoredStudy, staged: Path) -> Iterator[tuple[str, Path]]:
    """Write the files that are others in the archive than in the study; yield them by name."""
    file = study.file.model_copy(
        update={
            "storage": default_storage(study.folder),
            "tracking": addresses.sqlite(study.folder.parent / TRACKING_DATABASE),
        }
    )
    write_atomically(staged / STUDY, file.as_text(study.folder))
    yield STUDY, staged / STUDY
    copy_storage(study, staged / DATABASE)
    yield DATABASE, staged / DATABASE
    text, models = _with_models_beside(study.folder / SPACE)
    if models:
        write_atomically(staged / SPACE, text)
        yield SPACE, staged / SPACE
        yield from models.items()


def _with_models_beside(space: Path) -> tuple[str, dict[str, Path]]:
    """Return the text of a study's space with users' base models in a folder beside it, and these files by name.

    Raises:
        StudyError: one of them cannot be named so.
    """
    text, document, models = read_text(space), read_yaml(space), dict[str, Path]()
    members = document.get(_MEMBERS)
    for part in [document, *(members if isinstance(members, list) else [])]:
        base = part.get("base") if isinstance(part, dict) else None
        if isinstance(base, str) and Path(base).is_absolute() and Path(base).is_file():
            name = f"{MODELS}/{Path(base).name}"
            part["base"], text = name, _with_base(text, base, name)
            if models.setdefault(name, Path(base)) != Path(base) or parse_yaml(text) != document:
                raise StudyError(f"{space}: its base model {base} cannot be packed: rename that file")
    return text, models


def _with_base(text: str, base: str, name: str) -> str:
    """Return the text of a space with another name in the place of a base model."""

    def renamed(line: re.Match[str]) -> str:
        is_base = parse_yaml(f"base: {line[2]}").get("base") == base
        return f"{line[1]} {name}" if is_base else line[0]

    return _BASE.sub(renamed, text)
