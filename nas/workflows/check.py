"""Ask for every promise of many cases: in worker processes, with what has passed before remembered."""

import hashlib
import inspect
import multiprocessing
import platform
import signal
import sys
import sysconfig
import tempfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from nas.workflows.check_cache import CheckCache
from search_spaces import OPERATORS
from search_spaces.operators import modules as user_modules
from trials import machine
from trials.contracts import export_contract, operator_contract
from trials.contracts.operator_contract import Case, Failure
from trials.costing import cost

_CHUNK = 16
"""Cases that share an ONNX graph and a fresh process; fewer where workers would have none."""
_VERSIONS = ("torch", "ultralytics", "ultralytics-thop", "onnx", "onnxruntime")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a check is.

    Attributes:
        asked: cases that were asked for the promises of one module alone, and
        done: for all promises.
        failures: those found since the last report.
    """

    cases: int
    asked: int
    done: int
    failures: tuple[Failure, ...] = ()


def run(cases: Sequence[Case], memory: CheckCache, *, workers: int | None = None) -> Generator[Progress, None, None]:
    """Check every case that has not passed before; what passes is remembered at once.

    Args:
        workers: processes, of one thread each; one a core if None.

    Raises:
        KeyboardInterrupt: after the workers were stopped.
    """
    digests = {name: digest(name) for name in {case.operator for case in cases}}
    keys = {case: _key(case, digests[case.operator]) for case in cases}
    waiting = [case for case in cases if keys[case] not in memory]
    asked = done = len(cases) - len(waiting)
    yield Progress(cases=len(cases), asked=asked, done=done)
    if not waiting:
        return
    workers = min(workers or machine.cores(), len(waiting))
    with tempfile.TemporaryDirectory(prefix="nas-check-", ignore_cleanup_errors=True) as folder:
        crew = _Crew(workers, _chunks(waiting, workers), Path(folder))
        try:
            for checked in crew.results():
                memory.add({keys[case]: case.said for case, failures in checked.items() if not failures})
                done += len(checked)
                asked = max(done, min(asked + (not checked), len(cases)))
                found = tuple(failure for failures in checked.values() for failure in failures)
                yield Progress(cases=len(cases), asked=asked, done=done, failures=found)
        finally:
            crew.stop()


def _chunks(cases: Sequence[Case], workers: int) -> list[list[Case]]:
    """Of about equal work, as many for each worker."""
    count = -(-len(cases) // (_CHUNK * workers)) * workers
    heaviest_first = sorted(cases, key=lambda case: case.c_in * case.c_out, reverse=True)
    return [heaviest_first[index::count] for index in range(min(count, len(cases)))]


@dataclass
class _Worker:
    """A process, its end of the line, and what it is at."""

    process: BaseProcess
    line: Connection
    chunk: list[Case] = field(default_factory=list)


class _Crew:
    """Worker processes that share chunks of cases; one that dies gives its chunk back, in single cases."""

    def __init__(self, workers: int, chunks: list[list[Case]], folder: Path) -> None:
        self._size, self._chunks, self._folder = workers, chunks, folder
        self._files = _user_files(case.operator for chunk in chunks for case in chunk)
        self._crew: list[_Worker] = []

    def results(self) -> Iterator[dict[Case, tuple[Failure, ...]]]:
        """What was found, chunk by chunk; nothing, where one case of a chunk was asked for the first promises."""
        while self._chunks or self._crew:
            while self._chunks and len(self._crew) < self._size:
                self._crew.append(self._hired())
            ready = wait([worker.line for worker in self._crew])
            for worker in [worker for worker in self._crew if worker.line in ready]:
                try:
                    told: list[tuple[Failure, ...]] | None = worker.line.recv()
                except (EOFError, OSError):
                    yield self._buried(worker)
                    continue
                yield {} if told is None else dict(zip(worker.chunk, told, strict=True))
                if told is not None:
                    self._next(worker)

    def stop(self) -> None:
        """End the workers, whatever they are at."""
        for worker in self._crew:
            worker.process.terminate()
        for worker in self._crew:
            worker.process.join()
        self._crew.clear()

    def _hired(self) -> _Worker:
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=_work, args=(theirs, self._files, self._folder), daemon=True
        )
        process.start()
        theirs.close()
        worker = _Worker(process=process, line=ours)
        self._next(worker)
        return worker

    def _next(self, worker: _Worker) -> None:
        if self._chunks:
            worker.chunk = self._chunks.pop(0)
            with suppress(OSError):  # it has died: its line says so when it is asked
                worker.line.send(worker.chunk)
        else:
            worker.line.close()
            worker.process.join()
            self._crew.remove(worker)

    def _buried(self, worker: _Worker) -> dict[Case, tuple[Failure, ...]]:
        """What is known of a dead worker's chunk: nothing but that one case of it kills a process."""
        worker.process.join()
        self._crew.remove(worker)
        if len(worker.chunk) > 1:
            self._chunks.extend([case] for case in worker.chunk)
            return {}
        code = worker.process.exitcode or 0
        told = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return {case: (Failure.of(case, "alive", f"it ends the process ({told})"),) for case in worker.chunk}


def _work(line: Connection, files: Sequence[Path], folder: Path) -> None:
    """A worker's life: chunks come in, failures go out, until the line is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    sys.stdout = sys.stderr  # what an operator prints is no result
    torch.set_num_threads(1)
    for file in files:
        user_modules.load(file)
    while True:
        try:
            chunk: list[Case] = line.recv()
        except EOFError:
            return
        found: dict[Case, tuple[Failure, ...]] = {}
        for case in chunk:
            found[case] = operator_contract.check(case)
            line.send(None)
        found |= export_contract.check([case for case in chunk if not found[case]], folder)
        line.send([found[case] for case in chunk])


def _user_files(operators: Iterable[str]) -> list[Path]:
    """The files that a fresh process must read to know these operators."""
    sources = (OPERATORS[name].source for name in dict.fromkeys(operators))
    return list(dict.fromkeys(source.path for source in sources if source))


def digest(operator: str) -> str:
    """Twelve hexadecimal digits over everything that decides what an operator does, and whether that is in order.

    The texts of its module and its record and of whatever they name that is not a third party's; the texts that ask;
    the versions of what runs it.
    """
    record = OPERATORS[operator]
    start = {record.module.__module__, record.build.__module__}
    files = {Path(str(module.__file__)) for module in (operator_contract, export_contract, cost)} | set(_files(start))
    texts = [file.read_text(encoding="utf-8") for file in sorted(files) if file.is_file()]
    texts += [record.source.text] if record.source else []
    texts += [f"{name} {version(name)}" for name in _VERSIONS] + [platform.python_version()]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def _files(start: set[str]) -> Iterator[Path]:
    """The files of modules, and of the modules whose functions and classes they name."""
    packages = {name.partition(".")[0] for name in start} | {"search_spaces"}
    left, seen = set(start), set[str]()
    while left - seen:
        name = (left - seen).pop()
        seen.add(name)
        module = sys.modules.get(name)
        file = Path(getattr(module, "__file__", None) or "")
        if module is None or not file.is_file():
            continue
        if name.partition(".")[0] in packages or not _is_installed(file):
            yield file
            left |= {value.__name__ for value in vars(module).values() if inspect.ismodule(value)}
            left |= {str(getattr(value, "__module__", "")) for value in vars(module).values()}


def _is_installed(file: Path) -> bool:
    """Whether a file is a third party's or Python's own, in whichever environment's folder of packages it lies."""
    if {"site-packages", "dist-packages"} & set(file.parts):
        return True
    return any(file.is_relative_to(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))


def _key(case: Case, source: str) -> str:
    """What is remembered: another site or other parameters are another key, another layer is not."""
    return hashlib.sha256(f"{source} {case!r}".encode()).hexdigest()[:24]
