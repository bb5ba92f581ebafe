"""Causes of workers' exits: the ending of the trial that each gives, and whether that is retried."""

import signal
from dataclasses import dataclass

from trials import Ending

_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT}


@dataclass(frozen=True, kw_only=True)
class ExitCause:
    """Cause of the exit of a worker process.

    Attributes:
        text: the cause as a phrase, such as `exit code 3`.
        ending: of the trial that it worked on, if that is not retried.
        retry: whether the trial is retried once, in another process: the machine may have been at fault.
    """

    text: str
    ending: Ending = Ending.CRASHED
    retry: bool = True


def from_code(code: int, *, oom_killed: bool) -> ExitCause:
    """Return the cause that an exit code of `subprocess` stands for; a negative one is a signal.

    Args:
        oom_killed: whether the kernel killed some process meanwhile because memory ran out.
    """
    if code >= 0:
        return ExitCause(text=f"exit code {code}")
    number = -code
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    if number == signal.SIGKILL and oom_killed:
        text = "on the host: killed by the kernel, which had no memory left"
        return ExitCause(text=text, ending=Ending.OUT_OF_MEMORY)
    if number == signal.SIGKILL:
        return ExitCause(text=f"killed ({name}) by a user or because memory ran out; the kernel does not say which")
    return ExitCause(text=f"crash ({name})" if number in _CRASHES else f"ended by {name}")


def from_gpu(line: str) -> ExitCause:
    """Return the cause for a worker that can compute nothing more on its GPU.

    Args:
        line: why, from its log.
    """
    return ExitCause(text=line)


def from_hang(text: str) -> ExitCause:
    """Return the cause for a worker that the watchdog killed; a retry would hang, too."""
    return ExitCause(text=text, ending=Ending.TIMED_OUT, retry=False)
