"""Handling of SIGTERM and SIGHUP as Ctrl-C, so that a process cleans up before it ends."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NAMES = ("SIGTERM", "SIGHUP")
"""SIGTERM is sent by batch systems and `kill`, SIGHUP when a terminal is closed; Windows has no SIGHUP."""


@contextmanager
def as_ctrl_c() -> Iterator[None]:
    """Raise `KeyboardInterrupt` at the first SIGTERM or SIGHUP, and ignore further ones.

    A signal that is ignored already stays ignored (`nohup` ignores SIGHUP). Outside the main thread nothing changes:
    only the main thread may handle signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    wanted = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in wanted}
    handled = [number for number, handler in before.items() if handler == signal.SIG_DFL]

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for number in handled:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in handled:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def handlers_restored() -> Iterator[None]:
    """Restore this process's handlers of signals after a library that sets its own.

    Outside the main thread, where no library can set one, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    wanted = [getattr(signal, name) for name in (*_NAMES, "SIGINT") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # else it was not set by Python, which cannot set it again
                signal.signal(number, handler)
