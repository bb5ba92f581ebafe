"""Promises that are asked of many modules at once, since asking takes seconds: ONNX, and a file in a fresh process."""

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

from trials.contracts.operator_contract import REORDERED, Case, Failure, distance, raised, undisturbed, wake
from trials.costing import cost

_OPSET = 17
_TRACED, _RUN = ((8, 8), 2), ((12, 20), 3)
"""Size and batch: of the images that an export is recorded with, and of others that it then has to be right for."""
_COPIES = 3
_EXPORTED_TOGETHER = 100_000_000
"""Parameters in one ONNX graph: protobuf ends at 2 GB."""

# Nothing of ours is imported there: loading a checkpoint has to bring what it needs.
_FRESH = """\
import io, json, sys, torch
torch.backends.mkldnn.enabled = False
torch.set_num_threads(1)
told = []
for packed, x, expected in torch.load(sys.argv[1]):
    try:
        module = torch.load(io.BytesIO(packed.numpy().tobytes()), weights_only=False)
        with torch.no_grad():
            y = module(x)
        same = y.shape == expected.shape and torch.allclose(y, expected, rtol=1e-3, atol=1e-4)
        told.append("" if same else "loaded by a fresh process it gives another output")
    except Exception as error:
        told.append(f"a fresh process cannot load it: {type(error).__name__}: {' '.join(str(error).split())}"[:300])
with open(sys.argv[2], "w") as answer:
    json.dump(told, answer)
"""
_PATIENCE_SECONDS = 300

Told = list[str]
"""What was seen of each case; empty where the promise is kept."""
Promise = Callable[[Sequence[Case], Path], Told]


def check(cases: Sequence[Case], folder: Path | None = None) -> dict[Case, tuple[Failure, ...]]:
    """Ask for the promises of this file.

    Args:
        cases: that can be built and run; what cannot is for `trials.contracts.operator_contract.check` to tell.
        folder: for files; a temporary one if None.
    """
    failures: dict[Case, tuple[Failure, ...]] = dict.fromkeys(cases, ())
    with undisturbed():
        for group, (name, promise) in product(_grouped(cases), PROMISES.items()):
            with tempfile.TemporaryDirectory(dir=folder) as place:
                told = _together(promise, group, Path(place))
            for case, seen in zip(group, told, strict=True):
                failures[case] += (Failure.of(case, name, seen),) if seen else ()
    return failures


def _grouped(cases: Sequence[Case]) -> Iterator[list[Case]]:
    """As many as one graph holds."""
    group: list[Case] = []
    size = 0
    for case in cases:
        own = sum(parameter.numel() for parameter in case.build().parameters())
        if group and size + own > _EXPORTED_TOGETHER:
            yield group
            group, size = [], 0
        group.append(case)
        size += own
    if group:
        yield group


def _together(asked: Promise, cases: Sequence[Case], folder: Path) -> Told:
    """Ask all at once; where that fails as a whole, halves of them, until it is known whose fault it is."""
    try:
        return asked(cases, folder)
    except Exception as error:  # noqa: BLE001 - a user's code may raise anything, and that is the finding
        if len(cases) == 1:
            return [raised(error)]
    half = len(cases) // 2
    return _together(asked, cases[:half], folder) + _together(asked, cases[half:], folder)


class _Several(nn.Module):
    """Modules side by side in one graph, each with its own input and output."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.several = nn.ModuleList(modules)

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        """One image, one module, one output."""
        return tuple(module(x) for module, x in zip(self.several, images, strict=True))


def _export(cases: Sequence[Case], folder: Path) -> Told:
    """ONNX, exported as Ultralytics does it, is right in ONNX Runtime at another size and batch.

    A case alone is exported as often as an operator may stand in one model, several times: some symbolic functions of
    PyTorch's are right once in a graph.
    """
    if len(cases) == 1:
        return _export([*cases] * _COPIES, folder)[:1]
    modules = _Several([cost.fused(wake(case.build())) for case in cases]).eval().requires_grad_(False)
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
        return [_parity(torch.from_numpy(y), own) for y, own in zip(out, modules(*images), strict=True)]


def run_onnx(graph: Path, images: Mapping[str, Any]) -> Any:
    """The outputs of a graph, on one thread."""
    import onnxruntime  # noqa: PLC0415 - takes a while, and a check that finds all in its cache needs none

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised, too
    try:
        session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        return session.run(None, images)
    except Exception as error:
        told = " ".join(str(error).replace(str(graph), graph.name).split())
        raise RuntimeError(f"ONNX Runtime refuses what was exported: {told}") from error


def _axes(name: str) -> dict[int, str]:
    return {0: f"{name}_batch", 2: f"{name}_height", 3: f"{name}_width"}


def _parity(out: Tensor, expected: Tensor) -> str:
    traced, run = ("x".join(map(str, size)) for size, _ in (_TRACED, _RUN))
    if out.shape != expected.shape:
        return f"exported at {traced}, it gives {tuple(out.shape)} for {run}, not {tuple(expected.shape)}"
    far = distance(out, expected)
    if far > 10 * REORDERED:
        return f"exported at {traced} and batch {_TRACED[1]}, it is wrong by {far:.2%} at {run} and batch {_RUN[1]}"
    return ""


def _fresh(cases: Sequence[Case], folder: Path) -> Told:
    """Saved as a checkpoint, it comes back in a process that knows nothing of it."""
    told: dict[Case, str] = {}
    saved: dict[Case, tuple[Tensor, Tensor, Tensor]] = {}
    for case in cases:
        module, x = wake(case.build()), case.image()
        with torch.no_grad():
            expected = module(x)
        try:
            saved[case] = _packed(module), x, expected
        except Exception as error:  # noqa: BLE001 - a user's code may raise anything, and that is the finding
            told[case] = f"cannot be saved: {raised(error)}"
    if saved:
        file, answer = folder / "modules.pt", folder / "answer.json"
        torch.save(list(saved.values()), file)
        _run([_FRESH, str(file), str(answer)], folder)
        told |= dict(zip(saved, json.loads(answer.read_text(encoding="utf-8")), strict=True))
    return [told[case] for case in cases]


def _packed(module: nn.Module) -> Tensor:
    """A module as it is saved, in a form that needs no pickle itself."""
    file = io.BytesIO()
    torch.save(module, file)
    return torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)


def _run(command: Sequence[str], folder: Path) -> None:
    """Run Python where it finds what this process finds, and nothing that lies in the working directory."""
    environment: dict[str, Any] = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-P", "-c", *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_PATIENCE_SECONDS,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise RuntimeError(
            f"the fresh process ended with {done.returncode}: {lines[-1] if lines else 'without a word'}"
        )


PROMISES: dict[str, Promise] = {"export": _export, "file": _fresh}
"""By the names that failures carry; their docstrings are the promises."""
