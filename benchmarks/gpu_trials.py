"""Trials on a GPU: their scores beside the CPU's, repeats, throughput, and the time beside `yolo train`."""

import math
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics.cfg import get_cfg

from benchmarks.gpu_check import Place, Row
from benchmarks.gpu_operators import median_seconds
from search_spaces import Architecture, build, load
from trials import Budget, Costs, Ending, Outcome, evaluate, weights
from trials.costing import cost
from trials.data import datasets
from trials.devices import CPU
from trials.file_names import WEIGHTS
from trials.recipes import DIGITS_SCRATCH, NOISE_SCRATCH
from trials.torch_devices import computes_bf16, torch_device

FASTEST = ("plots=False", "save=False", "val=False", "cache=ram", "deterministic=False")
"""Ultralytics' flags that skip what a score does not need."""
_SAME_STEP = 1e-3
"""Relative difference of a loss in float32 on the same batch, with sums in another order."""
_EPOCH = 0.05
"""The same of an epoch's mean loss, whose steps amplify rounding, and whose augmentation draws other numbers."""


def stock(place: Place) -> Architecture:
    """Return the architecture that is trained: small on a CPU."""
    return load("v5" if place.is_small else "v9").stock


def budget(place: Place, data: Path, *, epochs: int = 2, size: int = 128, batch: int = 16, **more: Any) -> Budget:
    """Return a budget on the device; of small images, and of two epochs at most, on a CPU."""
    size, batch, epochs = (64, 8, min(epochs, 2)) if place.is_small else (size, batch, epochs)
    sizes = {"image_size": size, "deploy_size": size, "batch": batch}
    return Budget(data=data, epochs=epochs, recipe=DIGITS_SCRATCH, **{**sizes, "device": place.device, **more})


def trained(place: Place, budget: Budget, folder: Path | None = None) -> Outcome:
    """Train the stock model; its latency is not measured.

    Raises:
        RuntimeError: it did not finish.
    """
    architecture, classes = stock(place), len(datasets.load(budget.data).classes)
    counted = cost.measure(architecture.document(classes), classes, budget.deploy_size)
    costs = Costs(params=counted.params, gflops=counted.gflops)
    outcome = evaluate(architecture, budget, folder or place.make("trial"), lambda *_: True, costs=costs)
    if outcome.ending is not Ending.FINISHED:
        raise RuntimeError(f"{outcome.ending}: {outcome.detail}")
    return outcome


def _map(outcome: Outcome) -> float:
    if outcome.scores is None:
        raise RuntimeError("a finished trial without scores")
    return outcome.scores.map50_95


def _loss(outcome: Outcome, epoch: int = 0) -> float:
    return sum(outcome.epochs[epoch].losses.values())


def score(place: Place) -> Iterator[Row]:
    """Compare the same step, then the same trial, on the device and on the CPU."""
    data = place.data()
    here, there = (_one_loss(place, data, device) for device in (CPU, place.device))
    yield Row.within("loss of one step, same batch, fp32", abs(there - here) / here, _SAME_STEP, note="relative")
    on_cpu = trained(place, budget(place, data, device=CPU))
    for precision in ("fp32", "bf16") if computes_bf16(place.device) else ("fp32",):
        on_device = trained(place, budget(place, data, precision=precision))
        differs = abs(_loss(on_device) - _loss(on_cpu)) / _loss(on_cpu)
        yield Row.within(f"loss of the first epoch, {precision}", differs, _EPOCH, note="relative to the CPU")
        differs = abs(_map(on_device) - _map(on_cpu))
        yield Row.within(f"mAP50-95 after 2 epochs, {precision}", differs, 4 * NOISE_SCRATCH, note="4 sd of repeats")


def _one_loss(place: Place, data: Path, device: str) -> float:
    """Return the loss of a batch of random images with random boxes, the same on every device."""
    torch.backends.cudnn.allow_tf32 = False
    model, images = _model_and_batch(place, len(datasets.load(data).classes), torch_device(device))
    with torch.no_grad():
        return float(model(images)[0].sum())


def _model_and_batch(
    place: Place, classes: int, device: torch.device, size: int = 128, batch: int = 16
) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    size, batch = (64, 8) if place.is_small else (size, batch)
    torch.manual_seed(0)
    model = build.model(stock(place).document(classes), classes)
    model.args = get_cfg()
    images = torch.rand(batch, 3, size, size)
    labeled = {
        "img": images.contiguous(memory_format=torch.channels_last),
        "batch_idx": torch.arange(batch).repeat_interleave(4).float(),
        "cls": torch.zeros(batch * 4, 1),
        "bboxes": torch.rand(batch * 4, 4) * 0.25 + 0.25,
    }
    model.train().to(device, memory_format=torch.channels_last)
    return model, {name: value.to(device) for name, value in labeled.items()}


def twice(place: Place) -> Iterator[Row]:
    """Train the same twice; print how far scores and weights lie apart."""
    data = place.data()
    first, second = (_weights_and_map(place, budget(place, data)) for _ in range(2))
    distance = _distance(first[0], second[0])
    yield Row(what="same trial twice: weights", value=distance, note="norm of the difference, relative")
    yield Row.within("same trial twice: mAP50-95", abs(first[1] - second[1]), 4 * NOISE_SCRATCH)
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    plan = budget(place, data, deterministic=True)
    first, second = (_weights_and_map(place, plan) for _ in range(2))
    yield Row.within("the same with --deterministic: weights", _distance(first[0], second[0]), 0.0)


def _weights_and_map(place: Place, budget: Budget) -> tuple[torch.Tensor, float]:
    folder = place.make("trial")
    outcome = trained(place, budget, folder)
    state = weights.read(folder / WEIGHTS).state_dict()
    return torch.cat([value.double().flatten() for value in state.values() if value.is_floating_point()]), _map(outcome)


def _distance(first: torch.Tensor, second: torch.Tensor) -> float:
    return ((first - second).norm() / first.norm()).item()


def images(place: Place) -> Iterator[Row]:
    """Compare the images a second of a trial's epoch with those of the bare training step."""
    device, number = torch_device(place.device), 16 if place.is_small else 1024
    size, batch = 320, 32
    data, precision = place.data(number), "bf16" if computes_bf16(place.device) else "fp32"
    bare = _bare_step_seconds(place, len(datasets.load(data).classes), device, size, batch)
    bare_rate = (8 if place.is_small else batch) / bare
    yield Row(what=f"bare training step, {precision}", value=bare_rate, unit="images/s")
    outcome = trained(place, budget(place, data, epochs=3, size=size, batch=batch, precision=precision))
    rate = number / min(epoch.seconds for epoch in outcome.epochs[:-1])  # the last one is validated
    yield Row(what=f"a trial's epoch, {precision}", value=rate, unit="images/s", note=f"{rate / bare_rate:.0%} of bare")


def _bare_step_seconds(place: Place, classes: int, device: torch.device, size: int, batch: int) -> float:
    """Return the time of forward, loss, backward and optimizer step, with images that are on the device."""
    model, labeled = _model_and_batch(place, classes, device, size, batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    precision = torch.autocast(device.type, dtype=torch.bfloat16, enabled=computes_bf16(place.device))

    def step() -> None:
        with precision:
            loss = model(labeled)[0]
        loss.sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return median_seconds(step, device, calls=3 if place.is_small else 20)


def beside(place: Place) -> Iterator[Row]:
    """Train on one card with several processes at once; print all their images a second."""
    number = 16 if place.is_small else 512
    data = place.data(number)
    plan = budget(place, data, epochs=2 if place.is_small else 4, size=320)
    alone = math.nan
    for workers in (1, 2) if place.is_small else (1, 2, 4, 8):
        seconds, gigabytes = _train_beside(place, plan, workers)
        rate = sum(number / each for each in seconds)
        alone = rate if workers == 1 else alone
        note = f"{rate / alone:.2f} times one; {gigabytes:.1f} GiB of the card"
        yield Row(what=f"{workers} trials side by side", value=rate, unit="images/s", note=note)


def _train_beside(place: Place, plan: Budget, workers: int) -> tuple[list[float], float]:
    """Return the seconds of an epoch in each process, and the memory that all take on the card, in GiB."""
    context: Any = multiprocessing.get_context("fork" if place.is_small else "spawn")
    ready, results = context.Barrier(workers), context.SimpleQueue()
    processes = [context.Process(target=_train_one, args=(place, plan, ready, results)) for _ in range(workers)]
    for process in processes:
        process.start()
    found: list[tuple[float, float]] = []
    while len(found) < workers:
        if not results.empty():
            found.append(results.get())
        elif any(process.exitcode for process in processes):
            raise RuntimeError(f"one of {workers} trials side by side failed")
        time.sleep(0.05)
    for process in processes:
        process.join()
    return [seconds for seconds, _ in found], sum(taken for _, taken in found)


def _train_one(place: Place, plan: Budget, ready: Barrier, results: Any) -> None:
    datasets.load(plan.data)
    ready.wait(60)
    outcome = trained(place, plan)
    taken = 0.0 if place.is_small else torch.cuda.max_memory_reserved(int(place.device)) / 2**30
    middle = outcome.epochs[1:-1] or outcome.epochs[:1]  # the first one warms up, the last one is validated
    results.put((min(epoch.seconds for epoch in middle), taken))


def yolo(place: Place) -> Iterator[Row]:
    """Compare the wall time of a trial with that of `yolo train`, with its defaults and with its fastest flags."""
    data, epochs = place.data(), 1 if place.is_small else 3
    plan = budget(place, data, epochs=epochs, size=320)
    trained(place, plan)  # imports and decoding: once for a worker
    began = time.perf_counter()
    trained(place, plan)
    ours = time.perf_counter() - began
    yield Row(what=f"trial of {epochs} epochs, in a worker", value=ours, unit="s")
    ways = {"its fastest flags": FASTEST} if place.is_small else {"its defaults": (), "its fastest flags": FASTEST}
    for name, flags in ways.items():
        theirs = _yolo_seconds(place, plan, flags)
        yield Row(what=f"yolo train, {name}", value=theirs, unit="s", note=f"a trial takes {ours / theirs:.2f} of it")


def _yolo_seconds(place: Place, plan: Budget, flags: tuple[str, ...]) -> float:
    folder = place.make("yolo")
    data_file = folder / "data.yaml"
    data_file.write_text(datasets.resolved(datasets.load(plan.data)), encoding="utf-8")
    model = "yolov5n.yaml" if place.is_small else "yolov9t.yaml"
    settings = {"model": model, "data": data_file, "epochs": plan.epochs, "imgsz": plan.image_size}
    settings |= {"batch": plan.batch, "device": plan.device, "project": folder}
    command = [sys.executable, "-c", "from ultralytics.cfg import entrypoint; entrypoint()", "train"]
    given = [f"{name}={value}" for name, value in settings.items()]
    began = time.perf_counter()
    done = subprocess.run([*command, *given, *flags], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"yolo train: {done.stderr.strip().splitlines()[-1:]}")
    return time.perf_counter() - began
