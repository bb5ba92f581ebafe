"""Run timing processes side by side, and combine what they have measured."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

from pydantic import TypeAdapter

from nas.workflows.timing_process import ProcessTimes, Task
from search_spaces.errors import EstimateError
from trials.training.timed_training import TrainingTimes

LIMIT_SECONDS = 300.0
"""Time limit of a measurement."""
_PROCESS = (sys.executable, "-P", "-m", "nas.workflows.timing_process")

Report = Callable[[int, int], None]
"""Called with how many of how many architectures were timed."""
Lines = queue.SimpleQueue[tuple[int, dict[str, Any] | None]]
"""Parsed lines of all processes, with the index of each; None is the end of its lines."""


def answers(
    tasks: Sequence[Task], places: Sequence[Path], environment: dict[str, str], report: Report, *, of: int
) -> Iterator[ProcessTimes]:
    """Run the processes, and yield what each has measured.

    Raises:
        EstimateError: one has failed, or the time limit is over.
    """
    lines: Lines = queue.SimpleQueue()
    deadline = time.monotonic() + LIMIT_SECONDS
    done = [0] * len(tasks)
    report(0, of)
    with _processes(tasks, places, environment, lines) as processes:
        missing = set(range(len(tasks)))
        while missing:
            try:
                index, line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise EstimateError(
                    f"the timed trainings took over {LIMIT_SECONDS:.0f} s: {min(done)} of {of} architectures were timed"
                ) from None
            if line is None:
                if index in missing:
                    raise EstimateError(f"a timed training failed: {_reason(places[index], processes[index].wait())}")
            elif "done" in line:
                done[index] = line["done"]
                report(min(done), of)
            else:
                missing.discard(index)
                yield TypeAdapter(ProcessTimes).validate_python(line)


@contextmanager
def _processes(
    tasks: Sequence[Task],
    places: Sequence[Path],
    environment: dict[str, str],
    lines: Lines,
) -> Iterator[list[subprocess.Popen[str]]]:
    """Start the processes, pass the lines that they print to a queue, and kill what runs at the end."""
    processes: list[subprocess.Popen[str]] = []
    try:
        for index, (task, place) in enumerate(zip(tasks, places, strict=True)):
            with (place / "log").open("w", encoding="utf-8") as log:
                process = subprocess.Popen(
                    _PROCESS,
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    start_new_session=True,  # Ctrl-C in the terminal reaches this process only, which ends the others
                )
            processes.append(process)
            assert process.stdin and process.stdout  # noqa: S101, PT018 - both are pipes
            with suppress(BrokenPipeError), process.stdin as stdin:
                stdin.write(TypeAdapter(Task).dump_json(task).decode())
            reader = threading.Thread(target=_read, args=(index, process.stdout, lines), daemon=True)
            reader.start()
        yield processes
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _read(index: int, stream: IO[str], lines: Lines) -> None:
    with stream:
        for line in stream:
            lines.put((index, json.loads(line)))
    lines.put((index, None))


def _reason(place: Path, code: int) -> str:
    """Return why a process has failed: the last line of its log."""
    *_, last = ["", *(place / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()]
    return last or f"it ended with exit code {code}"


def mean(measured: Sequence[ProcessTimes]) -> ProcessTimes:
    """Return the means of what several processes have measured at the same time; of sizes the largest."""
    first, *others = measured
    if not others:
        return first
    trainings = []
    for same in zip(*(one.trainings for one in measured), strict=True):
        present = [one for one in same if one is not None]
        trainings.append(_mean(present) if len(present) == len(same) else None)
    return replace(
        first,
        start=_average(one.start for one in measured),
        trainings=tuple(trainings),
        problems={key: text for one in measured for key, text in one.problems.items()},
        latency=_average(one.latency for one in measured),
        memory=max(one.memory for one in measured),
        gpu_memory=max(one.gpu_memory for one in measured),
    )


def _mean(trainings: Sequence[TrainingTimes]) -> TrainingTimes:
    values = [asdict(one) for one in trainings]
    means = {
        name: max(one[name] for one in values) if isinstance(value, int) else _average(one[name] for one in values)
        for name, value in values[0].items()
    }
    return TypeAdapter(TrainingTimes).validate_python(means)


def _average(values: Iterable[float]) -> float:
    found = list(values)
    return float(sum(found) / len(found))
