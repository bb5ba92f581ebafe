"""Backends that run a deployed model on this machine: PyTorch, or a runtime that loads ONNX."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from search_spaces.errors import EnvironmentProblem, LatencyError, SpecError, unwrapped
from trials import torch_devices
from trials.devices import CPU
from trials.latency import measurement, precision
from trials.latency.deployed import Deployed, DeployedGraph
from trials.latency.measurement import Iteration
from trials.latency.precision import FP16, FP32, INT8, Calibration, FloatArray
from trials.latency.session import Session
from trials.torch_devices import torch_device


@dataclass(frozen=True, kw_only=True)
class ExecutionSettings:
    """Threads, device and precision of an inference.

    Attributes:
        threads: of the runtime, on a CPU.
        device: `cpu`, or the number of a GPU.
        precision: `fp32`, `fp16` or `int8`.
        calibration: of an int8 model.
    """

    threads: int = 1
    device: str = CPU
    precision: str = FP32
    calibration: Calibration = field(default_factory=Calibration)

    @property
    def calibration_text(self) -> str:
        """Calibration as a device's profile stores it; empty for a float model."""
        return self.calibration.text if self.precision == INT8 else ""

    @property
    def torch_device(self) -> torch.device:
        """Device in PyTorch."""
        return torch_device(self.device)


@dataclass(frozen=True, kw_only=True)
class Backend:
    """Backend by its name in `--runtime`.

    Attributes:
        package: name of the required package, as it is imported and installed.
        install_command: installs the package.
        load_graph: loads an ONNX graph; None for PyTorch, which runs modules.
        is_symmetric: whether int8 activations must be signed, with a zero point of 0.
        quantizes_all: whether activations, sums and pooling between convolutions must be int8, too, to be fast.
    """

    name: str
    package: str
    install_command: str
    load_graph: Callable[[bytes, ExecutionSettings], Session] | None = None
    quantizes_all: bool = False
    is_symmetric: bool = False

    def require(self) -> None:
        """Check that the package is installed.

        Raises:
            EnvironmentProblem: it is not.
        """
        if find_spec(self.package) is None:
            raise EnvironmentProblem(f"the runtime {self.name} is not installed ({self.install_command})")

    @property
    def version(self) -> str:
        """Version of the package."""
        try:
            return version(self.package)
        except PackageNotFoundError:  # onnxruntime-gpu, tensorrt-cu12: another distribution of the same module
            return str(getattr(__import__(self.package), "__version__", "unknown"))

    def require_precision(self, execution: ExecutionSettings) -> None:
        """Check that the backend computes in a precision on a device.

        Raises:
            SpecError: it does not; the text names one that does.
        """
        name, on_gpu = precision.require(execution.precision), execution.device != CPU
        if self.load_graph is None and (name == INT8 or (name == FP16 and not on_gpu)):
            where = "" if name == INT8 else " on a CPU"
            raise SpecError(f"precision: torch does not run {name}{where} (--runtime onnxruntime or openvino)")
        if self.name == "onnxruntime" and name == INT8 and on_gpu:
            raise SpecError("precision: onnxruntime computes int8 graphs in floats on a GPU (--runtime tensorrt)")

    def caveat(self, execution: ExecutionSettings) -> str:
        """Return what a precision does not change on this device, in words; empty if there is nothing."""
        if execution.precision == FP16 and execution.device == CPU and self.load_graph is not None:
            return f"{self.name} stores float16 and computes in float32 on this kind of CPU"
        return ""

    def graph_of(
        self,
        deployed: Deployed,
        execution: ExecutionSettings,
        samples: Iterable[Sequence[FloatArray]] | None = None,
    ) -> bytes:
        """Return the ONNX graph that the backend runs, in the precision of the settings.

        Args:
            samples: inputs for the calibration of an int8 model; None for noise, enough to time it.

        Raises:
            LatencyError: it cannot be exported or quantised.
        """
        graph = deployed.to_onnx()
        if execution.precision == FP16:
            return precision.half(graph)
        if execution.precision == INT8:
            return precision.quantized(
                graph,
                samples,
                float_scopes=deployed.float_scopes,
                everything=self.quantizes_all,
                is_symmetric=self.is_symmetric,
                description=deployed.description,
            )
        return graph

    def prepare(self, deployed: Deployed | DeployedGraph, execution: ExecutionSettings) -> Iteration:
        """Load a deployed module or a graph and return an iteration of it.

        Raises:
            LatencyError: the runtime does not take it.
        """
        if isinstance(deployed, DeployedGraph):
            return self.prepare_graph(deployed.graph, execution, description=deployed.description)
        if self.load_graph is not None:
            graph = self.graph_of(deployed, execution)
            return self.prepare_graph(graph, execution, description=deployed.description)
        device = execution.torch_device
        dtype = torch.float16 if execution.precision == FP16 else torch.float32
        module, inputs = deployed.on(device, torch_devices.memory_format(device, deployed.module), dtype)
        return measurement.iteration_of(module, inputs, description=deployed.description)

    def prepare_graph(self, graph: bytes, execution: ExecutionSettings, *, description: str) -> Iteration:
        """Load an ONNX graph and return an iteration of it.

        Args:
            description: of what is run, for errors.

        Raises:
            LatencyError: the runtime does not take it.
        """
        session = self.load(graph, execution, description=description)
        return measurement.with_description(session.iteration, description)

    def load(self, graph: bytes, execution: ExecutionSettings, *, description: str) -> Session:
        """Load an ONNX graph; arguments and errors are those of `prepare_graph`.

        Raises:
            EnvironmentProblem: the runtime would compute on another device.
        """
        if self.load_graph is None:
            raise LatencyError(f"{self.name} runs modules, not ONNX graphs")
        try:
            return self.load_graph(graph, execution)
        except EnvironmentProblem:
            raise
        except Exception as error:
            reason = unwrapped(error)[:300]
            raise LatencyError(f"{self.name} refuses the graph of {description}: {reason}") from error


def _onnxruntime(graph: bytes, execution: ExecutionSettings) -> Session:
    import onnxruntime  # noqa: PLC0415 - slow, and needed only for this backend

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = execution.threads, 1
    options.log_severity_level = 4  # errors are raised, too
    on_gpu = ("CUDAExecutionProvider", {"device_id": execution.device, "use_tf32": 0})
    session = onnxruntime.InferenceSession(
        graph, options, providers=["CPUExecutionProvider"] if execution.device == CPU else [on_gpu]
    )
    if execution.device != CPU:
        _require_cuda(session.get_providers(), onnxruntime.get_available_providers())
    images = {one.name: np.zeros(one.shape, dtype=np.float32) for one in session.get_inputs()}
    name = next(iter(images))
    return Session(
        iteration=lambda: session.run(None, images), infer=lambda image: np.asarray(session.run(None, {name: image})[0])
    )


def _require_cuda(used: Sequence[str], built: Sequence[str]) -> None:
    """Check that ONNX Runtime computes on the GPU: where it cannot, it goes on with the CPU, and raises nothing.

    Args:
        used: providers of a session.
        built: providers that this build of ONNX Runtime has.

    Raises:
        EnvironmentProblem: the session has none of the GPU.
    """
    if "CUDAExecutionProvider" in used:
        return
    missing = (
        "its CUDA or cuDNN libraries cannot be loaded: pip install 'onnxruntime-gpu[cuda,cudnn]'"
        if "CUDAExecutionProvider" in built
        else "this build has no CUDA: pip install onnxruntime-gpu"
    )
    raise EnvironmentProblem(f"onnxruntime would compute on the CPU in place of the GPU ({missing})")


@cache
def _openvino_core() -> Any:
    """Return OpenVINO's runtime, one for the whole process.

    Each one gives its thread another stack for signals. Where two are let go in the order in which they were made, a
    stack is left that is gone, and the next signal, of a child or of Ctrl-C, ends the process (OpenVINO 2026.4.1).
    """
    import openvino  # noqa: PLC0415 - an extra

    return openvino.Core()


def _openvino(graph: bytes, execution: ExecutionSettings) -> Session:
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": execution.threads,
        "INFERENCE_PRECISION_HINT": "f32",  # the default is bfloat16 where the CPU has it
    }
    core = _openvino_core()
    compiled = core.compile_model(core.read_model(graph), "CPU" if execution.device == CPU else "GPU", settings)
    request = compiled.create_infer_request()
    images = [np.zeros(tuple(one.shape), dtype=np.float32) for one in compiled.inputs]
    return Session(
        iteration=lambda: request.infer(images, share_inputs=True),
        infer=lambda image: np.array(next(iter(request.infer([image]).values()))),
    )


def _tensorrt(graph: bytes, execution: ExecutionSettings) -> Session:
    from trials.latency import tensorrt_engine  # noqa: PLC0415 - needed only for this backend

    return tensorrt_engine.load(graph, execution.torch_device)


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend(name="torch", package="torch", install_command="pip install torch"),
        Backend(
            name="onnxruntime",
            package="onnxruntime",
            install_command="pip install onnxruntime",
            load_graph=_onnxruntime,
            quantizes_all=True,
        ),
        Backend(
            name="openvino",
            package="openvino",
            install_command="pip install 'nas-for-yolo[openvino]'",
            load_graph=_openvino,
        ),
        Backend(
            name="tensorrt",
            package="tensorrt",
            install_command="pip install 'nas-for-yolo[tensorrt]'",
            load_graph=_tensorrt,
            is_symmetric=True,
        ),
    )
}
