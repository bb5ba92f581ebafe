"""SIGTERM and SIGHUP, treated like Ctrl-C: what is begun is put in order before the process ends."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NAMES = ("SIGTERM", "SIGHUP")
"""Sent by batch systems and `kill`, and by a terminal that is closed; Windows has no SIGHUP."""


@contextmanager
def as_ctrl_c() -> Iterator[None]:
    """Raise `KeyboardInterrupt` at the first SIGTERM or SIGHUP, and ignore further ones.

    One that is ignored already (`nohup` ignores SIGHUP) stays so. Outside of the main thread, which alone may handle
    signals, nothing changes.
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
