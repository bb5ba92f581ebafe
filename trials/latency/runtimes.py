"""Runtimes that measure latency: a backend on this machine, or on another machine through ssh."""

import json
import math
import re
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, Self

import torch

from search_spaces.errors import EnvironmentProblem, LatencyError, SpecError, nearest
from trials.devices import CPU, DeviceProfile, processor
from trials.latency import measurement, messages
from trials.latency.backends import BACKENDS, Backend, ExecutionSettings
from trials.latency.deployed import Deployed, DeployedGraph
from trials.latency.measurement import Clock, Comparison, Iteration, Latency, Protocol
from trials.latency.precision import FP32, Calibration

SERVER = "trials.timing_server"
_CLOSE_TIMEOUT_SECONDS = 5
_REMOTE = re.compile(r"ssh://(?P<host>(\w[\w.-]*@)?\w[\w.-]*)(/(?P<backend>\w+))?")


class Runtime(ABC):
    """Measures the latency of deployed modules on one device, described by its profile."""

    profile: DeviceProfile
    caveat = ""
    """What the precision does not change on the device, in words; empty if there is nothing."""

    @abstractmethod
    def measure(self, deployed: Deployed) -> Latency:
        """Measure the latency of a module.

        Raises:
            LatencyError: it cannot be exported, or does not run.
        """

    @abstractmethod
    def compare(self, candidate: Deployed, reference: Deployed) -> Comparison:
        """Measure a module in a paired comparison with a reference.

        Raises:
            LatencyError: one of them cannot be exported, or does not run.
        """

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Close connections and processes."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_runtime(
    name: str = "torch",
    *,
    threads: int = 1,
    device: str = CPU,
    device_name: str | None = None,
    precision: str = FP32,
    calibration: Calibration | None = None,
) -> Runtime:
    """Open a runtime by its name.

    Args:
        name: `torch`, `onnxruntime`, `openvino`, `tensorrt`; or `ssh://HOST/RUNTIME`, which runs ONNX on another
            machine where this package is installed.
        device: `cpu`, or the number of a GPU.
        device_name: name of the profile; None for a name made of hostname, processor, runtime and threads.
        precision: `fp32`, `fp16` or `int8`.
        calibration: of int8 models; None for the default. It is part of the profile: layers are calibrated with noise,
            as their latency does not depend on the ranges, trained models with these images.

    Raises:
        SpecError: no such runtime or precision, or the runtime does not compute in it.
        EnvironmentProblem: it is not installed, or there is no such device, or the machine does not answer.
    """
    execution = ExecutionSettings(
        threads=threads, device=device, precision=precision, calibration=calibration or Calibration()
    )
    if name.startswith("ssh:"):
        return _open_remote(name, execution, device_name)
    if name not in BACKENDS:
        raise SpecError(f"runtime: no {name!r} ({nearest(name, [*BACKENDS, 'ssh://HOST'])})")
    return LocalRuntime(BACKENDS[name], execution, device_name)


def open_for(profile: DeviceProfile) -> Runtime:
    """Open the runtime on this machine that a profile describes; whether the profiles are equal is not checked.

    A profile stands in a table, which may come from anyone: it does not choose a machine that ssh connects to.

    Raises:
        LatencyError: it is on another machine.
        EnvironmentProblem: it is not installed.
    """
    if "://" in profile.runtime:
        hint = nearest(profile.runtime, BACKENDS)
        raise LatencyError(f"{profile.name}: this machine has no runtime {profile.runtime!r} ({hint})")
    return open_runtime(profile.runtime, device_name=profile.name, **settings_of(profile))


def settings_of(profile: DeviceProfile) -> dict[str, Any]:
    """Return threads, device and precision of a profile, as `open_runtime` takes them."""
    found: dict[str, Any] = {"threads": profile.threads, "device": device_of(profile.processor)}
    if profile.precision != FP32:
        found["precision"] = profile.precision
    if profile.calibration:
        found["calibration"] = Calibration.from_text(profile.calibration)
    return found


def device_of(name: str) -> str:
    """Return the number of this machine's first GPU of a name; `cpu` if there is none."""
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else range(0)
    return next((str(index) for index in gpus if processor(str(index)) == name), CPU)


class LocalRuntime(Runtime):
    """Backend on this machine; it also measures graphs of files.

    Attributes:
        clock: by which a CPU is timed. `time.process_time` leaves out interruptions by other processes.
    """

    def __init__(self, backend: Backend, execution: ExecutionSettings, device_name: str | None = None) -> None:
        backend.require()
        backend.require_precision(execution)
        if execution.device != CPU and not torch.cuda.is_available():
            raise EnvironmentProblem(
                f"PyTorch sees no GPU, so there is no device {execution.device} (use --device cpu)"
            )
        self._backend, self._execution = backend, execution
        self._reference: tuple[Deployed, Iteration] | None = None
        self.caveat = backend.caveat(execution)
        self.clock: Clock = time.perf_counter
        self.profile = DeviceProfile.of_this_machine(
            device_name,
            runtime=backend.name,
            version=backend.version,
            threads=execution.threads,
            device=execution.device,
            precision=execution.precision,
            calibration=execution.calibration_text,
        )
        self._last_used = -math.inf

    def measure(self, deployed: Deployed | DeployedGraph) -> Latency:
        """Measure the latency of a module."""
        with torch_threads(self._execution.threads):
            prepared = self._backend.prepare(deployed, self._execution)
            with self._protocol() as protocol:
                return measurement.benchmark(prepared, protocol=protocol, clock=self.clock)

    def compare(self, candidate: Deployed | DeployedGraph, reference: Deployed) -> Comparison:
        """Measure a module in a paired comparison; the loaded reference is cached for the next one."""
        with torch_threads(self._execution.threads):
            if self._reference is None or self._reference[0] is not reference:
                self._reference = reference, self._backend.prepare(reference, self._execution)
            prepared = self._backend.prepare(candidate, self._execution)
            with self._protocol() as protocol:
                return measurement.compare(prepared, self._reference[1], protocol=protocol, clock=self.clock)

    @contextmanager
    def _protocol(self) -> Iterator[Protocol]:
        """Give the protocol of a measurement, which depends on how long ago the last one was."""
        yield measurement.protocol_for(self._execution.device, idle_seconds=time.monotonic() - self._last_used)
        self._last_used = time.monotonic()


class RemoteRuntime(Runtime):
    """Backend on another machine: one ssh connection, with one line of JSON per request and per response.

    This package and the backend's must be installed there for its `python3`.
    """

    def __init__(
        self, host: str, backend: Backend, execution: ExecutionSettings, device_name: str | None = None
    ) -> None:
        backend.require_precision(execution)
        self._host, self._backend, self._execution = host, backend, execution
        self._common = {"runtime": backend.name, "threads": execution.threads, "device": execution.device}
        command = ["ssh", "-o", "BatchMode=yes", host, "python3", "-P", "-m", SERVER]
        self._stderr = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - closed with the connection
        try:
            self._ssh = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, text=True
            )
        except OSError as error:
            self._stderr.close()
            raise EnvironmentProblem(f"ssh cannot be started ({error.strerror}); install an ssh client") from None
        try:
            self.profile = self._with_precision(self._request("profile", device_name=device_name), device_name)
        except BaseException:
            self.close()
            raise

    def measure(self, deployed: Deployed) -> Latency:
        """Measure the latency of a module."""
        response = self._request("measure", graphs=self._packed(deployed), what=deployed.description)
        return messages.latency_from_json(response)

    def compare(self, candidate: Deployed, reference: Deployed) -> Comparison:
        """Measure a module in a paired comparison with a reference."""
        response = self._request("compare", graphs=self._packed(candidate, reference), what=candidate.description)
        return messages.comparison_from_json(response)

    def close(self) -> None:
        """End the connection; the server ends with it."""
        for stream in (self._ssh.stdin, self._ssh.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
        try:
            self._ssh.wait(_CLOSE_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._ssh.kill()
            self._ssh.wait()
        self._stderr.close()

    def _with_precision(self, profile: dict[str, Any], device_name: str | None) -> DeviceProfile:
        """Return the remote machine's profile; graphs are converted here, so it does not know their precision."""
        found, execution = DeviceProfile(**profile), self._execution
        if execution.precision == FP32:
            return found
        name = found.name if device_name else f"{found.name}-{execution.precision}"
        return replace(found, name=name, precision=execution.precision, calibration=execution.calibration_text)

    def _packed(self, *modules: Deployed) -> list[str]:
        return messages.pack([self._backend.graph_of(deployed, self._execution) for deployed in modules])

    def _request(self, question: str, **fields: Any) -> dict[str, Any]:
        requests: Any = self._ssh.stdin
        responses: Any = self._ssh.stdout
        try:
            requests.write(json.dumps({**self._common, "question": question, **fields}) + "\n")
            requests.flush()
            line = responses.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._stderr.seek(0)
            printed = self._stderr.read().strip().splitlines()
            raise EnvironmentProblem(
                f"{self._host} does not measure: {printed[-1] if printed else 'ssh ended without a message'} "
                f"(ssh {self._host} python3 -m {SERVER} must start there: pip install nas-for-yolo)"
            )
        response: dict[str, Any] = json.loads(line)
        if "environment" in response:
            raise EnvironmentProblem(f"{self._host}: {response['environment']}")
        if "error" in response:
            raise LatencyError(f"{self._host}: {response['error']}")
        return response


def _open_remote(name: str, execution: ExecutionSettings, device_name: str | None) -> RemoteRuntime:
    address = _REMOTE.fullmatch(name)
    onnx_backends = [backend.name for backend in BACKENDS.values() if backend.load_graph is not None]
    backend = address and (address["backend"] or "onnxruntime")
    if not address or backend not in onnx_backends:
        raise SpecError(
            f"runtime: ssh://HOST/RUNTIME is expected, got {name!r} (RUNTIME is {', '.join(onnx_backends)})"
        )
    return RemoteRuntime(address["host"], BACKENDS[backend], execution, device_name)


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Set the number of PyTorch's threads within a context."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
