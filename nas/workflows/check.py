"""Check the contract of operators on many cases: in worker processes, with a cache of passed cases."""

import hashlib
import inspect
import multiprocessing
import platform
import signal
import sys
import sysconfig
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from nas.workflows.check_cache import CheckCache
from nas.workflows.scratch import scratch_folder
from search_spaces import OPERATORS
from search_spaces.operators import modules as user_modules
from trials import machine
from trials.contracts import case as case_module
from trials.contracts import export_contract, operator_contract, probing
from trials.contracts.case import Case, Failure
from trials.costing import cost

_CONTRACTS = (case_module, probing, operator_contract, export_contract, cost)
"""Modules of this package that the result of a check depends on."""
_CHUNK = 16
"""Cases that share an ONNX graph and a fresh process; fewer where workers would have none."""
_VERSIONS = ("torch", "ultralytics", "ultralytics-thop", "onnx", "onnxruntime")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of a check.

    Attributes:
        cases: number of all.
        module_done: cases whose operator contract was checked: the promises of a single module.
        done: cases whose export contract was checked as well.
        failures: new since the last report.
    """

    cases: int
    module_done: int
    done: int
    failures: tuple[Failure, ...] = ()


def run(cases: Sequence[Case], cache: CheckCache, *, workers: int | None = None) -> Generator[Progress, None, None]:
    """Check every case that has not passed before; each chunk that passes is cached at once.

    Args:
        workers: processes, of one thread each; one per core if None.

    Raises:
        KeyboardInterrupt: after the workers were stopped.
    """
    digests = {name: digest(name) for name in {case.operator for case in cases}}
    keys = {case: _key(case, digests[case.operator]) for case in cases}
    waiting = [case for case in cases if keys[case] not in cache]
    module_done = done = len(cases) - len(waiting)
    yield Progress(cases=len(cases), module_done=module_done, done=done)
    if not waiting:
        return
    workers = min(workers or machine.cores(), len(waiting))
    with scratch_folder("check") as folder:
        pool = _Pool(workers, _chunks(waiting, workers), folder)
        try:
            for checked in pool.results():
                cache.add({keys[case]: case.choice_summary for case, failures in checked.items() if not failures})
                done += len(checked)
                module_done = max(done, min(module_done + (not checked), len(cases)))
                found = tuple(failure for failures in checked.values() for failure in failures)
                yield Progress(cases=len(cases), module_done=module_done, done=done, failures=found)
        finally:
            pool.stop()


def _chunks(cases: Sequence[Case], workers: int) -> list[list[Case]]:
    """Split cases into chunks of about equal work, as many for each worker."""
    count = -(-len(cases) // (_CHUNK * workers)) * workers
    heaviest_first = sorted(cases, key=lambda case: case.c_in * case.c_out, reverse=True)
    return [heaviest_first[index::count] for index in range(min(count, len(cases)))]


@dataclass
class _Worker:
    """Worker process, this end of its pipe, and the chunk that it checks."""

    process: BaseProcess
    pipe: Connection
    chunk: list[Case] = field(default_factory=list)


class _Pool:
    """Worker processes that share chunks of cases; the chunk of one that dies is queued again, in single cases."""

    def __init__(self, workers: int, chunks: list[list[Case]], folder: Path) -> None:
        self._size, self._chunks, self._folder = workers, chunks, folder
        self._files = _user_files(case.operator for chunk in chunks for case in chunk)
        self._workers: list[_Worker] = []

    def results(self) -> Iterator[dict[Case, tuple[Failure, ...]]]:
        """Yield the failures of each chunk by case; an empty mapping after the operator contract of a single case."""
        while self._chunks or self._workers:
            while self._chunks and len(self._workers) < self._size:
                self._workers.append(self._start_worker())
            ready = wait([worker.pipe for worker in self._workers])
            for worker in [worker for worker in self._workers if worker.pipe in ready]:
                try:
                    failures: list[tuple[Failure, ...]] | None = worker.pipe.recv()
                except (EOFError, OSError):
                    yield self._remove_dead(worker)
                    continue
                yield {} if failures is None else dict(zip(worker.chunk, failures, strict=True))
                if failures is not None:
                    self._send_next(worker)

    def stop(self) -> None:
        """Terminate the workers, whatever they compute."""
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()
        self._workers.clear()

    def _start_worker(self) -> _Worker:
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=_work, args=(theirs, self._files, self._folder), daemon=True
        )
        process.start()
        theirs.close()
        worker = _Worker(process=process, pipe=ours)
        self._send_next(worker)
        return worker

    def _send_next(self, worker: _Worker) -> None:
        if self._chunks:
            worker.chunk = self._chunks.pop(0)
            with suppress(OSError):  # it has died: reading from its pipe will say so
                worker.pipe.send(worker.chunk)
        else:
            worker.pipe.close()
            worker.process.join()
            self._workers.remove(worker)

    def _remove_dead(self, worker: _Worker) -> dict[Case, tuple[Failure, ...]]:
        """Remove a dead worker; return the failure of its case, or queue the cases of its chunk one by one."""
        worker.process.join()
        self._workers.remove(worker)
        if len(worker.chunk) > 1:
            self._chunks.extend([case] for case in worker.chunk)
            return {}
        code = worker.process.exitcode or 0
        cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return {case: (Failure.of(case, "alive", f"it ends the process ({cause})"),) for case in worker.chunk}


def _work(pipe: Connection, files: Sequence[Path], folder: Path) -> None:
    """Receive chunks and send their failures until the pipe is closed: the main function of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    sys.stdout = sys.stderr  # what an operator prints is no result
    torch.set_num_threads(1)
    for file in files:
        user_modules.load(file)
    while True:
        try:
            chunk: list[Case] = pipe.recv()
        except EOFError:
            return
        found: dict[Case, tuple[Failure, ...]] = {}
        for case in chunk:
            user_modules.offer(case.operator)  # of a class, in this process, too
            found[case] = operator_contract.check(case)
            pipe.send(None)
        found |= export_contract.check([case for case in chunk if not found[case]], folder)
        pipe.send([found[case] for case in chunk])


def _user_files(operators: Iterable[str]) -> list[Path]:
    """Return the files that a fresh process must load to have these operators."""
    sources = (OPERATORS[name].source for name in dict.fromkeys(operators))
    return list(dict.fromkeys(source.path for source in sources if source))


def digest(operator: str) -> str:
    """Return twelve hexadecimal digits of a hash of everything that the result of an operator's checks depends on.

    Hashed are the source files of its module and record and of all that they import, except third parties'; those of
    the contracts; and the versions of the packages that run it.
    """
    record = OPERATORS[operator]
    start = {record.module.__module__, record.build.__module__}
    files = {Path(str(module.__file__)) for module in _CONTRACTS} | set(_files(start))
    texts = [file.read_text(encoding="utf-8") for file in sorted(files) if file.is_file()]
    texts += [record.source.text] if record.source else []
    texts += [f"{name} {version(name)}" for name in _VERSIONS] + [platform.python_version()]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def _files(start: set[str]) -> Iterator[Path]:
    """Yield the files of modules, and of the modules whose functions and classes they import."""
    packages = {name.partition(".")[0] for name in start} | {"search_spaces"}
    pending, visited = set(start), set[str]()
    while pending - visited:
        name = (pending - visited).pop()
        visited.add(name)
        module = sys.modules.get(name)
        file = Path(getattr(module, "__file__", None) or "")
        if module is None or not file.is_file():
            continue
        if name.partition(".")[0] in packages or not _is_installed(file):
            yield file
            pending |= {value.__name__ for value in vars(module).values() if inspect.ismodule(value)}
            pending |= {str(getattr(value, "__module__", "")) for value in vars(module).values()}


def _is_installed(file: Path) -> bool:
    """Return whether a file belongs to a third party or to Python, in the package folder of any environment."""
    if {"site-packages", "dist-packages"} & set(file.parts):
        return True
    return any(file.is_relative_to(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))


def _key(case: Case, source: str) -> str:
    """Return the cache key of a case: it depends on site and parameters, not on the layer."""
    return hashlib.sha256(f"{source} {case!r}".encode()).hexdigest()[:24]
