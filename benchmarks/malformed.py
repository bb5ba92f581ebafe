"""Malformed inputs under every command that reads them: no traceback, no hang, no file elsewhere, one status.

    python benchmarks/malformed.py [--count 1000] [--start 0] [--seed 0] [--jobs 2] [--limit 120]
                                   [--only KIND ...] [--case N] [--verbose]

A valid study, its archive, space, model file, data set, latency table, bench table and checkpoint come from
`tests/golden`. Each case changes one of them (`malformed_inputs.py`), or a value of a command line, and runs one
command on it in a process of its own, with a limit of time and memory. Reported is every case with

- a traceback, or an end by a signal;
- no end within `--limit` seconds;
- a file made, changed or deleted outside the study's folder and the cache, in another study, or in the study itself by
  a command that only reads it; or a mark of executed text;
- an attempt to reach the network;
- a status other than 0 (the change did no harm), 2, or 1 where the command documents it;
- status 2 without a message, or control characters in the output.

Exit status 1 if there is one. Ctrl-C prints the number of the case with which `--start` goes on. `--case N` runs one
case again and prints what it printed.
"""

import argparse
import json
import os
import select
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

import matplotlib as mpl

from benchmarks import malformed_cases as cases
from benchmarks.malformed_commands import KINDS
from benchmarks.malformed_runs import Result, run

_PRELOADED = (
    *("nas.cli", "nas.bench.replay", "nas.bench.summary", "nas.report.trusting", "nas.tracking.tracker"),
    *("nas.workflows.begin", "nas.workflows.running", "nas.workflows.training_log", "nas.workflows.reproduce"),
    *(
        "nas.workflows.plan",
        "nas.workflows.confirm",
        "nas.workflows.yolo_command",
        "search_spaces.refine",
        "search_spaces.derive",
    ),
    *("trials.training.full_training", "trials.training.yolo_inputs", "trials.latency.latency_table"),
    *("ultralytics.cfg", "ultralytics.models.yolo", "trials.contracts"),
)

_FONTS = ("Arial.ttf", "Arial.Unicode.ttf")
"""Fonts of Ultralytics' drawings, which `nas train` lets it fetch where they are missing."""


def _preload() -> None:
    """Import once what every case needs; processes are forked from this one."""
    os.environ |= {"OMP_NUM_THREADS": "1", "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "COLUMNS": "200"}
    os.environ |= {"YOLO_CONFIG_DIR": tempfile.mkdtemp(), "NAS_NO_CACHE": "1"}
    fonts = Path(os.environ["YOLO_CONFIG_DIR"], "Ultralytics")
    fonts.mkdir()
    for name in _FONTS:
        shutil.copy(Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), fonts / name)
    for name in _PRELOADED:
        import_module(name)
    import torch  # noqa: PLC0415 - after its variables are set

    torch.set_num_threads(1)


def share(numbers: Sequence[int], options: argparse.Namespace, writer: int) -> None:
    """Run some of the cases; write a line of JSON for each to a pipe."""
    with tempfile.TemporaryDirectory(prefix="malformed-") as temporary:
        folder = Path(temporary)
        cases.prepare(folder, kinds=options.only or KINDS)
        for number in numbers:
            inputs = folder / "case"
            _remove(inputs)
            shutil.copytree(folder / "inputs", inputs, symlinks=True)
            cases.settle(inputs)
            os.chdir(inputs)
            case = cases.make(number, options.seed, inputs, options.only)
            result = run(case, inputs, options.limit)
            os.write(writer, json.dumps(line_of(result)).encode() + b"\n")
            os.chdir(folder)


def line_of(result: Result) -> dict[str, Any]:
    """Return a result as plain values."""
    case = result.case
    return {
        "number": case.number,
        "kind": case.kind,
        "change": case.change,
        "words": " ".join(repr(word) if not word.isascii() or " " in word else word for word in case.words),
        "status": result.status,
        "seconds": result.seconds,
        "problems": list(result.problems),
        "output": result.output[-6000:],
    }


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def start(numbers: Sequence[int], options: argparse.Namespace) -> dict[TextIO, int]:
    """Fork the processes that share the cases; return the pipe that each writes to, and its number."""
    jobs = min(options.jobs, len(numbers))
    readers: dict[TextIO, int] = {}
    for job in range(jobs):
        reader, writer = os.pipe()
        if (process := os.fork()) == 0:
            os.close(reader)
            try:
                share(numbers[job::jobs], options, writer)
            except BaseException:  # noqa: BLE001 - the parent counts the results
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        os.close(writer)
        readers[os.fdopen(reader, encoding="utf-8")] = process
    return readers


def lines_of(readers: dict[TextIO, int]) -> Iterator[dict[str, Any]]:
    """Yield the results as they come, until all processes have ended."""
    while readers:
        for file in select.select(list(readers), [], [])[0]:
            if line := file.readline():
                yield json.loads(line)
            else:
                os.waitpid(readers.pop(file), 0)


def show(line: dict[str, Any], *, with_output: bool) -> None:
    """Print a case and what is wrong with it."""
    print(f"case {line['number']}: {line['kind']}, {line['change']}\n    nas {line['words']}")
    print(f"    status {line['status']}, {line['seconds']:.1f} s", flush=True)
    for problem in line["problems"]:
        print(f"    PROBLEM {problem}")
    if with_output:
        print("    | " + line["output"].strip().replace("\n", "\n    | "))


def summarise(lines: Sequence[dict[str, Any]], numbers: Sequence[int]) -> None:
    """Print how many cases ended with each status, and where to go on if some have not run."""
    statuses = Counter((line["kind"], line["status"]) for line in lines)
    for kind in sorted({kind for kind, _ in statuses}):
        counts = (f"status {status}: {count}" for (of, status), count in sorted(statuses.items()) if of == kind)
        print(f"{kind}: {', '.join(counts)}")
    bad = sum(bool(line["problems"]) for line in lines)
    print(f"{len(lines)} cases of {len(numbers)}, {bad} with a problem")
    if left := sorted(set(numbers) - {line["number"] for line in lines}):
        print(f"go on with --start {left[0]}")


def main(options: argparse.Namespace) -> int:
    _preload()
    numbers = [options.case] if options.case is not None else range(options.start, options.count)
    lines: list[dict[str, Any]] = []
    with suppress(KeyboardInterrupt):
        for line in lines_of(start(numbers, options)):
            lines.append(line)
            print(f"\r{len(lines)} of {len(numbers)}", end="", file=sys.stderr, flush=True)
            with_output = options.verbose or options.case is not None
            if line["problems"] or with_output:
                show(line, with_output=with_output)
    summarise(lines, numbers)
    return int(any(line["problems"] for line in lines) or len(lines) != len(numbers))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--start", type=int, default=0, help="number of the first case; an interrupted run prints it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds of a case; more on a busy machine")
    parser.add_argument("--only", nargs="+", default=(), choices=sorted({*KINDS}))
    parser.add_argument("--case", type=int)
    parser.add_argument("--verbose", action="store_true")
    sys.exit(main(parser.parse_args()))
