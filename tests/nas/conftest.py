import hashlib
import os
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import uuid
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial, wraps
from itertools import product
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.storages import RDBStorage

from nas.cli import activity
from nas.settings import RunSettings, Settings
from nas.study import storage as storages
from nas.study.creation import create
from nas.study.folders import default_storage
from nas.study.named_addresses import remember_both
from nas.study.server_connections import with_server_timeouts
from nas.study.study import Study
from nas.study.study_file import StudyFile
from nas.workflows import timing
from nas.workflows.timing_process import ProcessTimes
from search_spaces import Architecture, JoinedSpace, SearchSpace, joined_file, space_file
from search_spaces.yaml_text import parse_yaml
from trials import Budget, Costs, Ending, Epoch, Limits, Outcome, Scores
from trials.accuracy.judged import Judged
from trials.accuracy.matches import Matches
from trials.accuracy.resampling import RESAMPLES
from trials.data.unseen_images import JudgingImages
from trials.scores import Accuracy
from trials.training.timed_training import TrainingTimes

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
JOINED = """\
name: edge
members:
  - name: eight
    base: yolov8{scale}.yaml
    scale: n
    slots:
      - at: {layers: [4]}
        choices: {UIB: {start_kernel: [0, 3]}, DynamicConv: {kernels: [2, 4]}}
  - name: nine
    base: yolov9{scale}.yaml
    scale: t
    slots:
      - at: {layers: [4]}
        choices: {UIB: {start_kernel: [0, 3]}, DynamicConv: {kernels: [2, 4]}}
      - at: {layers: [10]}
        choices: {DySample: {style: [lp, pl]}}
"""
EPOCHS = 3


@pytest.fixture(autouse=True, scope="session")
def patient_progress() -> Iterator[None]:
    """Tests compare what commands print: lines about slow work would depend on the machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(activity, "SECONDS", (600.0, 600.0))
        yield


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[Path, Any]]:
    """Read every file of a folder: the rows of a database, the bytes of all else.

    SQLite moves rows from its log to its file whenever a last connection closes, so that the bytes of a database
    may change though nobody wrote to it.
    """

    def rows_or_bytes(path: Path) -> list[str] | bytes:
        with closing(sqlite3.connect(path)) as database:
            try:
                return list(database.iterdump())
            except sqlite3.DatabaseError:  # half of a database
                return path.read_bytes()

    def reading(folder: Path) -> dict[Path, Any]:
        files = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(("-wal", "-shm"))]
        return {path: rows_or_bytes(path) if path.suffix == ".db" else path.read_bytes() for path in files}

    return reading


@pytest.fixture(autouse=True, scope="session")
def real_timing() -> Iterator[Callable[..., ProcessTimes]]:
    """Time no trainings for the plans of searches; the function that does."""
    training = TrainingTimes(
        step=0.1,
        epoch=0.1,
        image=0.1,
        start=0.1,
        end=0.1,
        loading=0.1,
        first_validation=0.1,
        train_images=10,
        val_images=10,
        weights_bytes=10,
        checkpoint_bytes=10,
    )
    times = ProcessTimes(start=1.0, trainings=(training,) * 4, problems={}, latency=0.0, memory=10, gpu_memory=0)
    real = timing._measure
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "_measure", lambda *_: times)
        yield real


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
    remember_both(file, folder)
    return create(folder, file, SPACE + start)


@pytest.fixture(scope="session")
def joined() -> JoinedSpace:
    space = joined_file.parse(parse_yaml(JOINED))
    assert isinstance(space, JoinedSpace)
    return space


@pytest.fixture
def make_joined(tmp_path: Path, joined: JoinedSpace) -> Callable[..., Study]:
    """Make a study of two members whose candidates start from the stock model of their member."""

    def making(name: str = "edge", *, trials: int = 8, storage: str | None = None, **changes: object) -> Study:
        budget = Budget(data=tmp_path / "data.yaml", epochs=3, deploy_size=64)
        fields = {
            "space": joined.name,
            "scale": joined.scale,
            "space_hash": joined.hash,
            "members": joined.member_names,
            "data": "digits",
            "data_fingerprint": "0",
            "classes": ("a", "b"),
            "base": budget.model_copy(update={"epochs": 5}),
            "budget": budget,
        }
        folder = tmp_path / "runs" / name
        file = StudyFile(
            name=name,
            settings=Settings.model_validate({**fields, **changes}),
            run=RunSettings(trials=trials),
            storage=storage or default_storage(folder),
            tracking="sqlite://",
            version="0",
        )
        remember_both(file, folder)
        return create(folder, file, JOINED)

    return making


@pytest.fixture(scope="session")
def track_in() -> Callable[[Study, str], None]:
    """Return a function that lets a study name another MLflow, as if its user had."""

    def name(study: Study, uri: str) -> None:
        study.set_file(study.file.model_copy(update={"tracking": uri}))
        remember_both(study.file, study.folder)

    return name


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


@pytest.fixture(scope="session")
def whole_weights() -> Callable[[Callable[..., Outcome]], Callable[..., Outcome]]:
    """Let a stand-in for `trials.evaluate` write a weights file that is an archive, as `torch.save` does."""

    def writing_too(scoring: Callable[..., Outcome]) -> Callable[..., Outcome]:
        @wraps(scoring)
        def evaluate(architecture: Architecture, budget: Budget, folder: Path, *arguments: Any, **options: Any) -> Any:
            outcome = scoring(architecture, budget, folder, *arguments, **options)
            with zipfile.ZipFile(folder / "weights.pt", "w") as archive:
                archive.writestr("weights/data.pkl", architecture.fingerprint * 100)
            return outcome

        return evaluate

    return writing_too


@pytest.fixture(scope="session")
def judged_as_scored() -> Callable[[Callable[..., Outcome]], Callable[..., Outcome]]:
    """Let a stand-in for `trials.evaluate` write its score for the images that judge, too, equal on all of them."""

    def judging_too(scoring: Callable[..., Outcome]) -> Callable[..., Outcome]:
        @wraps(scoring)
        def evaluate(architecture: Architecture, budget: Budget, folder: Path, *arguments: Any, **options: Any) -> Any:
            outcome, judging = scoring(architecture, budget, folder, *arguments, **options), options.get("judging")
            if judging is None or outcome.scores is None:
                return outcome
            accuracy, images = outcome.scores.map50_95, len(judging.images)
            Judged(
                fingerprint=judging.fingerprint,
                map50_95=accuracy,
                map50=accuracy,
                resampled=np.full(RESAMPLES, accuracy),
                matches=no_matches(images),
            ).write(folder / "judged.npz")
            return replace(outcome, judged=Accuracy(map50_95=accuracy, map50=accuracy))

        return evaluate

    return judging_too


def no_matches(images: int) -> Matches:
    """Return matches of a model that finds nothing."""
    empty = np.zeros(0, np.int32)
    return Matches(
        images=images,
        image=empty,
        confidence=np.zeros(0, np.float32),
        category=empty,
        correct=np.zeros((0, 10), bool),
        label_image=empty,
        label_category=empty,
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


_POSTGRES_PLACES = ("usr/lib/postgresql/*/bin", "usr/local/bin", "usr/bin", "opt/homebrew/bin")


def _postgres_programs() -> Path | None:
    """Return the folder with `initdb` and `postgres`; None if there is none."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    for place in _POSTGRES_PLACES:
        folders += sorted(Path("/").glob(place), reverse=True)
    complete = (each for each in folders if (each / "initdb").is_file() and (each / "postgres").is_file())
    return next(complete, None)


class PostgresServer:
    """Server of a data folder; started, stopped and started again.

    Args:
        folder: that it may create its data folder in; the user `postgres` must be able to reach it.
    """

    def __init__(self, folder: Path) -> None:
        programs = _postgres_programs()
        assert programs is not None
        self._programs, self._data = programs, folder / "data"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:  # the server refuses to run as root
            shutil.chown(folder, "postgres")
            folder.chmod(0o755)
        self._run("initdb", "-D", str(self._data), "-U", "nas", "-A", "trust", "--no-sync", "-E", "UTF8")
        with (self._data / "pg_hba.conf").open("a", encoding="ascii") as rules:
            rules.write("host all all 10.213.0.0/24 trust\n")  # the network of a test

    def url(self, database: str = "postgres", host: str = "127.0.0.1") -> str:
        """Return the address of a database."""
        return f"postgresql://nas@{host}:{self.port}/{database}"

    def create(self, database: str) -> str:
        """Create a database; return its address."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "nas", database)
        return self.url(database)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=* -c unix_socket_directories='' -c fsync=off"
        self._run("pg_ctl", "-D", str(self._data), "-l", str(self._data / "log"), "-w", "-o", options, "start")

    def stop(self) -> None:
        """Stop the server at once; its clients lose their connections."""
        self._run("pg_ctl", "-D", str(self._data), "-m", "fast", "-w", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        command = [*user, str(self._programs / program), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, cwd="/")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """PostgreSQL server of the test run, where one is installed."""
    if _postgres_programs() is None:
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg")
    with tempfile.TemporaryDirectory(prefix="nas-postgres-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        server = PostgresServer(Path(folder) / "server")
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def database(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of an empty PostgreSQL database; connections to it are closed at the end."""
    opened: list[RDBStorage] = []

    def recorded(made: RDBStorage) -> RDBStorage:
        opened.append(with_server_timeouts(made))
        return made

    monkeypatch.setattr(storages, "with_server_timeouts", recorded)
    yield postgres_server.create(f"nas_{uuid.uuid4().hex[:12]}")
    for made in opened:
        made.scoped_session.remove()
        made.engine.dispose()
