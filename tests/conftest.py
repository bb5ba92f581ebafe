"""What every test can rely on: no network, quiet third parties, hypothesis without a clock."""

import os

os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_VERBOSE", "false")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from functools import cache

import pytest
import torch
from hypothesis import settings

from search_spaces import SearchSpace, load

# pytest's own configuration has imported torch before: the variable above is for the processes that tests start.
torch.set_num_threads(1)
settings.register_profile("house", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("house")


@pytest.fixture(scope="session")
def space_of() -> Callable[[str], SearchSpace]:
    """A catalog space by name; `v9:c` is the space v9 at scale c."""

    @cache
    def read(name: str) -> SearchSpace:
        space, _, scale = name.partition(":")
        return load(space, scale=scale or None)

    return read
