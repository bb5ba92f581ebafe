"""Read every model file of a folder, and say of each whether it is built, why it is refused, or that a traceback came.

    python -m benchmarks.corpus FOLDER                          # YAML files at any depth
    python -m benchmarks.corpus FOLDER --modules fork.py        # with a fork's Python: a file or a folder
    python -m benchmarks.corpus FOLDER --csv corpus.csv --timeout 60
    python -m benchmarks.corpus FOLDER --as-printed             # parameters as the files' own repositories count them

A file is *built* if `nas cost` would count it: it is read, translated, built and counted at 640 px, as it is and as
it is deployed. It is *refused* if a line of ours says why (a mistake in the file, a module of a fork). A *traceback*
is our fault. Files that are no model (no `backbone` and `head`) are *other*. Each file is read in a process of its
own, which is ended after a time.
"""

import argparse
import csv
import json
import multiprocessing
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import reduce
from multiprocessing.connection import Connection
from pathlib import Path

import yaml

from search_spaces.errors import NasError, unwrapped

BUILT, REFUSED, TRACEBACK, SLOW, OTHER = "built", "refused", "traceback", "too slow", "other"
_IMAGE_SIZE = 640
_SHOWN = 160
"""Most characters of a reason on the screen; the CSV file has all of it."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of one file.

    Attributes:
        why: the reasons, or the last lines of the traceback; of a built file its notes. Each line names the file.
    """

    file: str
    outcome: str
    params: int = 0
    gflops: float = 0.0
    why: str = ""


def read(path: Path, *, as_printed: bool = False) -> Verdict:
    """Read, build and count one file; `as_printed` with the heads and blocks of its own repository."""
    from search_spaces import model_reader  # noqa: PLC0415 - imports PyTorch, which the parent process does not need
    from trials.costing import other_tasks  # noqa: PLC0415

    name = str(path)
    if not _is_model(path):
        return Verdict(file=name, outcome=OTHER)
    try:
        reading = model_reader.read_model(name, as_printed=as_printed, or_counted=True)
        built, _ = (
            other_tasks.measure_any(reading.document, reading.document["nc"], _IMAGE_SIZE, deployed=deployed)
            for deployed in (False, True)
        )
    except NasError as error:
        return Verdict(file=name, outcome=REFUSED, why=_named(path, str(error).splitlines()))
    except Exception:  # noqa: BLE001 - to find these is what this script is for
        return Verdict(file=name, outcome=TRACEBACK, why=_named(path, traceback.format_exc().splitlines()[-5:]))
    why = _named(path, reading.notes)
    return Verdict(file=name, outcome=BUILT, params=built.params, gflops=round(built.gflops, 4), why=why)


def _named(path: Path, texts: Sequence[str]) -> str:
    """Return lines that begin with the file's name, as those of its mistakes do that are found before it is built."""
    beginnings = (f"{path.name}: ", f"{path}: ")
    return "\n".join(text if text.startswith(beginnings) else f"{path.name}: {text}" for text in texts)


def _is_model(path: Path) -> bool:
    """Return whether a file has, or seems to have, the rows of a model."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, yaml.YAMLError, ValueError, RecursionError):
        return "backbone:" in path.read_text(encoding="utf-8", errors="replace")
    return isinstance(document, dict) and {"backbone", "head"} <= set(document)


def _serve(modules: Sequence[str], pipe: Connection, as_printed: bool) -> None:  # noqa: FBT001 - arguments of a process are given by position
    """Read the files that arrive, until none does: the main function of a process."""
    import torch  # noqa: PLC0415 - as above

    from search_spaces.operators import modules as user_modules  # noqa: PLC0415

    torch.set_num_threads(1)
    user_modules.load_all(modules, None)
    while (path := pipe.recv()) is not None:
        pipe.send(read(path, as_printed=as_printed))


class _Reader:
    """Process that reads files; it is started anew where one takes too long."""

    def __init__(self, modules: Sequence[str], timeout: float, *, as_printed: bool) -> None:
        self._modules, self._timeout, self._as_printed = modules, timeout, as_printed
        self._process: multiprocessing.process.BaseProcess | None = None

    def read(self, path: Path) -> Verdict:
        """Return the verdict on a file."""
        if self._process is None or not self._process.is_alive():
            self._pipe, theirs = multiprocessing.get_context("spawn").Pipe()
            self._process = multiprocessing.get_context("spawn").Process(
                target=_serve, args=(self._modules, theirs, self._as_printed), daemon=True
            )
            self._process.start()
            theirs.close()
        self._pipe.send(path)
        try:
            if self._pipe.poll(self._timeout):
                verdict: Verdict = self._pipe.recv()
                return verdict
        except EOFError:
            return Verdict(file=str(path), outcome=TRACEBACK, why="the process died")
        self.close()
        return Verdict(file=str(path), outcome=SLOW, why=f"more than {self._timeout:g} s")

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def verdicts(
    folder: Path, modules: Sequence[str] = (), *, timeout: float = 60, as_printed: bool = False
) -> Iterator[Verdict]:
    """Yield the verdict on every YAML file below a folder, or on one file."""
    files = [folder] if folder.is_file() else sorted(one for one in folder.rglob("*.y*ml") if one.is_file())
    reader = _Reader(modules, timeout, as_printed=as_printed)
    try:
        for file in files:
            yield reader.read(file)
    finally:
        reader.close()


def _shown(verdict: Verdict) -> str:
    """Return the reasons in one line that begins with the file, without repeating its name."""
    names = (f"{Path(verdict.file).name}: ", f"{verdict.file}: ")
    lines = [reduce(str.removeprefix, names, line) for line in verdict.why.splitlines()]
    return unwrapped("; ".join(lines))[:_SHOWN]


def main() -> None:
    """Print a line for each file, then how many there are of each outcome, and the modules that are not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--modules", nargs="*", default=[], help="Python files or folders of the fork")
    parser.add_argument(
        "--as-printed", action="store_true", help="count heads and blocks of the files' own repositories"
    )
    parser.add_argument("--csv", type=Path, help="file for the verdicts, with whole reasons")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("--timeout", type=float, default=60, help="seconds for one file")
    typed = parser.parse_args()
    began, found = time.monotonic(), []
    for verdict in verdicts(typed.folder, typed.modules, timeout=typed.timeout, as_printed=typed.as_printed):
        found.append(verdict)
        if typed.format == "text":
            figures = f"{verdict.params:>12,} {verdict.gflops:9.3f} " if verdict.outcome == BUILT else ""
            print(f"{verdict.outcome:9} {verdict.file}: {figures}{_shown(verdict)}".rstrip(), flush=True)
    if typed.csv:
        with typed.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Verdict)])
            writer.writeheader()
            writer.writerows(map(asdict, found))
    if typed.format == "json":
        print(json.dumps(list(map(asdict, found)), indent=1))
    counted = Counter(verdict.outcome for verdict in found)
    print(f"{len(found)} files in {time.monotonic() - began:.0f} s: {dict(counted)}", file=sys.stderr)
    sys.exit(1 if counted[TRACEBACK] else 0)


if __name__ == "__main__":
    main()
