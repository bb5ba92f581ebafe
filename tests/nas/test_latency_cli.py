"""`nas latency`, on a device that is a formula."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from nas.cli import app
from nas.locks import Lock
from search_spaces import joined_file, space_file
from search_spaces.errors import EnvironmentProblem
from trials.latency import latency_table, runtimes, space_latencies, timings
from trials.latency.latency_table import LatencyTable
from trials.latency.timings import Timings

SPACE = """\
name: small
base: yolov5{scale}.yaml
scale: n
slots:
  - at: {layers: [4]}
    choices:
      UIB: {start_kernel: [0, 3]}
  - at: {layers: [11]}
    choices:
      DySample: {}
"""


class Device:
    """A host with one runtime, its own cache, and what is typed there."""

    def __init__(self, folder: Path, runtime: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._monkeypatch = folder, monkeypatch
        self.space = folder / "small.yaml"
        self.space.write_text(SPACE, encoding="utf-8")
        self.interrupted_after = -1
        self.refuses = ""
        self._runtime = runtime

    def open(self, _name: str, *, threads: int, device: str, device_name: str | None, **of_precision: Any) -> Any:
        assert device == "cpu"
        assert of_precision["precision"] == "fp32"
        opened = self._runtime(device_name or "formula", threads=threads)
        opened.interrupted_after, opened.refuses = self.interrupted_after, self.refuses
        return opened

    def nas(self, command: str, *arguments: object, on: str = "") -> Result:
        self._monkeypatch.setenv("NAS_CACHE", str(self.folder / "cache" / on))
        self._monkeypatch.setattr(runtimes, "open_runtime", self.open)
        asks_of_space = command in {"record", "show", "predict", "error"}
        options = ["--space", self.space, "--deploy-size", 64, "--classes", 3] if asks_of_space else []
        return CliRunner().invoke(app, ["latency", command, *map(str, [*arguments, *options])])


@pytest.fixture
def device(tmp_path: Path, formula: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(tmp_path, formula, monkeypatch)


@pytest.fixture(scope="module")
def table_text(tmp_path_factory: pytest.TempPathFactory, formula: Callable[..., Any]) -> str:
    """What `nas latency record` writes on that device."""
    folder, runtime = tmp_path_factory.mktemp("recorded"), formula()
    (folder / "small.yaml").write_text(SPACE, encoding="utf-8")
    nothing = Timings(profile=runtime.profile, entries={})
    table = LatencyTable(space_file.load(folder / "small.yaml"), 3, 64, nothing)
    list(latency_table.record(table, runtime, folder / "table.csv"))
    return (folder / "table.csv").read_text(encoding="utf-8")


@pytest.fixture
def recorded(device: Device, table_text: str) -> Device:
    path = device.folder / "cache" / "latency" / "formula.csv"
    path.parent.mkdir(parents=True)
    path.write_text(table_text, encoding="utf-8")
    return device


def test_latency_record_prints_only_the_path_of_the_table(device: Device, table_text: str) -> None:
    result = device.nas("record")
    path = Path(result.stdout.strip())
    assert path == device.folder / "cache" / "latency" / "formula.csv"
    assert path.read_text(encoding="utf-8") == table_text
    *_, last = " ".join(result.stderr.split()).partition("measure its error with: nas ")
    assert last == f"latency error --space {device.space} --deploy-size 64 --classes 3"
    assert CliRunner().invoke(app, [*last.split(), "--candidates", "2"]).exit_code == 0


def test_layers_of_several_spaces_are_recorded_together(device: Device) -> None:
    (device.folder / "other.yaml").write_text(
        SPACE.replace("small", "other").replace("yolov5", "yolov8").replace("11", "10")
    )
    device.space = device.folder / "both.yaml"
    device.space.write_text("name: both\nmembers: [{space: small.yaml}, {space: other.yaml}]\n")
    result = device.nas("record")
    assert result.exit_code == 0, result.output
    recorded = timings.read(Path(result.stdout.strip()))
    needed = space_latencies.table(joined_file.load(device.space), 3, 64, recorded).workloads().keys()
    assert len(needed) > 30
    assert needed <= recorded.entries.keys()
    assert "nas latency: not yet possible with several spaces" in device.nas("show").stderr


def test_interrupted_recording_prints_how_to_continue(device: Device) -> None:
    device.interrupted_after = 4
    result = device.nas("record")
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr.strip() == "Stopped; the same command continues from there."
    device.interrupted_after = -1
    assert device.nas("record").exit_code == 0


def test_recording_of_a_layer_that_does_not_run_exits_with_1(device: Device) -> None:
    device.refuses = "DySample"
    result = device.nas("record", "--format", "json")
    assert result.exit_code == 1
    assert len(json.loads(result.stdout)["problems"]) == 1
    assert "inference of DySample for nn.Upsample for 1x128x2x2 failed: no such operation" in result.stderr
    assert "1 layers cannot be timed alone; architectures with them are not predicted" in result.stderr


def test_one_process_records_at_a_time(recorded: Device) -> None:
    lock = Lock(recorded.folder / "cache" / "latency" / ".formula.csv.lock")
    with lock.held():
        result = recorded.nas("record")
    assert result.exit_code == 2
    assert "another process records this table" in result.stderr


def test_latency_show_lists_the_latency_of_every_choice(recorded: Device) -> None:
    rows = json.loads(recorded.nas("show", "--format", "json").stdout)
    assert [(row["slot"], row["choice"]) for row in rows] == [
        ("4", "stock"),
        ("4", "UIB"),
        ("4", "UIB(start_kernel=3)"),
        ("11", "stock"),
        ("11", "DySample"),
    ]
    assert [row["delta_ms"] for row in rows if row["choice"] == "stock"] == [0, 0]
    assert rows[2]["delta_ms"] > rows[1]["delta_ms"]  # one depthwise convolution more


def test_latency_show_without_a_space_lists_the_tables(recorded: Device) -> None:
    recorded.nas("show")  # which sets the cache
    result = CliRunner().invoke(app, ["latency", "show", "--format", "csv"])
    (row,) = csv.DictReader(io.StringIO(result.stdout))
    assert (row["name"], row["runtime"], row["threads"]) == ("formula", "formula", "1")


def test_latency_predict_samples_architectures_of_a_space(recorded: Device) -> None:
    rows = json.loads(recorded.nas("predict", "--sample", 4, "--format", "json").stdout)
    assert len({row["fingerprint"] for row in rows}) == 4
    stock = next(row for row in rows if row["summary"] == "stock")
    assert stock["percent_of_stock"] == pytest.approx(100)


@pytest.mark.parametrize("base", ["the same", "another"])
def test_latency_predict_reads_an_exported_model(base: str, recorded: Device) -> None:
    space = space_file.load(recorded.space, scale="n" if base == "the same" else "s")
    model = recorded.folder / "model.yaml"
    model.write_text(space.of({slot.name: slot.choices[-1] for slot in space.slots}).to_yaml(3), encoding="utf-8")
    result = recorded.nas("predict", model, "--format", "json")
    if base == "the same":
        (row,) = json.loads(result.stdout)
        assert row["summary"] == "UIB 4 · DySample 11"
    else:
        assert result.exit_code == 2
        assert "the latency table formula lacks yolov5s as a whole, 3 classes for 1x3x64x64" in result.stderr


def test_latency_error_compares_predictions_with_measurements(recorded: Device) -> None:
    whole = json.loads(recorded.nas("error", "--candidates", 4, "--format", "json").stdout)
    assert whole["profile"]["name"] == "formula"
    assert (whole["candidates"], whole["steady"]) == (4, 4)
    assert whole["p90_error"] == pytest.approx(0, abs=1e-4)
    assert [round(row["error_percent"], 1) for row in whole["checked"]] == [0] * 4


def test_latency_error_table_ends_with_the_verdict(recorded: Device) -> None:
    result = recorded.nas("error", "--candidates", 3)
    assert "predicted ms" in result.stdout
    assert "error       median 0.0%, nine of ten within 0.0%" in result.stderr
    assert "over 3 candidates" in result.stderr


def test_latency_table_is_exported_and_imported_on_another_machine(
    recorded: Device, table_text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = recorded.folder / "carried.csv"
    assert recorded.nas("export", file).stdout.strip() == str(file)
    imported = json.loads(recorded.nas("import", file, "--format", "json", on="elsewhere").stdout)
    assert imported["file"].endswith("elsewhere/latency/formula.csv")
    assert (imported["entries"], imported["device"]["name"]) == (table_text.count("\n") - 9, "formula")
    assert json.loads(recorded.nas("export", file, "--format", "json").stdout) == imported | {"file": str(file)}

    def none_here(*_arguments: object, **_options: object) -> Any:
        raise EnvironmentProblem("no such runtime here")

    monkeypatch.setattr(recorded, "open", none_here)
    result = recorded.nas("predict", "--device-name", "formula", "--format", "json", on="elsewhere")
    assert json.loads(result.stdout)[0]["predicted_ms"] > 2


def test_latency_import_refuses_a_table_of_another_profile(recorded: Device) -> None:
    file = recorded.folder / "carried.csv"
    recorded.nas("export", file)
    file.write_text(file.read_text(encoding="utf-8").replace("# threads: 1", "# threads: 8"), encoding="utf-8")
    result = recorded.nas("import", file)
    assert result.exit_code == 2
    assert result.stderr.startswith(
        "the table formula is of another device profile: this one has threads 8, not 1 (latencies of two"
    )


def test_unknown_latency_device_suggests_the_nearest(recorded: Device) -> None:
    result = recorded.nas("predict", "--device-name", "formulae")
    assert result.exit_code == 2
    assert "no latency table of 'formulae'" in result.stderr
    assert "did you mean 'formula'?" in result.stderr
