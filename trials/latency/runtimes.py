"""Where latency is measured: a backend on this host, or on another one through ssh."""

import base64
import json
import re
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Self

import torch

from search_spaces.errors import EnvironmentProblem, LatencyError, SpecError, nearest
from trials.devices import CPU, DeviceProfile
from trials.latency import measurement
from trials.latency.backends import BACKENDS, Backend, Where
from trials.latency.deployed import Deployed
from trials.latency.measurement import Comparison, Latency, Pass

SERVER = "trials.timing_server"
_PATIENCE_SECONDS = 5
_REMOTE = re.compile(r"ssh://(?P<host>(\w[\w.-]*@)?\w[\w.-]*)(/(?P<backend>\w+))?")


class Runtime(ABC):
    """Measures deployed modules, all under one profile."""

    profile: DeviceProfile

    @abstractmethod
    def measure(self, deployed: Deployed) -> Latency:
        """Time a module alone.

        Raises:
            LatencyError: it cannot be exported, or does not run.
        """

    @abstractmethod
    def compare(self, candidate: Deployed, reference: Deployed) -> Comparison:
        """Time a module in turns with a reference.

        Raises:
            LatencyError: one of them cannot be exported, or does not run.
        """

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Let go of what was opened."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_runtime(
    name: str = "torch", *, threads: int = 1, device: str = CPU, device_name: str | None = None
) -> Runtime:
    """A runtime by name.

    Args:
        name: `torch`, `onnxruntime`, `openvino`, `tensorrt`; or `ssh://HOST/RUNTIME`, which runs ONNX on another host
            that has this package.
        device: `cpu`, or the number of a GPU.
        device_name: instead of the one that the profile makes itself.

    Raises:
        SpecError: no such runtime.
        EnvironmentProblem: it is not installed, or there is no such device, or the host does not answer.
    """
    where = Where(threads=threads, device=device)
    if name.startswith("ssh:"):
        return _remote(name, where, device_name)
    if name not in BACKENDS:
        raise SpecError(f"runtime: no {name!r} ({nearest(name, [*BACKENDS, 'ssh://HOST'])})")
    return Here(BACKENDS[name], where, device_name)


class Here(Runtime):
    """A backend on this host."""

    def __init__(self, backend: Backend, where: Where, device_name: str | None = None) -> None:
        backend.require()
        if where.device != CPU and not torch.cuda.is_available():
            raise EnvironmentProblem(f"PyTorch sees no GPU, so there is no device {where.device} (use --device cpu)")
        self._backend, self._where = backend, where
        self._reference: tuple[Deployed, Pass] | None = None
        self.profile = DeviceProfile.here(
            device_name,
            runtime=backend.name,
            version=backend.version,
            threads=where.threads,
            device=where.device,
        )

    def measure(self, deployed: Deployed) -> Latency:
        """Time a module alone."""
        with on_threads(self._where.threads):
            return measurement.timed(self._backend.prepare(deployed, self._where))

    def compare(self, candidate: Deployed, reference: Deployed) -> Comparison:
        """Time a module in turns with a reference, which is kept for the next comparison."""
        with on_threads(self._where.threads):
            if self._reference is None or self._reference[0] is not reference:
                self._reference = reference, self._backend.prepare(reference, self._where)
            return measurement.compare(self._backend.prepare(candidate, self._where), self._reference[1])


class Remote(Runtime):
    """A backend on another host: one ssh connection, a line of JSON for every question and every answer.

    The host needs this package and the backend's, where its `python3` finds them.
    """

    def __init__(self, host: str, backend: Backend, where: Where, device_name: str | None = None) -> None:
        self._host = host
        self._asked: dict[str, Any] = {"runtime": backend.name, "threads": where.threads, "device": where.device}
        command = ["ssh", "-o", "BatchMode=yes", host, "python3", "-P", "-m", SERVER]
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - closed with the connection
        try:
            self._ssh = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True
            )
        except OSError as error:
            self._said.close()
            raise EnvironmentProblem(f"ssh cannot be started ({error.strerror}); install an ssh client") from None
        try:
            self.profile = DeviceProfile(**self._ask("profile", device_name=device_name))
        except BaseException:
            self.close()
            raise

    def measure(self, deployed: Deployed) -> Latency:
        """Time a module alone."""
        return Latency(**self._ask("measure", graphs=_packed([deployed]), what=deployed.what))

    def compare(self, candidate: Deployed, reference: Deployed) -> Comparison:
        """Time a module in turns with a reference."""
        answer = self._ask("compare", graphs=_packed([candidate, reference]), what=candidate.what)
        own, other = (Latency(**answer.pop(key)) for key in ("candidate", "reference"))
        return Comparison(candidate=own, reference=other, **answer)

    def close(self) -> None:
        """End the connection; the server ends with it."""
        for stream in (self._ssh.stdin, self._ssh.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
        try:
            self._ssh.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._ssh.kill()
            self._ssh.wait()
        self._said.close()

    def _ask(self, question: str, **told: Any) -> dict[str, Any]:
        questions: Any = self._ssh.stdin
        answers: Any = self._ssh.stdout
        try:
            questions.write(json.dumps({**self._asked, "question": question, **told}) + "\n")
            questions.flush()
            line = answers.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._said.seek(0)
            said = self._said.read().strip().splitlines()
            raise EnvironmentProblem(
                f"{self._host} does not measure: {said[-1] if said else 'ssh ended without a word'} "
                f"(ssh {self._host} python3 -m {SERVER} must start there: pip install nas-for-yolo)"
            )
        answer: dict[str, Any] = json.loads(line)
        if "environment" in answer:
            raise EnvironmentProblem(f"{self._host}: {answer['environment']}")
        if "error" in answer:
            raise LatencyError(f"{self._host}: {answer['error']}")
        return answer


def _remote(name: str, where: Where, device_name: str | None) -> Remote:
    readable = _REMOTE.fullmatch(name)
    readers = [backend.name for backend in BACKENDS.values() if backend.read is not None]
    backend = readable and (readable["backend"] or "onnxruntime")
    if not readable or backend not in readers:
        raise SpecError(f"runtime: ssh://HOST/RUNTIME is expected, got {name!r} (RUNTIME is {', '.join(readers)})")
    return Remote(readable["host"], BACKENDS[backend], where, device_name)


def _packed(several: Sequence[Deployed]) -> list[str]:
    return [base64.b64encode(deployed.graph()).decode() for deployed in several]


@contextmanager
def on_threads(threads: int) -> Iterator[None]:
    """PyTorch on so many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
