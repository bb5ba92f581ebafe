"""Garbage collection while a search runs: weights and checkpoints that are no longer needed are deleted."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from nas.records.record import Record
from nas.records.trial_files import TrialFiles
from nas.study.cleaning import lies_within, trials_with_checkpoint, trials_with_weights

_LATEST = 3
"""Number of the trials that ended last whose weights stay."""


class WeightCollector:
    """Garbage collector of a study's weights and checkpoints, by the rules of `cleaning`.

    Args:
        folder: of the study.
        objectives: of the study, which define its Pareto front.
        collect_elsewhere: called with trials whose weights and checkpoints are not needed any more.
    """

    def __init__(
        self,
        folder: Path,
        objectives: Sequence[str],
        collect_elsewhere: Callable[[Collection[int]], None] = lambda _: None,
    ) -> None:
        self._folder, self._objectives, self._collect_elsewhere = folder, objectives, collect_elsewhere
        self._collected: set[int] = set()

    def collect(self, records: Sequence[Record]) -> None:
        """Delete weights and checkpoints of trials that have ended; `records` are all of the study's."""
        weights = trials_with_weights(records, self._objectives, latest=_LATEST)
        checkpoints = trials_with_checkpoint(records)
        before = set(self._collected)
        for record in records:
            if record.ending is None or record.trial in self._collected:
                continue
            files = TrialFiles.of(self._folder, record.trial)
            if lies_within(files.weights, self._folder):  # and not elsewhere, behind a link
                if record.trial not in weights:
                    files.weights.unlink(missing_ok=True)
                if record.trial not in checkpoints:
                    files.checkpoint.unlink(missing_ok=True)
            if record.trial not in weights | checkpoints:
                self._collected.add(record.trial)
        if self._collected != before:
            self._collect_elsewhere(self._collected - before)
