"""Full trainings of a study's models by `nas train`: one folder each, which Ultralytics writes."""

import csv
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from nas.words import with_unit
from search_spaces.errors import NasError, SpecError
from search_spaces.files import read_plain_text, write_atomically
from search_spaces.yaml_text import read_yaml

FOLDER = "full"
"""Folder in a study's with the full trainings: `full/trial-0007`, then `full/trial-0007-2`."""
FINISHED = "finished"
"""Empty file in the folder of a training that has ended by itself."""
_NAME = re.compile(r"trial-(\d+)(?:-(\d+))?")
_ACCURACY = "metrics/mAP50-95(B)"


@dataclass(frozen=True, kw_only=True)
class FullTraining:
    """Full training of a trial's model.

    Attributes:
        folder: with Ultralytics' `args.yaml`, `results.csv` and `weights/`.
        number: 1 for the first of its trial.
        epochs: that are done.
        of: that were asked for; None if the training has not begun.
        map50_95: of the best epoch; None before the first.
        is_finished: whether it has ended by itself, perhaps before `of` epochs: Ultralytics stops if nothing improves.
    """

    folder: Path
    trial: int
    number: int
    epochs: int
    of: int | None
    map50_95: float | None
    is_finished: bool

    @property
    def last(self) -> Path:
        """Checkpoint from which it can go on."""
        return self.folder / "weights" / "last.pt"

    @property
    def best(self) -> Path:
        """Weights of the best epoch."""
        return self.folder / "weights" / "best.pt"

    @property
    def sentence(self) -> str:
        """State in one line."""
        done = with_unit(self.epochs, "epoch") if self.is_finished else f"{self.epochs} of {self.of or '?'} epochs"
        accuracy = "" if self.map50_95 is None else f", mAP50-95 {self.map50_95:.3f}"
        return f"trial {self.trial} trained in full: {done}{accuracy}: {self.best if self.is_finished else self.folder}"

    def as_document(self) -> dict[str, Any]:
        """Return the values for JSON."""
        return {**asdict(self), "folder": str(self.folder)}

    def finish(self) -> None:
        """Mark it as ended by itself."""
        write_atomically(self.folder / FINISHED, "")


def full_trainings(study: Path) -> list[FullTraining]:
    """Return the full trainings in a study's folder, by trial, in the order in which they began."""
    found = [(path, _NAME.fullmatch(path.name)) for path in (study / FOLDER).glob("trial-*") if path.is_dir()]
    read = [_read(path, int(name[1]), int(name[2] or 1)) for path, name in found if name]
    return sorted(read, key=lambda one: (one.trial, one.number))


def next_folder(study: Path, trial: int) -> Path:
    """Return the folder of the next full training of a trial, which does not exist yet."""
    number = max((one.number for one in full_trainings(study) if one.trial == trial), default=0) + 1
    return study / FOLDER / (f"trial-{trial:04d}" if number == 1 else f"trial-{trial:04d}-{number}")


def unfinished(study: Path, trial: int | None, *, name: str) -> FullTraining:
    """Return the last full training that has not ended, of a trial or of any.

    Raises:
        SpecError: there is none.
    """
    every = [one for one in full_trainings(study) if trial in {None, one.trial}]
    left = [one for one in every if not one.is_finished and one.last.is_file()]
    if left:
        return max(left, key=lambda one: one.last.stat().st_mtime)
    which = name if trial is None else f"trial {trial} of {name}"
    if not every:
        raise SpecError(f"resume: no full training of {which} has begun (leave --resume out)")
    if every[-1].is_finished:
        raise SpecError(f"resume: the full training of {which} has finished: {every[-1].best}")
    raise SpecError(f"resume: the full training of {which} had not saved an epoch yet (leave --resume out)")


def _read(folder: Path, trial: int, number: int) -> FullTraining:
    rows = _rows(folder / "results.csv")
    scores = [score for row in rows if (score := _number(row, _ACCURACY)) is not None]
    epochs = [int(epoch) for row in rows if (epoch := _number(row, "epoch")) is not None]
    return FullTraining(
        folder=folder,
        trial=trial,
        number=number,
        epochs=max(epochs, default=0),
        of=_epochs_asked_for(folder / "args.yaml"),
        map50_95=max(scores, default=None),
        is_finished=(folder / FINISHED).is_file(),
    )


def _rows(file: Path) -> list[Mapping[str, str]]:
    """Return the epochs in `results.csv`, without a line that is only partly written; none if it is damaged."""
    if not file.is_file():
        return []
    try:
        *lines, _torn = read_plain_text(file).split("\n")
        return list(csv.DictReader(lines, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def _number(row: Mapping[str, str], name: str) -> float | None:
    """Return a finite number of a row; None if it has none there."""
    try:
        value = float(row.get(name) or "nan")
    except ValueError:
        return None
    return value if isfinite(value) else None


def _epochs_asked_for(file: Path) -> int | None:
    try:
        epochs = read_yaml(file).get("epochs") if file.is_file() else None
    except NasError:  # torn: the training was killed as it began
        return None
    return epochs if isinstance(epochs, int) else None
