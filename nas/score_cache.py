"""Scores of finished trainings, for other studies that would train the very same again.

A training follows to the bit from the architecture, the budget, the data, the weights that it starts from, the device
and the code. Where all of these agree it is not paid for twice, whatever else two studies differ in: their limits,
objectives, sampler, space. Its weights stay in the study that trained it, and are taken from there while they are kept;
those of a stock model, from which every candidate starts, are kept here.
"""

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nas.records import TRAINED_BEFORE, TrialFiles, write_aside
from search_spaces import Architecture
from trials import Budget, Ending, Epoch, Outcome, Scores
from trials.datasets import DataSet, cache_folder
from trials.inheritance import Coverage
from trials.provenance import Provenance
from trials.scores import Costs

OFF = "NAS_NO_CACHE"
"""The environment variable that refuses the cache for all studies."""

_NO_MATTER = {"data", "weights", "timeout", "rungs"}
"""What of a budget does not change a score: where files lie is said by what is in them."""


def key(architecture: Architecture, budget: Budget, data: DataSet, begun: str) -> str:
    """Equal for two trainings that end in the same score.

    Args:
        begun: what the weights start from: the key of a stock model's training, or as `begun_from` says it.
    """
    provenance = asdict(Provenance.of(budget, data))
    del provenance["commit"]  # most commits change no score; those of the code that does are in `code`
    own = budget.at(architecture.image_size).model_dump(mode="json", exclude=_NO_MATTER)
    theirs = sorted(source.digest for source in architecture.sources)  # of operators that are not ours
    known = [architecture.fingerprint, theirs, own, provenance, begun]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:32]


def begun_from(weights: Path | None) -> str:
    """A hash of a checkpoint's content; empty for random weights."""
    if weights is None:
        return ""
    with weights.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """How a training ended that was paid for.

    Attributes:
        where: the folder of its trial.
        weights: where they were kept; they may be gone by now.
        scores: `map50_95` and `map50`.
        costs: as they were known there.
        model: its YAML.
    """

    where: str
    weights: str
    scores: dict[str, float]
    costs: dict[str, Any]
    model: str
    epochs: list[dict[str, Any]]
    inherited: float
    changed_layers: list[tuple[str, float]]
    provenance: dict[str, Any]

    def given(self, architecture: Architecture, costs: Costs, files: TrialFiles) -> Outcome:
        """The same ending for another trial, which gets the files of that one."""
        files.folder.mkdir(parents=True, exist_ok=True)
        files.model.write_text(self.model, encoding="utf-8")
        epochs = tuple(Epoch(**epoch) for epoch in self.epochs)
        for epoch in epochs:
            files.write_epoch(epoch)
        kept = Path(self.weights)
        if kept.is_file():
            shutil.copyfile(kept, files.weights)
        layers = tuple((layer, share) for layer, share in self.changed_layers)
        return Outcome(
            architecture=architecture,
            ending=Ending.FINISHED,
            costs=costs,
            scores=Scores(**self.scores, costs=costs),
            epochs=epochs,
            coverage=Coverage(share=self.inherited, layers=layers),
            detail=f"{TRAINED_BEFORE}, in {self.where}",
            weights=files.weights if kept.is_file() else None,
            provenance=Provenance(**self.provenance),
        )


@dataclass(frozen=True)
class ScoreCache:
    """A folder with a file for each score."""

    folder: Path

    @classmethod
    def of_user(cls) -> "ScoreCache | None":
        """The one of all studies of this user, unless it is refused for all."""
        return None if os.environ.get(OFF) else cls(cache_folder() / "scores")

    def read(self, name: str) -> Remembered | None:
        """What is known of a training by its `key`."""
        path = self._path(name)
        return Remembered(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    def remember(self, name: str, outcome: Outcome, files: TrialFiles, *, keep_weights: bool = False) -> None:
        """Keep how a training ended, if it ended with a score.

        Args:
            keep_weights: whether a copy of its weights is kept here, too.
        """
        if outcome.scores is None or outcome.provenance is None:
            return
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        weights = files.weights
        if keep_weights:
            aside = path.with_suffix(".tmp")
            shutil.copyfile(files.weights, aside)
            weights = aside.replace(path.with_suffix(".pt"))
        known = Remembered(
            where=str(files.folder),
            weights=str(weights),
            scores={"map50_95": outcome.scores.map50_95, "map50": outcome.scores.map50},
            costs=asdict(outcome.scores.costs),
            model=files.model.read_text(encoding="utf-8"),
            epochs=[asdict(epoch) for epoch in outcome.epochs],
            inherited=outcome.coverage.share,
            changed_layers=list(outcome.coverage.layers),
            provenance=asdict(outcome.provenance),
        )
        write_aside(path, json.dumps(asdict(known)))

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / f"{name}.json"
