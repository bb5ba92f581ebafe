"""Cache of the scores of finished trainings, shared by all studies of a user.

A training is determined to the bit by architecture, budget, data, initial weights, device and code. Where all of these
are equal it is not repeated, however else two studies differ: limits, objectives, sampler, space. The weights stay in
the study that trained them, and are copied from there while they exist; a stock model's, from which every candidate
starts, are copied into the cache.
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
"""Environment variable that turns the cache off for all studies."""

_IRRELEVANT = {"data", "weights", "timeout", "rungs"}
"""Fields of a budget that do not change a score; data and weights enter the key by their content instead."""


def training_key(architecture: Architecture, budget: Budget, data: DataSet, initial_weights: str) -> str:
    """Return a hash that is equal for two trainings with the same score.

    Args:
        initial_weights: the key of the stock model's training, or a `weights_digest`.
    """
    provenance = asdict(Provenance.of(budget, data))
    del provenance["commit"]  # most commits change no score; those of the code that does are in `code`
    del provenance["weights"]  # `initial_weights` is of them, and of what a stock model's training has determined
    training = budget.at(architecture.image_size).model_dump(mode="json", exclude=_IRRELEVANT)
    user_operators = sorted(source.digest for source in architecture.sources)
    parts = [architecture.fingerprint, user_operators, training, provenance, initial_weights]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def weights_digest(weights: Path | None) -> str:
    """Return a hash of a checkpoint's content; empty for random weights."""
    return "" if weights is None else digest(weights)


@dataclass(frozen=True, kw_only=True)
class CachedTraining:
    """Finished training; one JSON file of the cache.

    Attributes:
        where: folder of its trial.
        weights: path of its weights, which may have been deleted.
        scores: `map50_95` and `map50`.
        costs: as that study counted, predicted or measured them.
        model: YAML of the architecture.
        digest: of the weights; empty in files of versions that stored none.
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
    def parse(content: object) -> "CachedTraining | None":
        """Validate a file of the cache; None if it describes no training that ended with a score."""
        try:
            cached = _strict(_CACHED, content)
            Scores(**cached.scores, costs=_strict(_COSTS, cached.costs))
            for epoch in cached.epochs:
                _strict(_EPOCH, epoch)
            _strict(_PROVENANCE, cached.provenance)
        except (ValueError, TypeError, ScoreError):
            return None
        return cached if cached.epochs else None

    @property
    def has_weights(self) -> bool:
        """Whether the weights still exist, unchanged."""
        path = Path(self.weights)
        return path.is_file() and self.digest in {"", weights_digest(path)}

    def restore(self, architecture: Architecture, costs: Costs, files: TrialFiles) -> Outcome:
        """Restore this training as a trial: write its model, epochs and weights into the trial's folder.

        Returns:
            The outcome.
        """
        files.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(files.model, self.model)
        epochs = tuple(Epoch(**epoch) for epoch in self.epochs)
        for epoch in epochs:
            files.write_epoch(epoch)
        has_weights = self.has_weights
        if has_weights:
            with atomic_path(files.weights) as temporary:
                shutil.copyfile(self.weights, temporary)
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


_CACHED = TypeAdapter(CachedTraining)
_COSTS, _EPOCH, _PROVENANCE = TypeAdapter(Costs), TypeAdapter(Epoch), TypeAdapter(Provenance)


def _strict(adapter: TypeAdapter[T], content: object) -> T:
    """Validate parsed JSON strictly: "1" is no number."""
    return adapter.validate_json(json.dumps(content), strict=True)


@dataclass(frozen=True)
class ScoreCache:
    """Folder with one JSON file per training."""

    folder: Path

    @classmethod
    def of_user(cls) -> "ScoreCache | None":
        """Return the cache of this user; None if the environment turns it off."""
        return None if os.environ.get(OFF) else cls(cache_folder.path() / "scores")

    def read(self, key: str) -> CachedTraining | None:
        """Return the training of a `training_key`; None if there is none, or it cannot be read."""
        try:
            return CachedTraining.parse(read_json(self._path(key)))
        except OSError:
            return None

    def write(self, key: str, outcome: Outcome, files: TrialFiles, *, copy_weights: bool = False) -> None:
        """Store a training that ended with a score; log a warning if the cache cannot be written.

        Args:
            copy_weights: whether the weights are copied into the cache, too.
        """
        if outcome.scores is None or outcome.provenance is None:
            return
        try:
            self._write(key, outcome, outcome.scores, outcome.provenance, files, copy_weights=copy_weights)
        except (OSError, EnvironmentProblem) as error:
            log.warning("this score cannot be stored for other studies: %s", error)

    def _write(
        self,
        key: str,
        outcome: Outcome,
        scores: Scores,
        provenance: Provenance,
        files: TrialFiles,
        *,
        copy_weights: bool,
    ) -> None:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        weights = files.weights
        if copy_weights:
            weights = path.with_suffix(".pt")
            with atomic_path(weights) as copy:
                shutil.copyfile(files.weights, copy)
        cached = CachedTraining(
            where=str(files.folder),
            weights=str(weights),
            scores={"map50_95": scores.map50_95, "map50": scores.map50},
            costs=asdict(scores.costs),
            model=files.model.read_text(encoding="utf-8"),
            epochs=[asdict(epoch) for epoch in outcome.epochs],
            inherited=outcome.coverage.share,
            changed_layers=list(outcome.coverage.layers),
            provenance=asdict(provenance),
            digest=weights_digest(weights if weights.is_file() else None),
        )
        write_atomically(path, json.dumps(asdict(cached)))

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"
