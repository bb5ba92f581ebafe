"""A confirmation on images that no search has read: what judges, what is refused, and kill -9 in the middle."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from nas.algorithms.paired_comparison import Finding
from nas.cli import app
from nas.execution import worker
from nas.execution.enqueue import enqueue_extremes
from nas.execution.worker import Worker
from nas.records.trial_files import TrialFiles
from nas.report.verdict import CHOSEN_BY
from nas.study.score_cache import ScoreCache
from nas.study.study import Study
from nas.workflows import running
from nas.workflows.confirm import confirm
from search_spaces import Architecture
from search_spaces.errors import DataError, ScoreError, StudyError
from trials import Budget, Outcome
from trials.accuracy.judged import Judged
from trials.accuracy.resampling import image_weights
from trials.data import datasets, digit_scenes
from trials.data.unseen_images import JudgingImages
from trials.provenance import Provenance
from trials.scores import Accuracy

from .conftest import no_matches

MakeStudy = Callable[..., Study]
Score = Callable[..., Outcome]
Run = Callable[[Study], None]
IMAGES = 40
GOLDEN = Path(__file__).parents[1] / "golden/2026-11.tar.xz"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data.yaml with a test split of 40 images."""
    file = digit_scenes.draw(tmp_path / "scenes", train=4, val=2)
    other = digit_scenes.draw(tmp_path / "others", train=1, val=IMAGES).parent
    for kind in ("images", "labels"):
        shutil.copytree(other / kind / "val", file.parent / kind / "test")
    file.write_text(file.read_text().replace("val: images/val\n", "val: images/val\ntest: images/test\n"))
    return file


@pytest.fixture
def gains() -> dict[str, float]:
    """What a model gains on the images that judge, by fingerprint; `images` is the spread of that over images."""
    return {"images": 0.0}


@pytest.fixture
def run(score: Score, gains: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a study by formulas; a training that is judged gets accuracies on each image."""

    def scoring(
        architecture: Architecture,
        budget: Budget,
        folder: Path,
        *arguments: Any,
        judging: JudgingImages | None = None,
        **options: Any,
    ) -> Outcome:
        outcome = score(architecture, budget, folder, *arguments, **options)
        if judging is None or outcome.scores is None:
            return outcome
        number = int(architecture.fingerprint[:8], 16)
        spread = gains["images"] * np.random.default_rng(number).standard_normal(len(judging.images))
        noise = 0.001 * np.random.default_rng([number, budget.seed]).standard_normal()
        each = 0.5 + gains.get(architecture.fingerprint, 0.0) + noise + spread
        judged = Judged(
            fingerprint=judging.fingerprint,
            map50_95=float(each.mean()),
            map50=float(each.mean()),
            resampled=image_weights(len(each)) @ each / len(each),
            matches=no_matches(len(each)),
        )
        judged.write(folder / "judged.npz")
        return replace(outcome, judged=Accuracy(map50_95=judged.map50_95, map50=judged.map50), seconds=30.0)

    def working(study: Study, **_: object) -> None:
        enqueue_extremes(study, study.records())
        Worker(study, deadline=float("inf")).run()

    monkeypatch.setattr(worker, "evaluate", scoring)
    monkeypatch.setattr(running, "supervise", working)
    return working


@pytest.fixture
def searched(make_study: MakeStudy, data: Path, run: Run) -> Study:
    loaded = datasets.load(data)
    settings = {"data": str(data), "data_fingerprint": loaded.fingerprint, "classes": loaded.classes}
    budget = Budget(data=data, epochs=3, deploy_size=64)
    study = make_study(trials=6, start="start: [{4: {UIB: {}}}]", budget=budget, **settings)
    run(study)
    return study


def nas(command: str, study: Study, *arguments: str) -> Result:
    return CliRunner().invoke(app, [command, study.name, "--runs", str(study.folder.parent), *arguments])


def test_verdict_stands_on_the_images_of_test(searched: Study) -> None:
    result = nas("confirm", searched, "--top", "1")
    assert result.exit_code == 0, result.output
    assert f"judged on {IMAGES} images of test, which no search has read" in result.stdout.splitlines()
    assert "(on other images)" in result.stdout
    verdict = searched.verdict()
    assert verdict is not None
    assert verdict.judged
    (finalist,) = verdict.finalists
    assert abs(finalist.difference) < 0.2  # that of the formula, not of the search's scores
    assert verdict.stock_map50_95 == pytest.approx(0.5, abs=0.001)
    document = json.loads(nas("confirm", searched, "--format", "json").stdout)
    assert document["images"] == f"{IMAGES} images of test, which no search has read"
    assert nas("pareto", searched).stderr.splitlines().count(document["lines"][1]) == 1
    judging = Study.open(searched.folder.with_name("small-confirm")).settings.judging
    assert judging is not None
    assert (judging.source, judging.images) == ("test", IMAGES)
    assert finalist.image_error == pytest.approx(0, abs=0.01)  # all images show the same difference


def test_few_images_that_differ_widen_the_interval(searched: Study, run: Run, gains: dict[str, float]) -> None:
    best = confirm(searched, top=1, seeds=5)
    gains |= {record.fingerprint: 0.01 for record in best.records() if record.role != "stock"}
    run(best)
    narrow = searched.verdict()
    best.folder.rename(best.folder.with_name("narrow"))
    gains["images"] = 0.1
    run(confirm(searched, top=1, seeds=5))
    wide = searched.verdict()
    assert narrow is not None
    assert wide is not None
    (sure,), (unsure,) = narrow.finalists, wide.finalists
    assert sure.finding is Finding.BETTER
    assert sure.image_error == pytest.approx(0, abs=0.01)
    assert unsure.finding is Finding.UNDECIDED
    assert unsure.image_error is not None
    assert unsure.image_error > 5 * unsure.seed_error
    assert "0.5 points cannot be told on so few images, with any number of seeds" in unsure.sentence


def test_a_search_is_not_judged(searched: Study) -> None:
    assert searched.settings.judging is None
    assert not list(searched.folder.rglob("judged.npz"))


def test_without_a_test_split_the_images_of_val_judge(
    searched: Study, data: Path, run: Run, gains: dict[str, float]
) -> None:
    data.write_text(data.read_text().replace("test: images/test\n", ""))
    gains["images"] = 0.1
    after = confirm(searched, top=1, seeds=2)
    run(after)
    verdict = searched.verdict()
    assert verdict is not None
    assert (verdict.images, verdict.judged) == ("2 images that the search chose by", False)
    (finalist,) = verdict.finalists
    assert finalist.image_error is not None
    assert finalist.image_error > 1  # two images that differ
    assert "judged on 2 images that the search chose by; a test split or " in "\n".join(verdict.lines())
    data.write_text(data.read_text() + "test: images/test\n")
    assert confirm(searched).settings.judging == after.settings.judging  # a verdict does not mix images


def test_confirmation_of_an_earlier_version_goes_on_over_seeds_alone(searched: Study, data: Path, run: Run) -> None:
    data.write_text(data.read_text().replace("test: images/test\n", ""))
    after = confirm(searched, top=1, seeds=2)
    after.set_file(after.file.model_copy(update={"settings": after.settings.model_copy(update={"judging": None})}))
    run(Study.open(after.folder))
    verdict = searched.verdict()
    assert verdict is not None
    assert (verdict.images, verdict.judged) == (CHOSEN_BY, False)
    assert verdict.finalists[0].image_error is None
    assert f"judged on {CHOSEN_BY}, with intervals over seeds alone; " in "\n".join(verdict.lines())
    assert confirm(searched).settings.judging is None  # goes on without


def test_changed_images_are_refused(searched: Study, run: Run, data: Path) -> None:
    after = confirm(searched, top=1, seeds=2)
    label = data.parent / "labels/test/0000.txt"
    before = label.read_text()
    label.write_text("0 0.5 0.5 0.5 0.5\n")
    line = f"small-confirm: the images of test that judge it have changed .*: {IMAGES} then, other files or labels now"
    with pytest.raises(StudyError, match=line):
        confirm(searched)
    with pytest.raises(StudyError, match=line):
        run(Study.open(after.folder))
    label.write_text(before)
    (data.parent / "images/test/0001.png").rename(data.parent / "0001.png")
    with pytest.raises(StudyError, match=f"{IMAGES} then, {IMAGES - 1} now"):
        confirm(searched)


def test_mistakes_in_test_are_said_before_anything_is_trained(searched: Study, data: Path) -> None:
    (data.parent / "labels/test/0000.txt").write_text("99 0.5 0.5 0.5 0.5\n")
    with pytest.raises(DataError, match=r"0000\.txt:1: class 99"):
        confirm(searched)
    assert not searched.folder.with_name("small-confirm").exists()


def test_one_image_does_not_judge(searched: Study, data: Path) -> None:
    for path in sorted((data.parent / "images/test").iterdir())[1:]:
        path.unlink()
    with pytest.raises(DataError, match=r"0000\.png: the only image of test; two are the least"):
        confirm(searched)


@pytest.mark.parametrize("damage", ["missing", "torn", "other images"])
def test_lost_result_is_an_error_and_is_trained_again(damage: str, searched: Study, run: Run) -> None:
    after = confirm(searched, top=1, seeds=2)
    run(after)
    whole = searched.verdict()
    assert whole is not None
    path = after.files(2).judged
    match damage:
        case "missing":
            path.unlink()
        case "torn":
            path.write_bytes(path.read_bytes()[:100])
        case _:
            replace(Judged.read(path), fingerprint="other").write(path)
    runs = searched.folder.parent
    with pytest.raises(
        ScoreError, match=rf"0002/judged\.npz: .* \(train it again with: nas confirm small --runs {runs}"
    ):
        searched.verdict()
    again = confirm(searched)
    assert len(again.records()) == 5
    run(again)
    assert searched.verdict() == whole
    assert confirm(searched).remaining_trials(confirm(searched).records()) == 0


def test_cache_keeps_the_matches(searched: Study, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "scores")
    monkeypatch.setattr(ScoreCache, "of_user", lambda: cache)
    scoring, trained = vars(worker)["evaluate"], 0

    def counting(*arguments: Any, **options: Any) -> Outcome:
        nonlocal trained
        trained += 1
        outcome = scoring(*arguments, **options)
        provenance = Provenance.of(arguments[1], datasets.load(arguments[1].data))
        return replace(outcome, provenance=provenance)

    monkeypatch.setattr(worker, "evaluate", counting)
    figures = []
    for earlier, times in (("none", 4), ("first", 4), ("second", 5)):
        if earlier == "second":
            next(cache.folder.rglob("*.npz")).write_bytes(b"damaged")
        run(confirm(searched, top=1, seeds=2))
        assert trained == times
        verdict = searched.verdict()
        assert verdict is not None
        figures.append([(one.difference, one.low, one.high, one.image_error) for one in verdict.finalists])
        searched.folder.with_name("small-confirm").rename(searched.folder.with_name(f"after-{earlier}"))
    assert figures[0] == figures[1] == figures[2]


NAS = [sys.executable, "-c", "from nas.cli import main; main()"]


def document_of(text: str) -> dict[str, Any]:
    """Return a verdict as JSON without how long its trainings took."""
    document = json.loads(re.sub(r", about \d[\d.]* (s|min|h)", "", text))
    for finalist in document["finalists"]:
        if finalist["further"]:
            del finalist["further"]["seconds"]
    assert isinstance(document, dict)
    return document


@pytest.mark.slow
def test_killed_confirmation_gives_the_same_verdict_to_the_last_digit(tmp_path: Path) -> None:
    with tarfile.open(GOLDEN) as archive:
        archive.extractall(tmp_path, filter="data")
    folder = next(path.parent for path in tmp_path.rglob("tiny.yaml"))
    data = folder / "data"
    for kind in ("images", "labels"):
        for path in list((data / kind / "train").iterdir()):
            (data / kind / "test").mkdir(exist_ok=True)
            shutil.copy(path, data / kind / "test" / f"other-{path.name}")
    text = (data / "data.yaml").read_text()
    (data / "data.yaml").write_text(f"{text}\ntest: images/test\n")

    def nas(*arguments: object) -> str:
        result = subprocess.run([*NAS, *map(str, arguments)], cwd=folder, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr[-3000:]
        return result.stdout

    small = ["--epochs", 40, "--base-epochs", 60, "--image-size", 64, "--deploy-size", 64, "--batch", 4, "--workers", 1]
    nas("search", "--space", "space.yaml", "--data", "data/data.yaml", "--study", "tiny", "--trials", 4, *small)
    whole = document_of(nas("confirm", "tiny", "--seeds", 2, "--top", 1, "--format", "json"))
    assert whole["reason"] == ""
    assert whole["judged"]
    runs = folder / "runs/nas"
    (runs / "tiny-confirm").rename(runs / "whole")

    command = [*NAS, "confirm", "tiny", "--seeds", "2", "--top", "1"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, start_new_session=True, stdout=log, stderr=log)
    second = TrialFiles.of(runs / "tiny-confirm", 1)
    deadline = time.monotonic() + 300
    while len(second.read_epochs()) < 5:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not second.outcome.exists()
    again = document_of(nas("confirm", "tiny", "--format", "json"))
    assert again == whole
