"""Two machines on one study with real trainings, from the command line: of two members; one is killed, or cut off."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from nas import addresses
from nas.records.trial_attributes import MACHINE, RETRY_OF
from nas.study.named_addresses import remember
from nas.study.study import Study

pytestmark = pytest.mark.slow

NAS = [sys.executable, "-c", "from nas.cli import main; main()"]
SMALL = ["--epochs", "2", "--base-epochs", "1", "--image-size", "64", "--deploy-size", "64", "--device", "cpu"]
TRIALS = 6
MEMBERS = ("v8n", "v9t")
MINUTES = 60.0


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "NAS_NO_CACHE": "1", "GIT_PYTHON_REFRESH": "quiet", **more}


@contextmanager
def running(command: list[str], log: Path, variables: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in the background, which is killed at the end."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=variables, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def search(runs: Path, storage: str, *options: str) -> list[str]:
    return [*NAS, "search", "--study", "s", "--runs", str(runs), "--storage", storage, "--workers", "1", *options]


def join(runs: Path, storage: str) -> list[str]:
    return [*NAS, "worker", "s", "--runs", str(runs), "--storage", storage, "--workers", "1"]


def until(is_so: Callable[[], bool], what: str, minutes: float = MINUTES) -> None:
    limit = time.monotonic() + 60 * minutes
    while not is_so():
        assert time.monotonic() < limit, what
        time.sleep(0.5)


def begun(runs: Path) -> bool:
    return (runs / "s" / "study.json").is_file()


def machine_of(runs: Path) -> str:
    return str(json.loads((runs / "s" / "machine.json").read_text())["machine"])


def kill_all_of(runs: Path) -> None:
    """Kill -9 every process of a machine: supervisor and workers."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.startswith(str(runs).encode()) for word in words) and int(folder.name) != os.getpid():
            os.kill(int(folder.name), signal.SIGKILL)


def command(*words: str, status: int = 0) -> str:
    done = subprocess.run([*NAS, *words], env=environment(), capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr + done.stdout
    assert done.returncode == status, done.stderr
    return done.stdout


def require_whole(study: Study, *, again: int = 0) -> None:
    """Check that the study has its trials, each architecture once, and nothing that is left running."""
    records = study.records()
    finished = [record for record in records if record.finished]
    assert len(finished) == TRIALS
    assert set(Counter(record.fingerprint for record in finished).values()) == {1}
    assert {record.state for record in records} <= {"complete", "fail", "waiting"}
    assert sum(RETRY_OF in trial.user_attrs for trial in study.optuna_trials()) <= again


def test_machine_that_is_killed_loses_no_trial_and_its_files_are_used_from_the_other(
    database: str, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    variables = environment(NAS_MACHINE_GRACE="15")
    with ExitStack() as stack:
        options = [*SMALL, "--trials", str(TRIALS)]
        one = stack.enter_context(running(search(first, database, *options), tmp_path / "first.log", variables))
        until(lambda: begun(first), "the study was not begun")
        stack.enter_context(running(join(second, database), tmp_path / "second.log", variables))
        until(lambda: begun(second), "the second machine did not join")
        study = Study.open(first / "s")

        def both_have_finished() -> bool:
            trials = study.storage.get_all_trials(study.storage.get_study_id_from_name("s"))
            ended = {trial.user_attrs.get(MACHINE) for trial in trials if trial.state.name == "COMPLETE"}
            runs = {trial.user_attrs.get(MACHINE) for trial in trials if trial.state.name == "RUNNING"}
            return len(ended) == 2 and machine_of(second) in runs

        until(both_have_finished, "both machines did not train")
        lost = machine_of(second)
        kill_all_of(second)
        assert one.wait(60 * MINUTES) == 0
    study = Study.open(first / "s")
    require_whole(study, again=1)
    trainings = [path for runs in (first, second) for path in (runs / "s" / "workers").glob("*.log")]
    assert sum(path.read_text().count("training the stock model\n") for path in trainings) == 1
    theirs = [trial.number for trial in study.optuna_trials() if trial.user_attrs.get(MACHINE) == lost and trial.values]
    exported = Path(command("export", "s", "--trial", str(theirs[0]), "--runs", str(first)).strip())
    assert (exported / "model.yaml").is_file()
    shutil.rmtree(first / "s" / "trials")
    command("pareto", "s", "--runs", str(first))
    seeds = ("--seeds", "2", "--top", "1", "--epochs", "3", "--workers", "1", "--device", "cpu")
    command("confirm", "s", "--runs", str(first), *seeds, status=1)  # these models learn too little for a verdict
    again = command("confirm", "s", "--runs", str(second), *seeds[:2], "--format", "json", status=1)
    assert "hardly more than that of random weights" in json.loads(again)["reason"]
    command("search", "--refine", "s", "--dry-run", "--runs", str(second), *SMALL)


def test_members_are_trained_on_both_machines_and_judged_and_exported_on_either(database: str, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    options = [*SMALL, "--space", "v8n,v9t", "--trials", str(TRIALS), "--base-epochs", "8", "--image-size", "96"]
    with ExitStack() as stack:
        begin, homes = search(first, database, *options), [tmp_path / "home", tmp_path / "other-home"]
        for home in homes:
            home.mkdir()
        variables = [environment(HOME=str(home)) for home in homes]
        one = stack.enter_context(running(begin, tmp_path / "first.log", variables[0]))
        until(lambda: begun(first), "the study was not begun")
        other = stack.enter_context(running(join(second, database), tmp_path / "second.log", variables[1]))
        assert [process.wait(60 * MINUTES) for process in (one, other)] == [0, 0]
    require_whole(Study.open(first / "s"))
    logs = [(runs / "s" / "workers" / "0.log").read_text() for runs in (first, second)]
    for name in MEMBERS:
        assert sum(text.count(f"training the stock model of {name}\n") for text in logs) == 1
    assert all("training the stock model of " in text for text in logs)
    fresh = ("--seeds", "2", "--top", "1", "--workers", "1", "--device", "cpu")
    verdict = command("confirm", "s", "--runs", str(second), *fresh)
    assert command("confirm", "s", "--runs", str(first), *fresh) == verdict
    for runs in (first, second):
        for trial in range(len(MEMBERS)):  # the stock models, of which each was trained on one of the machines
            exported = Path(command("export", "s", "--trial", str(trial), "--runs", str(runs)).strip())
            assert (exported / "weights.pt").is_file()


def _ip(*words: str, check: bool = True) -> None:
    subprocess.run([shutil.which("ip") or "ip", *words], check=check, capture_output=True)


@contextmanager
def _two_networks() -> Iterator[tuple[str, str]]:
    """Two network namespaces, `first` and `second`, which reach this one as 10.213.0.1 through a bridge."""
    try:
        _ip("link", "add", "nas-bridge", "type", "bridge")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"network namespaces need root: {error}")
    names = "nas-first", "nas-second"
    try:
        _ip("addr", "add", "10.213.0.1/24", "dev", "nas-bridge")
        _ip("link", "set", "nas-bridge", "up")
        for number, name in enumerate(names, start=2):
            _ip("netns", "add", name)
            _ip("link", "add", f"{name}-v", "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("link", "set", f"{name}-v", "master", "nas-bridge", "up")
            _ip("-n", name, "addr", "add", f"10.213.0.{number}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            _ip("netns", "del", name, check=False)
        _ip("link", "del", "nas-bridge", check=False)


def test_machines_in_two_networks_complete_a_study_though_the_link_is_cut_for_a_minute(
    database: str, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    storage = database.replace("127.0.0.1", "10.213.0.1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with _two_networks() as (one, other), ExitStack() as stack:
        tracking = tmp_path / "mlflow"
        tracking.mkdir()
        served = ["--backend-store-uri", f"sqlite:///{tracking}/m.db", "--artifacts-destination", str(tracking)]
        address = ["--host", "0.0.0.0", "--port", str(port), "--workers", "1", "--allowed-hosts", "*"]  # noqa: S104 - for the namespaces
        server = [sys.executable, "-m", "mlflow", "server", *served, *address]
        stack.enter_context(running(server, tmp_path / "mlflow.log", environment()))
        until(lambda: _answers(f"http://127.0.0.1:{port}/health"), "MLflow's server does not answer", 10)
        variables = environment(MLFLOW_TRACKING_URI=f"http://10.213.0.1:{port}")
        options = [*SMALL, "--trials", str(TRIALS)]
        begin = ["ip", "netns", "exec", one, *search(first, storage, *options)]
        begins = stack.enter_context(running(begin, tmp_path / "first.log", variables))
        until(lambda: begun(first), "the study was not begun")
        joining = ["ip", "netns", "exec", other, *join(second, storage)]
        joins = stack.enter_context(running(joining, tmp_path / "second.log", variables))
        study = Study.open(first / "s")
        study.file = study.file.model_copy(update={"storage": database})
        remember(database, addresses.STORAGE, study.folder)
        until(lambda: sum(record.finished for record in study.records()) >= 2, "no trial ends")
        _ip("link", "set", f"{one}-v", "down")
        time.sleep(60)
        _ip("link", "set", f"{one}-v", "up")
        assert begins.wait(60 * MINUTES) == 0
        assert joins.wait(60 * MINUTES) == 0
        require_whole(study)
        assert _tracked(f"http://127.0.0.1:{port}") == {"FINISHED": TRIALS + 1}


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own server
            return bool(answer.status == 200)
    except OSError:
        return False


def _tracked(uri: str) -> Counter[str]:
    """Return the runs of a server by status."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    return Counter(str(run.info.status) for run in runs)
