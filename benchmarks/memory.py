"""Growth of a worker's memory: its resident memory after 2, 10, 50, 100 and 200 trials in one process.

    python benchmarks/memory.py [--trials 2,10,50,100,200] [--space v5]
    python benchmarks/memory.py --images my/data.yaml --image-size 320

The trials are those of a study, from the proposal to the record, and as small as possible: 16 digit scenes of 32 px,
one epoch. So memory is measured that grows with the number of trials, not with the data set. Each trial has another
architecture, so that caches by shape or by architecture are measured as well.

With `--images` nothing is trained: images of a data set are read as a training reads them, and the resident memory is
printed while that goes on. Where they do not fit into the free memory, or that of the control group, they are decoded
every time, and memory must not grow.
"""

import argparse
import gc
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_VERBOSE", "false")

import torch

from nas.execution.worker import Worker
from nas.settings import RunSettings, Settings
from nas.study.creation import create
from nas.study.study import Study
from nas.study.study_file import StudyFile
from search_spaces import joined_file, space_file
from trials import Budget, Recipe, machine
from trials.data import datasets, digit_scenes, image_cache
from trials.data.room import most_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", default="2,10,50,100,200")
    parser.add_argument("--space", default="v5")
    parser.add_argument("--images", metavar="DATA")
    parser.add_argument("--image-size", type=int, default=320)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    if arguments.images:
        read_images(arguments.images, arguments.image_size)
        return
    with tempfile.TemporaryDirectory() as folder:
        study = tiny_study(Path(folder), arguments.space)
        print("trials  resident MB  after gc  objects  s/trial")
        done = 0
        for trials in map(int, arguments.trials.split(",")):
            study.set_run(RunSettings(trials=trials))
            began = time.monotonic()
            Worker(study, deadline=float("inf")).run()
            seconds = (time.monotonic() - began) / (trials - done)
            resident, done = resident_mb(), trials
            gc.collect()
            print(f"{trials:6}  {resident:11.0f}  {resident_mb():8.0f}  {len(gc.get_objects()):7}  {seconds:7.2f}")


def read_images(path: str, image_size: int, *, count: int = 3000) -> None:
    """Read images of a data set, and print the resident memory after every thousand."""
    data = datasets.load(path)
    budget = Budget(data=data.path, image_size=image_size)
    arguments: dict[str, Any] = {"stride": 32, "training": True, "root": data.root, "key_points": data.key_points}
    dataset = image_cache.load(data.train, data.classes, image_size, budget.batch, budget.recipe, **arguments)
    size = most_bytes(dataset.ni, image_size) / 1e6
    held = "held in memory" if dataset.ims[0] is not None else "decoded every time"
    free = machine.free_memory()
    print(f"{dataset.ni} images, {size:.0f} MB at {image_size} px, {(free or 0) / 1e6:.0f} MB are free: {held}")
    print("images  resident MB")
    for number in range(count + 1):
        if number % (count // 3) == 0:
            print(f"{number:6}  {resident_mb():11.0f}", flush=True)
        dataset[number * dataset.ni // (count + 1)]


def tiny_study(folder: Path, space_name: str) -> Study:
    """Create a study with the smallest possible trials."""
    space = space_file.load(space_name)
    data = datasets.load(digit_scenes.draw(folder / "scenes", train=16, val=8))
    budget = Budget(data=data.path, epochs=1, image_size=32, deploy_size=32, recipe=Recipe(fliplr=0.0))
    settings = Settings(
        space=space.name,
        scale=space.scale,
        space_hash=space.hash,
        data=str(data.path),
        data_fingerprint=data.fingerprint,
        classes=data.classes,
        budget=budget,
    )
    storage = f"sqlite:///{folder / 'study' / 'study.db'}"
    file = StudyFile(
        name="memory", settings=settings, run=RunSettings(), storage=storage, tracking="sqlite://", version="0"
    )
    return create(folder / "study", file, joined_file.text(space_name))


def resident_mb() -> float:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


if __name__ == "__main__":
    main()
