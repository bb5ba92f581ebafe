"""Scores of finished trainings, for other studies that would train the very same again.

A training follows to the bit from the architecture, the budget, the data, the weights that it starts from, the device
and the code. Where all of these agree it is not paid for twice, whatever else two studies differ in: their limits,
objectives, sampler, space. Its weights stay in the study that trained it, and are taken from there while they are kept;
those of a stock model, from which every candidate starts, are kept here.
"""

import hashlib
import json
import logging
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from nas.records.record import TRAINED_BEFORE
from nas.records.trial_files import TrialFiles
from search_spaces import Architecture, cache_folder
from search_spaces.errors import EnvironmentProblem, ScoreError
from search_spaces.files import atomic_path, digest, read_json, write_atomically
from trials import Budget, Ending, Epoch, Outcome, Scores
from trials.data.datasets import DataSet
from trials.provenance import Provenance
from trials.scores import Costs, Coverage

T = TypeVar("T")

log = logging.getLogger(__name__)

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
    return "" if weights is None else digest(weights)


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """How a training ended that was paid for.

    Attributes:
        where: the folder of its trial.
        weights: where they were kept; they may be gone by now.
        scores: `map50_95` and `map50`.
        costs: as they were known there.
        model: its YAML.
        digest: of the weights; empty for what was remembered before digests were.
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
    digest: str = ""

    @staticmethod
    def of(noted: object) -> "Remembered | None":
        """Validate a file of the cache; None if it describes no training that ended with a score."""
        try:
            known = _strict(_REMEMBERED, noted)
            Scores(**known.scores, costs=_strict(_COSTS, known.costs))
            for epoch in known.epochs:
                _strict(_EPOCH, epoch)
            _strict(_PROVENANCE, known.provenance)
        except (ValueError, TypeError, ScoreError):
            return None
        return known if known.epochs else None

    @property
    def has_weights(self) -> bool:
        """Whether they are still where they were kept, and whole."""
        kept = Path(self.weights)
        return kept.is_file() and self.digest in {"", begun_from(kept)}

    def given(self, architecture: Architecture, costs: Costs, files: TrialFiles) -> Outcome:
        """The same ending for another trial, which gets the files of that one."""
        files.folder.mkdir(parents=True, exist_ok=True)
        files.model.write_text(self.model, encoding="utf-8")
        epochs = tuple(Epoch(**epoch) for epoch in self.epochs)
        for epoch in epochs:
            files.write_epoch(epoch)
        has_weights = self.has_weights
        if has_weights:
            shutil.copyfile(self.weights, files.weights)
        layers = tuple((layer, share) for layer, share in self.changed_layers)
        return Outcome(
            architecture=architecture,
            ending=Ending.FINISHED,
            costs=costs,
            scores=Scores(**self.scores, costs=costs),
            epochs=epochs,
            coverage=Coverage(share=self.inherited, layers=layers),
            detail=f"{TRAINED_BEFORE}, in {self.where}",
            weights=files.weights if has_weights else None,
            provenance=Provenance(**self.provenance),
        )


_REMEMBERED = TypeAdapter(Remembered)
_COSTS, _EPOCH, _PROVENANCE = TypeAdapter(Costs), TypeAdapter(Epoch), TypeAdapter(Provenance)


def _strict(form: TypeAdapter[T], noted: object) -> T:
    """Validate parsed JSON strictly: "1" is no number."""
    return form.validate_json(json.dumps(noted), strict=True)


@dataclass(frozen=True)
class ScoreCache:
    """A folder with a file for each score."""

    folder: Path

    @classmethod
    def of_user(cls) -> "ScoreCache | None":
        """The one of all studies of this user, unless it is refused for all."""
        return None if os.environ.get(OFF) else cls(cache_folder.path() / "scores")

    def read(self, name: str) -> Remembered | None:
        """Return the cached training of a `key`; None if there is none, or it cannot be read."""
        try:
            return Remembered.of(read_json(self._path(name)))
        except OSError:
            return None

    def remember(self, name: str, outcome: Outcome, files: TrialFiles, *, keep_weights: bool = False) -> None:
        """Keep how a training ended, if it ended with a score; a cache that cannot be written keeps nothing.

        Args:
            keep_weights: whether a copy of its weights is kept here, too.
        """
        if outcome.scores is None or outcome.provenance is None:
            return
        try:
            self._keep(name, outcome, outcome.scores, outcome.provenance, files, keep_weights=keep_weights)
        except (OSError, EnvironmentProblem) as error:
            log.warning("this score cannot be kept for other studies: %s", error)

    def _keep(
        self,
        name: str,
        outcome: Outcome,
        scores: Scores,
        provenance: Provenance,
        files: TrialFiles,
        *,
        keep_weights: bool,
    ) -> None:
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        weights = files.weights
        if keep_weights:
            weights = path.with_suffix(".pt")
            with atomic_path(weights) as copy:
                shutil.copyfile(files.weights, copy)
        known = Remembered(
            where=str(files.folder),
            weights=str(weights),
            scores={"map50_95": scores.map50_95, "map50": scores.map50},
            costs=asdict(scores.costs),
            model=files.model.read_text(encoding="utf-8"),
            epochs=[asdict(epoch) for epoch in outcome.epochs],
            inherited=outcome.coverage.share,
            changed_layers=list(outcome.coverage.layers),
            provenance=asdict(provenance),
            digest=begun_from(weights if weights.is_file() else None),
        )
        write_atomically(path, json.dumps(asdict(known)))

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / f"{name}.json"
