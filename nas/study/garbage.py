"""Collect garbage: delete the weights and checkpoints that nobody will need again."""

from collections.abc import Sequence
from pathlib import Path

from nas.records.record import Record, pareto_front_of
from nas.records.trial_files import TrialFiles

_LATEST = 3
"""Of so many latest trials the weights stay."""


class WeightCollector:
    """Deletes weights except those of the Pareto front, the stock model and the latest trials.

    Args:
        folder: of the study.
        objectives: of the study, which define its Pareto front.
    """

    def __init__(self, folder: Path, objectives: Sequence[str]) -> None:
        self._folder, self._objectives = folder, objectives
        self._collected: set[int] = set()

    def collect(self, records: Sequence[Record]) -> None:
        """Delete weights and checkpoints of the finished trials among all of the study's `records`."""
        ended = [record for record in records if record.ending is not None]
        needed = {record.trial for record in (*pareto_front_of(records, self._objectives), *ended[-_LATEST:])}
        for record in ended:
            if record.trial not in needed | self._collected and record.role != "stock":
                files = TrialFiles.of(self._folder, record.trial)
                if files.folder.resolve().is_relative_to(self._folder.resolve()):  # and not elsewhere, behind a link
                    files.weights.unlink(missing_ok=True)
                    files.checkpoint.unlink(missing_ok=True)
                self._collected.add(record.trial)
