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
from search_spaces.files import atomic_path, digest, make_durable_folder, read_json, write_atomically
from trials import Budget, Ending, Epoch, Outcome, Scores
from trials.data.datasets import DataSet
from trials.provenance import Provenance
from trials.scores import Accuracy, Costs, Coverage

T = TypeVar("T")

log = logging.getLogger(__name__)

OFF = "NAS_NO_CACHE"
"""Environment variable that turns the cache off for all studies."""

_JUDGED_SUFFIX = ".npz"
_IRRELEVANT = {"data", "weights", "timeout", "rungs"}
"""Fields of a budget that do not change a score; data and weights enter the key by their content instead."""


def training_key(
    architecture: Architecture, budget: Budget, data: DataSet, initial_weights: str, *, judging: str = ""
) -> str:
    """Return a hash that is equal for two trainings with the same score.

    Args:
        initial_weights: the key of the stock model's training, or a `weights_digest`.
        judging: fingerprint of the images on which it is evaluated in the end; empty for a training that is not.
    """
    provenance = asdict(Provenance.of(budget, data))
    del provenance["commit"]  # most commits change no score; those of the code that does are in `code`
    del provenance["weights"]  # `initial_weights` is of them, and of what a stock model's training has determined
    training = budget.at(architecture.image_size).model_dump(mode="json", exclude=_IRRELEVANT)
    user_operators = sorted(source.digest for source in architecture.sources)
    parts = [architecture.fingerprint, user_operators, training, provenance, initial_weights]
    parts += [judging] if judging else []
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
        judged: `map50_95` and `map50` on the images that judge; None for a training that was not judged.
        judged_digest: of the file with its matches, which lies beside this one.
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
    judged: dict[str, float] | None = None
    judged_digest: str = ""

    @staticmethod
    def parse(content: object) -> "CachedTraining | None":
        """Validate a file of the cache; None if it describes no training that ended with a score."""
        try:
            cached = _strict(_CACHED, content)
            Scores(**cached.scores, costs=_strict(_COSTS, cached.costs))
            for epoch in cached.epochs:
                _strict(_EPOCH, epoch)
            _strict(_PROVENANCE, cached.provenance)
            if cached.judged is not None:
                Scores(**cached.judged, costs=_strict(_COSTS, cached.costs))
        except (ValueError, TypeError, ScoreError):
            return None
        return cached if cached.epochs else None

    @property
    def has_weights(self) -> bool:
        """Whether the weights still exist, unchanged."""
        path = Path(self.weights)
        return path.is_file() and self.digest in {"", weights_digest(path)}

    def restore(
        self, architecture: Architecture, costs: Costs, files: TrialFiles, *, judged: Path | None = None
    ) -> Outcome:
        """Restore this training as a trial: write its model, epochs and weights into the trial's folder.

        Args:
            judged: the cache's file with its matches; None for a training that was not judged.

        Returns:
            The outcome.
        """
        make_durable_folder(files.folder)
        write_atomically(files.model, self.model)
        epochs = tuple(Epoch(**epoch) for epoch in self.epochs)
        for epoch in epochs:
            files.write_epoch(epoch)
        has_weights = self.has_weights
        if has_weights:
            _copy(Path(self.weights), files.weights)
        if judged is not None:
            _copy(judged, files.judged)
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
            judged=None if judged is None or self.judged is None else Accuracy(**self.judged),
            provenance=Provenance(**self.provenance),
        )


_CACHED = TypeAdapter(CachedTraining)
_COSTS, _EPOCH, _PROVENANCE = TypeAdapter(Costs), TypeAdapter(Epoch), TypeAdapter(Provenance)


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


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

    def judged_file(self, key: str, cached: CachedTraining) -> Path | None:
        """Return the file with the matches of a training; None if it was not judged, or the file is not whole."""
        path = self._path(key).with_suffix(_JUDGED_SUFFIX)
        try:
            is_whole = cached.judged is not None and digest(path) == cached.judged_digest
        except OSError:
            return None
        return path if is_whole else None

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
            _copy(files.weights, weights)
        if outcome.judged is not None:
            _copy(files.judged, path.with_suffix(_JUDGED_SUFFIX))
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
            judged=None if outcome.judged is None else asdict(outcome.judged),
            judged_digest="" if outcome.judged is None else digest(files.judged),
        )
        write_atomically(path, json.dumps(asdict(cached)))

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"
