"""Engines of TensorRT: built once for each graph, version and GPU, then read from the cache folder.

Never run: written after the documentation of TensorRT 10.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from search_spaces import cache_folder
from search_spaces.files import write_atomically
from trials.latency.gpu_iteration import GpuIteration
from trials.latency.precision import FloatArray
from trials.latency.session import Session


def load(graph: bytes, device: torch.device) -> Session:
    """Load an ONNX graph; its types decide the precision: float32 without TF32, float16, or int8 where it says so."""
    import tensorrt  # noqa: PLC0415 - an extra

    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    path = path_of(graph, str(tensorrt.__version__), torch.cuda.get_device_name(device))
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, bytes(_built(graph, tensorrt, logger)))
    engine = tensorrt.Runtime(logger).deserialize_cuda_engine(path.read_bytes())
    return _session(engine, engine.create_execution_context(), device)


def path_of(graph: bytes, version: str, gpu: str) -> Path:
    """Return the path of an engine: it holds for one graph, one version of TensorRT and one kind of GPU."""
    key = hashlib.sha256(b"\n".join([graph, version.encode(), gpu.encode()])).hexdigest()[:32]
    return cache_folder.path() / "tensorrt" / f"{key}.engine"


def _built(graph: bytes, tensorrt: Any, logger: Any) -> Any:
    builder = tensorrt.Builder(logger)
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(graph):
        raise RuntimeError(str(parser.get_error(0)))
    config = builder.create_builder_config()
    config.clear_flag(tensorrt.BuilderFlag.TF32)
    built = builder.build_serialized_network(network, config)
    if built is None:
        raise RuntimeError("TensorRT builds no engine of it")
    return built


def _session(engine: Any, context: Any, device: torch.device) -> Session:
    stream: Any = torch.cuda.Stream(device)
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    for name in [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]:
        tensor = torch.zeros(tuple(engine.get_tensor_shape(name)), device=device)
        context.set_tensor_address(name, tensor.data_ptr())
        (inputs if str(engine.get_tensor_mode(name)).endswith("INPUT") else outputs).append(tensor)

    def enqueue(_held: Sequence[Tensor] = (*inputs, *outputs)) -> None:  # so that their memory is not freed
        context.execute_async_v3(stream.cuda_stream)

    run = GpuIteration(enqueue, stream)

    def infer(image: FloatArray) -> FloatArray:
        inputs[0].copy_(torch.from_numpy(image))
        torch.cuda.synchronize(device)
        run()
        return np.asarray(outputs[0].cpu().numpy())

    return Session(iteration=run, infer=infer)
