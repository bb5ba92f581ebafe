"""Trials on a GPU: their scores beside the CPU's, repeats, throughput, and the time beside `yolo train`."""

import math
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics.cfg import get_cfg

from benchmarks.gpu_check import Place, Row
from benchmarks.gpu_operators import median_seconds
from nas.locks import Lock
from nas.workflows.presets import MOST_VALIDATION_IMAGES
from search_spaces import Architecture, build, load
from trials import Budget, Costs, Ending, Outcome, evaluate, machine, weights
from trials.costing import cost
from trials.data import datasets
from trials.devices import CPU
from trials.file_names import WEIGHTS
from trials.recipes import DIGITS_INHERITED, DIGITS_SCRATCH
from trials.torch_devices import computes_bf16, fastest_precision, torch_device

FASTEST = ("plots=False", "save=False", "val=False", "cache=ram", "deterministic=False")
"""Ultralytics' flags that skip what a score does not need."""
_SAME_STEP = 1e-3
"""Relative difference of a loss in float32 on the same batch, with sums in another order."""
_EPOCH = 0.05
"""The same of an epoch's mean loss, whose steps amplify rounding, and whose augmentation draws other numbers."""
_LEARNED = 0.1
"""mAP50-95 from which on scores are worth comparing: two models that have learned nothing have 0 both."""
_MAP = 0.04
"""Difference of mAP50-95: four times that of two seeds, of which three have scored .600, .613 and .610 on a CPU."""


def stock(place: Place) -> Architecture:
    """Return the architecture that is trained: small on a CPU."""
    return load("v5" if place.is_small else "v9").stock


def budget(place: Place, data: Path, *, epochs: int = 2, size: int = 128, batch: int = 16, **more: Any) -> Budget:
    """Return a budget on the device; in the small form of small images, and of two epochs at most."""
    size, batch, epochs = (64, 8, min(epochs, 2)) if place.is_small else (size, batch, epochs)
    sizes = {"epochs": epochs, "image_size": size, "deploy_size": size, "batch": batch}
    return Budget(**{"data": data, "recipe": DIGITS_SCRATCH, "device": place.device, **sizes, **more})


def learned(place: Place) -> Path:
    """Return the weights of a stock model that has learned the data; trained once for all checks."""
    folder = place.folder / "stock"
    with Lock(place.folder / "stock.lock").held():
        if not (folder / WEIGHTS).is_file():
            # Deterministic, since any other training takes the setting of cuBLAS back before it is read (`repeatable`).
            plan = budget(place, place.data(), batch=8, deterministic=True)
            trained(place, plan.model_copy(update={"epochs": 10 if place.is_small else 6}), folder)
    return folder / WEIGHTS


def further(place: Place, **more: Any) -> Budget:
    """Return the budget of a trial that starts from the weights of `learned`."""
    settings = {"epochs": 5, "batch": 8, "recipe": DIGITS_INHERITED, "weights": learned(place)}
    return budget(place, place.data(), **{**settings, **more})


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
    here, there = (_one_loss(place, place.data(), device) for device in (CPU, place.device))
    yield Row.within("loss of one step, same batch, fp32", abs(there - here) / here, _SAME_STEP, note="relative")
    on_cpu = trained(place, further(place, device=CPU))
    yield _has_learned("on the CPU", on_cpu)
    bf16 = ("bf16",) if computes_bf16(place.device) else ()
    for precision in ("fp32", *bf16, *(("fp16",) if place.is_on_gpu else ())):
        on_device = trained(place, further(place, precision=precision))
        differs = abs(_loss(on_device) - _loss(on_cpu)) / _loss(on_cpu)
        yield Row.within(f"loss of the first epoch, {precision}", differs, _EPOCH, note="relative to the CPU")
        yield _has_learned(precision, on_device)
        yield Row.within(f"mAP50-95 beside the CPU's, {precision}", abs(_map(on_device) - _map(on_cpu)), _MAP)
    if not place.is_on_gpu:
        yield Row(what="training in fp16: not on a CPU")


def _has_learned(what: str, outcome: Outcome) -> Row:
    """Return the row of a score that could not be compared if it were near 0."""
    value = _map(outcome)
    return Row(what=f"mAP50-95, {what}", value=value, good=value >= _LEARNED, note=f"at least {_LEARNED}")


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
    """Train the same twice, as a search does; print how far scores and weights lie apart."""
    plan = further(place, precision=fastest_precision(place.device))
    (first, outcome), (second, other) = (_weights_and_outcome(place, plan) for _ in range(2))
    yield Row(what="weights", value=_distance(first, second), note="norm of the difference, relative")
    yield _has_learned(plan.precision, outcome)
    yield Row.within("mAP50-95", abs(_map(outcome) - _map(other)), _MAP)


def repeatable(place: Place) -> Iterator[Row]:
    """Train the same twice with `--deterministic`, and once without."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # as for a worker: read when CUDA starts, so before all else
    plan = further(place, precision=fastest_precision(place.device), deterministic=True)
    (first, outcome), (second, _) = (_weights_and_outcome(place, plan) for _ in range(2))
    yield Row.within("weights of two trials", _distance(first, second), 0.0)
    yield _has_learned("deterministic", outcome)
    usual = trained(place, plan.model_copy(update={"deterministic": False}))
    slower = outcome.epochs[-1].seconds / usual.epochs[-1].seconds
    yield Row(what="its last epoch, of one without", value=slower, note="others ran beside it")


def _weights_and_outcome(place: Place, budget: Budget) -> tuple[torch.Tensor, Outcome]:
    folder = place.make("trial")
    outcome = trained(place, budget, folder)
    state = weights.read(folder / WEIGHTS).state_dict()
    return torch.cat([value.double().flatten() for value in state.values() if value.is_floating_point()]), outcome


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
    validated = len(list((data.parent / "images" / "val").iterdir()))
    seconds = max(0.0, outcome.epochs[-1].seconds - min(epoch.seconds for epoch in outcome.epochs[:-1]))
    note = f"{MOST_VALIDATION_IMAGES} images, the most of a preset, by computation"
    yield Row(what="a validation", value=seconds / validated * MOST_VALIDATION_IMAGES, unit="s", note=note)


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
    number, rounds = (16, (1, 2)) if place.is_small else (512, (1, 2, 4, 8))
    precision = fastest_precision(place.device)
    plan = budget(place, place.data(number), epochs=2 if place.is_small else 4, size=320, precision=precision)
    alone = math.nan
    for workers, found in _train_beside(place, plan, rounds):
        rate = sum(number / seconds for seconds, _ in found)
        alone = rate if workers == 1 else alone
        note = f"{rate / alone:.2f} times one; {sum(taken for _, taken in found):.1f} GiB of the card"
        yield Row(what=f"{workers} trials side by side", value=rate, unit="images/s", note=note)


def _train_beside(place: Place, plan: Budget, rounds: Sequence[int]) -> Iterator[tuple[int, list[tuple[float, float]]]]:
    """Train in some processes at once, then in more; they stay, since each needs seconds to start.

    Yields:
        The number of processes; for each the seconds of an epoch, and the GiB that it has taken of the card.
    """
    context: Any = multiprocessing.get_context("spawn" if place.is_on_gpu else "fork")
    barriers, results = {number: context.Barrier(number) for number in rounds}, context.SimpleQueue()
    arguments = place, plan, barriers, results
    processes = [context.Process(target=_train_one, args=(*arguments, index)) for index in range(max(rounds))]
    for process in processes:
        process.start()
    for number in rounds:
        found: list[tuple[float, float]] = []
        while len(found) < number:
            if not results.empty():
                found.append(results.get())
            elif any(process.exitcode for process in processes):
                raise RuntimeError(f"one of {number} trials side by side failed")
            time.sleep(0.01)
        yield number, found
    for process in processes:
        process.join()


def _train_one(place: Place, plan: Budget, barriers: Mapping[int, Barrier], results: Any, index: int) -> None:
    """Train in each round that has so many processes, with a share of the cores, as workers of a search."""
    datasets.load(plan.data)
    for number, barrier in barriers.items():
        if index >= number:
            continue
        if place.is_on_gpu:
            torch.set_num_threads(max(1, machine.cores() // number))
        barrier.wait(120)
        outcome = trained(place, plan)
        taken = torch.cuda.max_memory_reserved(int(place.device)) / 2**30 if place.is_on_gpu else 0.0
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
