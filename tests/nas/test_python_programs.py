"""Searches by Python programs: in the kernel of a notebook, and in a script."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel

import nas

pytestmark = pytest.mark.slow

TINY = """\
name: tiny
base: yolov5n.yaml
slots: [{at: {layers: [4]}, choices: {UIB: {}}}]
macro: {width: {P3: [0.75]}}
"""
SEARCH = """\
import nas
study = nas.search(
    space="space.yaml", data="data/data.yaml", study="tiny", runs="runs", trials=TRIALS,
    epochs=1, base_epochs=1, image_size=32, deploy_size=64, workers=1, device="cpu",
)
"""
PATIENCE = 300
"""Seconds after which a cell counts as hung."""


class Kernel:
    """Kernel of a notebook whose folder is `folder`."""

    def __init__(self, folder: Path) -> None:
        self._manager, self._client = start_new_kernel(cwd=str(folder), extra_arguments=["--log-level=ERROR"])

    def run(self, cell: str, *, interrupt_at: str = "") -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Run a cell.

        Args:
            interrupt_at: text; the kernel is interrupted once, when the cell shows it.

        Returns:
            What the cell has shown, in order, by MIME type; its error, empty if it has none.
        """
        shown: list[dict[str, Any]] = []
        error: dict[str, Any] = {}
        asked = self._client.execute(cell)
        limit = time.monotonic() + PATIENCE
        while time.monotonic() < limit:
            try:
                message = self._client.get_iopub_msg(timeout=1)
            except Empty:
                continue
            content, kind = message["content"], message["msg_type"]
            if message["parent_header"].get("msg_id") != asked:
                continue
            if kind == "status" and content["execution_state"] == "idle":
                return shown, error
            if kind == "error":
                error = content
            if kind == "stream":
                shown.append({content["name"]: content["text"]})
            if kind in {"display_data", "update_display_data", "execute_result"}:
                shown.append(content["data"])
                if interrupt_at and interrupt_at in content["data"].get("text/plain", ""):
                    interrupt_at = ""
                    self._manager.interrupt_kernel()
        raise AssertionError(f"the cell has not ended after {PATIENCE} s; it has shown {shown}")

    def stop(self) -> None:
        """End the kernel."""
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)


@pytest.fixture
def folder(tmp_path: Path, write_scenes: Callable[..., Path]) -> Path:
    """Folder with a space and a data set."""
    (tmp_path / "space.yaml").write_text(TINY)
    write_scenes(tmp_path / "data", train=16, val=8)
    return tmp_path


@pytest.fixture
def kernel(folder: Path) -> Iterator[Kernel]:
    started = Kernel(folder)
    yield started
    started.stop()


def test_a_search_shows_its_progress_and_its_study(kernel: Kernel) -> None:
    shown, error = kernel.run(SEARCH.replace("TRIALS", "2"))
    assert not error
    assert all(set(one) == {"text/plain"} for one in shown)  # one line that is replaced, nothing on stderr
    lines = [one["text/plain"] for one in shown]
    assert lines[:2] == ["reading space and options", "checking space, data and costs"]
    assert "tiny: training the stock model, epoch 0 of 1" in lines
    assert lines[-1].startswith("tiny: 2 of 2 trials, 0 running, best mAP50-95 0.")

    (study,), error = kernel.run("study")
    assert not error
    assert "tiny</b>: 2 trials finished" in study["text/html"]

    (figure,), error = kernel.run("study.plot()")
    assert not error
    assert figure["application/vnd.plotly.v1+json"]["data"]

    (table,), error = kernel.run("study.trials()[['trial', 'ending', 'gflops']]")
    assert not error
    assert "<table" in table["text/html"]
    assert "finished" in table["text/plain"]


def test_an_interrupted_search_says_how_to_go_on_and_does(kernel: Kernel) -> None:
    _, error = kernel.run(SEARCH.replace("TRIALS", "50"), interrupt_at="tiny: 1 of 50 trials")
    assert error["ename"] == "KeyboardInterrupt"
    how, _, call = error["evalue"].partition(" Continue with: ")
    assert how == "stopped; finished trials are saved, running ones go back into the queue."
    assert call.startswith("nas.resume('tiny', runs=")
    assert len(error["traceback"]) < 8  # not down to where it waited
    shown, error = kernel.run(f"study = {call[:-1]}, trials=2)")
    assert not error
    assert shown[-1]["text/plain"].startswith("tiny: 2 of 2 trials")
    (endings,), error = kernel.run("list(study.trials()['ending'].dropna())")
    assert (endings["text/plain"], error) == ("['finished', 'finished']", {})


def test_workers_do_not_run_a_script_again(folder: Path) -> None:
    """It has no `if __name__ == "__main__"`; interrupted, its last line says how to go on."""
    (folder / "script.py").write_text(f"print('from the top', flush=True)\n{SEARCH.replace('TRIALS', '50')}")
    with subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(nas.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as script:
        limit = time.monotonic() + PATIENCE
        while not list(folder.glob("runs/tiny/trials/*/outcome.json")) and script.poll() is None:
            assert time.monotonic() < limit
            time.sleep(0.2)
        script.send_signal(signal.SIGINT)
        out, problem = script.communicate(timeout=PATIENCE)
    assert out == "from the top\n"
    assert problem.splitlines()[-1].startswith("KeyboardInterrupt: stopped; finished trials are saved")
    assert "nas.resume('tiny', runs=" in problem
