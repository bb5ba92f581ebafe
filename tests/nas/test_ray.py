"""Workers on a Ray cluster."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from nas import signals
from nas.cli import app
from nas.locks import is_held
from nas.records.trial_attributes import MACHINE, RETRY_OF
from nas.records.trial_files import TrialFiles
from nas.study.machines import MACHINE_FILE
from nas.study.study import Study
from nas.workflows import ray_cluster
from nas.workflows.ray_cluster import RayCluster
from nas.workflows.ray_workers import RaySupervisor
from search_spaces.errors import EnvironmentProblem, SpecError
from search_spaces.files import read_mapping
from trials import Epoch

SERVER = "postgresql://me@lab/nas"
NAS = [sys.executable, "-c", "from nas.cli import main; main()"]


def test_a_cluster_needs_ray_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "find_spec", lambda _: None)
    with pytest.raises(EnvironmentProblem) as caught:
        RayCluster.of("auto", None, SERVER)
    assert str(caught.value) == "ray: the package is not installed here (pip install 'nas-for-yolo[ray]')"


def test_a_cluster_needs_a_storage_that_nodes_share_and_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "find_spec", lambda _: object())
    monkeypatch.delenv("NAS_STORAGE", raising=False)
    with pytest.raises(SpecError) as caught:
        RayCluster.of("auto", 1.0, None, device="0")
    assert caught.value.mistakes == (
        "device: Ray chooses the devices of its workers, got '0' (leave it out; --gpus-per-worker 1 trains on GPUs)",
        (
            "storage: the nodes of a Ray cluster share a PostgreSQL database, got a file on this machine "
            "(such as --storage postgresql://me@host/name)"
        ),
    )
    with pytest.raises(SpecError, match=r"got 'sqlite:///trials\.db'"):
        RayCluster.of("auto", None, "sqlite:///trials.db")
    monkeypatch.setenv("NAS_STORAGE", SERVER)
    assert RayCluster.of("auto", 0.5, None) == RayCluster(address="auto", gpus=0.5)


@pytest.mark.parametrize("address", ["nonsense", "", "head:port", "http://head:8265", "ray://head", "head:6379/x"])
def test_what_is_no_address_of_a_cluster_is_refused_before_a_study_is_made(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "find_spec", lambda _: object())
    with pytest.raises(SpecError) as caught:
        RayCluster.of(address, None, SERVER)
    assert caught.value.mistakes == (
        f"ray: no address of a cluster, got {address!r} (auto, head:6379 or ray://head:10001)",
    )


@pytest.mark.parametrize(
    "address",
    ["ray://me:s3cr3t@head:10001", "me:s3cr3t@head:6379", ":s3cr3t@head:6379", "http://head:8265?token=s3cr3t"],
)
def test_password_in_an_address_of_a_cluster_is_refused_and_neither_printed_nor_stored(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray takes none there, and a command that resumes the study names the address."""
    monkeypatch.setattr(ray_cluster, "find_spec", lambda _: object())
    result = CliRunner().invoke(app, ["search", "--ray", address, "--storage", SERVER, "--runs", str(tmp_path)])
    assert result.exit_code == 2
    assert "ray: no address of a cluster" in result.stderr
    assert "s3cr3t" not in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("address", ["auto", "head:6379", "10.0.0.1:6379", "[::1]:6379", "ray://head:10001"])
def test_addresses_of_a_cluster(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "find_spec", lambda _: object())
    assert RayCluster.of(address, None, SERVER) == RayCluster(address=address)


class _RayError(Exception):
    """Stands for the base class of Ray's errors."""


def ray_with(init: Callable[..., object]) -> ModuleType:
    """Return a stand-in for the package, which need not be installed: it connects by a function of the test."""
    ray = ModuleType("ray")
    vars(ray).update(init=init, exceptions=SimpleNamespace(RayError=_RayError))
    return ray


def test_a_cluster_of_another_version_is_refused_with_both_versions(
    make_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**_: object) -> None:
        raise RuntimeError("Version mismatch: The cluster was started with:\n  Ray: 1.0\nThis process: Ray: 2.0")

    monkeypatch.setitem(sys.modules, "ray", ray_with(init))
    supervisor = RaySupervisor(RayCluster(address="auto"), make_study(), lambda _: None)
    with pytest.raises(EnvironmentProblem, match=r"cannot be used: Version mismatch: .* Ray: 1\.0 .* Ray: 2\.0"):
        supervisor.run()


def test_sigterm_is_like_ctrl_c_though_ray_sets_a_handler_of_its_own(
    make_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**_: object) -> AbstractContextManager[None]:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(signal.SIGTERM))
        return nullcontext()

    monkeypatch.setitem(sys.modules, "ray", ray_with(init))
    supervisor = RaySupervisor(RayCluster(address="auto"), make_study(), lambda _: None)
    monkeypatch.setattr(supervisor, "_work", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with signals.as_ctrl_c(), pytest.raises(KeyboardInterrupt):
            supervisor.run()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_gpus_per_worker_need_a_cluster(tmp_path: Path) -> None:
    assert RayCluster.of(None, None, None) is None
    result = CliRunner().invoke(app, ["search", "--gpus-per-worker", "1", "--runs", str(tmp_path)])
    assert result.exit_code == 2
    assert "gpus-per-worker: for workers on a Ray cluster, got 1 (add --ray ADDRESS)" in result.stderr


def test_workers_of_a_cluster_train_on_its_devices() -> None:
    assert RayCluster(address="auto").device == "cpu"
    assert RayCluster(address="auto", gpus=1.0).device == "0"


def test_command_that_resumes_names_the_cluster() -> None:
    assert RayCluster(address="auto").flags == " --ray auto"
    assert RayCluster(address="ray://head:10001", gpus=0.5).flags == " --ray ray://head:10001 --gpus-per-worker 0.5"


def test_ray_is_not_imported_by_a_search_without_it() -> None:
    code = "import sys, nas.workflows.ray_workers; sys.exit('ray' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


class _NoRoom:
    """Ray without a free CPU."""

    @staticmethod
    def available_resources() -> dict[str, float]:
        return {"GPU": 2.0}


def test_workers_that_never_begin_are_waited_for_with_a_limit(make_study: Callable[..., Study]) -> None:
    machines = [SimpleNamespace(id="here")]
    study = make_study()
    vars(study)["shared"] = SimpleNamespace(machines=SimpleNamespace(id="here", all=lambda: machines))
    supervisor = RaySupervisor(RayCluster(address="auto", gpus=1), study, lambda _: None)
    supervisor._require_worker(_NoRoom, 60.0)
    with pytest.raises(EnvironmentProblem) as found:
        supervisor._require_worker(_NoRoom, 1801.0)
    assert str(found.value) == (
        "ray: no worker has begun within 30 min; they need 1 CPU and 1 GPU each, and free are: CPU 0, GPU 2 "
        "(ray status, and the logs in /tmp/ray/session_latest/logs, show why)"
    )
    machines.append(SimpleNamespace(id="node"))
    supervisor._require_worker(_NoRoom, 1801.0)
    machines.pop()  # it has begun; what becomes of it later is another matter
    supervisor._require_worker(_NoRoom, 9999.0)


SPACE = """\
name: tiny
base: yolov5n.yaml
slots:
  - at: {host: C3}
    choices: {UIB: {expansion: [1, 2]}, DynamicConv: {kernels: [2, 4]}}
"""
TRIALS, EPOCHS, LEAST_EPOCHS = 4, 10, 2
"""Numbers of trials, of epochs of each, and of epochs that are at least done and left when a node is lost."""
SMALL = [
    *(
        "--trials",
        str(TRIALS),
        "--epochs",
        str(EPOCHS),
        "--base-epochs",
        "1",
        "--image-size",
        "64",
        "--deploy-size",
        "64",
    ),
    *("--workers", "2", "--no-cache"),
]


CHECKPOINTS = """\
import sys

if "nas.execution.worker" in sys.orig_argv:
    from nas.execution import shared_trials

    shared_trials._CHECKPOINT_SECONDS, shared_trials._STORING_SHARE = 0.0, float("inf")
"""
"""Module that Python imports when it starts: workers store each checkpoint, not one a minute, as they do of epochs that
take half a minute; these take seconds."""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Ray cluster without nodes that work: a head without a core."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(CHECKPOINTS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


@pytest.mark.slow
def test_a_study_survives_the_loss_of_a_node_which_costs_at_most_an_epoch(
    tmp_path: Path, database: str, cluster: Any
) -> None:
    (tmp_path / "tiny.yaml").write_text(SPACE)
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    environment = {**os.environ, "NAS_MACHINE_GRACE": "12"}
    options = ["--space", "tiny.yaml", "--study", "tiny", "--ray", cluster.address, "--storage", database, *SMALL]
    with (tmp_path / "log").open("wb") as log:
        search = subprocess.Popen(
            [*NAS, "search", *options], cwd=tmp_path, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    running = _wait_for_two_running(tmp_path, search)
    cluster.remove_node(nodes[1], allow_graceful=False)
    lost_trial, trained = _wait_for_dead(running)
    assert search.wait(1800) == 0, (tmp_path / "log").read_text()
    study = Study.open(tmp_path / "runs" / "nas" / "tiny")
    records = study.records()
    assert sum(record.finished for record in records) == TRIALS
    assert {record.state for record in records} <= {"complete", "fail"}
    (lost,) = [record for record in records if record.state == "fail"]
    assert lost.trial == lost_trial
    assert "was lost; its architecture is tried again" in lost.detail
    finished = [record.fingerprint for record in records if record.finished]
    assert len(set(finished)) == TRIALS
    assert lost.fingerprint in finished
    (retrial,) = [trial.number for trial in study.optuna_trials() if trial.user_attrs.get(RETRY_OF) == lost_trial]
    epochs = study.files(retrial).read_epochs()
    assert [epoch.epoch for epoch in epochs] == list(range(1, EPOCHS + 1))
    again = [epoch.epoch for epoch in trained if epoch not in epochs]  # another training takes other seconds
    assert len(trained) >= LEAST_EPOCHS
    assert len(again) <= 1, f"epochs {again} of {len(trained)} were trained again"


def _wait_for_two_running(folder: Path, search: subprocess.Popen[bytes]) -> dict[int, TrialFiles]:
    """Return two trials that run, when both are in mid-training, with their files on their nodes."""
    stored = folder / "runs" / "nas" / "tiny"
    until, study = time.monotonic() + 900, None
    while time.monotonic() < until:
        assert search.poll() is None, (folder / "log").read_text()
        if study is None and (stored / "study.json").is_file():
            study = Study.open(stored)
        if study is not None and study.shared is not None:
            trials = [trial for trial in study.optuna_trials() if trial.state.name == "RUNNING"]
            files = {trial.number: _files_on_node(trial.number, trial.user_attrs.get(MACHINE)) for trial in trials}
            there = {trial: one for trial, one in files.items() if one is not None}
            if len(there) == 2 and all(
                LEAST_EPOCHS <= len(one.read_epochs()) <= EPOCHS - LEAST_EPOCHS for one in there.values()
            ):
                return there
        time.sleep(0.5)
    raise AssertionError(f"no two trials ran at once: {(folder / 'log').read_text()}")


def _files_on_node(trial: int, machine: str | None) -> TrialFiles | None:
    """Return the files of a trial where a machine of the cluster, here all the same system, has them."""
    for identity in Path(tempfile.gettempdir()).glob(f"nas-ray-*/ray/tiny/{MACHINE_FILE}"):
        if read_mapping(identity).get("machine") == machine:
            return TrialFiles.of(identity.parent, trial)
    return None


def _wait_for_dead(running: dict[int, TrialFiles]) -> tuple[int, list[Epoch]]:
    """Return the trial whose worker is dead, and the epochs that this had finished."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for trial, files in running.items():
            if not is_held(files.lock) and len(epochs := files.read_epochs()) < EPOCHS:
                return trial, epochs
        time.sleep(0.1)
    raise AssertionError("no worker of the lost node is dead")
