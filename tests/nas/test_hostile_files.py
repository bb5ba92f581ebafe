"""Files that ask for code, downloads or other files, under the commands that read them: refused, with nothing done."""

import os
import pickle
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from typer.testing import CliRunner, Result
from ultralytics import cfg
from ultralytics.nn import tasks
from ultralytics.utils import YAML

from nas.cli import app
from nas.workflows import yolo_command
from search_spaces import space_file
from search_spaces.errors import DataError, SpecError
from search_spaces.yaml_text import read_yaml
from trials.devices import DeviceProfile
from trials.latency.latency_table import LatencyTable
from trials.latency.timings import Timings
from trials.training import yolo_inputs

CASES = Path(__file__).parents[2].parent / "shared" / "cases" / "security"
MARK = "ran-code.txt"
CODE = f"open('{MARK}', 'w').close()"

MODEL = """\
nc: 2
{settings}backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - {row}
  - [-1, 1, C2f, [32, True]]
head:
  - [-1, 1, SPPF, [32, 5]]
  - [[2, 3], 1, Detect, [nc]]
"""
PLAIN = "[-1, 1, Conv, [32, 3, 2]]"
SETTINGS = [
    f'activation: "[{CODE}, nn.ReLU()][1]"',
    f'activation: "nn.LeakyReLU(negative_slope={CODE} or 0.1)"',
    f'activation: "(lambda: {CODE})()"',
    "activation: nn.Module.__init__",
    "activation: torch.hub.load('a/b', 'c')",
    "activation: nn.SiLU().__class__()",
    f'activation: !!python/object/apply:builtins.eval ["{CODE}"]',
    f"yaml_file: !!python/object/apply:os.system ['touch {MARK}']",
    "nas: {modules: [runs.py]}",
    "nas: {modules: [../../runs.py, /etc/passwd]}",
    "scales: {n: [1e9, 1e9, 1e9]}\nscale: n",
    "depth_multiple: 1.0e+12",
    "width_multiple: 1.0e+12",
    "reg_max: 1000000000",
    "nc: 100000000000000000",
]
ROWS = [
    "[-1, 1, check_requirements, [some-package]]",
    "[-1, 1, torch_safe_load, [evil.pt]]",
    "[-1, 1, yaml_model_load, [other.yaml]]",
    "[-1, 1, TorchVision, [32, resnet18, DEFAULT, True, 2]]",
    "[-1, 1, torch.hub.load, [a/b, c]]",
    "[-1, 1, torch.load, [evil.pt]]",
    "[-1, 1, nn.Module, []]",
    "[-1, 1, nn.utils.rnn, []]",
    "[-1, 1, torchvision.ops.misc.torch, []]",
    "[-1, 1, os.system, [touch ran-code.txt]]",
    "[-1, 1, eval, [1]]",
    "[-1, 1, __import__, [os]]",
    "[-1, 1, YOLO, [evil.pt]]",
    "[-1, 1000000000, Conv, [32, 3, 2]]",
    "[-1, 1, Conv, [1000000000000, 3, 2]]",
    "[-1, 1, Conv, [32, 1000000, 2]]",
    f'[-1, 1, Conv, [32, "{CODE}", 2]]',
    "[-1, 1, Conv, [32, __class__, 2]]",
]
MODELS = [MODEL.format(settings=f"{one}\n", row=PLAIN) for one in SETTINGS] + [
    MODEL.format(settings="", row=row) for row in ROWS
]
BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
)
READERS: dict[str, tuple[str, ...]] = {
    "cost": ("cost", "model.yaml"),
    "derive": ("spaces", "derive", "model.yaml"),
    "check": ("check", "--model", "model.yaml"),
    "space": ("spaces", "space.yaml"),
    "plan": ("search", "--dry-run", "--space", "space.yaml"),
    "train": ("yolo", "train", "model=model.yaml", "data=data.yaml", "epochs=1", "project=runs"),
}
SPACE = """\
name: hostile
base: model.yaml
slots:
  - at: {layers: [2]}
    choices: {UIB: {}}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_module_is_trusted: None, guards_end: None) -> Path:  # noqa: ARG001
    """A working directory in which code that runs would leave a file; the network raises."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs.py").write_text(CODE, encoding="utf-8")
    (tmp_path / "space.yaml").write_text(SPACE, encoding="utf-8")
    write_pickle(tmp_path / "evil.pt")

    def refuse(*_arguments: Any, **_options: Any) -> NoReturn:
        pytest.fail("reached for the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tmp_path


class Writes:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (MARK, "w")


def write_pickle(path: Path) -> None:
    torch.save({"model": Writes()}, path, pickle_module=pickle)


def nas(*words: str) -> Result:
    return CliRunner().invoke(app, [*words])


def require_refused(result: Result, *, least: int = 1) -> None:
    assert not Path(MARK).exists()
    assert isinstance(result.exception, SystemExit), (result.exception, result.output)
    assert result.exit_code == 2, result.output
    assert len(result.stderr.strip().splitlines()) >= least
    assert "\x1b" not in result.output


@pytest.mark.parametrize("text", MODELS)
@pytest.mark.parametrize("reader", ["cost", "derive", "space"])
def test_model_file_that_asks_for_more_is_refused(folder: Path, text: str, reader: str) -> None:
    (folder / "model.yaml").write_text(text, encoding="utf-8")
    began = time.monotonic()
    require_refused(nas(*READERS[reader]))
    assert time.monotonic() - began < 60
    assert {path.name for path in folder.iterdir()} <= {"runs.py", "space.yaml", "evil.pt", "model.yaml"}


@pytest.mark.parametrize("reader", ["check", "plan", "train"])
@pytest.mark.parametrize(
    "text", [MODELS[0], MODELS[6], MODELS[8], MODELS[len(SETTINGS) + 1], MODELS[len(SETTINGS) + 3]]
)
def test_every_command_refuses_such_a_model_file(
    folder: Path, text: str, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "model.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["yolo"])
    require_refused(nas(*READERS[reader]))
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    "download", [CODE, f"bash touch {MARK}", f"touch {MARK}", "https://example.com/data.zip", f"import os; {CODE}"]
)
def test_download_of_a_data_file_is_not_followed(folder: Path, download: str) -> None:
    text = f"path: nowhere\ntrain: images\nval: images\nnames: [a]\ndownload: |\n  {download}\n"
    (folder / "data.yaml").write_text(text, encoding="utf-8")
    require_refused(nas("data", "data.yaml"))
    require_refused(nas("search", "--dry-run", "--space", "v8", "--data", "data.yaml"))


@pytest.mark.parametrize("key", ["path", "train", "val"])
@pytest.mark.parametrize(
    "address", ["https://example.com/x", "http://127.0.0.1:9/a.zip", "ul://a/datasets/b", "s3://a/b"]
)
def test_addresses_in_a_data_file_are_not_fetched(folder: Path, key: str, address: str) -> None:
    keys = {"path": ".", "train": "images", "val": "images", key: address}
    (folder / "data.yaml").write_text(
        "".join(f"{k}: {v}\n" for k, v in keys.items()) + "names: [a]\n", encoding="utf-8"
    )
    require_refused(nas("data", "data.yaml"))


@pytest.mark.parametrize(
    "words",
    [
        ("data", "bomb.yaml"),
        ("spaces", "bomb.yaml"),
        ("cost", "bomb.yaml"),
        ("search", "--dry-run", "--space", "bomb.yaml"),
        ("search", "--dry-run", "--space", "v8", "--data", "bomb.yaml"),
    ],
)
def test_aliases_without_end_take_no_time(folder: Path, words: tuple[str, ...]) -> None:
    (folder / "bomb.yaml").write_text(f"train: a\nval: a\nnames: [a]\n{BOMB}\n", encoding="utf-8")
    began = time.monotonic()
    result = nas(*words)
    require_refused(result)
    assert "aliases repeat more than" in result.stderr
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("argument", ["model", "pretrained", "resume", "distill_model"])
def test_pickle_on_ultralytics_command_line_is_refused(
    folder: Path, argument: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["yolo"])
    result = nas("yolo", "train", f"{argument}=evil.pt", f"data={folder}/data.yaml", "project=runs")
    require_refused(result)
    assert "add --trust" in result.stderr


@pytest.mark.parametrize(
    "argument", ["model=pipe.pt", "model=pipe.yaml", "data=pipe.yaml", "resume=pipe.pt", "tracker=pipe.yaml"]
)
def test_pipe_on_ultralytics_command_line_is_refused(argument: str, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(argument.partition("=")[2])
    monkeypatch.setattr(sys, "argv", ["yolo"])
    require_refused(nas("yolo", "train", argument, "project=runs"))


@pytest.mark.parametrize("argument", ["model", "pretrained", "resume"])
def test_missing_checkpoint_is_not_looked_for_in_the_network(argument: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("loop.pt").symlink_to("loop.pt")
    monkeypatch.setattr(sys, "argv", ["yolo"])
    for name in ("mine.pt", "loop.pt", "folder/mine.pt"):
        result = nas("yolo", "train", f"{argument}={name}", "project=runs")
        require_refused(result)
        assert f"{name}: no such file" in result.stderr


@pytest.mark.usefixtures("guards_end")
def test_file_of_settings_on_ultralytics_command_line_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("args.yaml").write_text("model: yolov8n.yaml\nepochs: 1\n")
    read = list[str]()

    def counted(file: Path) -> dict[str, Any]:
        read.append(file.name)
        return read_yaml(file)

    monkeypatch.setattr(yolo_inputs, "read_yaml", counted)
    monkeypatch.setattr(cfg, "entrypoint", lambda: None)
    monkeypatch.setattr(sys, "argv", ["yolo"])
    yolo_command.run(["train", "cfg=args.yaml"])
    assert read == ["args.yaml"]


@pytest.fixture
def _guarded(guards_end: None) -> None:  # noqa: ARG001 - a fixture
    """Guards of `nas yolo` for one test."""
    yolo_inputs.guard()


@pytest.mark.usefixtures("_guarded")
def test_pickle_that_a_file_names_is_refused_where_it_is_opened() -> None:
    """As Ultralytics opens it for `model:` of a tracker's settings."""
    with pytest.raises(DataError, match="it holds code or classes"):
        tasks.load_checkpoint("evil.pt")
    assert not Path(MARK).exists()


@pytest.mark.usefixtures("_guarded")
def test_address_in_a_file_of_settings_is_refused(folder: Path) -> None:
    file = folder / "tracker.yaml"
    file.write_text("tracker_type: botsort\nmodel: https://example.com/reid.pt\nurl: https://example.com\n", "utf-8")
    with pytest.raises(SpecError, match=r"tracker.yaml: model: a file may not ask for a download") as refused:
        YAML.load(file)
    assert len(refused.value.mistakes) == 1


@pytest.mark.parametrize("words", [("cfg", "=", "args.yaml"), ("cfg=", "args.yaml"), ("cfg=args.yaml,",)])
def test_arguments_are_checked_however_they_are_typed(
    folder: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "args.yaml").write_text("project: /elsewhere\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["yolo"])
    result = nas("yolo", "val", "model=yolov8n.yaml", *words)
    require_refused(result)
    assert "a file of settings may not choose where results are written" in result.stderr


def test_list_of_images_to_download_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "data.ndjson").write_text('{"type": "image", "url": "https://example.com/a.jpg"}\n', encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["yolo"])
    require_refused(nas("yolo", "train", "model=yolov8n.yaml", "data=data.ndjson", "project=runs"))


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "..", "a/../../b", "x\0y", "~/x"])  # noqa: S108 - must not be used
def test_latency_table_cannot_choose_its_place(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_CACHE", str(folder / "cache"))
    head = {"name": name, "processor": "p", "runtime": "torch; touch x", "version": "1", "threads": 1, "torch": "2"}
    columns = "key,what,received,median_ms,spread_ms,p90_ms,passes,steady\nk,a,1x1,1,0,1,10,yes\n"
    text = "".join(f"# {key}: {value}\n" for key, value in {**head, "precision": "fp32"}.items()) + columns
    (folder / "table.csv").write_text(text, encoding="utf-8")
    nas("latency", "import", "table.csv")
    written = [path for path in folder.rglob("*.csv") if path.name != "table.csv"]
    assert all(path.parent == folder / "cache" / "latency" for path in written)


def test_texts_of_a_latency_table_are_quoted_in_commands() -> None:
    hostile = "a; touch ran-code.txt #"
    profile = DeviceProfile(name=hostile, processor="p", runtime=hostile, version="1", threads=1, torch="2")
    table = LatencyTable(space_file.load("v8"), 2, 64, Timings(profile=profile, entries={}))
    words = shlex.split(table.recording_command)
    assert words.count(hostile) == 2


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not on this machine")
@pytest.mark.parametrize("case", sorted(path.name for path in CASES.glob("*.yaml")))
def test_cases_are_refused(folder: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in CASES.iterdir():
        shutil.copy(path, folder)
    write_pickle(folder / "made-by-make.pt")
    monkeypatch.setattr(sys, "argv", ["yolo"])
    is_model = "backbone:" in (folder / case).read_text(encoding="utf-8")
    models = [("cost", case), ("spaces", "derive", case), ("yolo", "val", f"model={case}", "data=data.yaml")]
    data = [("data", case), ("search", "--dry-run", "--space", "v8", "--data", case)]
    for words in models if is_model else data:
        require_refused(nas(*words))
    os.chdir(folder)
