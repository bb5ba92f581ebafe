"""What is to be read from a worker's death: how its trial ended, and whether it may be tried once more."""

import signal
from dataclasses import dataclass

from trials import Ending

_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT}


@dataclass(frozen=True, kw_only=True)
class Death:
    """How a worker died.

    Attributes:
        cause: in words, such as `exit code 3`.
        ending: of the trial that it died in, if that is not tried again.
        again: whether the trial is tried once more, in another process: the fault may have been the machine's.
    """

    cause: str
    ending: Ending = Ending.CRASHED
    again: bool = True


def of_code(code: int, *, oom_killed: bool) -> Death:
    """What an exit code says, as `subprocess` gives it: below 0 is a signal.

    Args:
        oom_killed: whether the kernel killed some process for want of memory meanwhile.
    """
    if code >= 0:
        return Death(cause=f"exit code {code}")
    number = -code
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    if number == signal.SIGKILL and oom_killed:
        return Death(cause="on the host: killed by the kernel, which had no memory left", ending=Ending.OUT_OF_MEMORY)
    if number == signal.SIGKILL:
        return Death(cause=f"killed ({name}), by someone or for want of memory: the kernel does not say")
    return Death(cause=f"crash ({name})" if number in _CRASHES else f"ended by {name}")


def of_hang(why: str) -> Death:
    """Of a worker that was killed because its trial does not come to an end; another try would not either."""
    return Death(cause=why, ending=Ending.TIMED_OUT, again=False)
