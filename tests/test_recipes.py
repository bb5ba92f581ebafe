"""Recipes of docs/machines.md: scripts and manifests as they are printed, as far as they run without a cluster."""

import os
import re
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from nas.cli import app

PAGE = Path(__file__).parents[1] / "docs" / "machines.md"

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the documents are not part of the wheel")

FAKE_NAS = '#!/bin/sh\nprintf "%s\\n" "$NAS_STORAGE" "$@"\n'
FAKE_SSH = '#!/bin/sh\necho "$1" >> "$CALLS"\nshift\nexec bash -n -c "$*"\n'


def block(heading: str, language: str) -> str:
    """Return the first block of a language under a heading."""
    section = PAGE.read_text(encoding="utf-8").partition(f"\n### {heading}\n")[2]
    found = re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def bash(script: str, folder: Path, *options: str, nas: str = FAKE_NAS, ssh: str = FAKE_SSH, **environment: str) -> str:
    """Run a script with programs in the place of `nas` and `ssh`, which by default print what they are called with."""
    program(folder, "nas", nas)
    program(folder, "ssh", ssh)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", *options, "-c", script]
    done = subprocess.run(
        command, env={"PATH": path, **environment}, cwd=folder, check=True, text=True, stdout=subprocess.PIPE
    )
    return done.stdout


def require_options(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that `nas` has a command with these options: it comes as far as the storage, which is none."""
    monkeypatch.setenv("NAS_STORAGE", "sqlite:///trials.db")
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "several machines share a PostgreSQL database" in result.stderr


@pytest.mark.parametrize("heading", ["ssh", "Slurm"])
def test_script_is_valid_bash(heading: str, tmp_path: Path) -> None:
    assert bash(block(heading, "bash"), tmp_path, "-n") == ""


def test_ssh_starts_a_worker_on_each_machine(tmp_path: Path) -> None:
    bash(block("ssh", "bash"), tmp_path, CALLS=str(tmp_path / "calls"))
    assert (tmp_path / "calls").read_text().split() == ["lab1", "lab2"]


def test_ssh_does_not_wait_for_the_worker(tmp_path: Path) -> None:
    script = block("ssh", "bash").replace("/scratch", str(tmp_path))
    began = time.monotonic()
    bash(script, tmp_path, nas="#!/bin/sh\nexec sleep 30\n", ssh='#!/bin/sh\nshift\nexec bash -c "$*"\n')
    assert time.monotonic() - began < 20


def test_tasks_of_a_slurm_array_are_machines_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = block("Slurm", "bash")
    called = [
        bash(script, tmp_path, TMPDIR=str(tmp_path), SLURM_ARRAY_JOB_ID="71", SLURM_ARRAY_TASK_ID=task).splitlines()
        for task in ("1", "2")
    ]
    assert {storage for storage, *_ in called} == {"postgresql://nas@db/nas"}
    runs = [arguments[arguments.index("--runs") + 1] for arguments in called]
    assert len(set(runs)) == 2
    assert all(Path(folder).is_dir() for folder in runs)
    assert called[0][1:3] == ["worker", "fruit"]
    require_options(called[0][1:], monkeypatch)


def test_slurm_reads_the_options_of_the_script() -> None:
    lines = block("Slurm", "bash").splitlines()
    options = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")]
    assert lines[0] == "#!/bin/bash"
    assert lines[1 : 1 + len(options)] == [f"#SBATCH {option}" for option in options]  # sbatch stops at a command
    names = {shlex.split(option)[0].split("=")[0] for option in options}
    known = {"--job-name", "--array", "--gres", "--cpus-per-task", "--time", "--requeue", "--signal", "--mem"}
    assert {"--array", "--gres", "--requeue"} <= names <= known


@pytest.fixture
def job() -> Any:
    return yaml.safe_load(block("Kubernetes", "yaml"))


def test_kubernetes_job_is_valid(job: Any) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    kubernetes_validate.validate(job, "1.30", strict=True)
    job["spec"]["parallel"] = 1  # a field that does not exist is found
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, "1.30", strict=True)


def test_pods_of_the_kubernetes_job_have_what_they_use(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert [variable["name"] for variable in container["env"]] == ["NAS_STORAGE"]
    assert "completions" not in job["spec"]  # one pod that ends well ends the job: the study is done then
    name, *arguments = container["command"]
    assert name == "nas"
    require_options(arguments, monkeypatch)
