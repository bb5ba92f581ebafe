"""What every test can rely on: no network, quiet third parties, hypothesis without a clock."""

import os
import sys

os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_VERBOSE", "false")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault(
    "MLFLOW_HTTP_REQUEST_TIMEOUT", "10"
)  # a search sets it, for its process, before MLflow is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("COLUMNS", None)  # of the terminal that the tests are run in, or of pytest-xdist: tables are as wide
os.environ.setdefault("NAS_NO_CACHE", "1")  # or a test that compares two trainings would compare one with itself

import random
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image
from ultralytics.data import base, dataset
from ultralytics.data.dataset import ClassificationDataset
from ultralytics.data.loaders import LoadImagesAndVideos
from ultralytics.engine.model import Model
from ultralytics.engine.results import Results
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.nn import tasks
from ultralytics.utils import LOGGER, YAML, dist

from search_spaces import OPERATORS, SearchSpace, cache_folder, load, parser_hooks
from search_spaces.errors import LatencyError
from search_spaces.operators import modules, user_classes
from trials.data import datasets, digit_scenes
from trials.devices import DeviceProfile
from trials.latency.deployed import Deployed
from trials.latency.measurement import Comparison, Latency
from trials.latency.runtimes import Runtime

# pytest's own configuration has imported torch before: the variable above is for the processes that tests start.
torch.set_num_threads(1)
settings.register_profile("house", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("house")


@pytest.fixture
def guards_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the guards of `nas yolo`, which last for their process, end with the test."""
    for owner, name in (
        *((YAML, "load"), (tasks, "torch_safe_load"), (torch, "load"), (torch, "save")),
        *((Model, "_load"), (Model, "_new")),
        *((base, "check_file_speeds"), (ClassificationDataset, "verify_images")),
        *((LoadImagesAndVideos, name) for name in ("__init__", "_new_video")),
        *((BaseTrainer, "save_model"), (BaseTrainer, "check_resume"), (Results, "save_crop")),
        *((dataset, "load_dataset_cache_file"), (dataset, "save_dataset_cache_file"), (dist, "generate_ddp_file")),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    monkeypatch.setattr(LOGGER, "filters", list(LOGGER.filters))
    monkeypatch.setitem(parser_hooks.PERMITTED, "downloads", value=True)


OWN_OPERATOR = """\
from torch import nn
from search_spaces.operators import Operator, Parameter, SiteKind


class Twice(nn.Sequential):
    pass


TWICE = Operator(
    name="Twice",
    module=Twice,
    parameters=(Parameter(name="kernel", default=1, allowed=(1, 3)),),
    kinds=(SiteKind.CONV,),
    build=lambda site, *, kernel: Twice(
        nn.Conv2d(site.c_in, site.c_out, kernel, padding=kernel // 2), nn.BatchNorm2d(site.c_out), site.activation
    ),
    reference="none, arXiv 0000.00000",
)
"""


FORK = """\
import torch
import torch.nn as nn
import torch.nn.functional as F
from ultralytics.nn.modules.conv import Conv, autopad
from .block import C2f


class EnergyGate(nn.Module):
    def __init__(self, e_lambda=1e-4):
        super().__init__()
        self.activation = nn.Sigmoid()
        self.e_lambda = e_lambda

    def forward(self, x):
        n = x.shape[2] * x.shape[3] - 1
        d = (x - x.mean(dim=[2, 3], keepdim=True)).pow(2)
        y = d / (4 * (d.sum(dim=[2, 3], keepdim=True) / n + self.e_lambda)) + 0.5
        return x * self.activation(y)


class SpatialChannelGate(nn.Module):
    def __init__(self, channels, reduction=16, kernel_size=7):
        super().__init__()
        self.fc = nn.Sequential(
            nn.Conv2d(channels, channels // reduction, 1), nn.ReLU(), nn.Conv2d(channels // reduction, channels, 1)
        )
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x):
        x = x * torch.sigmoid(self.fc(F.adaptive_avg_pool2d(x, 1)))
        return x * torch.sigmoid(self.conv(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)))


class PartialBlock(nn.Module):
    def __init__(self, dim, part=4):
        super().__init__()
        self.touched = dim // part
        self.conv = nn.Conv2d(self.touched, self.touched, 3, padding=1, bias=False)
        self.mlp = nn.Sequential(Conv(dim, dim * 2, 1), nn.Conv2d(dim * 2, dim, 1, bias=False))

    def forward(self, x):
        return x + self.mlp(torch.cat((self.conv(x[:, : self.touched]), x[:, self.touched :]), 1))


class C2f_Partial(C2f):
    def __init__(self, c1, c2, n=1, shortcut=False, g=1, e=0.5):
        super().__init__(c1, c2, n, shortcut, g, e)
        self.m = nn.ModuleList(PartialBlock(self.c) for _ in range(n))


class Weighted_Concat(nn.Module):
    def __init__(self, dimension=1):
        super().__init__()
        self.d = dimension
        self.w = nn.Parameter(torch.ones(2, dtype=torch.float32), requires_grad=True)

    def forward(self, x):
        w = self.w / (torch.sum(self.w, dim=0) + 1e-4)
        return torch.cat([w[0] * x[0], w[1] * x[1]], self.d)


class StackedDown(nn.Module):
    def __init__(self, inc, ouc):
        super().__init__()
        self.conv = Conv(inc * 4, ouc, 3)

    def forward(self, x):
        return self.conv(
            torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)
        )
"""
"""A fork's file, as its authors write them: an attention, a block with channels, a fusion, a downsampling layer."""

FORK_MODEL = """\
nc: 2
scales:
  n: [0.33, 0.25, 1024]
  s: [0.33, 0.50, 1024]
backbone:
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 1, StackedDown, [128]]
  - [-1, 1, StackedDown, [256]]
  - [-1, 6, C2f_Partial, [256, True]]
  - [-1, 1, Conv, [512, 3, 2]]
  - [-1, 1, EnergyGate, []]
  - [-1, 1, SPPF, [512, 5]]
head:
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 3], 1, Weighted_Concat, [1]]
  - [-1, 3, C2f, [256]]
  - [-1, 1, SpatialChannelGate, [256]]
  - [[10, 6], 1, Detect, [nc]]
"""

FORK_SPACE = """\
name: forked
base: mine.yaml
scale: n
modules: [fork.py]
insert:
  - {after: 6, choices: {EnergyGate: {}, SpatialChannelGate: {reduction: [8, 16]}}}
slots:
  - {at: {layers: [9]}, choices: {UIB: {}}}
"""


@pytest.fixture
def fork(tmp_path: Path) -> Path:
    """A folder with a fork's `fork.py`, its model `mine.yaml`, and a space around it, `space.yaml`."""
    for name, text in (("fork.py", FORK), ("mine.yaml", FORK_MODEL), ("space.yaml", FORK_SPACE)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.fixture(autouse=True, scope="session")
def nas_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of the test run's own, which all its processes share: the user's is neither read nor written."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "nas_cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAS_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def settings_end_with_their_test() -> Iterator[None]:
    """A test that leaves a setting of ours or of MLflow's behind fails, in the place of a later one of its process.

    Those that importing `nas.tracking.mlflow_runs` makes stay with the module; a test that tracks may be the first.
    """
    before, tracked = _settings(), _MLFLOW_RUNS in sys.modules
    yield
    left = _settings()
    if not tracked and (module := sys.modules.get(_MLFLOW_RUNS)) is not None:
        before = {name: left[name] for name in module.SETTLED if name in left} | before
    for name in left.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)
    assert left == before


_MLFLOW_RUNS = "nas.tracking.mlflow_runs"


def _settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(("NAS_", "MLFLOW_", "_MLFLOW_"))}


@contextmanager
def _restored_vocabulary() -> Iterator[None]:
    before, loaded = dict(OPERATORS), dict(user_classes.LOADED)
    yield
    OPERATORS.clear()
    OPERATORS.update(before)
    user_classes.LOADED.clear()
    user_classes.LOADED.update(loaded)


@pytest.fixture(autouse=True)
def vocabulary() -> Iterator[None]:
    """What a test adds to it is gone after the test."""
    with _restored_vocabulary():
        yield


@pytest.fixture(scope="module")
def vocabulary_of_module() -> Iterator[None]:
    """What fixtures of a module add to it is gone after its tests; such fixtures ask for this one."""
    with _restored_vocabulary():
        yield


GOLDEN = Path(__file__).parent / "golden"
ORIGINS = {"2026-11": "/tmp/golden", "2026-11-holdout": "/tmp/golden2"}  # noqa: S108 - where the archives were made


@pytest.fixture(scope="session")
def extract_golden() -> Callable[[str, Path], Path]:
    """Extract an archive of an older version into a folder, with addresses as if it had been made there."""

    def extract(name: str, into: Path) -> Path:
        with tarfile.open(GOLDEN / f"{name}.tar.xz") as archive:
            archive.extractall(into, filter="data")
        folder = into / name
        for path in (path for pattern in ("*.json", "*.yaml") for path in folder.rglob(pattern)):
            text = path.read_text(encoding="utf-8").replace(ORIGINS[name], str(folder))
            path.write_text(text, encoding="utf-8")
        for place in (folder / "cache", cache_folder.path()):  # whoever made them has named their operators
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("NAS_CACHE", str(place))
                for path in folder.rglob("modules/*.py"):
                    modules.trust(modules.read(path))
        return folder

    return extract


@pytest.fixture(scope="session")
def own_operator() -> str:
    """The text of a user's file with an operator, `Twice`, which takes a `kernel`."""
    return OWN_OPERATOR


@pytest.fixture(scope="session")
def space_of() -> Callable[[str], SearchSpace]:
    """A catalog space by name; `v9:c` is the space v9 at scale c."""

    @cache
    def read(name: str) -> SearchSpace:
        space, _, scale = name.partition(":")
        return load(space, scale=scale or None)

    return read


class Formula(Runtime):
    """In the place of a device: a layer takes 0.01 ms and a nanosecond for each parameter, in a model a half more.

    Attributes:
        asked: what was timed, in order.
        refuses: a word; what is told with it does not run.
        interrupted_after: so many comparisons somebody presses Ctrl-C.
    """

    def __init__(self, name: str = "formula", *, threads: int = 1, version: str = "1") -> None:
        self.profile = DeviceProfile(
            name=name, processor="none", runtime="formula", version=version, threads=threads, torch="2"
        )
        self.asked: list[str] = []
        self.refuses = ""
        self.interrupted_after = -1

    def measure(self, deployed: Deployed) -> Latency:
        self.asked.append(deployed.description)
        if self.refuses and self.refuses in deployed.description:
            raise LatencyError(f"inference of {deployed.description} failed: no such operation")
        milliseconds = milliseconds_of(deployed)
        return Latency(median_ms=milliseconds, spread_ms=milliseconds / 20, p90_ms=milliseconds * 1.1, iterations=20)

    def compare(self, candidate: Deployed, reference: Deployed) -> Comparison:
        if len(self.asked) == self.interrupted_after:
            raise KeyboardInterrupt
        measured, other = self.measure(candidate), milliseconds_of(reference)
        slower = Latency(
            median_ms=other * 2, spread_ms=0, p90_ms=other * 2, iterations=30
        )  # a machine at half its speed
        measured = Latency(
            median_ms=measured.median_ms * 2,
            spread_ms=measured.spread_ms * 2,
            p90_ms=measured.p90_ms * 2,
            iterations=20,
        )
        return Comparison(candidate=measured, reference=slower, ratio=measured.median_ms / slower.median_ms, drift=0.01)


START_MS = 0.05


def milliseconds_of(deployed: Deployed) -> float:
    params = sum(parameter.numel() for parameter in deployed.module.parameters())
    layers = getattr(deployed.module, "model", None)  # of a whole model
    if isinstance(deployed.module, torch.nn.ReLU):
        return START_MS
    return START_MS + (params / 1e6 + 0.01 if layers is None else 1.5 * (params / 1e6 + 0.01 * len(layers)))


@pytest.fixture
def no_module_is_trusted(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Trust no operator file of another test, and forget those that a test loaded: their text would be trusted."""
    modules = set(sys.modules)
    monkeypatch.setenv("NAS_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    for name in set(sys.modules) - modules:
        if name.startswith("nas_user_"):
            del sys.modules[name]


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> datasets.DataSet:
    """Sixteen digit scenes to train on and eight to validate on: two batches an epoch."""
    return datasets.load(digit_scenes.draw(tmp_path_factory.mktemp("scenes"), train=16, val=8))


@pytest.fixture(scope="session")
def formula() -> Callable[..., Formula]:
    """A runtime whose latencies are a start and a sum over layers, in no time."""
    return Formula


@pytest.fixture(scope="session")
def write_scenes() -> Callable[..., Path]:
    """Return a function that writes a data set of bright squares and bars on noise, and returns its data.yaml."""
    return _write_scenes


def _write_scenes(folder: Path, *, train: int = 40, val: int = 20, side: int = 32) -> Path:
    draw = random.Random(0)
    for split, count in (("train", train), ("val", val)):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for number in range(count):
            pixels = np.asarray([draw.randrange(90) for _ in range(side * side * 3)], np.uint8).reshape(side, side, 3)
            rows = []
            for shape in sorted(draw.sample((0, 1), k=draw.choice((0, 1, 1, 2)))):
                width, height = (8, 8) if shape == 0 else (16, 4)
                left, top = draw.randrange(side - width), draw.randrange(side - height)
                pixels[top : top + height, left : left + width] = 255
                center = (left + width / 2) / side, (top + height / 2) / side
                rows.append(f"{shape} {center[0]} {center[1]} {width / side} {height / side}\n")
            Image.fromarray(pixels).save(folder / "images" / split / f"{number:03}.png")
            (folder / "labels" / split / f"{number:03}.txt").write_text("".join(rows))
    file = folder / "data.yaml"
    file.write_text("train: images/train\nval: images/val\nnames: [square, bar]\n")
    return file
