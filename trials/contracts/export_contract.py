"""Contract of operators outside this process: an ONNX export, and a checkpoint loaded by a fresh process.

Each check takes seconds, so many modules are checked together.
"""

import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trials.contracts.case import Case, Failure
from trials.contracts.probing import REORDERED, as_if_trained, describe, isolated, relative_difference
from trials.costing import cost

_OPSET = 17
_TRACED, _RUN = ((8, 8), 2), ((12, 20), 3)
"""Size and batch of the input that is traced, and of the input that the exported graph is run with."""
_COPIES = 3
_PARAMETERS_PER_GRAPH = 100_000_000
"""Most parameters of one ONNX graph: protobuf allows 2 GB."""

# It imports nothing of this package: loading a checkpoint must import all that it needs.
_SCRIPT = """\
import io, json, sys, torch
from search_spaces.errors import unwrapped
torch.backends.mkldnn.enabled = False
torch.set_num_threads(1)
results = []
for packed, x, expected in torch.load(sys.argv[1]):
    try:
        module = torch.load(io.BytesIO(packed.numpy().tobytes()), weights_only=False)
        with torch.no_grad():
            y = module(x)
        same = y.shape == expected.shape and torch.allclose(y, expected, rtol=1e-3, atol=1e-4)
        results.append("" if same else "loaded by a fresh process it gives another output")
    except Exception as error:
        results.append(f"a fresh process cannot load it: {type(error).__name__}: {unwrapped(error)}"[:300])
with open(sys.argv[2], "w") as answer:
    json.dump(results, answer)
"""
_TIMEOUT_SECONDS = 300

Observations = list[str]
"""Observation that breaks a promise, for each case; empty text where none does."""
Promise = Callable[[Sequence[Case], Path], Observations]


def check(cases: Sequence[Case], folder: Path | None = None) -> dict[Case, tuple[Failure, ...]]:
    """Check all promises of this module.

    Args:
        cases: that passed `trials.contracts.operator_contract.check`, so that they can be built and run.
        folder: for temporary files; None for the system's.
    """
    failures: dict[Case, tuple[Failure, ...]] = dict.fromkeys(cases, ())
    with isolated():
        for group, (name, promise) in product(_grouped(cases), PROMISES.items()):
            with tempfile.TemporaryDirectory(dir=folder) as inside:
                observations = _bisected(promise, group, Path(inside))
            for case, observation in zip(group, observations, strict=True):
                failures[case] += (Failure.of(case, name, observation),) if observation else ()
    return failures


def _grouped(cases: Sequence[Case]) -> Iterator[list[Case]]:
    """Yield groups of cases that fit into one graph."""
    group: list[Case] = []
    size = 0
    for case in cases:
        params = sum(parameter.numel() for parameter in case.build().parameters())
        if group and size + params > _PARAMETERS_PER_GRAPH:
            yield group
            group, size = [], 0
        group.append(case)
        size += params
    if group:
        yield group


def _bisected(promise: Promise, cases: Sequence[Case], folder: Path) -> Observations:
    """Check cases together; if that raises, check halves of them, down to the single case that raises."""
    try:
        return promise(cases, folder)
    except Exception as error:  # noqa: BLE001 - a user's code may raise anything, and that is the finding
        if len(cases) == 1:
            return [describe(error)]
    half = len(cases) // 2
    return _bisected(promise, cases[:half], folder) + _bisected(promise, cases[half:], folder)


class _Parallel(nn.Module):
    """Parallel modules in one graph, each with an input and an output."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(modules)

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        """Return the output of each module for its input."""
        return tuple(module(x) for module, x in zip(self.branches, images, strict=True))


def _export(cases: Sequence[Case], folder: Path) -> Observations:
    """Export to ONNX, as Ultralytics does it, gives the right output in ONNX Runtime at another size and batch.

    A single case is exported several times in one graph, as an operator occurs several times in a model: some symbolic
    functions of PyTorch are wrong from their second use on.
    """
    if len(cases) == 1:
        return _export([*cases] * _COPIES, folder)[:1]
    modules = _Parallel([cost.fused(as_if_trained(case.build())) for case in cases]).eval().requires_grad_(False)
    names = [(f"x{index}", f"y{index}") for index in range(len(cases))]
    (size, batch), graph = _TRACED, folder / "several.onnx"
    torch.onnx.export(
        modules,
        tuple(case.image(size, batch) for case in cases),
        graph,
        opset_version=_OPSET,
        input_names=[x for x, _ in names],
        output_names=[y for _, y in names],
        dynamic_axes={name: _axes(name) for pair in names for name in pair},
        dynamo=False,
    )
    images = [case.image(*_RUN) for case in cases]
    out = run_onnx(graph, {x: image.numpy() for (x, _), image in zip(names, images, strict=True)})
    with torch.no_grad():
        expected = modules(*images)
    return [_difference(case, torch.from_numpy(y), one) for case, y, one in zip(cases, out, expected, strict=True)]


def run_onnx(graph: Path, images: Mapping[str, Any]) -> Any:
    """Run an ONNX graph on one thread and return its outputs."""
    import onnxruntime  # noqa: PLC0415 - slow, and not needed if all cases are cached

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised, too
    try:
        session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        return session.run(None, images)
    except Exception as error:
        reason = " ".join(str(error).replace(str(graph), graph.name).split())
        raise RuntimeError(f"ONNX Runtime refuses the exported graph: {reason}") from error


def _axes(name: str) -> dict[int, str]:
    return {0: f"{name}_batch", 2: f"{name}_height", 3: f"{name}_width"}


def _difference(case: Case, out: Tensor, expected: Tensor) -> str:
    """Return in words how the output of an exported graph differs; empty if it does not."""
    traced, run = ("x".join(map(str, case.pixels(size))) for size, _ in (_TRACED, _RUN))
    if out.shape != expected.shape:
        return f"exported at {traced}, it gives {tuple(out.shape)} for {run}, not {tuple(expected.shape)}"
    far = relative_difference(out, expected)
    if far > 10 * REORDERED:
        return f"exported at {traced} and batch {_TRACED[1]}, it is wrong by {far:.2%} at {run} and batch {_RUN[1]}"
    return ""


def _file(cases: Sequence[Case], folder: Path) -> Observations:
    """Checkpoints are loaded by a fresh process without further imports, and give the same output."""
    observations: dict[Case, str] = {}
    saved: dict[Case, tuple[Tensor, Tensor, Tensor]] = {}
    for case in cases:
        module, x = as_if_trained(case.build()), case.image()
        with torch.no_grad():
            expected = module(x)
        try:
            saved[case] = _serialised(module), x, expected
        except Exception as error:  # noqa: BLE001 - a user's code may raise anything, and that is the finding
            observations[case] = f"cannot be saved: {describe(error)}"
    if saved:
        file, answer = folder / "modules.pt", folder / "answer.json"
        torch.save(list(saved.values()), file)
        _run([_SCRIPT, str(file), str(answer)], folder)
        observations |= dict(zip(saved, json.loads(answer.read_text(encoding="utf-8")), strict=True))
    return [observations[case] for case in cases]


def _serialised(module: nn.Module) -> Tensor:
    """Return a saved module as a tensor of bytes, which is loaded without unpickling."""
    file = io.BytesIO()
    torch.save(module, file)
    return torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)


def _run(command: Sequence[str], folder: Path) -> None:
    """Run Python with the import path of this process, without the working directory."""
    environment: dict[str, Any] = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-P", "-c", *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise RuntimeError(
            f"the fresh process ended with {done.returncode}: {lines[-1] if lines else 'without a message'}"
        )


PROMISES: dict[str, Promise] = {"export": _export, "file": _file}
"""Promises by the names in failures; `nas check` prints the first line of their docstrings."""
