"""Commands as a user types them, on a study that was scored by a formula."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from optuna.trial import TrialState
from PIL import Image
from typer.testing import CliRunner, Result
from ultralytics.nn.tasks import yaml_model_load

from nas._version import __version__
from nas.cli import app
from nas.execution import worker
from nas.execution.worker import Worker
from nas.records.record import COLUMNS, Record, cheapest_as_accurate
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


def test_a_space_that_was_changed_can_be_read_about_but_not_searched(study: Study) -> None:
    study.save_records()
    path = study.folder / "space.yaml"
    path.write_text(path.read_text().replace("[2, 4]", "[2, 8]"))
    assert nas("trials", "small", *runs(study)).exit_code == 0
    refused = nas("resume", "small", *runs(study))
    assert refused.exit_code == 2
    assert "space.yaml: the space has changed since the study was created" in " ".join(refused.stderr.split())


def test_what_was_interrupted_has_not_failed(study: Study) -> None:
    study.enqueue(study.space.stock)
    number = study.trials()[-1]._trial_id
    study.storage.set_trial_state_values(number, TrialState.RUNNING)
    study.storage.set_trial_state_values(number, TrialState.FAIL)  # as a supervisor ends what a killed worker left
    shown = nas("trials", "small", *runs(study)).stdout
    assert "interrupted" in shown
    assert "fail" not in shown
    refused = nas("export", "small", "--trial", 5, *runs(study))
    assert "trial 5 is interrupted" in " ".join(refused.stderr.split())


def test_the_help_of_resume_names_its_own_defaults() -> None:
    shown = " ".join(nas("resume", "--help").stdout.replace("│", " ").split())
    assert shown.count("[default: as before]") == 4
    assert "else 30" not in shown


def test_its_version() -> None:
    assert nas("--version").stdout == f"nas {__version__}\n"


def test_trials_as_json_have_the_names_that_stay(study: Study) -> None:
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


def test_pareto_as_csv_is_the_front(study: Study) -> None:
    rows = list(csv.DictReader(io.StringIO(nas("pareto", "small", *runs(study), "--format", "csv").stdout)))
    assert [int(row["trial"]) for row in rows] == [record.trial for record in study.front()]


def test_the_front_by_what_is_expected_is_one(study: Study) -> None:
    rows = json.loads(nas("pareto", "small", *runs(study), "--expected", "--format", "json").stdout)
    assert rows
    assert all(0 < row["expected"] < 1 for row in rows)
    pairs = [(row["expected"], row["gflops"]) for row in rows]
    assert pairs == sorted(pairs, reverse=True)
    assert "expected" in nas("pareto", "small", *runs(study), "--expected").stdout


def test_pareto_never_claims_a_gain_from_one_seed(study: Study) -> None:
    assert "No evidence of gain" in nas("pareto", "small", *runs(study)).stderr


def test_what_to_type_next_is_right_wherever_the_study_lies(study: Study) -> None:
    told = " ".join(nas("pareto", "small", *runs(study)).stderr.split())
    where = " ".join(map(str, runs(study)))
    assert "nas confirm" not in told  # the front is the stock model alone
    assert f"export the most accurate with: nas export small {where} --best map" in told


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
def test_as_accurate_and_cheaper(front: list[tuple[int, float, float]], found: int | None) -> None:
    bargain = cheapest_as_accurate([record_of(*each) for each in front], record_of(0, 0.5, 7.6))
    assert (bargain and bargain.trial) == found


def test_status_counts(study: Study) -> None:
    (row,) = json.loads(nas("status", *runs(study), "--format", "json").stdout)
    assert (row["study"], row["trials"], row["of"], row["running"]) == ("small", 5, 5, "no")


def test_an_unknown_study_names_the_nearest_and_ends_with_2(study: Study) -> None:
    result = nas("pareto", "smal", *runs(study))
    assert result.exit_code == 2
    assert "did you mean 'small'?" in result.stderr
    assert result.stdout == ""


def test_clean_says_what_it_would_delete_and_deletes_nothing(study: Study) -> None:
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
    told = nas("clean", "small", "--all", *runs(study))
    assert told.exit_code == 0
    assert "is a link: what it leads to" in told.stderr
    assert not study.folder.is_symlink()
    assert (outside / "study.json").is_file()


def test_clean_all_deletes_the_study(study: Study) -> None:
    assert nas("clean", "small", "--all", *runs(study)).exit_code == 0
    assert not study.folder.exists()


def test_spaces_lists_the_catalog() -> None:
    rows = json.loads(nas("spaces", "--format", "json").stdout)
    assert [row["space"] for row in rows] == ["v5", "v8", "v9", "v10", "v11", "v12", "v26"]
    assert all(row["size"] > 1e9 for row in rows)


def test_a_space_tells_what_it_can_reach() -> None:
    told = json.loads(nas("spaces", "v5", "--format", "json", "--deploy-size", 64).stdout)
    assert told["gflops"][0] < told["stock"]["gflops"] < told["gflops"][1]
    assert {slot["slot"] for slot in told["slots"]} >= {"2", "4", "6", "8"}


def printed(folder: Path) -> Path:
    """YOLOv5n as an article prints it, with its block in one layer."""
    document = yaml_model_load("yolov5n.yaml")
    document["backbone"][2][2], document["head"][-1][3] = "C3_UIB", ["nc", "anchors"]
    del document["scales"], document["scale"], document["yaml_file"]
    file = folder / "printed.yaml"
    shape = {"anchors": [[10, 13, 16, 30, 33, 23]] * 3, "depth_multiple": 0.33, "width_multiple": 0.25}
    file.write_text(yaml.safe_dump(document | shape))
    return file


def test_a_printed_file_is_counted_as_it_is_and_as_it_should_be(tmp_path: Path) -> None:
    file = printed(tmp_path)
    right = nas("cost", file, "--image-size", 64, "--format", "json")
    kept = nas("cost", file, "--image-size", 64, "--format", "json", "--as-printed")
    notes = json.loads(right.stdout)["notes"]
    assert [note.partition(":")[0] for note in notes] == ["C3_UIB", "Detect"]
    assert right.stderr.count("note: ") == 2
    told, said = json.loads(right.stdout), json.loads(kept.stdout)
    assert said["layers"][2] == {**said["layers"][2], "module": "C3_UIB", "params": 3104}
    assert said["layers"][-1] == {**said["layers"][-1], "module": "AnchorDetect", "params": 115_005}
    assert told["layers"][-1] == {**told["layers"][-1], "module": "Detect", "params": 897_664}


def test_cost_tells_what_counters_overlook_and_what_is_trained() -> None:
    told = json.loads(nas("cost", "yolov9c-dcnv4", "--image-size", 64, "--format", "json").stdout)
    assert told["trained"]["params"] > 1.9 * told["params"]
    assert set(told["counters"]["overlooked"]) == {"DCNv4"}


def test_the_models_that_come_along() -> None:
    rows = json.loads(nas("models", "--format", "json").stdout)
    assert {row["model"] for row in rows} == set(model_reader.catalog())
    assert all(Path(row["path"]).is_file() and row["about"] and row["params"] > 2_000_000 for row in rows)


def test_cost_as_json_has_the_names_that_stay() -> None:
    told = json.loads(nas("cost", "yolov8n.yaml", "--image-size", 64, "--format", "json").stdout)
    assert told["params"] == 3_157_200
    assert set(told) == {"params", "gflops", "image_size", "classes", "scale", "deployed", "notes", "layers"}
    assert (told["scale"], told["notes"]) == ("n", [])
    assert set(told["deployed"]) == {"params", "gflops"}
    assert set(told["layers"][0]) == {"index", "module", "params", "gflops"}
    assert sum(layer["params"] for layer in told["layers"]) == told["params"]


@pytest.fixture
def scaled(tmp_path: Path) -> Path:
    """A model file with two scales and none in its name."""
    file = tmp_path / "mine.yaml"
    rows = [[-1, 1, "Conv", [64, 3, 2]], [-1, 3, "C2f", [256, True]], [-1, 1, "C2f_DCNv4", [256, True]]]
    head = [[[1, 2], 1, "Detect", ["nc"]]]
    scales = {"n": [0.33, 0.25, 1024], "s": [0.33, 0.5, 1024]}
    file.write_text(yaml.safe_dump({"nc": 2, "scales": scales, "backbone": rows, "head": head}))
    return file


def test_cost_says_which_scale_it_counts_and_takes_another(scaled: Path) -> None:
    first = nas("cost", scaled, "--image-size", 64)
    assert "note: counted at n, the first scale of the file's table; --scale takes another (s)" in first.stderr
    assert "mine.yaml at scale n" in " ".join(first.stdout.split())
    params = {}
    for scale in ("n", "s"):
        told = json.loads(nas("cost", scaled, "--image-size", 64, "--scale", scale, "--format", "json").stdout)
        assert told["scale"] == scale
        assert not any("first scale" in note for note in told["notes"])
        params[scale] = told["params"]
    assert params["s"] > 2 * params["n"]
    of_name = scaled.rename(scaled.with_name("yolov8s-mine.yaml"))
    assert json.loads(nas("cost", of_name, "--image-size", 64, "--format", "json").stdout)["params"] == params["s"]


@pytest.mark.parametrize("command", [("cost",), ("spaces", "derive"), ("check", "--model")])
@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("mine.yaml", "scale: the model has no scale 'q' (one of n, s)"),
        ("yolov9c.yaml", "scale: the model has no table"),
    ],
    ids=["a table", "no table"],
)
def test_a_scale_that_a_model_lacks(command: tuple[str, ...], model: str, told: str, scaled: Path) -> None:
    file = scaled if model == "mine.yaml" else model
    result = nas(*command, file, "--scale", "q")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith(f"{model}: {told}")


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


@pytest.mark.parametrize(("flags", "told"), WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_one_line_and_nothing_is_written(
    flags: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = nas("search", *flags)
    assert result.exit_code == 2
    assert told in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_plan_accounts_for_its_data(spoiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = nas("search", "--data", spoiled, "--dry-run")
    assert result.exit_code == 0
    assert REMARKS in result.stderr
    plan = json.loads(nas("search", "--data", spoiled, "--dry-run", "--format", "json").stdout)
    assert plan["data"] == json.loads(nas("data", spoiled, "--format", "json").stdout)
    assert plan["workers"]


def test_a_data_set_is_accounted_for_by_itself(spoiled: Path) -> None:
    assert nas("data", spoiled).stdout == REMARKS
    told = json.loads(nas("data", spoiled, "--format", "json").stdout)
    assert (told["name"], told["classes"], told["path"]) == ("cats", ["no"], str(spoiled))
    assert told["train"] == {
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
    assert told["looks_wrong"] == ["val: 2 images: on so few, scores differ by chance"]


def test_a_data_set_that_cannot_be_scored_is_refused_by_the_dry_run(spoiled: Path) -> None:
    for name in ("a", "b", "c"):
        (spoiled.parent / f"images/val/{name}.png").write_text("<html>")
    result = nas("search", "--data", spoiled, "--dry-run")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith(
        f"{spoiled}: val: no image can be read: {spoiled.parent}/images/val/a"
    )


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("8h", 28800)])
def test_times_have_units(text: str, seconds: float) -> None:
    from nas.cli import options

    assert options.seconds(text) == seconds


@pytest.mark.parametrize(("text", "value"), [("2.5M", 2_500_000), ("800k", 800_000), ("7", 7)])
def test_numbers_have_units(text: str, value: int) -> None:
    from nas.cli.options import number

    assert number(text) == value


@pytest.mark.parametrize(
    ("text", "value"), [("8G", 8 * 2**30), ("1.5GiB", 1.5 * 2**30), ("800m", 800 * 2**20), ("7", 7)]
)
def test_amounts_of_memory(text: str, value: float) -> None:
    from nas.cli.options import size

    assert size(text) == value
