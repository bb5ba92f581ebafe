"""Speed and completeness of costs: this package's table, compared with building the model and `get_flops`.

    python benchmarks/cost.py [SPACE] [ARCHITECTURES]

Both count the same new random architectures in one process: first the table all of them, as in a search, then
Ultralytics' `get_flops`; ratios are per architecture. The ratio of GFLOPs shows what `get_flops` counts differently: it
misses the products of an operator's `forward`, and counts batch norm and activations, which the table does not.
"""

import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_VERBOSE", "false")

from ultralytics.utils.torch_utils import get_flops

from search_spaces import Architecture, build, load
from trials.costing.cost import CostTable

CLASSES, IMAGE_SIZE = 80, 640


def main(name: str, count: int) -> None:
    space = load(name)
    began = time.perf_counter()
    table = CostTable(space, CLASSES, IMAGE_SIZE)
    for slot in space.slots:
        for choice in slot.choices:
            table.layer(slot.layer, choice)
    filling = time.perf_counter() - began
    rng = random.Random(0)
    architectures = [space.sample(rng) for _ in range(count)]
    ours = [_seconds(partial(_gflops, table, architecture)) for architecture in architectures]
    time_ratios, gflops_ratios = [], []
    for architecture, ours_seconds in zip(architectures, ours, strict=True):
        gflops = table.cost(architecture).gflops
        began = time.perf_counter()
        model = build.model(architecture.document(CLASSES), CLASSES)
        theirs_gflops = get_flops(model, IMAGE_SIZE)
        theirs_seconds = time.perf_counter() - began
        time_ratios.append(theirs_seconds / ours_seconds)
        gflops_ratios.append(theirs_gflops / gflops)
        times = f"{ours_seconds * 1e6:8.0f} us  {theirs_seconds:6.2f} s"
        print(f"{architecture.fingerprint}  {gflops:7.3f}  {theirs_gflops:7.3f}  {times}")
    low, middle, high = min(time_ratios), statistics.median(time_ratios), max(time_ratios)
    print(f"filling the table, once: {filling:.1f} s for {sum(len(slot.choices) for slot in space.slots)} choices")
    print(f"time of building and get_flops / time of the warm table: median {middle:,.0f} ({low:,.0f} to {high:,.0f})")
    print(f"get_flops as built / ours deployed: {min(gflops_ratios):.3f} to {max(gflops_ratios):.3f}")


def _gflops(table: CostTable, architecture: Architecture) -> float:
    return table.cost(architecture).gflops


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "v9", int(sys.argv[2]) if len(sys.argv) > 2 else 10)
