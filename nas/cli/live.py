"""Progress of a running search on stderr: a live table on a terminal, otherwise one line per change."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from nas.cli.live_area import LiveArea
from nas.cli.live_table import described, live_table
from nas.cli.options import command_for
from nas.cli.show import err, figure, labelled

if TYPE_CHECKING:
    from nas.records.record import Record
    from nas.records.trial_files import TrialFiles
    from nas.study.stored_study import StoredStudy


_CUT: Final[dict[str, Any]] = {"soft_wrap": False, "no_wrap": True, "overflow": "ellipsis"}
"""Prints a text in one line of the terminal."""
_ENDED = ("ended", None)
"""State of a stock model's training of which nothing is left to print."""


class Watching:
    """Shows a study while it runs.

    Args:
        from_now: whether trials that had ended before are passed over.

    Attributes:
        has_warned: whether it has printed that the stock model has learned nothing.
    """

    def __init__(self, *, from_now: bool = False) -> None:
        self._live = LiveArea(console=err, refresh_per_second=2, transient=True) if err.is_live else None
        self._printed: dict[int | str, tuple[str, str | None]] = {}
        self._from_now = from_now
        self._began, self._ended_before = time.monotonic(), -1
        self.has_warned = False

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def begin(self, study: "StoredStudy") -> None:
        """Show that workers are being started, until there is something to show."""
        if self._live is not None:
            self._live.update(f"{study.name}: starting {study.file.run.workers} worker(s) on {study.file.run.device}")

    def update(self, study: "StoredStudy", records: "Sequence[Record]") -> None:
        """Show the present state of the study."""
        self._print_stock_trainings(study, records)
        for record in records:
            state = (record.state, record.ending)
            if self._printed.get(record.trial) != state and record.summary and record.state != "waiting":
                self._printed[record.trial] = state
                is_old = self._from_now and record.ending is not None
                if not is_old and not err.is_quiet and (record.ending is not None or self._live is None):
                    is_cut = self._live is not None and record.finished  # nas trials prints it whole
                    err.print(_line(record), markup=False, **(_CUT if is_cut else {}))
        self._from_now = False
        self._print_slope(study, records)
        if self._live is not None:
            self._live.update(live_table(study, records, self._time_left(study, records)))

    def _time_left(self, study: "StoredStudy", records: "Sequence[Record]") -> str:
        """Estimate the remaining time from the trials that ended since this display started, before from all."""
        from nas.words import duration

        ended = sum(record.ending is not None for record in records)
        if self._ended_before < 0:
            self._ended_before = ended
        done = ended - self._ended_before
        missing = study.unfinished_trials(records)
        before = None if done else study.pace(records)
        seconds = (time.monotonic() - self._began) / done * missing if done else before.seconds_left if before else 0.0
        return f"about {duration(seconds)} left" if seconds else ""

    def _print_stock_trainings(self, study: "StoredStudy", records: "Sequence[Record]") -> None:
        """Print a line when the training of a stock model begins, and one when it ends."""
        if study.settings.base is None:
            return
        trainings = study.files_of_stock_models()
        ended = [member for member, files in trainings.items() if self._print_stock_training(study, member, files)]
        if ended and all(self._printed.get(_base(member)) == _ENDED for member in trainings):
            self._began, self._ended_before = time.monotonic(), -1  # trials are timed from here
            warning = study.nothing_learned(records)
            self.has_warned = bool(warning)
            for line in warning:
                err.print(line, markup=False)

    def _print_stock_training(self, study: "StoredStudy", member: str, files: "TrialFiles") -> bool:
        """Print what is new of the training of one stock model; return whether it has ended since the last call."""
        from nas.records.record import duration
        from nas.words import with_unit

        budget, key = study.settings.base, _base(member)
        if budget is None or self._printed.get(key) == _ENDED:
            return False
        name, outcome = f"{member} stock" if member else "stock model", files.read_outcome()
        has_begun = not member or files.folder.is_dir()
        is_shown = self._live is None and not err.is_quiet and key not in self._printed
        if outcome is None and has_begun and is_shown and not study.is_fetched_later(files):
            self._printed[key] = ("running", None)
            host = study.stock_training_host(member)
            waiting = "" if member else ", which this machine waits for"  # of several it trains another one meanwhile
            where = f" on {host}{waiting}" if host else ""
            whose, epochs = f"every trial of {member}" if member else "every trial", with_unit(budget.epochs, "epoch")
            err.print(f"{name}  training{where}, {epochs}, for {whose} to start from", markup=False)
        if outcome is None:
            return False
        self._printed[key] = _ENDED
        accuracy = figure("map50_95", outcome.get("map50_95"))
        trained = f"{with_unit(outcome['epochs'], 'epoch')}, {duration(outcome['seconds'], outcome['detail'])}"
        if not self._from_now and not err.is_quiet:
            err.print(f"{name}  {outcome['ending']}  mAP50-95 {accuracy} after {trained}", markup=False)
        return True

    def _print_slope(self, study: "StoredStudy", records: "Sequence[Record]") -> None:
        """Print once, when the stock model has ended as a trial, whether the budget is too short to rank."""
        from nas.records.record import stock_of
        from nas.report.slope import slope
        from nas.study.trained_again import base_accuracy

        if "slope" in self._printed or study.settings.confirms or stock_of(records) is None:
            return
        self._printed["slope"] = ("printed", None)
        measure = f"{command_for('trust', study)} --measure"
        found = slope(study.settings, records, base=base_accuracy(study.folder, study.settings), measure=measure)
        goes_on = study.unfinished_trials(records) > 0
        if found is not None and (goes_on or not found.is_warning):  # a warning also stands below the front
            labelled([("slope", found.sentence)])


def _base(member: str) -> str:
    """Return the key of what was printed of a stock model's training."""
    return f"base {member}"


def _line(record: "Record") -> str:
    """Describe a trial in one line."""
    from nas.records.record import duration

    begins = f"trial {record.trial:>3}  {record.status:<9} "
    if record.ending is None:
        return f"{begins}{described(record)}{f'  ({record.detail})' if record.detail else ''}"
    unsteady = "" if record.latency_steady else " (unsteady)"
    latency = f"{figure('latency_ms', record.latency_ms)} ms{unsteady}  " if record.latency_ms else ""
    accuracy, gflops = figure("map50_95", record.map50_95), figure("gflops", record.gflops)
    figures = f"mAP50-95 {accuracy}  {gflops} GFLOPs  {latency}{duration(record.seconds, record.detail)}"
    inherited = f"  {record.inherited:.0%} inherited" if record.inherited else ""
    why = "" if record.finished else f"  {record.advice}{f' ({record.detail})' if record.detail else ''}"
    return f"{begins}{figures}{inherited}  {described(record)}{why}"
