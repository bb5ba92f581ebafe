"""Live tables in terminals: at 80 and 140 columns, and resized while a search runs."""

import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Group
from rich.text import Text

import nas
from nas.cli import live, live_area, show
from nas.execution import worker
from nas.execution.worker import Worker
from nas.study.study import Study
from trials import Outcome

NAS = [sys.executable, "-c", "import sys; sys.argv[0] = 'nas'; from nas.cli import main; main()"]
NAME = "a-study-with-a-name-that-is-so-long-that-no-title-fits-into-a-terminal-of-80-columns"
PATIENCE = 120.0
"""Seconds after which a command counts as hung."""
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""Colours, and movements of the cursor."""


class Terminal:
    """Terminal in which a command runs.

    Args:
        words: of the command `nas`.
        columns: width.
        rows: height.
    """

    def __init__(self, *words: object, columns: int, rows: int) -> None:
        self._here, there = pty.openpty()
        self.resize(columns, rows)
        inherited = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
        source = {"PYTHONPATH": str(Path(nas.__file__).parents[1]), "TERM": "xterm-256color"}
        command = [*NAS, *map(str, words)]
        self.process = subprocess.Popen(command, stdin=there, stdout=there, stderr=there, env=inherited | source)
        os.close(there)
        self._ended = False

    def resize(self, columns: int, rows: int) -> None:
        """Change the size, as dragging the corner of a window does."""
        fcntl.ioctl(self._here, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self, seconds: float) -> str:
        """Return what the command writes in so many seconds, or until it ends."""
        read, limit = "", time.monotonic() + seconds
        while not self._ended and (left := limit - time.monotonic()) > 0:
            if select.select([self._here], [], [], left)[0]:
                try:
                    read += os.read(self._here, 2**16).decode(errors="replace")
                except OSError:  # the command has ended
                    self._ended = True
        return read

    def read_until(self, is_there: Callable[[list[str]], bool]) -> None:
        """Read until the lines of half a second are as expected."""
        limit = time.monotonic() + PATIENCE
        while not is_there(lines := lines_of(self.read(0.6))):
            assert not self._ended, lines
            assert time.monotonic() < limit, lines

    def close(self) -> None:
        """End the command, if it has not ended."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._here)


def lines_of(written: str) -> list[str]:
    """Return the lines that were written: each ends where the cursor goes to another line or to its first column."""
    moved = re.sub(r"\x1b\[\d*[AB]|\r", "\n", written)
    return [line for line in _CONTROL.sub("", moved).split("\n") if line]


def width(lines: list[str]) -> int:
    return max(map(cell_len, lines), default=0)


@pytest.fixture
def study(make_study: Callable[..., Study], score: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> Study:
    """Study with more trials than a terminal has lines, one of which runs."""
    made = make_study(NAME, trials=16)
    monkeypatch.setattr(worker, "evaluate", score)
    Worker(made, deadline=float("inf")).run()
    made.optuna.ask()
    return made


@pytest.fixture
def watching(study: Study) -> Iterator[Terminal]:
    """Terminal of 80 columns in which `nas watch` follows the study, which another process seems to run."""
    with study.supervision_lock.held():
        terminal = Terminal("watch", study.name, "--runs", study.folder.parent, columns=80, rows=24)
        yield terminal
        terminal.close()


def test_a_live_table_fits_the_terminal_also_when_it_is_resized(watching: Terminal) -> None:
    watching.read_until(lambda lines: any(line.startswith("a-study-with") for line in lines))
    frames = lines_of(watching.read(1.2))
    assert any("running" in line for line in frames)
    assert width(frames) == 80
    watching.resize(140, 40)
    watching.read_until(lambda lines: width(lines) > 80)
    assert 80 < width(lines_of(watching.read(1.2))) <= 140
    watching.resize(80, 24)
    watching.read_until(lambda lines: 0 < width(lines) <= 80)
    assert width(lines_of(watching.read(1.2))) == 80


class Reflowing(io.StringIO):
    """Terminal that breaks lines anew when its width changes, and keeps the cursor at its place in the text."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns, self.lines, self._line, self._at = columns, [""], 0, 0

    def write(self, text: str) -> int:
        for code, count, letter, plain in re.findall(r"(\x1b\[([0-9;?]*)([A-Za-z]))|([^\x1b])", text):
            if letter == "A":
                self._up(int(count or 1))
            elif letter == "C":
                self._at += 1
            elif letter == "J":
                self.lines[self._line :] = [self.lines[self._line][: self._at]]
            elif letter == "K":
                self.lines[self._line] = self.lines[self._line][: 0 if count == "2" else self._at]
            elif plain == "\r":
                self._at = max(0, self._at - 1) // self.columns * self.columns
            elif plain == "\n":
                self._line, self._at = self._line + 1, 0
                self.lines += [""] * (self._line == len(self.lines))
            elif not code:
                line = self.lines[self._line].ljust(self._at)
                self.lines[self._line] = line[: self._at] + plain + line[self._at + 1 :]
                self._at += 1
        return len(text)

    def _up(self, rows: int) -> None:
        for _ in range(rows):
            if self._at > self.columns:
                self._at -= self.columns
            elif self._line:
                self._line -= 1
                last = max(0, len(self.lines[self._line]) - 1) // self.columns * self.columns
                self._at = last + min(self._at, self.columns - 1)


def test_a_terminal_that_is_narrowed_has_no_lines_of_before() -> None:
    terminal = Reflowing(140)
    console = show.PrintableConsole(file=terminal, force_terminal=True, width=140, height=24, soft_wrap=True)
    display = live_area.LiveArea(console=console, auto_refresh=False, transient=True)
    with display:
        for columns in (140, 80, 60, 140):
            terminal.columns, console.width = columns, columns
            display.update(Group(*(Text(f"{row}".ljust(columns, "."), no_wrap=True) for row in range(5))), refresh=True)
            console.print(f"ended at {columns}")
            assert [line[0] for line in terminal.lines if line][-5:] == list("01234")
            assert sum(line.startswith("0") for line in terminal.lines) == 1
    assert [line for line in terminal.lines if line] == [f"ended at {columns}" for columns in (140, 80, 60, 140)]


def test_a_trial_that_has_finished_is_one_line(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    for columns, rows in ((80, 24), (140, 40)):
        out = io.StringIO()
        console = show.PrintableConsole(file=out, force_terminal=True, width=columns, height=rows, soft_wrap=True)
        monkeypatch.setattr(live, "err", console)
        with live.Watching() as display:
            display.update(study, study.records())
        lines = lines_of(out.getvalue())
        assert sum(line.startswith("trial ") and "finished" in line for line in lines) == 16
        assert width(lines) <= columns


@pytest.fixture(params=[True, False], ids=["terminal", "pipe"])
def is_terminal(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def printed(*, is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is printed to stderr, 40 characters wide."""
    out = io.StringIO()
    console = show.PrintableConsole(file=out, force_terminal=is_terminal, width=40, soft_wrap=True, color_system=None)
    monkeypatch.setattr(show, "err", console)
    return out


def test_long_texts_of_a_plan_are_broken_between_words_on_a_terminal(
    printed: io.StringIO, *, is_terminal: bool
) -> None:
    path = f"/{'x' * 40}"
    show.labelled([("slope", "the stock model still gains 11.3 points in 3 epochs"), ("folder", path)])
    broken = "the stock model still gains\n          11.3 points in 3 epochs"
    text = broken if is_terminal else " ".join(broken.split())
    assert printed.getvalue() == f"slope     {text}\nfolder    {path}\n"


def test_long_lines_are_broken_between_words_and_commands_stay_whole_on_a_terminal(
    printed: io.StringIO, *, is_terminal: bool
) -> None:
    row = "trial  6  finished  UIB 21, DCNv4 2 and others"
    show.lines(["no verdict before fresh seeds judge (nas confirm v9t-digits --seeds 5); it says so", row, "\nshort"])
    broken = "no verdict before fresh seeds judge\n(nas confirm v9t-digits --seeds 5); it\nsays so"
    text = broken if is_terminal else " ".join(broken.split())
    assert printed.getvalue() == f"{text}\n{row}\n\nshort\n"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_results_in_words_are_broken_between_words_beside_their_name(
    *, is_terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    console = show.PrintableConsole(force_terminal=is_terminal, width=40)
    monkeypatch.setattr(show, "console", lambda: console)
    show.prose(
        ["slope     the stock model still gains points in another epoch", "measure it: nas trust mine --measure"]
    )
    lines = ["slope     the stock model still gains", "          points in another epoch"]
    expected = lines if is_terminal else [f"{lines[0]} {lines[1].strip()}"]
    assert capsys.readouterr().out.splitlines() == [*expected, "measure it: nas trust mine --measure"]
