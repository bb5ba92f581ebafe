"""`nas ui`, `nas sync` and `nas doctor`: MLflow's pages, and a check of the installation."""

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Annotated

import typer

from nas import addresses
from nas.cli import opening, show
from nas.cli.options import Name, Runs, Shown, TextFormat, command_for
from nas.paths import HOME, RUNS
from search_spaces.errors import SpecError

_VARIABLES = {
    HOME: "studies go to runs/nas, the cache to ~/.cache/nas",
    addresses.STORAGE: "studies keep their trials in files, or name a database with --storage",
    addresses.OPTUNA_STORAGE: "read where NAS_STORAGE is not set",
    addresses.TRACKING: "MLflow keeps its runs in mlflow.db, beside the studies",
}
"""Environment variables, and what counts while one is not set."""
_PACKAGES = ("nas-for-yolo", "torch", "torchvision", "ultralytics", "ultralytics-thop", "optuna", "mlflow")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(ui)
    app.command()(sync)
    app.command()(doctor)


@show.reports_errors
def ui(
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address on which the server listens.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", help="Port on which the server listens.")] = 5000,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open a browser.")] = False,
    runs: Runs = RUNS,
) -> None:
    """Start a server with MLflow's pages of all studies, and open them; Ctrl-C stops it.

    nas ui
    nas ui --no-browser --port 5001
    """
    from nas.study.folders import tracking_uri
    from nas.tracking.server import PagesServer

    server = PagesServer(tracking_uri(runs.absolute()), host, port)
    show.lines([f"MLflow of {runs} in about ten seconds; Ctrl-C stops it", server.address])
    if server.is_open:
        show.lines(
            [f"warning: other machines reach {host}, and MLflow asks for no password (--host 127.0.0.1 is safe)"]
        )
    with suppress(KeyboardInterrupt):
        server.run(open_browser=not no_browser)


@show.reports_errors
def sync(study: Name, runs: Runs = RUNS, shown: TextFormat = "text") -> None:
    """Send trials of a study to MLflow that it lacks, because it could not be reached during the search.

    nas sync v9t-digits
    """
    opened = opening.opened(study, runs)
    with show.err.status("writing into MLflow"):
        from nas.workflows import running

        running.sync(opened)
    if shown == "json":
        tracking = addresses.without_password(opened.file.tracking)
        show.text(json.dumps({"study": study, "tracking": tracking, "trials": len(opened.records())}, indent=1))
    show.lines([f"MLflow has all trials of {study}; see it with: {command_for('ui', opened, named=False)}"])


@show.reports_errors
def doctor(
    runs: Runs = RUNS,
    shown: Shown = "table",
) -> None:
    """Check versions, the two packages called thop, devices and folders; exit with status 1 if something is wrong.

    nas doctor
    """
    checks: list[tuple[str, Callable[[], tuple[bool, str]]]] = [
        ("python", lambda: (sys.version_info >= (3, 11), sys.version.split()[0])),
        *((name, partial(_installed, name)) for name in _PACKAGES),
        ("thop", _one_thop),
        ("counting", _counts),
        ("device", _device),
        ("cores", _cores),
        ("runs", lambda: _writable(runs.absolute())),
        ("cache", _cache),
        ("weights", _weights),
        *((name, partial(_variable, name, unset)) for name, unset in _VARIABLES.items()),
    ]
    rows = []
    with show.err.status("checking") as status:
        for name, check in checks:
            status.update(f"checking {name}")
            good, found = check()
            rows.append({"check": name, "ok": good, "found": found})
    show.rows(rows, shown, title="nas doctor", columns={"check": "check", "ok": "ok", "found": "found"})
    if not all(row["ok"] for row in rows):
        raise typer.Exit(show.NEGATIVE)


def _variable(name: str, unset: str) -> tuple[bool, str]:
    """Check an environment variable: what it is set to, without a password, or what counts while it is not."""
    value = os.environ.get(name)
    if not value:
        return True, f"not set: {unset}"
    if name in {addresses.STORAGE, addresses.OPTUNA_STORAGE}:
        try:
            addresses.require_storage(value)
        except SpecError as error:
            return False, str(error)
    return True, addresses.redact(value) if "://" in value else value


def _installed(name: str) -> tuple[bool, str]:
    try:
        return True, version(name)
    except PackageNotFoundError:
        return False, f"not installed; pip install {name}"


def _one_thop() -> tuple[bool, str]:
    """Check that `ultralytics-thop` provides the module `thop`: with the abandoned distribution every model costs 0."""
    owners = sorted(set(packages_distributions().get("thop", [])))
    if owners == ["ultralytics-thop"]:
        return True, "only ultralytics-thop provides it"
    remedy = "pip uninstall -y thop && pip install --force-reinstall --no-deps ultralytics-thop"
    return False, f"provided by {', '.join(owners) or 'no distribution'}; remedy: {remedy}"


def _counts() -> tuple[bool, str]:
    from search_spaces import model_reader
    from trials.costing.cost import measure

    params = measure(model_reader.model_document("yolov9t.yaml"), 80, 640, deployed=False).params
    return params == 2_128_720, f"yolov9t has {params:,} parameters (2,128,720 is right)"


def _device() -> tuple[bool, str]:
    import torch

    from trials.devices import CPU
    from trials.torch_devices import computes_bf16

    count = torch.cuda.device_count()
    names = ", ".join(torch.cuda.get_device_name(index) for index in range(count))
    also = ", which computes in bfloat16, too (--precision bf16)" if computes_bf16(CPU) else ""
    return True, names or f"no GPU that PyTorch sees; searches run on the CPU{also}"


def _writable(folder: Path) -> tuple[bool, str]:
    from nas.study.folders import make_folder
    from search_spaces.errors import EnvironmentProblem

    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        make_folder(there)
    except EnvironmentProblem as problem:
        return False, str(problem)
    return True, f"{folder} can be written to"


def _cores() -> tuple[bool, str]:
    from trials import machine

    return True, str(machine.cores())


def _cache() -> tuple[bool, str]:
    from search_spaces import cache_folder

    return _writable(cache_folder.path())


def _weights() -> tuple[bool, str]:
    """List the checkpoints of Ultralytics that `--weights pretrained` finds on this machine."""
    from trials.training import released

    found = ", ".join(map(str, released.find_all()))
    return True, found or f"none here; nas search --weights pretrained fetches one into {released.folder()}"
