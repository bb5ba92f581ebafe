"""From the command line to an exported model, with real trainings, as small as they get."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

pytestmark = pytest.mark.slow

SMALL = ["--epochs", "1", "--image-size", "64", "--deploy-size", "64", "--workers", "2", "--device", "cpu"]
NAS = [sys.executable, "-c", "from nas.cli import main; main()"]

FRESH = """\
import json, sys
import search_spaces
from ultralytics import YOLO
folder, imgsz, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
model = YOLO(folder + "/weights.pt")
val = model.val(data=folder + "/data.yaml", imgsz=imgsz, batch=batch, plots=False, project=folder, device="cpu")
built = YOLO(folder + "/model.yaml")
count = lambda m: sum(p.numel() for p in m.model.parameters())
print(json.dumps({"map50_95": val.box.map, "weights": count(model), "built": count(built)}))
"""


def nas(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [*NAS, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)


def table(name: str, folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(nas(name, "v5n-digits", "--format", "csv", folder=folder).stdout.splitlines()))


def test_members_are_searched_and_the_model_of_one_is_exported(tmp_path: Path) -> None:
    small = ["--epochs", "1", "--base-epochs", "1", *SMALL[2:]]
    nas("search", "--space", "v5n,v8n", "--study", "both", "--trials", 5, *small, folder=tmp_path)
    rows = json.loads(nas("trials", "both", "--format", "json", folder=tmp_path).stdout)
    assert [row["ending"] for row in rows] == ["finished"] * 5
    assert [row["member"] for row in rows[:2]] == ["v5n", "v8n"]
    study = tmp_path / "runs" / "nas" / "both"
    assert {folder.name for folder in (study / "base").iterdir()} == {"v5n", "v8n"}
    inherited = [row["inherited"] for row in rows]
    assert inherited[:2] == [1.0, 1.0]
    assert min(inherited[2:]) > 0
    out = nas("export", "both", "--trial", 4, folder=tmp_path)
    runs = subprocess.run(
        [sys.executable, "-c", FRESH, out.stdout.strip(), "64", "16"], capture_output=True, text=True, check=False
    )
    assert runs.returncode == 0, runs.stderr[-2000:]
    assert "they and the files agree" in nas("fsck", "both", folder=tmp_path).stderr


OWN_SPACE = """\
name: own
base: yolov5n.yaml
modules: [twice.py]
slots: [{at: {host: C3}, choices: {Twice: {kernel: [1, 3]}}}]
insert: [{after: 9, choices: {UIB: {}}}]
macro: {width: {P5: [0.75]}, image_size: [32, 64]}
"""


def test_user_operator_is_searched_and_exported(tmp_path: Path, own_operator: str) -> None:
    mine, elsewhere = tmp_path / "mine", tmp_path / "elsewhere"
    mine.mkdir()
    elsewhere.mkdir()
    (mine / "twice.py").write_text(own_operator)
    (mine / "space.yaml").write_text(OWN_SPACE)
    small = ["--epochs", "1", "--image-size", "64", "--workers", "2", "--device", "cpu"]
    nas("search", "--space", mine / "space.yaml", "--study", "own", "--trials", 4, *small, folder=tmp_path)
    (mine / "twice.py").unlink()
    listed = nas("trials", "own", "--format", "json", folder=tmp_path).stdout
    rows = json.loads(listed)
    assert [row["ending"] for row in rows] == ["finished"] * 4
    assert "Twice" in listed
    with_it = next(row for row in rows if any("Twice" in str(pick) for pick in row["picks"].values()))
    nas("resume", "own", "--trials", 5, folder=tmp_path)
    out = nas("export", "own", "--trial", with_it["trial"], "--out", elsewhere / "model", folder=tmp_path)
    exported = Path(out.stdout.strip())
    assert (exported / "twice.py").read_text() == own_operator
    runs = subprocess.run(
        [sys.executable, "-c", FRESH, exported, "64", "16"], cwd=elsewhere, capture_output=True, text=True, check=False
    )
    assert runs.returncode == 0, runs.stderr[-2000:]
    fresh = json.loads(runs.stdout.splitlines()[-1])
    assert fresh["weights"] == fresh["built"]
    assert json.loads((exported / "summary.json").read_text())["params"] <= fresh["weights"]


def test_fresh_seeds_judge_a_search(tmp_path: Path) -> None:
    small = ["--epochs", "1", "--base-epochs", "12", *SMALL[2:]]  # fewer, and nothing is learned that can be confirmed
    nas("search", "--space", "v5", "--trials", 3, *small, folder=tmp_path)
    front = nas("pareto", "v5n-digits", "--format", "json", folder=tmp_path)
    others = [row for row in json.loads(front.stdout) if row["picks"]]
    assert others
    document = json.loads(
        nas("confirm", "v5n-digits", "--seeds", 2, "--top", 1, "--format", "json", folder=tmp_path).stdout
    )
    assert document["planned"] == 2
    assert document["unfinished"] == 0
    rows = json.loads(nas("trials", "v5n-digits-confirm", "--format", "json", folder=tmp_path).stdout)
    assert [(row["repeat"], row["ending"]) for row in rows] == [(0, "finished")] * 2 + [(1, "finished")] * 2
    assert len({row["fingerprint"] for row in rows}) == 2
    outcomes = [tmp_path / f"runs/nas/v5n-digits-confirm/trials/{row['trial']:04d}/outcome.json" for row in rows]
    seeds = [json.loads(path.read_text())["provenance"]["seed"] for path in outcomes]
    assert seeds == [1000, 1000, 1001, 1001]
    printed = nas("pareto", "v5n-digits", folder=tmp_path).stderr
    assert document["reason"] or document["lines"][0] in printed


def test_a_study_is_searched_resumed_and_exported(tmp_path: Path) -> None:
    nas("search", "--space", "v5", "--trials", 3, *SMALL, folder=tmp_path)
    first = table("trials", tmp_path)
    assert [row["ending"] for row in first] == ["finished"] * 3
    nas("search", "--space", "v5", "--trials", 4, *SMALL, folder=tmp_path)
    rows = table("trials", tmp_path)
    assert rows[:3] == first
    assert len({row["fingerprint"] for row in rows}) == 4

    refused = subprocess.run(
        [*NAS, "search", "--space", "v5", *SMALL, "--epochs", "2", "--study", "v5n-digits"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2
    assert "budget.epochs: 1 there, 2 here" in refused.stderr

    exported = Path(nas("export", "v5n-digits", "--best", "map", folder=tmp_path).stdout.strip())
    assert {path.name for path in exported.iterdir()} == {
        "README.md",
        "model.yaml",
        "weights.pt",
        "data.yaml",
        "summary.json",
    }
    summary = json.loads((exported / "summary.json").read_text())
    fresh = subprocess.run(
        [sys.executable, "-c", FRESH, str(exported), "64", "16"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    validated = json.loads(fresh.stdout.splitlines()[-1])
    assert validated["map50_95"] == pytest.approx(summary["map50_95"], abs=0.005)
    assert validated["weights"] == validated["built"] == summary["as_built"]["params"]
    nas(
        *(
            "yolo",
            "train",
            f"model={exported / 'model.yaml'}",
            f"data={exported / 'data.yaml'}",
            "epochs=1",
            "imgsz=64",
        ),
        *("plots=False", "device=cpu", f"project={tmp_path / 'full'}"),
        folder=tmp_path,
    )


def test_search_resumes_after_kill_9_of_all_its_processes(tmp_path: Path) -> None:
    search = subprocess.Popen(
        [*NAS, "search", "--space", "v5", "--trials", "5", *SMALL], cwd=tmp_path, stderr=subprocess.DEVNULL
    )
    ended: list[dict[str, str]] = []
    study = tmp_path / "runs" / "nas" / "v5n-digits"
    while len(ended) < 2:
        time.sleep(1)
        assert search.poll() is None, "the search ended before it could be killed"
        ended = [row for row in table("trials", tmp_path) if row["ending"]] if (study / "study.json").exists() else []
    for pid in _tree(search.pid):
        os.kill(pid, signal.SIGKILL)
    search.wait()
    before = [row for row in table("trials", tmp_path) if row["ending"]]
    nas("resume", "v5n-digits", folder=tmp_path)
    after = table("trials", tmp_path)
    assert [row for row in after if row["trial"] in {row["trial"] for row in before}] == before
    finished = [row["fingerprint"] for row in after if row["ending"] == "finished"]
    assert len(finished) == len(set(finished)) == 5


def _tree(root: int) -> list[int]:
    """A process and all below it."""
    children = Path(f"/proc/{root}/task/{root}/children").read_text().split()
    return [root, *(pid for child in children for pid in _tree(int(child)))]


def test_search_changes_nothing_in_the_user_folder(tmp_path: Path) -> None:
    """JPEGs with bytes behind their end, as phones write them, in folders that are read only."""
    data = tmp_path / "data"
    for split in ("train", "val"):
        images, labels = data / "images" / split, data / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for name in "abcdefgh":
            Image.new("RGB", (64, 64), (200, 30, 30)).save(images / f"{name}.jpg")
            (images / f"{name}.jpg").write_bytes((images / f"{name}.jpg").read_bytes() + b"TAIL" + bytes(8))
            (labels / f"{name}.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    (data / "images/train/a.jpg").write_bytes(b"")
    (data / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [no]\n")
    for folder in (data, *(path for path in data.rglob("*") if path.is_dir())):
        folder.chmod(0o555)

    def state() -> dict[Path, tuple[int, bytes]]:
        return {
            path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in data.rglob("*")
        }

    before = state()
    options = ["--space", "v5", "--scale", "n", "--study", "own", "--data", data / "data.yaml"]
    out = nas("search", *options, "--trials", 2, "--base-epochs", 1, *SMALL, folder=tmp_path)
    assert "left out  train: 1 of 8 images, which cannot be read: images/train/a.jpg: an empty file" in out.stderr
    nas("resume", "own", "--trials", 3, folder=tmp_path)
    assert state() == before
    for folder in (data, *(path for path in data.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
