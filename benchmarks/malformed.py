"""Malformed inputs under every command that reads them: no traceback, no hang, no file elsewhere, one status.

    python benchmarks/malformed.py [--count 1000] [--seed 0] [--jobs 2] [--only KIND ...] [--case N] [--verbose]

A valid study, space, model file, data set, latency table, bench table and checkpoint come from `tests/golden`. Each
case changes one of them (`malformed_inputs.py`), or a value of a command line, and runs one command on it in a process
of its own, with a limit of time and memory. Reported is every case with

- a traceback, or an end by a signal;
- no end within `--limit` seconds;
- a file made, changed or deleted outside the study's folder and the cache, or a mark of executed text;
- an attempt to reach the network;
- a status other than 0 (the change did no harm), 2, or 1 where the command documents it;
- status 2 without a message, or control characters in the output.

Exit status 1 if there is one. `--case N` runs one case again and prints what it printed.
"""

import argparse
import os
import select
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from benchmarks import malformed_cases as cases
from benchmarks.malformed_runs import Result, run

_PRELOADED = (
    *("nas.cli", "nas.bench.replay", "nas.bench.summary", "nas.report.trusting", "nas.tracking.tracker"),
    *("nas.workflows.begin", "nas.workflows.running", "nas.workflows.training_log", "nas.workflows.reproduce"),
    *("nas.workflows.plan", "nas.workflows.confirm", "search_spaces.refine", "search_spaces.derive"),
    *("trials.training.full_training", "trials.training.yolo_inputs", "trials.latency.latency_table"),
    *("ultralytics.cfg", "ultralytics.models.yolo", "trials.contracts"),
)


def _preload() -> None:
    """Import once what every case needs; processes are forked from this one."""
    os.environ |= {"OMP_NUM_THREADS": "1", "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "COLUMNS": "200"}
    os.environ |= {"YOLO_CONFIG_DIR": tempfile.mkdtemp(), "NAS_NO_CACHE": "1"}
    for name in _PRELOADED:
        import_module(name)
    import torch  # noqa: PLC0415 - after its variables are set

    torch.set_num_threads(1)


def share(numbers: Sequence[int], options: argparse.Namespace, writer: int) -> None:
    """Run some of the cases; write a line for each to a pipe."""
    with tempfile.TemporaryDirectory(prefix="malformed-") as temporary:
        folder = Path(temporary)
        cases.prepare(folder, with_tracking="study" in (options.only or cases.KINDS))
        for number in numbers:
            inputs = folder / "case"
            _remove(inputs)
            shutil.copytree(folder / "inputs", inputs, symlinks=True)
            cases.settle(inputs)
            os.chdir(inputs)
            case = cases.make(number, options.seed, inputs, options.only)
            result = run(case, inputs, options.limit)
            os.write(writer, repr(result_line(result)).encode() + b"\n")
            os.chdir(folder)


def result_line(result: Result) -> tuple[int, str, str, str, int, float, tuple[str, ...], str]:
    """Return a result as a tuple of plain values."""
    case = result.case
    shown = " ".join(repr(word) if not word.isascii() or " " in word else word for word in case.words)
    return (
        case.number,
        case.kind,
        case.change,
        shown,
        result.status,
        result.seconds,
        tuple(result.problems),
        result.output[-6000:],
    )


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def main(options: argparse.Namespace) -> int:
    _preload()
    numbers = [options.case] if options.case is not None else list(range(options.count))
    jobs = min(options.jobs, len(numbers))
    readers = {}
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
    statuses: Counter[tuple[str, int]] = Counter()
    bad = 0
    while readers:
        for file in select.select(list(readers), [], [])[0]:
            line = file.readline()
            if not line:
                os.waitpid(readers.pop(file), 0)
                continue
            number, kind, change, words, status, seconds, problems, output = eval(line, {"nan": float("nan")})  # noqa: S307 - our own repr
            statuses[kind, status] += 1
            print(f"\r{statuses.total()} of {len(numbers)}", end="", file=sys.stderr, flush=True)
            if problems or options.verbose or options.case is not None:
                bad += bool(problems)
                print(
                    f"case {number}: {kind}, {change}\n    nas {words}\n    status {status}, {seconds:.1f} s",
                    flush=True,
                )
                for problem in problems:
                    print(f"    PROBLEM {problem}")
                if options.verbose or options.case is not None:
                    print("    | " + output.strip().replace("\n", "\n    | "))
    total = sum(statuses.values())
    for kind in sorted({kind for kind, _ in statuses}):
        counts = ", ".join(
            f"status {status}: {count}" for (of, status), count in sorted(statuses.items()) if of == kind
        )
        print(f"{kind}: {counts}")
    print(f"{total} cases of {len(numbers)}, {bad} with a problem")
    return int(bool(bad) or total != len(numbers))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds of a case")
    parser.add_argument("--only", nargs="+", default=(), choices=sorted({*cases.KINDS}))
    parser.add_argument("--case", type=int)
    parser.add_argument("--verbose", action="store_true")
    sys.exit(main(parser.parse_args()))
