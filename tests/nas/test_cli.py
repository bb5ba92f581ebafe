"""Commands as a user types them, on a study that was scored by a formula."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from optuna.trial import TrialState
from PIL import Image
from typer.testing import CliRunner, Result
from ultralytics.nn.tasks import yaml_model_load

from nas._version import __version__
from nas.cli import app, show, units
from nas.execution import worker
from nas.execution.worker import Worker
from nas.records.data_frame import data_frame
from nas.records.record import COLUMNS, Record, cheapest_as_accurate
from nas.report.few_images import few_images_in_words
from nas.study.study import Study
from search_spaces import model_reader
from trials import Outcome

MakeStudy = Callable[..., Study]


def nas(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def study(make_study: MakeStudy, score: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> Study:
    made = make_study(trials=5)
    monkeypatch.setattr(worker, "evaluate", score)
    Worker(made, deadline=float("inf")).run()
    return made


def runs(study: Study) -> tuple[str, Path]:
    return "--runs", study.folder.parent


def test_a_study_whose_space_has_changed_is_shown_but_not_resumed(study: Study) -> None:
    study.save_records()
    path = study.folder / "space.yaml"
    path.write_text(path.read_text().replace("[2, 4]", "[2, 8]"))
    assert nas("trials", "small", *runs(study)).exit_code == 0
    refused = nas("resume", "small", *runs(study))
    assert refused.exit_code == 2
    assert "space.yaml: the space has changed since the study was created" in " ".join(refused.stderr.split())


def test_an_interrupted_trial_is_not_called_failed(study: Study) -> None:
    study.enqueue(study.space.stock)
    number = study.optuna_trials()[-1]._trial_id
    study.storage.set_trial_state_values(number, TrialState.RUNNING)
    study.storage.set_trial_state_values(number, TrialState.FAIL)  # as a supervisor ends what a killed worker left
    shown = nas("trials", "small", *runs(study)).stdout
    assert "interrupted" in shown
    assert "fail" not in shown
    refused = nas("export", "small", "--trial", 5, *runs(study))
    assert "trial 5 is interrupted" in " ".join(refused.stderr.split())


def test_trials_that_have_no_latency_yet_are_listed(make_study: MakeStudy) -> None:
    study = make_study(objectives=("map50_95", "latency_ms"))
    study.enqueue(study.space.stock)
    result = nas("trials", study.name, *runs(study))
    assert result.exit_code == 0, result.output
    heading = result.stdout.splitlines()[1]
    assert heading.index("GFLOPs") < heading.index("of stock") < heading.index("architecture")


def test_help_of_resume_names_the_defaults_of_resume() -> None:
    shown = " ".join(nas("resume", "--help").stdout.replace("│", " ").split())
    assert shown.count("[default: as before]") == 6
    assert "else 30" not in shown


def test_version_is_printed() -> None:
    assert nas("--version").stdout == f"nas {__version__}\n"


def test_keys_of_trials_as_json_are_stable(study: Study) -> None:
    rows = json.loads(nas("trials", "small", *runs(study), "--format", "json").stdout)
    assert len(rows) == 5
    assert all(tuple(row) == COLUMNS for row in rows)
    assert rows[0] | {"seconds": 0.3} == {
        "trial": 0,
        "state": "complete",
        "ending": "finished",
        "map50_95": rows[0]["map50"],
        "map50": rows[0]["map50"],
        "expected": None,
        "gflops": rows[0]["gflops"],
        "params": 1000,
        "latency_ms": 1.0,
        "measured_ms": None,
        "inherited": 0.0,
        "epochs": 3,
        "seconds": 0.3,
        "repeat": 0,
        "seeds": 1,
        "fingerprint": study.space.stock.fingerprint,
        "picks": {},
    }


TABLE_COLUMNS = (*COLUMNS, "architecture", "on_front")


def test_trials_as_a_data_frame_are_those_of_json(study: Study) -> None:
    study.enqueue(study.space.stock)  # has no score yet
    table = study.trials()
    rows = json.loads(nas("trials", "small", *runs(study), "--format", "json").stdout)
    assert tuple(table.columns) == TABLE_COLUMNS
    assert records_of(table[list(COLUMNS)]) == rows
    assert list(table["trial"][table["on_front"]]) == sorted(record.trial for record in study.front())
    assert table["architecture"][0] == "stock"
    assert (len(table), int(table["map50_95"].isna().sum())) == (6, 1)
    assert str(table["params"].dtype) == "Int64"


def records_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table, with None for what is missing."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def test_no_trials_are_an_empty_data_frame() -> None:
    table = data_frame([], on_front=())
    assert (len(table), tuple(table.columns), str(table["gflops"].dtype)) == (0, TABLE_COLUMNS, "float64")


def test_columns_of_the_data_frame_are_documented() -> None:
    described = re.findall(r"^ *\| (`.*?) \|", Study.trials.__doc__ or "", re.MULTILINE)
    assert tuple(re.findall(r"`(\w+)`", " ".join(described))) == TABLE_COLUMNS


def test_pareto_as_csv_is_the_front(study: Study) -> None:
    rows = list(csv.DictReader(io.StringIO(nas("pareto", "small", *runs(study), "--format", "csv").stdout)))
    assert [int(row["trial"]) for row in rows] == [record.trial for record in study.front()]


def test_pareto_expected_is_a_pareto_front(study: Study) -> None:
    rows = json.loads(nas("pareto", "small", *runs(study), "--expected", "--format", "json").stdout)
    assert rows
    assert all(0 < row["expected"] < 1 for row in rows)
    pairs = [(row["expected"], row["gflops"]) for row in rows]
    assert pairs == sorted(pairs, reverse=True)
    assert "expected" in nas("pareto", "small", *runs(study), "--expected").stdout


@pytest.mark.parametrize("trials", [0, 2])
def test_pareto_expected_of_few_trials_says_how_many_are_needed(
    trials: int, make_study: MakeStudy, score: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = make_study(trials=trials or 1)
    if trials:
        monkeypatch.setattr(worker, "evaluate", score)
        Worker(few, deadline=float("inf")).run()
    result = nas("pareto", "small", "--expected", *runs(few))
    needed = "expected scores are estimated from at least 3 finished trials; small has "
    assert f"{needed}{trials}" in " ".join(result.stderr.split())
    table, expected = (
        nas("pareto", "small", *option, "--format", "csv", *runs(few)).stdout.splitlines()
        for option in ((), ("--expected",))
    )
    assert table[0] == expected[0] == ",".join(COLUMNS)


def test_pareto_never_claims_a_gain_from_one_seed(study: Study) -> None:
    assert (
        "Nothing that was tried is more accurate than the stock model; " in nas("pareto", "small", *runs(study)).stderr
    )


def test_suggested_commands_name_the_folder_of_the_study(study: Study) -> None:
    text = " ".join(nas("pareto", "small", *runs(study)).stderr.split())
    where = " ".join(map(str, runs(study)))
    assert "nas confirm" not in text  # the front is the stock model alone
    assert f"export the most accurate with: nas export small {where} --best map" in text


def record_of(trial: int, accuracy: float, gflops: float) -> Record:
    return Record(trial=trial, state="complete", ending="finished", map50_95=accuracy, gflops=gflops, picks={})


@pytest.mark.parametrize(
    ("front", "found"),
    [
        ([], None),
        ([(1, 0.60, 8.0), (2, 0.50, 8.1)], None),  # costlier
        ([(1, 0.60, 7.0)], 1),
        ([(1, 0.60, 7.0), (2, 0.491, 6.5), (3, 0.489, 6.0)], 2),  # the third loses more than a point
    ],
)
def test_cheapest_model_as_accurate_as_stock_is_found(front: list[tuple[int, float, float]], found: int | None) -> None:
    bargain = cheapest_as_accurate([record_of(*each) for each in front], record_of(0, 0.5, 7.6))
    assert (bargain and bargain.trial) == found


def test_a_point_is_no_small_difference_to_a_stock_model_that_scores_two() -> None:
    front = [record_of(1, 0.010, 6.0), record_of(2, 0.016, 7.0)]
    bargain = cheapest_as_accurate(front, record_of(0, 0.017, 7.6))
    assert bargain is not None
    assert bargain.trial == 2


def test_status_counts_trials(study: Study) -> None:
    (row,) = json.loads(nas("status", *runs(study), "--format", "json").stdout)
    assert (row["study"], row["trials"], row["of"], row["running"]) == ("small", 5, 5, False)


def test_architectures_that_begin_with_a_number_stand_on_the_left() -> None:
    rows = [{"trial": 3, "summary": "18 expansion=4: UIB 3, 18"}, {"trial": 11, "summary": "18 expansion=2: UIB"}]
    lines = show.table_lines(rows, {"trial": "trial", "summary": "architecture"}, (), width=60)
    assert lines == ["trial  architecture", "    3  18 expansion=4: UIB 3, 18", "   11  18 expansion=2: UIB"]


def test_status_explains_waiting(study: Study) -> None:
    assert "waiting:" not in nas("status", *runs(study)).stderr
    study.enqueue(study.space.stock)
    assert "waiting: architectures in the queue" in nas("status", *runs(study)).stderr


@pytest.mark.parametrize("command", ["status", "pareto", "trials"])
def test_a_study_that_runs_is_looked_at_without_pytorch(study: Study, command: str) -> None:
    study.enqueue(study.space.stock)  # a trial that has not ended is in the storage only
    arguments = [command, "small", *map(str, runs(study)), "--format", "json"]
    code = f"""if True:
        import sys
        from nas.cli import app
        app({arguments!r}, standalone_mode=False)
        print(sorted({{"torch", "ultralytics", "mlflow", "pandas"}} & set(sys.modules)), file=sys.stderr)
        """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.splitlines()[-1] == "[]"
    rows = json.loads(done.stdout)
    assert rows[0].get("waiting", 1) == 1
    assert command != "trials" or len(rows) == 6


def test_a_waiting_trial_is_shown_with_its_architecture(study: Study) -> None:
    other = study.architecture(study.records()[1])
    study.enqueue(other)
    *_, waiting = study.records()
    assert (waiting.state, waiting.picks, waiting.summary) == ("waiting", other.as_picks(), other.summary())


def test_unknown_study_suggests_the_most_similar_name_with_status_2(study: Study) -> None:
    result = nas("pareto", "smal", *runs(study))
    assert result.exit_code == 2
    assert "did you mean 'small'?" in result.stderr
    assert result.stdout == ""


def test_clean_dry_run_lists_files_and_deletes_nothing(study: Study) -> None:
    before = sorted(study.folder.rglob("*"))
    result = nas("clean", "small", "--all", "--dry-run", *runs(study))
    assert result.stdout.split() == [str(study.folder)]
    assert sorted(study.folder.rglob("*")) == before


@pytest.mark.parametrize("linked", ["trials", "trials/0001", "trials/0001/ultralytics", "workers"])
def test_clean_deletes_nothing_through_a_link(study: Study, linked: str, tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", study.folder / linked
    for trial in study.records():
        (study.files(trial.trial).folder / "ultralytics").mkdir()
        (study.files(trial.trial).folder / "ultralytics" / "scratch").touch()
    (study.folder / "workers").mkdir()
    (study.folder / "workers" / "0.log").touch()
    inside.rename(outside)
    inside.symlink_to(outside)
    before = sorted(outside.rglob("*"))
    assert nas("clean", "small", *runs(study)).exit_code == 0
    assert sorted(outside.rglob("*")) == before
    assert inside.is_symlink() == (linked != "trials/0001/ultralytics")  # what would go is unlinked


def test_clean_all_of_a_linked_study_deletes_the_link(study: Study, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    study.folder.rename(outside)
    study.folder.symlink_to(outside)
    result = nas("clean", "small", "--all", *runs(study))
    assert result.exit_code == 0
    assert "is a link: what it leads to" in result.stderr
    assert not study.folder.is_symlink()
    assert (outside / "study.json").is_file()


def test_export_refuses_a_trial_and_a_choice(study: Study) -> None:
    result = nas("export", "small", "--trial", 0, "--best", "knee", *runs(study))
    assert result.exit_code == 2
    assert "best: trial 0 is to be exported, and the knee of the front (give one of the two)" in " ".join(
        result.stderr.split()
    )


def test_clean_all_deletes_the_study(study: Study) -> None:
    result = nas("clean", "small", "--all", *runs(study))
    assert result.exit_code == 0
    assert "deleting the whole study: all 5 trials, weights, and Optuna's database, " in result.stderr
    assert not study.folder.exists()


def test_spaces_lists_the_catalog() -> None:
    rows = json.loads(nas("spaces", "--format", "json").stdout)
    assert [row["space"] for row in rows] == [
        f"v{family}{kind}" for family in (5, 8, 9, 10, 11, 12, 26) for kind in ("", "-plus")
    ]
    assert all(row["size"] > 1e9 for row in rows)


def test_a_space_shows_the_costs_it_can_reach() -> None:
    document = json.loads(nas("spaces", "v5", "--format", "json", "--deploy-size", 64).stdout)
    assert document["gflops"][0] < document["stock"]["gflops"] < document["gflops"][1]
    assert {slot["slot"] for slot in document["slots"]} >= {"2", "4", "6", "8"}


def printed(folder: Path) -> Path:
    """YOLOv5n as an article prints it, with its block in one layer."""
    document = yaml_model_load("yolov5n.yaml")
    document["backbone"][2][2], document["head"][-1][3] = "C3_UIB", ["nc", "anchors"]
    del document["scales"], document["scale"], document["yaml_file"]
    file = folder / "printed.yaml"
    shape = {"anchors": [[10, 13, 16, 30, 33, 23]] * 3, "depth_multiple": 0.33, "width_multiple": 0.25}
    file.write_text(yaml.safe_dump(document | shape))
    return file


def test_cost_counts_a_printed_file_corrected_and_as_printed(tmp_path: Path) -> None:
    file = printed(tmp_path)
    right = nas("cost", file, "--image-size", 64, "--format", "json")
    printed_result = nas("cost", file, "--image-size", 64, "--format", "json", "--as-printed")
    notes = json.loads(right.stdout)["notes"]
    assert [note.partition(":")[0] for note in notes] == ["C3_UIB", "Detect"]
    assert right.stderr.count("note: ") == 2
    right_cost, printed_cost = json.loads(right.stdout), json.loads(printed_result.stdout)
    assert printed_cost["layers"][2] == {**printed_cost["layers"][2], "module": "C3_UIB", "params": 3104}
    assert printed_cost["layers"][-1] == {**printed_cost["layers"][-1], "module": "AnchorDetect", "params": 115_005}
    assert right_cost["layers"][-1] == {**right_cost["layers"][-1], "module": "Detect", "params": 897_664}


def test_cost_reports_what_counters_overlook_and_the_auxiliary_branch() -> None:
    document = json.loads(nas("cost", "yolov9c-dcnv4", "--image-size", 64, "--format", "json").stdout)
    assert document["trained"]["params"] > 1.9 * document["params"]
    assert set(document["counters"]["overlooked"]) == {"DCNv4"}


def test_models_lists_the_packaged_models() -> None:
    rows = json.loads(nas("models", "--format", "json").stdout)
    assert {row["model"] for row in rows} == set(model_reader.catalog())
    assert all(Path(row["path"]).is_file() and row["about"] and row["params"] > 2_000_000 for row in rows)


def test_keys_of_cost_as_json_are_stable() -> None:
    document = json.loads(nas("cost", "yolov8n.yaml", "--image-size", 64, "--format", "json").stdout)
    assert document["params"] == 3_157_200
    assert set(document) == {"params", "gflops", "image_size", "classes", "scale", "deployed", "notes", "layers"}
    assert (document["scale"], document["notes"]) == ("n", [])
    assert set(document["deployed"]) == {"params", "gflops"}
    assert set(document["layers"][0]) == {"index", "module", "params", "gflops"}
    assert sum(layer["params"] for layer in document["layers"]) == document["params"]


@pytest.fixture
def scaled(tmp_path: Path) -> Path:
    """A model file with two scales and none in its name."""
    file = tmp_path / "mine.yaml"
    rows = [[-1, 1, "Conv", [64, 3, 2]], [-1, 3, "C2f", [256, True]], [-1, 1, "C2f_DCNv4", [256, True]]]
    head = [[[1, 2], 1, "Detect", ["nc"]]]
    scales = {"n": [0.33, 0.25, 1024], "s": [0.33, 0.5, 1024]}
    file.write_text(yaml.safe_dump({"nc": 2, "scales": scales, "backbone": rows, "head": head}))
    return file


def test_cost_notes_the_scale_and_accepts_another(scaled: Path) -> None:
    first = nas("cost", scaled, "--image-size", 64)
    assert "note: counted at n, the first scale of the file's table; --scale takes another (s)" in first.stderr
    assert "mine.yaml at scale n" in " ".join(first.stdout.split())
    params = {}
    for scale in ("n", "s"):
        document = json.loads(nas("cost", scaled, "--image-size", 64, "--scale", scale, "--format", "json").stdout)
        assert document["scale"] == scale
        assert not any("first scale" in note for note in document["notes"])
        params[scale] = document["params"]
    assert params["s"] > 2 * params["n"]
    of_name = scaled.rename(scaled.with_name("yolov8s-mine.yaml"))
    assert json.loads(nas("cost", of_name, "--image-size", 64, "--format", "json").stdout)["params"] == params["s"]


@pytest.mark.parametrize(
    ("model", "image_size", "params"),
    [
        ("yolov8n-seg.yaml", 640, 3_409_968),
        ("yolo11n-pose.yaml", 640, 2_908_507),
        ("yolov8n-cls.yaml", 224, 2_719_288),
        ("yolov8s-world.yaml", 640, 13_383_496),
        ("rtdetr-l.yaml", 640, 32_970_476),
    ],
)
def test_models_that_are_not_searched_are_counted(model: str, image_size: int, params: int) -> None:
    document = json.loads(nas("cost", model, "--format", "json").stdout)
    assert (document["params"], document["image_size"]) == (params, image_size)
    assert 0 < document["deployed"]["params"] < params
    assert 0 < document["deployed"]["gflops"] <= document["gflops"]


@pytest.mark.parametrize("command", [("spaces", "derive"), ("check", "--model")])
@pytest.mark.parametrize("model", ["yolov8n-seg.yaml", "yolov8s-world.yaml", "rtdetr-l.yaml"])
def test_models_that_are_not_searched_are_refused_elsewhere(command: tuple[str, ...], model: str) -> None:
    result = nas(*command, model)
    assert result.exit_code == 2
    assert "only detection models can be searched, got " in result.stderr.splitlines()[-1]
    assert "nas cost counts this one" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("command", [("cost",), ("spaces", "derive"), ("check", "--model")])
@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("mine.yaml", "scale: the model has no scale 'q' (one of n, s)"),
        ("yolov9c.yaml", "scale: the model has no table"),
    ],
    ids=["a table", "no table"],
)
def test_an_unknown_scale_is_refused(command: tuple[str, ...], model: str, message: str, scaled: Path) -> None:
    file = scaled if model == "mine.yaml" else model
    result = nas(*command, file, "--scale", "q")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith(f"{model}: {message}")


def test_the_remark_about_counters_names_the_operators(scaled: Path) -> None:
    assert "they overlook less than 0.05 in DCNv4, which" in nas("cost", scaled, "--image-size", 64).stderr


WRONG = {
    "an unknown space": (["--space", "v99"], "did you mean 'v9'?"),
    "an unknown scale": (["--scale", "q"], "one of c, e, m, s, t"),
    "a missing data set": (["--data", "nope.yaml"], "nope.yaml: no such file"),
    "a GPU that is not there": (["--device", "77"], "device: no GPU 77 here"),
    "a device that is none": (["--device", "gpu"], "device: cpu, or indices of GPUs, got 'gpu'"),
    "a name with a way out": (["--study", "../x"], "study: letters, digits"),
    "a negative limit": (["--max-gflops", "-1"], "max-gflops: input should be greater than 0, got -1.0"),
    "a limit out of reach": (["--max-gflops", "0.1"], "max-gflops: outside what the space can reach"),
    "an unknown objective": (["--objectives", "map50,flops"], "did you mean 'gflops'?"),
    "a reward without a target": (["--reward", "tunas"], "give --target-gflops or --target-latency"),
    "missing weights": (["--weights", "nope.pt"], "weights: no such file, got 'nope.pt'"),
    "an image size": (["--image-size", "100"], "image-size: input should be a multiple of 32, got 100"),
}


@pytest.mark.parametrize(("flags", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_one_line_and_nothing_is_written(
    flags: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = nas("search", *flags)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_the_message_about_an_unwritable_folder_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    result = nas("search", "--runs", tmp_path / "file" / "runs")
    assert result.exit_code == 2
    assert f"{tmp_path / 'file' / 'runs'}" in result.stderr.splitlines()[-1]


def test_a_storage_that_cannot_be_opened_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = nas("search", "--storage", "nonsense://somewhere")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("storage: no address of a database, got 'nonsense://somewhere'")
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = nas("search", "--dry-run")
    assert result.exit_code == 0
    assert "10 trials of 3 epochs" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def spoiled(tmp_path: Path) -> Path:
    """A data set of three images a split; one of each does not open, one has no label file."""
    for split in ("train", "val"):
        images, labels = tmp_path / "cats" / "images" / split, tmp_path / "cats" / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for name in ("a", "b", "c"):
            Image.new("RGB", (32, 32)).save(images / f"{name}.png")
            (labels / f"{name}.txt").write_text("0 0.5 0.5 0.2 0.2\n0 0.5 0.5 0 0\n")
        (images / "b.png").write_bytes(b"")
        (labels / "c.txt").unlink()
    file = tmp_path / "cats" / "data.yaml"
    file.write_text("train: images/train\nval: images/val\nnames: [no]\n")
    return file


REMARKS = """\
data      cats: 2 + 2 images, 1 + 1 of them background, 1 + 1 boxes, 1 class
left out  train: 1 of 3 images, which cannot be read: images/train/b.png: an empty file
left out  train: boxes without area, 1, the first at labels/train/a.txt:2
left out  val: 1 of 3 images, which cannot be read: images/val/b.png: an empty file
left out  val: boxes without area, 1, the first at labels/val/a.txt:2
warning   val: 2 images: on so few, scores differ by chance
"""


def test_a_plan_summarizes_its_data_set(spoiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = nas("search", "--data", spoiled, "--dry-run")
    assert result.exit_code == 0
    assert REMARKS in result.stderr
    plan = json.loads(nas("search", "--data", spoiled, "--dry-run", "--format", "json").stdout)
    assert plan["data"] == json.loads(nas("data", spoiled, "--format", "json").stdout)
    assert plan["workers"]


def test_nas_data_summarizes_a_data_set(spoiled: Path) -> None:
    nothing = "no labelled images beside train and val; nas search --holdout 15% seals some of those, to judge by"
    assert nas("data", spoiled).stdout == f"{REMARKS}test      {nothing}\n"
    document = json.loads(nas("data", spoiled, "--format", "json").stdout)
    assert (document["name"], document["classes"], document["path"]) == ("cats", ["no"], str(spoiled))
    assert document["train"] == {
        "unused": 0,
        "first_unused": "",
        "images": 2,
        "left_out": [{"image": str(spoiled.parent / "images/train/b.png"), "problem": "an empty file"}],
        "without_label": 1,
        "empty": 0,
        "background": 1,
        "boxes": 1,
        "without_area": 1,
        "first_without_area": f"{spoiled.parent}/labels/train/a.txt:2",
        "twice": 0,
        "first_twice": "",
        "per_class": [1],
        "looks_wrong": [],
    }
    assert document["looks_wrong"] == ["val: 2 images: on so few, scores differ by chance"]
    assert document["test"] == {"images": 0}


def test_nas_data_counts_the_images_of_the_test_split(tmp_path: Path, write_scenes: Callable[..., Path]) -> None:
    file = write_scenes(tmp_path)
    for kind in ("images", "labels"):
        (tmp_path / kind / "val").rename(tmp_path / kind / "test")
        shutil.copytree(tmp_path / kind / "train", tmp_path / kind / "val")
    file.write_text(f"{file.read_text()}test: images/test\n")
    line = "test      20 images that no search reads: nas confirm judges by them"
    assert line in nas("data", file).stdout.splitlines()
    plan = nas("search", "--data", file, "--runs", tmp_path / "runs", "--dry-run").stderr
    assert "holdout   the test split, 20 images: no search reads them; nas confirm judges by them" in plan
    sealing = nas("search", "--data", file, "--runs", tmp_path / "runs", "--holdout", "15%", "--dry-run")
    assert sealing.exit_code == 2
    assert sealing.stderr.splitlines()[-1].startswith("holdout: the data set has a test split of 20 images")


def test_plan_says_how_many_images_are_sealed(tmp_path: Path, write_scenes: Callable[..., Path]) -> None:
    command = ("search", "--data", write_scenes(tmp_path), "--runs", tmp_path / "runs", "--dry-run")
    sealed = "9 of 60 images are sealed: no training and no search score reads them; nas confirm judges by them"
    assert f"holdout   {sealed}" in nas(*command, "--holdout", "15%").stderr.splitlines()
    assert json.loads(nas(*command, "--holdout", ".15", "--format", "json").stdout)["holdout"] == sealed
    assert "holdout" not in nas(*command).stderr
    assert nas(*command, "--holdout", "half").stderr.splitlines()[-1] == (
        "holdout: a share such as 15% or 0.15 is expected, got 'half'"
    )


def test_plan_warns_of_few_images_that_judge(tmp_path: Path, write_scenes: Callable[..., Path]) -> None:
    command = ("search", "--data", write_scenes(tmp_path), "--runs", tmp_path / "runs", "--dry-run", "--holdout", "15%")
    few = (
        "9 images are few to judge by: with any number of seeds they tell true differences of about 2.9 points or "
        "more, 50 images 1.1 (as measured on BCCD)"
    )
    assert f"few       {few}" in nas(*command).stderr.splitlines()
    assert json.loads(nas(*command, "--format", "json").stdout)["few"] == few
    assert few_images_in_words(48).endswith("of about 1.1 points or more (as measured on BCCD)")


def test_share_that_confirm_would_refuse_is_refused_by_the_search(
    tmp_path: Path, write_scenes: Callable[..., Path]
) -> None:
    file = write_scenes(tmp_path, train=16, val=6)
    result = nas("search", "--data", file, "--runs", tmp_path / "runs", "--dry-run", "--holdout", "5%")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == (
        "holdout: at 5% only 1 of 22 images would be sealed, and 2 are the least that judge "
        "(--holdout 10% would seal 3 images, and no class would vanish; or give the data.yaml a test: split, whose "
        "images no search reads)"
    )


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (("--holdout", "3%"), "holdout: input should be at least 5%, got '3%' (from 5% to 50%)"),
        (("--holdout", "15"), "holdout: input should be at most 50%, got '15' (did you mean 15%?)"),
        (("--holdout", "80"), "holdout: input should be at most 50%, got '80' (from 5% to 50%)"),
        (("--trial-memory", "5M"), "trial-memory: input should be at least 64M, got '5M' (from 64M to 1024T)"),
        (("--timeout", "0h"), "timeout: input should be greater than 0, got '0h' (above 0 to 10000h)"),
    ],
)
def test_message_shows_a_number_with_the_unit_that_was_typed(typed: tuple[str, str], message: str) -> None:
    assert nas("search", *typed, "--dry-run").stderr.splitlines() == [message]


def test_dry_run_refuses_a_data_set_without_readable_images(spoiled: Path) -> None:
    for name in ("a", "b", "c"):
        (spoiled.parent / f"images/val/{name}.png").write_text("<html>")
    result = nas("search", "--data", spoiled, "--dry-run")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith(
        f"{spoiled}: val: no image can be read: {spoiled.parent}/images/val/a"
    )


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("8h", 28800)])
def test_times_have_units(text: str, seconds: float) -> None:
    assert units.seconds(text) == seconds


@pytest.mark.parametrize(("text", "value"), [("2.5M", 2_500_000), ("800k", 800_000), ("7", 7)])
def test_numbers_have_units(text: str, value: int) -> None:
    assert units.count(text) == value


@pytest.mark.parametrize(
    ("text", "value"), [("8G", 8 * 2**30), ("1.5GiB", 1.5 * 2**30), ("800m", 800 * 2**20), ("7", 7)]
)
def test_amounts_of_memory_have_units(text: str, value: float) -> None:
    assert units.size(text) == value


@pytest.mark.parametrize("name", ["../outside", "/tmp/x", "..", "a/b", "\x1b[31m", "a b", "~", ".hidden", ""])  # noqa: S108 - must not be used
def test_study_names_stay_in_the_runs_folder(name: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    for command in ("status", "trials", "clean"):
        result = nas(command, name, "--runs", tmp_path / "runs")
        assert result.exit_code == 2, result.output
        assert "\x1b" not in result.output
    assert sorted(tmp_path.rglob("*")) == before


def test_terminal_gets_no_control_characters_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = "\x1b]0;title\x07\u202e\x9b2J"
    monkeypatch.chdir(tmp_path)
    Path("model.yaml").write_text(
        yaml.safe_dump({"nc": 2, odd: 1, "backbone": [[-1, 1, odd, []]], "head": [[-1, 1, odd, [odd]]]})
    )
    Path("space.yaml").write_text(
        yaml.safe_dump({"name": odd, "base": odd, "slots": [{"at": {odd: 1}, "choices": {odd: {odd: odd}}}]})
    )
    Path("data.yaml").write_text(
        yaml.safe_dump({"path": odd, "train": odd, "val": odd, "names": [odd]}, allow_unicode=True)
    )
    commands = (
        ("cost", "model.yaml"),
        ("spaces", "space.yaml"),
        ("data", "data.yaml"),
        ("spaces", "derive", "model.yaml"),
    )
    for words in commands:
        result = nas(*words)
        assert result.exit_code == 2, result.output
        assert not {one for one in result.output if one < " " or one in odd[-4:-2]} - {"\n"}, (words, result.output)


def test_markup_in_names_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    odd = "[/red][link=http://x]a[/link][bold"
    show.rows([{"name": odd, "n": 1}], "table", title=odd, columns={"name": "name", "n": "n"})
    show.rows([{"name": odd, "n": 1}], "table", title=odd, columns={"n": "n", "name": "name"}, narrow=())
    show.lines([odd])
    printed = capsys.readouterr()
    assert printed.out.count(odd) >= 3
    assert odd in printed.err
