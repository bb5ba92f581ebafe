"""Graphs in another precision than float32: float16, or int8 by post-training quantisation.

int8: weights per output channel and symmetric, activations per tensor, unsigned (for TensorRT signed and symmetric),
ranges from the least and the greatest
value for the calibration images (Jacob et al., arXiv:1712.05877; Nagel et al., arXiv:2106.08295). What a detection
head does after its last convolutions stays float32: one scale for box coordinates up to the image size and for scores
from 0 to 1 leaves no scores. The graph has QuantizeLinear and DequantizeLinear nodes, which ONNX Runtime, OpenVINO and
TensorRT read.
"""

import logging
import re
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from search_spaces.errors import LatencyError, SpecError, nearest, shortened, unwrapped

FloatArray = npt.NDArray[np.float32]
FP32, FP16, INT8 = "fp32", "fp16", "int8"
PRECISIONS = (FP32, FP16, INT8)
_WEIGHTED = ["Conv", "MatMul", "Gemm"]
"""Operations that are quantised."""
_BETWEEN = ["Add", "AveragePool", "Concat", "MaxPool", "Mul", "Resize", "Sigmoid", "Slice", "Split"]
"""Operations between them for which ONNX Runtime has int8 kernels."""
_NOISE_SAMPLES = 2
_CALIBRATION = re.compile(r"([1-9][0-9]{0,8}) images, seed ([0-9]{1,10})")


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Training images from which the ranges of an int8 model's activations are taken.

    Attributes:
        images: number of images; all of them if there are fewer.
        seed: of their choice.
    """

    images: int = 64
    seed: int = 0

    @property
    def text(self) -> str:
        """Calibration as a device's profile stores it."""
        return f"{self.images} images, seed {self.seed}"

    @classmethod
    def from_text(cls, text: str) -> "Calibration":
        """Return the calibration that a profile stores.

        Raises:
            SpecError: the text is none.
        """
        found = _CALIBRATION.fullmatch(text)
        if found is None:
            raise SpecError(f"calibration: '64 images, seed 0' is expected, got {shortened(text)}")
        return cls(images=int(found[1]), seed=int(found[2]))

    def chosen(self, files: Sequence[str]) -> list[str]:
        """Return the chosen images, in their order; the same for the same files, in whatever order they are given."""
        ordered = sorted(files)
        count = min(self.images, len(ordered))
        picked = np.random.default_rng(self.seed).choice(len(ordered), count, replace=False)
        return [ordered[index] for index in sorted(picked)]


def require(name: str) -> str:
    """Return the name of a precision.

    Raises:
        SpecError: there is none of that name.
    """
    if name not in PRECISIONS:
        raise SpecError(f"precision: got {name!r} ({nearest(name, PRECISIONS)})")
    return name


def half(graph: bytes) -> bytes:
    """Return an ONNX graph that computes in float16; its inputs and outputs stay float32."""
    import onnx  # noqa: PLC0415 - slow, and needed only for this precision
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415 - the same

    with _quiet():
        converted = convert_float_to_float16(onnx.load_from_string(graph), keep_io_types=True)
    return bytes(converted.SerializeToString())


def quantized(
    graph: bytes,
    samples: Iterable[Sequence[FloatArray]] | None = None,
    *,
    float_scopes: Sequence[str] = (),
    everything: bool = True,
    is_symmetric: bool = False,
    description: str = "a graph",
) -> bytes:
    """Return an ONNX graph whose convolutions and matrix products compute in int8.

    Args:
        graph: with fixed shapes.
        samples: inputs for calibration; None for noise, which is enough to time the graph: its latency does not depend
            on the ranges.
        float_scopes: scopes of detection heads, such as `/module/model.22/`, whose own operations stay float32.
        everything: whether outputs of convolutions and the operations between them are quantised, too. ONNX Runtime
            is not faster without; OpenVINO and TensorRT fuse an activation into the convolution, and are slower with.
        is_symmetric: whether activations are signed with a zero point of 0, and biases stay float32: TensorRT reads
            nothing else (NVIDIA/TensorRT, issue 2774).
        description: of the graph, for errors.

    Raises:
        LatencyError: it cannot be quantised.
    """
    import onnx  # noqa: PLC0415 - slow, and needed only for this precision
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static  # noqa: PLC0415 - the same
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415 - the same

    with tempfile.TemporaryDirectory() as folder, _quiet():
        prepared, written = Path(folder) / "prepared.onnx", Path(folder) / "quantized.onnx"
        try:
            quant_pre_process(onnx.load_from_string(graph), str(prepared), skip_symbolic_shape=True)
            model = onnx.load(prepared)
            if not any(node.op_type in _WEIGHTED for node in model.graph.node):
                return graph
            quantize_static(
                prepared,
                written,
                _reader(_inputs(model), samples),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=[*_WEIGHTED, *(_BETWEEN if everything else ())],
                per_channel=True,
                activation_type=QuantType.QInt8 if is_symmetric else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=[node.name for node in model.graph.node if _is_float(node.name, float_scopes)],
                extra_options={
                    "OpTypesToExcludeOutputQuantization": [] if everything else _WEIGHTED,
                    "ActivationSymmetric": is_symmetric,
                    "QuantizeBias": not is_symmetric,
                },
            )
            return written.read_bytes()
        except Exception as error:
            raise LatencyError(f"{description} cannot be quantised: {unwrapped(error)[:300]}") from error


def _is_float(node: str, scopes: Sequence[str]) -> bool:
    """Return whether a node is an operation of a detection head itself, or of its integral over distances (`dfl`)."""
    return any(
        node.startswith(scope) and ("/" not in node[len(scope) :] or node[len(scope) :].startswith("dfl/"))
        for scope in scopes
    )


def _inputs(model: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a graph's inputs by name."""
    return {one.name: tuple(size.dim_value for size in one.type.tensor_type.shape.dim) for one in model.graph.input}


def _reader(inputs: Mapping[str, tuple[int, ...]], samples: Iterable[Sequence[FloatArray]] | None) -> Any:
    """Return ONNX Runtime's reader of calibration inputs."""
    from onnxruntime.quantization import CalibrationDataReader  # noqa: PLC0415 - as above

    class Reader(CalibrationDataReader):
        """Reads the samples in their order."""

        def __init__(self) -> None:
            self._left = iter(_noise(inputs.values()) if samples is None else samples)

        def get_next(self) -> dict[str, FloatArray] | None:
            """Return the next sample by input; None at the end."""
            sample = next(self._left, None)
            return None if sample is None else dict(zip(inputs, sample, strict=True))

    return Reader()


def _noise(shapes: Iterable[tuple[int, ...]]) -> Iterator[list[FloatArray]]:
    rng, each = np.random.default_rng(0), list(shapes)
    for _ in range(_NOISE_SAMPLES):
        yield [rng.random(shape, dtype=np.float32) for shape in each]


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress warnings and messages of the converters; errors are raised, too."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
