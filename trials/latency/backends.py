"""What can run a deployed model: PyTorch itself, or a runtime that reads ONNX."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from search_spaces.errors import EnvironmentProblem, LatencyError
from trials import devices
from trials.devices import CPU, torch_device
from trials.latency import measurement
from trials.latency.deployed import Deployed
from trials.latency.measurement import Pass


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where a pass runs.

    Attributes:
        device: `cpu`, or the number of a GPU.
    """

    threads: int = 1
    device: str = CPU

    @property
    def torch_device(self) -> torch.device:
        """As PyTorch names it."""
        return torch_device(self.device)


@dataclass(frozen=True, kw_only=True)
class Backend:
    """A word of `--runtime`.

    Attributes:
        package: that it needs, by the name under which it is imported and installed.
        cure: installs it.
        read: a graph to a pass, with zeros for images; None for PyTorch, which runs modules.
    """

    name: str
    package: str
    cure: str
    read: Callable[[bytes, Where], Pass] | None = None

    def require(self) -> None:
        """Refuse at once what would fail at the first pass.

        Raises:
            EnvironmentProblem: the package is not installed.
        """
        if find_spec(self.package) is None:
            raise EnvironmentProblem(f"the runtime {self.name} is not installed ({self.cure})")

    @property
    def version(self) -> str:
        """Of the package."""
        try:
            return version(self.package)
        except PackageNotFoundError:  # onnxruntime-gpu, tensorrt-cu12: another distribution of the same module
            return str(getattr(__import__(self.package), "__version__", "unknown"))

    def prepare(self, deployed: Deployed, where: Where) -> Pass:
        """A pass of one image through a deployed module.

        Raises:
            LatencyError: the runtime does not take it.
        """
        if self.read is not None:
            return self.prepare_graph(deployed.graph(), where, what=deployed.what)
        module, received = deployed.on(where.torch_device, devices.memory_format(where.torch_device))
        return measurement.passing(module, received, what=deployed.what)

    def prepare_graph(self, graph: bytes, where: Where, *, what: str) -> Pass:
        """A pass through an ONNX graph.

        Args:
            what: enters it, in words, for an error.

        Raises:
            LatencyError: the runtime does not take it.
        """
        if self.read is None:
            raise LatencyError(f"{self.name} runs modules, not ONNX graphs")
        try:
            return measurement.named(self.read(graph, where), what)
        except Exception as error:
            told = " ".join(str(error).split())[:300]
            raise LatencyError(f"{self.name} refuses what takes {what}: {told}") from error


def _onnxruntime(graph: bytes, where: Where) -> Pass:
    import onnxruntime  # noqa: PLC0415 - takes a while, and is needed where it is asked for

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = where.threads, 1
    options.log_severity_level = 4  # what goes wrong is raised, too
    on_gpu = ("CUDAExecutionProvider", {"device_id": where.device})
    session = onnxruntime.InferenceSession(
        graph, options, providers=["CPUExecutionProvider"] if where.device == CPU else [on_gpu]
    )
    images = {one.name: np.zeros(one.shape, dtype=np.float32) for one in session.get_inputs()}
    return lambda: session.run(None, images)


def _openvino(graph: bytes, where: Where) -> Pass:
    import openvino  # noqa: PLC0415 - an extra

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": where.threads,
        "INFERENCE_PRECISION_HINT": "f32",  # by itself it takes bfloat16 where the CPU has it
    }
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(graph), "CPU" if where.device == CPU else "GPU", settings)
    request = compiled.create_infer_request()
    images = [np.zeros(tuple(one.shape), dtype=np.float32) for one in compiled.inputs]
    return lambda: request.infer(images, share_inputs=True)


def _tensorrt(graph: bytes, where: Where) -> Pass:
    """Never run: written by its documentation (TensorRT 10)."""
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
    stream: Any = torch.cuda.Stream(where.torch_device)
    tensors = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        tensors.append(torch.zeros(tuple(engine.get_tensor_shape(name)), device=where.torch_device))
        context.set_tensor_address(name, tensors[-1].data_ptr())
    return partial(_executed, context, stream, tensors)


def _executed(context: Any, stream: Any, _kept_alive: Sequence[torch.Tensor]) -> None:
    context.execute_async_v3(stream.cuda_stream)
    stream.synchronize()


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend(name="torch", package="torch", cure="pip install torch"),
        Backend(name="onnxruntime", package="onnxruntime", cure="pip install onnxruntime", read=_onnxruntime),
        Backend(name="openvino", package="openvino", cure="pip install 'nas-for-yolo[openvino]'", read=_openvino),
        Backend(name="tensorrt", package="tensorrt", cure="pip install 'nas-for-yolo[tensorrt]'", read=_tensorrt),
    )
}
