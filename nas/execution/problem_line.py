"""Last line of a worker's log: why it cannot work on this machine."""

import os
import sys

PROBLEM = "problem: "
"""Prefix of the line."""


def print_problem(problem: str) -> None:
    """Print why a worker cannot work to its log, from which the supervisor reads it.

    Where the log finds no room either, what is left of it goes nowhere: Python would end with status 120, and the
    supervisor would restart the worker.
    """
    try:
        print(f"{PROBLEM}{problem}", file=sys.stderr, flush=True)  # noqa: T201 - the supervisor reads it
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
