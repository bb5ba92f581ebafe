"""What every test can rely on: no network, quiet third parties, hypothesis without a clock."""

import os

os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_VERBOSE", "false")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from search_spaces import SearchSpace, load

# pytest's own configuration has imported torch before: the variable above is for the processes that tests start.
torch.set_num_threads(1)
settings.register_profile("house", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("house")


@pytest.fixture(autouse=True, scope="session")
def nas_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of the test run's own, which all its processes share: the user's is neither read nor written."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "nas_cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAS_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def space_of() -> Callable[[str], SearchSpace]:
    """A catalog space by name; `v9:c` is the space v9 at scale c."""

    @cache
    def read(name: str) -> SearchSpace:
        space, _, scale = name.partition(":")
        return load(space, scale=scale or None)

    return read
