"""Runtimes: each backend, the exported graph, the device profile, and the connection through ssh."""

import io
import json
import stat
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Detect

from search_spaces import Architecture, Choice, SearchSpace
from search_spaces.errors import EnvironmentProblem, LatencyError, SpecError
from trials import timing_server
from trials.devices import DeviceProfile, slug
from trials.latency import backends, messages, runtimes
from trials.latency.backends import BACKENDS, Backend
from trials.latency.deployed import Deployed

ROOT = Path(__file__).parents[2]


def tiny(module: nn.Module | None = None, size: int = 8) -> Deployed:
    return Deployed(
        module=(module or nn.Conv2d(3, 4, 3)).eval(),
        inputs=torch.zeros(1, 3, size, size, device="meta"),
        description=f"one {size} px image",
    )


class ThreadCounter(nn.Module):
    """Records the number of threads of each forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.threads.append(torch.get_num_threads())
        return x

    def __deepcopy__(self, memo: dict[int, Any]) -> "ThreadCounter":
        return self


class Refusing(nn.Module):
    def forward(self, _x: Tensor) -> Tensor:
        raise RuntimeError("Sizes of tensors must match")


class TestBackends:
    @pytest.mark.parametrize("name", ["torch", "onnxruntime", "openvino"])
    def test_runtime_measures_a_module_and_compares_it_with_another(self, name: str) -> None:
        pytest.importorskip(name)
        with runtimes.open_runtime(name) as runtime:
            assert runtime.profile.runtime == name
            assert runtime.measure(tiny()).median_ms > 0
            large = tiny(nn.Sequential(nn.Conv2d(3, 64, 3), nn.Conv2d(64, 64, 3)), size=64)
            assert runtime.compare(large, tiny()).ratio > 1

    def test_reference_of_a_comparison_is_loaded_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        prepared: list[Deployed] = []
        prepare = Backend.prepare

        def noting(self: Backend, deployed: Deployed, where: backends.ExecutionSettings) -> Any:
            prepared.append(deployed)
            return prepare(self, deployed, where)

        monkeypatch.setattr(Backend, "prepare", noting)
        runtime, reference, first, second = runtimes.open_runtime("torch"), tiny(), tiny(), tiny()
        runtime.compare(first, reference)
        runtime.compare(second, reference)
        assert prepared == [reference, first, second]

    def test_threads_are_set_during_a_measurement_only(self) -> None:
        module, before = ThreadCounter(), torch.get_num_threads()
        runtime = runtimes.open_runtime("torch", threads=3)
        runtime.measure(tiny(module))
        assert set(module.threads) == {3}
        assert runtime.profile.threads == 3
        assert torch.get_num_threads() == before

    def test_error_of_a_failed_inference_names_its_input(self) -> None:
        with pytest.raises(LatencyError) as caught:
            runtimes.open_runtime("torch").measure(tiny(Refusing()))
        assert str(caught.value) == "inference of one 8 px image failed: Sizes of tensors must match"

    def test_a_failed_export_is_an_error(self) -> None:
        with pytest.raises(LatencyError) as caught:
            runtimes.open_runtime("onnxruntime").measure(tiny(Refusing()))
        assert str(caught.value) == "export of one 8 px image to ONNX failed: Sizes of tensors must match"

    @pytest.mark.parametrize(
        ("built", "cure"),
        [
            (["CPUExecutionProvider"], "this build has no CUDA: pip install onnxruntime-gpu"),
            (
                ["CUDAExecutionProvider", "CPUExecutionProvider"],
                "its CUDA or cuDNN libraries cannot be loaded: pip install 'onnxruntime-gpu[cuda,cudnn]'",
            ),
        ],
    )
    def test_onnxruntime_that_falls_back_to_the_cpu_is_refused(
        self, built: list[str], cure: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        onnxruntime = pytest.importorskip("onnxruntime")
        start = onnxruntime.InferenceSession
        on_cpu = ["CPUExecutionProvider"]
        monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *given, **_: start(*given, providers=on_cpu))
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: built)
        on_gpu = backends.ExecutionSettings(device="0")
        with pytest.raises(EnvironmentProblem) as caught:
            BACKENDS["onnxruntime"].prepare(tiny(), on_gpu)
        assert str(caught.value) == f"onnxruntime would compute on the CPU in place of the GPU ({cure})"

    def test_invalid_onnx_graph_is_an_error(self) -> None:
        with pytest.raises(LatencyError, match=r"^onnxruntime refuses the graph of an image: "):
            BACKENDS["onnxruntime"].prepare_graph(b"no graph", backends.ExecutionSettings(), description="an image")


class TestMissingPackages:
    @pytest.mark.parametrize("name", BACKENDS)
    def test_missing_runtime_package_is_an_error_with_a_command(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(backends, "find_spec", lambda _package: None)
        with pytest.raises(EnvironmentProblem) as caught:
            runtimes.open_runtime(name)
        assert str(caught.value) == f"the runtime {name} is not installed ({BACKENDS[name].install_command})"

    def test_install_commands_name_existing_extras(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        commands = [backend.install_command for backend in BACKENDS.values() if "[" in backend.install_command]
        assert commands == [
            f"pip install '{project['name']}[{extra}]'"
            for extra in ("openvino", "tensorrt")
            if extra in project["optional-dependencies"]
        ]

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("onnx", "runtime: no 'onnx' (did you mean 'onnxruntime'?)"),
            ("ssh:host", "got 'ssh:host'"),
            ("ssh://host/torch", "got 'ssh://host/torch' (RUNTIME is onnxruntime, openvino, tensorrt)"),
            ("ssh://-oProxyCommand=touch/onnxruntime", "ssh://HOST/RUNTIME is expected"),
            ("ssh://host;ls", "ssh://HOST/RUNTIME is expected"),
        ],
    )
    def test_an_unknown_runtime_lists_similar_names(self, name: str, message: str) -> None:
        with pytest.raises(SpecError) as caught:
            runtimes.open_runtime(name)
        assert message in str(caught.value)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_a_missing_gpu_is_an_error(self) -> None:
        with pytest.raises(EnvironmentProblem, match="there is no device 0"):
            runtimes.open_runtime("torch", device="0")


class TestGraph:
    """The exported graph computes what the module does."""

    @staticmethod
    def run(deployed: Deployed) -> tuple[list[Tensor], list[Tensor]]:
        import onnxruntime

        session = onnxruntime.InferenceSession(deployed.to_onnx(), providers=["CPUExecutionProvider"])
        images = [torch.rand(one.shape) for one in session.get_inputs()]
        names = [one.name for one in session.get_inputs()]
        out = session.run(None, {name: image.numpy() for name, image in zip(names, images, strict=True)})
        return images, [torch.from_numpy(one) for one in out]

    def test_a_whole_model_with_all_operators_is_exported(self, motley: Architecture) -> None:
        deployed = Deployed.model(motley.document(3), 3, 64)
        (image,), (boxes,) = self.run(deployed)
        with torch.no_grad():
            expected = deployed.module(image)[0]
        assert boxes.shape == expected.shape == (1, 7, 84)
        assert torch.allclose(boxes, expected, rtol=1e-3, atol=1e-3)

    def test_a_layer_with_several_inputs_is_exported(self) -> None:
        class Joining(nn.Module):
            def forward(self, maps: list[Any]) -> Tensor:
                return torch.cat([maps[0], *maps[1]], dim=1) * 2

        inputs: list[Any] = [torch.zeros(1, 3, 4, 4), (torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4))]
        deployed = Deployed(module=Joining().eval(), inputs=inputs, description="maps")
        images, (joined,) = self.run(deployed)
        assert torch.allclose(joined, torch.cat(images, dim=1) * 2)

    def test_export_leaves_the_module_unchanged(self, space_of: Callable[[str], SearchSpace]) -> None:
        deployed = Deployed.model(space_of("v5").of({2: Choice.of("UIB", {})}).document(3), 3, 64)
        deployed.to_onnx()
        (head,) = (module for module in deployed.module.modules() if isinstance(module, Detect))
        assert head.export is False


class TestProfile:
    def test_the_default_name_of_a_profile(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("trials.devices.platform.node", lambda: "bench")
        monkeypatch.setattr("trials.devices.processor", lambda _device: "Intel(R) Core(TM) i7-8700 CPU @ 3.2GHz")
        profile = DeviceProfile.of_this_machine(None, runtime="torch", version="2.0", threads=4)
        assert profile.name == "bench-Intel-Core-i7-8700-CPU-3.2GHz-torch-4t"

    def test_a_name_becomes_a_valid_file_name(self) -> None:
        assert slug("../my Jetson: Orin") == "my-Jetson-Orin"

    def test_two_profiles_are_not_mixed(self) -> None:
        profile = DeviceProfile(name="a", processor="x", runtime="torch", version="2.0", threads=1, torch="2.0")
        profile.require(profile, "the table a")
        other = DeviceProfile(name="a", processor="x", runtime="torch", version="2.1", threads=2, torch="2.0")
        with pytest.raises(LatencyError) as caught:
            profile.require(other, "the table a")
        assert str(caught.value) == (
            "the table a is of another device profile: this one has version '2.1', not '2.0', threads 2, not 1 "
            "(latencies of two profiles are never mixed: give this one its own name with --device-name)"
        )


class TestServer:
    @staticmethod
    def ask(*questions: dict[str, Any]) -> list[dict[str, Any]]:
        common = {"runtime": "onnxruntime", "threads": 1, "device": "cpu"}
        answers = io.StringIO()
        lines = "".join(json.dumps({**common, **question}) + "\n" for question in questions)
        timing_server.serve(io.StringIO(lines), answers)
        return [json.loads(line) for line in answers.getvalue().splitlines()]

    def test_server_answers_each_request_with_a_line(self) -> None:
        graphs = messages.pack([tiny().to_onnx(), tiny().to_onnx()])
        profile, alone, refused, beside = self.ask(
            {"question": "profile", "device_name": "far away"},
            {"question": "measure", "graphs": graphs[:1], "what": "x"},
            {"question": "measure", "graphs": ["AAAA"], "what": "x"},
            {"question": "compare", "graphs": graphs, "what": "x"},
        )
        assert (profile["name"], profile["runtime"]) == ("far-away", "onnxruntime")
        assert alone["median_ms"] > 0
        assert refused["error"].startswith("onnxruntime refuses the graph of x: ")
        assert beside["candidate"]["passes"] >= 20

    def test_a_package_missing_on_the_remote_machine_is_reported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backends, "find_spec", lambda _package: None)
        (answer,) = self.ask({"question": "profile", "device_name": None})
        assert answer == {"environment": "the runtime onnxruntime is not installed (pip install onnxruntime)"}


class TestSsh:
    """An `ssh` in the path that runs its command on this machine."""

    @pytest.fixture
    def ssh(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
        def install(script: str) -> Path:
            file = tmp_path / "ssh"
            file.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\n{script}\n', encoding="utf-8")
            file.chmod(file.stat().st_mode | stat.S_IXUSR)
            return tmp_path / "arguments"

        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        monkeypatch.setenv("PYTHONPATH", ":".join(filter(None, sys.path)))
        return install

    def test_remote_machine_measures_a_module(self, ssh: Callable[[str], Path]) -> None:
        arguments = ssh(f'while [ "$1" != python3 ]; do shift; done; shift; exec {sys.executable} "$@"')
        with runtimes.open_runtime("ssh://me@board/onnxruntime", threads=1, device_name="board") as runtime:
            assert arguments.read_text() == "-o BatchMode=yes me@board python3 -P -m trials.timing_server\n"
            assert (runtime.profile.name, runtime.profile.runtime) == ("board", "onnxruntime")
            assert runtime.measure(tiny()).median_ms > 0
            compared = runtime.compare(tiny(), tiny())
            assert compared.candidate.iterations >= 20
            assert compared.ratio > 0

    def test_a_table_does_not_choose_a_machine_to_connect_to(self, ssh: Callable[[str], Path]) -> None:
        arguments = ssh("exit 1")
        runtime = "ssh://elsewhere/onnxruntime"
        profile = DeviceProfile(name="a", processor="x", runtime=runtime, version="2.0", threads=1, torch="2.0")
        with pytest.raises(LatencyError, match="this machine has no runtime 'ssh://elsewhere/onnxruntime'"):
            runtimes.open_for(profile)
        assert not arguments.exists()

    def test_an_unreachable_machine_is_an_error(self, ssh: Callable[[str], Path]) -> None:
        ssh('echo "ssh: connect to host board port 22: Connection refused" >&2; exit 255')
        with pytest.raises(EnvironmentProblem) as caught:
            runtimes.open_runtime("ssh://board")
        assert str(caught.value) == (
            "board does not measure: ssh: connect to host board port 22: Connection refused "
            "(ssh board python3 -m trials.timing_server must start there: pip install nas-for-yolo)"
        )

    def test_an_error_of_the_remote_machine_has_its_name(self, ssh: Callable[[str], Path]) -> None:
        ssh('read question; echo \'{"environment": "the runtime openvino is not installed (remedy)"}\'')
        with pytest.raises(EnvironmentProblem, match=r"^board: the runtime openvino is not installed \(remedy\)$"):
            runtimes.open_runtime("ssh://board/openvino")

    def test_a_missing_ssh_client_is_an_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(EnvironmentProblem, match="install an ssh client"):
            runtimes.open_runtime("ssh://board")


SIGNALLED = """\
import signal, subprocess
import torch
from torch import nn
from trials.latency.backends import BACKENDS, ExecutionSettings
from trials.latency.deployed import Deployed

x = torch.zeros(1, 3, 8, 8, device="meta")
backend, execution = BACKENDS["openvino"], ExecutionSettings()
graph = backend.graph_of(Deployed(module=nn.Conv2d(3, 4, 3).eval(), inputs=x, description="a layer"), execution)
first, second = (backend.load(graph, execution, description="a layer") for _ in range(2))
del first
del second
signal.signal(signal.SIGCHLD, lambda *_: None)
subprocess.run(["true"], check=True)
"""


def test_signals_reach_a_process_in_which_openvino_has_run() -> None:
    pytest.importorskip("openvino")
    command = [sys.executable, "-X", "faulthandler", "-c", SIGNALLED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
