"""Backends that run a deployed model on this machine: PyTorch, or a runtime that loads ONNX."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from search_spaces.errors import EnvironmentProblem, LatencyError, unwrapped
from trials import torch_devices
from trials.devices import CPU
from trials.latency import measurement
from trials.latency.deployed import Deployed
from trials.latency.measurement import Iteration
from trials.torch_devices import torch_device


@dataclass(frozen=True, kw_only=True)
class ExecutionSettings:
    """Threads and device of an inference.

    Attributes:
        threads: of the runtime, on a CPU.
        device: `cpu`, or the number of a GPU.
    """

    threads: int = 1
    device: str = CPU

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
        load_graph: returns an iteration of an ONNX graph, with zeros as input; None for PyTorch, which runs modules.
    """

    name: str
    package: str
    install_command: str
    load_graph: Callable[[bytes, ExecutionSettings], Iteration] | None = None

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

    def prepare(self, deployed: Deployed, execution: ExecutionSettings) -> Iteration:
        """Load a deployed module and return an iteration of it.

        Raises:
            LatencyError: the runtime does not take it.
        """
        if self.load_graph is not None:
            return self.prepare_graph(deployed.to_onnx(), execution, description=deployed.description)
        device = execution.torch_device
        module, inputs = deployed.on(device, torch_devices.memory_format(device))
        return measurement.iteration_of(module, inputs, description=deployed.description)

    def prepare_graph(self, graph: bytes, execution: ExecutionSettings, *, description: str) -> Iteration:
        """Load an ONNX graph and return an iteration of it.

        Args:
            description: of what is run, for errors.

        Raises:
            LatencyError: the runtime does not take it.
        """
        if self.load_graph is None:
            raise LatencyError(f"{self.name} runs modules, not ONNX graphs")
        try:
            return measurement.with_description(self.load_graph(graph, execution), description)
        except Exception as error:
            reason = unwrapped(error)[:300]
            raise LatencyError(f"{self.name} refuses the graph of {description}: {reason}") from error


def _onnxruntime(graph: bytes, execution: ExecutionSettings) -> Iteration:
    import onnxruntime  # noqa: PLC0415 - slow, and needed only for this backend

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = execution.threads, 1
    options.log_severity_level = 4  # errors are raised, too
    on_gpu = ("CUDAExecutionProvider", {"device_id": execution.device})
    session = onnxruntime.InferenceSession(
        graph, options, providers=["CPUExecutionProvider"] if execution.device == CPU else [on_gpu]
    )
    images = {one.name: np.zeros(one.shape, dtype=np.float32) for one in session.get_inputs()}
    return lambda: session.run(None, images)


def _openvino(graph: bytes, execution: ExecutionSettings) -> Iteration:
    import openvino  # noqa: PLC0415 - an extra

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": execution.threads,
        "INFERENCE_PRECISION_HINT": "f32",  # the default is bfloat16 where the CPU has it
    }
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(graph), "CPU" if execution.device == CPU else "GPU", settings)
    request = compiled.create_infer_request()
    images = [np.zeros(tuple(one.shape), dtype=np.float32) for one in compiled.inputs]
    return lambda: request.infer(images, share_inputs=True)


def _tensorrt(graph: bytes, execution: ExecutionSettings) -> Iteration:
    """Load a graph in TensorRT. Never run: written after the documentation of TensorRT 10."""
    import tensorrt  # noqa: PLC0415 - an extra

    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(0)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(graph):
        raise RuntimeError(str(parser.get_error(0)))
    config = builder.create_builder_config()
    config.clear_flag(tensorrt.BuilderFlag.TF32)
    engine = tensorrt.Runtime(logger).deserialize_cuda_engine(builder.build_serialized_network(network, config))
    context = engine.create_execution_context()
    stream: Any = torch.cuda.Stream(execution.torch_device)
    tensors = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        tensors.append(torch.zeros(tuple(engine.get_tensor_shape(name)), device=execution.torch_device))
        context.set_tensor_address(name, tensors[-1].data_ptr())
    return partial(_execute_tensorrt, context, stream, tensors)


def _execute_tensorrt(context: Any, stream: Any, _tensors: Sequence[torch.Tensor]) -> None:
    """Run one inference; the tensors are an argument so that their memory is not freed."""
    context.execute_async_v3(stream.cuda_stream)
    stream.synchronize()


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend(name="torch", package="torch", install_command="pip install torch"),
        Backend(
            name="onnxruntime",
            package="onnxruntime",
            install_command="pip install onnxruntime",
            load_graph=_onnxruntime,
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
        ),
    )
}
