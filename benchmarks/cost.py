"""How fast and how complete costs are: this package's table against building the model and asking Ultralytics.

    python benchmarks/cost.py [SPACE] [ARCHITECTURES]

Both sides cost the same random architectures in the same process, none of them seen before: first the table all of
them, as a sampler does, then the other side; the ratio is taken per architecture. What Ultralytics' `get_flops`
overlooks is printed as a share: it cannot see what an operator computes in its own `forward`, and counts batch norm and
activations, which the table does not.
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
    filled = time.perf_counter() - began
    rng = random.Random(0)
    architectures = [space.sample(rng) for _ in range(count)]
    ours = [_seconds(partial(_priced, table, architecture)) for architecture in architectures]
    ratios, seen = [], []
    for architecture, own in zip(architectures, ours, strict=True):
        gflops = table.cost(architecture).gflops
        began = time.perf_counter()
        model = build.model(architecture.document(CLASSES), CLASSES)
        theirs_gflops = get_flops(model, IMAGE_SIZE)
        theirs = time.perf_counter() - began
        ratios.append(theirs / own)
        seen.append(theirs_gflops / gflops)
        print(f"{architecture.fingerprint}  {gflops:7.3f}  {theirs_gflops:7.3f}  {own * 1e6:8.0f} us  {theirs:6.2f} s")
    low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
    print(f"filling the table, once: {filled:.1f} s for {sum(len(slot.choices) for slot in space.slots)} choices")
    print(f"time of building and get_flops / time of the warm table: median {middle:,.0f} ({low:,.0f} to {high:,.0f})")
    print(f"get_flops as built / ours deployed: {min(seen):.3f} to {max(seen):.3f}")


def _priced(table: CostTable, architecture: Architecture) -> float:
    return table.cost(architecture).gflops


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "v9", int(sys.argv[2]) if len(sys.argv) > 2 else 10)
