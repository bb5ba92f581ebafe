"""Progress of a study in one line, for a Python program that runs in a terminal or in a notebook."""

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, TextIO

from nas.words import with_unit

if TYPE_CHECKING:  # they need PyTorch, and the first line comes before it is imported
    from nas.records.record import Record
    from nas.study.study import Study

Show = Callable[[str], None]

_CLEAR = "\r\x1b[K"
_WIDTH = 100


@contextmanager
def progress_line(stream: TextIO | None = None) -> Iterator[Show]:
    """Show what is done in one line that is overwritten; nothing if the stream is neither terminal nor notebook.

    In a notebook the last line remains: it tells how the search ended.

    Args:
        stream: to write to; None for stderr.

    Yields:
        A function to call with what the line says from now on.
    """
    out = sys.stderr if stream is None else stream
    if out is None:  # Python without a console
        yield lambda _text: None
    elif _belongs_to_a_notebook(out):
        _import_tqdm_quietly()
        yield _Cell().show
    elif out.isatty():
        try:
            yield lambda text: print(f"{_CLEAR}{text[:_WIDTH]}", end="", file=out, flush=True)
        finally:
            print(_CLEAR, end="", file=out, flush=True)
    else:
        yield lambda _text: None


def _belongs_to_a_notebook(stream: TextIO) -> bool:
    """Return whether a stream leads into the output of a cell: each is of a class of the package of the kernel."""
    return type(stream).__module__.partition(".")[0] == "ipykernel"


def _import_tqdm_quietly() -> None:
    """Import what Optuna shows progress with: in a kernel without widgets it warns, of bars that we do not show."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        import_module("tqdm.auto")


class _Cell:
    """Line in the output of the cell that runs, by IPython's updatable displays."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._shown = ""

    def show(self, text: str) -> None:
        """Replace the line."""
        from IPython.display import display  # noqa: PLC0415 - it is there in a kernel only

        if text == self._shown:
            return
        self._shown, content = text, {"text/plain": text}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


def line(study: "Study", records: "Sequence[Record]") -> str:
    """Return the state of a study: `v9t-digits: 3 of 12 trials, 2 running, best mAP50-95 0.412`."""
    if stocks := [training for training in study.stock_trainings if training.outcome() is None]:
        epochs = [f"{len(one.files.read_epochs())} of {one.budget.epochs}" for one in stocks]
        return f"{study.name}: training {', '.join(one.title for one in stocks)}, epoch {', '.join(epochs)}"
    ended = sum(record.ending is not None for record in records)
    running = sum(record.state == "running" for record in records)
    best = max((record.map50_95 for record in records if record.map50_95 is not None), default=None)
    score = "" if best is None else f", best mAP50-95 {best:.3f}"
    return f"{study.name}: {ended} of {with_unit(study.file.run.trials, 'trial')}, {running} running{score}"
