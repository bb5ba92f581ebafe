import hashlib
from collections.abc import Callable
from functools import partial
from itertools import product
from math import exp
from pathlib import Path

import pytest

from nas.settings import RunSettings, Settings
from nas.study.creation import create
from nas.study.folders import default_storage
from nas.study.study import Study
from nas.study.study_file import StudyFile
from search_spaces import Architecture, SearchSpace, space_file
from trials import Budget, Costs, Ending, Epoch, Limits, Outcome, Scores
from trials.data.unseen_images import JudgingImages

SPACE = """\
name: small
base: yolov9{scale}.yaml
scale: t
slots:
  - at: {layers: [4, 6]}
    choices:
      UIB: {start_kernel: [0, 3]}
      DynamicConv: {kernels: [2, 4]}
  - at: {layers: [10]}
    choices:
      DySample: {style: [lp, pl]}
"""
EPOCHS = 3


@pytest.fixture(scope="session")
def space(tmp_path_factory: pytest.TempPathFactory) -> SearchSpace:
    path = tmp_path_factory.mktemp("space") / "small.yaml"
    path.write_text(SPACE)
    return space_file.load(path)


@pytest.fixture
def make_study(tmp_path: Path, study_maker: Callable[[Path], Callable[..., Study]]) -> Callable[..., Study]:
    """Make a study on the small space, with changed settings and with start architectures."""
    return study_maker(tmp_path)


@pytest.fixture(scope="session")
def study_maker(space: SearchSpace) -> Callable[[Path], Callable[..., Study]]:
    """Return a function that returns, for a folder, the function of `make_study`."""

    def maker(root: Path) -> Callable[..., Study]:
        return partial(_make_study, root, space)

    return maker


def _make_study(
    root: Path,
    space: SearchSpace,
    name: str = "small",
    *,
    trials: int = 6,
    start: str = "",
    storage: str | None = None,
    tracking: str = "sqlite://",
    **changes: object,
) -> Study:
    settings = Settings.model_validate(
        {
            "space": space.name,
            "scale": space.scale,
            "space_hash": space.hash,
            "data": "digits",
            "data_fingerprint": "0",
            "classes": ("a", "b"),
            "budget": Budget(data=root / "data.yaml", epochs=EPOCHS, deploy_size=64),
            **changes,
        }
    )
    folder = root / "runs" / name
    file = StudyFile(
        name=name,
        settings=settings,
        run=RunSettings(trials=trials),
        storage=storage or default_storage(folder),
        tracking=tracking,
        version="0",
    )
    return create(folder, file, SPACE + start)


@pytest.fixture(scope="session")
def score() -> Callable[..., Outcome]:
    """Stand-in for `trials.evaluate`: a formula that takes milliseconds."""
    return _score


def formula(architecture: Architecture) -> tuple[float, float]:
    """Return an accuracy and a cost in GFLOPs that depend on the fingerprint alone."""
    digest = hashlib.sha256(architecture.fingerprint.encode()).digest()
    return digest[0] / 256, 1 + digest[1] / 256


def _score(
    architecture: Architecture,
    budget: Budget,
    folder: Path,
    go_on: Callable[[int, Epoch], bool],
    *,
    limits: Limits,
    costs: Costs | None,
    judging: JudgingImages | None = None,  # noqa: ARG001
) -> Outcome:
    accuracy, gflops = formula(architecture)
    costs = Costs(params=1000, gflops=gflops, latency_ms=1.0, latency_spread_ms=0.1, latency_steady=True)
    if limits.latency_ms is not None and limits.latency_ms < 1.0:
        return Outcome(architecture=architecture, ending=Ending.OVER_LIMIT, costs=costs, detail="over")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.yaml").write_text(architecture.to_yaml(2))
    (folder / "weights.pt").write_bytes(b"weights")
    epochs = []
    for number in range(1, budget.epochs + 1):
        reached = accuracy * number / budget.epochs if number in {*budget.rungs, budget.epochs} else None
        losses = {"box_loss": 1 / number}
        epochs.append(Epoch(epoch=number, losses=losses, map50_95=reached, map50=reached, seconds=0.1))
        if not go_on(number, epochs[-1]) and number < budget.epochs:
            return Outcome(architecture=architecture, ending=Ending.STOPPED, costs=costs, epochs=tuple(epochs))
    scores = Scores(map50_95=accuracy, map50=accuracy, costs=costs)
    return Outcome(
        architecture=architecture, ending=Ending.FINISHED, costs=costs, scores=scores, epochs=tuple(epochs), seconds=0.3
    )


RESOLUTIONS = (160, 224, 288, 352, 416, 480)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Table in YOLOBench's format, from a formula: larger models are better, with diminishing returns, and slower."""
    lines = ["model_name,precision,recall,mAP_0.5,mAP_0.5:0.95,pi4_ort_latency,ov_latency"]
    shapes = product(("yolo5", "yolo7", "yolo6s-"), ("33", "67", "1"), ("25", "5", "75", "1"), RESOLUTIONS)
    for family, depth, width, resolution in shapes:
        size = _share(depth) ** 0.5 * _share(width) ** 1.5 * (resolution / 480) ** 2
        better = {"yolo5": 1.0, "yolo7": 1.1, "yolo6s-": 0.9}[family]
        accuracy = 0.7 * better * (1 - exp(-3 * size**0.4))
        latency = 0.001 + 0.1 * size * (1.3 if family == "yolo7" else 1.0)
        lines.append(f"{family}d{depth}w{width}_{resolution},0.8,0.7,0.75,{accuracy:.5f},{2 * latency},{latency}")
    path = tmp_path_factory.mktemp("trained") / "trained.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _share(text: str) -> float:
    return 1.0 if text == "1" else int(text.ljust(2, "0")) / 100
