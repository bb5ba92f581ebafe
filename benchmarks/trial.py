"""Overhead of a trial over the bare training: the same work by `yolo train` and by `evaluate`.

    python benchmarks/trial.py DATA [--sizes 128 160] [--repeats N]

One architecture (yolov9t), with the same images, epochs, image size and batch, one thread each, one after the other:
Ultralytics' command with its defaults; the same with all flags that save time; the second and later trials of one
worker, each with another seed; and these in bfloat16, where the CPU computes in it. CPU seconds and wall time;
`yolo train` includes its imports each time, as for a user, a worker imports once. Accuracies differ because the recipes
do: Ultralytics' defaults score 0 in so few steps.

Then, for 8 epochs, the time of a trial outside of its batch loops and validations; and the trial's training compared
with Ultralytics' trainer with the same settings, set by its callbacks: both must have the same score to the bit.
"""

import argparse
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

os.environ.update({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "YOLO_VERBOSE": "false", "YOLO_OFFLINE": "true"})

import torch
from torch import nn, optim
from ultralytics.models.yolo.detect import DetectionTrainer

from search_spaces import Architecture, load
from trials import Budget, Costs, evaluate
from trials.budget import Precision
from trials.costing.cost import CostTable
from trials.data import datasets
from trials.data.datasets import DataSet
from trials.devices import CPU
from trials.recipes import SCRATCH
from trials.torch_devices import computes_bf16, memory_format
from trials.training import short_training
from trials.training.ema import decay
from trials.training.short_training import ShortTraining

BATCH = 8
Run = tuple[float, float, float]
"""CPU seconds, wall seconds, mAP50-95; NaN for Ultralytics' command."""
FASTEST = ("plots=False", "save=False", "val=False", "cache=ram", "deterministic=False")
"""Ultralytics' flags that skip what a score does not need; the last epoch is always validated twice."""


def main(data_path: Path, sizes: list[int], repeats: int) -> None:
    torch.set_num_threads(1)
    data = datasets.load(data_path)
    candidate = _candidate(data)
    for size in sizes:
        _trial(candidate, _budget(data, size, 1))  # imports, decoding: once for a worker
        runs = {name: [run(seed) for seed in range(repeats)] for name, run in _ways(candidate, data, size).items()}
        print(f"\n3 epochs at {size} px, CPU-seconds and wall (median, least, most of {repeats})")
        _print_runs(runs)
        _print_outside(candidate, _budget(data, size, 8), repeats)
        _print_equality(data, _budget(data, size, 3))


def _ways(candidate: tuple[Architecture, Costs], data: DataSet, size: int) -> dict[str, Callable[[int], Run]]:
    """Return functions by name that run one training with a seed; Ultralytics' command ignores the seed."""

    def trial(seed: int, precision: Precision) -> Run:
        return _timed(lambda: _trial(candidate, _budget(data, size, 3, seed, precision)))

    ways: dict[str, Callable[[int], Run]] = {
        "yolo train": lambda _: _command(data, size),
        "yolo train, fastest flags": lambda _: _command(data, size, *FASTEST),
        "trial": partial(trial, precision="fp32"),
    }
    return ways | ({"trial in bf16": partial(trial, precision="bf16")} if computes_bf16(CPU) else {})


def _print_runs(runs: dict[str, list[Run]]) -> None:
    for name, some in runs.items():
        print(f"  {name:<27} {_spread([cpu for cpu, _, _ in some])}   wall {_spread([wall for _, wall, _ in some])}")
    for name, other in (*(("trial", other) for other in runs if other.startswith("yolo")), ("trial in bf16", "trial")):
        if name in runs:
            ratios = [one[0] / their[0] for one, their in zip(runs[name], runs[other], strict=True)]
            print(f"  {f'{name} / {other}':<35} {_spread(ratios)}")
    for name, some in runs.items():
        if name.startswith("trial"):
            print(f"  mAP50-95 of a {name}, by seed: {' '.join(f'{score:.5f}' for _, _, score in some)}")


def _budget(data: DataSet, size: int, epochs: int, seed: int = 0, precision: Precision = "fp32") -> Budget:
    common = Budget(data=data.path, epochs=epochs, image_size=size, batch=BATCH, recipe=SCRATCH)
    return common.model_copy(update={"seed": seed, "precision": precision})


def _candidate(data: DataSet) -> tuple[Architecture, Costs]:
    """Return the stock model and its costs, which a worker takes from the study's table."""
    space = load("v9")
    counted = CostTable(space, len(data.classes), 640).cost(space.stock)
    return space.stock, Costs(params=counted.params, gflops=counted.gflops)


def _trial(candidate: tuple[Architecture, Costs], budget: Budget) -> float:
    architecture, costs = candidate
    with TemporaryDirectory() as folder:
        outcome = evaluate(architecture, budget, Path(folder), lambda *_: True, costs=costs)
    if outcome.scores is None:
        raise RuntimeError(outcome.detail)
    return outcome.scores.map50_95


def _timed(run: Callable[[], float]) -> Run:
    cpu, wall = time.process_time(), time.perf_counter()
    result = run()
    return time.process_time() - cpu, time.perf_counter() - wall, result


def _command(data: DataSet, size: int, *flags: str) -> Run:
    """Run Ultralytics' command, with the output that a user gets."""
    with TemporaryDirectory() as folder:
        data_file = Path(folder) / "data.yaml"
        data_file.write_text(datasets.resolved(data), encoding="utf-8")
        settings = ("epochs=3", f"imgsz={size}", f"batch={BATCH}", "device=cpu", f"project={folder}", *flags)
        command = [str(Path(sys.executable).with_name("yolo")), "train", "model=yolov9t.yaml", f"data={data_file}"]
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        environment = {**os.environ, "YOLO_VERBOSE": "true", "YOLO_CONFIG_DIR": folder, "YOLO_AUTOINSTALL": "false"}
        subprocess.run([*command, *settings], check=True, env=environment, cwd=folder, capture_output=True)
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall, math.nan


class _Timed(ShortTraining):
    """Measures the CPU seconds of batch loops and validations."""

    loops = validations = 0.0
    _began = 0.0

    def run_callbacks(self, event: str) -> None:
        super().run_callbacks(event)
        if event == "on_train_epoch_start":
            self._began = time.process_time()
        if event == "on_train_epoch_end":
            type(self).loops += time.process_time() - self._began

    def validate(self) -> Any:
        began = time.process_time()
        validated = super().validate()
        type(self).validations += time.process_time() - began
        return validated


def _print_outside(candidate: tuple[Architecture, Costs], budget: Budget, repeats: int) -> None:
    runs = [_outside(candidate, budget) for _ in range(repeats)]
    print(f"  8 epochs, CPU-seconds (median, least, most of {repeats})")
    for name, seconds in zip(("whole", "batch loops", "validations", "all else"), zip(*runs, strict=True), strict=True):
        print(f"    {name:<12} {_spread(list(seconds))}")


def _outside(candidate: tuple[Architecture, Costs], budget: Budget) -> tuple[float, float, float, float]:
    """Return the CPU seconds of a whole trial, its batch loops, its validations and the rest."""
    _Timed.loops = _Timed.validations = 0.0
    with mock.patch.object(short_training, "ShortTraining", _Timed):
        whole, _, _ = _timed(lambda: _trial(candidate, budget))
    return whole, _Timed.loops, _Timed.validations, whole - _Timed.loops - _Timed.validations


def _print_equality(data: DataSet, budget: Budget) -> None:
    """Compare with Ultralytics' trainer with the settings of a trial, which include a seed for each epoch."""
    document = load("v9").stock.document(len(data.classes))
    with TemporaryDirectory() as folder:
        ours = short_training.train(
            document, budget, data, Path(folder), lambda *_: True, weights=Path(folder) / "weights.pt"
        ).epochs[-1]
    with TemporaryDirectory() as folder:
        theirs = _train_with_ultralytics(data, budget, Path(folder))
    verdict = "equal to the bit" if theirs == ours.map50_95 else "NOT EQUAL"
    print(f"  mAP50-95 of a trial {ours.map50_95:.5f}, of Ultralytics' trainer {theirs:.5f}: {verdict}")


class _UltralyticsTrainer(DetectionTrainer):
    """Ultralytics' trainer in a subclass, to which Ultralytics adds no callbacks for MLflow and the like."""


def _train_with_ultralytics(data: DataSet, budget: Budget, folder: Path) -> float:
    data_file = folder / "data.yaml"
    data_file.write_text(datasets.resolved(data), encoding="utf-8")
    given = {**short_training.arguments(budget, data, folder), "model": "yolov9t.yaml", "data": str(data_file)}
    trainer = _UltralyticsTrainer(overrides=given)
    accuracies: list[float] = []

    def prepare(trainer: Any) -> None:
        for model in (trainer.model, trainer.ema.ema):
            model.to(memory_format=memory_format(trainer.device, model))
        for module in trainer.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = budget.recipe.bn_momentum
        epochs = budget.recipe.average_epochs
        if epochs is not None:
            trainer.ema.decay = partial(decay, len(trainer.train_loader) * epochs)
        groups = [{**group, "fused": True} for group in trainer.optimizer.param_groups]
        trainer.optimizer = optim.AdamW(groups, fused=True)
        trainer._setup_scheduler()  # noqa: SLF001 - of the new optimizer
        trainer.scheduler.last_epoch = -1

    def seed(trainer: Any) -> None:
        short_training.seed_epoch(trainer.train_loader, budget.seed, trainer.epoch)

    def note(trainer: Any) -> None:  # once more after its second validation, of the fused best checkpoint
        accuracies.append(short_training.accuracies(trainer.metrics)[0])

    for event, step in (
        ("on_pretrain_routine_end", prepare),
        ("on_train_epoch_start", seed),
        ("on_fit_epoch_end", note),
    ):
        trainer.add_callback(event, step)
    trainer.train()
    return accuracies[budget.epochs - 1]


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):6.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="an Ultralytics data.yaml")
    parser.add_argument("--sizes", type=int, nargs="*", default=[128, 160])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    main(options.data, options.sizes, options.repeats)
