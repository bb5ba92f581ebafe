"""Graphs in float16 and int8: what is quantised, what stays float, and which calibration images are chosen."""

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from ultralytics.nn.modules import Conv, Detect

from search_spaces.errors import LatencyError, SpecError
from trials.latency import precision, runtimes
from trials.latency.backends import BACKENDS, Backend, ExecutionSettings
from trials.latency.deployed import Deployed
from trials.latency.precision import Calibration

SIZE = 16


def block() -> Deployed:
    torch.manual_seed(0)
    module = nn.Sequential(Conv(3, 8, 3), Conv(8, 4, 3)).eval()
    return Deployed(module=module, inputs=torch.zeros(1, 3, SIZE, SIZE, device="meta"), description="two layers")


def head() -> Deployed:
    module = Detect(3, ch=(8, 16))
    module.stride = torch.tensor([8.0, 16.0])
    inputs = [torch.zeros(1, c, side, side, device="meta") for c, side in ((8, 8), (16, 4))]
    return Deployed(module=module.eval(), inputs=inputs, description="a head")


def operations(graph: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_from_string(graph).graph.node)


@pytest.mark.parametrize(
    ("name", "runtime", "error"),
    [("fp16", "onnxruntime", 2e-3), ("int8", "onnxruntime", 0.05), ("int8", "openvino", 0.05)],
)
def test_a_graph_in_another_precision_computes_nearly_the_same(name: str, runtime: str, error: float) -> None:
    pytest.importorskip(runtime)
    backend, execution, deployed = BACKENDS[runtime], ExecutionSettings(precision=name), block()
    samples = [[sample] for sample in np.random.default_rng(1).random((4, 1, 3, SIZE, SIZE), dtype=np.float32)]
    graph = backend.graph_of(deployed, execution, samples)
    image = samples[0][0]
    found = backend.load(graph, execution, description="two layers").infer(image)
    with torch.no_grad():
        expected = deployed.module(torch.from_numpy(image)).numpy()
    assert found.dtype == np.float32
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    assert 0 < difference < error


def test_everything_between_convolutions_is_quantised_for_onnxruntime_alone() -> None:
    execution = ExecutionSettings(precision="int8")
    counts = {name: operations(BACKENDS[name].graph_of(block(), execution)) for name in ("onnxruntime", "openvino")}
    assert counts["openvino"]["QuantizeLinear"] == 2  # the inputs of both convolutions; weights are stored in int8
    assert counts["onnxruntime"]["QuantizeLinear"] > counts["openvino"]["QuantizeLinear"]


def test_tensorrt_gets_activations_around_zero_and_biases_in_floats() -> None:
    """What its parser reads: NVIDIA/TensorRT, issue 2774."""
    graph = onnx.load_from_string(
        BACKENDS["tensorrt"].graph_of(block(), ExecutionSettings(precision="int8", device="0"))
    )
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in graph.graph.initializer}
    read = [
        constants[node.input[0]]
        for node in graph.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    ]
    zeros = [
        constants[node.input[2]] for node in graph.graph.node if node.op_type in {"QuantizeLinear", "DequantizeLinear"}
    ]
    assert read
    assert {one.dtype.name for one in read} == {"int8"}
    assert {one.dtype.name for one in zeros} == {"int8"}
    assert not any(one.any() for one in zeros)


def test_what_a_head_does_after_its_last_convolutions_stays_float() -> None:
    deployed = head()
    assert deployed.float_scopes == ("/module/",)
    with_head = BACKENDS["openvino"].graph_of(deployed, ExecutionSettings(precision="int8"))
    float_inputs = {
        node.name: node.input[0] for node in onnx.load_from_string(with_head).graph.node if node.op_type == "Conv"
    }
    integral = [name for name in float_inputs if "/dfl/" in name]
    others = [name for name in float_inputs if "/dfl/" not in name]
    assert len(integral) == 1
    assert "Dequantize" not in float_inputs[integral[0]]
    assert others
    assert all("Dequantize" in float_inputs[name] for name in others)


def test_a_graph_without_convolutions_stays_as_it_is() -> None:
    deployed = Deployed(module=nn.ReLU(), inputs=torch.zeros(1, 1, 1, 1, device="meta"), description="a ReLU")
    graph = deployed.to_onnx()
    assert precision.quantized(graph) == graph


def test_a_graph_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(LatencyError, match=r"^a layer cannot be quantised: "):
        precision.quantized(b"no graph", description="a layer")


def test_calibration_images_are_chosen_by_seed() -> None:
    files = [f"{number:03}.png" for number in range(100)]
    chosen = Calibration(images=8, seed=3).chosen(files)
    assert chosen == Calibration(images=8, seed=3).chosen(files[::-1])
    assert chosen != Calibration(images=8, seed=4).chosen(files)
    assert len(set(chosen)) == 8
    assert Calibration(images=200).chosen(files) == files


def test_calibration_is_read_from_a_profile() -> None:
    assert Calibration.from_text(Calibration(images=8, seed=3).text) == Calibration(images=8, seed=3)
    with pytest.raises(SpecError, match="'64 images, seed 0' is expected, got 'many'"):
        Calibration.from_text("many")


@pytest.mark.parametrize(
    ("runtime", "execution", "message"),
    [
        ("torch", ExecutionSettings(precision="int8"), "torch does not run int8"),
        ("torch", ExecutionSettings(precision="fp16"), "torch does not run fp16 on a CPU"),
        ("onnxruntime", ExecutionSettings(precision="int8", device="0"), "in floats on a GPU"),
        ("onnxruntime", ExecutionSettings(precision="in8"), "did you mean 'int8'"),
    ],
)
def test_a_precision_that_a_runtime_does_not_compute_in_is_refused(
    runtime: str, execution: ExecutionSettings, message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        BACKENDS[runtime].require_precision(execution)


def test_float16_on_a_cpu_is_no_gain_and_the_runtime_says_so() -> None:
    backend: Backend = BACKENDS["onnxruntime"]
    assert "computes in float32" in backend.caveat(ExecutionSettings(precision="fp16"))
    assert not backend.caveat(ExecutionSettings(precision="int8"))


def test_a_table_of_another_precision_or_calibration_is_another_device() -> None:
    def opened(name: str, images: int = 64) -> runtimes.Runtime:
        return runtimes.open_runtime(
            "onnxruntime", precision=name, calibration=Calibration(images=images), device_name="board"
        )

    whole, int8, other = opened("fp32").profile, opened("int8").profile, opened("int8", images=8).profile
    with pytest.raises(LatencyError, match="precision 'int8', not 'fp32'"):
        whole.require(int8, "the table")
    with pytest.raises(LatencyError, match="calibration '8 images, seed 0', not '64 images, seed 0'"):
        int8.require(other, "the table")
    assert runtimes.open_for(int8).profile == int8
    assert runtimes.open_runtime("onnxruntime", precision="int8").profile.name.endswith("-int8")
